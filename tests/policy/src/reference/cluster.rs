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

use super::{
    is_sound as is_expression_sound, labels_of, matches_selector, named_ports, namespace_labels,
    namespace_of, pod_at,
};
use crate::cluster::{Cluster, Flow};

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
        let decision = first_decision(cluster, &policy["spec"], is_sound(policy, selected), side, flow);
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

/// The policies of a tier that are enforced, are for this pod, and by one of whose rules something is denied to it in this
/// direction: whether each says that flows which were allowed go on.
pub(super) fn denying(cluster: &Cluster, tier: &str, pod: &Pod, side: &str) -> Vec<bool> {
    let all = enforced(cluster, tier, pod);
    let denying = all.filter(|(policy, truth)| {
        let may_pass = is_sound(policy, *truth);
        rules_of(policy, side).iter().any(|rule| match rule {
            // No list: nobody knows what was meant, and all is denied.
            None => true,
            Some(rule) => {
                let understood = is_understood(rule, peers_of(side));
                let denies = match rule["action"].as_str() {
                    Some("Accept") => false,
                    Some("Pass") => !may_pass || !understood,
                    _ => true,
                };
                denies && (!understood || is_about_ports_of(rule, side, pod))
            }
        })
    });
    denying.map(|(policy, _)| is_annotated(policy, "weir.dev/established", "keep")).collect()
}

/// Whether a rule of the tier that passes some peers may deny others, of which it is not known whether it is about them: it asks
/// for labels of namespaces.
pub(super) fn may_not_pass(cluster: &Cluster, tier: &str, pod: &Pod, side: &str) -> bool {
    let rules = enforced(cluster, tier, pod).flat_map(|(policy, _)| rules_of(policy, side));
    let passing = rules.flatten().filter(|rule| {
        rule["action"] == "Pass" && is_understood(rule, peers_of(side)) && is_about_ports_of(rule, side, pod)
    });
    let mut peers = passing.flat_map(|rule| rule[peers_of(side)].as_array().into_iter().flatten());
    peers.any(|peer| read_peer_selectors(peer).is_some_and(|(namespaces, _)| !is_any(&namespaces)))
}

fn enforced<'a>(cluster: &'a Cluster, tier: &str, pod: &Pod) -> impl Iterator<Item = (&'a Value, Truth)> {
    let all = selecting(cluster, tier, pod).into_iter();
    all.filter(|(policy, _)| !is_annotated(policy, "weir.dev/policy-mode", "audit"))
}

/// The rules of one direction; `None` where they are no list.
fn rules_of<'a>(policy: &'a Value, side: &str) -> Vec<Option<&'a Value>> {
    match &policy["spec"][side] {
        Value::Array(rules) => rules.iter().map(Some).collect(),
        Value::Null => Vec::new(),
        _ => vec![None],
    }
}

/// Whether there is any port that it is about: of what comes to a pod, a name means what the pod calls so.
fn is_about_ports_of(rule: &Value, side: &str, pod: &Pod) -> bool {
    let Some(protocols) = rule["protocols"].as_array() else { return true };
    let has_port = |name: &str| {
        ["TCP", "UDP", "SCTP"].iter().any(|protocol| !named_ports(pod, name, protocol).is_empty())
    };
    side == "egress" || protocols.iter().any(|one| one["destinationNamedPort"].as_str().is_none_or(has_port))
}

fn is_annotated(policy: &Value, key: &str, value: &str) -> bool {
    policy["metadata"]["annotations"][key] == value
}

/// Whether it is known for sure whom it is for, and when it is asked.
fn is_sound(policy: &Value, selected: Truth) -> bool {
    selected == Truth::Yes && is_placed(policy) && is_subject_sound(policy)
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
    selector.match_expressions.iter().flatten().all(is_expression_sound)
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
    matches_namespace(cluster, &namespaces, pod, true)
}

/// "An empty label selector matches all objects", also those of which nothing is known.
fn matches_namespace(
    cluster: &Cluster,
    namespaces: &LabelSelector,
    pod: &Pod,
    unsound_matches: bool,
) -> Truth {
    match namespace_labels(cluster, namespace_of(pod)) {
        _ if is_any(namespaces) => Truth::Yes,
        None => Truth::Perhaps,
        Some(labels) => matches_selector(namespaces, &labels, unsound_matches).into(),
    }
}

/// Whether a selector, without what is wrong in it, restricts nothing.
fn is_any(selector: &LabelSelector) -> bool {
    let labels = selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty());
    labels && !selector.match_expressions.iter().flatten().any(is_expression_sound)
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
            // Who is denied a port by its name is denied all that bear it; who is allowed one gets the first.
            true => {
                let all = action == "Deny" || (action == "Pass" && !sound);
                (matches_rule(cluster, rule, side, (flow, all)), true)
            }
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
fn matches_rule(cluster: &Cluster, rule: &Value, side: &str, (flow, all): (&Flow, bool)) -> Truth {
    let peer = if side == "ingress" { flow.source } else { flow.dest };
    let peers = rule[peers_of(side)].as_array().into_iter().flatten();
    let peers = peers.map(|one| matches_peer(cluster, one, peer)).max().unwrap_or(Truth::No);
    let protocols = rule["protocols"].as_array();
    let ports = protocols.is_none_or(|list| list.iter().any(|one| matches_protocol(cluster, one, flow, all)));
    if ports { peers } else { Truth::No }
}

fn matches_peer(cluster: &Cluster, peer: &Value, addr: IpAddr) -> Truth {
    if let Some(networks) = peer["networks"].as_array() {
        return networks.iter().filter_map(network).any(|network| network.contains(&addr)).into();
    }
    // "Note that host-networked pods are not included in this type of peer."
    let Some(pod) = pod_at(cluster, addr) else { return Truth::No };
    let Some((namespaces, pods)) = read_peer_selectors(peer) else { return Truth::No };
    if !matches_selector(&pods, labels_of(pod), false) {
        return Truth::No;
    }
    matches_namespace(cluster, &namespaces, pod, false)
}

/// Those of namespaces and of pods; `None` where it is no pods that it is about.
fn read_peer_selectors(peer: &Value) -> Option<(LabelSelector, LabelSelector)> {
    match peer["namespaces"].is_null() {
        false => read_selector(&peer["namespaces"]).map(|namespaces| (namespaces, LabelSelector::default())),
        true => read_pods(&peer["pods"]),
    }
}

/// "DestinationNamedPort selects a destination port on a pod based on the ContainerPort name."
fn matches_protocol(cluster: &Cluster, item: &Value, flow: &Flow, all: bool) -> bool {
    let Some(protocol) = flow.protocol else { return false };
    if let Some(name) = item["destinationNamedPort"].as_str() {
        let Some(pod) = pod_at(cluster, flow.dest) else { return false };
        let mut ports = named_ports(pod, name, protocol.name());
        ports.truncate(if all { ports.len() } else { 1 });
        return ports.contains(&i32::from(flow.port));
    }
    let port = &item[protocol.name().to_lowercase()]["destinationPort"];
    let (wanted, range) = (u64::from(flow.port), &port["range"]);
    match (port["number"].as_u64(), range["start"].as_u64(), range["end"].as_u64()) {
        (Some(number), ..) => number == wanted,
        (None, Some(start), Some(end)) => (start..=end).contains(&wanted),
        _ => false,
    }
}
