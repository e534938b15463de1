//! The node that the cases are about: two pods here, two elsewhere, a Service of all four at a ClusterIP, a node port and a
//! load balancer's address.

use std::net::{IpAddr, SocketAddr};

use weir_agent::source::Family;
use weir_ebpf::abi::{
    Addr, AddressUses, Backend, Config, Device, DropReason, Flow, Form, Frontend, FrontendKey, FrontendKind,
    Peer, Port, Prefix, Protocol, Run, Scope, ServiceId, SetWord, Workload,
};
use weir_ebpf::testing::frame::RECEIVER;
use weir_ebpf::testing::{FakeMoment, FakeNetwork, MemoryTables};

use super::case::Who;
#[cfg(feature = "kernel")]
use super::kernel::{device, mac};

/// The device that leads to other nodes and the world.
pub const UPLINK: u32 = 2;
/// A device without Ethernet.
pub const TUNNEL: u32 = 3;
/// The first pod's device; the second's is the next.
pub const FIRST_POD: u32 = 100;
/// Backends that are on this node.
pub const LOCAL: u32 = 2;
/// All of them.
pub const ALL: u32 = 4;
/// Rows that `flows` has room for.
pub const FLOWS: u32 = 64;

const SERVICE: ServiceId = ServiceId(7);
const MAC: [u8; 6] = RECEIVER;
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 8];

/// A node of one family.
#[derive(Clone)]
pub struct Node {
    /// Its family.
    pub family: Family,
    /// Its tables.
    pub tables: MemoryTables,
    /// Its routes and sockets.
    pub network: FakeNetwork,
    /// Time and chance.
    pub moment: FakeMoment,
}

impl Node {
    /// With all four backends.
    #[must_use]
    pub fn new(family: Family) -> Self {
        let (tables, network) = (MemoryTables::default(), FakeNetwork::default());
        let mut node = Self { family, tables, network, moment: FakeMoment::default() };
        node.moment.seconds.set(1000);
        node.add_devices();
        node.add_frontends();
        node.set_backends(0, ALL);
        node
    }

    /// What `ip` is told to make the same of a network namespace.
    #[cfg(feature = "kernel")]
    #[must_use]
    pub fn commands() -> Vec<String> {
        let mut commands = [device("uplink", UPLINK), device("tunnel", TUNNEL)].concat();
        for pod in 0..LOCAL {
            commands.extend(device(&format!("pod{pod}"), FIRST_POD + pod));
        }
        for family in [Family::V4, Family::V6] {
            let own: IpAddr = address(family, 0x0a01_0001).into();
            let gateway: IpAddr = address(family, 0x0a01_00fe).into();
            let (bits, nodad, all) =
                if own.is_ipv4() { (24, "", "0.0.0.0/0") } else { (120, "nodad", "::/0") };
            let mac = mac(GATEWAY_MAC);
            commands.extend([
                format!("address add {own}/{bits} dev uplink {nodad}"),
                format!("neighbour add {gateway} lladdr {mac} nud permanent dev uplink"),
                format!("route add {all} via {gateway} dev uplink"),
            ]);
        }
        commands
    }

    /// The Ethernet addresses of what it sends by its default route: to and from.
    #[must_use]
    pub fn hop() -> [u8; 12] {
        weir_ebpf::act::ethernet::addresses(GATEWAY_MAC, MAC)
    }

    fn add_devices(&mut self) {
        let own = self.peer(Who::Node).addr;
        let uplink = Device { v4: own, v6: own, mac: MAC, flags: Device::NODE_FACING, mtu: 1500, netns: 0 };
        let tunnel = Device { flags: Device::NODE_FACING | Device::NO_ETHERNET, ..uplink };
        self.tables.devices.extend([(UPLINK, uplink), (TUNNEL, tunnel)]);
        for pod in 0..LOCAL {
            self.tables.workloads.insert(self.peer(Who::Pod(pod)).addr, workload(pod));
            self.tables.devices.insert(FIRST_POD + pod, Device { flags: 0, ..uplink });
        }
        let anywhere = Prefix::new(Addr::from_words([0; 4]), 0);
        self.network.routes = vec![(Prefix::new(own, 128), None), (anywhere, Some(UPLINK))];
        let network = Prefix::new(self.peer(Who::Vip).addr, 120);
        let service_networks = [network, Prefix::NONE, Prefix::NONE, Prefix::NONE];
        self.tables.config = Some(Config {
            service_networks,
            v4: own,
            v6: own,
            first_port: 20_000,
            ports: 1000,
            ..Config::EMPTY
        });
    }

    fn add_frontends(&mut self) {
        let node = AddressUses::NODE.and(AddressUses::NODE_PORTS);
        for (who, uses) in
            [(Who::Vip, AddressUses::CLUSTER_IP), (Who::Balancer, AddressUses::EXTERNAL), (Who::Node, node)]
        {
            let key = FrontendKey::whole_address(self.peer(who).addr);
            self.tables.frontends.insert(key, Frontend::whole_address(uses));
        }
        for (who, kind, flags) in [
            (Who::Vip, FrontendKind::ClusterIp, 0),
            (Who::Balancer, FrontendKind::LoadBalancer, Frontend::CONSISTENT),
            (Who::Node, FrontendKind::NodePort, Frontend::CONSISTENT),
        ] {
            self.set_frontend(who, kind, flags);
        }
    }

