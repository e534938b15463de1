//! Random ClusterNetworkPolicies over the same few words; some of them are wrong, or of a version that is still to come.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::generate::{NETWORKS, annotations, labels, port_name, selector};

pub(super) fn name() -> impl Strategy<Value = &'static str> {
    select(&["i", "j", "k", "l"][..])
}

/// With its name.
pub(super) fn policy() -> impl Strategy<Value = (&'static str, Value)> {
    let tier =
        prop_oneof![12 => Just(json!("Admin")), 10 => Just(json!("Baseline")), 1 => Just(json!("Owner"))];
    let priority = prop_oneof![
        12 => select(&[0, 1, 2, 1000][..]).prop_map(|priority| json!(priority)),
        1 => select(vec![json!(-1), json!(1001), json!(null), json!("1")]),
    ];
    let more = prop_oneof![30 => Just(json!(null)), 1 => Just(json!("x"))];
    let head = (name(), annotations(0.25), tier, priority, subject(), more);
    (head, rules("from"), rules("to")).prop_map(
        |((name, annotations, tier, priority, subject, more), ingress, egress)| {
            let object = json!({
                "metadata": {"name": name, "annotations": annotations},
                "spec": {
                    "tier": tier, "priority": priority, "subject": subject, "ingress": ingress, "egress": egress,
                    "future": more,
                },
            });
            (name, object)
        },
    )
}

fn subject() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => Just(json!({"namespaces": {}})),
        6 => labels().prop_map(|labels| json!({"namespaces": {"matchLabels": labels}})),
        6 => selector().prop_map(|namespaces| json!({"namespaces": namespaces})),
        8 => (selector(), selector())
            .prop_map(|(namespaces, pods)| json!({"pods": {"namespaceSelector": namespaces, "podSelector": pods}})),
        2 => selector().prop_map(|pods| json!({"pods": {"podSelector": pods}})),
        1 => Just(json!({"nodes": {}})),
        1 => Just(json!({})),
        1 => Just(json!({"namespaces": {"matchNames": ["a"]}})),
    ]
}

fn rules(peers: &'static str) -> impl Strategy<Value = Value> {
    let action = prop_oneof![
        8 => Just(json!("Accept")), 9 => Just(json!("Deny")), 6 => Just(json!("Pass")),
        1 => Just(json!("Log")), 1 => Just(json!(null)),
    ];
    let list = prop_oneof![
        20 => vec(peer(peers), 1..3).prop_map(|peers| json!(peers)),
        1 => Just(json!([])), 1 => Just(json!(null)),
    ];
    let protocols = prop_oneof![
        6 => Just(json!(null)),
        10 => vec(protocol(), 1..4).prop_map(|protocols| json!(protocols)),
        1 => Just(json!([])),
    ];
    let more = prop_oneof![40 => Just(json!(null)), 1 => Just(json!({"x": 1}))];
    let rule = (action, list, protocols, more).prop_map(move |(action, list, protocols, more)| {
        json!({"name": "n", "action": action, peers: list, "protocols": protocols, "when": more})
    });
    weighted(0.8, vec(rule, 0..4)).prop_map(|rules| json!(rules))
}

fn peer(peers: &'static str) -> BoxedStrategy<Value> {
    let pods = || {
        prop_oneof![
            2 => Just(json!({"namespaces": {}})),
            6 => selector().prop_map(|namespaces| json!({"namespaces": namespaces})),
            6 => (selector(), selector())
                .prop_map(|(namespaces, pods)| json!({"pods": {"namespaceSelector": namespaces, "podSelector": pods}})),
        ]
    };
    let networks = vec(select(NETWORKS), 1..4).prop_map(|networks| json!({"networks": networks}));
    let wrong = select(vec![
        json!({}),
        json!({"domainNames": ["*.example"]}),
        json!({"nodes": {}}),
        json!({"namespaces": {}, "pods": {"podSelector": {}}}),
        json!({"networks": []}),
        json!({"pods": {"namespaceSelector": {}}}),
    ]);
    match peers {
        "to" => prop_oneof![12 => pods(), 8 => networks, 1 => wrong].boxed(),
        _ => prop_oneof![16 => pods(), 1 => wrong].boxed(),
    }
}

fn protocol() -> impl Strategy<Value = Value> {
    let number = select(&[53, 79, 80, 81, 8080][..]).prop_map(|port| json!({"number": port}));
    let range = select(&[(79, 80), (80, 81), (1, 65_535), (8080, 8081), (53, 8079)][..])
        .prop_map(|(start, end)| json!({"range": {"start": start, "end": end}}));
    let port = (select(&["tcp", "tcp", "udp", "sctp"][..]), prop_oneof![3 => number, 2 => range])
        .prop_map(|(protocol, port)| json!({protocol: {"destinationPort": port}}));
    let wrong = select(vec![
        json!({}),
        json!({"icmp": {"type": 8}}),
        json!({"tcp": {}}),
        json!({"tcp": {"destinationPort": {"number": 0}}}),
        json!({"tcp": {"destinationPort": {"number": 80}, "flags": "SYN"}}),
        json!({"udp": {"destinationPort": {"range": {"start": 9, "end": 8}}}}),
        json!({"tcp": {"destinationPort": {"number": 80}}, "udp": {"destinationPort": {"number": 80}}}),
    ]);
    prop_oneof![
        24 => port,
        5 => port_name().prop_map(|name| json!({"destinationNamedPort": name})),
        1 => wrong,
    ]
}
