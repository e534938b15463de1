//! `ClusterNetworkPolicy` (policy.networking.k8s.io/v1alpha2), field by field from the object's text.
//!
//! There is no compiled type, so that what a newer version of the API writes is seen instead of dropped: a rule with any
//! field that is not known here fails closed, as the API's comments on its peers demand. An Accept then matches nothing, a
//! Deny or a Pass denies everybody everything.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Parsed;
use super::addr::parse_network;
use super::modes::parse_modes;
use super::problems::{Problems, quote};
use super::selector::parse_selector;
use crate::source::{
    ClusterNetworkPolicy, ClusterRule, PolicyPeer, PolicyPort, Protocol, RuleAction, RuleLabel, Selector,
    Subject, Tier,
};

/// The object as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ApiClusterNetworkPolicy {
    /// `metadata`
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// `spec`
    #[serde(default)]
    pub spec: Value,
}

/// Characters of a rule's name.
const MOST_OF_NAME: usize = 100;

/// The largest `priority`.
const LAST_PRIORITY: u64 = 1000;

const UNPLACED: &str = "this policy accepts nothing, and denies what it would pass";

/// A policy. No object with problems: nobody knows whom it is for.
///
/// Where it cannot be told which place it has among others, or whom its subject leaves out, it comes first and is for more
/// pods than it was written for; but then it only denies.
#[must_use]
pub fn parse_cluster_network_policy(api: &ApiClusterNetworkPolicy) -> Parsed<ClusterNetworkPolicy> {
    let mut problems = Problems::default();
    let modes = parse_modes(&api.metadata, &mut problems);
    let object = read_spec(&api.spec, &mut problems).map(|spec| ClusterNetworkPolicy { modes, ..spec });
    Parsed { object, problems: problems.finish() }
}

fn read_spec(spec: &Value, problems: &mut Problems) -> Option<ClusterNetworkPolicy> {
    const FIELDS: [&str; 5] = ["tier", "priority", "subject", "ingress", "egress"];
    let mut reader = Reader { problems, loss: UNPLACED };
    let Some(spec) = spec.as_object() else { return reader.fail("spec", "missing") };
    let mut sound = true;
    for name in set_fields(spec).filter(|name| !FIELDS.contains(name)) {
        let _: Option<()> = reader.fail(&format!("spec.{name}"), "is not known here");
        sound = false;
    }
    let tier = reader.read_tier(field(spec, "tier"));
    let priority = reader.read_priority(field(spec, "priority"));
    let subject = reader.read_subject(field(spec, "subject"));
    let mut read = |side, peers| read_rules(field(spec, side), &format!("spec.{side}"), peers, problems);
    let (ingress, egress) = (read("ingress", "from"), read("egress", "to"));
    let (subject, complete) = subject?;
    sound &= complete && tier.is_some() && priority.is_some();
    let settle = |rules: Vec<ClusterRule>| if sound { rules } else { deny_alone(rules) }.into();
    Some(ClusterNetworkPolicy {
        tier: tier.unwrap_or(Tier::Admin),
        priority: priority.unwrap_or(0),
        subject,
        ingress: settle(ingress),
        egress: settle(egress),
        modes: crate::source::PolicyModes::default(),
    })
}

/// The rules of a policy of which something else is not understood.
fn deny_alone(rules: Vec<ClusterRule>) -> Vec<ClusterRule> {
    let others = rules.into_iter().filter(|rule| rule.action != RuleAction::Accept);
    others.map(|rule| ClusterRule { action: RuleAction::Deny, ..rule }).collect()
}

fn read_rules(
    list: Option<&Value>,
    path: &str,
    peers: &'static str,
    problems: &mut Problems,
) -> Vec<ClusterRule> {
    match list {
        None => Vec::new(),
        Some(Value::Array(list)) => {
            let rules = list.iter().enumerate();
            let read = |(n, rule): (usize, &Value)| {
                let label = read_label(n, rule);
                let rule = read_rule(rule, &format!("{path}[{n}]"), peers, problems)?;
                Some(ClusterRule { label, ..rule })
            };
            rules.filter_map(read).collect()
        }
        Some(_) => {
            problems.add(path, "is no list: all is denied in this direction");
            vec![deny_all()]
        }
    }
}

