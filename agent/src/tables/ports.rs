//! A Service port: its number, its name, its frontends and source ranges.

use std::net::{IpAddr, SocketAddr};

use weir_ebpf::abi::{Frontend, FrontendKey, Protocol, ServiceId, ServiceName, SourceRangeKey};

use super::entry::{Claimed, Entry, Set, claims, ranges};
use super::service_tables::{SCOPES, Tables, problem};
use super::store::{Store, StoreError};
use crate::compile::{PortName, PortPlan};
use crate::source::Problem;

impl Tables {
    /// Makes the store say about a port what its plan says.
    pub(super) fn apply_port(
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
        let written = self.apply_sets(&mut entry, plan, store);
        let (ranges, claims) = (ranges(plan, entry.id), claims(plan));
        let old_ranges = std::mem::replace(&mut entry.ranges, ranges.clone());
        let old_claims = std::mem::replace(&mut entry.claims, claims.clone());
        self.by_id.insert(entry.id, plan.name.clone());
        self.entries.insert(plan.name.clone(), entry);
        // A frontend that asks for source ranges after they are there, and before they go.
        let ranged = self.write_ranges(&ranges, store);
        let claimed = self.apply_claims(&plan.name, created_s, &old_claims, &claims, store);
        let unranged = self.write_ranges(&old_ranges, store);
        written.and(ranged).and(claimed).and(unranged)
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
        let entry = Entry::new(id);
        for scope in SCOPES {
            store.swap_set(id.set(scope), Set::default().word);
        }
        if let Err(error) = name_row(name).and_then(|row| store.put_name(id, &row)) {
            self.free_ids.push_front(id);
            return Err(error);
        }
        Ok(entry)
    }

    /// Removes all that a port has.
    pub(super) fn remove_port(
        &mut self,
        name: &PortName,
        store: &mut impl Store,
        problems: &mut Vec<Problem>,
    ) {
        let Some(entry) = self.entries.remove(name) else { return };
        self.by_id.remove(&entry.id);
        let claims = self.apply_claims(name, None, &entry.claims, &[], store);
        let ranges = self.write_ranges(&entry.ranges, store);
        if let Err(error) = claims.and(ranges).and(store.delete_name(entry.id)) {
            problems.push(problem(name, &error));
        }
        // A frontend that could not be removed refuses: its backends' places will be another's.
        for scope in SCOPES {
            store.swap_set(entry.id.set(scope), Set::default().word);
        }
        self.retired.runs.extend([entry.cluster.run, entry.local.run].into_iter().flatten());
        self.retired.ids.push(entry.id);
        self.stale = true;
    }

    /// Claims what is wanted, and gives up what is not any more. Whoever has each of these frontends then has its
    /// row written; last those of whole addresses, which refuse what has no row.
    fn apply_claims(
        &mut self,
        port: &PortName,
        created_s: Option<i64>,
        old: &[Claimed],
        new: &[Claimed],
        store: &mut impl Store,
    ) -> Result<(), StoreError> {
        let mut result = Ok(());
        for claimed in new {
            self.claims.add(claimed.key, port, created_s);
            self.addresses.add(claimed.addr(), claimed.kind);
            result = result.and(self.write_frontend(&claimed.key, store));
        }
        for claimed in old {
            self.addresses.remove(claimed.addr(), claimed.kind);
        }
        for key in old.iter().map(|old| old.key).filter(|key| new.iter().all(|new| new.key != *key)) {
            self.claims.remove(key, port);
            result = result.and(self.write_frontend(&key, store));
        }
        for claimed in new.iter().chain(old) {
            result = result.and(self.write_address(claimed.addr(), store));
        }
        result
    }

    /// Makes the row of a frontend, or of a whole address, what claims, Services and the node say.
    pub(super) fn write_frontend(
        &mut self,
        key: &FrontendKey,
        store: &mut impl Store,
    ) -> Result<(), StoreError> {
        let addr = key.peer().addr.into();
        let wanted = if key.protocol().is_none() {
            let uses = self.addresses.uses(addr);
            (!uses.is_empty()).then(|| Frontend::whole_address(uses))
        } else {
            let more = if self.addresses.is_of_node(addr) { Frontend::NODE_ADDRESS } else { 0 };
            let owner = self.claims.owner(key).and_then(|owner| self.entries.get(owner));
            owner.and_then(|owner| owner.frontend(key, more))
        };
        self.frontends.write(*key, wanted, store)?;
        self.is_as_wanted(key);
        Ok(())
    }

    /// Makes the row of a whole address what Services and the node say.
    pub(super) fn write_address(&mut self, addr: IpAddr, store: &mut impl Store) -> Result<(), StoreError> {
        self.write_frontend(&FrontendKey::whole_address(addr.into()), store)
    }

    /// Makes these rows what their Service ports say: there or not.
    pub(super) fn write_ranges(
        &mut self,
        ranges: &[SourceRangeKey],
        store: &mut impl Store,
    ) -> Result<(), StoreError> {
        let mut result = Ok(());
        for range in ranges {
            let entry = self.by_id.get(&range.parts().0).and_then(|name| self.entries.get(name));
            let wanted = entry.is_some_and(|entry| entry.ranges.contains(range)).then_some(());
            result = result.and(self.source_ranges.write(*range, wanted, store));
        }
        result
    }

    /// UDP sockets are told as soon as their backend is not usable.
    fn note_stale(&mut self, entry: &Entry, plan: &PortPlan) {
        let usable = |backend: &SocketAddr| {
            let mut sets = plan.cluster.iter().chain(&plan.local);
            sets.any(|set| set.backends.contains_key(backend))
        };
        let mut backends = [&entry.cluster, &entry.local].into_iter().flat_map(|set| &set.rows);
        self.stale |= plan.name.protocol == Protocol::Udp && backends.any(|row| !usable(&row.peer().into()));
    }
}

fn name_row(name: &PortName) -> Result<ServiceName, StoreError> {
    let PortName { service, port, protocol, family } = name;
    ServiceName::new(&service.namespace, &service.name, port, *protocol, family.number()).ok_or_else(|| {
        let source = std::io::Error::other(format!("{service}:{port} is longer than three DNS labels"));
        StoreError::Io { table: "names", source }
    })
}
