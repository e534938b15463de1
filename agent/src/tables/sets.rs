//! A set of backends: written aside, then swapped in.

use weir_ebpf::abi::{Run, Scope, SetWord};

use super::entry::{Entry, Set, rows};
use super::service_tables::Tables;
use super::store::{Store, StoreError};
use crate::compile::{PortPlan, SetPlan};

impl Tables {
    /// Both sets of a port.
    pub(super) fn apply_sets(
        &mut self,
        entry: &mut Entry,
        plan: &PortPlan,
        store: &mut impl Store,
    ) -> Result<(), StoreError> {
        let cluster = self.apply_set(entry, Scope::Cluster, plan.cluster.as_ref(), store);
        let local = self.apply_set(entry, Scope::Local, plan.local.as_ref(), store);
        cluster.and(local)
    }

    /// Writes a new run aside and swaps it in. Where there is no room, the set stays as it was; unless it has backends
    /// that are gone, whose addresses may soon be somebody else's: then it refuses until there is room.
    fn apply_set(
        &mut self,
        entry: &mut Entry,
        scope: Scope,
        plan: Option<&SetPlan>,
        store: &mut impl Store,
    ) -> Result<(), StoreError> {
        let (id, set) = (entry.id.set(scope), entry.set(scope));
        let rows = plan.map(rows).unwrap_or_default();
        let run = if rows.is_empty() {
            None
        } else if rows == set.rows {
            set.run
        } else {
            match self.take_run(rows.len(), store) {
                Ok(run) => Some(run),
                Err(_) if set.rows.iter().any(|row| !rows.contains(row)) => {
                    store.swap_set(id, Set::default().word);
                    self.retired.runs.extend(std::mem::take(set).run);
                    Some(self.take_run(rows.len(), store)?)
                }
                Err(error) => return Err(error),
            }
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

    /// Consecutive places, if need be those that were given up, after a grace period.
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
}
