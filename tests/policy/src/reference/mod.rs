//! What the API says about a flow, read from the objects anew for each question: slow, and as close to the words of the API's
//! own comments as code can be. It shares nothing with the agent: neither its parser nor its idea of sets and classes.
//!
//! Sources: the comments on the types of `networking.k8s.io/v1` and `meta/v1`; KEP-2079 (`endPort`); KEP-614 (SCTP);
//! kubernetes.io, "Network Policies". What the API server would refuse is read as ARCHITECTURE.md says: it allows nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::cluster::{Cluster, Flow};

mod cluster;

type Labels = BTreeMap<String, String>;

/// What is said of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ruling {
    /// It is denied.
    Denied,
    /// It passes; a policy that is audited would deny it.
    Audited,
    /// It passes.
    Allowed,
}

impl Ruling {
    /// Whether it passes.
    #[must_use]
    pub fn passes(self) -> bool {
        self != Self::Denied
    }
}

/// What holds for a flow at each of its ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Whether the source may send it.
    pub egress: Ruling,
    /// Whether the destination may get it.
    pub ingress: Ruling,
}

impl Answer {
    /// Whether it passes both ends.
    #[must_use]
    pub fn passes(self) -> bool {
        self.egress.passes() && self.ingress.passes()
    }
}

/// By the rules alone, whoever speaks with whom. That a pod may reach itself, and its node it, is said before rules are asked.
#[must_use]
pub fn judge(cluster: &Cluster, flow: &Flow) -> Answer {
    Answer { egress: may_send(cluster, flow), ingress: may_get(cluster, flow) }
}

/// Whether the destination may get it.
pub(super) fn may_get(cluster: &Cluster, flow: &Flow) -> Ruling {
    let Some(pod) = pod_at(cluster, flow.dest) else { return Ruling::Allowed };
    judge_end(cluster, pod, "ingress", flow)
}

/// Whether the source may send it.
pub(super) fn may_send(cluster: &Cluster, flow: &Flow) -> Ruling {
    let Some(pod) = pod_at(cluster, flow.source) else { return Ruling::Allowed };
    judge_end(cluster, pod, "egress", flow)
}

/// "Policy tiers are evaluated in the following order: Admin tier, NetworkPolicy tier, Baseline tier." "v1.NetworkPolicy always
/// makes a final decision for selected pods. Further evaluation only happens for Pods not selected by a v1.NetworkPolicy." "If a
/// given connection wasn't allowed or denied by any of the tiers, the default kubernetes policy is applied, which says that all
/// pods can communicate with each other." One that is audited decides nothing, but it allows what it allows.
fn judge_end(cluster: &Cluster, pod: &Pod, side: &str, flow: &Flow) -> Ruling {
    let mut audited = false;
    let ruling = |allowed: bool, audited: bool| match (allowed, audited) {
        (false, _) => Ruling::Denied,
        (true, true) => Ruling::Audited,
        (true, false) => Ruling::Allowed,
    };
    if let Some(allowed) = cluster::judge_tier(cluster, "Admin", pod, (side, flow), &mut audited) {
        return ruling(allowed, audited);
    }
    let isolating = isolating(cluster, pod, side);
    let allowed = isolating.iter().any(|policy| allows(cluster, policy, side, flow));
    if isolating.iter().any(|policy| !is_audited(cluster, policy)) {
        return ruling(allowed, audited);
    }
    audited |= !isolating.is_empty() && !allowed;
    let last = cluster::judge_tier(cluster, "Baseline", pod, (side, flow), &mut audited);
    ruling(last != Some(false), audited)
}

/// What becomes of a pod's flows in one direction, beside what the rules say of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Manner {
    /// Some flow may be denied. Where none may, nothing is, whether it can be read and remembered or not.
    pub denies: bool,
    /// Flows that were allowed go on when they no longer are.
    pub keeps: bool,
}

