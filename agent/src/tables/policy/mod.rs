//! The rows of policies in the store: what the compiler says, written in its order, and which pod is behind which device.
//!
//! The compiler knows pods by their addresses, the hooks by the device that they are behind; here the two meet. Called by the
//! daemon for each batch, and whenever the network says something else.

mod exact;
mod found;
mod pods;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use weir_ebpf::abi::{Addr, BoundPod, Enforcement, PolicySetId, PortRulesId, Side};

use super::StoreError;
use crate::compile::policy::{Change, Update};
use crate::source::Problem;
use exact::Exact;
pub use found::PolicySnapshot;
use pods::Pods;
use store::Row;
pub use store::{PolicyStore, PolicyWrite};

/// What one pod may have of the `judged` table: one part of so many.
const SHARES: u32 = 4;

/// What holds for all policies of this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PolicyOptions {
    /// Rows that `judged` has room for.
    pub judged: u32,
    /// Whether pods that nobody knows yet are held (`--unknown-pods`).
    pub holds_unknown: bool,
}

/// See the module.
#[derive(Debug)]
pub struct PolicyRows {
    options: PolicyOptions,
    enforcement: Enforcement,
    pods: Pods,
    exact: Exact,
    /// Rows by device, as they are in the store.
    bound: HashMap<u32, BoundPod>,
    /// What an agent before this one wrote, until the first update says what is true.
    found: Option<PolicySnapshot>,
    /// What the store does not take, under what it is about.
    refused: BTreeMap<Row, (Change, StoreError)>,
    /// Devices whose row could not be written.
    unbound: BTreeMap<u32, StoreError>,
    /// To be removed after a grace period.
    garbage: Vec<Change>,
    /// Classes have moved, which is to be said once more after a grace period.
    moved: bool,
    /// It may be that other sets are to be closed for want of rows.
    shut_changed: bool,
    problems_changed: bool,
}

/// What is due when a grace period has passed.
#[derive(Debug, Default)]
pub struct RetiredPolicy {
    garbage: Vec<Change>,
    moved: bool,
}

impl RetiredPolicy {
    /// Both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.garbage.extend(other.garbage);
        self.moved |= other.moved;
        self
    }
}

impl PolicyRows {
    /// Over a store in which an agent before this one, perhaps, left these rows.
    #[must_use]
    pub fn new(options: PolicyOptions, found: PolicySnapshot) -> Self {
        Self {
            options,
            enforcement: found.enforcement,
            pods: Pods::default(),
            exact: Exact::default(),
            bound: found.pods.clone(),
            found: Some(found),
            refused: BTreeMap::new(),
            unbound: BTreeMap::new(),
            garbage: Vec::new(),
            moved: false,
            shut_changed: false,
            problems_changed: false,
        }
    }

    /// Writes what a batch of changes makes of the tables. The first one says everything that is true; what it does not say
    /// of what was found is removed. `has_policies`: whether there are any, in the whole cluster.
    pub fn apply(&mut self, update: Update, has_policies: bool, store: &mut impl PolicyStore) {
        let (mut moved, mut pods_moved) = (false, false);
        for change in &update.changes {
            match *change {
                Change::Pod(addr, policy) => {
                    self.pods.set_policy(addr, policy, self.lacks_networks());
                    pods_moved = true;
                    continue;
                }
                Change::Address(..) | Change::Network(..) => moved = true,
                Change::PortRule(..) | Change::Verdict(..) | Change::Name(..) | Change::Exact(..) => {}
            }
            // What comes after pods have moved may take away what the sets had that they left.
            if std::mem::take(&mut pods_moved) {
                self.bind_pods(store);
            }
            self.write(change, store);
            self.shut_sets(store);
        }
        self.bind_pods(store);
        if let Some(found) = self.found.take() {
            let (now, later) = found.unsaid();
            moved |= !now.is_empty();
            now.iter().for_each(|change| self.write(change, store));
            self.garbage.extend(later);
            self.unbind_gone(store);
        }
        self.garbage.extend(update.garbage);
        self.say_enforcement(has_policies, moved, store);
    }

    /// Takes in where the pods of this node are: each address, and the device that it is behind; what comes by `trusted`
    /// devices may have any source.
    pub fn set_workloads(
        &mut self,
        workloads: impl Iterator<Item = (Addr, u32)>,
        trusted: BTreeSet<u32>,
        store: &mut impl PolicyStore,
    ) {
        self.pods.set_workloads(workloads, trusted);
        // Until it is known what is true, what was found stays in force.
        if self.found.is_none() {
            self.bind_pods(store);
        }
    }

    /// Devices of whom no policy is about: they are written with the next [`PolicyRows::set_workloads`].
    pub fn set_free(&mut self, devices: BTreeSet<u32>) {
        self.pods.set_free(devices);
    }

