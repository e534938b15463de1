//! What a packet costs at the hooks of a pod, and that it does not depend on how many policies there are.
//!
//! Nanoseconds are instructions on a machine in software that counts them for a clock: `cargo xtask vm instructions`. There
//! the figures are judged; anywhere else they are only printed, and what is tested is that the packets that are measured are
//! let pass or dropped as they should be. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it is")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use weir_agent::tables::Sizes;
use weir_ebpf::abi::{Addr, BoundPod, Enforcement};
use weir_ebpf::testing::MemoryTables;
use weir_ebpf::testing::frame::{self, ETHERNET};
use weir_ebpf::wire::{TCP_ACK, TCP_SYN};
use weir_tests::packets::kernel::{DROPPED, Kernel, NEXT, Program, SIZES};
use weir_tests::packets::node::{FIRST_POD, Node, UPLINK};
use weir_tests::policy::scale::{PORT, SELECTORS, Sides, cluster};
use weir_tests::policy::{Node as Compiled, Placement};

/// How many policies there are, and how many pods.
const CLUSTERS: [(usize, usize); 4] = [(0, 1_100), (1, 1_100), (100, 1_100), (10_000, 10_000)];
/// Runs of each measurement: few enough for different ports, and many enough for the machine's own clock not to matter.
const RUNS: u32 = 4_000;
/// How much more the dearest may cost than the cheapest, in percent.
const FLAT: f64 = 5.0;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum What {
    /// Segments of a connection that was allowed.
    Established,
    /// Connections that are allowed, each from another port.
    New,
    /// Connections that are denied, likewise.
    Denied,
}

/// By figure: of each cluster, in order.
type Costs = BTreeMap<String, Vec<u32>>;

#[test]
fn a_packet_costs_the_same_whatever_the_number_of_policies() {
    let counts = fs::read_to_string("/proc/cmdline").unwrap().contains("weir.exact");
    let sizes = Sizes {
        address_classes: 65_536,
        verdicts: 16_384,
        port_rules: 1_024,
        network_classes: 1_024,
        judged: 65_536,
        ..SIZES
    };
    let mut kernel = Kernel::with_sizes("costs", &Node::commands(), sizes).unwrap();
    let mut costs = Costs::new();
    for (policies, pods) in CLUSTERS {
        let mut node = Compiled::new(Placement::Named("here".into()));
        node.sync(&cluster(pods, policies, Sides::Both));
        for v6 in [false, true] {
            measure(&mut kernel, &node, policies, v6, &mut costs);
        }
    }
    let mut uneven = Vec::new();
    let unit = if counts { "instructions" } else { "nanoseconds" };
    for (figure, values) in &costs {
        for ((policies, _), value) in CLUSTERS.iter().rev().zip(values.iter().rev()).rev() {
            println!("figure policies.{unit}.{figure}@{policies} {value}");
        }
        // Without policies nobody asks anything, and nothing is denied. Who is denied has a class where there are many, since
        // some policy asks for its app, and none where there is but one: so one more row is looked up.
        let alike = if figure.contains("denied") { 2 } else { 3 };
        let asked = &values[values.len() - alike..];
        let (least, most) = (*asked.iter().min().unwrap(), *asked.iter().max().unwrap());
        let more = 100.0 * (f64::from(most) / f64::from(least) - 1.0);
        println!("figure policies.{unit}.{figure}.spread-percent {more:.1}");
        if counts && more > FLAT {
            uneven.push(format!("{figure}: {asked:?}"));
        }
    }
    assert!(uneven.is_empty(), "{uneven:#?}");
}

/// At both hooks of the first pod of the cluster.
fn measure(kernel: &mut Kernel, node: &Compiled, policies: usize, v6: bool, costs: &mut Costs) {
    let address = |n: usize| -> IpAddr {
        let host = u16::try_from(n + 1).unwrap();
        let [high, low] = host.to_be_bytes();
        if v6 { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host]) } else { IpAddr::from([10, 0, high, low]) }
    };
    // The first policy is for its namespace, and allows the pods of its own app; of another app is the next.
    let (pod, friend, stranger) = (address(0), address(SELECTORS), address(SELECTORS + 1));
    let mut tables = MemoryTables { policy: node.tables.clone(), ..Node::new(family(v6)).tables };
    let none = Addr::from_words([0; 4]);
    let (v4_own, v6_own) = if v6 { (none, pod.into()) } else { (pod.into(), none) };
    let policy = node.tables.pods.get(&pod.into()).copied();
    if let Some(policy) = policy {
        assert_eq!(policy.is_open(), policies == 0);
        tables.pods.insert(FIRST_POD, BoundPod::new(v4_own, v6_own, policy, 0));
    }
    let flags = if policies == 0 { 0 } else { Enforcement::ON | Enforcement::HOLD_UNKNOWN };
    tables.enforcement = Enforcement::new(flags, 1, u32::MAX);
    kernel.fill(&tables).unwrap();
    for program in [Program::FromPod, Program::ToPod] {
        for what in [What::Established, What::New, What::Denied] {
            if policies == 0 && what == What::Denied {
                continue;
            }
            kernel.fill_flows(&tables).unwrap();
            let peer = if what == What::Denied { stranger } else { friend };
            let cost = cost(kernel, program, what, pod, peer);
            let family = if v6 { "v6" } else { "v4" };
            let hook = if program == Program::FromPod { "from-pod" } else { "to-pod" };
            let figure = format!("{hook}.{what:?}.{family}").to_lowercase();
            costs.entry(figure).or_default().push(cost);
        }
    }
}

fn family(v6: bool) -> weir_agent::source::Family {
    if v6 { weir_agent::source::Family::V6 } else { weir_agent::source::Family::V4 }
}

/// What a run takes, less what changes the port.
fn cost(kernel: &Kernel, program: Program, what: What, pod: IpAddr, peer: IpAddr) -> u32 {
    let (src, dst) = if program == Program::FromPod { (pod, peer) } else { (peer, pod) };
    let flags = if what == What::Established { TCP_ACK } else { TCP_SYN };
    let frame =
        |flags| frame::tcp(SocketAddr::new(src, 0x4000), SocketAddr::new(dst, PORT), flags, b"payload");
    let offset = u16::try_from(ETHERNET + if src.is_ipv4() { 20 } else { 40 }).unwrap();
    let came_by = if program == Program::FromPod { FIRST_POD } else { UPLINK };
    let run = |program, frame: &[u8], varies, times| {
        let packet =
            weir_agent::kernel::PacketIn { frame, ifindex: FIRST_POD, came_by, note: 0, segment_size: 0 };
        kernel.series(program, offset, varies).unwrap().run(&packet, times).unwrap()
    };
    let varies = what != What::Established;
    if !varies {
        assert_eq!(run(Some(program), &frame(TCP_SYN), false, 1).0, NEXT, "{program:?}: it begins");
    }
    let frame = frame(flags);
    let (code, all) = run(Some(program), &frame, varies, RUNS);
    assert_eq!(code, if what == What::Denied { DROPPED } else { NEXT }, "{program:?} {what:?}");
    let (_, own) = run(None, &frame, varies, RUNS);
    all.saturating_sub(own)
}
