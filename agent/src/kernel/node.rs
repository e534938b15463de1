//! The tables of this node's devices and pods, written as the network changes.

use std::collections::{BTreeMap, HashMap as Rows};
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use weir_ebpf::abi::{Addr, Config, Device, Netns, Workload};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::batch;
use super::generation::Generation;
use super::row::Row;
use super::store::{is_full, is_missing};
use crate::network::NodeRows;

/// The tables, open for writing, and what they hold.
pub struct NodeTables {
    workloads: Table<Addr, Workload>,
    netns: Table<u64, Netns>,
    devices: Table<u32, Device>,
    pod_cgroups: Table<u64, u32>,
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
            pod_cgroups: Table::open(generation, "POD_CGROUPS")?,
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
        // Read by all the others' readers, and never missing. But who is not known is held only when all are that can be.
        let held = self.config.get(&0, 0).map_or(0, |row| row.0.flags) & Config::HOLD_STRANGERS;
        let flags = rows.config.flags & (held | !Config::HOLD_STRANGERS);
        problems.extend(self.put_config(Config { flags, ..rows.config }));
        problems.extend(self.devices.put(&rows.devices));
        problems.extend(self.netns.put(&rows.netns));
        problems.extend(self.workloads.put(&rows.workloads));
        problems.extend(self.put_config(rows.config));
        problems
    }

    fn put_config(&mut self, config: Config) -> Option<String> {
        if self.config.get(&0, 0).is_ok_and(|row| row.0 == config) {
            return None;
        }
        let written = self.config.set(0, Row(config), 0);
        written.err().map(|error| format!("writing to the config table: {error}"))
    }

    /// Replaces the cgroups below which the kubelet has its pods, and those of pods that were seen: by their ids, with what each
    /// is ([`weir_ebpf::abi::PodCgroups`]). What the kernel refuses is returned.
    pub fn put_pod_cgroups(&mut self, cgroups: &[(u64, u32)]) -> Vec<String> {
        let wanted: Rows<u64, u32> = cgroups.iter().copied().collect();
        self.pod_cgroups.put(&wanted).into_iter().chain(self.pod_cgroups.prune(&wanted)).collect()
    }

    /// The device that leads to each address, as they stand there.
    #[must_use]
    pub fn holders(&self) -> BTreeMap<IpAddr, u32> {
        let rows = self.workloads.held.iter().filter(|(_, row)| row.ifindex != 0);
        rows.map(|(addr, row)| ((*addr).into(), row.ifindex)).collect()
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
    capacity: u32,
    map: HashMap<MapData, Row<K>, Row<V>>,
    held: Rows<K, V>,
}

impl<K, V> Table<K, V>
where
    K: FromBytes + IntoBytes + Immutable + Copy + Eq + Hash + fmt::Display + 'static,
    V: FromBytes + IntoBytes + Immutable + Copy + PartialEq + 'static,
{
    fn open(generation: &Generation, name: &'static str) -> anyhow::Result<Self> {
        let data = generation.open(name)?;
        let capacity = data.info().with_context(|| format!("asking for {name}"))?.max_entries();
        let held = batch::read_all(data.fd().as_fd())
            .with_context(|| format!("reading {name}"))?
            .into_iter()
            .collect();
        Ok(Self { name, capacity, map: Map::HashMap(data).try_into()?, held })
    }

    fn put(&mut self, wanted: &Rows<K, V>) -> Option<String> {
        let mut refused = Rows::new();
        for (key, row) in wanted {
            if self.held.get(key) == Some(row) {
                continue;
            }
            match self.map.insert(Row(*key), Row(*row), 0) {
                Ok(()) => {
                    self.held.insert(*key, *row);
                }
                Err(error) => {
                    refused.insert(*key, error);
                }
            }
        }
        self.complain(&refused)
    }

    fn prune(&mut self, wanted: &Rows<K, V>) -> Option<String> {
        let gone: Vec<K> = self.held.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        let mut refused = Rows::new();
        for key in gone {
            match self.map.remove(&Row(key)) {
                Err(error) if !is_missing(&error) => {
                    refused.insert(key, error);
                }
                _ => {
                    self.held.remove(&key);
                }
            }
        }
        self.complain(&refused)
    }

    /// In one sentence, and in the same words for as long as the same rows are refused.
    fn complain(&self, refused: &Rows<K, MapError>) -> Option<String> {
        let (row, error) =
            refused.iter().map(|(key, error)| (key.to_string(), error)).min_by(|a, b| a.0.cmp(&b.0))?;
        let more = match refused.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let table = self.name.to_ascii_lowercase();
        Some(if is_full(error) {
            format!("{row}{more}: the {table} table is full ({} rows)", self.capacity)
        } else {
            format!("{row}{more}: writing to the {table} table: {error}")
        })
    }
}
