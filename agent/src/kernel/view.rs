//! What the kernel holds, for the commands: they work whether an agent runs or not.

use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::maps::{MapData, PerCpuArray};
use weir_ebpf::abi::{AffinityKey, AffinityRow, Connection, Counter, DatagramKey, DatagramRow, Flow, Tuple};

use super::batch;
use super::bpf_fs::PinRoot;
use super::generation::Generation;
use super::grace::Grace;
use super::store::KernelStore;
use crate::tables::Snapshot;

/// A generation, open for reading.
#[derive(Debug)]
pub struct View {
    generation: Generation,
}

impl View {
    /// The generation that is there; `None` if there is none that this agent can read. During an upgrade there are
    /// two for a moment: then the larger.
    ///
    /// # Errors
    /// The pin root cannot be read: it needs root.
    pub fn open(root: &PinRoot) -> anyhow::Result<Option<Self>> {
        let there = Generation::readable(root)?.into_iter().filter(Generation::exists);
        let generation = there.max_by_key(|generation| generation.sizes().frontends);
        Ok(generation.map(|generation| Self { generation }))
    }

    /// Its maps.
    #[must_use]
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Services, frontends, sets and backends.
    ///
    /// # Errors
    /// The kernel's.
    pub fn snapshot(&self) -> anyhow::Result<Snapshot> {
        KernelStore::open(&self.generation, Grace::new()?)?.snapshot()
    }

    /// What the programs counted, over all CPUs.
    ///
    /// # Errors
    /// The kernel's.
    pub fn counters(&self) -> anyhow::Result<Vec<(Counter, u64)>> {
        let map = aya::maps::Map::PerCpuArray(self.generation.open("COUNTERS")?);
        let map: PerCpuArray<MapData, u64> = map.try_into()?;
        let read = |&counter: &Counter| {
            let values = map.get(&(counter as u32), 0).context("reading the counters")?;
            Ok((counter, values.iter().sum()))
        };
        Counter::ALL.iter().map(read).collect()
    }

    /// Connected sockets that are remembered, by their cookies.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connections(&self) -> anyhow::Result<Vec<(u64, Connection)>> {
        batch::read_all(self.generation.open("CONNECTIONS")?.fd().as_fd())
            .context("reading the connections table")
    }

    /// Translations of unconnected sockets that are remembered.
    ///
    /// # Errors
    /// The kernel's.
    pub fn datagrams(&self) -> anyhow::Result<Vec<(DatagramKey, DatagramRow)>> {
        batch::read_all(self.generation.open("DATAGRAMS")?.fd().as_fd())
            .context("reading the datagrams table")
    }

    /// How many rows the table of flows has.
    ///
    /// # Errors
    /// The kernel's.
    pub fn count_flows(&self) -> anyhow::Result<usize> {
        let mut count = 0;
        batch::read_each(self.generation.open("FLOWS")?.fd().as_fd(), |rows| {
            count += (rows as &mut dyn Iterator<Item = (Tuple, Flow)>).count();
        })
        .context("reading the flows table")?;
        Ok(count)
    }

    /// Clients with session affinity that are remembered.
    ///
    /// # Errors
    /// The kernel's.
    pub fn affinity(&self) -> anyhow::Result<Vec<(AffinityKey, AffinityRow)>> {
        batch::read_all(self.generation.open("AFFINITY")?.fd().as_fd()).context("reading the affinity table")
    }
}
