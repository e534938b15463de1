//! `NetworkPolicy` (networking.k8s.io/v1). What is wrong allows nothing, and isolates nobody but the policy's own pods.

use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;

use super::addr::parse_network;
use super::modes::parse_modes;
use super::problems::{Problems, quote};
use super::selector::{ParsedSelector, parse_selector};
use super::{Parsed, parse_port, parse_protocol};
use crate::source::{IpBlock, NetworkPolicy, PolicyModes, PolicyPeer, PolicyPort, PolicyRule, Selector};

const NO_PEER: &str = "this peer matches nobody";
const NO_PORT: &str = "this item allows no port";

/// A policy. Always an object: there is no way to write one that would not isolate anybody.
#[must_use]
pub fn parse_network_policy(api: &api::NetworkPolicy) -> Parsed<NetworkPolicy> {
    let mut problems = Problems::default();
    let spec = api.spec.clone().unwrap_or_default();
    let (ingress, egress) = parse_types(&spec, &mut problems);
    let loss = "this requirement restricts nothing, and this policy allows nothing";
    let pods = spec
        .pod_selector
        .as_ref()
        .map_or(ParsedSelector { selector: Selector::default(), complete: true }, |selector| {
            parse_selector(selector, "spec.podSelector", loss, &mut problems)
        });
    let rules = |field: &str, rules: Vec<ApiRule<'_>>, problems: &mut Problems| -> Box<[PolicyRule]> {
        let rules = rules.iter().enumerate();
        let rules: Vec<_> =
            rules.map(|(n, rule)| parse_rule(rule, &format!("{field}[{n}]"), problems)).collect();
        // For other pods than it was written for, it is to open nothing.
        if pods.complete { rules.into() } else { Box::default() }
    };
    let from =
        spec.ingress.iter().flatten().map(|rule| (("from", rule.from.as_deref()), rule.ports.as_deref()));
    let to = spec.egress.iter().flatten().map(|rule| (("to", rule.to.as_deref()), rule.ports.as_deref()));
    let policy = NetworkPolicy {
        ingress: ingress.then(|| rules("spec.ingress", from.collect(), &mut problems)),
        egress: egress.then(|| rules("spec.egress", to.collect(), &mut problems)),
        pods: pods.selector.clone(),
        modes: parse_modes(&api.metadata, &mut problems),
    };
    Parsed { object: Some(policy), problems: problems.finish() }
}

