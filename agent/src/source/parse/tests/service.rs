//! Services.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{said, service};
use crate::source::parse::MAX_PROBLEMS;
use crate::source::{Affinity, Protocol, ServiceType, TrafficDistribution, TrafficPolicy};

#[test]
fn a_plain_service_and_its_defaults() {
    let parsed = service(json!({}));
    assert_eq!(said(&parsed), [""; 0]);
    let service = parsed.object.unwrap();
    assert_eq!(service.cluster_ips, ["10.96.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(service.kind, ServiceType::ClusterIp);
    assert_eq!(service.created_s, None);
    assert_eq!((service.internal_policy, service.external_policy), Default::default());
    assert_eq!((service.affinity, service.distribution), (None, None));
    let [port] = &service.ports[..] else { panic!("{:?}", service.ports) };
    assert_eq!((&*port.name, port.protocol, port.port, port.node_port), ("", Protocol::Tcp, 80, None));
}

#[test]
fn not_ours() {
    for patch in [
        json!({"spec": {"clusterIP": "None"}}),
        json!({"spec": {"clusterIP": ""}}),
        json!({"spec": {"clusterIP": null}}),
        json!({"spec": {"clusterIPs": ["None"], "clusterIP": "None"}}),
        json!({"spec": {"type": "ExternalName", "externalName": "example.org"}}),
        json!({"spec": null}),
        json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}}),
        json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "other"}}}),
        json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": ""}}}),
    ] {
        let parsed = service(patch.clone());
        assert_eq!((parsed.object.is_none(), parsed.problems.len()), (true, 0), "{patch}");
    }
}

/// Patch, the addresses that are left, what is said.
#[test]
fn cluster_ips() {
    let rows: &[(Value, &[&str], &[&str])] = &[
        (json!({"clusterIPs": ["10.96.0.1", "fd00::1"]}), &["10.96.0.1", "fd00::1"], &[]),
        (json!({"clusterIPs": []}), &["10.96.0.1"], &[]),
        (json!({"clusterIP": "172.30.0.041"}), &["172.30.0.41"], &[]),
        (
            json!({"clusterIPs": ["10.96.0.1", "fd00::z"]}),
            &["10.96.0.1"],
            &["spec.clusterIPs[1]: \"fd00::z\" is no IP address: this address is not served"],
        ),
        (
            json!({"clusterIPs": ["10.96.0.1", "10.96.0.2"]}),
            &["10.96.0.1"],
            &[
                "spec.clusterIPs[1]: 10.96.0.2 is a second IPv4 address, where one is allowed: this address is \
               not served",
            ],
        ),
        (
            json!({"clusterIPs": ["::ffff:10.96.0.1", "fd00::1"]}),
            &["fd00::1"],
            &[
                "spec.clusterIPs[0]: \"::ffff:10.96.0.1\" is an IPv4 address mapped into IPv6: this address is \
               not served",
            ],
        ),
        (
            json!({"clusterIP": "127.0.0.1"}),
            &[],
            &["spec.clusterIP: 127.0.0.1 is a loopback address: this address is not served"],
        ),
        (
            json!({"clusterIP": "0.0.0.0"}),
            &[],
            &["spec.clusterIP: 0.0.0.0 is the unspecified address: this address is not served"],
        ),
        (
            json!({"clusterIP": "ff02::1"}),
            &[],
            &["spec.clusterIP: ff02::1 is a multicast address: this address is not served"],
        ),
    ];
    for (patch, want, problems) in rows {
        let parsed = service(json!({"spec": patch}));
        let ips: Vec<String> =
            parsed.object.iter().flat_map(|s| &s.cluster_ips).map(ToString::to_string).collect();
        assert_eq!(&ips[..], *want, "{patch}");
        assert_eq!(parsed.object.is_none(), want.is_empty(), "{patch}");
        assert_eq!(&said(&parsed)[..], *problems, "{patch}");
    }
}

