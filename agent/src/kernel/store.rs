//! The maps as a [`Store`], and as what an earlier agent left.

use std::collections::HashMap as Rows;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use aya::maps::{HashMap, MapData, MapError};
use memmap2::{MmapOptions, MmapRaw};
use weir_ebpf::abi::{
    Backend, Frontend, FrontendKey, ServiceId, ServiceName, SetId, SetWord, SourceRangeKey,
};

use super::batch;
use super::generation::Generation;
use super::grace::Grace;
use super::row::Row;
use crate::tables::{Sizes, Snapshot, Store, StoreError};

/// Bytes from one element of an array map to the next: the kernel rounds up to 8 (kernel/bpf/arraymap.c).
const BACKEND_STRIDE: usize = size_of::<Backend>().next_multiple_of(8);

/// The maps of one generation, open for writing.
#[derive(Debug)]
pub struct KernelStore {
    generation: Generation,
    sizes: Sizes,
    frontends: HashMap<MapData, Row<FrontendKey>, Row<Frontend>>,
    source_ranges: HashMap<MapData, Row<SourceRangeKey>, u8>,
    names: HashMap<MapData, Row<ServiceId>, Row<ServiceName>>,
    sets: MmapRaw,
    backends: MmapRaw,
    grace: Grace,
}

impl KernelStore {
    /// Opens what [`Generation::load`] pinned.
    ///
    /// # Errors
    /// With the map's name.
    pub fn open(generation: &Generation, grace: Grace) -> anyhow::Result<Self> {
        let sizes = generation.sizes();
        Ok(Self {
            generation: generation.clone(),
            sizes,
            frontends: aya::maps::Map::HashMap(generation.open("FRONTENDS")?).try_into()?,
            // To the kernel a prefix tree is one more map of keys and rows; aya's own type would split the key.
            source_ranges: aya::maps::Map::HashMap(generation.open("SOURCE_RANGES")?).try_into()?,
            names: aya::maps::Map::HashMap(generation.open("NAMES")?).try_into()?,
            sets: map_array(&generation.open("SETS")?, sizes.services as usize * 2 * size_of::<SetWord>())?,
            backends: map_array(&generation.open("BACKENDS")?, sizes.backends as usize * BACKEND_STRIDE)?,
            grace,
        })
    }

    /// What an earlier agent left in the maps.
    ///
    /// # Errors
    /// The kernel's.
    pub fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let names: Vec<(ServiceId, ServiceName)> =
            batch::read_all(self.generation.open("NAMES")?.fd().as_fd())
                .context("reading the names table")?;
        let frontends = batch::read_all(self.generation.open("FRONTENDS")?.fd().as_fd())
            .context("reading the frontends table")?;
        let ranges: Vec<(SourceRangeKey, u8)> =
            batch::read_all(self.generation.open("SOURCE_RANGES")?.fd().as_fd())
                .context("reading the source_ranges table")?;
        let source_ranges = ranges.into_iter().map(|(range, _)| range).collect();
        let mut snapshot =
            Snapshot { names, frontends, sets: Rows::new(), backends: Rows::new(), source_ranges };
        for (id, _) in &snapshot.names {
            for set in [id.set(weir_ebpf::abi::Scope::Cluster), id.set(weir_ebpf::abi::Scope::Local)] {
                let Some(word) = self.set_word(set) else { continue };
                let word = SetWord(word.load(Ordering::Acquire));
                snapshot.sets.insert(set, word);
                let Ok(run) = word.run() else { continue };
                let rows = run.offset..run.offset.saturating_add(run.len);
                snapshot.backends.extend(rows.map_while(|at| Some((at, self.read_backend(at)?))));
            }
        }
        Ok(snapshot)
    }

    fn set_word(&self, set: SetId) -> Option<&AtomicU64> {
        if set.0 >= self.sizes.services * 2 {
            return None;
        }
        let words = self.sets.as_mut_ptr().cast::<AtomicU64>();
        // SAFETY: inside the mapping, which is page-aligned and lives as long as `self`; programs and this process
        // access the words as whole 64-bit numbers only.
        Some(unsafe { &*words.add(set.0 as usize) })
    }

    fn backend(&self, index: u32) -> Option<*mut Backend> {
        if index >= self.sizes.backends {
            return None;
        }
        // SAFETY: inside the mapping; rows are aligned to 8.
        Some(unsafe { self.backends.as_mut_ptr().add(index as usize * BACKEND_STRIDE) }.cast())
    }

    fn read_backend(&self, index: u32) -> Option<Backend> {
        // SAFETY: inside the mapping, and any bytes are a row.
        self.backend(index).map(|row| unsafe { row.read_volatile() })
    }
}

