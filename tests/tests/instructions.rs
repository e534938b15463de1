//! What a packet costs at the hooks of a pod, and that it does not depend on how many policies there are.
//!
//! Nanoseconds are instructions on a machine in software that counts them for a clock: `cargo xtask vm instructions`. There
//! the figures are judged; anywhere else they are only printed, and what is tested is that the packets that are measured are
//! let pass or dropped as they should be. Needs root.
//!
//! Two things besides policies change what a packet costs. A look-up depends on what else is in its hash table's bucket: so
//! each figure is a mean over [`PEERS`] other ends with [`PORTS`] ports each, the same ends however many policies there are. And
//! the kernel fetches the memory of rows in advance, and gives that of removed ones back later: so each is measured the second
//! time, and after a pause.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it is")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use weir_agent::kernel::{PacketIn, Series};
use weir_agent::source::Family;
use weir_agent::tables::Sizes;
use weir_ebpf::abi::{Addr, BoundPod, Enforcement};
use weir_ebpf::testing::MemoryTables;
use weir_ebpf::testing::frame::{self, ETHERNET};
use weir_ebpf::wire::{TCP_ACK, TCP_SYN};
use weir_policy::scale::{PORT, Sides, add_pods, add_policies_of_networks, between, cluster};
use weir_policy::{Node as Compiled, Placement};
use weir_tests::packets::kernel::{DROPPED, Kernel, NEXT, Program, SIZES};
use weir_tests::packets::node::{FIRST_POD, Node, UPLINK};

/// What there is: so many policies and pods, besides those that are the other ends.
const CLUSTERS: [Size; 5] = [
    Size { policies: 0, pods: 1_000, networks: false },
    Size { policies: 1, pods: 1_000, networks: false },
    Size { policies: 100, pods: 1_000, networks: false },
    Size { policies: 10_000, pods: 10_000, networks: false },
    Size { policies: 10_000, pods: 1_000, networks: true },
];
/// Other ends.
const PEERS: usize = 256;
/// Ports of each.
const PORTS: u32 = 16;
/// How much more the dearest mean may be than the cheapest, in percent.
const FLAT: f64 = 5.0;
/// In this time the memory of removed rows is given back, and of a pod so many drops may be told again as there are ports.
const PAUSE: Duration = Duration::from_secs(2);
/// Numbers of pods: the one that is measured, those that its first policy allows, and those that another pod's does.
const POD: usize = 0;
const FRIENDS: usize = 20_000;
const STRANGERS: usize = 30_000;

/// A cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Size {
    policies: usize,
    pods: usize,
    /// Whether each policy also allows a network at a port of its own.
    networks: bool,
}

impl Size {
    fn compile(self) -> Compiled {
        let mut cluster = cluster(self.pods, self.policies, Sides::Both);
        add_pods(&mut cluster, FRIENDS..FRIENDS + PEERS, 0);
        add_pods(&mut cluster, STRANGERS..STRANGERS + PEERS, 1);
        if self.networks {
            add_policies_of_networks(&mut cluster, self.policies);
        }
        let mut node = Compiled::new(Placement::Named("here".into()));
        node.sync(&cluster);
        node
    }

    fn name(self) -> String {
        format!("{}{}", self.policies, if self.networks { "-networks" } else { "" })
    }
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    /// Segments of connections that were allowed.
    Established,
    /// Connections that are allowed, each from another port.
    New,
    /// Connections that are denied, likewise, of somebody whom no policy asks for; there are too many to tell of.
    Denied,
    /// The same of pods that are in another policy's selector.
    DeniedPod,
    /// As the former, and each is told.
    Told,
}

impl What {
    const ALL: [Self; 5] = [Self::Established, Self::New, Self::Denied, Self::DeniedPod, Self::Told];