/// README: "flows that were allowed go on when it comes to deny them, if each policy that isolates the pod in that direction, or
/// denies anything to it there, says so"; of an audited policy, "it denies nothing". A Baseline is not asked where a
/// NetworkPolicy isolates the pod.
#[must_use]
pub fn manner(cluster: &Cluster, pod: &Pod, side: &str) -> Manner {
    let isolating = isolating(cluster, pod, side);
    let enforced = isolating.iter().filter(|policy| !is_audited(cluster, policy));
    let mut keeps: Vec<bool> =
        enforced.map(|policy| annotation(&policy.metadata, "weir.dev/established") == Some("keep")).collect();
    let is_isolated = !keeps.is_empty();
    let mut denies = is_isolated && !isolating.iter().any(|policy| allows_all(policy, side));
    for tier in if is_isolated { &["Admin"][..] } else { &["Admin", "Baseline"] } {
        let denying = cluster::denying(cluster, tier, pod, side);
        denies |= !denying.is_empty() || cluster::may_not_pass(cluster, tier, pod, side);
        keeps.extend(denying);
    }
    let all_keep = !keeps.is_empty() && keeps.iter().all(|keeps| *keeps);
    Manner { denies, keeps: denies && all_keep }
}

/// Whether one of its rules is about everybody and everything.
fn allows_all(policy: &NetworkPolicy, side: &str) -> bool {
    let spec = policy.spec.clone().unwrap_or_default();
    let is_empty = |peers: Option<usize>, ports: Option<usize>| peers.unwrap_or(0) + ports.unwrap_or(0) == 0;
    let mut ingress = spec.ingress.iter().flatten();
    let mut egress = spec.egress.iter().flatten();
    is_selector_sound(&spec)
        && match side {
            "ingress" => ingress
                .any(|rule| is_empty(rule.from.as_ref().map(Vec::len), rule.ports.as_ref().map(Vec::len))),
            _ => {
                egress.any(|rule| is_empty(rule.to.as_ref().map(Vec::len), rule.ports.as_ref().map(Vec::len)))
            }
        }
}

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

fn is_audited(cluster: &Cluster, policy: &NetworkPolicy) -> bool {
    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
    let of_namespace = cluster.namespaces.get(namespace).map(|namespace| &namespace.metadata);
    let metas = [Some(&policy.metadata), of_namespace];
    metas.into_iter().flatten().any(|meta| annotation(meta, "weir.dev/policy-mode") == Some("audit"))
}

/// The policies that select a pod for a direction.
fn isolating<'a>(cluster: &'a Cluster, pod: &Pod, side: &str) -> Vec<&'a NetworkPolicy> {
    let wanted = if side == "ingress" { "Ingress" } else { "Egress" };
    selecting(cluster, pod)
        .filter(|policy| has_type(&policy.spec.clone().unwrap_or_default(), wanted))
        .collect()
}

/// "Traffic is allowed to a pod if there are no NetworkPolicies selecting the pod, OR if the traffic matches at least one
/// ingress rule across all of the NetworkPolicy objects whose podSelector matches the pod." The same for egress; a named port
/// is still one of the destination.
fn allows(cluster: &Cluster, policy: &NetworkPolicy, side: &str, flow: &Flow) -> bool {
    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
    let spec = policy.spec.clone().unwrap_or_default();
    if !is_selector_sound(&spec) {
        return false;
    }
    let matches = |peers: Option<&[NetworkPolicyPeer]>, ports: Option<&[NetworkPolicyPort]>, peer: IpAddr| {
        matches_peers(cluster, namespace, peers, peer) && matches_ports(cluster, ports, flow)
    };
    let mut ingress = spec.ingress.iter().flatten();
    let mut egress = spec.egress.iter().flatten();
    match side {
        "ingress" => ingress.any(|rule| matches(rule.from.as_deref(), rule.ports.as_deref(), flow.source)),
        _ => egress.any(|rule| matches(rule.to.as_deref(), rule.ports.as_deref(), flow.dest)),
    }
}

/// The pod whose address this is. Those on their node's network have none of their own, those that ended have lost theirs; of
/// several the youngest has it.
#[must_use]
pub fn pod_at(cluster: &Cluster, addr: IpAddr) -> Option<&Pod> {
    let has_addr = |pod: &&Pod| {
        let Some(status) = &pod.status else { return false };
        let mut ips: Vec<&String> = status.pod_ips.iter().flatten().map(|ip| &ip.ip).collect();
        if ips.is_empty() {
            ips.extend(&status.pod_ip);
        }
        ips.iter().any(|ip| ip.parse() == Ok(addr))
    };
    let runs = |pod: &&Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        phase != Some("Succeeded") && phase != Some("Failed")
    };
    let has_network = |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.host_network) != Some(true);
    let pods = cluster.pods.values().filter(has_addr).filter(runs).filter(has_network);
    pods.max_by_key(|pod| {
        let meta = &pod.metadata;
        (meta.creation_timestamp.as_ref().map(|time| time.0.as_second()), &meta.namespace, &meta.name)
    })
}

