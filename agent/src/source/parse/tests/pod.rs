//! `Pod` and `Namespace`: who is a pod for policies, and what is known of it.

use serde_json::{Value, json};

use super::{merge, said};
use crate::source::parse::{Parsed, parse_namespace, parse_pod};
use crate::source::{NamedPort, Pod, PodIdentity, PodUid, Protocol};

/// A running pod with both families, and `patch`.
fn pod(patch: Value) -> Parsed<Pod> {
    let mut object = json!({
        "metadata": {"namespace": "ns", "name": "p", "labels": {"app": "web"}},
        "spec": {"nodeName": "here", "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
    });
    merge(&mut object, patch);
    parse_pod(&serde_json::from_value(object).unwrap())
}

fn faultless(patch: Value) -> Pod {
    let parsed = pod(patch);
    assert_eq!(parsed.problems, []);
    parsed.object.unwrap()
}

fn ips(texts: &[&str]) -> Vec<std::net::IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_plain_pod() {
    let pod = faultless(json!({"metadata": {"creationTimestamp": "1970-01-01T00:01:00Z"}}));
    assert_eq!(pod.created_s, Some(60));
    assert_eq!(pod.labels.value("app"), Some("web"));
    assert_eq!(*pod.addresses, *ips(&["10.0.0.1", "fd00::1"]));
    assert_eq!(pod.node.as_deref(), Some("here"));
    assert_eq!(*pod.ports, []);
}

#[test]
fn by_what_its_node_knows_it() {
    let (uid, hash) = ("0b6fcf3e-7a0c-4a4e-9d7d-1f0a6e2b3c4d", "d41d8cd98f00b204e9800998ecf8427e");
    let identity = |metadata| faultless(json!({"metadata": metadata})).identity.map(|identity| *identity);
    let expected = |mirrors| Some(PodIdentity { uid: PodUid::parse(uid).unwrap(), mirrors });
    assert_eq!(identity(json!({})), None);
    assert_eq!(identity(json!({"uid": "nonsense"})), None);
    assert_eq!(identity(json!({"uid": uid})), expected(None));
    let mirror = |text: &str| json!({"uid": uid, "annotations": {"kubernetes.io/config.mirror": text}});
    assert_eq!(identity(mirror(hash)), expected(PodUid::parse(hash)));
    assert_eq!(identity(mirror("nonsense")), expected(None));
}

#[test]
fn of_a_pod_with_its_nodes_network_by_what_that_knows_it() {
    let uid = "0b6fcf3e-7a0c-4a4e-9d7d-1f0a6e2b3c4d";
    let found = faultless(json!({"metadata": {"uid": uid}, "spec": {"hostNetwork": true}}));
    let identity = PodIdentity { uid: PodUid::parse(uid).unwrap(), mirrors: None };
    let expected = Pod {
        node: Some("here".into()),
        identity: Some(Box::new(identity)),
        host_network: true,
        ..Pod::default()
    };
    assert_eq!(found, expected);
}

#[test]
fn who_is_none() {
    for none in [
        json!({"spec": {"hostNetwork": true}}),
        json!({"status": {"phase": "Succeeded"}}),
        json!({"status": {"phase": "Failed"}}),
    ] {
        let parsed = pod(none.clone());
        assert_eq!((parsed.object, parsed.problems), (None, vec![]), "{none}");
    }
    for still in [
        json!({"spec": {"hostNetwork": false}}),
        json!({"status": {"phase": "Unknown"}}),
        json!({"status": {"phase": "Pending"}}),
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    ] {
        faultless(still);
    }
}

#[test]
fn addresses() {
    let addresses = |patch| faultless(json!({"status": patch})).addresses.into_vec();
    assert_eq!(addresses(json!({"podIPs": null})), ips(&["10.0.0.1"]));
    assert_eq!(addresses(json!({"podIPs": []})), ips(&["10.0.0.1"]));
    assert_eq!(addresses(json!({"podIPs": null, "podIP": ""})), ips(&[]));
    assert_eq!(addresses(json!({"podIPs": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.2"}]})), ips(&["10.0.0.2"]));
    let parsed = pod(json!({"status": {"podIPs": [{"ip": "x"}, {"ip": "127.0.0.1"}, {"ip": "10.0.0.3"}]}}));
    assert_eq!(
        said(&parsed),
        [
            "status.podIPs[0].ip: \"x\" is no IP address: no policy knows this pod by it",
            "status.podIPs[1].ip: 127.0.0.1 is a loopback address: no policy knows this pod by it",
        ]
    );
    assert_eq!(*parsed.object.unwrap().addresses, *ips(&["10.0.0.3"]));
    let parsed = pod(json!({"status": {"podIPs": null, "podIP": "::ffff:10.0.0.1"}}));
    assert_eq!(
        said(&parsed),
        [
            "status.podIP: \"::ffff:10.0.0.1\" is an IPv4 address mapped into IPv6: no policy knows this pod by it"
        ]
    );
}

#[test]
fn of_two_ports_with_one_name_the_first_is_it_and_both_are_known() {
    let port = |name: &str, protocol: Protocol, port| NamedPort { name: name.into(), protocol, port };
    let pod = faultless(json!({"spec": {
        "containers": [
            {"name": "a", "ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 1}]},
            {"name": "b", "ports": [
                {"containerPort": 8080, "name": "web"}, {"containerPort": 80, "name": "web"},
                {"containerPort": 53, "name": "web", "protocol": "UDP"},
            ]},
        ],
        "initContainers": [
            {"name": "i", "ports": [{"containerPort": 7, "name": "early"}]},
            {"name": "s", "restartPolicy": "Always", "ports": [
                {"containerPort": 9090, "name": "web"}, {"containerPort": 9, "name": "metrics"},
            ]},
        ],
    }}));
    let expected = [
        port("web", Protocol::Tcp, 80),
        port("web", Protocol::Tcp, 8080),
        port("web", Protocol::Udp, 53),
        port("web", Protocol::Tcp, 9090),
        port("metrics", Protocol::Tcp, 9),
    ];
    assert_eq!(*pod.ports, expected);
    assert_eq!(pod.port("web", Protocol::Tcp), Some(80));
    assert_eq!(pod.ports_named("web", Protocol::Tcp).collect::<Vec<_>>(), [80, 8080, 9090]);
    assert_eq!(pod.port("web", Protocol::Udp), Some(53));
    assert_eq!(pod.port("early", Protocol::Tcp), None);
    assert_eq!(pod.port("metrics", Protocol::Sctp), None);
}

#[test]
fn a_port_that_is_wrong_is_not_found() {
    let parsed = pod(json!({"spec": {"containers": [{"name": "a", "ports": [
        {"containerPort": 0, "name": "zero"}, {"containerPort": 80, "name": "odd", "protocol": "ICMP"},
        {"containerPort": 0}, {"containerPort": 81, "name": "web"},
    ]}]}}));
    assert_eq!(
        said(&parsed),
        [
            "spec.containers[0].ports[0].containerPort: 0 is no port (1 to 65535): no policy finds this port by its name",
            "spec.containers[0].ports[1].protocol: \"ICMP\" is no protocol (TCP, UDP, SCTP): no policy finds this port by \
             its name",
        ]
    );
    assert_eq!(parsed.object.unwrap().port("web", Protocol::Tcp), Some(81));
}

#[test]
fn before_it_is_scheduled() {
    let bare = json!({"metadata": {"namespace": "ns", "name": "p"}});
    let parsed = parse_pod(&serde_json::from_value(bare).unwrap());
    let pod = parsed.object.unwrap();
    assert_eq!((parsed.problems, pod.node, pod.addresses.len()), (vec![], None, 0));
}

#[test]
fn a_namespace_has_the_label_of_its_name() {
    let labels = |labels: Value| {
        let object = json!({"metadata": {"name": "ns", "labels": labels}});
        let parsed = parse_namespace(&serde_json::from_value(object).unwrap());
        assert_eq!(parsed.problems, []);
        let labels = parsed.object.unwrap().labels;
        (
            labels.value("kubernetes.io/metadata.name").map(str::to_owned),
            labels.value("team").map(str::to_owned),
        )
    };
    assert_eq!(labels(json!(null)), (Some("ns".into()), None));
    assert_eq!(labels(json!({"team": "a"})), (Some("ns".into()), Some("a".into())));
    assert_eq!(labels(json!({"kubernetes.io/metadata.name": "other"})), (Some("ns".into()), None));
}
