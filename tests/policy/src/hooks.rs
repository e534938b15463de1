//! The same tables asked by packets at the hooks of pods: whether a flow passes in all, and its replies with it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use weir_agent::source::Protocol;
use weir_ebpf::abi::{Addr, BoundPod, Enforcement, PodPolicy};
use weir_ebpf::datapath::enforce::{PodHook, arrive_from_pod, leave_to_pod};
use weir_ebpf::datapath::packet::{Node, Verdict};
use weir_ebpf::testing::{FakeMoment, FakeNetwork, MemoryPolicy, MemoryTables, frame};
use weir_ebpf::wire::{TCP_ACK, TCP_SYN, parse};

use super::Flow;

/// A device that is no pod's.
const ELSEWHERE: u32 = 1;
const FIRST_POD: u32 = 100;
/// Of whoever begins a flow: no policy is about it.
const CLIENT: u16 = 40_000;

/// The hooks of a node whose pods have these policies, each behind a device of its own.
pub(super) struct Hooks {
    tables: MemoryTables,
    moment: FakeMoment,
    network: FakeNetwork,
    devices: BTreeMap<IpAddr, u32>,
}

impl Hooks {
    pub(super) fn new(policy: &MemoryPolicy) -> Self {
        let mut addresses: Vec<(IpAddr, PodPolicy)> =
            policy.pods.iter().map(|(addr, policy)| ((*addr).into(), *policy)).collect();
        addresses.sort_by_key(|(addr, _)| *addr);
        let mut tables = MemoryTables {
            policy: policy.clone(),
            enforcement: Enforcement::new(Enforcement::ON | Enforcement::HOLD_UNKNOWN, 1, u32::MAX),
            ..MemoryTables::default()
        };
        let (mut devices, none) = (BTreeMap::new(), Addr::from_words([0; 4]));
        for (device, (ip, policy)) in (FIRST_POD..).zip(addresses) {
            let addr = Addr::from(ip);
            let (v4, v6) = if ip.is_ipv4() { (addr, none) } else { (none, addr) };
            tables.pods.insert(device, BoundPod::new(v4, v6, policy, 0));
            devices.insert(ip, device);
        }
        Self { tables, moment: FakeMoment::default(), network: FakeNetwork::default(), devices }
    }

    /// Whether the first packet of a flow passes wherever it meets a pod of this node.
    ///
    /// # Panics
    /// It passes, and its reply does not.
    pub(super) fn pass(&self, flow: &Flow) -> bool {
        self.tables.judged.borrow_mut().clear();
        let passes = self.walk(&packet(flow, false), flow.source, flow.dest);
        let replies = self.walk(&packet(flow, true), flow.dest, flow.source);
        assert!(replies || !passes, "{flow} passes, and its reply does not");
        passes
    }

    fn walk(&self, bytes: &[u8], source: IpAddr, dest: IpAddr) -> bool {
        let node = Node { tables: &self.tables, moment: &self.moment, network: &self.network };
        let ether_type = frame::ether_type(bytes);
        let hook = |device, came_by| {
            let read = parse(bytes, u32::try_from(frame::ETHERNET).unwrap_or_default(), ether_type);
            PodHook { device, came_by, ether_type, read, bytes }
        };
        let (from, to) = (self.devices.get(&source), self.devices.get(&dest));
        let leaves = from.is_none_or(|device| passes(arrive_from_pod(&node, &hook(*device, *device))));
        let came_by = from.copied().unwrap_or(ELSEWHERE);
        leaves && to.is_none_or(|device| passes(leave_to_pod(&node, &hook(*device, came_by), false)))
    }
}

fn passes(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Pass => true,
        Verdict::Drop(_) => false,
        other => panic!("there is no Service, and {other:?}"),
    }
}

fn packet(flow: &Flow, is_reply: bool) -> Vec<u8> {
    let (client, server) = (SocketAddr::new(flow.source, CLIENT), SocketAddr::new(flow.dest, flow.port));
    let (src, dst) = if is_reply { (server, client) } else { (client, server) };
    match flow.protocol {
        Some(Protocol::Tcp) => frame::tcp(src, dst, if is_reply { TCP_SYN | TCP_ACK } else { TCP_SYN }, b""),
        Some(Protocol::Udp) => frame::udp(src, dst, b"hello"),
        Some(Protocol::Sctp) => frame::sctp(src, dst, b"chunks"),
        None => {
            let mut bytes = frame::echo_request(src.ip(), dst.ip(), b"hello");
            if is_reply {
                let (l4, kind) = if src.is_ipv4() { (20, 0) } else { (40, 129) };
                bytes[frame::ETHERNET + l4] = kind;
            }
            bytes
        }
    }
}
