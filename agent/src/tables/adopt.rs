//! Taking over what an earlier agent wrote.

use std::collections::{BTreeMap, HashMap};

use weir_ebpf::abi::{
    Backend, Frontend, FrontendKey, Scope, ServiceId, ServiceName, SetId, SetWord, SourceRangeKey,
};

use super::addresses::said_by_node;
use super::entry::{Claimed, Entry, Set};
use super::service_tables::{SCOPES, Tables};
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
    /// `source_ranges`
    pub source_ranges: Vec<SourceRangeKey>,
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
        tables.adopt_ranges(found, store)?;
        // The agent before may have replaced a run just before it ended.
        store.wait_grace()?;
        Ok(tables)
    }

    fn adopt_port(&mut self, id: ServiceId, name: PortName, found: &Snapshot) {
        let mut entry = Entry::new(id);
        for scope in SCOPES {
            *entry.set(scope) = self.adopt_set(id, scope, found);
        }
        self.by_id.insert(id, name.clone());
        self.services.entry(name.service.clone()).or_default().ports.push(name.clone());
        self.entries.insert(name, entry);
    }

    /// A set whose run overlaps another's, or whose rows are missing, becomes one that differs from every plan:
    /// it is written anew.
    fn adopt_set(&mut self, id: ServiceId, scope: Scope, found: &Snapshot) -> Set {
        let word = found.sets.get(&id.set(scope)).copied().unwrap_or_default();
        let Ok(run) = word.run() else { return Set { run: None, rows: Vec::new(), word } };
        let rows: Option<Vec<Backend>> =
            (0..run.len).map(|at| found.backends.get(&run.offset.wrapping_add(at)).copied()).collect();
        match rows {
            Some(rows) if self.runs.take_at(run) => Set { run: Some(run), rows, word },
            _ => Set { run: None, rows: Vec::new(), word },
        }
    }

    /// Frontends of Service ports that are there, and what they and the node use addresses for. What the node said is
    /// kept until it says more: an agent that has just begun does not know the addresses yet.
    fn adopt_frontends(&mut self, found: &Snapshot, store: &mut impl Store) -> Result<(), StoreError> {
        let mut node = BTreeMap::new();
        for (key, row) in &found.frontends {
            if key.protocol().is_none() {
                self.frontends.adopt(*key, *row);
                let uses = said_by_node(row.uses());
                if !uses.is_empty() {
                    node.insert(key.peer().addr.into(), uses);
                }
            } else if !self.adopt_frontend(key, row) {
                store.delete_frontend(key)?;
            }
        }
        self.addresses.set_node(node);
        for (key, _) in found.frontends.iter().filter(|(key, _)| key.protocol().is_none()) {
            // Nobody's any more, or not what it says.
            self.write_frontend(key, store)?;
        }
        Ok(())
    }

    /// Whether it makes sense.
    fn adopt_frontend(&mut self, key: &FrontendKey, row: &Frontend) -> bool {
        let name = self.by_id.get(&row.service).filter(|name| Some(name.protocol) == key.protocol());
        let Some((name, kind)) = name.cloned().zip(row.kind()) else { return false };
        let Some(entry) = self.entries.get_mut(&name) else { return false };
        let claimed = Claimed { key: *key, kind, flags: row.flags() & !Frontend::NODE_ADDRESS };
        entry.claims.push(claimed);
        entry.affinity_s = row.affinity_s;
        self.claims.add(*key, &name, None);
        self.addresses.add(claimed.addr(), kind);
        self.frontends.adopt(*key, *row);
        true
    }

    fn adopt_ranges(&mut self, found: &Snapshot, store: &mut impl Store) -> Result<(), StoreError> {
        for range in &found.source_ranges {
            let name = self.by_id.get(&range.parts().0);
            match name.and_then(|name| self.entries.get_mut(name)) {
                Some(entry) => {
                    entry.ranges.push(*range);
                    self.source_ranges.adopt(*range, ());
                }
                None => store.delete_source_range(range)?,
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
