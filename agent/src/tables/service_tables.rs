//! The mirror of what is in the store, and how it is changed.
//!
//! The order of writing: what is pointed to before what points to it (backends, set, name, frontends), deletions
//! in the opposite order, and no place is used again before a grace period has passed.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use weir_ebpf::abi::{Frontend, FrontendKey, Peer, Protocol, Run, ServiceId, ServiceName, SetWord, Side};

use super::claims::Claims;
use super::entry::{Entry, Set, keys, rows};
use super::frontend_rows::FrontendRows;
use super::runs::Runs;
use super::store::{Sizes, Store, StoreError};
use crate::compile::{PortName, PortPlan, ServicePlan, SetPlan};
use crate::source::{ObjectKey, Problem};

/// Both sides of a Service port.
pub(super) const SIDES: [Side; 2] = [Side::Internal, Side::External];

/// Rows in use, for `weir status` and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Frontends, those that stand for whole addresses included.
    pub frontends: usize,
    /// Service ports.
    pub services: usize,
    /// Places for backends.
    pub backends: u32,
}

/// Places and numbers that were given up and that a program may still be reading.
#[derive(Debug, Default)]
#[must_use]
pub struct Retired {
    runs: Vec<Run>,
    ids: Vec<ServiceId>,
}

impl Retired {
    /// Both together.
    pub fn and(mut self, other: Self) -> Self {
        self.runs.extend(other.runs);
        self.ids.extend(other.ids);
        self
    }
}

/// What is in the store, and what of it may be used again.
#[derive(Debug)]
pub struct Tables {
    pub(super) sizes: Sizes,
    pub(super) entries: HashMap<PortName, Entry>,
    pub(super) by_id: HashMap<ServiceId, PortName>,
    pub(super) services: HashMap<ObjectKey, Vec<PortName>>,
    pub(super) claims: Claims,
    pub(super) frontends: FrontendRows,
    /// How many entries own an address as a whole.
    pub(super) addresses: HashMap<IpAddr, usize>,
    pub(super) runs: Runs,
    /// Numbers that were used before, the longest unused first.
    pub(super) free_ids: VecDeque<ServiceId>,
    pub(super) next_id: u32,
    retired: Retired,
    /// What could not be written, by Service.
    refused: BTreeMap<ObjectKey, Vec<Problem>>,
    /// Whether `refused` changed since [`Tables::take_problems_changed`].
    refused_changed: bool,
    /// A backend or a port went away since [`Tables::take_stale`].
    stale: bool,
}

