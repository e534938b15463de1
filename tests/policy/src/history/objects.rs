//! Namespaces, pods and NetworkPolicies of few words, so that everything meets everything; some of it is wrong.

use serde_json::{Map, Value, json};

use super::choices::Choices;

/// The addresses that pods may have. More pods than these, so that some claim the same.
pub(super) const POOL: &[&str] =
    &["10.0.0.1", "10.0.0.2", "10.0.1.3", "10.0.1.4", "10.1.0.5", "fd00::1", "fd00::2", "fd00:1::3"];

/// Addresses that no pod has.
pub(super) const OUTSIDE: &[&str] = &["10.0.0.9", "192.0.2.1", "0.0.0.0", "2001:db8::1", "fd00::9"];

const NETWORKS: &[&str] = &[
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/15",
    "10.0.0.0/24",
    "10.0.0.7/24",
    "10.0.0.1/32",
    "10.0.0.2/31",
    "192.0.2.0/24",
    "::/0",
    "fd00::/16",
    "fd00::/64",
    "fd00::2/128",
    "::/64",
    "::ffff:10.0.0.0/104",
    "10.0.0.0/33",
    "nonsense",
];

/// Each within the one before it; the pods' addresses are in the narrow ones, too.
const NESTED: &[&[&str]] = &[
    &["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/15", "10.0.0.0/24", "10.0.0.2/31", "10.0.0.2/32"],
    &["10.0.0.0/8", "10.0.0.0/23", "10.0.1.0/24", "10.0.1.3/32"],
    &["0.0.0.0/0", "192.0.0.0/8", "192.0.2.0/24"],
    &["::/0", "fc00::/7", "fd00::/64", "fd00::2/128"],
];

/// The label that the API server gives each namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn namespace_name(choices: &mut Choices<'_>) -> String {
    choices.one(&["a", "b", "c"]).into()
}

pub(super) fn pod_name(choices: &mut Choices<'_>) -> String {
    choices.one(&["p", "q", "r"]).into()
}

pub(super) fn policy_name(choices: &mut Choices<'_>) -> String {
    choices.one(&["one", "two"]).into()
}

pub(super) fn port_name(choices: &mut Choices<'_>) -> &'static str {
    choices.one(&["web", "dns"])
}

pub(super) fn network(choices: &mut Choices<'_>) -> &'static str {
    choices.one(NETWORKS)
}

pub(super) fn namespace(choices: &mut Choices<'_>) -> Value {
    let name = namespace_name(choices);
    let mut labels = labels(choices);
    if choices.percent(5) {
        labels.insert(NAME_LABEL.into(), namespace_name(choices).into());
    }
    json!({"metadata": {"name": name, "labels": labels, "annotations": annotations(choices, 10)}})
}

fn labels(choices: &mut Choices<'_>) -> Map<String, Value> {
    let label = |choices: &mut Choices<'_>| {
        (choices.one(&["k", "l"]).to_owned(), Value::from(choices.one(&["x", "y", ""])))
    };
    choices.several(0, 2, label).into_iter().collect()
}

/// Of a policy or a namespace; so many of a hundred are audited, and as many say what becomes of what was allowed.
pub(super) fn annotations(choices: &mut Choices<'_>, audited: usize) -> Value {
    let mode = choices.some(audited, |c| c.weighted(&[(6, "audit"), (1, "enforce"), (1, "Audit")]));
    let established = choices.some(40, |c| c.weighted(&[(6, "keep"), (1, "cut"), (1, "keeps")]));
    let set = [("weir.dev/policy-mode", mode), ("weir.dev/established", established)];
    let set = set.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?))));
    Value::Object(set.collect())
}

pub(super) fn pod(choices: &mut Choices<'_>) -> Value {
    let (namespace, name, labels) = (namespace_name(choices), pod_name(choices), labels(choices));
    let addresses = choices.several(0, 2, |c| json!({"ip": c.one(POOL)}));
    let node = choices.one(&["here", "here", "there"]);
    let sidecar = choices.some(50, |c| [container(c)]);
    let containers = choices.several(0, 2, container);
    let created = choices.some(50, |c| c.one(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]));
    let (host_network, phase) = choices.weighted(&[
        (16, (Value::Null, "Running")),
        (2, (json!(true), "Running")),
        (1, (Value::Null, "Succeeded")),
        (1, (Value::Null, "Failed")),
    ]);
    json!({
        "metadata": {"namespace": namespace, "name": name, "labels": labels, "creationTimestamp": created},
        "spec": {
            "nodeName": node, "containers": containers, "initContainers": sidecar, "hostNetwork": host_network,
        },
        "status": {"phase": phase, "podIPs": addresses},
    })
}