    const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::New => "new",
            Self::Denied => "denied",
            Self::DeniedPod => "denied-pod",
            Self::Told => "denied-told",
        }
    }

    /// Whether there is such a packet under so many policies: without any nothing is denied, and the second is what asks for
    /// another app.
    const fn is_under(self, policies: usize) -> bool {
        match self {
            Self::Established | Self::New => true,
            Self::Denied | Self::Told => policies > 0,
            Self::DeniedPod => policies > 1,
        }
    }

    const fn code(self) -> i32 {
        match self {
            Self::Established | Self::New => NEXT,
            Self::Denied | Self::DeniedPod | Self::Told => DROPPED,
        }
    }

    const fn peers(self) -> usize {
        // For each there is a pause.
        if matches!(self, Self::Told) { 12 } else { PEERS }
    }

    fn peer(self, v6: bool, n: usize) -> IpAddr {
        match self {
            Self::Established | Self::New => pod(v6, FRIENDS + n),
            Self::DeniedPod => pod(v6, STRANGERS + n),
            Self::Denied | Self::Told => {
                let (v4_addr, v6_addr) = between(2 * n);
                if v6 { v6_addr.into() } else { v4_addr.into() }
            }
        }
    }
}

/// Whether this machine's nanoseconds are instructions.
fn counts() -> bool {
    fs::read_to_string("/proc/cmdline").unwrap().contains("weir.exact")
}

/// Where nothing is counted nobody waits, and fewer drops are told.
fn pause() {
    if counts() {
        sleep(PAUSE);
    }
}

/// The address of the pod of this number.
fn pod(v6: bool, n: usize) -> IpAddr {
    let host = u16::try_from(n + 1).unwrap();
    let [high, low] = host.to_be_bytes();
    if v6 { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host]) } else { IpAddr::from([10, 0, high, low]) }
}

/// What a kind of packet costs at one hook.
struct Figure {
    name: String,
    /// Whether its packets pass by what was remembered of their flow.
    is_known: bool,
    costs: Vec<Cost>,
}

/// The same in one cluster.
struct Cost {
    size: Size,
    mean: f64,
    /// Between these are nine tenths of the other ends.
    most: [u32; 2],
}

impl Cost {
    fn of(size: Size, mut costs: Vec<u32>) -> Self {
        costs.sort_unstable();
        let (few, count) = (costs.len() / 20, u32::try_from(costs.len()).unwrap());
        let mean = costs.iter().copied().map(f64::from).sum::<f64>() / f64::from(count);
        Self { size, mean, most: [costs[few], costs[costs.len() - 1 - few]] }
    }
}

impl Figure {
    /// Prints it. What is wrong, if it is not flat.
    fn judge(&self, unit: &str) -> Option<String> {
        let Self { name, is_known, costs } = self;
        for Cost { size, mean, most: [low, high] } in costs {
            println!("figure policies.{unit}.{name}@{} {mean:.0}", size.name());
            println!("{name}@{}: nine tenths from {low} to {high}", size.name());
        }
        // Without policies nobody asks anything. Networks and ports are looked up in tries, whose depth grows with their number.
        let is_like = |cost: &&Cost| cost.size.policies > 0 && (*is_known || !cost.size.networks);
        let means: Vec<f64> = costs.iter().filter(is_like).map(|cost| cost.mean).collect();
        let least = means.iter().copied().fold(f64::MAX, f64::min);
        let most = means.iter().copied().fold(0.0, f64::max);
        let more = 100.0 * (most / least - 1.0);
        println!("figure policies.{unit}.{name}.apart-percent {more:.1}");
        (more > FLAT).then(|| format!("{name}: {means:.0?}"))
    }
}

#[test]
fn a_packet_costs_the_same_whatever_the_number_of_policies() {
    let sizes = Sizes {
        address_classes: 65_536,
        verdicts: 16_384,
        port_rules: 4_096,
        network_classes: 4_096,
        judged: 65_536,
        ..SIZES
    };
    let mut kernel = Kernel::with_sizes("costs", &Node::commands(), sizes).unwrap();
    let mut figures: BTreeMap<String, Figure> = BTreeMap::new();
    for size in CLUSTERS {
        let node = size.compile();
        println!("{size:?}: {:?}", node.sizes());
        for v6 in [false, true] {
            measure(&mut kernel, &node, size, v6, &mut figures);
        }
    }
    let unit = if counts() { "instructions" } else { "nanoseconds" };
    let uneven: Vec<String> = figures.values().filter_map(|figure| figure.judge(unit)).collect();
    assert!(!counts() || uneven.is_empty(), "{uneven:#?}");
}