/// Of a policy that does not decode: whom it selects, if that does.
#[derive(Debug, Deserialize)]
pub(in crate::source) struct PolicySelector {
    spec: Option<PolicySelectorSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PolicySelectorSpec {
    pod_selector: Option<LabelSelector>,
}

impl PolicySelector {
    pub(in crate::source) fn split(self) -> Option<LabelSelector> {
        self.spec?.pod_selector
    }
}

/// What stands for a policy that does not decode, where no version before it is known: its pods are isolated, and nothing
/// is allowed to them. `pods`: its `spec.podSelector`; all pods of its namespace where that cannot be read either.
#[must_use]
pub fn closed_policy(pods: Option<&LabelSelector>) -> NetworkPolicy {
    let parse = |api| parse_selector(api, "spec.podSelector", "", &mut Problems::default()).selector;
    NetworkPolicy {
        pods: pods.map(parse).unwrap_or_default(),
        ingress: Some(Box::default()),
        egress: Some(Box::default()),
        modes: PolicyModes::default(),
    }
}

/// `from` or `to` by its name, and `ports`.
type ApiRule<'a> =
    ((&'static str, Option<&'a [api::NetworkPolicyPeer]>), Option<&'a [api::NetworkPolicyPort]>);

/// Whether it isolates for ingress and for egress. Without `policyTypes`: ingress always, egress if it has rules for it. A
/// type that is unknown was meant to isolate something, and nobody knows what: both.
fn parse_types(spec: &api::NetworkPolicySpec, problems: &mut Problems) -> (bool, bool) {
    let Some(types) = spec.policy_types.as_deref().filter(|types| !types.is_empty()) else {
        return (true, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()));
    };
    let (mut ingress, mut egress) = (false, false);
    for (n, text) in types.iter().enumerate() {
        match text.as_str() {
            "Ingress" => ingress = true,
            "Egress" => egress = true,
            other => {
                let message = "is no policy type (Ingress, Egress): this policy isolates in both directions";
                problems.add(format!("spec.policyTypes[{n}]"), format!("{} {message}", quote(other)));
                (ingress, egress) = (true, true);
            }
        }
    }
    (ingress, egress)
}

/// Empty lists mean the same as none (API comments on `from`, `to`, `ports`): that must be asked before anything is left
/// out of them.
fn parse_rule(((name, peers), ports): &ApiRule<'_>, field: &str, problems: &mut Problems) -> PolicyRule {
    let peers = peers.filter(|peers| !peers.is_empty()).map(|peers| {
        let peers = peers.iter().enumerate();
        peers.filter_map(|(n, peer)| parse_peer(peer, &format!("{field}.{name}[{n}]"), problems)).collect()
    });
    let ports = ports.filter(|ports| !ports.is_empty()).map(|ports| {
        let ports = ports.iter().enumerate();
        ports
            .filter_map(|(n, port)| parse_policy_port(port, &format!("{field}.ports[{n}]"), problems))
            .collect()
    });
    PolicyRule { peers, ports }
}

/// `None` after a problem was said.
fn parse_peer(api: &api::NetworkPolicyPeer, field: &str, problems: &mut Problems) -> Option<PolicyPeer> {
    let (namespaces, pods) = (api.namespace_selector.as_ref(), api.pod_selector.as_ref());
    match (&api.ip_block, namespaces.is_some() || pods.is_some()) {
        (Some(block), false) => {
            parse_block(block, &format!("{field}.ipBlock"), problems).map(PolicyPeer::Block)
        }
        (None, true) => {
            let namespaces = match namespaces {
                None => None,
                Some(api) => Some(parse_whole(api, &format!("{field}.namespaceSelector"), problems)?),
            };
            let pods = match pods {
                None => Selector::default(),
                Some(api) => parse_whole(api, &format!("{field}.podSelector"), problems)?,
            };
            Some(PolicyPeer::Pods { namespaces, pods })
        }
        (Some(_), true) => {
            problems.add(field, format!("ipBlock beside a selector means nothing: {NO_PEER}"));
            None
        }
        (None, false) => {
            problems.add(field, format!("neither ipBlock nor a selector: {NO_PEER}"));
            None
        }
    }
}

/// A peer's selector; one that lost a requirement would let in more than was meant.
fn parse_whole(api: &LabelSelector, field: &str, problems: &mut Problems) -> Option<Selector> {
    let parsed = parse_selector(api, field, NO_PEER, problems);
    parsed.complete.then_some(parsed.selector)
}

/// A block. An `except` that cannot be read was written to keep somebody out: without it nobody comes in by this block.
fn parse_block(api: &api::IPBlock, field: &str, problems: &mut Problems) -> Option<IpBlock> {
    let mut read = |text: &str, field: String| -> Option<IpNet> {
        let parsed = parse_network(text);
        if let Err(why) = parsed {
            problems.add(field, format!("{} is {why}: {NO_PEER}", quote(text)));
        }
        parsed.ok()
    };
    let cidr = read(&api.cidr, format!("{field}.cidr"));
    let texts = api.except.iter().flatten().enumerate();
    let read: Vec<_> = texts.map(|(n, text)| (n, read(text, format!("{field}.except[{n}]")))).collect();
    let cidr = cidr?;
    let mut except = Vec::with_capacity(read.len());
    for (n, network) in read {
        let network = network?;
        let field = || format!("{field}.except[{n}]");
        if cidr.contains(&network) {
            except.push(network);
        } else if network.contains(&cidr) {
            problems.add(field(), format!("{network} leaves nothing of {cidr}: {NO_PEER}"));
            return None;
        } else {
            problems.add(field(), format!("{network} is not within {cidr}: it excepts nothing"));
        }
    }
    except.sort_unstable();
    except.dedup();
    Some(IpBlock { cidr, except: except.into() })
}

/// `None` after a problem was said.
fn parse_policy_port(
    api: &api::NetworkPolicyPort,
    field: &str,
    problems: &mut Problems,
) -> Option<PolicyPort> {
    let protocol = parse_protocol(api.protocol.as_deref(), field, NO_PORT, problems)?;
    match (&api.port, api.end_port) {
        (Some(IntOrString::Int(first)), end) => {
            let first = parse_port(*first, format!("{field}.port"), NO_PORT, problems)?;
            let last = match end {
                None => first,
                Some(end) => parse_port(end, format!("{field}.endPort"), NO_PORT, problems)?,
            };
            if last < first {
                problems.add(format!("{field}.endPort"), format!("{last} comes before {first}: {NO_PORT}"));
                return None;
            }
            Some(PolicyPort::Range { protocol, first, last })
        }
        (_, Some(_)) => {
            problems
                .add(format!("{field}.endPort"), format!("there is no port number to begin with: {NO_PORT}"));
            None
        }
        (Some(IntOrString::String(name)), None) if name.is_empty() => {
            problems.add(format!("{field}.port"), format!("an empty name: {NO_PORT}"));
            None
        }
        (Some(IntOrString::String(name)), None) => {
            Some(PolicyPort::Named { protocol, name: Arc::from(name.as_str()) })
        }
        (None, None) => Some(PolicyPort::Range { protocol, first: 0, last: u16::MAX }),
    }
}