fn deny_all() -> ClusterRule {
    ClusterRule { label: RuleLabel::default(), action: RuleAction::Deny, peers: None, ports: None }
}

/// "Name is an identifier for this rule, that may be no more than 100 characters in length. This field should be used by the
/// implementation to help improve observability, readability and error-reporting". It is shown on terminals.
fn read_label(n: usize, rule: &Value) -> RuleLabel {
    let text = rule.get("name").and_then(Value::as_str).unwrap_or_default();
    let name: String = text.chars().filter(|one| !one.is_control()).take(MOST_OF_NAME).collect();
    let name = (!name.is_empty()).then(|| Arc::from(name));
    RuleLabel { number: u16::try_from(n + 1).unwrap_or(u16::MAX), name }
}

/// `None`: an Accept that cannot be understood.
fn read_rule(rule: &Value, path: &str, peers: &'static str, problems: &mut Problems) -> Option<ClusterRule> {
    const DENIES_ALL: &str = "this rule denies everybody everything";
    let action = match rule.get("action").and_then(Value::as_str) {
        Some("Accept") => RuleAction::Accept,
        Some("Deny") => RuleAction::Deny,
        Some("Pass") => RuleAction::Pass,
        other => {
            let what = other
                .map_or("missing".into(), |text| format!("{} is none of Accept, Deny, Pass", quote(text)));
            problems.add(format!("{path}.action"), format!("{what}: this rule denies whom it is about"));
            RuleAction::Deny
        }
    };
    let loss = if action == RuleAction::Accept { "this rule matches nothing" } else { DENIES_ALL };
    match (Reader { problems, loss }.read_rule_content(rule, path, peers), action) {
        (Some((peers, ports)), action) => {
            Some(ClusterRule { label: RuleLabel::default(), action, peers: Some(peers), ports })
        }
        (None, RuleAction::Accept) => None,
        (None, RuleAction::Deny | RuleAction::Pass) => Some(deny_all()),
    }
}

/// Peers and ports of a rule.
type Content = (Box<[PolicyPeer]>, Option<Box<[PolicyPort]>>);

/// Reads values; each function answers `None` after a problem was said.
struct Reader<'a> {
    problems: &'a mut Problems,
    /// What follows from anything that is not understood.
    loss: &'static str,
}

