//! [`Tables`] as hash maps, and a socket and a moment made of plain fields.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Deref;

use super::MemoryPolicy;
use crate::abi::{
    Addr, AffinityKey, AffinityRow, Backend, BoundPod, Config, Connection, Counter, DatagramKey, DatagramRow,
    Device, Enforcement, Flow, FragmentKey, FragmentRow, Frontend, FrontendKey, HopRow, Judged, JudgedKey,
    Netns, Peer, Prefix, Protocol, SetId, SetWord, Share, Signs, SourceRangeKey, Tuple, Workload,
};
use crate::datapath::{CreateError, Full, Instant, Moment, Network, PacketTables, PodSocket, Socket, Tables};

/// The tables as hash maps.
#[derive(Clone, Default, Debug)]
pub struct MemoryTables {
    /// `frontends`
    pub frontends: HashMap<FrontendKey, Frontend>,
    /// `sets`
    pub sets: HashMap<SetId, SetWord>,
    /// `backends`
    pub backends: HashMap<u32, Backend>,
    /// `affinity`
    pub affinity: RefCell<HashMap<AffinityKey, AffinityRow>>,
    /// `connections`
    pub connections: RefCell<HashMap<u64, Connection>>,
    /// `datagrams`
    pub datagrams: RefCell<HashMap<DatagramKey, DatagramRow>>,
    /// `netns`, by cookie
    pub netns: HashMap<u64, Netns>,
    /// `source_ranges`
    pub source_ranges: HashSet<SourceRangeKey>,
    /// `config`; `None`: [`Config::EMPTY`]
    pub config: Option<Config>,
    /// `flows`
    pub flows: RefCell<HashMap<Tuple, Flow>>,
    /// `fragments`
    pub fragments: RefCell<HashMap<FragmentKey, FragmentRow>>,
    /// `workloads`, by address
    pub workloads: HashMap<Addr, Workload>,
    /// `devices`, by index
    pub devices: HashMap<u32, Device>,
    /// `enforcement`
    pub enforcement: Enforcement,
    /// `pod_policies`, by the device's index
    pub pods: HashMap<u32, BoundPod>,
    /// Sets, classes and ports.
    pub policy: MemoryPolicy,
    /// `judged`
    pub judged: RefCell<HashMap<JudgedKey, Judged>>,
    /// `judged_shares`, by the device's index
    pub shares: RefCell<HashMap<u32, Share>>,
    /// `counters`
    pub counters: RefCell<HashMap<Counter, u64>>,
    /// Whether `affinity`, `connections`, `datagrams`, `flows` and `judged` refuse new rows.
    pub full: Cell<bool>,
}

impl MemoryTables {
    /// The value of a counter.
    #[must_use]
    pub fn counted(&self, counter: Counter) -> u64 {
        self.counters.borrow().get(&counter).copied().unwrap_or_default()
    }

    pub(super) fn room(&self) -> Result<(), Full> {
        if self.full.get() { Err(Full) } else { Ok(()) }
    }
}

impl Tables for MemoryTables {
    fn lookup_frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.frontends.get(key).copied()
    }

    fn lookup_set(&self, id: SetId) -> SetWord {
        self.sets.get(&id).copied().unwrap_or_default()
    }

    fn lookup_backend(&self, index: u32) -> Option<Backend> {
        self.backends.get(&index).copied()
    }

    fn lookup_affinity(&self, key: &AffinityKey) -> Option<AffinityRow> {
        self.affinity.borrow().get(key).copied()
    }

    fn put_affinity(&self, key: &AffinityKey, row: &AffinityRow) -> Result<(), Full> {
        self.room()?;
        self.affinity.borrow_mut().insert(*key, *row);
        Ok(())
    }

    fn lookup_connection(&self, cookie: u64) -> Option<Connection> {
        self.connections.borrow().get(&cookie).copied()
    }

    fn put_connection(&self, cookie: u64, row: &Connection) -> Result<(), Full> {
        self.room()?;
        self.connections.borrow_mut().insert(cookie, *row);
        Ok(())
    }

    fn delete_connection(&self, cookie: u64) {
        self.connections.borrow_mut().remove(&cookie);
    }

    fn lookup_datagram(&self, key: &DatagramKey) -> Option<DatagramRow> {
        self.datagrams.borrow().get(key).copied()
    }

    fn put_datagram(&self, key: &DatagramKey, row: &DatagramRow) -> Result<(), Full> {
        self.room()?;
        self.datagrams.borrow_mut().insert(*key, *row);
        Ok(())
    }

    fn lookup_netns(&self, cookie: u64) -> Option<Netns> {
        self.netns.get(&cookie).copied()
    }

    fn lookup_source_range(&self, client: &SourceRangeKey) -> bool {
        let (service, addr, _) = client.parts();
        self.source_ranges.iter().any(|range| {
            let (of, net, bits) = range.parts();
            of == service && Prefix::new(net, bits).contains(addr)
        })
    }

    fn config(&self) -> &Config {
        self.config.as_ref().unwrap_or(&Config::EMPTY)
    }

    fn count(&self, counter: Counter) {
        *self.counters.borrow_mut().entry(counter).or_default() += 1;
    }
}

