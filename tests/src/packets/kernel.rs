//! The programs in this kernel without an agent: tables that are given, single packets by `BPF_PROG_TEST_RUN`, and
//! sockets in a cgroup of their own.
//!
//! Whoever makes a [`Kernel`] is from then on in a network namespace of its own, so that its routes are known; its devices
//! lead nowhere.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns};
use weir_agent::kernel::{
    Generation, Grace, Hooks, KernelStore, NodeTables, PacketIn, PacketOut, PinRoot, Series, Trial, View,
    cleanup, fill_flows, fill_judged, fill_policies, read_flows, read_judged, run_at_xdp, take_drop_events,
};
use weir_agent::network::{NodeRows, Xdp};
use weir_agent::tables::{Sizes, Store as _};
use weir_ebpf::abi::{Config, Counter, DropEvent, SetWord};
use weir_ebpf::testing::MemoryTables;
use weir_ebpf::testing::frame::RECEIVER;

use crate::lab::netns::{self, Netns};
use crate::lab::{cgroup, teardown};

/// `TC_ACT_UNSPEC`: the next program, and then the stack.
pub const NEXT: i32 = -1;
/// `TC_ACT_SHOT`
pub const DROPPED: i32 = 2;
/// `TC_ACT_REDIRECT`
pub const REDIRECTED: i32 = 7;

/// How long processes may take to leave a cgroup.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program at a device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names of programs")]
pub enum Program {
    FromPod,
    ToPod,
    FromNet,
    ToNet,
    FromL3,
    ToL3,
}

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::FromPod => "weir_from_pod",
            Self::ToPod => "weir_to_pod",
            Self::FromNet => "weir_from_net",
            Self::ToNet => "weir_to_net",
            Self::FromL3 => "weir_from_l3",
            Self::ToL3 => "weir_to_l3",
        }
    }
}

/// As `ip` writes it.
pub(super) fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// Commands of `ip` that make a device which leads nowhere, under this index.
#[must_use]
pub fn device(name: &str, index: u32) -> [String; 4] {
    [
        format!("link add {name} index {index} type veth peer name {name}-far index {}", index + 1000),
        // Frames are for it: what is for others is nobody's here.
        format!("link set {name} address {}", mac(RECEIVER)),
        format!("link set {name}-far up"),
        format!("link set {name} arp off mtu 1500 up"),
    ]
}

/// The programs and their tables. Everything is removed when it is dropped.
pub struct Kernel {
    namespace: Netns,
    home: File,
    root: PinRoot,
    generation: Generation,
    hooks: Hooks,
    store: KernelStore,
    node: NodeTables,
    filled: MemoryTables,
    trials: HashMap<Vec<Program>, Trial>,
    /// Where this process was before, and where it is since.
    cgroups: Option<(PathBuf, PathBuf)>,
}

impl Kernel {
    /// Loads the programs, and takes this thread to a namespace in which these commands of `ip` were run. Of flows there is
    /// room for so many rows.
    ///
    /// # Errors
    /// Not root; what the kernel lacks; what `ip` said.
    pub fn new(name: &str, commands: &[String], flows: u32) -> Result<Self> {
        Self::with_sizes(name, commands, Sizes { flows, ..SIZES })
    }

