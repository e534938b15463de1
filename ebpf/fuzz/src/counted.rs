//! Tables and ways that count how often they are asked.

use std::cell::{Cell, RefCell};

use weir_ebpf::abi::{
    Addr, AffinityKey, AffinityRow, Backend, Config, Connection, Counter, DatagramKey, DatagramRow, Device,
    Flow, Form, FragmentKey, FragmentRow, Frontend, FrontendKey, HopRow, Netns, Peer, Protocol, SetId,
    SetWord, Signs, SourceRangeKey, Tuple, Workload,
};
use weir_ebpf::datapath::{CreateError, Full, Network, PacketTables, PodSocket, Tables};
use weir_ebpf::testing::{FakeNetwork, FlowCopy, MemoryTables};

use crate::world::{World, backend_row};

/// Tables in memory, and how often they were asked or told something. Rows of `backends` repeat
/// themselves as [`backend_row`] says, so that a set may be as long as a word can say.
pub(crate) struct Counted<'a> {
    tables: &'a MemoryTables,
    network: &'a FakeNetwork,
    /// As many flows as there is room for.
    room: usize,
    /// What another CPU does at the last moment, before the client's row of a flow is entered.
    rival: RefCell<Option<Box<dyn FnOnce() + 'a>>>,
    asked: Cell<u32>,
}

impl<'a> Counted<'a> {
    pub(crate) fn new(world: &'a World) -> Self {
        Self {
            tables: &world.tables,
            network: &world.network,
            room: world.room,
            rival: RefCell::new(None),
            asked: Cell::new(0),
        }
    }

    pub(crate) fn with_rival(self, rival: impl FnOnce() + 'a) -> Self {
        self.rival.replace(Some(Box::new(rival)));
        self
    }

    pub(crate) const fn asked(&self) -> u32 {
        self.asked.get()
    }

    fn ask(&self) -> &'a MemoryTables {
        self.asked.set(self.asked.get() + 1);
        self.tables
    }
}

impl Tables for Counted<'_> {
    fn lookup_frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.ask().lookup_frontend(key)
    }

    fn lookup_set(&self, id: SetId) -> SetWord {
        self.ask().lookup_set(id)
    }

    fn lookup_backend(&self, index: u32) -> Option<Backend> {
        self.ask().lookup_backend(backend_row(index))
    }

    fn lookup_affinity(&self, key: &AffinityKey) -> Option<AffinityRow> {
        self.ask().lookup_affinity(key)
    }

    fn put_affinity(&self, key: &AffinityKey, row: &AffinityRow) -> Result<(), Full> {
        self.ask().put_affinity(key, row)
    }

    fn lookup_connection(&self, cookie: u64) -> Option<Connection> {
        self.ask().lookup_connection(cookie)
    }

    fn put_connection(&self, cookie: u64, row: &Connection) -> Result<(), Full> {
        self.ask().put_connection(cookie, row)
    }

    fn delete_connection(&self, cookie: u64) {
        self.ask().delete_connection(cookie);
    }

    fn lookup_datagram(&self, key: &DatagramKey) -> Option<DatagramRow> {
        self.ask().lookup_datagram(key)
    }

    fn put_datagram(&self, key: &DatagramKey, row: &DatagramRow) -> Result<(), Full> {
        self.ask().put_datagram(key, row)
    }

    fn lookup_netns(&self, cookie: u64) -> Option<Netns> {
        self.ask().lookup_netns(cookie)
    }

    fn lookup_source_range(&self, client: &SourceRangeKey) -> bool {
        self.ask().lookup_source_range(client)
    }

    fn config(&self) -> &Config {
        self.tables.config()
    }

    fn count(&self, counter: Counter) {
        self.ask().count(counter);
    }
}

impl PacketTables for Counted<'_> {
    type FlowRef<'a>
        = FlowCopy
    where
        Self: 'a;

    fn lookup_flow(&self, tuple: &Tuple) -> Option<FlowCopy> {
        self.ask().lookup_flow(tuple)
    }

    fn touch_flow(&self, flow: &FlowCopy, seen_s: u32, signs: Signs) {
        self.ask().touch_flow(flow, seen_s, signs);
    }

    fn lookup_hop(&self, flow: &FlowCopy) -> HopRow {
        self.ask().lookup_hop(flow)
    }

    fn put_hop(&self, flow: &FlowCopy, hop: HopRow) {
        self.ask().put_hop(flow, hop);
    }

    fn create_flow(&self, tuple: &Tuple, flow: &Flow) -> Result<(), CreateError> {
        let rival = if flow.form() == Form::Dialled { self.rival.take() } else { None };
        if let Some(rival) = rival {
            rival();
        }
        let flows = &self.ask().flows;
        if flows.borrow().len() >= self.room && !flows.borrow().contains_key(tuple) {
            return Err(CreateError::Full);
        }
        self.tables.create_flow(tuple, flow)
    }

    fn delete_flow(&self, tuple: &Tuple) -> bool {
        self.ask().delete_flow(tuple)
    }

    fn lookup_fragment(&self, key: &FragmentKey) -> Option<FragmentRow> {
        self.ask().lookup_fragment(key)
    }

    fn put_fragment(&self, key: &FragmentKey, row: &FragmentRow) {
        self.ask().put_fragment(key, row);
    }

    fn lookup_workload(&self, addr: Addr) -> Option<Workload> {
        self.ask().lookup_workload(addr)
    }

    fn lookup_device(&self, ifindex: u32) -> Option<Device> {
        self.ask().lookup_device(ifindex)
    }
}

impl Network for Counted<'_> {
    fn route(&self, src: Addr, dst: Addr) -> Option<u32> {
        self.ask();
        self.network.route(src, dst)
    }

    fn has_socket(&self, protocol: Protocol, local: Peer, remote: Peer) -> bool {
        self.ask();
        self.network.has_socket(protocol, local, remote)
    }

    fn lookup_socket(&self, netns: u64, protocol: Protocol, pod: Peer, peer: Peer) -> PodSocket {
        self.ask();
        self.network.lookup_socket(netns, protocol, pod, peer)
    }
}
