//! A Service port: its number, its name, its frontends.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use weir_ebpf::abi::{Frontend, FrontendKey, Protocol, ServiceId, ServiceName};

use super::entry::{Entry, Set, keys};
use super::service_tables::{SIDES, Tables, problem};
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
        let entry = Entry::new(id);
        for side in SIDES {
            store.swap_set(id.set(side), Set::default().word);
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
    pub(super) fn write_frontend(
        &mut self,
        key: &FrontendKey,
        store: &mut impl Store,
    ) -> Result<(), StoreError> {
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

    /// UDP sockets are told as soon as their backend is not usable.
    fn note_stale(&mut self, entry: &Entry, plan: &PortPlan) {
        let usable = |backend: &SocketAddr| {
            let sets = [Some(&plan.internal), plan.external.as_ref()];
            sets.into_iter().flatten().any(|set| set.backends.contains_key(backend))
        };
        let mut backends = [&entry.internal, &entry.external].into_iter().flat_map(|set| &set.rows);
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
