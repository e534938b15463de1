//! Carrying over what only the programs know, when the maps are made anew with other sizes.

use std::collections::HashMap;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::maps::{self, Map, MapData, MapError};
use weir_ebpf::abi::{
    AffinityKey, AffinityRow, Connection, DatagramKey, DatagramRow, Flow, ServiceId, ServiceName, Tuple,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::batch;
use super::generation::Generation;
use super::row::Row;

/// `BPF_NOEXIST`: only where there is no such row.
const NOEXIST: u64 = 1;

/// Copies translated sockets, flows and clients with session affinity, without touching those that are there, under the
/// numbers that their Services have in the new maps; those of Services that are gone stay behind. Once the new maps
/// are filled: before the programs are replaced, so that none is missing, and again after, for those that came in
/// between.
///
/// # Errors
/// The kernel's.
pub fn migrate_clients(from: &Generation, to: &Generation) -> anyhow::Result<usize> {
    let ids = renumbered(from, to)?;
    let connections = copy(from, to, "CONNECTIONS", |cookie: u64, mut row: Connection| {
        row.service = *ids.get(&row.service)?;
        Some((cookie, row))
    })?;
    let datagrams = copy(from, to, "DATAGRAMS", |key: DatagramKey, mut row: DatagramRow| {
        row.service = *ids.get(&row.service)?;
        Some((key, row))
    })?;
    let clients = copy(from, to, "AFFINITY", |mut key: AffinityKey, row: AffinityRow| {
        key.service = *ids.get(&key.service)?;
        Some((key, row))
    })?;
    let flows = copy(from, to, "FLOWS", |key: Tuple, mut row: Flow| {
        row.service = *ids.get(&row.service)?;
        Some((key, row))
    })?;
    Ok(connections + datagrams + clients + flows)
}

/// The number that each Service port had in the old maps, and the one that it has in the new.
fn renumbered(from: &Generation, to: &Generation) -> anyhow::Result<HashMap<ServiceId, ServiceId>> {
    let (old, new) = (read::<ServiceId, ServiceName>(from, "NAMES")?, read(to, "NAMES")?);
    let new: HashMap<ServiceName, ServiceId> = new.into_iter().map(|(id, name)| (name, id)).collect();
    Ok(old.into_iter().filter_map(|(id, name)| Some((id, *new.get(&name)?))).collect())
}

fn read<K, V>(generation: &Generation, name: &str) -> anyhow::Result<Vec<(K, V)>>
where
    K: FromBytes + IntoBytes + Immutable + Copy,
    V: FromBytes + IntoBytes + Immutable + Copy,
{
    batch::read_all(generation.open(name)?.fd().as_fd()).with_context(|| format!("reading {name}"))
}

fn copy<K, V>(
    from: &Generation,
    to: &Generation,
    name: &str,
    change: impl Fn(K, V) -> Option<(K, V)>,
) -> anyhow::Result<usize>
where
    K: FromBytes + IntoBytes + Immutable + Copy + 'static,
    V: FromBytes + IntoBytes + Immutable + Copy + 'static,
{
    let rows = read::<K, V>(from, name)?.into_iter().filter_map(|(key, value)| change(key, value));
    let mut map: maps::HashMap<MapData, Row<K>, Row<V>> = Map::LruHashMap(to.open(name)?).try_into()?;
    let mut copied = 0;
    for (key, value) in rows {
        match map.insert(Row(key), Row(value), NOEXIST) {
            Ok(()) => copied += 1,
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("copying {name}")),
        }
    }
    Ok(copied)
}
