//! Carrying over what only the programs know, when the maps are made anew with other sizes.

use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::maps::{HashMap, Map, MapData, MapError};
use weir_ebpf::abi::{AffinityKey, AffinityRow, ServiceId, ServiceName, SocketKey, SocketRow};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::batch;
use super::generation::Generation;
use super::row::Row;

/// `BPF_NOEXIST`: only where there is no such row.
const NOEXIST: u64 = 1;

/// Copies the ids of Services, so that the rows of sockets and clients keep their meaning. Before the tables are
/// filled.
///
/// # Errors
/// The kernel's.
pub fn migrate_names(from: &Generation, to: &Generation) -> anyhow::Result<usize> {
    copy::<ServiceId, ServiceName>(from, to, "NAMES", false)
}

/// Copies translated sockets and clients with session affinity, without touching those that are there. Once before
/// the programs are replaced, so that none is missing, and once after, for those that came in between.
///
/// # Errors
/// The kernel's.
pub fn migrate_clients(from: &Generation, to: &Generation) -> anyhow::Result<usize> {
    let sockets = copy::<SocketKey, SocketRow>(from, to, "SOCKETS", true)?;
    Ok(sockets + copy::<AffinityKey, AffinityRow>(from, to, "AFFINITY", true)?)
}

fn copy<K, V>(from: &Generation, to: &Generation, name: &str, lru: bool) -> anyhow::Result<usize>
where
    K: FromBytes + IntoBytes + Immutable + Copy + 'static,
    V: FromBytes + IntoBytes + Immutable + Copy + 'static,
{
    let rows: Vec<(K, V)> =
        batch::read_all(from.open(name)?.fd().as_fd()).with_context(|| format!("reading {name}"))?;
    let map = to.open(name)?;
    let map = if lru { Map::LruHashMap(map) } else { Map::HashMap(map) };
    let mut map: HashMap<MapData, Row<K>, Row<V>> = map.try_into()?;
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
