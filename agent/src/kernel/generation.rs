//! A generation: one set of maps, of one layout and one choice of sizes, and the programs that use them.

use std::fs;
use std::io;
use std::mem::size_of;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use aya::maps::{MapData, MapInfo};
use aya::{Ebpf, EbpfLoader};
use nix::unistd::{SysconfVar, sysconf};
use weir_ebpf::abi::{
    ABI_VERSION, Addr, AffinityKey, AffinityRow, Backend, BoundPod, ClassId, Config, Connection, Counter,
    DatagramKey, DatagramRow, Device, DropEvent, Enforcement, Flow, FragmentKey, FragmentRow, Frontend,
    FrontendKey, Judged, JudgedKey, Netns, NetworkKey, PolicyName, PolicyNameKey, PortRule, PortRuleKey,
    PortRulesId, ServiceId, ServiceName, SetWord, Share, SourceRangeKey, Tuple, VerdictKey, Workload,
};

use super::bpf_fs::{PinRoot, remove_dir};
use crate::tables::Sizes;

/// The programs as they were compiled with this agent.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-programs.o"));

/// Rows of the `counters` map.
#[expect(clippy::cast_possible_truncation, reason = "a handful")]
const COUNTERS: u32 = Counter::ALL.len() as u32;

/// Rows of the maps of this node's pods, addresses and devices: far more than a node has.
const PODS: u32 = 8192;

/// Datagrams in pieces at one time; the longest unused are forgotten.
const FRAGMENTS: u32 = 8192;

/// What a map is to look like, wherever it comes from.
pub(super) struct MapSpec {
    /// Its name in the object.
    pub(super) name: &'static str,
    key: usize,
    value: usize,
    rows: u32,
}

/// Every map, under these sizes.
pub(super) fn specs(sizes: &Sizes) -> [MapSpec; 26] {
    let spec = |name, key, value, rows| MapSpec { name, key, value, rows };
    [
        spec("FRONTENDS", size_of::<FrontendKey>(), size_of::<Frontend>(), sizes.frontends),
        spec("SETS", size_of::<u32>(), size_of::<SetWord>(), sizes.services * 2),
        spec("BACKENDS", size_of::<u32>(), size_of::<Backend>(), sizes.backends),
        spec("NAMES", size_of::<ServiceId>(), size_of::<ServiceName>(), sizes.services),
        spec("AFFINITY", size_of::<AffinityKey>(), size_of::<AffinityRow>(), sizes.affinity),
        spec("CONNECTIONS", size_of::<u64>(), size_of::<Connection>(), sizes.connections),
        spec("DATAGRAMS", size_of::<DatagramKey>(), size_of::<DatagramRow>(), sizes.datagrams),
        spec("SOURCE_RANGES", size_of::<SourceRangeKey>(), size_of::<u8>(), sizes.source_ranges),
        spec("FLOWS", size_of::<Tuple>(), size_of::<Flow>(), sizes.flows),
        spec("FRAGMENTS", size_of::<FragmentKey>(), size_of::<FragmentRow>(), FRAGMENTS),
        spec("WORKLOADS", size_of::<Addr>(), size_of::<Workload>(), PODS),
        spec("NETNS", size_of::<u64>(), size_of::<Netns>(), PODS),
        spec("DEVICES", size_of::<u32>(), size_of::<Device>(), PODS),
        spec("POD_CGROUPS", size_of::<u64>(), size_of::<u32>(), PODS),
        spec("CONFIG", size_of::<u32>(), size_of::<Config>(), 1),
        spec("ENFORCEMENT", size_of::<u32>(), size_of::<Enforcement>(), 1),
        spec("POD_POLICIES", size_of::<u32>(), size_of::<BoundPod>(), PODS),
        spec("ADDRESS_CLASSES", size_of::<Addr>(), size_of::<ClassId>(), sizes.address_classes),
        spec("NETWORK_CLASSES", size_of::<NetworkKey>(), size_of::<ClassId>(), sizes.network_classes),
        spec("VERDICTS", size_of::<VerdictKey>(), size_of::<PortRulesId>(), sizes.verdicts),
        spec("PORT_RULES", size_of::<PortRuleKey>(), size_of::<PortRule>(), sizes.port_rules),
        spec("JUDGED", size_of::<JudgedKey>(), size_of::<Judged>(), sizes.judged),
        spec("JUDGED_SHARES", size_of::<u32>(), size_of::<Share>(), PODS),
        spec("POLICY_NAMES", size_of::<PolicyNameKey>(), size_of::<PolicyName>(), sizes.policy_names()),
        spec("DROP_EVENTS", 0, 0, ring_bytes(sizes.drop_events)),
        spec("COUNTERS", size_of::<u32>(), size_of::<u64>(), COUNTERS),
    ]
}

