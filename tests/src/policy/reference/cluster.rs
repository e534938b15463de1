//! What ClusterNetworkPolicies say, by the comments on the types of `policy.networking.k8s.io/v1alpha2`, read from the object's
//! text for each question.
//!
//! What is not known for sure (labels of a namespace of which nobody has told us) is told from what is: "perhaps". Then, as
//! where a rule is not understood, an Accept is none and anything else denies.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::{is_sound, labels_of, matches_selector, named_port, namespace_labels, namespace_of, pod_at};
use crate::policy::cluster::{Cluster, Flow};

/// Whether something is so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Truth {
    No,
    Perhaps,
    Yes,
}

impl From<bool> for Truth {
    fn from(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }
}

/// What a tier says of a flow: `Some(true)` it is accepted, `Some(false)` it is denied, `None`: the next tier is asked.
/// `audited` becomes true where a policy that is audited would deny it.
///
/// "Policies with lower priority values have higher precedence." "The relative precedence of ingress rules within a single CNP
/// object will be determined by the order in which the rule is written."
pub(super) fn judge_tier(
    cluster: &Cluster,
    tier: &str,
    pod: &Pod,
    (side, flow): (&str, &Flow),
    audited: &mut bool,
) -> Option<bool> {
    for (policy, selected) in selecting(cluster, tier, pod) {
        let sound = selected == Truth::Yes && is_placed(policy) && is_subject_sound(policy);
        let decision = first_decision(cluster, &policy["spec"], sound, side, flow);
        if is_annotated(policy, "weir.dev/policy-mode", "audit") {
            *audited |= decision == Some("Deny");
            continue;
        }
        match decision {
            Some("Accept") => return Some(true),
            Some("Deny") => return Some(false),
            Some(_) => return None,
            None => {}
        }
    }
    None
}

/// Whether each policy that is enforced, and is for this pod, says that what was allowed goes on; one at least.
pub(super) fn keeps(cluster: &Cluster, pod: &Pod, side: &str) -> Vec<bool> {
    let all = ["Admin", "Baseline"].into_iter().flat_map(|tier| selecting(cluster, tier, pod));
    let enforced = all.filter(|(policy, _)| !is_annotated(policy, "weir.dev/policy-mode", "audit"));
    let about = enforced.filter(|(policy, _)| count_rules(policy, side) > 0);
    about.map(|(policy, _)| is_annotated(policy, "weir.dev/established", "keep")).collect()
}

/// Rules of one direction that are left when those that accept and are not understood are taken away.
fn count_rules(policy: &Value, side: &str) -> usize {
    let sound = is_placed(policy) && is_subject_sound(policy);
    let is_left =
        |rule: &&Value| rule["action"] != "Accept" || (sound && is_understood(rule, peers_of(side)));
    match &policy["spec"][side] {
        Value::Array(rules) => rules.iter().filter(is_left).count(),
        Value::Null => 0,
        _ => 1,
    }
}

fn is_annotated(policy: &Value, key: &str, value: &str) -> bool {
    policy["metadata"]["annotations"][key] == value
}

/// In the order of their priority; of two with the same, any is right, and ours go by name.
fn selecting<'a>(cluster: &'a Cluster, tier: &str, pod: &Pod) -> Vec<(&'a Value, Truth)> {
    let of_tier = cluster.cluster_policies.values().filter(|policy| match policy["spec"]["tier"].as_str() {
        Some("Baseline") => tier == "Baseline",
        _ => tier == "Admin",
    });
    let mut found: Vec<_> = of_tier
        .map(|policy| (policy, matches_subject(cluster, &policy["spec"]["subject"], pod)))
        .filter(|(_, selected)| *selected != Truth::No)
        .collect();
    found.sort_by_key(|(policy, _)| priority(policy).unwrap_or(0));
    found
}

/// "Priority is a value from 0 to 1000"
fn priority(policy: &Value) -> Option<u64> {
    policy["spec"]["priority"].as_u64().filter(|priority| *priority <= 1000)
}

fn is_placed(policy: &Value) -> bool {
    let known = ["tier", "priority", "subject", "ingress", "egress"];
    matches!(policy["spec"]["tier"].as_str(), Some("Admin" | "Baseline"))
        && priority(policy).is_some()
        && fields(&policy["spec"]).iter().all(|(name, _)| known.contains(name))
}

