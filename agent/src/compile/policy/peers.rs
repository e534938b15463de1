//! Which class each address is of.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weir_ebpf::abi::ClassId;

use super::matrix::Matrix;
use super::networks::{Touched, host, network_key};
use super::rule::{Atom, AtomId, Mark, Scope};
use super::{Change, PolicyCompiler};
use crate::source::Pod;
use crate::state::{PodView, PolicyState};

/// For each namespace the selectors that pods there may be matched by: forgotten when its labels or the selectors change.
#[derive(Debug, Default)]
pub(super) struct Scopes(HashMap<Arc<str>, Arc<[AtomId]>>);

impl Scopes {
    pub(super) fn forget(&mut self, namespace: &str) {
        self.0.remove(namespace);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn atoms(&mut self, state: &PolicyState, matrix: &Matrix, namespace: &Arc<str>) -> Arc<[AtomId]> {
        if let Some(known) = self.0.get(namespace) {
            return known.clone();
        }
        let in_scope = matrix.atoms().filter(|(_, atom)| match &***atom {
            Atom::Pods { namespaces, .. } => is_in_scope(state, namespaces, namespace),
            Atom::Block(_) | Atom::Name(..) => false,
        });
        let atoms: Arc<[AtomId]> = in_scope.map(|(id, _)| id).collect();
        self.0.insert(namespace.clone(), atoms.clone());
        atoms
    }
}

/// A namespace that is not known has no labels that anybody could have meant: selectors of namespaces do not match it, not
/// even those that would match one without labels.
fn is_in_scope(state: &PolicyState, scope: &Scope, namespace: &str) -> bool {
    match scope {
        Scope::One(name) => **name == *namespace,
        Scope::Selected(selector) => {
            state.namespace(namespace).is_some_and(|namespace| selector.matches(&namespace.labels))
        }
    }
}

/// Adds the addresses of the pods that match. Most are in already when much is new.
fn add_matching<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    matches: impl Fn(&Pod) -> bool,
    touched: &mut BTreeSet<IpAddr>,
) {
    for pod in pods {
        if !pod.addresses.iter().all(|addr| touched.contains(addr)) && matches(pod) {
            touched.extend(&pod.addresses);
        }
    }
}

impl PolicyCompiler {
    /// Adds the addresses that a new atom matches; of a block, those that have rows.
    pub(super) fn collect_matching(
        &mut self,
        state: &PolicyState,
        atom: &Atom,
        touched: &mut BTreeSet<IpAddr>,
    ) {
        match atom {
            Atom::Block(block) => {
                let (first, last) = (block.cidr.network(), block.cidr.broadcast());
                touched.extend(self.addresses.range(first..=last).map(|(addr, _)| *addr));
            }
            Atom::Pods { namespaces, pods } => {
                self.scopes.clear();
                let matches = |pod: &Pod| pods.matches(&pod.labels);
                if let Scope::One(name) = namespaces {
                    add_matching(state.pods(name), matches, touched);
                } else {
                    let names = state.populated().filter(|name| is_in_scope(state, namespaces, name));
                    names.for_each(|name| add_matching(state.pods(name), matches, touched));
                }
            }
            Atom::Name(name, protocol) => {
                let matches = |pod: &Pod| pod.port(name, *protocol).is_some();
                state.populated().for_each(|namespace| add_matching(state.pods(namespace), matches, touched));
            }
        }
    }

    /// Looks at these addresses, and writes what is different.
    pub(super) fn settle_addresses(
        &mut self,
        state: &PolicyState,
        touched: BTreeSet<IpAddr>,
        out: &mut Vec<Change>,
    ) {
        touched.into_iter().for_each(|addr| self.settle_address(state, addr, out));
    }

    /// Writes the prefixes that have no row.
    pub(super) fn settle_unwritten(&mut self, out: &mut Vec<Change>) {
        let unwritten: Vec<_> = self.networks.unwritten().collect();
        for network in unwritten {
            self.settle_network(network, out);
        }
    }

    /// Looks at the prefixes within a block that came or went.
    pub(super) fn settle_networks(&mut self, block: IpNet, out: &mut Vec<Change>) {
        let nodes: Vec<_> = self.networks.within(block).collect();
        for (network, touched) in nodes {
            let before = match touched {
                Touched::Goes => {
                    out.push(Change::Network(network_key(network), None));
                    self.networks.forget(network)
                }
                Touched::Stays => self.settle_network(network, out),
            };
            before.into_iter().for_each(|class| self.matrix.release_class(class));
        }
    }

    /// Writes a prefix' row; returns the class that it no longer uses.
    fn settle_network(&mut self, network: IpNet, out: &mut Vec<Change>) -> Option<ClassId> {
        let marks = self.networks.matching(network).into_iter().map(|atom| Mark { atom, port: 0 });
        let class = self.matrix.acquire_class(marks.collect(), out);
        let before = self.networks.set_class(network, class);
        if before != Some(class) {
            out.push(Change::Network(network_key(network), Some(class)));
        }
        before
    }

    fn settle_address(&mut self, state: &PolicyState, addr: IpAddr, out: &mut Vec<Change>) {
        let mut marks = state.owner(addr).map(|view| self.pod_marks(state, &view)).unwrap_or_default();
        // Without marks of its own it is of the class that its prefix gives it.
        let class = (!marks.is_empty()).then(|| {
            let blocks = self.networks.matching(host(addr));
            marks.extend(blocks.into_iter().map(|atom| Mark { atom, port: 0 }));
            marks.sort_unstable();
            self.matrix.acquire_class(marks, out)
        });
        let before = match class {
            Some(class) => self.addresses.insert(addr, class),
            None => self.addresses.remove(&addr),
        };
        if before != class {
            out.push(Change::Address(addr.into(), class));
        }
        before.into_iter().for_each(|class| self.matrix.release_class(class));
    }

    /// The selectors that match a pod, and the names that its ports have.
    fn pod_marks(&mut self, state: &PolicyState, view: &PodView<'_>) -> Vec<Mark> {
        let in_scope = self.scopes.atoms(state, &self.matrix, view.namespace);
        let matching = in_scope.iter().filter(|id| match self.matrix.atom_content(**id) {
            Some(Atom::Pods { pods, .. }) => pods.matches(&view.pod.labels),
            _ => false,
        });
        let selected = matching.map(|id| Mark { atom: *id, port: 0 });
        let named = view.pod.ports.iter().filter_map(|port| {
            let atom = self.matrix.atom(&Atom::Name(port.name.clone(), port.protocol))?;
            Some(Mark { atom, port: port.port })
        });
        selected.chain(named).collect()
    }
}