    /// Makes this a frontend of the Service for all protocols.
    pub fn set_frontend(&mut self, who: Who, kind: FrontendKind, flags: u8) {
        let mut at = self.peer(who);
        if kind == FrontendKind::NodePort {
            at.addr = at.addr.unspecified();
        }
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let row = Frontend::new(SERVICE, 0, kind, flags);
            self.tables.frontends.insert(FrontendKey::new(at, protocol), row);
        }
    }

    /// Gives the Service the backends from one to before another.
    pub fn set_backends(&mut self, first: u32, end: u32) {
        self.fill(Scope::Cluster, 1000, first..end, DropReason::NoEndpoint);
        self.fill(Scope::Local, 2000, first..end.min(LOCAL), DropReason::NoLocalEndpoint);
    }

    fn fill(&mut self, scope: Scope, offset: u32, pods: std::ops::Range<u32>, when_empty: DropReason) {
        let flags = |pod: u32| if pod < LOCAL { Backend::LOCAL } else { 0 };
        let mut backends: Vec<Backend> =
            pods.map(|pod| Backend::new(self.peer(Who::Pod(pod)), flags(pod))).collect();
        backends.sort_by(Backend::order);
        let word = match u32::try_from(backends.len()) {
            Ok(len @ 1..) => SetWord::of(Run { offset, len }),
            _ => SetWord::empty(when_empty),
        };
        self.tables.sets.insert(SERVICE.set(scope), word);
        self.tables.backends.extend((offset..).zip(backends));
    }

    /// Every flow goes through the stack.
    pub fn use_stack(&mut self) {
        self.set_config(|config| config.flags |= Config::NO_REDIRECT);
    }

    /// The device of a pod of this node takes packets of so many bytes.
    pub fn set_mtu(&mut self, pod: u32, mtu: u64) {
        if let Some(device) = self.tables.devices.get_mut(&(FIRST_POD + pod)) {
            device.mtu = mtu;
        }
    }

    /// The device that leads to the world has none of our programs.
    pub fn forget_uplink(&mut self) {
        self.tables.devices.remove(&UPLINK);
    }

    /// Changes the one row of the config table.
    pub fn set_config(&mut self, change: impl FnOnce(&mut Config)) {
        let mut config = self.tables.config.unwrap_or(Config::EMPTY);
        change(&mut config);
        self.tables.config = Some(config);
    }

    /// Takes all room that there is for flows.
    pub fn fill_flows(&mut self) {
        let mut flows = self.tables.flows.borrow_mut();
        let (dialled, backend) = (self.peer(Who::Vip), self.peer(Who::Pod(3)));
        for port in 1.. {
            if flows.len() >= FLOWS as usize {
                break;
            }
            let mut flow = Flow::new(self.peer(Who::Client(port)), dialled, backend, SERVICE, 1);
            let key = flow.set_form(Form::Dialled, Protocol::Tcp);
            flows.insert(key, flow);
        }
        self.tables.full.set(true);
    }

    /// Clients must be in this network of so many bits to use frontends that ask for it.
    pub fn add_source_range(&mut self, who: Who, bits: u32) {
        let range = weir_ebpf::abi::SourceRangeKey::range(SERVICE, self.peer(who).addr, bits);
        self.tables.source_ranges.insert(range);
    }

    /// A process of the node has this UDP port.
    pub fn add_socket(&mut self, who: Who) {
        self.network.sockets.insert((Protocol::Udp, self.peer(who)));
    }

    /// Who that is; [`Who::Source`] is for whoever saw a flow begin to know.
    #[must_use]
    pub fn peer(&self, who: Who) -> Peer {
        let (host, port) = match who {
            // At a device without Ethernet a run in the kernel takes the family from where an Ethernet header would have it.
            // There these addresses have the type of theirs.
            Who::Client(port) | Who::Between(port) => return self.client(port),
            Who::Vip => (0x0a60_0001, 80),
            Who::VipPort(port) => (0x0a60_0001, port),
            Who::Unallocated => (0x0a60_0063, 80),
            Who::Node | Who::Source => (0x0a01_0001, 30_080),
            Who::NodePort(port) => (0x0a01_0001, port),
            Who::Balancer => (0x0a61_0001, 443),
            Who::Pod(pod) => (0x0af4_0002 + pod, 8080),
            Who::PodPort(pod, port) => (0x0af4_0002 + pod, port),
            Who::Router => (0x0c00_0001, 0),
        };
        Peer { addr: address(self.family, host), port: Port::new(port) }
    }

    fn client(&self, port: u16) -> Peer {
        let addr = match self.family {
            Family::V4 => IpAddr::from([8, 0, 0, 1]),
            Family::V6 => IpAddr::from([0x2001, 0xdb8, 0x86dd, 0, 0, 0, 0, 1]),
        };
        SocketAddr::new(addr, port).into()
    }
}

/// Where a pod of this node is reached.
#[must_use]
pub const fn workload(pod: u32) -> Workload {
    let [number, ..] = pod.to_le_bytes();
    Workload { ifindex: FIRST_POD + pod, mac: [2, 0, 0, 1, number, 1], host_mac: [2, 0, 0, 1, number, 2] }
}

fn address(family: Family, host: u32) -> Addr {
    match family {
        Family::V4 => IpAddr::from(host.to_be_bytes()).into(),
        Family::V6 => {
            let [a, b, c, d] = host.to_be_bytes().map(u16::from);
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, a << 8 | b, c << 8 | d]).into()
        }
    }
}
