//! A small node in a small cluster, from a fuzzer's bytes.

mod flow;

use arbitrary::Arbitrary;
use weir_ebpf::abi::{
    Addr, AddressUses, Backend, Config, Device, DropReason, Frontend, FrontendKey, FrontendKind, Netns, Peer,
    Prefix, Protocol, Run, Scope, ServiceId, SetWord, SourceRangeKey, Workload,
};
use weir_ebpf::testing::{FakeMoment, FakeNetwork, MemoryTables};

use self::flow::FlowSeed;
use crate::pool::{End, FIRST_PORT, Place, PortSeed, Transport};

/// Rows of the table of backends: [`SLOT`] for each set.
const BACKENDS: u32 = SERVICES * 4 * SLOT;
const SERVICES: u32 = 3;
const SLOT: u32 = 8;
/// The most of anything that a world has any number of.
const MANY: usize = 8;

pub(crate) const UPLINK: u32 = 2;
pub(crate) const FIRST_POD: u32 = 100;

/// Cookies of the network namespaces: the host's, and those of the two pods.
pub(crate) const HOST_NETNS: u64 = 1;
pub(crate) const POD_NETNS: u64 = 2;

/// All that a node knows.
#[derive(Arbitrary, Clone, Debug)]
pub(crate) struct WorldSeed {
    services: [Service; SERVICES as usize],
    /// What else addresses are used for, or are not.
    uses: Vec<(Place, u8)>,
    ranges: Vec<Range>,
    config: ConfigSeed,
    uplink: DeviceSeed,
    pods: [DeviceSeed; 2],
    /// A bit for each kind of address that the node does not forward to.
    no_route: u8,
    sockets: Vec<(Transport, End, bool)>,
    flows: Vec<FlowSeed>,
    /// Of the namespaces, in order.
    netns: [u8; 3],
    seconds: u16,
    chance: u64,
}

#[derive(Arbitrary, Clone, Debug)]
struct Service {
    frontends: Vec<FrontendSeed>,
    affinity_s: u8,
    sets: [SetSeed; 2],
}

#[derive(Arbitrary, Clone, Debug)]
struct FrontendSeed {
    kind: Kind,
    /// Where not what the kind has.
    elsewhere: Option<Place>,
    port: PortSeed,
    protocol: Transport,
    flags: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    Cluster(bool),
    NodePort,
    Balancer,
    External,
}

/// The row of `backends` that stands at an index: after the rows proper, a run as long as a word can say for each set,
/// which repeats what the set has.
pub(crate) const fn backend_row(index: u32) -> u32 {
    match index.checked_sub(BACKENDS) {
        Some(beyond) => (beyond / (Run::MAX_LEN + 1)) * SLOT + beyond % SLOT,
        None => index,
    }
}

/// What a set has.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum SetSeed {
    Empty,
    EmptyHere,
    Never,
    /// A bit for each of eight addresses.
    Of(u8, PortSeed),
    /// As many as a word can say.
    Longest,
}

#[derive(Arbitrary, Clone, Debug)]
struct Range {
    service: u8,
    at: Place,
    bits: u8,
}

#[derive(Arbitrary, Clone, Debug)]
struct ConfigSeed {
    ports: Ports,
    flags: u8,
    without_v4: bool,
    without_v6: bool,
    networks: bool,
}

#[derive(Arbitrary, Clone, Debug)]
enum Ports {
    Default,
    Few(u8),
    Any(u16, u16),
}

#[derive(Arbitrary, Clone, Debug)]
struct DeviceSeed {
    missing: bool,
    flags: u8,
    small: bool,
    without_address: bool,
}

/// A node that packets and sockets can ask.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// As many rows of `flows` as there is room for.
    pub(crate) room: usize,
    pub(crate) tables: MemoryTables,
    pub(crate) network: FakeNetwork,
    pub(crate) moment: FakeMoment,
}

impl WorldSeed {
    pub(crate) fn build(&self) -> World {
        let mut world = World {
            room: usize::MAX,
            tables: MemoryTables::default(),
            network: FakeNetwork::default(),
            moment: FakeMoment::default(),
        };
        world.moment.seconds.set(u32::from(self.seconds));
        world.moment.seed.set(self.chance);
        for v6 in [false, true] {
            self.add_frontends(&mut world.tables, v6);
            self.add_ways(&mut world, v6);
        }
        for (service, seed) in (0..).zip(&self.services) {
            for (scope, set) in [Scope::Cluster, Scope::Local].into_iter().zip(&seed.sets) {
                world.set_backends(service, scope, *set);
            }
        }
        self.add_devices(&mut world.tables);
        world.tables.config = Some(self.config.build());
        for flow in self.flows.iter().take(MANY) {
            flow.enter(&world.tables);
        }
        world
    }