#[test]
fn ports() {
    let rows: &[(Value, &[&str], &[&str])] = &[
        (json!([]), &[], &[]),
        (
            json!([{"name": "a", "port": 53, "protocol": "UDP"}, {"name": "b", "port": 53, "protocol": "TCP"},
                   {"name": "c", "port": 53, "protocol": "SCTP", "nodePort": 30053}]),
            &["a:53/UDP>None", "b:53/TCP>None", "c:53/SCTP>Some(30053)"],
            &[],
        ),
        (
            json!([{"name": "a", "port": 80}, {"name": "b"}, {"name": "c", "port": 65536}, {"name": "d", "port": -1}]),
            &["a:80/TCP>None"],
            &[
                "spec.ports[1].port: 0 is no port (1 to 65535): this port is not served",
                "spec.ports[2].port: 65536 is no port (1 to 65535): this port is not served",
                "spec.ports[3].port: -1 is no port (1 to 65535): this port is not served",
            ],
        ),
        (
            json!([{"name": "a", "port": 80, "protocol": "tcp"}, {"name": "b", "port": 65535}]),
            &["b:65535/TCP>None"],
            &["spec.ports[0].protocol: \"tcp\" is no protocol (TCP, UDP, SCTP): this port is not served"],
        ),
        (
            json!([{"name": "a", "port": 80}, {"name": "b", "port": 80}, {"name": "b", "port": 81}]),
            &["a:80/TCP>None", "b:81/TCP>None"],
            &["spec.ports[1].port: an earlier port is 80/TCP too: this port is not served"],
        ),
        (
            json!([{"name": "a", "port": 80}, {"name": "a", "port": 81}, {"name": "b", "port": 81}]),
            &["a:80/TCP>None", "b:81/TCP>None"],
            &["spec.ports[1].name: an earlier port is named \"a\" too: this port is not served"],
        ),
    ];
    check_ports(rows);
}

#[test]
fn node_ports() {
    let rows: &[(Value, &[&str], &[&str])] = &[(
        json!([{"name": "a", "port": 80, "nodePort": 70000}, {"name": "b", "port": 81, "nodePort": 30001},
                   {"name": "c", "port": 82, "nodePort": 30001},
                   {"name": "d", "port": 82, "nodePort": 30001, "protocol": "UDP"},
                   {"name": "e", "port": 83, "nodePort": 0}]),
        &["a:80/TCP>None", "b:81/TCP>Some(30001)", "c:82/TCP>None", "d:82/UDP>Some(30001)", "e:83/TCP>None"],
        &[
            "spec.ports[0].nodePort: 70000 is no port (1 to 65535): there is no node port for this port",
            "spec.ports[2].nodePort: an earlier port has 30001/TCP too: there is no node port for this port",
        ],
    )];
    check_ports(rows);
}

/// Ports, those that are left as `name:port/protocol>nodePort`, what is said.
fn check_ports(rows: &[(Value, &[&str], &[&str])]) {
    for (ports, want, problems) in rows {
        let parsed = service(json!({"spec": {"ports": ports}}));
        let service = parsed.object.as_ref().unwrap();
        let left: Vec<String> = service
            .ports
            .iter()
            .map(|p| format!("{}:{}/{}>{:?}", p.name, p.port, p.protocol, p.node_port))
            .collect();
        assert_eq!(&left[..], *want, "{ports}");
        assert_eq!(&said(&parsed)[..], *problems, "{ports}");
    }
}