/// Size of a ring buffer for so many events. The kernel takes powers of two, and whole pages; each event has a header of 8 bytes
/// (kernel/bpf/ringbuf.c).
fn ring_bytes(events: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "a hundred bytes")]
    const EVENT: u32 = size_of::<DropEvent>() as u32 + 8;
    // Where nobody can say how large a page is: none is larger.
    const LARGEST: u32 = 64 << 10;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|bytes| u32::try_from(bytes).ok());
    events.saturating_mul(EVENT).clamp(page.unwrap_or(LARGEST), 1 << 31).next_power_of_two()
}

/// Maps of one layout and size, pinned in a directory of their own.
#[derive(Clone, Debug)]
pub struct Generation {
    root: PinRoot,
    name: String,
    sizes: Sizes,
}

impl Generation {
    /// The one of this agent with these sizes, whether it is there or not.
    #[must_use]
    pub fn wanted(root: &PinRoot, sizes: Sizes) -> Self {
        let rows = sizes.rows().map(|(_, rows)| rows.to_string());
        let name = format!("v{ABI_VERSION}-{}", rows.join("-"));
        Self { root: root.clone(), name, sizes }
    }

    /// Those that are there and that this agent can read.
    ///
    /// # Errors
    /// The pin root cannot be read.
    pub fn readable(root: &PinRoot) -> anyhow::Result<Vec<Self>> {
        Ok(root.generations()?.iter().filter_map(|name| Self::parse(root, name)).collect())
    }

    /// Whether there are tables of another version, which this agent cannot read.
    ///
    /// # Errors
    /// The pin root cannot be read.
    pub fn has_unreadable(root: &PinRoot) -> anyhow::Result<bool> {
        Ok(root.generations()?.iter().any(|name| Self::parse(root, name).is_none()))
    }

    fn parse(root: &PinRoot, name: &str) -> Option<Self> {
        let numbers = name.strip_prefix(&format!("v{ABI_VERSION}-"))?.split('-').map(str::parse);
        let numbers: Vec<u32> = numbers.collect::<Result<_, _>>().ok()?;
        let sizes = Sizes::from_rows(numbers.try_into().ok()?);
        Some(Self { root: root.clone(), name: name.to_owned(), sizes })
    }

    /// How many rows its maps have.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Whether all of its maps are there.
    #[must_use]
    pub fn exists(&self) -> bool {
        specs(&self.sizes).iter().all(|spec| self.map_path(spec.name).exists())
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join(&self.name)
    }

    fn map_path(&self, map: &str) -> PathBuf {
        self.dir().join(map.to_ascii_lowercase())
    }

    /// Loads the programs on these maps: on the pinned ones where they are there, on new ones, pinned at once,
    /// where not. Nothing is attached.
    ///
    /// # Errors
    /// What the kernel lacks or refuses; of a verifier's log, the last lines.
    pub fn load(&self) -> anyhow::Result<Ebpf> {
        let dir = self.dir();
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("making {}", dir.display()));
            }
            _ => {}
        }
        let specs = specs(&self.sizes);
        for spec in &specs {
            let path = self.map_path(spec.name);
            if path.exists() {
                spec.check(&path)?;
            }
        }
        let mut loader = EbpfLoader::new();
        for spec in &specs {
            loader.map_max_entries(spec.name, spec.rows).map_pin_path(spec.name, self.map_path(spec.name));
        }
        loader
            .load(OBJECT)
            .context("loading the eBPF maps (they need CAP_BPF, CAP_NET_ADMIN and a kernel of 6.1 or later)")
    }

    /// Opens one of its maps.
    ///
    /// # Errors
    /// With the map's path.
    pub(super) fn open(&self, map: &str) -> anyhow::Result<MapData> {
        let path = self.map_path(map);
        let Some(spec) = specs(&self.sizes).into_iter().find(|spec| spec.name == map) else {
            bail!("no map is called {map}")
        };
        spec.check(&path)?;
        MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))
    }

    /// Removes all generations but this one.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove_others(&self) -> anyhow::Result<()> {
        for name in self.root.generations()?.into_iter().filter(|name| *name != self.name) {
            tracing::info!(generation = name, "removing the tables of an earlier layout");
            remove_dir(&self.root.path().join(name), &mut Vec::new())?;
        }
        Ok(())
    }
}

impl MapSpec {
    /// A pinned map is used only if it is what the object declares: the kernel would not notice.
    fn check(&self, path: &Path) -> anyhow::Result<()> {
        let info = MapInfo::from_pin(path).with_context(|| format!("opening {}", path.display()))?;
        let found = (info.key_size() as usize, info.value_size() as usize, info.max_entries());
        let wanted = (self.key, self.value, self.rows);
        ensure!(
            found == wanted,
            "{}: a map of another layout (key, value, rows: {found:?} instead of {wanted:?}); `weir cleanup` removes it",
            path.display()
        );
        Ok(())
    }
}
