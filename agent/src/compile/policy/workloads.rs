//! Which sets each pod of this node has.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_ebpf::abi::{PodPolicy, PolicySetId, Side};

use super::ports::PortRange;
use super::rule::{Atom, AtomId, PortMatch, Rule, Scope};
use super::{Change, PolicyCompiler};
use crate::source::{PolicyPeer, PolicyPort, PolicyRule};
use crate::state::{PodView, PolicyState};

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
            let policy = state.workload(*addr).map(|view| PodPolicy {
                ingress: self.acquire_set(state, &view, Side::Ingress, out),
                egress: self.acquire_set(state, &view, Side::Egress, out),
                flags: 0,
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

    fn acquire_set(
        &mut self,
        state: &PolicyState,
        view: &PodView<'_>,
        side: Side,
        out: &mut Vec<Change>,
    ) -> PolicySetId {
        let mut isolated = false;
        let mut atoms = Atoms { ids: Vec::new() };
        let mut rules = Vec::new();
        for policy in state.policies(view.namespace).filter(|policy| policy.pods.matches(&view.pod.labels)) {
            let of_side = match side {
                Side::Ingress => &policy.ingress,
                Side::Egress => &policy.egress,
            };
            isolated |= of_side.is_some();
            let of_side = of_side.iter().flatten();
            rules.extend(of_side.map(|rule| atoms.read_rule(&mut self.matrix, rule, view, side)));
        }
        let set = if isolated { self.matrix.acquire_set(rules, out) } else { PolicySetId::OPEN };
        self.matrix.release_atoms(atoms.ids);
        set
    }
}

/// The atoms that are held while a set is put together.
struct Atoms {
    ids: Vec<AtomId>,
}

impl Atoms {
    fn read_rule(
        &mut self,
        matrix: &mut super::Matrix,
        rule: &PolicyRule,
        view: &PodView<'_>,
        side: Side,
    ) -> Rule {
        let peers = rule.peers.as_ref().map(|peers| {
            let peers = peers.iter().map(|peer| self.hold(matrix, read_peer(peer, view)));
            in_order(peers.collect())
        });
        let ports = rule.ports.as_ref().map(|ports| {
            let ports = ports.iter().filter_map(|port| self.read_port(matrix, port, view, side));
            in_order(ports.collect())
        });
        Rule { peers, ports }
    }

    /// A name in ingress is what the pod itself calls so: `None` where it calls nothing so. In egress it is each peer's.
    fn read_port(
        &mut self,
        matrix: &mut super::Matrix,
        port: &PolicyPort,
        view: &PodView<'_>,
        side: Side,
    ) -> Option<PortMatch> {
        Some(match (port, side) {
            (PolicyPort::Range { protocol, first, last }, _) => {
                PortMatch::Range(PortRange { protocol: *protocol, first: *first, last: *last })
            }
            (PolicyPort::Named { protocol, name }, Side::Ingress) => {
                let port = view.pod.port(name, *protocol)?;
                PortMatch::Range(PortRange { protocol: *protocol, first: port, last: port })
            }
            (PolicyPort::Named { protocol, name }, Side::Egress) => {
                PortMatch::Name(self.hold(matrix, Atom::Name(name.clone(), *protocol)), *protocol)
            }
        })
    }

    fn hold(&mut self, matrix: &mut super::Matrix, atom: Atom) -> AtomId {
        let id = matrix.acquire_atom(atom);
        self.ids.push(id);
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