    /// The same with room for so many rows of everything.
    ///
    /// # Errors
    /// As there.
    pub fn with_sizes(name: &str, commands: &[String], sizes: Sizes) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "the programs are loaded by root alone");
        teardown::ensure_bpffs()?;
        let name = format!("weir-packets-{}-{name}", std::process::id());
        let home = File::open("/proc/thread-self/ns/net")?;
        let namespace = netns::create(std::slice::from_ref(&name))?.remove(0);
        let made = Self::load(namespace.clone(), home, &name, commands, sizes);
        if made.is_err() {
            let _as_well_as_possible = netns::remove(namespace.name());
        }
        made
    }

    fn load(namespace: Netns, home: File, name: &str, commands: &[String], sizes: Sizes) -> Result<Self> {
        namespace.ip(&["link set lo up".to_owned()])?;
        let sysctls = [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];
        namespace.ensure_sysctls(&sysctls)?;
        namespace.ip(commands)?;
        let root = PinRoot::new(Path::new("/sys/fs/bpf").join(name));
        root.ensure()?;
        let generation = Generation::wanted(&root, sizes);
        let hooks = Hooks::load(generation.load()?)?.with_xdp(Xdp::Native)?;
        let store = KernelStore::open(&generation, Grace::new()?)?;
        let node = NodeTables::open(&generation)?;
        setns(namespace.open()?, CloneFlags::CLONE_NEWNET)?;
        let (filled, trials) = (MemoryTables::default(), HashMap::new());
        Ok(Self { namespace, home, root, generation, hooks, store, node, filled, trials, cgroups: None })
    }

    /// Makes the kernel's tables the same as these. What sockets are remembered by is left alone.
    ///
    /// # Errors
    /// The kernel's.
    pub fn fill(&mut self, tables: &MemoryTables) -> Result<()> {
        self.fill_services(tables)?;
        let rows = NodeRows {
            workloads: tables.workloads.clone(),
            netns: tables.netns.clone(),
            devices: tables.devices.clone(),
            config: tables.config.unwrap_or(Config::EMPTY),
        };
        let (put, pruned) = (self.node.put(&rows), self.node.prune(&rows));
        ensure!(put.is_empty() && pruned.is_empty(), "{put:?} {pruned:?}");
        fill_flows(&self.generation, tables)?;
        fill_policies(&self.generation, tables)?;
        fill_judged(&self.generation, tables)?;
        self.filled = tables.clone();
        Ok(())
    }

    fn fill_services(&mut self, tables: &MemoryTables) -> Result<()> {
        let (store, before) = (&mut self.store, &self.filled);
        for (index, backend) in &tables.backends {
            store.write_backends(*index, std::slice::from_ref(backend));
        }
        for set in before.sets.keys().filter(|set| !tables.sets.contains_key(set)) {
            store.swap_set(*set, SetWord::default());
        }
        for (set, word) in &tables.sets {
            store.swap_set(*set, *word);
        }
        for key in before.frontends.keys().filter(|key| !tables.frontends.contains_key(key)) {
            store.delete_frontend(key)?;
        }
        for (key, row) in tables.frontends.iter().filter(|(key, row)| before.frontends.get(key) != Some(row))
        {
            store.put_frontend(key, row)?;
        }
        for range in before.source_ranges.difference(&tables.source_ranges) {
            store.delete_source_range(range)?;
        }
        for range in tables.source_ranges.difference(&before.source_ranges) {
            store.put_source_range(range)?;
        }
        Ok(())
    }

    /// Makes what the programs themselves write the same as in these tables.
    ///
    /// # Errors
    /// The kernel's.
    pub fn fill_flows(&self, tables: &MemoryTables) -> Result<()> {
        fill_flows(&self.generation, tables)?;
        fill_judged(&self.generation, tables)
    }

    /// What the programs left in `flows`, `fragments`, `judged` and `judged_shares`, into these tables.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_flows(&self, tables: &MemoryTables) -> Result<()> {
        read_flows(&self.generation, tables)?;
        read_judged(&self.generation, tables)
    }

    /// What the programs counted so far.
    ///
    /// # Errors
    /// The kernel's.
    pub fn counters(&self) -> Result<HashMap<Counter, u64>> {
        let view = View::open(&self.root)?.context("the tables are gone")?;
        Ok(view.counters()?.into_iter().collect())
    }

    /// What they told of drops since this was last asked.
    ///
    /// # Errors
    /// The kernel's.
    pub fn drop_events(&self) -> Result<Vec<DropEvent>> {
        take_drop_events(&self.generation)
    }

    /// A packet after these programs, one after the other.
    ///
    /// # Errors
    /// The kernel's.
    pub fn run(&mut self, programs: &[Program], packet: &PacketIn<'_>) -> Result<PacketOut> {
        self.trial(programs)?.run(packet).with_context(|| format!("running {programs:?}"))
    }

    /// A packet that comes by this device, after the XDP program; the code is an `XDP_` action.
    ///
    /// # Errors
    /// The kernel's.
    pub fn run_at_xdp(&self, frame: &[u8], device: u32) -> Result<PacketOut> {
        run_at_xdp(&self.hooks, frame, device).context("running weir_xdp")
    }

    /// A program, or none, to be run many times on one packet: see [`Series::new`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn series(&self, program: Option<Program>, offset: u16, varies: bool) -> Result<Series> {
        Series::new(&self.hooks, program.map(Program::name), offset, varies)
    }

    /// The note that they leave for the next; they run for it, and change the tables again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn run_for_note(&mut self, programs: &[Program], packet: &PacketIn<'_>) -> Result<u32> {
        self.trial(programs)?.run_for_note(packet).with_context(|| format!("running {programs:?}"))
    }

    fn trial(&mut self, programs: &[Program]) -> Result<&Trial> {
        if !self.trials.contains_key(programs) {
            let names: Vec<&str> = programs.iter().map(|program| program.name()).collect();
            self.trials.insert(programs.to_vec(), Trial::new(&self.hooks, &names)?);
        }
        self.trials.get(programs).context("it was just made")
    }

    /// Everything that this device would send is lost.
    ///
    /// # Errors
    /// What `tc` said.
    pub fn ensure_silence(&self, device: &str) -> Result<()> {
        // A queue without room.
        let arguments =
            ["-n", self.namespace.name(), "qdisc", "replace", "dev", device, "root", "pfifo", "limit", "0"];
        let output =
            Command::new("tc").args(arguments).output().context("cannot run tc (package iproute2)")?;
        ensure!(output.status.success(), "tc: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// From here on the socket hooks see the sockets of this process.
    ///
    /// # Errors
    /// Of cgroups, and the kernel's.
    pub fn attach(&mut self) -> Result<()> {
        let mount = cgroup::ensure_root()?;
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::")).context("no cgroup2")?;
        let (home, here) = (mount.join(own.trim_start_matches('/')), mount.join(self.namespace.name()));
        cgroup::ensure(&here)?;
        self.cgroups = Some((home, here.clone()));
        self.hooks.attach(&self.root, &here)?;
        move_to(&here)
    }
}

fn move_to(cgroup: &Path) -> Result<()> {
    let process = std::process::id().to_string();
    fs::write(cgroup.join("cgroup.procs"), process).with_context(|| format!("going to {}", cgroup.display()))
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let mut problems = Vec::new();
        let mut note = |what: Result<()>| problems.extend(what.err());
        if let Some((home, _)) = &self.cgroups {
            note(move_to(home));
        }
        note(setns(&self.home, CloneFlags::CLONE_NEWNET).context("going home"));
        note(cleanup(&self.root).map(drop));
        note(netns::remove(self.namespace.name()));
        if let Some((_, here)) = &self.cgroups {
            // A thread that is just ending is not moved, and keeps the cgroup busy until it is gone.
            let patience = Instant::now() + PATIENCE;
            let mut removed = cgroup::remove(here);
            while removed.is_err() && Instant::now() < patience {
                sleep(Duration::from_millis(5));
                removed = cgroup::remove(here);
            }
            note(removed.with_context(|| format!("removing {}", here.display())));
        }
        for problem in problems {
            eprintln!("left behind: {problem:#}");
        }
    }
}

/// Far more than any case has, but for the flows.
pub const SIZES: Sizes = Sizes {
    frontends: 4096,
    services: 2048,
    backends: 8192,
    connections: 4096,
    datagrams: 256,
    affinity: 256,
    source_ranges: 256,
    flows: 64,
    address_classes: 64,
    network_classes: 64,
    verdicts: 64,
    port_rules: 64,
    judged: 64,
    drop_events: 64,
};
