//! ClusterNetworkPolicies over the same few words; some of them are wrong, or of a version that is still to come.

use serde_json::{Value, json};

use super::choices::Choices;
use super::objects::{annotations, label_selector, network, port_name, selector};

pub(super) fn name(choices: &mut Choices<'_>) -> String {
    choices.one(&["i", "j", "k", "l"]).into()
}

pub(super) fn policy(choices: &mut Choices<'_>) -> Value {
    let name = name(choices);
    let tier = choices.weighted(&[(12, "Admin"), (10, "Baseline"), (1, "Owner")]);
    let priority = match choices.place(&[12, 1]) {
        0 => json!(choices.one(&[0, 1, 2, 1000])),
        _ => choices.one(&[json!(-1), json!(1001), Value::Null, json!("1")]),
    };
    let subject = subject(choices);
    let (ingress, egress) = (rules(choices, "from"), rules(choices, "to"));
    json!({
        "metadata": {"name": name, "annotations": annotations(choices, 25)},
        "spec": {
            "tier": tier, "priority": priority, "subject": subject, "ingress": ingress, "egress": egress,
            "future": choices.some(3, |_| "x"),
        },
    })
}

fn subject(choices: &mut Choices<'_>) -> Value {
    match choices.place(&[3, 6, 6, 8, 2, 1, 1, 1]) {
        0 => json!({"namespaces": {}}),
        1 => json!({"namespaces": label_selector(choices)}),
        2 => json!({"namespaces": selector(choices)}),
        3 => pods(choices),
        4 => json!({"pods": {"podSelector": selector(choices)}}),
        5 => json!({"nodes": {}}),
        6 => json!({}),
        _ => json!({"namespaces": {"matchNames": ["a"]}}),
    }
}

fn pods(choices: &mut Choices<'_>) -> Value {
    json!({"pods": {"namespaceSelector": selector(choices), "podSelector": selector(choices)}})
}

fn rules(choices: &mut Choices<'_>, peers: &str) -> Option<Vec<Value>> {
    choices.some(80, |choices| choices.several(0, 3, |choices| rule(choices, peers)))
}

fn rule(choices: &mut Choices<'_>, peers: &str) -> Value {
    let action = choices.weighted(&[
        (8, Some("Accept")),
        (9, Some("Deny")),
        (6, Some("Pass")),
        (1, Some("Log")),
        (1, None),
    ]);
    let list = match choices.place(&[20, 1, 1]) {
        0 => Some(choices.several(1, 2, |choices| peer(choices, peers))),
        1 => Some(Vec::new()),
        _ => None,
    };
    let protocols = match choices.place(&[6, 10, 1]) {
        0 => None,
        1 => Some(choices.several(1, 3, protocol)),
        _ => Some(Vec::new()),
    };
    let more = choices.some(2, |_| json!({"x": 1}));
    json!({"name": "n", "action": action, peers: list, "protocols": protocols, "when": more})
}

fn peer(choices: &mut Choices<'_>, peers: &str) -> Value {
    let networks = if peers == "to" { 8 } else { 0 };
    match choices.place(&[2, 5, 5, networks, 1]) {
        0 => json!({"namespaces": {}}),
        1 => json!({"namespaces": selector(choices)}),
        2 => pods(choices),
        3 => json!({"networks": choices.several(1, 3, network)}),
        _ => choices.one(&[
            json!({}),
            json!({"domainNames": ["*.example"]}),
            json!({"nodes": {}}),
            json!({"networks": ["10.0.0.0/8"], "namespaces": {}}),
            json!({"namespaces": {}, "pods": {"podSelector": {}}}),
            json!({"networks": []}),
            json!({"pods": {"namespaceSelector": {}}}),
        ]),
    }
}

fn protocol(choices: &mut Choices<'_>) -> Value {
    match choices.place(&[15, 9, 5, 1]) {
        0 => {
            let name = choices.one(&["tcp", "tcp", "udp", "sctp"]);
            json!({name: {"destinationPort": {"number": choices.one(&[53, 79, 80, 81, 8080])}}})
        }
        1 => {
            let name = choices.one(&["tcp", "tcp", "udp", "sctp"]);
            let (start, end) = choices.one(&[(79, 80), (80, 81), (1, 65_535), (8080, 8081), (53, 8079)]);
            json!({name: {"destinationPort": {"range": {"start": start, "end": end}}}})
        }
        2 => json!({"destinationNamedPort": port_name(choices)}),
        _ => choices.one(&[
            json!({}),
            json!({"icmp": {"type": 8}}),
            json!({"tcp": {}}),
            json!({"tcp": {"destinationPort": {"number": 0}}}),
            json!({"tcp": {"destinationPort": {"number": 80}, "flags": "SYN"}}),
            json!({"udp": {"destinationPort": {"range": {"start": 9, "end": 8}}}}),
            json!({"tcp": {"destinationPort": {"number": 80}}, "udp": {"destinationPort": {"number": 80}}}),
        ]),
    }
}
