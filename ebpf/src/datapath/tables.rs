//! What a decision needs from outside, as three small traits.

use core::ops::Deref;

use crate::abi::{
    Addr, AffinityKey, AffinityRow, Backend, Config, Connection, Counter, DatagramKey, DatagramRow, Device,
    Flow, FragmentKey, FragmentRow, Frontend, FrontendKey, HopRow, Netns, Peer, Protocol, SetId, SetWord,
    Side, Signs, SourceRangeKey, Tuple, Window, Workload,
};

/// A table has no room for one more row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// The tables. Look-ups of rows that user space replaces return copies; nothing is held across two calls.
pub trait Tables {
    /// `frontends`
    fn lookup_frontend(&self, key: &FrontendKey) -> Option<Frontend>;
    /// `sets`; a set that was never written is [`SetWord::default`].
    fn lookup_set(&self, id: SetId) -> SetWord;
    /// `backends`, by index
    fn lookup_backend(&self, index: u32) -> Option<Backend>;
    /// `affinity`
    fn lookup_affinity(&self, key: &AffinityKey) -> Option<AffinityRow>;
    /// `affinity`
    ///
    /// # Errors
    /// [`Full`]
    fn put_affinity(&self, key: &AffinityKey, row: &AffinityRow) -> Result<(), Full>;
    /// `connections`, by socket cookie
    fn lookup_connection(&self, cookie: u64) -> Option<Connection>;
    /// `connections`
    ///
    /// # Errors
    /// [`Full`]
    fn put_connection(&self, cookie: u64, row: &Connection) -> Result<(), Full>;
    /// `connections`; none is no error.
    fn delete_connection(&self, cookie: u64);
    /// `datagrams`
    fn lookup_datagram(&self, key: &DatagramKey) -> Option<DatagramRow>;
    /// `datagrams`
    ///
    /// # Errors
    /// [`Full`]
    fn put_datagram(&self, key: &DatagramKey, row: &DatagramRow) -> Result<(), Full>;
    /// `netns`, by cookie
    fn lookup_netns(&self, cookie: u64) -> Option<Netns>;
    /// `source_ranges`: whether the client is in any range of the Service port.
    fn lookup_source_range(&self, client: &SourceRangeKey) -> bool;
    /// `config`
    fn config(&self) -> &Config;
    /// `counters`: one more.
    fn count(&self, counter: Counter);
}

/// Why a flow could not be created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CreateError {
    /// There is one under this tuple.
    Exists,
    /// The table has no room.
    Full,
}

/// The tables of the per-packet path.
pub trait PacketTables: Tables {
    /// A row of `flows` in place: what it says of its flow never changes, so it may be read for as long as it is held.
    type FlowRef<'a>: Deref<Target = Flow>
    where
        Self: 'a;

    /// `flows`
    fn lookup_flow(&self, tuple: &Tuple) -> Option<Self::FlowRef<'_>>;
    /// `flows`: says when the row's direction was last seen, and everything that was seen in it.
    fn touch_flow(&self, flow: &Self::FlowRef<'_>, seen_s: u32, signs: Signs);
    /// `flows`: the hop of the row's direction.
    fn lookup_hop(&self, flow: &Self::FlowRef<'_>) -> HopRow;
    /// `flows`: replaces the hop of the row's direction.
    fn put_hop(&self, flow: &Self::FlowRef<'_>, hop: HopRow);
    /// `flows`; never replaces a row.
    ///
    /// # Errors
    /// [`CreateError`]
    fn create_flow(&self, tuple: &Tuple, flow: &Flow) -> Result<(), CreateError>;
    /// `flows`: whether there was one. Of two that remove the same row, one is told so.
    fn delete_flow(&self, tuple: &Tuple) -> bool;
    /// `fragments`
    fn lookup_fragment(&self, key: &FragmentKey) -> Option<FragmentRow>;
    /// `fragments`; the longest unused is forgotten where there is no room.
    fn put_fragment(&self, key: &FragmentKey, row: &FragmentRow);
    /// `workloads`, by a pod's address
    fn lookup_workload(&self, addr: Addr) -> Option<Workload>;
    /// `devices`, by index
    fn lookup_device(&self, ifindex: u32) -> Option<Device>;
}

/// What only the kernel knows about the ways of this node.
pub trait Network {
    /// The index of the device by which the stack would send a packet from here on to `dst`; `None` where it would
    /// not forward it: no route, an address of the node itself, forwarding switched off.
    fn route(&self, src: Addr, dst: Addr) -> Option<u32>;
    /// Whether a socket of the host has this local address and port: listening, unconnected, or connected to `remote`.
    fn has_socket(&self, protocol: Protocol, local: Peer, remote: Peer) -> bool;
    /// What a pod's network namespace has at the pod's end of a flow, of TCP or UDP.
    fn lookup_socket(&self, netns: u64, protocol: Protocol, pod: Peer, peer: Peer) -> PodSocket;
}

/// What is at a pod's end of a flow, and with that the pod's part in it: [`Side::Ingress`] if another socket waits for whoever
/// comes to the same address and port, for then this one was made for the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PodSocket {
    /// Nothing.
    #[default]
    None,
    /// A socket that waits for whoever comes.
    Waits,
    /// One that asks the peer for a connection, or is asked by it.
    Opens(Side),
    /// One that is connected to the peer, or was.
    Connected(Side),
}

/// The socket that asks. Everything but the protocol costs a helper call, so it is asked for only when needed.
pub trait Socket {
    /// TCP or UDP; `None` for what no Service can have.
    fn protocol(&self) -> Option<Protocol>;
    /// `SO_COOKIE`
    fn cookie(&self) -> u64;
    /// The cookie of its network namespace (`SO_NETNS_COOKIE`).
    fn netns(&self) -> u64;
    /// Whether the process that asks is in a pod of the kubelet's that the agent has not seen.
    fn is_in_unseen_pod(&self) -> bool;
    /// Whether a socket of its own network namespace listens at this address and port.
    fn listens(&self, protocol: Protocol, local: Peer) -> bool;
}

/// Time since boot, suspended time excluded (`CLOCK_MONOTONIC`), as coarse as the kernel's tick: reading it more precisely
/// costs a packet more than anything here gains by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Instant {
    /// In nanoseconds.
    pub ns: u64,
}

impl Instant {
    /// Log2 of the length of a [`Window`] in nanoseconds, 16.8 ms, where no other clock tells windows.
    const WINDOW: u32 = 24;

    /// In whole seconds.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "136 years since boot")]
    pub const fn seconds(self) -> u32 {
        (self.ns / 1_000_000_000) as u32
    }

    /// The window that it is in.
    #[inline(always)]
    #[must_use]
    pub const fn window(self) -> Window {
        Window(self.ns >> Self::WINDOW)
    }
}

/// Time and chance.
pub trait Moment {
    /// The time.
    fn now(&self) -> Instant;
    /// The window that it is in.
    #[inline(always)]
    fn window(&self) -> Window {
        self.now().window()
    }
    /// The time in whole seconds.
    #[inline(always)]
    fn seconds(&self) -> u32 {
        self.now().seconds()
    }
    /// Uniform random bits.
    fn random(&self) -> u32;
}
