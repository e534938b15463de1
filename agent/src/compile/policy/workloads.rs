//! Which sets each pod of this node has.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_ebpf::abi::{PodPolicy, PolicySetId, Side};

use super::content::{Content, Isolation, Step};
use super::ports::PortRange;
use super::rule::{Atom, AtomId, PortMatch, Rule, Scope};
use super::{Change, Matrix, PolicyCompiler};
use crate::source::{
    ClusterNetworkPolicy, ClusterRule, NetworkPolicy, PolicyPeer, PolicyPort, RuleAction, Tier,
};
use crate::state::{ClusterPolicyView, PodView, PolicyState, Selected};

/// A pod's address, and the sets that it is to have; it holds them from when it was made.
pub(super) type Move = (IpAddr, Option<PodPolicy>);

impl PolicyCompiler {
    /// Writes the sets that these addresses are to have.
    pub(super) fn acquire_sets(
        &mut self,
        state: &PolicyState,
        touched: &BTreeSet<IpAddr>,
        out: &mut Vec<Change>,
    ) -> Vec<Move> {
        let mut acquire = |addr: &IpAddr| {
            let policy = state.workload(*addr).map(|view| {
                let (ingress, to_it) = self.acquire_set(state, &view, Side::Ingress, out);
                let (egress, of_it) = self.acquire_set(state, &view, Side::Egress, out);
                PodPolicy { flags: to_it | of_it, ..PodPolicy::new(ingress, egress) }
            });
            (*addr, policy)
        };
        touched.iter().map(&mut acquire).collect()
    }

    /// Gives each address its sets; what it had has one user less.
    pub(super) fn move_workloads(&mut self, moves: Vec<Move>, out: &mut Vec<Change>) {
        for (addr, policy) in moves {
            let before = match policy {
                Some(policy) => self.workloads.insert(addr, policy),
                None => self.workloads.remove(&addr),
            };
            if before != policy {
                out.push(Change::Pod(addr.into(), policy));
            }
            if let Some(PodPolicy { ingress, egress, .. }) = before {
                [ingress, egress].into_iter().for_each(|set| self.matrix.release_set(set));
            }
        }
    }

    /// And the flags of that side: whether what was allowed is to go on, which each policy has to say that may deny it, and
    /// whether only policies that watch would deny anything.
    fn acquire_set(
        &mut self,
        state: &PolicyState,
        view: &PodView<'_>,
        side: Side,
        out: &mut Vec<Change>,
    ) -> (PolicySetId, u32) {
        let mut reader = Reader { matrix: &mut self.matrix, view, side, atoms: Vec::new() };
        let (mut isolation, mut rules, mut keeps) = (Isolation::None, Vec::new(), Vec::new());
        for policy in state.policies(view.namespace).filter(|policy| policy.pods.matches(&view.pod.labels)) {
            let Some(of_side) = rules_of(policy, side) else { continue };
            if state.is_audited(view.namespace, policy) {
                isolation = isolation.max(Isolation::Audited);
            } else {
                isolation = Isolation::Enforced;
                keeps.push(policy.modes.keep);
            }
            rules.extend(
                of_side.iter().map(|rule| reader.read(rule.peers.as_deref(), rule.ports.as_deref(), false)),
            );
        }
        let (mut admin, mut baseline) = (Vec::new(), Vec::new());
        for ClusterPolicyView { policy, selected, .. } in state.cluster_policies(view) {
            let steps = reader.read_cluster(policy, selected);
            // Behind NetworkPolicies that isolate the pod no Baseline is asked.
            let is_asked = policy.tier == Tier::Admin || isolation != Isolation::Enforced;
            if is_asked && steps.iter().any(denies) {
                keeps.push(policy.modes.keep);
            }
            let tier = if policy.tier == Tier::Admin { &mut admin } else { &mut baseline };
            tier.extend(steps);
        }
        let atoms = reader.atoms;
        let content = Content::new(admin, isolation, rules, baseline);
        let may_deny = self.matrix.may_deny(&content);
        let set = self.matrix.acquire_set(content, out);
        self.matrix.release_atoms(atoms);
        let (keep, watch) = match side {
            Side::Ingress => (PodPolicy::KEEP_INGRESS, PodPolicy::WATCH_INGRESS),
            Side::Egress => (PodPolicy::KEEP_EGRESS, PodPolicy::WATCH_EGRESS),
        };
        let flags = match () {
            () if set == PolicySetId::OPEN => 0,
            () if !may_deny => watch,
            () if !keeps.is_empty() && keeps.iter().all(|keeps| *keeps) => keep,
            () => 0,
        };
        (set, flags)
    }
}