impl Reader<'_> {
    fn fail<T>(&mut self, path: &str, what: &str) -> Option<T> {
        self.problems.add(path, format!("{what}: {}", self.loss));
        None
    }

    fn read_tier(&mut self, value: Option<&Value>) -> Option<Tier> {
        match value.and_then(Value::as_str) {
            Some("Admin") => Some(Tier::Admin),
            Some("Baseline") => Some(Tier::Baseline),
            Some(other) => self.fail("spec.tier", &format!("{} is none of Admin, Baseline", quote(other))),
            None => self.fail("spec.tier", "missing"),
        }
    }

    fn read_priority(&mut self, value: Option<&Value>) -> Option<u16> {
        let number = value.and_then(Value::as_u64).filter(|number| *number <= LAST_PRIORITY);
        match number.and_then(|number| u16::try_from(number).ok()) {
            Some(priority) => Some(priority),
            None => self.fail("spec.priority", "is no number from 0 to 1000"),
        }
    }

    /// And whether all of it was understood.
    fn read_subject(&mut self, value: Option<&Value>) -> Option<(Subject, bool)> {
        const NOBODY: &str = "nobody knows which pods this policy is for";
        let loss = std::mem::replace(&mut self.loss, NOBODY);
        let path = "spec.subject";
        let (name, value) = self.read_one(value, path)?;
        let of_all = (Selector::default(), true);
        let (namespaces, pods) = match name {
            "namespaces" => (self.read_subject_selector(value, "spec.subject.namespaces")?, of_all),
            "pods" => {
                let pods =
                    self.read_fields(value, "spec.subject.pods", &["namespaceSelector", "podSelector"])?;
                let namespaces = match field(pods, "namespaceSelector") {
                    None => of_all,
                    Some(value) => {
                        self.read_subject_selector(value, "spec.subject.pods.namespaceSelector")?
                    }
                };
                let path = "spec.subject.pods.podSelector";
                let Some(value) = field(pods, "podSelector") else { return self.fail(path, "missing") };
                (namespaces, self.read_subject_selector(value, path)?)
            }
            other => return self.fail(&format!("{path}.{other}"), "is not known here"),
        };
        self.loss = loss;
        let complete = namespaces.1 && pods.1;
        Some((Subject { namespaces: namespaces.0, pods: pods.0 }, complete))
    }

    /// Without the requirements that are wrong, and whether there were none.
    fn read_subject_selector(&mut self, value: &Value, path: &str) -> Option<(Selector, bool)> {
        let api = self.read_selector_object(value, path)?;
        let loss =
            "this requirement restricts nothing; this policy accepts nothing, and denies what it would pass";
        let parsed = parse_selector(&api, path, loss, self.problems);
        Some((parsed.selector, parsed.complete))
    }

    fn read_rule_content(&mut self, rule: &Value, path: &str, peers: &'static str) -> Option<Content> {
        let rule = self.read_fields(rule, path, &["name", "action", peers, "protocols"])?;
        let list_path = format!("{path}.{peers}");
        let mut found = Vec::new();
        for (n, peer) in self.read_list(field(rule, peers), &list_path)?.iter().enumerate() {
            self.read_peer(peer, &format!("{list_path}[{n}]"), peers, &mut found)?;
        }
        let Some(list) = field(rule, "protocols") else { return Some((found.into(), None)) };
        let path = format!("{path}.protocols");
        let mut ports = Vec::new();
        for (n, protocol) in self.read_list(Some(list), &path)?.iter().enumerate() {
            self.read_protocol(protocol, &format!("{path}[{n}]"), &mut ports)?;
        }
        let is_block = |peer: &PolicyPeer| matches!(peer, PolicyPeer::Block(_));
        let is_named = |port: &PolicyPort| matches!(port, PolicyPort::Named { .. });
        if found.iter().any(is_block) && ports.iter().any(is_named) {
            return self.fail(&path, "networks have no names for their ports");
        }
        Some((found.into(), Some(ports.into())))
    }

    fn read_peer(
        &mut self,
        peer: &Value,
        path: &str,
        peers: &'static str,
        found: &mut Vec<PolicyPeer>,
    ) -> Option<()> {
        let (name, value) = self.read_one(Some(peer), path)?;
        let path = format!("{path}.{name}");
        match name {
            "namespaces" => {
                let namespaces = Some(self.read_selector(value, &path)?);
                found.push(PolicyPeer::Pods { namespaces, pods: Selector::default() });
            }
            "pods" => {
                let fields = self.read_fields(value, &path, &["namespaceSelector", "podSelector"])?;
                let namespaces = match field(fields, "namespaceSelector") {
                    None => Selector::default(),
                    Some(value) => self.read_selector(value, &format!("{path}.namespaceSelector"))?,
                };
                let path = format!("{path}.podSelector");
                let Some(value) = field(fields, "podSelector") else { return self.fail(&path, "missing") };
                let pods = self.read_selector(value, &path)?;
                found.push(PolicyPeer::Pods { namespaces: Some(namespaces), pods });
            }
            "networks" if peers == "to" => {
                for (n, network) in self.read_list(Some(value), &path)?.iter().enumerate() {
                    let text = network.as_str().unwrap_or_default();
                    match parse_network(text) {
                        Ok(cidr) => found.push(PolicyPeer::network(cidr)),
                        Err(why) => {
                            return self.fail(&format!("{path}[{n}]"), &format!("{} is {why}", quote(text)));
                        }
                    }
                }
            }
            "nodes" | "domainNames" if peers == "to" => return self.fail(&path, "is not supported"),
            _ => return self.fail(&path, "is not known here"),
        }
        Some(())
    }

    fn read_protocol(&mut self, item: &Value, path: &str, ports: &mut Vec<PolicyPort>) -> Option<()> {
        const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let (name, value) = self.read_one(Some(item), path)?;
        let path = format!("{path}.{name}");
        let protocol = match name {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            "destinationNamedPort" => {
                let Some(name) = value.as_str().filter(|name| !name.is_empty()) else {
                    return self.fail(&path, "is no name");
                };
                // Of whichever protocol the container's port is.
                ports.extend(ALL.map(|protocol| PolicyPort::Named { protocol, name: name.into() }));
                return Some(());
            }
            _ => return self.fail(&path, "is not known here"),
        };
        let (name, value) = self.read_one(Some(value), &path)?;
        let path = format!("{path}.{name}");
        if name != "destinationPort" {
            return self.fail(&path, "is not known here");
        }
        let (name, value) = self.read_one(Some(value), &path)?;
        let path = format!("{path}.{name}");
        let (first, last) = match name {
            "number" => {
                let port = self.read_port(Some(value), &path)?;
                (port, port)
            }
            "range" => {
                let range = self.read_fields(value, &path, &["start", "end"])?;
                let first = self.read_port(field(range, "start"), &format!("{path}.start"))?;
                (first, self.read_port(field(range, "end"), &format!("{path}.end"))?)
            }
            _ => return self.fail(&path, "is not known here"),
        };
        if last < first {
            return self.fail(&path, &format!("{last} comes before {first}"));
        }
        ports.push(PolicyPort::Range { protocol, first, last });
        Some(())
    }

    fn read_port(&mut self, value: Option<&Value>, path: &str) -> Option<u16> {
        let port = value.and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        match port.filter(|port| *port != 0) {
            Some(port) => Some(port),
            None => self.fail(path, "is no port (1 to 65535)"),
        }
    }

    /// A selector with all of its requirements.
    fn read_selector(&mut self, value: &Value, path: &str) -> Option<Selector> {
        let api = self.read_selector_object(value, path)?;
        let parsed = parse_selector(&api, path, self.loss, self.problems);
        parsed.complete.then_some(parsed.selector)
    }

    fn read_selector_object(&mut self, value: &Value, path: &str) -> Option<LabelSelector> {
        self.read_fields(value, path, &["matchLabels", "matchExpressions"])?;
        match LabelSelector::deserialize(value) {
            Ok(api) => Some(api),
            Err(error) => self.fail(path, &error.to_string()),
        }
    }

    /// An object with no fields but these.
    fn read_fields<'v>(
        &mut self,
        value: &'v Value,
        path: &str,
        known: &[&str],
    ) -> Option<&'v Map<String, Value>> {
        let Some(fields) = value.as_object() else { return self.fail(path, "is no object") };
        match set_fields(fields).find(|name| !known.contains(name)) {
            Some(name) => self.fail(&format!("{path}.{name}"), "is not known here"),
            None => Some(fields),
        }
    }

    /// The one field of an object that has to have exactly one.
    fn read_one<'v>(&mut self, value: Option<&'v Value>, path: &str) -> Option<(&'v str, &'v Value)> {
        let Some(fields) = value.and_then(Value::as_object) else { return self.fail(path, "is no object") };
        let mut names = set_fields(fields);
        match (names.next(), names.next()) {
            (Some(name), None) => Some((name, &fields[name])),
            (None, _) => self.fail(path, "has no field that is known here"),
            (Some(one), Some(other)) => self.fail(path, &format!("has both {one} and {other}")),
        }
    }

    /// A list with at least one item.
    fn read_list<'v>(&mut self, value: Option<&'v Value>, path: &str) -> Option<&'v [Value]> {
        match value.and_then(Value::as_array).filter(|list| !list.is_empty()) {
            Some(list) => Some(list),
            None => self.fail(path, "is no list with an item"),
        }
    }
}

/// A field; null is as good as none.
fn field<'v>(fields: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    fields.get(name).filter(|value| !value.is_null())
}

/// The names of the fields that are set.
fn set_fields(fields: &Map<String, Value>) -> impl Iterator<Item = &str> {
    fields.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str())
}
