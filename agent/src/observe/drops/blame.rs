//! Which policy denies a flow, and by which of its rules: asked of the objects one after the other, as the API says it. The tables
//! do not know it (a row is what all policies of a pod mean together), and nothing is decided here. Called by
//! [`super::explain`], for what was dropped.

use std::net::IpAddr;
use std::sync::Arc;

use crate::source::{
    ClusterNetworkPolicy, ClusterRule, NetworkPolicy, ObjectKey, PolicyPeer, PolicyPort, Protocol,
    RuleAction, RuleLabel, Side, Tier,
};
use crate::state::{ClusterPolicyView, PodView, PolicyState, Selected};

/// Beyond so many NetworkPolicies of one pod nobody looks into them for each drop.
const MOST_POLICIES: usize = 1_000;

/// A flow as the pod sees it that was asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// The other end: for egress behind translation.
    pub(super) peer: IpAddr,
    /// `None`: none that has ports.
    pub(super) protocol: Option<Protocol>,
    /// The port that was dialled, behind translation.
    pub(super) port: u16,
}

/// Who denies it.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Blame<'a> {
    /// This rule of a policy without a namespace. `sure`: it is known whom it is about.
    Rule { policy: &'a Arc<str>, rule: &'a RuleLabel, sure: bool },
    /// NetworkPolicies, of which none allows it.
    Isolation,
    /// Nobody.
    Nobody,
}

/// The policies that are for a pod in one direction.
#[derive(Debug)]
pub(super) struct Policies<'a> {
    state: &'a PolicyState,
    pod: PodView<'a>,
    side: Side,
    of_cluster: Vec<ClusterPolicyView<'a>>,
    /// With their names, and whether they are audited.
    own: Vec<(&'a Arc<str>, &'a NetworkPolicy, bool)>,
}

