//! EndpointSlices.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{said, slice};
use crate::source::parse::{MAX_ENDPOINTS, MAX_PORTS};
use crate::source::{Endpoint, Family, Protocol};

#[test]
fn a_plain_slice() {
    let parsed = slice(json!({}));
    assert_eq!(said(&parsed), [""; 0]);
    let slice = parsed.object.unwrap();
    assert_eq!((&*slice.service, slice.family), ("svc", Family::V4));
    let [port] = &slice.ports[..] else { panic!("{:?}", slice.ports) };
    assert_eq!((&*port.name, port.protocol, port.port), ("http", Protocol::Tcp, 8080));
    let endpoint = Endpoint {
        addr: "10.0.0.1".parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        zone_hints: vec![],
        node_hints: vec![],
    };
    assert_eq!(slice.endpoints, [endpoint]);
}

#[test]
fn not_ours() {
    for patch in [
        json!({"metadata": {"labels": null}}),
        json!({"metadata": {"labels": {"kubernetes.io/service-name": ""}}}),
        json!({"metadata": {"labels": {"service.kubernetes.io/headless": "x"}}}),
        json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": ""}}}),
        json!({"addressType": "FQDN", "endpoints": [{"addresses": ["example.org"]}]}),
    ] {
        let parsed = slice(patch.clone());
        assert_eq!((parsed.object.is_none(), parsed.problems.len()), (true, 0), "{patch}");
    }
}

#[test]
fn refused_whole() {
    let many = |n: usize, item: Value| vec![item; n];
    let rows = [
        (
            json!({"addressType": "ipv4"}),
            "addressType: \"ipv4\" is no address type (IPv4, IPv6, FQDN): this slice is not used",
        ),
        (
            json!({"addressType": null}),
            "addressType: \"\" is no address type (IPv4, IPv6, FQDN): this slice is not used",
        ),
        (
            json!({"endpoints": many(MAX_ENDPOINTS + 1, json!({"addresses": ["10.0.0.1"]}))}),
            "endpoints: 1001 items, where the API allows 1000: this slice is not used",
        ),
        (
            json!({"endpoints": many(100_000, json!({"addresses": ["10.0.0.1"]}))}),
            "endpoints: 100000 items, where the API allows 1000: this slice is not used",
        ),
        (
            json!({"ports": many(MAX_PORTS + 1, json!({"port": 1}))}),
            "ports: 101 items, where the API allows 100: this slice is not used",
        ),
    ];
    for (patch, want) in rows {
        let parsed = slice(patch);
        assert_eq!((parsed.object.is_none(), &said(&parsed)[..]), (true, &[want.to_owned()][..]));
    }
    let full = slice(json!({"endpoints": many(MAX_ENDPOINTS, json!({"addresses": ["10.0.0.1"]}))}));
    assert_eq!((full.object.unwrap().endpoints.len(), full.problems.len()), (MAX_ENDPOINTS, 0));
}

/// A bad address costs its endpoint: address type, address, what is said of it (none: it is good).
#[test]
fn addresses() {
    let rows = [
        ("IPv4", "10.180.00.001", None),
        ("IPv4", "fd00::1", Some("fd00::1 is no IPv4 address, as addressType says")),
        ("IPv6", "10.0.0.1", Some("10.0.0.1 is no IPv6 address, as addressType says")),
        ("IPv6", "::ffff:10.0.0.1", Some("\"::ffff:10.0.0.1\" is an IPv4 address mapped into IPv6")),
        ("IPv4", "10.0.0", Some("\"10.0.0\" is no IP address")),
        ("IPv4", "example.org", Some("\"example.org\" is no IP address")),
        ("IPv4", "0.0.0.0", Some("0.0.0.0 is the unspecified address")),
        ("IPv6", "::", Some(":: is the unspecified address")),
        ("IPv4", "127.0.0.5", Some("127.0.0.5 is a loopback address")),
        ("IPv6", "::1", Some("::1 is a loopback address")),
        ("IPv4", "169.254.169.254", Some("169.254.169.254 is a link-local address")),
        ("IPv6", "fe80::1", Some("fe80::1 is a link-local address")),
        ("IPv4", "224.0.0.1", Some("224.0.0.1 is a multicast address")),
        ("IPv6", "ff05::2", Some("ff05::2 is a multicast address")),
        ("IPv4", "255.255.255.255", Some("255.255.255.255 is the broadcast address")),
    ];
    for (family, addr, wrong) in rows {
        let good = if family == "IPv4" { "10.9.9.9" } else { "fd00::9" };
        let endpoints = json!([{"addresses": [good]}, {"addresses": [addr]}, {"addresses": [good]}]);
        let parsed = slice(json!({"addressType": family, "endpoints": endpoints}));
        let said_want: Vec<String> = wrong
            .iter()
            .map(|wrong| format!("endpoints[1].addresses[0]: {wrong}: this endpoint is not used"))
            .collect();
        assert_eq!(said(&parsed), said_want, "{family} {addr}");
        let left = parsed.object.unwrap().endpoints.len();
        assert_eq!(left, if wrong.is_some() { 2 } else { 3 }, "{family} {addr}");
    }
}