    /// What is due after a grace period, if anything is.
    pub fn take_retired(&mut self) -> Option<RetiredPolicy> {
        let due = self.moved || !self.garbage.is_empty();
        due.then(|| RetiredPolicy {
            garbage: std::mem::take(&mut self.garbage),
            moved: std::mem::take(&mut self.moved),
        })
    }

    /// A grace period after [`PolicyRows::take_retired`].
    pub fn release(&mut self, retired: RetiredPolicy, store: &mut impl PolicyStore) {
        retired.garbage.iter().for_each(|change| self.write(change, store));
        if retired.moved {
            // Whoever asked for a class before it had moved has written down what it found by now.
            self.enforcement.generation = self.enforcement.generation.wrapping_add(1);
            self.write_enforcement(store);
        }
    }

    /// Whether something was refused that is to be tried again.
    #[must_use]
    pub fn has_refused(&self) -> bool {
        !self.refused.is_empty() || !self.unbound.is_empty()
    }

    /// Tries again what was refused.
    pub fn retry(&mut self, store: &mut impl PolicyStore) {
        let again: Vec<Change> = self.refused.values().map(|(change, _)| *change).collect();
        let moved = again.iter().any(|change| matches!(change, Change::Address(..) | Change::Network(..)));
        again.iter().for_each(|change| self.write(change, store));
        self.shut_sets(store);
        if !self.lacks_networks() {
            self.pods.reopen();
        }
        let unbound = std::mem::take(&mut self.unbound);
        self.pods.touch(unbound.into_keys());
        self.bind_pods(store);
        let is_on = self.enforcement.is_on();
        self.say_enforcement(is_on, moved, store);
    }

    /// Whether [`PolicyRows::problems`] may say something else than when this was last asked.
    pub fn take_problems_changed(&mut self) -> bool {
        std::mem::take(&mut self.problems_changed)
    }

