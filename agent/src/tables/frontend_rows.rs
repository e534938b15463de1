//! The rows of the `frontends` table as they are, beside what they should be.

use std::collections::{HashMap, HashSet};

use weir_ebpf::abi::{Frontend, FrontendKey, ServiceId};

use super::store::{Store, StoreError};

/// What is in the store, and what the store refused.
#[derive(Debug)]
pub(super) struct FrontendRows {
    capacity: u32,
    stored: HashMap<FrontendKey, Frontend>,
    /// Keys whose row is not what it should be.
    unwritten: HashSet<FrontendKey>,
}

impl FrontendRows {
    /// Over an empty store.
    pub(super) fn new(capacity: u32) -> Self {
        Self { capacity, stored: HashMap::new(), unwritten: HashSet::new() }
    }

    /// Takes note of a row that is in the store.
    pub(super) fn adopt(&mut self, key: FrontendKey, row: Frontend) {
        self.stored.insert(key, row);
    }

    /// Rows in the store.
    pub(super) fn len(&self) -> usize {
        self.stored.len()
    }

    /// Makes the row what it should be; `None`: there should be none. What the store refuses stays as it was and is
    /// among [`FrontendRows::unwritten`].
    pub(super) fn write(
        &mut self,
        key: FrontendKey,
        wanted: Option<Frontend>,
        store: &mut impl Store,
    ) -> Result<(), StoreError> {
        let found = self.stored.get(&key).copied();
        let result = match wanted {
            _ if wanted == found => Ok(()),
            Some(_) if found.is_none() && self.stored.len() >= self.capacity as usize => {
                Err(StoreError::Full { table: "frontends", capacity: self.capacity })
            }
            Some(row) => store.put_frontend(&key, &row),
            None => store.delete_frontend(&key),
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
    pub(super) fn unwritten(&self) -> Vec<FrontendKey> {
        self.unwritten.iter().copied().collect()
    }

    /// Whether everything is as it should be.
    pub(super) fn is_written(&self) -> bool {
        self.unwritten.is_empty()
    }

    /// Whether a row that could not be replaced or removed still leads to this Service port.
    pub(super) fn still_leads_to(&self, id: ServiceId) -> bool {
        self.unwritten.iter().filter_map(|key| self.stored.get(key)).any(|row| row.service == id)
    }
}