/// What a tier says.
enum Said<'a> {
    Denied(Blame<'a>),
    Allowed,
    Next,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

impl<'a> Policies<'a> {
    /// `None`: there is no such pod.
    pub(super) fn of(state: &'a PolicyState, pod: &ObjectKey, side: Side) -> Option<Self> {
        let pod = state.pod(pod)?;
        let own = state
            .named_policies(pod.namespace)
            .filter(|(_, policy)| rules_of(policy, side).is_some() && policy.pods.matches(&pod.pod.labels));
        let own = own.map(|(name, policy)| (name, policy, state.is_audited(pod.namespace, policy)));
        Some(Self { own: own.collect(), of_cluster: state.cluster_policies(&pod), state, pod, side })
    }

    /// The NetworkPolicies that isolate the pod; `watched`: those that are audited.
    pub(super) fn isolating(&self, watched: bool) -> impl Iterator<Item = &'a Arc<str>> {
        self.own.iter().filter(move |(.., audited)| *audited == watched).map(|(name, ..)| *name)
    }

    /// The policies without a namespace that deny anything, or pass it to who may; likewise.
    pub(super) fn denying(&self, watched: bool) -> impl Iterator<Item = &'a Arc<str>> {
        let denies = |rule: &ClusterRule| rule.action != RuleAction::Accept;
        let found = self.of_cluster.iter().filter(move |one| {
            one.policy.modes.audit == watched && one.policy.rules(self.side).iter().any(denies)
        });
        found.map(|one| one.name)
    }

    /// `watched`: who of those that are audited would deny what the others let pass. `None`: there are too many to ask.
    pub(super) fn blame(&self, flow: &Flow, watched: bool) -> Option<Blame<'a>> {
        if self.own.len() > MOST_POLICIES {
            return None;
        }
        match self.ask_tier(Tier::Admin, flow, watched) {
            Said::Denied(blame) => return Some(blame),
            Said::Allowed => return Some(Blame::Nobody),
            Said::Next => {}
        }
        let allowed = self.own.iter().any(|(_, policy, _)| self.allows(policy, flow));
        let is_enforced = self.own.iter().any(|(.., audited)| !audited);
        match (is_enforced, allowed) {
            (true, false) if !watched => return Some(Blame::Isolation),
            (true, _) => return Some(Blame::Nobody),
            (false, false) if watched && !self.own.is_empty() => return Some(Blame::Isolation),
            (false, _) => {}
        }
        match self.ask_tier(Tier::Baseline, flow, watched) {
            Said::Denied(blame) => Some(blame),
            Said::Allowed | Said::Next => Some(Blame::Nobody),
        }
    }

    fn ask_tier(&self, tier: Tier, flow: &Flow, watched: bool) -> Said<'a> {
        for ClusterPolicyView { name, policy, selected } in &self.of_cluster {
            if policy.tier != tier {
                continue;
            }
            let Some((action, rule, sure)) = self.first_rule(policy, *selected, flow) else { continue };
            let blame = || Said::Denied(Blame::Rule { policy: name, rule, sure });
            match (action, policy.modes.audit) {
                (RuleAction::Deny, audited) if audited == watched => return blame(),
                (_, true) => {}
                (RuleAction::Pass, false) => return Said::Next,
                (RuleAction::Accept | RuleAction::Deny, false) => return Said::Allowed,
            }
        }
        Said::Next
    }

    /// The first rule of a policy that is about it, and what it does: while it is not known whom it is about, the same as in the
    /// tables.
    fn first_rule(
        &self,
        policy: &'a ClusterNetworkPolicy,
        selected: Selected,
        flow: &Flow,
    ) -> Option<(RuleAction, &'a RuleLabel, bool)> {
        policy.rules(self.side).iter().find_map(|rule| {
            let peers = rule.peers.as_deref();
            let about = peers.map_or(Truth::Yes, |peers| self.match_peers(peers, flow));
            let all = rule.action == RuleAction::Deny || selected != Selected::Yes;
            let ports = rule.ports.as_deref().is_none_or(|ports| self.has_port(ports, flow, all));
            let sure = about == Truth::Yes && selected == Selected::Yes;
            match rule.action {
                _ if about == Truth::No || !ports => None,
                RuleAction::Accept if !sure => None,
                RuleAction::Pass if !sure => Some((RuleAction::Deny, &rule.label, false)),
                action => Some((action, &rule.label, sure)),
            }
        })
    }

    fn allows(&self, policy: &NetworkPolicy, flow: &Flow) -> bool {
        rules_of(policy, self.side).into_iter().flatten().any(|rule| {
            let peers = rule.peers.as_deref();
            peers.is_none_or(|peers| self.match_peers(peers, flow) == Truth::Yes)
                && rule.ports.as_deref().is_none_or(|ports| self.has_port(ports, flow, false))
        })
    }

    fn match_peers(&self, peers: &[PolicyPeer], flow: &Flow) -> Truth {
        peers.iter().map(|peer| self.match_peer(peer, flow.peer)).max().unwrap_or(Truth::No)
    }

    fn match_peer(&self, peer: &PolicyPeer, addr: IpAddr) -> Truth {
        let (namespaces, pods) = match peer {
            PolicyPeer::Block(block) => {
                let is_in = block.cidr.contains(&addr) && !block.except.iter().any(|net| net.contains(&addr));
                return is_in.into();
            }
            PolicyPeer::Pods { namespaces, pods } => (namespaces, pods),
        };
        let Some(view) = self.state.owner(addr).filter(|view| pods.matches(&view.pod.labels)) else {
            return Truth::No;
        };
        match (namespaces, self.state.namespace(view.namespace)) {
            (None, _) => (view.namespace == self.pod.namespace).into(),
            (Some(selector), _) if selector.selects_all() => Truth::Yes,
            (Some(selector), Some(namespace)) => selector.matches(&namespace.labels).into(),
            (Some(_), None) => Truth::Perhaps,
        }
    }

    /// A name is what the destination calls so: the first port, or `all`.
    fn has_port(&self, ports: &[PolicyPort], flow: &Flow, all: bool) -> bool {
        let Some(own) = flow.protocol else { return false };
        ports.iter().any(|port| match port {
            PolicyPort::Range { protocol, first, last } => {
                *protocol == own && (*first..=*last).contains(&flow.port)
            }
            PolicyPort::Named { protocol, name } => {
                let pod = match self.side {
                    Side::Ingress => Some(self.pod),
                    Side::Egress => self.state.owner(flow.peer),
                };
                let most = if all { usize::MAX } else { 1 };
                let is_it = |view: PodView<'_>| {
                    view.pod.ports_named(name, own).take(most).any(|port| port == flow.port)
                };
                *protocol == own && pod.is_some_and(is_it)
            }
        })
    }
}

fn rules_of(policy: &NetworkPolicy, side: Side) -> Option<&[crate::source::PolicyRule]> {
    match side {
        Side::Ingress => policy.ingress.as_deref(),
        Side::Egress => policy.egress.as_deref(),
    }
}
