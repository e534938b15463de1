//! Taking over what an earlier agent wrote.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use weir_ebpf::abi::{Backend, Frontend, FrontendKey, ServiceId, ServiceName, SetId, SetWord, Side};

use super::entry::{Entry, Set};
use super::service_tables::{SIDES, Tables};
use super::store::{Sizes, Store, StoreError};
use crate::compile::PortName;
use crate::source::{Family, ObjectKey};

/// What the store holds.
#[derive(Default, Debug)]
pub struct Snapshot {
    /// `names`
    pub names: Vec<(ServiceId, ServiceName)>,
    /// `frontends`
    pub frontends: Vec<(FrontendKey, Frontend)>,
    /// `sets` of every id in `names`
    pub sets: HashMap<SetId, SetWord>,
    /// `backends` of every run in `sets`, by index
    pub backends: HashMap<u32, Backend>,
}

impl Tables {
    /// The mirror of a store that another agent wrote, possibly one that died in the middle of a change. What
    /// makes no sense is removed: names that cannot be read, frontends that nobody has.
    ///
    /// # Errors
    /// Those of the store.
    pub fn adopt(sizes: Sizes, found: &Snapshot, store: &mut impl Store) -> Result<Self, StoreError> {
        let mut tables = Self::new(sizes);
        for (id, name) in &found.names {
            let adopted = port_name(name).filter(|name| !tables.entries.contains_key(name));
            match adopted {
                Some(name) if id.0 < sizes.services => tables.adopt_port(*id, name, found),
                _ => store.delete_name(*id)?,
            }
        }
        tables.next_id = tables.by_id.keys().map(|id| id.0 + 1).max().unwrap_or(0);
        let unused = (0..tables.next_id).map(ServiceId).filter(|id| !tables.by_id.contains_key(id));
        tables.free_ids = unused.collect();
        tables.adopt_frontends(found, store)?;
        // The agent before may have replaced a run just before it ended.
        store.wait_grace()?;
        Ok(tables)
    }

    fn adopt_port(&mut self, id: ServiceId, name: PortName, found: &Snapshot) {
        let mut entry = Entry::new(id);
        for side in SIDES {
            *entry.set(side) = self.adopt_set(id, side, found);
        }
        self.by_id.insert(id, name.clone());
        self.services.entry(name.service.clone()).or_default().ports.push(name.clone());
        self.entries.insert(name, entry);
    }

    /// A set whose run overlaps another's, or whose rows are missing, becomes one that differs from every plan:
    /// it is written anew.
    fn adopt_set(&mut self, id: ServiceId, side: Side, found: &Snapshot) -> Set {
        let word = found.sets.get(&id.set(side)).copied().unwrap_or_default();
        let Ok(run) = word.run() else { return Set { run: None, rows: Vec::new(), word } };
        let rows: Option<Vec<Backend>> =
            (0..run.len).map(|at| found.backends.get(&run.offset.wrapping_add(at)).copied()).collect();
        match rows {
            Some(rows) if self.runs.take_at(run) => Set { run: Some(run), rows, word },
            _ => Set { run: None, rows: Vec::new(), word },
        }
    }

    fn adopt_frontends(&mut self, found: &Snapshot, store: &mut impl Store) -> Result<(), StoreError> {
        let mut owners: HashMap<IpAddr, BTreeSet<PortName>> = HashMap::new();
        for (key, row) in found.frontends.iter().filter(|(key, _)| key.protocol().is_some()) {
            let name = self.by_id.get(&row.service).filter(|name| Some(name.protocol) == key.protocol());
            let Some(name) = name.cloned() else {
                store.delete_frontend(key)?;
                continue;
            };
            self.claims.add(*key, &name, None);
            self.frontends.adopt(*key, *row);
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.claims.push(*key);
                entry.affinity_s = row.affinity_s;
                owners.entry(key.peer().addr.into()).or_default().insert(name);
            }
        }
        for (key, row) in found.frontends.iter().filter(|(key, _)| key.protocol().is_none()) {
            let addr = key.peer().addr.into();
            let Some(owners) = owners.get(&addr) else {
                store.delete_frontend(key)?;
                continue;
            };
            self.addresses.insert(addr, owners.len());
            self.frontends.adopt(*key, *row);
            for name in owners {
                self.entries.entry(name.clone()).and_modify(|entry| {
                    entry.owned.insert(addr);
                });
            }
        }
        Ok(())
    }
}

fn port_name(row: &ServiceName) -> Option<PortName> {
    let [namespace, name, port] = row.parts()?;
    let family = match row.family() {
        4 => Family::V4,
        6 => Family::V6,
        _ => return None,
    };
    Some(PortName {
        service: ObjectKey::new(namespace, name),
        port: port.into(),
        protocol: row.protocol()?,
        family,
    })
}