/// Whether a step of a policy, which is enforced, denies anything by its words. (One that passes denies while it is not known
/// whom it is about, but what becomes of flows is not for it to say.)
fn denies(step: &Step) -> bool {
    matches!(step, Step::Rule(RuleAction::Deny, rule) if !rule.is_void())
}

/// What a policy allows in one direction, if it is about it.
fn rules_of(policy: &NetworkPolicy, side: Side) -> Option<&[crate::source::PolicyRule]> {
    match side {
        Side::Ingress => policy.ingress.as_deref(),
        Side::Egress => policy.egress.as_deref(),
    }
}

/// Reads the rules that are for one side of a pod, and holds their atoms while a set is put together.
struct Reader<'a> {
    matrix: &'a mut Matrix,
    view: &'a PodView<'a>,
    side: Side,
    atoms: Vec<AtomId>,
}

impl Reader<'_> {
    /// Where it is not known whether the policy is for the pod, only what it denies counts, and what it would pass: that is
    /// denied, too.
    fn read_cluster(&mut self, policy: &ClusterNetworkPolicy, selected: Selected) -> Vec<Step> {
        let mut rules = Vec::new();
        for ClusterRule { action, peers, ports, .. } in policy.rules(self.side) {
            let action = match (selected, action) {
                (Selected::Yes, action) => *action,
                (_, RuleAction::Accept) => continue,
                (_, RuleAction::Deny | RuleAction::Pass) => RuleAction::Deny,
            };
            let all = action == RuleAction::Deny;
            rules.push((action, self.read(peers.as_deref(), ports.as_deref(), all)));
        }
        if policy.modes.audit {
            return vec![Step::Audit(rules)];
        }
        rules.into_iter().map(|(action, rule)| Step::Rule(action, rule)).collect()
    }

    /// `all`: of a name all ports that the pod itself calls so, as for what denies.
    fn read(&mut self, peers: Option<&[PolicyPeer]>, ports: Option<&[PolicyPort]>, all: bool) -> Rule {
        let peers = peers.map(|peers| {
            let peers = peers.iter().map(|peer| self.hold(read_peer(peer, self.view)));
            in_order(peers.collect())
        });
        let ports = ports.map(|ports| {
            let ports = ports.iter().flat_map(|port| self.read_port(port, all));
            in_order(ports.collect())
        });
        Rule { peers, ports }
    }

    /// A name in ingress is what the pod itself calls so: nothing where it calls nothing so. In egress it is each peer's.
    fn read_port(&mut self, port: &PolicyPort, all: bool) -> Vec<PortMatch> {
        match (port, self.side) {
            (PolicyPort::Range { protocol, first, last }, _) => {
                vec![PortMatch::Range(PortRange { protocol: *protocol, first: *first, last: *last })]
            }
            (PolicyPort::Named { protocol, name }, Side::Ingress) => {
                let ports = self.view.pod.ports_named(name, *protocol);
                let ports = ports.take(if all { usize::MAX } else { 1 });
                let range = |port| PortRange { protocol: *protocol, first: port, last: port };
                ports.map(|port| PortMatch::Range(range(port))).collect()
            }
            (PolicyPort::Named { protocol, name }, Side::Egress) => {
                vec![PortMatch::Name(self.hold(Atom::Name(name.clone(), *protocol)), *protocol)]
            }
        }
    }

    fn hold(&mut self, atom: Atom) -> AtomId {
        let id = self.matrix.acquire_atom(atom);
        self.atoms.push(id);
        id
    }
}

fn read_peer(peer: &PolicyPeer, view: &PodView<'_>) -> Atom {
    match peer {
        PolicyPeer::Block(block) => Atom::Block(block.clone()),
        PolicyPeer::Pods { namespaces: None, pods } => {
            Atom::Pods { namespaces: Scope::One(view.namespace.clone()), pods: pods.clone() }
        }
        PolicyPeer::Pods { namespaces: Some(selector), pods } => {
            Atom::Pods { namespaces: Scope::Selected(selector.clone()), pods: pods.clone() }
        }
    }
}

fn in_order<T: Ord>(mut list: Vec<T>) -> Box<[T]> {
    list.sort_unstable();
    list.dedup();
    list.into()
}
