//! The maps of policies as a [`PolicyStore`], and as what an earlier agent left.

use std::hash::Hash;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::maps::{HashMap, Map, MapData, MapError};
use weir_ebpf::abi::{
    Addr, BoundPod, ClassId, Enforcement, NetworkKey, PolicyName, PolicyNameKey, PortRule, PortRuleKey,
    PortRulesId, VerdictKey,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::batch;
use super::generation::Generation;
use super::row::Row;
use super::store::{deleted, refused};
use crate::tables::{PolicySnapshot, PolicyStore, PolicyWrite, StoreError};

/// The maps of policies of one generation, open for writing.
#[derive(Debug)]
pub struct KernelPolicyStore {
    enforcement: Table<u32, Enforcement>,
    pods: Table<u32, BoundPod>,
    addresses: Table<Addr, ClassId>,
    networks: Table<NetworkKey, ClassId>,
    verdicts: Table<VerdictKey, PortRulesId>,
    port_rules: Table<PortRuleKey, PortRule>,
    names: Table<PolicyNameKey, PolicyName>,
}

impl KernelPolicyStore {
    /// Opens what [`Generation::load`] pinned.
    ///
    /// # Errors
    /// With the map's name.
    pub fn open(generation: &Generation) -> anyhow::Result<Self> {
        // To the kernel arrays and prefix trees are maps of keys and rows as well; aya's own type would split a prefix.
        Ok(Self {
            enforcement: Table::open(generation, "ENFORCEMENT")?,
            pods: Table::open(generation, "POD_POLICIES")?,
            addresses: Table::open(generation, "ADDRESS_CLASSES")?,
            networks: Table::open(generation, "NETWORK_CLASSES")?,
            verdicts: Table::open(generation, "VERDICTS")?,
            port_rules: Table::open(generation, "PORT_RULES")?,
            names: Table::open(generation, "POLICY_NAMES")?,
        })
    }

    /// What an earlier agent left in the maps.
    ///
    /// # Errors
    /// The kernel's.
    pub fn snapshot(&self) -> anyhow::Result<PolicySnapshot> {
        Ok(PolicySnapshot {
            enforcement: self.enforcement.map.get(&Row(0), 0).context("reading the enforcement table")?.0,
            pods: self.pods.read()?,
            addresses: self.addresses.read()?,
            networks: self.networks.read()?,
            verdicts: self.verdicts.read()?,
            port_rules: self.port_rules.read()?,
            names: self.names.read()?,
        })
    }
}

impl PolicyStore for KernelPolicyStore {
    fn write_policy(&mut self, write: &PolicyWrite) -> Result<(), StoreError> {
        match *write {
            PolicyWrite::PortRule(key, row) => self.port_rules.write(key, row),
            PolicyWrite::Verdict(key, row) => self.verdicts.write(key, row),
            PolicyWrite::Network(key, row) => self.networks.write(key, row),
            PolicyWrite::Address(key, row) => self.addresses.write(key, row),
            PolicyWrite::Name(key, row) => self.names.write(key, row),
            PolicyWrite::Pod(key, row) => self.pods.write(key, row),
            PolicyWrite::Enforcement(row) => self.enforcement.write(0, Some(row)),
        }
    }
}

/// One map.
#[derive(Debug)]
struct Table<K, V> {
    name: &'static str,
    capacity: u32,
    map: HashMap<MapData, Row<K>, Row<V>>,
    data: MapData,
}

impl<K, V> Table<K, V>
where
    K: FromBytes + IntoBytes + Immutable + Copy + Eq + Hash + 'static,
    V: FromBytes + IntoBytes + Immutable + Copy + 'static,
{
    fn open(generation: &Generation, map: &'static str) -> anyhow::Result<Self> {
        let data = generation.open(map)?;
        let capacity = data.info().with_context(|| format!("asking for {map}"))?.max_entries();
        Ok(Self { name: name_of(map), capacity, map: Map::HashMap(generation.open(map)?).try_into()?, data })
    }

    fn read(&self) -> anyhow::Result<std::collections::HashMap<K, V>> {
        let rows = batch::read_all(self.data.fd().as_fd());
        Ok(rows.with_context(|| format!("reading the {} table", self.name))?.into_iter().collect())
    }

    fn write(&mut self, key: K, row: Option<V>) -> Result<(), StoreError> {
        let result: Result<(), MapError> = match row {
            Some(row) => self.map.insert(Row(key), Row(row), 0),
            None => deleted(self.map.remove(&Row(key))),
        };
        result.map_err(|error| refused(self.name, self.capacity, &error))
    }
}

/// As messages and metrics call it.
fn name_of(map: &'static str) -> &'static str {
    match map {
        "ENFORCEMENT" => "enforcement",
        "POD_POLICIES" => "pod_policies",
        "ADDRESS_CLASSES" => "address_classes",
        "NETWORK_CLASSES" => "network_classes",
        "VERDICTS" => "verdicts",
        "PORT_RULES" => "port_rules",
        "POLICY_NAMES" => "policy_names",
        other => other,
    }
}
