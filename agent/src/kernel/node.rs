//! The tables of this node's devices and pods, written as the network changes.

use std::collections::HashMap as Rows;
use std::fmt;
use std::hash::Hash;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::maps::{Array, HashMap, Map, MapData};
use weir_ebpf::abi::{Addr, Config, Device, Netns, Workload};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::batch;
use super::generation::Generation;
use super::row::Row;
use crate::network::NodeRows;

/// The tables, open for writing, and what they hold.
pub struct NodeTables {
    workloads: Table<Addr, Workload>,
    netns: Table<u64, Netns>,
    devices: Table<u32, Device>,
    config: Array<MapData, Row<Config>>,
}

impl fmt::Debug for NodeTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = (&self.workloads, &self.netns, &self.devices);
        f.debug_tuple("NodeTables").field(&rows).finish_non_exhaustive()
    }
}

impl NodeTables {
    /// Opens what [`Generation::load`] pinned, and reads what an earlier agent left there.
    ///
    /// # Errors
    /// With the map's name.
    pub fn open(generation: &Generation) -> anyhow::Result<Self> {
        Ok(Self {
            workloads: Table::open(generation, "WORKLOADS")?,
            netns: Table::open(generation, "NETNS")?,
            devices: Table::open(generation, "DEVICES")?,
            config: Map::Array(generation.open("CONFIG")?).try_into()?,
        })
    }

    /// What they hold.
    #[must_use]
    pub fn held(&self) -> NodeRows {
        NodeRows {
            workloads: self.workloads.held.clone(),
            netns: self.netns.held.clone(),
            devices: self.devices.held.clone(),
            config: self.config.get(&0, 0).map_or(Config::EMPTY, |row| row.0),
        }
    }

    /// Adds what is new and replaces what is different: before programs are attached to new devices. What the kernel
    /// refuses is returned, and tried again the next time.
    pub fn put(&mut self, rows: &NodeRows) -> Vec<String> {
        let mut problems = Vec::new();
        // Read by all the others' readers, and never missing.
        if self.config.get(&0, 0).ok().map(|row| row.0) != Some(rows.config)
            && let Err(error) = self.config.set(0, Row(rows.config), 0)
        {
            problems.push(format!("writing to the config table: {error}"));
        }
        problems.extend(self.devices.put(&rows.devices));
        problems.extend(self.netns.put(&rows.netns));
        problems.extend(self.workloads.put(&rows.workloads));
        problems
    }

    /// Removes what is no more: after its programs are gone.
    pub fn prune(&mut self, rows: &NodeRows) -> Vec<String> {
        let workloads = self.workloads.prune(&rows.workloads);
        let (netns, devices) = (self.netns.prune(&rows.netns), self.devices.prune(&rows.devices));
        [workloads, netns, devices].into_iter().flatten().collect()
    }
}

/// A hash and what it holds.
#[derive(Debug)]
struct Table<K, V> {
    name: &'static str,
    map: HashMap<MapData, Row<K>, Row<V>>,
    held: Rows<K, V>,
}

impl<K, V> Table<K, V>
where
    K: FromBytes + IntoBytes + Immutable + Copy + Eq + Hash + 'static,
    V: FromBytes + IntoBytes + Immutable + Copy + PartialEq + 'static,
{
    fn open(generation: &Generation, name: &'static str) -> anyhow::Result<Self> {
        let data = generation.open(name)?;
        let held = batch::read_all(data.fd().as_fd())
            .with_context(|| format!("reading {name}"))?
            .into_iter()
            .collect();
        Ok(Self { name, map: Map::HashMap(data).try_into()?, held })
    }

    fn put(&mut self, wanted: &Rows<K, V>) -> Option<String> {
        let mut refused = None;
        for (key, row) in wanted {
            if self.held.get(key) == Some(row) {
                continue;
            }
            match self.map.insert(Row(*key), Row(*row), 0) {
                Ok(()) => {
                    self.held.insert(*key, *row);
                }
                Err(error) => refused = Some(self.complain(&error)),
            }
        }
        refused
    }

    fn prune(&mut self, wanted: &Rows<K, V>) -> Option<String> {
        let gone: Vec<K> = self.held.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        let mut refused = None;
        for key in gone {
            match self.map.remove(&Row(key)) {
                Err(error) if !super::store::is_missing(&error) => refused = Some(self.complain(&error)),
                _ => {
                    self.held.remove(&key);
                }
            }
        }
        refused
    }

    fn complain(&self, error: &aya::maps::MapError) -> String {
        format!("writing to the {} table: {error}", self.name.to_ascii_lowercase())
    }
}