    fn add_frontends(&self, tables: &mut MemoryTables, v6: bool) {
        use_address(tables, Place::Node, v6, AddressUses::NODE.and(AddressUses::NODE_PORTS));
        use_address(tables, Place::SecondNode, v6, AddressUses::NODE);
        use_address(tables, Place::Loopback, v6, AddressUses::LOOPBACK.and(AddressUses::NODE_PORTS));
        for (service, seed) in (0..).zip(&self.services) {
            for frontend in seed.frontends.iter().take(MANY) {
                frontend.add(tables, service_id(service, v6), u32::from(seed.affinity_s), v6);
            }
        }
        for (at, uses) in self.uses.iter().take(MANY) {
            let row = Frontend::whole_address(AddressUses(*uses & 31));
            tables.frontends.insert(FrontendKey::whole_address(at.addr(v6)), row);
        }
        for range in self.ranges.iter().take(MANY) {
            let service = service_id(u32::from(range.service) % SERVICES, v6);
            let bits = if v6 { u32::from(range.bits % 129) } else { 96 + u32::from(range.bits % 33) };
            tables.source_ranges.insert(SourceRangeKey::range(service, range.at.addr(v6), bits));
        }
    }

    fn add_ways(&self, world: &mut World, v6: bool) {
        let own = [Place::Node, Place::SecondNode, Place::Loopback, Place::Unspecified];
        let mut unreachable = own.to_vec();
        let others = [
            Place::RemotePod(false),
            Place::RemotePod(true),
            Place::OtherNode,
            Place::Client(false),
            Place::Client(true),
            Place::LocalPod(false),
            Place::LocalPod(true),
            Place::Cluster(false),
        ];
        unreachable
            .extend((0..).zip(others).filter(|(bit, _)| self.no_route >> bit & 1 != 0).map(|(_, at)| at));
        let none = unreachable.into_iter().map(|at| (Prefix::new(at.addr(v6), 128), None));
        world.network.routes.extend(none);
        let everything = Prefix::new(Place::Unspecified.addr(v6), if v6 { 0 } else { 96 });
        world.network.routes.push((everything, Some(UPLINK)));
        let sockets = self.sockets.iter().take(MANY).filter(|socket| socket.2 == v6);
        world.network.sockets.extend(sockets.map(|(protocol, at, _)| (protocol.protocol(), at.peer(v6))));
    }

    fn add_devices(&self, tables: &mut MemoryTables) {
        let seeds = [(UPLINK, &self.uplink), (FIRST_POD, &self.pods[0]), (FIRST_POD + 1, &self.pods[1])];
        for (ifindex, seed) in seeds {
            if !seed.missing {
                tables.devices.insert(ifindex, seed.build(ifindex == UPLINK));
            }
        }
        for (ifindex, second) in [(FIRST_POD, false), (FIRST_POD + 1, true)] {
            for v6 in [false, true] {
                let workload = Workload { ifindex, mac: [2, 0, 0, 1, 0, 1], host_mac: [2, 0, 0, 1, 0, 2] };
                tables.workloads.insert(Place::LocalPod(second).addr(v6), workload);
            }
        }
        let places = [Place::Node, Place::LocalPod(false), Place::LocalPod(true)];
        for (cookie, (at, bits)) in (HOST_NETNS..).zip(places.into_iter().zip(self.netns)) {
            let host = if cookie == HOST_NETNS { Netns::HOST } else { 0 };
            let flags = host | u64::from(bits) & Netns::NO_SOCKET_TRANSLATION;
            let without = |v6: bool| bits >> (4 + u8::from(v6)) & 1 != 0;
            let addr = |v6| if without(v6) { Addr::default() } else { at.addr(v6) };
            if bits & 128 == 0 {
                tables.netns.insert(cookie, Netns { v4: addr(false), v6: addr(true), flags });
            }
        }
    }
}

fn service_id(service: u32, v6: bool) -> ServiceId {
    ServiceId(service * 2 + u32::from(v6))
}

fn use_address(tables: &mut MemoryTables, at: Place, v6: bool, uses: AddressUses) {
    let key = FrontendKey::whole_address(at.addr(v6));
    let before = tables.frontends.get(&key).map(Frontend::uses).unwrap_or_default();
    tables.frontends.insert(key, Frontend::whole_address(before.and(uses)));
}

impl FrontendSeed {
    fn add(&self, tables: &mut MemoryTables, service: ServiceId, affinity_s: u32, v6: bool) {
        let (kind, at, uses) = match self.kind {
            Kind::Cluster(second) => {
                (FrontendKind::ClusterIp, Place::Cluster(second), AddressUses::CLUSTER_IP)
            }
            Kind::NodePort => (FrontendKind::NodePort, Place::Unspecified, AddressUses(0)),
            Kind::Balancer => (FrontendKind::LoadBalancer, Place::Balancer, AddressUses::EXTERNAL),
            Kind::External => (FrontendKind::ExternalIp, Place::External, AddressUses::EXTERNAL),
        };
        let at = self.elsewhere.unwrap_or(at);
        let key = FrontendKey::new(End { at, port: self.port }.peer(v6), self.protocol.protocol());
        tables.frontends.insert(key, Frontend::new(service, affinity_s, kind, self.flags & 31));
        if !uses.is_empty() {
            use_address(tables, at, v6, uses);
        }
    }
}

