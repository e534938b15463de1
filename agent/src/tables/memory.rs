//! A store in memory: what the kernel would hold, in the tables that the datapath reads in tests.

use weir_ebpf::abi::{
    Backend, Frontend, FrontendKey, ServiceId, ServiceName, SetId, SetWord, SourceRangeKey,
};
use weir_ebpf::testing::MemoryTables;

use super::{Sizes, Snapshot, Store, StoreError, Tables};

/// The store, and how often it was asked to do what.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// What the datapath reads.
    pub tables: MemoryTables,
    /// `names`
    pub names: std::collections::BTreeMap<ServiceId, ServiceName>,
    /// Rows and words written or deleted.
    pub writes: usize,
    /// Grace periods waited for.
    pub graces: usize,
}

impl MemoryStore {
    /// What an agent would find after a restart.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            names: self.names.iter().map(|(id, name)| (*id, *name)).collect(),
            frontends: self.tables.frontends.iter().map(|(key, row)| (*key, *row)).collect(),
            sets: self.tables.sets.clone(),
            backends: self.tables.backends.clone(),
            source_ranges: self.tables.source_ranges.iter().copied().collect(),
        }
    }

    /// The mirror of this store, as after a restart.
    ///
    /// # Errors
    /// None in memory.
    pub fn adopt(&mut self, sizes: Sizes) -> Result<Tables, StoreError> {
        Tables::adopt(sizes, &self.snapshot(), self)
    }
}

impl Store for MemoryStore {
    fn write_backends(&mut self, offset: u32, rows: &[Backend]) {
        self.writes += rows.len();
        self.tables.backends.extend((offset..).zip(rows.iter().copied()));
    }

    fn swap_set(&mut self, set: SetId, word: SetWord) {
        self.writes += 1;
        self.tables.sets.insert(set, word);
    }

    fn put_frontend(&mut self, key: &FrontendKey, row: &Frontend) -> Result<(), StoreError> {
        self.writes += 1;
        self.tables.frontends.insert(*key, *row);
        Ok(())
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), StoreError> {
        self.writes += 1;
        self.tables.frontends.remove(key);
        Ok(())
    }

    fn put_source_range(&mut self, range: &SourceRangeKey) -> Result<(), StoreError> {
        self.writes += 1;
        self.tables.source_ranges.insert(*range);
        Ok(())
    }

    fn delete_source_range(&mut self, range: &SourceRangeKey) -> Result<(), StoreError> {
        self.writes += 1;
        self.tables.source_ranges.remove(range);
        Ok(())
    }

    fn put_name(&mut self, id: ServiceId, name: &ServiceName) -> Result<(), StoreError> {
        self.writes += 1;
        self.names.insert(id, *name);
        Ok(())
    }

    fn delete_name(&mut self, id: ServiceId) -> Result<(), StoreError> {
        self.writes += 1;
        self.names.remove(&id);
        Ok(())
    }

    fn wait_grace(&mut self) -> Result<(), StoreError> {
        self.graces += 1;
        Ok(())
    }
}
