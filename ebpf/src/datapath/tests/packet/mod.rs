//! Translation per packet, on tables in memory.

mod ahead;
mod begin;
mod enforce;
mod fragments;
mod hop;
mod icmp;
mod life;
mod ways;

use std::net::{IpAddr, SocketAddr};

use super::{Family, SERVICE, families};
use crate::abi::{
    Addr, AddressUses, Backend, Config, Counter, Device, DropReason, Frontend, FrontendKey, FrontendKind,
    Netns, Origin, Peer, Port, Prefix, Protocol, Run, Scope, ServiceId, SetWord, Workload,
};
use crate::datapath::packet::{Answer, Node, Onward, Translation, Verdict, arrive, leave};
use crate::testing::{FakeMoment, FakeNetwork, MemoryTables, frame};
use crate::wire::parse;

/// The device that leads to other nodes and the world, and the first of those that lead to pods.
const UPLINK: u32 = 2;
const FIRST_POD: u32 = 100;

/// A node with two pods, another node's two pods, and a Service of all four at a ClusterIP, at a node port and at a load
/// balancer's address.
struct World {
    family: Family,
    tables: MemoryTables,
    moment: FakeMoment,
    network: FakeNetwork,
}

/// Backends that are on this node, and all.
const LOCAL: u32 = 2;
const ALL: u32 = 4;

impl World {
    fn new(family: Family) -> Self {
        let mut world = Self {
            family,
            tables: family.world(0, 0),
            moment: FakeMoment::default(),
            network: FakeNetwork::default(),
        };
        world.moment.seconds.set(1000);
        world.add_node();
        world.add_frontends();
        world.set_backends(0..ALL);
        world
    }

    /// Two worlds, one for each family.
    fn both() -> [Self; 2] {
        families().map(Self::new)
    }

    fn add_node(&mut self) {
        let own = self.node().addr;
        let device = Device {
            v4: own,
            v6: own,
            mac: [2, 0, 0, 0, 0, 9],
            flags: Device::NODE_FACING,
            mtu: 1500,
            netns: 0,
        };
        self.tables.devices.insert(UPLINK, device);
        for pod in 0..LOCAL {
            let (ifindex, addr) = (FIRST_POD + pod, self.pod(pod).addr);
            let workload = Workload { ifindex, mac: [2, 0, 0, 1, 0, 1], host_mac: [2, 0, 0, 1, 0, 2] };
            self.tables.workloads.insert(addr, workload);
            self.tables.devices.insert(ifindex, Device { flags: 0, ..device });
            self.tables.netns.insert(u64::from(pod), Netns { v4: addr, v6: addr, flags: 0 });
        }
        self.network.routes = vec![
            (Prefix::new(own, 128), None),
            (Prefix::new(self.vip().addr, 128), None),
            (Prefix::new(Addr::from_words([0; 4]), 0), Some(UPLINK)),
        ];
        self.tables.config =
            Some(Config { v4: own, v6: own, first_port: 20_000, ports: 1000, ..Config::EMPTY });
    }

    fn add_frontends(&mut self) {
        let whole = |addr: Peer, uses| (FrontendKey::whole_address(addr.addr), Frontend::whole_address(uses));
        let uses = AddressUses::NODE.and(AddressUses::NODE_PORTS);
        self.tables
            .frontends
            .extend([whole(self.node(), uses), whole(self.balancer(), AddressUses::EXTERNAL)]);
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            self.set_frontend(self.vip(), protocol, FrontendKind::ClusterIp, 0);
            self.set_frontend(self.balancer(), protocol, FrontendKind::LoadBalancer, Frontend::CONSISTENT);
            let wildcard = Peer { addr: self.node().addr.unspecified(), ..self.node() };
            self.set_frontend(wildcard, protocol, FrontendKind::NodePort, Frontend::CONSISTENT);
        }
    }

    fn set_frontend(&mut self, at: Peer, protocol: Protocol, kind: FrontendKind, flags: u8) {
        self.tables.frontends.insert(FrontendKey::new(at, protocol), Frontend::new(SERVICE, 0, kind, flags));
    }

    /// Gives the Service these of its backends: all of them in one set, those of this node in the other.
    fn set_backends(&mut self, pods: std::ops::Range<u32>) {
        let local: Vec<u32> = pods.clone().filter(|pod| *pod < LOCAL).collect();
        self.fill(SERVICE, Scope::Cluster, 1000, &pods.collect::<Vec<_>>(), DropReason::NoEndpoint);
        self.fill(SERVICE, Scope::Local, 2000, &local, DropReason::NoLocalEndpoint);
    }

    fn fill(&mut self, service: ServiceId, scope: Scope, offset: u32, pods: &[u32], when_empty: DropReason) {
        let flags = |pod: u32| if pod < LOCAL { Backend::LOCAL } else { 0 };
        let mut backends: Vec<Backend> =
            pods.iter().map(|pod| Backend::new(self.pod(*pod), flags(*pod))).collect();
        backends.sort_by(Backend::order);
        let len = u32::try_from(backends.len()).unwrap();
        let word = if len == 0 { SetWord::empty(when_empty) } else { SetWord::of(Run { offset, len }) };
        self.tables.sets.insert(service.set(scope), word);
        self.tables.backends.extend((offset..).zip(backends));
    }

    fn vip(&self) -> Peer {
        self.family.vip()
    }

    fn balancer(&self) -> Peer {
        self.family.peer(0x0a61_0001, 443)
    }

    /// The node's own address, and the node port.
    fn node(&self) -> Peer {
        self.family.peer(0x0a01_0001, 30080)
    }

    /// A pod and its port; the first two are on this node.
    fn pod(&self, index: u32) -> Peer {
        self.family.backend(index)
    }

    /// Somebody outside the cluster.
    fn client(&self, port: u16) -> Peer {
        self.family.peer(0x0b00_0001, port)
    }

    fn ask(&self, hook: Hook, frame: &[u8]) -> Verdict {
        let packet = parse(frame, 14, frame::ether_type(frame)).expect("a packet");
        let node = Node { tables: &self.tables, moment: &self.moment, network: &self.network };
        match hook {
            Hook::FromPod => arrive(&node, Origin::Inside, &packet, frame),
            Hook::FromNet => arrive(&node, Origin::Outside, &packet, frame),
            Hook::Last => leave(&node, &packet, frame),
        }
    }

    /// What a packet of that protocol becomes; a TCP segment has these flags.
    fn send(&self, hook: Hook, protocol: Protocol, flags: u8, src: Peer, dst: Peer) -> Verdict {
        let (src, dst) = (SocketAddr::from(src), SocketAddr::from(dst));
        match protocol {
            Protocol::Tcp => self.ask(hook, &frame::tcp(src, dst, flags, b"")),
            _ => self.ask(hook, &frame::udp(src, dst, b"hello")),
        }
    }

    /// How many rows the table of flows has.
    fn rows(&self) -> usize {
        self.tables.flows.borrow().len()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hook {
    FromPod,
    FromNet,
    Last,
}

fn translated(verdict: Verdict) -> Translation {
    match verdict {
        Verdict::Translate(translation) => translation,
        other => panic!("{other:?}"),
    }
}

fn ip(peer: Peer) -> IpAddr {
    peer.addr.into()
}
