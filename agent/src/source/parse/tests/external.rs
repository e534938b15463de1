//! How Services are reached from outside.

use serde_json::{Value, json};

use super::{said, service};
use crate::source::{Family, Service};

/// A dual-stack Service with this in its `spec` and `status.loadBalancer.ingress`.
fn parse(spec: Value, ingress: Value) -> (Service, Vec<String>) {
    let mut patch = json!({
        "spec": {"clusterIPs": ["10.96.0.1", "fd00::1"], "type": "LoadBalancer"},
        "status": {"loadBalancer": {"ingress": ingress}},
    });
    super::merge(&mut patch["spec"], spec);
    let parsed = service(patch);
    let said = said(&parsed);
    (parsed.object.unwrap(), said)
}

#[test]
fn a_plain_service_has_nothing_outside() {
    let service = service(json!({})).object.unwrap();
    assert!(service.external_ips.is_empty() && service.load_balancer_ips.is_empty());
    assert_eq!((service.source_ranges, service.health_check_node_port), (None, None));
}

/// `externalIPs`, those that are left, what is said.
#[test]
fn external_ips() {
    let rows: &[(&[&str], &[&str], &[&str])] = &[
        (&["192.0.2.1", "2001:db8::1"], &["192.0.2.1", "2001:db8::1"], &[]),
        (&["192.0.2.1", "192.000.2.1"], &["192.0.2.1"], &[]),
        (&["x", "192.0.2.1"], &["192.0.2.1"], &["[0]: \"x\" is no IP address: this address is not served"]),
        (&["127.0.0.1"], &[], &["[0]: 127.0.0.1 is a loopback address: this address is not served"]),
        (&["::"], &[], &["[0]: :: is the unspecified address: this address is not served"]),
        (
            &["169.254.169.254", "fe80::1"],
            &[],
            &[
                "[0]: 169.254.169.254 is a link-local address: this address is not served",
                "[1]: fe80::1 is a link-local address: this address is not served",
            ],
        ),
    ];
    for (given, left, want) in rows {
        let (service, said) = parse(json!({"externalIPs": given}), json!(null));
        let found: Vec<String> = service.external_ips.iter().map(ToString::to_string).collect();
        assert_eq!(found, *left, "{given:?}");
        let want: Vec<String> = want.iter().map(|want| format!("spec.externalIPs{want}")).collect();
        assert_eq!(said, want, "{given:?}");
    }
}

/// Items of `ingress`, the addresses that are left, what is said.
#[test]
fn load_balancer_addresses() {
    let rows: &[(Value, &[&str], &[&str])] = &[
        (json!([{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}]), &["192.0.2.1", "2001:db8::1"], &[]),
        (json!([{"hostname": "lb.example.org"}, {"ip": ""}]), &[], &[]),
        (json!([{"ip": "192.0.2.1", "ipMode": "VIP"}]), &["192.0.2.1"], &[]),
        (json!([{"ip": "192.0.2.1", "ipMode": "Proxy"}, {"ip": "192.0.2.2"}]), &["192.0.2.2"], &[]),
        (
            json!([{"ip": "192.0.2.1", "ipMode": "proxy"}]),
            &["192.0.2.1"],
            &["[0].ipMode: \"proxy\" is no mode (VIP, Proxy): taken as VIP"],
        ),
        (
            json!([{"ip": "192.0.2.1/32"}, {"ip": "192.0.2.2"}, {"ip": "192.0.2.2"}]),
            &["192.0.2.2"],
            &["[0].ip: \"192.0.2.1/32\" is no IP address: this address is not served"],
        ),
    ];
    for (ingress, left, want) in rows {
        let (service, said) = parse(json!({}), ingress.clone());
        let found: Vec<String> = service.load_balancer_ips.iter().map(ToString::to_string).collect();
        assert_eq!(found, *left, "{ingress}");
        let want: Vec<String> =
            want.iter().map(|want| format!("status.loadBalancer.ingress{want}")).collect();
        assert_eq!(said, want, "{ingress}");
    }
}

#[test]
fn an_address_of_a_family_that_the_service_has_not_is_named() {
    let parsed = service(json!({
        "spec": {"externalIPs": ["2001:db8::1"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "2001:db8::2"}]}},
    }));
    assert_eq!(
        said(&parsed),
        [
            "spec.externalIPs[0]: 2001:db8::1 is an IPv6 address, and the Service has no IPv6: this address is not \
             served",
            "status.loadBalancer.ingress[0].ip: 2001:db8::2 is an IPv6 address, and the Service has no IPv6: this \
             address is not served",
        ]
    );
    let service = parsed.object.unwrap();
    assert!(service.external_ips.is_empty() && service.load_balancer_ips.is_empty());
}

/// `loadBalancerSourceRanges`; the networks that are left; whether IPv4 and IPv6 are restricted to them; what is said.
#[test]
fn source_ranges() {
    const SOME: &str = "who is in no other range may not use the load balancer's addresses";
    const NOBODY: &str = "nobody may use the load balancer's addresses";
    let bad = |n: usize, text: &str, why: &str, then: &str| {
        format!("spec.loadBalancerSourceRanges[{n}]: {text:?} is {why}: {then}")
    };
    let no_network = "no network (address/bits)";
    type Row<'a> = (&'a [&'a str], &'a [&'a str], [bool; 2], Vec<String>);
    let rows: Vec<Row<'_>> = vec![
        (&[], &[], [false, false], vec![]),
        (&["", " "], &[], [false, false], vec![]),
        (&["192.0.2.0/24"], &["192.0.2.0/24"], [true, false], vec![]),
        (&["2001:db8::/32"], &["2001:db8::/32"], [false, true], vec![]),
        (&[" 192.0.2.7/24 ", "192.0.2.0/24"], &["192.0.2.0/24"], [true, false], vec![]),
        (&["0.0.0.0/0"], &["0.0.0.0/0"], [true, false], vec![]),
        (
            &["192.0.2.0/33", "198.51.100.0/24"],
            &["198.51.100.0/24"],
            [true, true],
            vec![bad(0, "192.0.2.0/33", no_network, SOME)],
        ),
        (
            &["192.0.2.0", "x/8", "::ffff:192.0.2.0/120", "192.0.2.0/+8"],
            &[],
            [true, true],
            vec![
                bad(0, "192.0.2.0", no_network, NOBODY),
                bad(1, "x/8", "no IP address", NOBODY),
                bad(2, "::ffff:192.0.2.0/120", "an IPv4 address mapped into IPv6", NOBODY),
                bad(3, "192.0.2.0/+8", no_network, NOBODY),
            ],
        ),
    ];
    for (given, left, restricted, want) in rows {
        let (service, said) = parse(json!({"loadBalancerSourceRanges": given}), json!(null));
        let ranges = service.source_ranges.as_deref();
        let networks =
            ranges.map(|ranges| ranges.networks.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(networks.unwrap_or_default(), left, "{given:?}");
        let found =
            [Family::V4, Family::V6].map(|family| ranges.is_some_and(|ranges| ranges.restrict(family)));
        assert_eq!((found, said), (restricted, want), "{given:?}");
    }
}

#[test]
fn health_check_node_port() {
    for (given, left, problems) in
        [(json!(30000), Some(30000), 0), (json!(0), None, 0), (json!(70000), None, 1)]
    {
        let (service, said) = parse(json!({"healthCheckNodePort": given}), json!(null));
        assert_eq!((service.health_check_node_port, said.len()), (left, problems), "{given}: {said:?}");
    }
}
