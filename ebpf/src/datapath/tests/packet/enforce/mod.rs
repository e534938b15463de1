//! Policies in force, at the hooks: packets as they come, and what becomes of them.

mod cuts;
mod flows;
mod lifetime;
mod messages;
mod modes;
mod older;
mod sources;
mod ways;

use std::net::SocketAddr;

use super::{FIRST_POD, World, ip, translated};
use crate::abi::{Addr, BoundPod, Counter, DropReason, Enforcement, Peer, PodPolicy, PolicySetId, Port};
use crate::datapath::enforce::{PodHook, arrive_from_net, arrive_from_pod, leave_to_net, leave_to_pod};
use crate::datapath::packet::{Node, Onward, Verdict};
use crate::testing::{Allows, FakeMoment, FakeNetwork, GUARDED_PORT, MemoryTables, frame};
use crate::wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, parse};

const SYN: u8 = TCP_SYN;
const ACK: u8 = TCP_ACK;
const FIN: u8 = TCP_FIN;
const RST: u8 = TCP_RST;
const UPLINK: u32 = super::UPLINK;

/// The only TCP and UDP port that policies here know: the backends'.
const PORT: u16 = GUARDED_PORT;

const INGRESS: Verdict = Verdict::Drop(DropReason::PolicyIngress);
const EGRESS: Verdict = Verdict::Drop(DropReason::PolicyEgress);

impl World {
    /// Worlds in which policies are in force; the two pods of this node are known, and nothing isolates them.
    fn guarded() -> [Self; 2] {
        Self::both().map(|mut world| {
            world.tables.guard(100);
            for pod in 0..super::LOCAL {
                world.isolate(pod, Allows::Everything, Allows::Everything);
            }
            world
        })
    }

    /// What a pod of this node may get and send.
    fn isolate(&mut self, pod: u32, ingress: Allows, egress: Allows) {
        self.tables.isolate(FIRST_POD + pod, self.pod(pod).addr, ingress, egress);
    }

    /// What pods had goes on, on these sides ([`PodPolicy::KEEP_INGRESS`]).
    fn keep(&mut self, pod: u32, flags: u32) {
        self.tables.pods.get_mut(&(FIRST_POD + pod)).unwrap().policy.flags |= flags;
    }

    fn befriend(&mut self, peer: Peer) {
        self.tables.befriend(peer.addr);
    }

    /// Another generation, as when classes have changed.
    fn next_generation(&mut self) {
        self.tables.enforcement.generation += 1;
    }

    fn view(&self) -> Node<'_, MemoryTables, FakeMoment, FakeNetwork> {
        Node { tables: &self.tables, moment: &self.moment, network: &self.network }
    }

    /// A frame that a pod sends.
    fn sends(&self, pod: u32, frame: &[u8]) -> Verdict {
        arrive_from_pod(&self.view(), &hook(pod, FIRST_POD + pod, frame))
    }

    /// A frame at a pod's device; it came by another device, or (0) from the node itself.
    fn gets(&self, pod: u32, came_by: u32, frame: &[u8]) -> Verdict {
        leave_to_pod(&self.view(), &hook(pod, came_by, frame), false)
    }

    /// A frame from the world.
    fn arrives(&self, bytes: &[u8]) -> Verdict {
        let packet = parse(bytes, 14, frame::ether_type(bytes)).expect("a packet");
        arrive_from_net(&self.view(), UPLINK, &packet, bytes)
    }

    /// A frame that leaves the node; it came by a device, or (0) from the node itself.
    fn leaves(&self, came_by: u32, bytes: &[u8]) -> Verdict {
        let packet = parse(bytes, 14, frame::ether_type(bytes)).expect("a packet");
        leave_to_net(&self.view(), came_by, &packet, bytes)
    }

    fn judged(&self) -> usize {
        self.tables.judged.borrow().len()
    }

    fn counted(&self, counter: Counter) -> u64 {
        self.tables.counted(counter)
    }
}

/// Whether a packet is one of a connection that is over: its ends are told, and why.
fn cut(verdict: Verdict) -> Option<DropReason> {
    match verdict {
        Verdict::Cut(reason, _) => Some(reason),
        _ => None,
    }
}

fn hook(pod: u32, came_by: u32, bytes: &[u8]) -> PodHook<'_, [u8]> {
    let ether_type = u16::from_be_bytes([bytes[12], bytes[13]]);
    PodHook { device: FIRST_POD + pod, came_by, ether_type, read: parse(bytes, 14, ether_type), bytes }
}

fn tcp(src: Peer, dst: Peer, flags: u8) -> Vec<u8> {
    frame::tcp(SocketAddr::from(src), SocketAddr::from(dst), flags, b"")
}

fn udp(src: Peer, dst: Peer) -> Vec<u8> {
    frame::udp(SocketAddr::from(src), SocketAddr::from(dst), b"hello")
}

/// The same end with another port.
fn with_port(peer: Peer, port: u16) -> Peer {
    Peer { port: Port::new(port), ..peer }
}

/// Where a packet goes on past the stack into a pod, as the pod sees it: from and to.
fn delivered(verdict: Verdict) -> (Peer, Peer) {
    let translation = translated(verdict);
    assert!(matches!(translation.onward, Onward::Workload(_)), "{translation:?}");
    (translation.src, translation.dst)
}
