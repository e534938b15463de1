//! Which class each address is of.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weir_ebpf::abi::ClassId;

use super::matrix::DeadAtom;
use super::networks::{Touched, host, network_key};
use super::rule::{Atom, AtomId, Mark};
use super::selectors::Selectors;
use super::{Change, PolicyCompiler};
use crate::state::PolicyState;

impl PolicyCompiler {
    /// Takes in new atoms; returns the addresses that they match. Of a block these are those that have rows: nobody else's
    /// class is its own.
    pub(super) fn add_atoms(
        &mut self,
        state: &PolicyState,
        fresh: &[(AtomId, Arc<Atom>)],
    ) -> BTreeSet<IpAddr> {
        let mut touched = BTreeSet::new();
        let mut selectors = Selectors::default();
        for (id, atom) in fresh {
            selectors.insert(*id, atom);
            self.selectors.insert(*id, atom);
            if let Some(block) = atom.block() {
                self.networks.add(*id, atom, block);
                let (first, last) = (block.cidr.network(), block.cidr.broadcast());
                touched.extend(self.addresses.range(first..=last).map(|(addr, _)| *addr));
            }
        }
        if !selectors.is_empty() {
            let is_matched = |namespace, pod| !selectors.marks(state, namespace, pod).is_empty();
            let matched = state.all_pods().filter(|(namespace, pod)| is_matched(namespace, pod));
            touched.extend(matched.flat_map(|(_, pod)| &pod.addresses));
        }
        touched
    }

    /// Takes out atoms that no set has.
    pub(super) fn remove_atoms(&mut self, dead: &[DeadAtom]) {
        for DeadAtom { id, atom, .. } in dead {
            self.selectors.remove(*id, atom);
            if let Some(block) = atom.block() {
                self.networks.remove(*id, block);
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
        let marks = self.networks.matching(network).into_iter().map(Mark::new);
        let class = self.matrix.acquire_class(marks.collect(), out);
        let before = self.networks.set_class(network, class);
        if before != Some(class) {
            out.push(Change::Network(network_key(network), Some(class)));
        }
        before
    }

    fn settle_address(&mut self, state: &PolicyState, addr: IpAddr, out: &mut Vec<Change>) {
        let owner = state.owner(addr);
        let marks = owner.map(|view| self.selectors.marks(state, view.namespace, view.pod));
        let mut marks = marks.unwrap_or_default();
        // Without marks of its own it is of the class that its prefix gives it.
        let class = (!marks.is_empty()).then(|| {
            let blocks = self.networks.matching(host(addr));
            marks.extend(blocks.into_iter().map(Mark::new));
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
}