/// The fields that are set.
fn fields(value: &Value) -> Vec<(&str, &Value)> {
    let fields = value.as_object().into_iter().flatten();
    fields.filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.as_str(), value)).collect()
}

fn has_only(value: &Value, known: &[&str]) -> bool {
    value.is_object() && fields(value).iter().all(|(name, _)| known.contains(name))
}

fn read_selector(value: &Value) -> Option<LabelSelector> {
    has_only(value, &["matchLabels", "matchExpressions"])
        .then(|| serde_json::from_value(value.clone()).ok())?
}

fn is_selector_sound(selector: &LabelSelector) -> bool {
    selector.match_expressions.iter().flatten().all(is_sound)
}

/// "Namespaces is used to select pods via namespace selectors. Pods is used to select pods via namespace AND pod selectors."
/// "Exactly one field must be set." With the selectors of namespaces and of pods.
fn read_subject(subject: &Value) -> Option<(LabelSelector, LabelSelector)> {
    match fields(subject)[..] {
        [("namespaces", namespaces)] => Some((read_selector(namespaces)?, LabelSelector::default())),
        [("pods", pods)] => read_pods(pods),
        _ => None,
    }
}

/// `NamespacedPod`: "NamespaceSelector follows standard label selector semantics; if empty, it selects all Namespaces."
fn read_pods(pods: &Value) -> Option<(LabelSelector, LabelSelector)> {
    if !has_only(pods, &["namespaceSelector", "podSelector"]) {
        return None;
    }
    let namespaces = match &pods["namespaceSelector"] {
        Value::Null => LabelSelector::default(),
        namespaces => read_selector(namespaces)?,
    };
    Some((namespaces, read_selector(&pods["podSelector"])?))
}

fn is_subject_sound(policy: &Value) -> bool {
    read_subject(&policy["spec"]["subject"])
        .is_some_and(|(namespaces, pods)| is_selector_sound(&namespaces) && is_selector_sound(&pods))
}

/// One that is not understood is for nobody; a requirement that is wrong restricts nothing.
fn matches_subject(cluster: &Cluster, subject: &Value, pod: &Pod) -> Truth {
    let Some((namespaces, pods)) = read_subject(subject) else { return Truth::No };
    if !matches_selector(&pods, labels_of(pod), true) {
        return Truth::No;
    }
    let is_any = |selector: &LabelSelector| {
        let labels = selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty());
        labels && !selector.match_expressions.iter().flatten().any(is_sound)
    };
    match namespace_labels(cluster, namespace_of(pod)) {
        _ if is_any(&namespaces) => Truth::Yes,
        None => Truth::Perhaps,
        Some(labels) => matches_selector(&namespaces, &labels, true).into(),
    }
}

fn peers_of(side: &str) -> &'static str {
    if side == "ingress" { "from" } else { "to" }
}

/// The action of the first rule of a policy that matches. `sound`: it is known whom the policy is for, and when it is asked.
fn first_decision(
    cluster: &Cluster,
    spec: &Value,
    sound: bool,
    side: &str,
    flow: &Flow,
) -> Option<&'static str> {
    let rules = match &spec[side] {
        Value::Null => return None,
        Value::Array(rules) => rules,
        _ => return Some("Deny"),
    };
    rules.iter().find_map(|rule| {
        let action = match rule["action"].as_str() {
            Some("Accept") => "Accept",
            Some("Pass") => "Pass",
            _ => "Deny",
        };
        // "For Accept rules, fail closed means: treat the rule as matching no traffic. For Deny and Pass rules, fail closed
        // means: treat the rule as a Deny all rule."
        let (truth, understood) = match is_understood(rule, peers_of(side)) {
            true => (matches_rule(cluster, rule, side, flow), true),
            false => (Truth::Yes, false),
        };
        let sure = sound && understood && truth == Truth::Yes;
        match (truth, action) {
            (Truth::No, _) => None,
            (_, "Accept") if !sure => None,
            (_, "Pass") if !sure => Some("Deny"),
            (_, action) => Some(action),
        }
    })
}

fn is_understood(rule: &Value, peers: &str) -> bool {
    let known = ["name", "action", peers, "protocols"];
    let list = |name: &str| rule[name].as_array().filter(|list| !list.is_empty());
    let has_networks = || list(peers).into_iter().flatten().any(|peer| !peer["networks"].is_null());
    let has_names =
        || list("protocols").into_iter().flatten().any(|one| !one["destinationNamedPort"].is_null());
    has_only(rule, &known)
        && list(peers).is_some_and(|list| list.iter().all(|peer| is_peer_understood(peer, peers)))
        && (rule["protocols"].is_null()
            || list("protocols").is_some_and(|list| list.iter().all(is_protocol_understood)))
        && !(has_networks() && has_names())
}

