//! ClusterNetworkPolicies (policy.networking.k8s.io/v1alpha2), reduced to what decides about packets; and what annotations
//! say of any policy.

use std::fmt;
use std::sync::Arc;

use super::{PolicyPeer, PolicyPort, Selector};

/// A ClusterNetworkPolicy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterNetworkPolicy {
    /// `spec.tier`
    pub tier: Tier,
    /// `spec.priority`, 0 to 1000: the lowest comes first.
    pub priority: u16,
    /// `spec.subject`
    pub subject: Subject,
    /// `spec.ingress`, in its order.
    pub ingress: Box<[ClusterRule]>,
    /// `spec.egress`, in its order.
    pub egress: Box<[ClusterRule]>,
    /// What its annotations say.
    pub modes: PolicyModes,
}

/// `spec.tier`: whether it is asked before NetworkPolicies or after them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Tier {
    /// Before; what it decides is final.
    Admin,
    /// After, where no NetworkPolicy isolates the pod.
    Baseline,
}

/// `spec.subject`: which pods it is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// `namespaces`, or `pods.namespaceSelector`
    pub namespaces: Selector,
    /// `pods.podSelector`; the one that selects all where there is none.
    pub pods: Selector,
}

/// An item of `spec.ingress` or `spec.egress`. One that cannot be understood "fails closed" (API comments on the peers): an
/// Accept is not here at all, anything else denies everybody everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterRule {
    /// What a person calls it.
    pub label: RuleLabel,
    /// `action`
    pub action: RuleAction,
    /// `from`, `to`, each of `networks` an item of its own; `None`: whoever it is. Selectors of pods always have a
    /// namespaceSelector.
    pub peers: Option<Box<[PolicyPeer]>>,
    /// `protocols`; `None`: any port of any protocol, and what has no ports.
    pub ports: Option<Box<[PolicyPort]>>,
}

/// A rule as a person finds it: decides nothing, and says in a drop which one did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RuleLabel {
    /// Its place in the list, from 1; 0 where there is no list that could be read.
    pub number: u16,
    /// `name`, without control characters.
    pub name: Option<Arc<str>>,
}

impl fmt::Display for RuleLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.number, &self.name) {
            (0, _) => f.write_str("rules that cannot be read"),
            (number, Some(name)) => write!(f, "rule {number} ({name})"),
            (number, None) => write!(f, "rule {number}"),
        }
    }
}

/// `action`: what becomes of a flow that a rule is the first to match.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum RuleAction {
    /// It is allowed, whatever comes after.
    Accept,
    /// It is denied, whatever comes after.
    Deny,
    /// No other rule of this tier is asked.
    Pass,
}

/// What annotations say of a policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PolicyModes {
    /// `weir.dev/policy-mode: audit`: what it would deny passes, and is told.
    pub audit: bool,
    /// `weir.dev/established: keep`: what was allowed goes on when it comes to deny it.
    pub keep: bool,
}

impl ClusterNetworkPolicy {
    /// What it says of one direction.
    #[must_use]
    pub fn rules(&self, side: super::Side) -> &[ClusterRule] {
        match side {
            super::Side::Ingress => &self.ingress,
            super::Side::Egress => &self.egress,
        }
    }
}