/// "podSelector selects the pods to which this NetworkPolicy object applies", in its own namespace; "an empty selector matches
/// all pods in the policy's namespace. If it is not specified, it defaults to an empty selector."
fn selecting<'a>(cluster: &'a Cluster, pod: &Pod) -> impl Iterator<Item = &'a NetworkPolicy> {
    let (namespace, labels) = (namespace_of(pod).to_owned(), labels_of(pod).clone());
    let policies = cluster.policies.values();
    let same = policies.filter(move |policy| policy.metadata.namespace.as_ref() == Some(&namespace));
    same.filter(move |policy| {
        let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
        selector.is_none_or(|selector| matches_selector(selector, &labels, true))
    })
}

fn namespace_of(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

fn labels_of(pod: &Pod) -> &Labels {
    static NONE: Labels = Labels::new();
    pod.metadata.labels.as_ref().unwrap_or(&NONE)
}

fn is_selector_sound(spec: &NetworkPolicySpec) -> bool {
    let selector = spec.pod_selector.iter();
    selector.flat_map(|selector| selector.match_expressions.iter().flatten()).all(is_sound)
}

/// "If this field is not specified, it will default based on the existence of ingress or egress rules; policies that contain an
/// egress section are assumed to affect egress, and all policies (whether or not they contain an ingress section) are assumed
/// to affect ingress."
fn has_type(spec: &NetworkPolicySpec, wanted: &str) -> bool {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        return wanted == "Ingress" || spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    }
    types.iter().any(|one| one == wanted || !["Ingress", "Egress"].contains(&one.as_str()))
}

/// "If this field is empty or missing, this rule matches all sources. If this field is present and contains at least one item,
/// this rule allows traffic only if the traffic matches at least one item in the from list."
fn matches_peers(
    cluster: &Cluster,
    namespace: &str,
    peers: Option<&[NetworkPolicyPeer]>,
    peer: IpAddr,
) -> bool {
    let peers = peers.unwrap_or_default();
    peers.is_empty() || peers.iter().any(|one| matches_peer(cluster, namespace, one, peer))
}

/// "If \[ipBlock\] is set then neither of the other fields can be." "If namespaceSelector is also set, then the NetworkPolicyPeer
/// as a whole selects the pods matching podSelector in the Namespaces selected by NamespaceSelector. Otherwise it selects the
/// pods matching podSelector in the policy's own namespace."
fn matches_peer(cluster: &Cluster, namespace: &str, peer: &NetworkPolicyPeer, addr: IpAddr) -> bool {
    match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
        (Some(block), None, None) => matches_block(block, addr),
        (None, None, None) | (Some(_), _, _) => false,
        (None, namespaces, pods) => {
            let Some(pod) = pod_at(cluster, addr) else { return false };
            let (own, labels) = (namespace_of(pod), labels_of(pod));
            let in_namespace = match namespaces {
                None => own == namespace,
                Some(selector) if is_empty_selector(selector) => true,
                Some(selector) => namespace_labels(cluster, own)
                    .is_some_and(|labels| matches_selector(selector, &labels, false)),
            };
            in_namespace && pods.as_ref().is_none_or(|selector| matches_selector(selector, labels, false))
        }
    }
}

/// `None` where nobody has told us of the namespace. The API server gives each one the label of its name.
fn namespace_labels(cluster: &Cluster, name: &str) -> Option<Labels> {
    let mut labels = cluster.namespaces.get(name)?.metadata.labels.clone().unwrap_or_default();
    labels.insert("kubernetes.io/metadata.name".into(), name.into());
    Some(labels)
}