impl Store for KernelStore {
    fn write_backends(&mut self, offset: u32, rows: &[Backend]) {
        for (index, row) in (offset..).zip(rows) {
            if let Some(place) = self.backend(index) {
                // SAFETY: inside the mapping, and no set points here.
                unsafe { place.write_volatile(*row) };
            }
        }
    }

    fn swap_set(&mut self, set: SetId, word: SetWord) {
        if let Some(place) = self.set_word(set) {
            // Release: whoever sees the word sees the rows that were written before.
            place.store(word.0, Ordering::Release);
        }
    }

    fn put_frontend(&mut self, key: &FrontendKey, row: &Frontend) -> Result<(), StoreError> {
        let result = self.frontends.insert(Row(*key), Row(*row), 0);
        result.map_err(|error| refused("frontends", self.sizes.frontends, &error))
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), StoreError> {
        deleted(self.frontends.remove(&Row(*key)))
            .map_err(|error| refused("frontends", self.sizes.frontends, &error))
    }

    fn put_source_range(&mut self, range: &SourceRangeKey) -> Result<(), StoreError> {
        let result = self.source_ranges.insert(Row(*range), 1, 0);
        result.map_err(|error| refused("source_ranges", self.sizes.source_ranges, &error))
    }

    fn delete_source_range(&mut self, range: &SourceRangeKey) -> Result<(), StoreError> {
        deleted(self.source_ranges.remove(&Row(*range)))
            .map_err(|error| refused("source_ranges", self.sizes.source_ranges, &error))
    }

    fn put_name(&mut self, id: ServiceId, name: &ServiceName) -> Result<(), StoreError> {
        let result = self.names.insert(Row(id), Row(*name), 0);
        result.map_err(|error| refused("names", self.sizes.services, &error))
    }

    fn delete_name(&mut self, id: ServiceId) -> Result<(), StoreError> {
        deleted(self.names.remove(&Row(id))).map_err(|error| refused("names", self.sizes.services, &error))
    }

    fn wait_grace(&mut self) -> Result<(), StoreError> {
        self.grace.wait().map_err(|source| StoreError::Io { table: "backends", source })
    }
}

fn map_array(map: &MapData, len: usize) -> anyhow::Result<MmapRaw> {
    let len = len.next_multiple_of(usize::try_from(page_size()).context("the page size")?);
    MmapOptions::new()
        .len(len)
        .map_raw(map.fd().as_fd().as_raw_fd())
        .context("mapping an array of the kernel")
}

fn page_size() -> i64 {
    // SAFETY: no arguments beyond the name.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }
}

/// A row that was not there is no error when it is to go.
pub(super) fn deleted(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(error) if is_missing(&error) => Ok(()),
        other => other,
    }
}

pub(super) fn refused(table: &'static str, capacity: u32, error: &MapError) -> StoreError {
    match errno(error) {
        _ if is_full(error) => StoreError::Full { table, capacity },
        Some(code) => StoreError::Io { table, source: io::Error::from_raw_os_error(code) },
        None => StoreError::Io { table, source: io::Error::other(error.to_string()) },
    }
}

/// Whether there was no room for it, in a hash or in a prefix tree.
pub(super) fn is_full(error: &MapError) -> bool {
    matches!(errno(error), Some(libc::E2BIG | libc::ENOSPC))
}

/// Whether there was one already.
pub(super) fn is_there(error: &MapError) -> bool {
    errno(error) == Some(libc::EEXIST)
}

/// Whether there was no such row.
pub(super) fn is_missing(error: &MapError) -> bool {
    errno(error) == Some(libc::ENOENT)
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        MapError::KeyNotFound => Some(libc::ENOENT),
        MapError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}