/// "Exactly one of the fields must be set for a given peer."
fn is_peer_understood(peer: &Value, peers: &str) -> bool {
    match fields(peer)[..] {
        [("namespaces", selector)] => {
            read_selector(selector).is_some_and(|selector| is_selector_sound(&selector))
        }
        [("pods", pods)] => read_pods(pods)
            .is_some_and(|(namespaces, pods)| is_selector_sound(&namespaces) && is_selector_sound(&pods)),
        [("networks", networks)] if peers == "to" => networks
            .as_array()
            .is_some_and(|list| !list.is_empty() && list.iter().all(|one| network(one).is_some())),
        _ => false,
    }
}

fn network(value: &Value) -> Option<IpNet> {
    let network: IpNet = value.as_str()?.parse().ok()?;
    let is_mapped = matches!(network.addr(), IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    (!is_mapped).then_some(network)
}

fn is_protocol_understood(item: &Value) -> bool {
    let is_port = |port: &Value| port.as_u64().is_some_and(|port| (1..=65_535).contains(&port));
    match fields(item)[..] {
        [("destinationNamedPort", name)] => name.as_str().is_some_and(|name| !name.is_empty()),
        [("tcp" | "udp" | "sctp", protocol)] => match fields(protocol)[..] {
            [("destinationPort", port)] => match fields(port)[..] {
                [("number", number)] => is_port(number),
                [("range", range)] => {
                    has_only(range, &["start", "end"])
                        && is_port(&range["start"])
                        && is_port(&range["end"])
                        && range["start"].as_u64() <= range["end"].as_u64()
                }
                _ => false,
            },
            _ => false,
        },
        _ => false,
    }
}

/// "If any element matches the source of incoming traffic then the specified action is applied."
fn matches_rule(cluster: &Cluster, rule: &Value, side: &str, flow: &Flow) -> Truth {
    let peer = if side == "ingress" { flow.source } else { flow.dest };
    let peers = rule[peers_of(side)].as_array().into_iter().flatten();
    let peers = peers.map(|one| matches_peer(cluster, one, peer)).max().unwrap_or(Truth::No);
    let protocols = rule["protocols"].as_array();
    let ports = protocols.is_none_or(|list| list.iter().any(|one| matches_protocol(cluster, one, flow)));
    if ports { peers } else { Truth::No }
}

fn matches_peer(cluster: &Cluster, peer: &Value, addr: IpAddr) -> Truth {
    if let Some(networks) = peer["networks"].as_array() {
        return networks.iter().filter_map(network).any(|network| network.contains(&addr)).into();
    }
    // "Note that host-networked pods are not included in this type of peer."
    let Some(pod) = pod_at(cluster, addr) else { return Truth::No };
    let selectors = match peer["namespaces"].is_null() {
        false => read_selector(&peer["namespaces"]).map(|namespaces| (namespaces, LabelSelector::default())),
        true => read_pods(&peer["pods"]),
    };
    let Some((namespaces, pods)) = selectors else { return Truth::No };
    if !matches_selector(&pods, labels_of(pod), false) {
        return Truth::No;
    }
    match namespace_labels(cluster, namespace_of(pod)) {
        None => Truth::Perhaps,
        Some(labels) => matches_selector(&namespaces, &labels, false).into(),
    }
}

/// "DestinationNamedPort selects a destination port on a pod based on the ContainerPort name."
fn matches_protocol(cluster: &Cluster, item: &Value, flow: &Flow) -> bool {
    let Some(protocol) = flow.protocol else { return false };
    if let Some(name) = item["destinationNamedPort"].as_str() {
        let pod = pod_at(cluster, flow.dest);
        return pod.and_then(|pod| named_port(pod, name, protocol.name())) == Some(i32::from(flow.port));
    }
    let port = &item[protocol.name().to_lowercase()]["destinationPort"];
    let (wanted, range) = (u64::from(flow.port), &port["range"]);
    match (port["number"].as_u64(), range["start"].as_u64(), range["end"].as_u64()) {
        (Some(number), ..) => number == wanted,
        (None, Some(start), Some(end)) => (start..=end).contains(&wanted),
        _ => false,
    }
}