/// "except is a slice of CIDRs that should not be included within an ipBlock."
fn matches_block(block: &IPBlock, addr: IpAddr) -> bool {
    let excepts: Result<Vec<IpNet>, _> = block.except.iter().flatten().map(|text| text.parse()).collect();
    match (block.cidr.parse::<IpNet>(), excepts) {
        (Ok(cidr), Ok(excepts)) => {
            let is_mapped =
                |network: &IpNet| matches!(network.addr(), IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
            !is_mapped(&cidr)
                && !excepts.iter().any(is_mapped)
                && cidr.contains(&addr)
                && !excepts.iter().any(|except| except.contains(&addr))
        }
        _ => false,
    }
}

/// Which matches all objects, also a namespace of which nobody has told us.
fn is_empty_selector(selector: &LabelSelector) -> bool {
    let labels = selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty);
    labels && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// "matchLabels and matchExpressions are ANDed. An empty label selector matches all objects." What is wrong matches nothing;
/// or, where that is asked for, everything.
fn matches_selector(selector: &LabelSelector, labels: &Labels, unsound_matches: bool) -> bool {
    let pairs = selector.match_labels.clone().unwrap_or_default();
    let expressions = selector.match_expressions.clone().unwrap_or_default();
    pairs.iter().all(|(key, value)| labels.get(key) == Some(value))
        && expressions
            .iter()
            .all(|one| if is_sound(one) { matches_expression(one, labels) } else { unsound_matches })
}

/// "If the operator is In or NotIn, the values array must be non-empty. If the operator is Exists or DoesNotExist, the values
/// array must be empty."
fn is_sound(expression: &LabelSelectorRequirement) -> bool {
    let is_empty = expression.values.as_ref().is_none_or(Vec::is_empty);
    match expression.operator.as_str() {
        "In" | "NotIn" => !is_empty,
        "Exists" | "DoesNotExist" => is_empty,
        _ => false,
    }
}

fn matches_expression(expression: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let values = expression.values.as_deref().unwrap_or_default();
    let value = labels.get(&expression.key);
    match expression.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        _ => value.is_none(),
    }
}

/// "If this field is empty or missing, this rule matches all ports (traffic not restricted by port)."
fn matches_ports(cluster: &Cluster, ports: Option<&[NetworkPolicyPort]>, flow: &Flow) -> bool {
    let ports = ports.unwrap_or_default();
    ports.is_empty() || ports.iter().any(|port| matches_port(cluster, port, flow))
}

/// "protocol: If not specified, this field defaults to TCP." "port: This can either be a numerical or named port on a pod. If
/// this field is not provided, this matches all port names and numbers." "endPort: \[...\] the range of ports from port to
/// endPort \[...\] cannot be defined if the port field is not defined or if the port field is defined as a named (string) port
/// \[...\] must be equal or greater than port."
fn matches_port(cluster: &Cluster, port: &NetworkPolicyPort, flow: &Flow) -> bool {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    if flow.protocol.is_none_or(|own| own.name() != protocol) {
        return false;
    }
    let wanted = i32::from(flow.port);
    match (&port.port, port.end_port) {
        (None, None) => true,
        (Some(IntOrString::Int(first)), end) => {
            let end = end.unwrap_or(*first);
            let is_port = |number: i32| (1..=65_535).contains(&number);
            is_port(*first) && is_port(end) && (*first..=end).contains(&wanted)
        }
        (Some(IntOrString::String(name)), None) => {
            let pod = pod_at(cluster, flow.dest);
            pod.and_then(|pod| named_port(pod, name, protocol)) == Some(wanted)
        }
        (_, Some(_)) => false,
    }
}

/// The first container port of this name and protocol.
fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    named_ports(pod, name, protocol).first().copied()
}

/// Those of all containers; of the init containers those count that keep running.
fn named_ports(pod: &Pod, name: &str, protocol: &str) -> Vec<i32> {
    let Some(spec) = pod.spec.as_ref() else { return Vec::new() };
    let stays = |one: &&Container| one.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(stays);
    let ports = spec.containers.iter().chain(sidecars).flat_map(|one| one.ports.iter().flatten());
    let ports = ports.filter(|port| (1..=65_535).contains(&port.container_port)).filter(|port| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    });
    ports.map(|port| port.container_port).collect()
}
