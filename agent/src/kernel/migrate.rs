//! Carrying over what only the programs know, when the maps are made anew with other sizes.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::maps::{self, Map, MapData};
use weir_ebpf::abi::{
    AffinityKey, AffinityRow, Connection, DatagramKey, DatagramRow, Flow, Form, ServiceId, ServiceName, Tuple,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::batch;
use super::generation::Generation;
use super::row::Row;
use super::store::{is_full, is_there};

/// `BPF_NOEXIST`: only where there is no such row.
const NOEXIST: u64 = 1;

/// What [`migrate_clients`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Migrated {
    /// Rows that were copied.
    pub rows: usize,
    /// Flows for which the new table has no room: their connections end.
    pub cut: usize,
}

/// Copies translated sockets, flows and clients with session affinity, without touching those that are there, under the
/// numbers that their Services have in the new maps; those of Services that are gone stay behind. Once the new maps
/// are filled: before the programs are replaced, so that none is missing, and again after, for those that came in
/// between. Of sockets and clients the kernel forgets the longest unused where the new maps are smaller.
///
/// # Errors
/// The kernel's.
pub fn migrate_clients(from: &Generation, to: &Generation) -> anyhow::Result<Migrated> {
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
    let flows = copy_flows(from, to, &ids)?;
    Ok(Migrated { rows: connections + datagrams + clients + flows.rows, cut: flows.cut })
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
            Err(error) if is_there(&error) => {}
            Err(error) => return Err(error).with_context(|| format!("copying {name}")),
        }
    }
    Ok(copied)
}

/// A flow by its client's tuple and the second in which it began; its rows, each under its own tuple.
type Flows = HashMap<(Tuple, u32), Vec<(Tuple, Flow)>>;

/// Copies flows whole, those that were seen last first: where the table is full, what is left out was idle longest.
fn copy_flows(
    from: &Generation,
    to: &Generation,
    ids: &HashMap<ServiceId, ServiceId>,
) -> anyhow::Result<Migrated> {
    let mut flows = Flows::new();
    for (tuple, mut row) in read::<Tuple, Flow>(from, "FLOWS")? {
        let (Some(protocol), Some(id)) = (tuple.protocol(), ids.get(&row.service)) else { continue };
        row.service = *id;
        let mut dialled = row;
        let client = dialled.set_form(Form::Dialled, protocol);
        flows.entry((client, row.begun_s)).or_default().push((tuple, row));
    }
    let mut flows: Vec<_> = flows.into_values().filter(|rows| is_whole(rows)).collect();
    flows.sort_by_cached_key(|rows| Reverse(rows.iter().map(|(_, row)| row.seen_s).max()));
    let mut map: FlowMap = Map::HashMap(to.open("FLOWS")?).try_into()?;
    let mut done = Migrated::default();
    for mut rows in flows {
        rows.sort_by_key(|(_, row)| order(row.form()));
        match copy_flow(&mut map, &rows)? {
            Some(copied) => done.rows += copied,
            None => done.cut += 1,
        }
    }
    Ok(done)
}

type FlowMap = maps::HashMap<MapData, Row<Tuple>, Row<Flow>>;

/// How many rows were written; `None` where there is no room for all: then none is left of those that were.
fn copy_flow(map: &mut FlowMap, rows: &[(Tuple, Flow)]) -> anyhow::Result<Option<usize>> {
    // It is there since the last time; or its client has begun another under the same tuple, and this one is over.
    if rows.last().is_some_and(|(client, _)| map.get(&Row(*client), 0).is_ok()) {
        return Ok(Some(0));
    }
    let mut written: Vec<Tuple> = Vec::with_capacity(rows.len());
    for (tuple, row) in rows {
        match map.insert(Row(*tuple), Row(*row), NOEXIST) {
            Ok(()) => written.push(*tuple),
            Err(error) if is_there(&error) => {}
            Err(error) if is_full(&error) => {
                // The client's row comes last, so that no packet has used these yet.
                for tuple in written {
                    map.remove(&Row(tuple)).context("removing a flow that does not fit")?;
                }
                return Ok(None);
            }
            Err(error) => return Err(error).context("copying FLOWS"),
        }
    }
    Ok(Some(written.len()))
}

/// Whether it is more than the rest of a flow that could not be begun, or that was forgotten just now.
fn is_whole(rows: &[(Tuple, Flow)]) -> bool {
    [Form::Received, Form::Dialled].iter().all(|form| rows.iter().any(|(_, row)| row.form() == *form))
}

/// The programs' own: the backend's row first, the client's last. As soon as that is there, the flow is.
fn order(form: Form) -> u8 {
    match form {
        Form::Received => 0,
        Form::Forwarded => 1,
        Form::Dialled => 2,
    }
}
