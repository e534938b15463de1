//! What the kernel holds, for the commands: they work whether an agent runs or not.

use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::maps::{MapData, PerCpuArray};
use weir_ebpf::abi::{
    Addr, AffinityKey, AffinityRow, BoundPod, ClassId, Connection, Counter, DatagramKey, DatagramRow, Device,
    Flow, FragmentKey, FragmentRow, Judged, JudgedKey, Netns, NetworkKey, PortRule, PortRuleKey, PortRulesId,
    Tuple, VerdictKey, Workload,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::batch;
use super::bpf_fs::PinRoot;
use super::generation::Generation;
use super::grace::Grace;
use super::store::KernelStore;
use crate::tables::Snapshot;

/// How full a table is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fill {
    /// Its name, as metrics and `weir status` call it.
    pub table: String,
    /// Rows in use.
    pub rows: usize,
    /// Rows that there is room for.
    pub capacity: u32,
}

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

    /// How full the tables are that only the programs know of, and those of this node's pods and devices. That of flows
    /// is not among them: it may be large.
    ///
    /// # Errors
    /// The kernel's.
    pub fn fills(&self) -> anyhow::Result<Vec<Fill>> {
        Ok(vec![
            self.fill::<u64, Connection>("CONNECTIONS")?,
            self.fill::<DatagramKey, DatagramRow>("DATAGRAMS")?,
            self.fill::<AffinityKey, AffinityRow>("AFFINITY")?,
            self.fill::<FragmentKey, FragmentRow>("FRAGMENTS")?,
            self.fill::<Addr, Workload>("WORKLOADS")?,
            self.fill::<u64, Netns>("NETNS")?,
            self.fill::<u32, Device>("DEVICES")?,
            self.fill::<u32, BoundPod>("POD_POLICIES")?,
            self.fill::<Addr, ClassId>("ADDRESS_CLASSES")?,
            self.fill::<NetworkKey, ClassId>("NETWORK_CLASSES")?,
            self.fill::<VerdictKey, PortRulesId>("VERDICTS")?,
            self.fill::<PortRuleKey, PortRule>("PORT_RULES")?,
        ])
    }

    /// How full the tables of flows are.
    ///
    /// # Errors
    /// The kernel's.
    pub fn fills_of_flows(&self) -> anyhow::Result<[Fill; 2]> {
        Ok([self.fill::<Tuple, Flow>("FLOWS")?, self.fill::<JudgedKey, Judged>("JUDGED")?])
    }

    fn fill<K, V>(&self, name: &str) -> anyhow::Result<Fill>
    where
        K: FromBytes + IntoBytes + Immutable + Copy,
        V: FromBytes + IntoBytes + Immutable + Copy,
    {
        let data = self.generation.open(name)?;
        let capacity = data.info().with_context(|| format!("asking for {name}"))?.max_entries();
        let mut rows = 0;
        batch::read_each(data.fd().as_fd(), |read: &mut dyn Iterator<Item = (K, V)>| rows += read.count())
            .with_context(|| format!("reading {name}"))?;
        Ok(Fill { table: name.to_ascii_lowercase(), rows, capacity })
    }
}