fn container(choices: &mut Choices<'_>) -> Value {
    let port = |choices: &mut Choices<'_>| {
        let (name, protocol) = (port_name(choices), protocol(choices));
        json!({"name": name, "protocol": protocol, "containerPort": choices.one(&[80, 8080, 53, 0])})
    };
    let ports = choices.several(0, 2, port);
    json!({"name": "c", "ports": ports, "restartPolicy": choices.some(50, |_| "Always")})
}

fn protocol(choices: &mut Choices<'_>) -> Option<&'static str> {
    choices.weighted(&[(2, None), (3, Some("TCP")), (2, Some("UDP")), (1, Some("SCTP"))])
}

pub(super) fn policy(choices: &mut Choices<'_>) -> Value {
    let (namespace, name) = (namespace_name(choices), policy_name(choices));
    let selector = choices.some(50, selector);
    let types = choices.weighted(&[
        (4, Value::Null),
        (4, json!(["Ingress"])),
        (4, json!(["Egress"])),
        (6, json!(["Ingress", "Egress"])),
        (1, json!(["ingress"])),
        (1, json!([])),
    ]);
    let (ingress, egress) = (rules(choices, "from"), rules(choices, "to"));
    json!({
        "metadata": {"namespace": namespace, "name": name, "annotations": annotations(choices, 25)},
        "spec": {"podSelector": selector, "policyTypes": types, "ingress": ingress, "egress": egress},
    })
}

fn rules(choices: &mut Choices<'_>, peers: &str) -> Option<Vec<Value>> {
    let rule = |choices: &mut Choices<'_>| {
        let list = choices.some(80, |choices| choices.several(0, 3, peer));
        json!({peers: list, "ports": choices.some(50, |choices| choices.several(0, 3, port))})
    };
    choices.some(80, |choices| choices.several(0, 2, rule))
}

pub(super) fn selector(choices: &mut Choices<'_>) -> Value {
    let mut labels = labels(choices);
    if choices.percent(50) {
        return json!({"matchLabels": labels});
    }
    labels = labels.into_iter().take(1).collect();
    json!({"matchLabels": labels, "matchExpressions": choices.several(0, 1, requirement)})
}

/// Of labels alone.
pub(super) fn label_selector(choices: &mut Choices<'_>) -> Value {
    json!({"matchLabels": labels(choices)})
}

fn requirement(choices: &mut Choices<'_>) -> Value {
    let key = choices.one(&["k", "l", NAME_LABEL]);
    let operator =
        choices.weighted(&[(8, "In"), (8, "NotIn"), (4, "Exists"), (4, "DoesNotExist"), (1, "Like")]);
    let is_list = matches!(operator, "In" | "NotIn");
    // Once in a while as it must not be.
    let has_values = is_list != choices.percent(5);
    let values = if has_values { choices.several(1, 2, |c| c.one(&["x", "y", "a"])) } else { Vec::new() };
    json!({"key": key, "operator": operator, "values": values})
}

fn peer(choices: &mut Choices<'_>) -> Value {
    match choices.place(&[2, 6, 3, 3, 3, 1, 1]) {
        0 => {
            let cidr = network(choices);
            let except = choices.some(50, |choices| choices.several(0, 2, network));
            json!({"ipBlock": {"cidr": cidr, "except": except}})
        }
        1 => {
            let chain = choices.one(NESTED);
            let first = choices.number(0, chain.len() - 1);
            let within: Vec<_> = chain[first + 1..].iter().filter(|_| choices.percent(50)).take(2).collect();
            json!({"ipBlock": {"cidr": chain[first], "except": within}})
        }
        2 => json!({"podSelector": selector(choices)}),
        3 => json!({"namespaceSelector": selector(choices)}),
        4 => json!({"namespaceSelector": selector(choices), "podSelector": selector(choices)}),
        5 => json!({}),
        _ => json!({"podSelector": selector(choices), "ipBlock": {"cidr": network(choices)}}),
    }
}

fn port(choices: &mut Choices<'_>) -> Value {
    let number = match choices.place(&[8, 1, 8, 2]) {
        0 => json!(choices.one(&[53, 79, 80, 81, 8080])),
        1 => json!(choices.one(&[0, -1, 65_536, 65_535])),
        2 => json!(port_name(choices)),
        _ => Value::Null,
    };
    let end = choices.some(33, |choices| choices.one(&[80, 8081, 65_535, 70_000]));
    let protocol = if choices.percent(8) { Some("ICMP") } else { protocol(choices) };
    json!({"port": number, "endPort": end, "protocol": protocol})
}
