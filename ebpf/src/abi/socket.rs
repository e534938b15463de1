//! What is remembered per socket and per client.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Addr, Peer, Port, Protocol, ServiceId};

/// Row of the `connections` table, under the socket's cookie (`SO_COOKIE`, never given twice until the next boot): what
/// a socket dialled at `connect`, and what it got. It goes with the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Connection {
    pub(super) dialled_addr: Addr,
    pub(super) backend_addr: Addr,
    pub(super) dialled_port: Port,
    pub(super) backend_port: Port,
    /// The Service port whose backend it is.
    pub service: ServiceId,
    pub(super) protocol: u32,
    pub(super) zero: u32,
}

impl Connection {
    /// A socket that dialled a frontend of this Service port.
    #[inline(always)]
    #[must_use]
    pub const fn new(dialled: Peer, backend: Peer, protocol: Protocol, service: ServiceId) -> Self {
        Self {
            dialled_addr: dialled.addr,
            backend_addr: backend.addr,
            dialled_port: dialled.port,
            backend_port: backend.port,
            service,
            protocol: protocol as u32,
            zero: 0,
        }
    }

    /// What the application asked for.
    #[inline(always)]
    #[must_use]
    pub const fn dialled(&self) -> Peer {
        Peer { addr: self.dialled_addr, port: self.dialled_port }
    }

    /// Where the socket is connected to, unless it was connected to somebody else since.
    #[inline(always)]
    #[must_use]
    pub const fn backend(&self) -> Peer {
        Peer { addr: self.backend_addr, port: self.backend_port }
    }

    /// TCP or UDP.
    #[must_use]
    pub const fn protocol(&self) -> Option<Protocol> {
        Protocol::from_number(self.protocol)
    }
}

/// Which way a row of the `datagrams` table translates.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Direction {
    /// From what the client dialled to the backend, so that a socket keeps its own.
    Forward = 1,
    /// From the backend to what the client dialled.
    Reverse = 2,
}

/// Key of the `datagrams` table: unconnected UDP sockets, which may speak to several Services.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DatagramKey {
    pub(super) cookie: u64,
    pub(super) addr: Addr,
    pub(super) port: Port,
    pub(super) direction: u8,
    pub(super) zero: [u8; 5],
}

impl DatagramKey {
    /// `peer` is what the client dialled ([`Direction::Forward`]) or the backend ([`Direction::Reverse`]).
    #[inline(always)]
    #[must_use]
    pub const fn new(cookie: u64, peer: Peer, direction: Direction) -> Self {
        Self { cookie, addr: peer.addr, port: peer.port, direction: direction as u8, zero: [0; 5] }
    }
}

/// Row of the `datagrams` table: the other address, and whose translation it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DatagramRow {
    pub(super) addr: Addr,
    pub(super) port: Port,
    pub(super) zero: [u8; 2],
    /// The Service port whose backend it is.
    pub service: ServiceId,
}

impl DatagramRow {
    /// A translation of this Service port's to `peer`.
    #[inline(always)]
    #[must_use]
    pub const fn new(peer: Peer, service: ServiceId) -> Self {
        Self { addr: peer.addr, port: peer.port, zero: [0; 2], service }
    }

    /// The address it translates to.
    #[inline(always)]
    #[must_use]
    pub const fn peer(&self) -> Peer {
        Peer { addr: self.addr, port: self.port }
    }
}

/// Who a client is, for session affinity: its address, on both paths; or, of sockets of a network namespace that nobody
/// knows (yet), the namespace's cookie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Client([u64; 2]);

impl Client {
    /// Whoever has this address.
    #[inline(always)]
    #[must_use]
    pub const fn from_addr(addr: Addr) -> Self {
        Self(addr.halves())
    }

    /// The sockets of one network namespace (`SO_NETNS_COOKIE`). It cannot be mistaken for an address: `::/64`
    /// is no client's network.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the cookie")]
    pub const fn from_netns(cookie: u64) -> Self {
        Self([0, zerocopy::transmute!([(cookie >> 32) as u32, cookie as u32])])
    }
}

/// Key of the `affinity` table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AffinityKey {
    /// The client.
    pub client: Client,
    /// The Service port; each has an affinity of its own, as kube-proxy's.
    pub service: ServiceId,
    pub(super) zero: u32,
}

impl AffinityKey {
    /// This client's at this Service port.
    #[inline(always)]
    #[must_use]
    pub const fn new(client: Client, service: ServiceId) -> Self {
        Self { client, service, zero: 0 }
    }
}

/// Row of the `affinity` table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AffinityRow {
    pub(super) addr: Addr,
    pub(super) port: Port,
    pub(super) zero: [u8; 2],
    /// When the client last connected: seconds since boot, as [`crate::datapath::Moment::seconds`] counts.
    pub last_seen_s: u32,
}

impl AffinityRow {
    /// The client's backend, as of now.
    #[inline(always)]
    #[must_use]
    pub const fn new(peer: Peer, last_seen_s: u32) -> Self {
        Self { addr: peer.addr, port: peer.port, zero: [0; 2], last_seen_s }
    }

    /// The client's backend.
    #[inline(always)]
    #[must_use]
    pub const fn peer(&self) -> Peer {
        Peer { addr: self.addr, port: self.port }
    }
}