#[test]
fn types_and_policies() {
    let of = |spec: Value| service(json!({"spec": spec}));
    assert_eq!(of(json!({"type": "NodePort"})).object.unwrap().kind, ServiceType::NodePort);
    assert_eq!(of(json!({"type": "LoadBalancer"})).object.unwrap().kind, ServiceType::LoadBalancer);
    let local = of(json!({"internalTrafficPolicy": "Local"})).object.unwrap();
    assert_eq!(
        (local.internal_policy, local.external_policy),
        (TrafficPolicy::Local, TrafficPolicy::Cluster)
    );
    let local = of(json!({"externalTrafficPolicy": "Local"})).object.unwrap();
    assert_eq!(
        (local.internal_policy, local.external_policy),
        (TrafficPolicy::Cluster, TrafficPolicy::Local)
    );

    let bad = of(json!({"type": "Nodeport", "internalTrafficPolicy": "local", "externalTrafficPolicy": "x"}));
    assert_eq!(
        said(&bad),
        [
            "spec.type: \"Nodeport\" is no type (ClusterIP, NodePort, LoadBalancer, ExternalName): taken as ClusterIP",
            "spec.internalTrafficPolicy: \"local\" is no traffic policy (Cluster, Local): taken as Cluster",
            "spec.externalTrafficPolicy: \"x\" is no traffic policy (Cluster, Local): taken as Cluster",
        ]
    );
    let plain = service(json!({}));
    assert_eq!(bad.object, plain.object);
}

#[test]
fn affinity() {
    let of = |affinity: Value, timeout: Value| {
        let config = json!({"clientIP": {"timeoutSeconds": timeout}});
        let parsed = service(json!({"spec": {"sessionAffinity": affinity, "sessionAffinityConfig": config}}));
        (said(&parsed), parsed.object.unwrap().affinity.map(|Affinity { timeout_s }| timeout_s))
    };
    assert_eq!(of(json!("None"), json!(5)), (vec![], None));
    assert_eq!(of(json!("ClientIP"), json!(null)), (vec![], Some(10800)));
    assert_eq!(of(json!("ClientIP"), json!(1)), (vec![], Some(1)));
    assert_eq!(of(json!("ClientIP"), json!(86400)), (vec![], Some(86400)));
    for bad in [0, -1, 86401] {
        let said = format!(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: {bad} is not from 1 to 86400: the default, \
             10800, is used"
        );
        assert_eq!(of(json!("ClientIP"), json!(bad)), (vec![said], Some(10800)));
    }
    let said = "spec.sessionAffinity: \"Cookie\" is no affinity (None, ClientIP): taken as None".to_owned();
    assert_eq!(of(json!("Cookie"), json!(5)), (vec![said], None));
    let missing = service(json!({"spec": {"sessionAffinity": "ClientIP"}}));
    assert_eq!(missing.object.unwrap().affinity, Some(Affinity { timeout_s: 10800 }));
}

#[test]
fn distribution() {
    let of = |value: &str| service(json!({"spec": {"trafficDistribution": value}}));
    let zone = Some(TrafficDistribution::PreferSameZone);
    assert_eq!(of("PreferClose").object.unwrap().distribution, zone);
    assert_eq!(of("PreferSameZone").object.unwrap().distribution, zone);
    let node = Some(TrafficDistribution::PreferSameNode);
    assert_eq!(of("PreferSameNode").object.unwrap().distribution, node);
    let bad = of("PreferFar");
    assert_eq!(
        said(&bad),
        ["spec.trafficDistribution: \"PreferFar\" is no distribution (PreferClose, PreferSameZone, \
          PreferSameNode): taken as unset"]
    );
    assert_eq!(bad.object.unwrap().distribution, None);
}

#[test]
fn creation_time() {
    let parsed = service(json!({"metadata": {"creationTimestamp": "1970-01-02T00:00:01Z"}}));
    assert_eq!(parsed.object.unwrap().created_s, Some(86401));
}

#[test]
fn many_problems_are_cut() {
    let ports: Vec<Value> = (0..60).map(|n| json!({"name": format!("p{n}"), "port": 0})).collect();
    let parsed = service(json!({"spec": {"ports": ports}}));
    assert_eq!(parsed.problems.len(), MAX_PROBLEMS + 1);
    assert_eq!(said(&parsed)[MAX_PROBLEMS], "(more): 50 more problems are not listed");
}

#[test]
fn long_values_are_cut() {
    let parsed = service(json!({"spec": {"clusterIP": "\u{e9}".repeat(100_000)}}));
    assert_eq!(
        said(&parsed),
        [format!(
            "spec.clusterIP: \"{}\"... is no IP address: this address is not served",
            "\u{e9}".repeat(64)
        )]
    );
}
