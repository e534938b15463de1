//! Pods, namespaces and policies, compiled into the rows that `datapath::policy` judges by. ARCHITECTURE.md, "What a policy
//! becomes", has the words: set, atom, class.
//!
//! Unlike the rest of `compile` it remembers what it compiled, because numbers have to last; nothing else of it depends on
//! what was before. Called with what changed, for each batch of events.

mod content;
mod interned;
mod matrix;
mod names;
mod networks;
mod peers;
mod ports;
mod rule;
mod selectors;
#[cfg(test)]
mod tests;
mod workloads;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use weir_ebpf::abi::{
    Addr, ClassId, NetworkKey, PodPolicy, PolicySetId, PortRule, PortRuleKey, PortRulesId, VerdictKey,
};

use crate::state::{PolicyChanges, PolicyState};
use matrix::{DeadAtom, Matrix};
pub use names::{Fingerprint, Named};
use networks::Networks;
use selectors::Selectors;

/// One row that is to be written; `None`: removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// `port_rules`
    PortRule(PortRuleKey, Option<PortRule>),
    /// `verdicts`
    Verdict(VerdictKey, Option<PortRulesId>),
    /// `network_classes`
    Network(NetworkKey, Option<ClassId>),
    /// `address_classes`
    Address(Addr, Option<ClassId>),
    /// `pod_policies`
    Pod(Addr, Option<PodPolicy>),
    /// Whether by this set somebody may be allowed more for want of a row. It is no row; it comes before those of the set.
    Exact(PolicySetId, bool),
    /// What a number means, for the agent after this one; no program reads it.
    Name(Named, Option<Fingerprint>),
}

/// What a batch of changes makes of the tables.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Update {
    /// To be written in this order: between any two of them every flow is judged as before, or as after.
    pub changes: Vec<Change>,
    /// Rows that nothing points to once these are written: to be removed when no program reads by what was before, which is
    /// after a grace period. Their numbers are not used again meanwhile.
    pub garbage: Vec<Change>,
}

/// How much there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sizes {
    /// Selectors, blocks and port names of policies that apply here.
    pub atoms: usize,
    /// Policy sets.
    pub sets: usize,
    /// Classes.
    pub classes: usize,
    /// Rows of `verdicts`.
    pub verdicts: usize,
    /// Different sets of ports.
    pub port_sets: usize,
    /// Rows of `network_classes`.
    pub networks: usize,
    /// Rows of `address_classes`.
    pub addresses: usize,
    /// Rows of `pod_policies`.
    pub workloads: usize,
}

/// What is in the tables, and how it came there.
#[derive(Debug)]
pub struct PolicyCompiler {
    matrix: Matrix,
    networks: Networks,
    selectors: Selectors,
    /// Rows of `address_classes`.
    addresses: BTreeMap<IpAddr, ClassId>,
    /// Rows of `pod_policies`.
    workloads: HashMap<IpAddr, PodPolicy>,
}

impl Default for PolicyCompiler {
    fn default() -> Self {
        Self::new()
    }
}

impl PolicyCompiler {
    /// For empty tables.
    #[must_use]
    pub fn new() -> Self {
        Self {
            matrix: Matrix::new(),
            networks: Networks::new(),
            selectors: Selectors::default(),
            addresses: BTreeMap::new(),
            workloads: HashMap::new(),
        }
    }

    /// For tables that an agent before this one wrote: of what the first update says, only what is different has to be
    /// written, and what it does not say is to be removed. Numbers whose meaning is gone are among its garbage.
    pub fn adopting(names: impl IntoIterator<Item = (Named, Fingerprint)>) -> Self {
        let mut compiler = Self::new();
        names.into_iter().for_each(|(named, name)| compiler.matrix.adopt(named, name));
        compiler
    }

    /// Takes in what changed since the last call. First everything new is written, beside the old; then pods move over to
    /// it; then the old goes, which no pod asks for any more.
    pub fn update(&mut self, state: &PolicyState, changes: &PolicyChanges) -> Update {
        let mut update = Update::default();
        let moves = self.acquire_sets(state, &changes.workloads, &mut update.changes);
        let fresh = self.matrix.take_fresh_atoms();
        let mut touched = self.add_atoms(state, &fresh);
        touched.extend(&changes.peers);
        self.settle_unwritten(&mut update.changes);
        for block in fresh.iter().filter_map(|(_, atom)| atom.block()) {
            self.settle_networks(block.cidr, &mut update.changes);
        }
        self.settle_addresses(state, touched, &mut update.changes);
        self.move_workloads(moves, &mut update.changes);
        let dead = self.matrix.remove_idle_sets(&mut update.garbage);
        self.bury_atoms(state, &dead, &mut update.changes);
        self.matrix.remove_idle_classes(&mut update.garbage);
        self.matrix.forget_unrecognized(&mut update.garbage);
        update
    }

    /// The sets by which some class may use these ports; walks over all verdicts.
    #[must_use]
    pub fn sets_with(&self, ports: PortRulesId) -> BTreeSet<PolicySetId> {
        self.matrix.sets_with(ports)
    }

    /// How much there is.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            networks: self.networks.len(),
            addresses: self.addresses.len(),
            workloads: self.workloads.len(),
            ..self.matrix.sizes()
        }
    }

    /// Atoms that no set has: what they told apart is one again.
    fn bury_atoms(&mut self, state: &PolicyState, dead: &[DeadAtom], out: &mut Vec<Change>) {
        if dead.is_empty() {
            return;
        }
        let classes: BTreeSet<ClassId> = dead.iter().flat_map(|atom| atom.classes.iter().copied()).collect();
        let in_them = self.addresses.iter().filter(|(_, class)| classes.contains(class));
        let touched: BTreeSet<_> = in_them.map(|(addr, _)| *addr).collect();
        self.remove_atoms(dead);
        for block in dead.iter().filter_map(|dead| dead.atom.block()) {
            self.settle_networks(block.cidr, out);
        }
        self.settle_addresses(state, touched, out);
    }
}