/// At both hooks of the first pod of the cluster.
fn measure(
    kernel: &mut Kernel,
    node: &Compiled,
    size: Size,
    v6: bool,
    figures: &mut BTreeMap<String, Figure>,
) {
    let (own, none) = (pod(v6, POD).into(), Addr::from_words([0; 4]));
    let family = if v6 { Family::V6 } else { Family::V4 };
    let mut tables = MemoryTables { policy: node.tables.clone(), ..Node::new(family).tables };
    let (v4_own, v6_own) = if v6 { (none, own) } else { (own, none) };
    if let Some(policy) = node.tables.pods.get(&own).copied() {
        assert_eq!(policy.is_open(), size.policies == 0);
        tables.pods.insert(FIRST_POD, BoundPod::new(v4_own, v6_own, policy, 0));
    }
    let flags = if size.policies == 0 { 0 } else { Enforcement::ON | Enforcement::HOLD_UNKNOWN };
    tables.enforcement = Enforcement::new(flags, 1, u32::MAX);
    kernel.fill(&tables).unwrap();
    for program in [Program::FromPod, Program::ToPod] {
        for what in What::ALL.into_iter().filter(|what| what.is_under(size.policies)) {
            let bench = Bench::new(kernel, program, what, v6);
            let forget = || {
                kernel.fill_flows(&tables).unwrap();
                pause();
            };
            if what == What::New {
                bench.costs();
                forget();
            }
            let cost = Cost::of(size, bench.costs());
            forget();
            let name = bench.name();
            let is_known = what == What::Established;
            let figure =
                figures.entry(name.clone()).or_insert_with(|| Figure { name, is_known, costs: Vec::new() });
            figure.costs.push(cost);
        }
    }
}

/// Packets of one kind at one hook.
struct Bench {
    program: Program,
    what: What,
    v6: bool,
    hook: Series,
    /// The same without the hook.
    none: Series,
}

impl Bench {
    fn new(kernel: &Kernel, program: Program, what: What, v6: bool) -> Self {
        let offset = u16::try_from(ETHERNET + if v6 { 40 } else { 20 }).unwrap();
        let series = |program| kernel.series(program, offset, what != What::Established).unwrap();
        Self { program, what, v6, hook: series(Some(program)), none: series(None) }
    }

    fn name(&self) -> String {
        let hook = if self.program == Program::FromPod { "from-pod" } else { "to-pod" };
        format!("{hook}.{}.{}", self.what.name(), if self.v6 { "v6" } else { "v4" })
    }

    /// What a run takes, of each of the other ends, less what changes the port.
    fn costs(&self) -> Vec<u32> {
        let flags = if self.what == What::Established { TCP_ACK } else { TCP_SYN };
        let (_, own) = self.run(&self.none, &self.frame(0, flags), 4_096);
        match self.what {
            What::Established => (0..PEERS).for_each(|n| {
                assert_eq!(self.run(&self.hook, &self.frame(n, TCP_SYN), 1).0, NEXT, "it begins");
            }),
            // Until nothing is told any more.
            What::Denied | What::DeniedPod => {
                assert_eq!(self.run(&self.hook, &self.frame(0, flags), 64).0, DROPPED);
            }
            What::New | What::Told => {}
        }
        let cost = |n| {
            if self.what == What::Told {
                pause();
            }
            let (code, cost) = self.run(&self.hook, &self.frame(n, flags), PORTS);
            assert_eq!(code, self.what.code(), "{:?} {:?}", self.program, self.what);
            cost.saturating_sub(own)
        };
        (0..self.what.peers()).map(cost).collect()
    }

    fn run(&self, series: &Series, frame: &[u8], times: u32) -> (i32, u32) {
        let came_by = if self.program == Program::FromPod { FIRST_POD } else { UPLINK };
        let packet = PacketIn { frame, ifindex: FIRST_POD, came_by, note: 0, segment_size: 0 };
        series.run(&packet, times).unwrap()
    }

    fn frame(&self, n: usize, flags: u8) -> Vec<u8> {
        let (pod, peer) = (pod(self.v6, POD), self.what.peer(self.v6, n));
        let (src, dst) = if self.program == Program::FromPod { (pod, peer) } else { (peer, pod) };
        frame::tcp(SocketAddr::new(src, 0x4000), SocketAddr::new(dst, PORT), flags, b"payload")
    }
}