/// A row of `flows` as it was when it was looked up.
#[derive(Debug)]
pub struct FlowCopy {
    tuple: Tuple,
    flow: Flow,
}

impl Deref for FlowCopy {
    type Target = Flow;

    fn deref(&self) -> &Flow {
        &self.flow
    }
}

impl PacketTables for MemoryTables {
    type FlowRef<'a> = FlowCopy;

    fn lookup_flow(&self, tuple: &Tuple) -> Option<FlowCopy> {
        self.flows.borrow().get(tuple).map(|flow| FlowCopy { tuple: *tuple, flow: *flow })
    }

    fn touch_flow(&self, flow: &FlowCopy, seen_s: u32, signs: Signs) {
        if let Some(row) = self.flows.borrow_mut().get_mut(&flow.tuple) {
            row.seen_s = seen_s;
            row.signs = signs;
        }
    }

    fn lookup_hop(&self, flow: &FlowCopy) -> HopRow {
        flow.hop
    }

    fn put_hop(&self, flow: &FlowCopy, hop: HopRow) {
        if let Some(row) = self.flows.borrow_mut().get_mut(&flow.tuple) {
            row.hop = hop;
        }
    }

    fn create_flow(&self, tuple: &Tuple, flow: &Flow) -> Result<(), CreateError> {
        self.room().map_err(|Full| CreateError::Full)?;
        match self.flows.borrow_mut().entry(*tuple) {
            Entry::Occupied(_) => Err(CreateError::Exists),
            Entry::Vacant(entry) => {
                entry.insert(*flow);
                Ok(())
            }
        }
    }

    fn delete_flow(&self, tuple: &Tuple) -> bool {
        self.flows.borrow_mut().remove(tuple).is_some()
    }

    fn lookup_fragment(&self, key: &FragmentKey) -> Option<FragmentRow> {
        self.fragments.borrow().get(key).copied()
    }

    fn put_fragment(&self, key: &FragmentKey, row: &FragmentRow) {
        self.fragments.borrow_mut().insert(*key, *row);
    }

    fn lookup_workload(&self, addr: Addr) -> Option<Workload> {
        self.workloads.get(&addr).copied()
    }

    fn lookup_device(&self, ifindex: u32) -> Option<Device> {
        self.devices.get(&ifindex).copied()
    }
}

/// A node's ways and sockets made of plain fields.
#[derive(Clone, Debug, Default)]
pub struct FakeNetwork {
    /// Where each address is reached, the first prefix that contains it: a device's index, or `None`: not by
    /// forwarding.
    pub routes: Vec<(Prefix, Option<u32>)>,
    /// The local ends of the host's sockets.
    pub sockets: HashSet<(Protocol, Peer)>,
    /// What pods have, by namespace and both ends (the pod's first).
    pub pod_sockets: HashMap<(u64, Protocol, Peer, Peer), PodSocket>,
}

impl Network for FakeNetwork {
    fn route(&self, _src: Addr, dst: Addr) -> Option<u32> {
        self.routes.iter().find(|(prefix, _)| prefix.contains(dst))?.1
    }

    fn has_socket(&self, protocol: Protocol, local: Peer, _remote: Peer) -> bool {
        self.sockets.contains(&(protocol, local))
    }

    fn lookup_socket(&self, netns: u64, protocol: Protocol, pod: Peer, peer: Peer) -> PodSocket {
        self.pod_sockets.get(&(netns, protocol, pod, peer)).copied().unwrap_or_default()
    }
}

/// A socket made of plain fields.
#[derive(Clone, Copy, Debug)]
pub struct FakeSocket {
    /// Its protocol.
    pub protocol: Option<Protocol>,
    /// Its cookie.
    pub cookie: u64,
    /// The cookie of its network namespace.
    pub netns: u64,
    /// Whether somebody in its network namespace listens at the address that it dials.
    pub listener: bool,
    /// Whether it is below the kubelet's cgroup for pods, and in none that the agent has seen.
    pub in_pod: bool,
}

impl Socket for FakeSocket {
    fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    fn cookie(&self) -> u64 {
        self.cookie
    }

    fn netns(&self) -> u64 {
        self.netns
    }

    fn is_in_unseen_pod(&self) -> bool {
        self.in_pod
    }

    fn listens(&self, _protocol: Protocol, _local: Peer) -> bool {
        self.listener
    }
}

/// A moment made of plain fields; chance is a sequence that the same seed repeats.
#[derive(Clone, Debug, Default)]
pub struct FakeMoment {
    /// Seconds since boot.
    pub seconds: Cell<u32>,
    /// State of the random sequence (Weyl sequence, multiplied).
    pub seed: Cell<u64>,
}

impl Moment for FakeMoment {
    fn now(&self) -> Instant {
        Instant { ns: u64::from(self.seconds.get()) * 1_000_000_000 }
    }

    fn random(&self) -> u32 {
        let state = self.seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.seed.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        u32::try_from((mixed ^ (mixed >> 27)) >> 32).unwrap_or_default()
    }
}