    /// What could not be written, one problem for each table.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut tables: BTreeMap<&str, (usize, String)> = BTreeMap::new();
        for (table, error) in self.refused.iter().map(|(row, (_, error))| (row.table(), error)) {
            let (rows, _) = tables.entry(table).or_insert_with(|| (0, error.to_string()));
            *rows += 1;
        }
        let mut problems: Vec<Problem> = tables
            .into_iter()
            .map(|(table, (rows, error))| Problem {
                field: table.into(),
                message: format!(
                    "{error}: {rows} rows of policies are not in force, so what they allow is denied, and where they deny \
                     nothing is allowed; tried again in a moment"
                ),
            })
            .collect();
        problems.extend(self.problem_of_unbound());
        if let Some((first, pods)) = self.pods.shut() {
            problems.push(Problem {
                field: "verdicts".into(),
                message: format!(
                    "without all rows of policies that deny nothing is allowed to {pods} addresses of pods, {first} among \
                     them, on the sides that these policies are about"
                ),
            });
        }
        if let Some((first, pods)) = self.pods.closed() {
            problems.push(Problem {
                field: "network_classes".into(),
                message: format!(
                    "without all networks of their policies nothing is allowed to {pods} addresses of pods, {first} among \
                     them, on the sides that are isolated"
                ),
            });
        }
        problems
    }

    /// Pods whose devices have no row: to the programs nobody knows them.
    fn problem_of_unbound(&self) -> Option<Problem> {
        let error = self.unbound.values().next()?;
        let so = if self.options.holds_unknown {
            "they are held: but for their node they neither send nor get anything"
        } else {
            "no policy is in force for them, and all passes (--unknown-pods allow)"
        };
        let message = format!(
            "{error}: the pods behind {} devices are unknown to it; {so}; tried again in a moment",
            self.unbound.len()
        );
        Some(Problem { field: "pod_policies".into(), message })
    }

    /// The addresses of pods whose policies are not wholly in force for want of rows. `sets_with`: the sets that ask for a set of
    /// ports. For want of a peer's address that are those whose policies are closed without it; who else would allow that peer
    /// anything is not known here.
    pub fn lacking(&self, sets_with: impl Fn(PortRulesId) -> BTreeSet<PolicySetId>) -> BTreeSet<IpAddr> {
        let mut sets = BTreeSet::new();
        for row in self.refused.keys() {
            match row {
                Row::Verdict(key) => drop(sets.insert(key.set)),
                Row::PortRule(key) => sets.extend(sets_with(key.rules)),
                Row::Name(..) | Row::Network(_) | Row::Address(_) => {}
            }
        }
        let unbound = self.unbound.keys().flat_map(|device| self.pods.addresses_of(*device));
        self.pods.lacking(&sets).chain(unbound).collect()
    }

    /// Why what policies allow to the pod behind a device may be denied all the same, if there is a reason.
    #[must_use]
    pub fn denies_beside(&self, device: u32, side: Side) -> Option<&'static str> {
        if self.found.is_some() {
            Some("what an agent before this one wrote is in force, until all policies were told")
        } else if self.pods.disagrees(device, side) {
            Some(
                "two pods have addresses behind this device, and other policies: nothing is allowed to either",
            )
        } else {
            let decides = |row: &Row| !matches!(row, Row::Name(..));
            let lacks = self.refused.keys().any(decides) || self.unbound.contains_key(&device);
            lacks.then_some(
                "a table has no room for all that policies say, and denies for that: `weir status` names it",
            )
        }
    }

    /// Whether it is known what is true; until then what was found is in force.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.found.is_none()
    }

    /// Whether policies are in force.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.enforcement.is_on()
    }

    /// Pods that are known, by their devices.
    #[must_use]
    pub fn bound(&self) -> usize {
        self.bound.values().filter(|pod| pod.flags & BoundPod::NO_POD == 0).count()
    }

    /// Those of them that something isolates.
    #[must_use]
    pub fn isolated(&self) -> usize {
        self.bound.values().filter(|pod| pod.policy.denies_any()).count()
    }

    /// Whether a network of some policy has no row: what is more specific would be judged as what is less so.
    fn lacks_networks(&self) -> bool {
        self.refused.values().any(|(change, _)| matches!(change, Change::Network(..)))
    }

    /// Closes the sets for whose pods a row is missing that denies, before anything else is written; opens those for which
    /// none is missing any more.
    fn shut_sets(&mut self, store: &mut impl PolicyStore) {
        if !std::mem::take(&mut self.shut_changed) {
            return;
        }
        let closed = self.exact.closed(self.refused.keys());
        if self.pods.set_shut(closed) && self.found.is_none() {
            self.bind_pods(store);
        }
    }

    fn write(&mut self, change: &Change, store: &mut impl PolicyStore) {
        self.exact.note(change);
        self.shut_changed |=
            !self.refused.is_empty() && matches!(change, Change::Exact(..) | Change::Verdict(..));
        let (Some(row), Some(write)) = (Row::of(change), PolicyWrite::of(change)) else { return };
        if self.found.as_mut().is_some_and(|found| found.take_same(change)) {
            return;
        }
        let is_news = match store.write_policy(&write) {
            Ok(()) => self.refused.remove(&row).is_some(),
            Err(error) => self.refused.insert(row, (*change, error)).is_none(),
        };
        self.problems_changed |= is_news;
        self.shut_changed |= is_news;
    }

    /// Writes the rows of devices that are not as they should be.
    fn bind_pods(&mut self, store: &mut impl PolicyStore) {
        for device in self.pods.take_touched() {
            let wanted = self.pods.bound(device);
            self.bind(device, wanted, store);
        }
    }

    fn bind(&mut self, device: u32, wanted: Option<BoundPod>, store: &mut impl PolicyStore) {
        if self.bound.get(&device) == wanted.as_ref() {
            return;
        }
        match store.write_policy(&PolicyWrite::Pod(device, wanted)) {
            Ok(()) => {
                match wanted {
                    Some(row) => self.bound.insert(device, row),
                    None => self.bound.remove(&device),
                };
                self.problems_changed |= self.unbound.remove(&device).is_some();
            }
            Err(error) => self.problems_changed |= self.unbound.insert(device, error).is_none(),
        }
    }

    /// Devices that an agent before this one knew, and nobody has now.
    fn unbind_gone(&mut self, store: &mut impl PolicyStore) {
        let held: Vec<u32> = self.bound.keys().copied().collect();
        for device in held {
            let wanted = self.pods.bound(device);
            self.bind(device, wanted, store);
        }
    }

    fn say_enforcement(&mut self, is_on: bool, moved: bool, store: &mut impl PolicyStore) {
        let mut wanted = self.options.enforcement(is_on, self.enforcement.generation);
        if moved {
            wanted.generation = wanted.generation.wrapping_add(1);
            self.moved = true;
        }
        if wanted != self.enforcement {
            self.enforcement = wanted;
            self.write_enforcement(store);
        }
    }

    fn write_enforcement(&mut self, store: &mut impl PolicyStore) {
        // An array of one row: there is always room.
        if let Err(error) = store.write_policy(&PolicyWrite::Enforcement(self.enforcement)) {
            tracing::error!("{error}");
        }
    }
}

impl PolicyOptions {
    fn enforcement(self, is_on: bool, generation: u32) -> Enforcement {
        let on = if is_on { Enforcement::ON } else { 0 };
        let holds = if self.holds_unknown { Enforcement::HOLD_UNKNOWN } else { 0 };
        Enforcement::new(on | holds, generation, (self.judged / SHARES).max(1))
    }
}
