//! The rows of a hash in the store as they are, beside what they should be.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;

use weir_ebpf::abi::{Frontend, FrontendKey, ServiceId, SourceRangeKey};

use super::store::{Store, StoreError};

/// A table whose rows lead to Service ports.
pub(super) trait Table: Debug {
    type Key: Copy + Eq + Hash + Debug;
    type Row: Copy + PartialEq + Debug;
    /// As messages call it.
    const NAME: &'static str;

    fn put(key: &Self::Key, row: &Self::Row, store: &mut impl Store) -> Result<(), StoreError>;
    fn delete(key: &Self::Key, store: &mut impl Store) -> Result<(), StoreError>;
    /// The Service port that the row says something of.
    fn service(key: &Self::Key, row: &Self::Row) -> ServiceId;
}

/// `frontends`
#[derive(Debug)]
pub(super) enum Frontends {}

impl Table for Frontends {
    type Key = FrontendKey;
    type Row = Frontend;
    const NAME: &'static str = "frontends";

    fn put(key: &FrontendKey, row: &Frontend, store: &mut impl Store) -> Result<(), StoreError> {
        store.put_frontend(key, row)
    }

    fn delete(key: &FrontendKey, store: &mut impl Store) -> Result<(), StoreError> {
        store.delete_frontend(key)
    }

    fn service(_key: &FrontendKey, row: &Frontend) -> ServiceId {
        row.service
    }
}

/// `source_ranges`
#[derive(Debug)]
pub(super) enum SourceRanges {}

impl Table for SourceRanges {
    type Key = SourceRangeKey;
    type Row = ();
    const NAME: &'static str = "source_ranges";

    fn put(key: &SourceRangeKey, (): &(), store: &mut impl Store) -> Result<(), StoreError> {
        store.put_source_range(key)
    }

    fn delete(key: &SourceRangeKey, store: &mut impl Store) -> Result<(), StoreError> {
        store.delete_source_range(key)
    }

    fn service(key: &SourceRangeKey, (): &()) -> ServiceId {
        key.parts().0
    }
}

/// What is in the store, and what the store refused.
#[derive(Debug)]
pub(super) struct Rows<T: Table> {
    capacity: u32,
    stored: HashMap<T::Key, T::Row>,
    /// Keys whose row is not what it should be.
    unwritten: HashSet<T::Key>,
}

impl<T: Table> Rows<T> {
    /// Over an empty store.
    pub(super) fn new(capacity: u32) -> Self {
        Self { capacity, stored: HashMap::new(), unwritten: HashSet::new() }
    }

    /// Takes note of a row that is in the store.
    pub(super) fn adopt(&mut self, key: T::Key, row: T::Row) {
        self.stored.insert(key, row);
    }

    /// Rows in the store.
    pub(super) fn len(&self) -> usize {
        self.stored.len()
    }

    /// Makes the row what it should be; `None`: there should be none. What the store refuses stays as it was and is
    /// among [`Rows::unwritten`].
    pub(super) fn write(
        &mut self,
        key: T::Key,
        wanted: Option<T::Row>,
        store: &mut impl Store,
    ) -> Result<(), StoreError> {
        let found = self.stored.get(&key).copied();
        let result = match wanted {
            _ if wanted == found => Ok(()),
            Some(_) if found.is_none() && self.stored.len() >= self.capacity as usize => {
                Err(StoreError::Full { table: T::NAME, capacity: self.capacity })
            }
            Some(row) => T::put(&key, &row, store),
            None => T::delete(&key, store),
        };
        if result.is_err() {
            self.unwritten.insert(key);
            return result;
        }
        self.unwritten.remove(&key);
        match wanted {
            Some(row) => self.stored.insert(key, row),
            None => self.stored.remove(&key),
        };
        Ok(())
    }

    /// What is to be tried again.
    pub(super) fn unwritten(&self) -> Vec<T::Key> {
        self.unwritten.iter().copied().collect()
    }

    /// Whether everything is as it should be.
    pub(super) fn is_written(&self) -> bool {
        self.unwritten.is_empty()
    }

    /// Whether a row that could not be replaced or removed still leads to this Service port.
    pub(super) fn still_leads_to(&self, id: ServiceId) -> bool {
        let stored = self.unwritten.iter().filter_map(|key| Some((key, self.stored.get(key)?)));
        stored.into_iter().any(|(key, row)| T::service(key, row) == id)
    }
}