impl ConfigSeed {
    fn build(&self) -> Config {
        let (first_port, ports) = match self.ports {
            Ports::Default => (FIRST_PORT, 13_616),
            Ports::Few(ports) => (FIRST_PORT, u16::from(ports)),
            Ports::Any(first, ports) => (first, ports),
        };
        let own = |v6, without: bool| if without { Default::default() } else { Place::Node.addr(v6) };
        let mut config = Config {
            v4: own(false, self.without_v4),
            v6: own(true, self.without_v6),
            first_port,
            ports,
            flags: u32::from(self.flags & 15),
            ..Config::EMPTY
        };
        if self.networks {
            config.service_networks[0] = Prefix::new(Place::Unallocated.addr(false), 96 + 16);
            config.service_networks[1] = Prefix::new(Place::Unallocated.addr(true), 112);
        }
        config
    }
}

impl DeviceSeed {
    fn build(&self, uplink: bool) -> Device {
        let own = |v6| if self.without_address { Default::default() } else { Place::SecondNode.addr(v6) };
        let facing = if uplink { Device::NODE_FACING } else { 0 };
        Device {
            v4: own(false),
            v6: own(true),
            mac: [2, 0, 0, 0, 0, 9],
            flags: facing | u16::from(self.flags) & Device::NO_ETHERNET,
            mtu: if self.small { 1400 } else { 1500 },
            netns: 0,
        }
    }
}

impl World {
    /// Gives a Service, in both families, other backends.
    pub(crate) fn set_backends(&mut self, service: u32, scope: Scope, set: SetSeed) {
        for v6 in [false, true] {
            let id = service_id(service % SERVICES, v6).set(scope);
            let offset = id.0 * SLOT;
            let backends = set.backends(v6);
            let len = u32::try_from(backends.len()).expect("a few");
            let word = match set {
                SetSeed::Longest => {
                    SetWord::of(Run { offset: BACKENDS + id.0 * (Run::MAX_LEN + 1), len: Run::MAX_LEN })
                }
                SetSeed::Never => SetWord::default(),
                SetSeed::EmptyHere => SetWord::empty(DropReason::NoLocalEndpoint),
                _ if len == 0 => SetWord::empty(DropReason::NoEndpoint),
                _ => SetWord::of(Run { offset, len }),
            };
            self.tables.sets.insert(id, word);
            self.tables.backends.extend((offset..).zip(backends));
        }
    }

    /// Whether the Service's set has the backend.
    pub(crate) fn set_has(&self, service: ServiceId, scope: Scope, backend: Peer) -> bool {
        let word = self.tables.sets.get(&service.set(scope)).copied().unwrap_or_default();
        let Ok(Run { offset, len }) = word.run() else { return false };
        (offset..offset + len.min(SLOT))
            .filter_map(|index| self.tables.backends.get(&backend_row(index)))
            .any(|row| row.peer() == backend)
    }

    /// What somebody who dials this gets: the row under the address itself, or a node port's.
    pub(crate) fn frontend(&self, dialled: Peer, protocol: Protocol) -> Option<Frontend> {
        let node_port = Peer { addr: dialled.addr.unspecified(), port: dialled.port };
        let row = |peer| self.tables.frontends.get(&FrontendKey::new(peer, protocol)).copied();
        row(dialled).or_else(|| row(node_port))
    }
}

impl SetSeed {
    fn backends(self, v6: bool) -> Vec<Backend> {
        let (bits, port) = match self {
            Self::Of(bits, port) => (bits, port),
            Self::Longest => (u8::MAX, PortSeed::Backend),
            Self::Empty | Self::EmptyHere | Self::Never => return Vec::new(),
        };
        let places = [
            Place::LocalPod(false),
            Place::LocalPod(true),
            Place::RemotePod(false),
            Place::RemotePod(true),
            Place::Node,
            Place::OtherNode,
            Place::Client(false),
            Place::SecondNode,
        ];
        let chosen = (0..).zip(places).filter(|(bit, _)| bits >> bit & 1 != 0);
        let backend = |at: Place| {
            Backend::new(End { at, port }.peer(v6), if at.is_here() { Backend::LOCAL } else { 0 })
        };
        let mut backends: Vec<Backend> = chosen.map(|(_, at)| backend(at)).collect();
        backends.sort_by(Backend::order);
        backends
    }
}