impl Tables {
    /// Over an empty store.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        Self {
            sizes,
            entries: HashMap::new(),
            by_id: HashMap::new(),
            services: HashMap::new(),
            claims: Claims::default(),
            frontends: FrontendRows::new(sizes.frontends),
            addresses: HashMap::new(),
            runs: Runs::new(sizes.backends),
            free_ids: VecDeque::new(),
            next_id: 0,
            retired: Retired::default(),
            refused: BTreeMap::new(),
            refused_changed: false,
            stale: false,
        }
    }

    /// Makes the store say about a Service what the plan says; nothing for a Service without a plan. What cannot
    /// be written stays as it was and is said by [`Tables::problems`].
    pub fn apply(&mut self, service: &ObjectKey, plan: Option<&ServicePlan>, store: &mut impl Store) {
        let mut problems = Vec::new();
        let ports = plan.map(|plan| plan.ports.as_slice()).unwrap_or_default();
        let wanted: BTreeSet<&PortName> = ports.iter().map(|port| &port.name).collect();
        let before = self.services.remove(service).unwrap_or_default();
        for port in ports {
            let created_s = plan.and_then(|plan| plan.created_s);
            if let Err(error) = self.apply_port(port, created_s, store) {
                problems.push(problem(&port.name, &error));
            }
        }
        // Last: a port that was renamed takes its frontends over in one step each.
        for name in before.iter().filter(|name| !wanted.contains(name)) {
            self.remove_port(name, store, &mut problems);
        }
        let kept: Vec<PortName> = ports
            .iter()
            .map(|port| &port.name)
            .filter(|name| self.entries.contains_key(name))
            .cloned()
            .collect();
        if !kept.is_empty() {
            self.services.insert(service.clone(), kept);
        }
        let before = self.refused.remove(service);
        self.refused_changed |= before.is_some() || !problems.is_empty();
        if !problems.is_empty() {
            self.refused.insert(service.clone(), problems);
        }
    }

    /// Waits for a grace period if anything was replaced, and makes it usable again. Returns the Services that
    /// found a table full and may have room now.
    ///
    /// # Errors
    /// Those of [`Store::wait_grace`]: then what was replaced is not used again before a restart.
    pub fn settle(&mut self, store: &mut impl Store) -> Result<Vec<ObjectKey>, StoreError> {
        let Some(retired) = self.take_retired() else { return Ok(Vec::new()) };
        store.wait_grace()?;
        Ok(self.release(retired))
    }

    /// What was replaced and is not yet usable again. For who waits for the grace period elsewhere, and calls
    /// [`Tables::release`] when it is over.
    pub fn take_retired(&mut self) -> Option<Retired> {
        let retired = std::mem::take(&mut self.retired);
        // A number that a frontend still leads to must not become another Service's.
        let (held, ids) = retired.ids.into_iter().partition(|id| self.frontends.still_leads_to(*id));
        self.retired.ids = held;
        let retired = Retired { ids, ..retired };
        (!retired.runs.is_empty() || !retired.ids.is_empty()).then_some(retired)
    }

    /// Makes usable what [`Tables::take_retired`] gave, a grace period after that. Returns the Services that found
    /// a table full and may have room now.
    pub fn release(&mut self, retired: Retired) -> Vec<ObjectKey> {
        for run in retired.runs {
            self.runs.give(run);
        }
        self.free_ids.extend(retired.ids);
        self.refused.keys().cloned().collect()
    }

    /// Whether the store refused something that is to be tried again.
    #[must_use]
    pub fn has_refused(&self) -> bool {
        !self.refused.is_empty() || !self.frontends.is_written()
    }

    /// Tries again to write frontends that the store refused. Returns the Services to be applied again: what of
    /// theirs was refused may be accepted now.
    pub fn retry(&mut self, store: &mut impl Store) -> Vec<ObjectKey> {
        for key in self.frontends.unwritten() {
            if let Err(error) = self.write_frontend(&key, store) {
                tracing::debug!("{}: still: {error}", key.peer());
            }
        }
        self.refused.keys().cloned().collect()
    }

    /// Services that have something in the store.
    pub fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.services.keys()
    }

    /// Whether sockets may have lost their backend since this was last asked.
    pub fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.stale)
    }

    /// Has [`Tables::take_stale`] say that sockets may have lost their backend.
    pub fn suspect_sockets(&mut self) {
        self.stale = true;
    }

    /// Whether a socket that was translated for that Service port to this backend is to be closed.
    #[must_use]
    pub fn is_stale(&self, id: ServiceId, backend: Peer, protocol: Protocol) -> bool {
        match self.by_id.get(&id).and_then(|name| self.entries.get(name)) {
            Some(entry) => entry.is_stale(backend, protocol),
            None => true,
        }
    }

    /// Whether [`Tables::problems`] may say something else than when this was last asked.
    pub fn take_problems_changed(&mut self) -> bool {
        std::mem::take(&mut self.refused_changed) | self.claims.take_changed()
    }

    /// What could not be written, and the frontends that two Services claim.
    pub fn problems(&self) -> impl Iterator<Item = (ObjectKey, Problem)> {
        let refused = self.refused.iter().flat_map(|(service, problems)| {
            problems.iter().map(|problem| (service.clone(), problem.clone()))
        });
        let waiting = self.claims.waiting().map(|(port, key)| {
            let owner = self.claims.owner(key).map(ToString::to_string).unwrap_or_default();
            let message = format!(
                "{} {} is already served for {owner}: the older Service keeps it, {port} is not served there",
                key.peer(),
                port.protocol,
            );
            (port.service.clone(), Problem { field: "spec.clusterIPs".into(), message })
        });
        refused.chain(waiting)
    }

    /// Rows in use.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage { frontends: self.frontends.len(), services: self.entries.len(), backends: self.runs.used() }
    }

    fn apply_port(
        &mut self,
        plan: &PortPlan,
        created_s: Option<i64>,
        store: &mut impl Store,
    ) -> Result<(), StoreError> {
        let mut entry = match self.entries.remove(&plan.name) {
            Some(entry) => entry,
            None => self.create_entry(&plan.name, store)?,
        };
        entry.affinity_s = plan.affinity_s;
        self.note_stale(&entry, plan);
        entry.present.clone_from(&plan.present);
        let written = self.apply_sets(&mut entry, plan, store);
        let owned = plan.frontends.iter().filter(|frontend| frontend.owns_address);
        let owned: BTreeSet<IpAddr> = owned.map(|frontend| frontend.addr.ip()).collect();
        let old_owned = std::mem::replace(&mut entry.owned, owned.clone());
        let claims = keys(plan);
        let old_claims = std::mem::replace(&mut entry.claims, claims.clone());
        self.by_id.insert(entry.id, plan.name.clone());
        self.entries.insert(plan.name.clone(), entry);
        let claimed = self.apply_claims(&plan.name, created_s, &old_claims, &claims, store);
        let owned = self.apply_owned(&old_owned, &owned, store);
        written.and(claimed).and(owned)
    }

    fn create_entry(&mut self, name: &PortName, store: &mut impl Store) -> Result<Entry, StoreError> {
        let id = match self.free_ids.pop_front() {
            Some(id) => id,
            None if self.next_id < self.sizes.services => {
                self.next_id += 1;
                ServiceId(self.next_id - 1)
            }
            None => return Err(StoreError::Full { table: "services", capacity: self.sizes.services }),
        };
        let entry = Entry {
            id,
            claims: Vec::new(),
            owned: BTreeSet::new(),
            affinity_s: 0,
            internal: Set::default(),
            external: Set::default(),
            present: BTreeSet::new(),
        };
        for side in SIDES {
            store.swap_set(id.set(side), Set::default().word);
        }
        if let Err(error) = name_row(name).and_then(|row| store.put_name(id, &row)) {
            self.free_ids.push_front(id);
            return Err(error);
        }
        Ok(entry)
    }

    fn apply_sets(
        &mut self,
        entry: &mut Entry,
        plan: &PortPlan,
        store: &mut impl Store,
    ) -> Result<(), StoreError> {
        let internal = self.apply_set(entry, Side::Internal, Some(&plan.internal), store);
        let external = self.apply_set(entry, Side::External, plan.external.as_ref(), store);
        internal.and(external)
    }

    /// Writes a new run aside and swaps it in. Where there is no room, the set stays as it was.
    fn apply_set(
        &mut self,
        entry: &mut Entry,
        side: Side,
        plan: Option<&SetPlan>,
        store: &mut impl Store,
    ) -> Result<(), StoreError> {
        let id = entry.id.set(side);
        let set = entry.set(side);
        let rows = plan.map(rows).unwrap_or_default();
        let run = if rows.is_empty() {
            None
        } else if rows == set.rows {
            set.run
        } else {
            Some(self.take_run(rows.len(), store)?)
        };
        let word = match (run, plan) {
            (Some(run), _) => SetWord::of(run),
            (None, Some(plan)) => SetWord::empty(plan.when_empty),
            (None, None) => Set::default().word,
        };
        if word == set.word {
            return Ok(());
        }
        if let Some(run) = run {
            store.write_backends(run.offset, &rows);
        }
        store.swap_set(id, word);
        if set.run != run {
            self.retired.runs.extend(set.run);
        }
        *set = Set { run, rows, word };
        Ok(())
    }

    fn take_run(&mut self, len: usize, store: &mut impl Store) -> Result<Run, StoreError> {
        let full = StoreError::Full { table: "backends", capacity: self.sizes.backends };
        let Ok(len) = u32::try_from(len) else { return Err(full) };
        if len > Run::MAX_LEN {
            return Err(full);
        }
        if let Some(run) = self.runs.take(len) {
            return Ok(run);
        }
        self.settle(store)?;
        self.runs.take(len).ok_or(full)
    }

    /// Claims what is wanted, and gives up what is not any more. Whoever has each of these frontends then has its
    /// row written.
    fn apply_claims(
        &mut self,
        port: &PortName,
        created_s: Option<i64>,
        old: &[FrontendKey],
        new: &[FrontendKey],
        store: &mut impl Store,
    ) -> Result<(), StoreError> {
        let mut result = Ok(());
        for key in new {
            self.claims.add(*key, port, created_s);
            result = result.and(self.write_frontend(key, store));
        }
        for key in old.iter().filter(|key| !new.contains(key)) {
            self.claims.remove(*key, port);
            result = result.and(self.write_frontend(key, store));
        }
        result
    }

    /// Makes the row of a frontend, or of a whole address, what claims and owners say.
    fn write_frontend(&mut self, key: &FrontendKey, store: &mut impl Store) -> Result<(), StoreError> {
        let wanted = if key.protocol().is_none() {
            let owned = self.addresses.contains_key(&key.peer().addr.into());
            owned.then_some(Frontend { service: ServiceId(0), affinity_s: 0 })
        } else {
            self.claims.owner(key).and_then(|owner| self.entries.get(owner)).map(Entry::frontend)
        };
        self.frontends.write(*key, wanted, store)
    }

    /// Counts the owners of whole addresses.
    fn apply_owned(
        &mut self,
        old: &BTreeSet<IpAddr>,
        new: &BTreeSet<IpAddr>,
        store: &mut impl Store,
    ) -> Result<(), StoreError> {
        for &addr in new.difference(old) {
            *self.addresses.entry(addr).or_default() += 1;
        }
        for addr in old.difference(new) {
            if let Some(count) = self.addresses.get_mut(addr) {
                *count -= 1;
                if *count == 0 {
                    self.addresses.remove(addr);
                }
            }
        }
        let mut result = Ok(());
        for &addr in new.union(old) {
            result = result.and(self.write_frontend(&FrontendKey::whole_address(addr.into()), store));
        }
        result
    }

    fn remove_port(&mut self, name: &PortName, store: &mut impl Store, problems: &mut Vec<Problem>) {
        let Some(entry) = self.entries.remove(name) else { return };
        self.by_id.remove(&entry.id);
        let claims = self.apply_claims(name, None, &entry.claims, &[], store);
        let owned = self.apply_owned(&entry.owned, &BTreeSet::new(), store);
        if let Err(error) = claims.and(owned).and(store.delete_name(entry.id)) {
            problems.push(problem(name, &error));
        }
        // A frontend that could not be removed refuses: its backends' places will be another's.
        for side in SIDES {
            store.swap_set(entry.id.set(side), Set::default().word);
        }
        self.retired.runs.extend([entry.internal.run, entry.external.run].into_iter().flatten());
        self.retired.ids.push(entry.id);
        self.stale = true;
    }

    fn note_stale(&mut self, entry: &Entry, plan: &PortPlan) {
        let gone = !entry.present.is_subset(&plan.present);
        let usable = |backend: &std::net::SocketAddr| {
            let sets = [Some(&plan.internal), plan.external.as_ref()];
            sets.into_iter().flatten().any(|set| set.backends.contains_key(backend))
        };
        let unusable = plan.name.protocol == Protocol::Udp
            && [&entry.internal, &entry.external]
                .iter()
                .flat_map(|set| &set.rows)
                .any(|row| !usable(&row.peer().into()));
        self.stale |= gone || unusable;
    }
}

fn name_row(name: &PortName) -> Result<ServiceName, StoreError> {
    let PortName { service, port, protocol, family } = name;
    ServiceName::new(&service.namespace, &service.name, port, *protocol, family.number()).ok_or_else(|| {
        let source = std::io::Error::other(format!("{service}:{port} is longer than three DNS labels"));
        StoreError::Io { table: "names", source }
    })
}

fn problem(port: &PortName, error: &StoreError) -> Problem {
    Problem {
        field: format!("spec.ports[{}] {} {}", port.port, port.protocol, port.family),
        message: format!("{error}: it stays as it was"),
    }
}