#[test]
fn only_the_first_address_counts() {
    let endpoints = json!([{"addresses": ["10.0.0.1", "not looked at"]}, {"addresses": []}]);
    let parsed = slice(json!({"endpoints": endpoints}));
    assert_eq!(said(&parsed), ["endpoints[1].addresses: empty: this endpoint is not used"]);
    assert_eq!(parsed.object.unwrap().endpoints.len(), 1);
}

/// Conditions, and ready, serving, terminating.
#[test]
fn conditions() {
    let rows = [
        (json!(null), (true, true, false)),
        (json!({}), (true, true, false)),
        (json!({"ready": true}), (true, true, false)),
        (json!({"ready": false}), (false, false, false)),
        (json!({"ready": false, "serving": true}), (false, true, false)),
        (json!({"ready": true, "serving": false}), (true, false, false)),
        (json!({"ready": false, "serving": true, "terminating": true}), (false, true, true)),
        (json!({"ready": null, "serving": null, "terminating": null}), (true, true, false)),
    ];
    for (conditions, want) in rows {
        let endpoints = json!([{"addresses": ["10.0.0.1"], "conditions": conditions}]);
        let endpoint = slice(json!({"endpoints": endpoints})).object.unwrap().endpoints.remove(0);
        assert_eq!((endpoint.ready, endpoint.serving, endpoint.terminating), want, "{conditions}");
    }
}

#[test]
fn nodes_and_hints() {
    let zones = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
    let endpoints = json!([
        {"addresses": ["10.0.0.1"], "nodeName": "n1", "hints": {"forZones": zones(&["b", "a", "b", ""])}},
        {"addresses": ["10.0.0.2"], "nodeName": "n1", "hints": {"forNodes": zones(&["n1"])}},
        {"addresses": ["10.0.0.3"], "nodeName": "",
         "hints": {"forZones": zones(&["a", "b", "c", "d", "e", "f", "g", "h", "i"])}},
    ]);
    let parsed = slice(json!({"endpoints": endpoints}));
    assert_eq!(
        said(&parsed),
        ["endpoints[2].hints.forZones: 9 items, where the API allows 8: the rest is ignored"]
    );
    let endpoints = parsed.object.unwrap().endpoints;
    let texts = |names: &[Arc<str>]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(texts(&endpoints[0].zone_hints), ["a", "b"]);
    assert_eq!(texts(&endpoints[1].node_hints), ["n1"]);
    assert_eq!(endpoints[2].zone_hints.len(), 8);
    assert_eq!(endpoints[2].node, None);
    let (first, second) = (endpoints[0].node.as_ref().unwrap(), endpoints[1].node.as_ref().unwrap());
    assert!(Arc::ptr_eq(first, second), "one copy of each name");
    assert!(Arc::ptr_eq(first, &endpoints[1].node_hints[0]), "one copy of each name");
}

#[test]
fn ports() {
    let ports = json!([
        {"name": "a", "port": 80}, {"name": "b"}, {"name": "c", "port": 0},
        {"name": "d", "port": 1, "protocol": "ICMP"}, {"name": "a", "port": 81}, {"port": 82},
        {"name": "e", "port": 70000}, {"name": null, "port": 83, "protocol": "UDP"},
    ]);
    let parsed = slice(json!({"ports": ports}));
    assert_eq!(
        said(&parsed),
        [
            "ports[1].port: missing: this port has no endpoints here",
            "ports[2].port: 0 is no port (1 to 65535): this port has no endpoints here",
            "ports[3].protocol: \"ICMP\" is no protocol (TCP, UDP, SCTP): this port has no endpoints here",
            "ports[4].name: an earlier port is named \"a\" too: this one is not used",
            "ports[6].port: 70000 is no port (1 to 65535): this port has no endpoints here",
            "ports[7].name: an earlier port is named \"\" too: this one is not used",
        ]
    );
    let left: Vec<_> = parsed.object.unwrap().ports.iter().map(|p| (p.name.to_string(), p.port)).collect();
    assert_eq!(left, [("a".to_owned(), 80), (String::new(), 82)]);
}
