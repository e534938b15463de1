//! What is remembered per socket and per client.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Addr, Peer, Port, Protocol, ServiceId};

/// Which way a row of the `sockets` table translates.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Direction {
    /// From what the client dialled to the backend; UDP sockets only, so that they keep theirs.
    Forward = 1,
    /// From the backend to what the client dialled.
    Reverse = 2,
}

/// Key of the `sockets` table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketKey {
    pub(super) cookie: u64,
    pub(super) addr: Addr,
    pub(super) port: Port,
    pub(super) direction: u8,
    pub(super) zero: [u8; 5],
}

impl SocketKey {
    /// `peer` is what the client dialled ([`Direction::Forward`]) or the backend ([`Direction::Reverse`]).
    #[inline(always)]
    #[must_use]
    pub const fn new(cookie: u64, peer: Peer, direction: Direction) -> Self {
        Self { cookie, addr: peer.addr, port: peer.port, direction: direction as u8, zero: [0; 5] }
    }

    /// The kernel's number of the socket (`SO_COOKIE`), never used twice until the next boot.
    #[must_use]
    pub const fn cookie(&self) -> u64 {
        self.cookie
    }

    /// The address that is looked up.
    #[must_use]
    pub const fn peer(&self) -> Peer {
        Peer { addr: self.addr, port: self.port }
    }

    /// Whether the row translates from the backend to what the client dialled.
    #[must_use]
    pub const fn is_reverse(&self) -> bool {
        self.direction == Direction::Reverse as u8
    }
}

/// Row of the `sockets` table: the other address, and whose translation it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketRow {
    pub(super) addr: Addr,
    pub(super) port: Port,
    pub(super) protocol: u8,
    pub(super) connected: u8,
    /// The Service port whose backend it is.
    pub service: ServiceId,
}

impl SocketRow {
    /// A translation of this Service port's to (or from) `peer`.
    #[inline(always)]
    #[must_use]
    pub const fn new(peer: Peer, protocol: Protocol, connected: bool, service: ServiceId) -> Self {
        Self {
            addr: peer.addr,
            port: peer.port,
            protocol: protocol as u8,
            connected: connected as u8,
            service,
        }
    }

    /// The address it translates to.
    #[inline(always)]
    #[must_use]
    pub const fn peer(&self) -> Peer {
        Peer { addr: self.addr, port: self.port }
    }

    /// TCP or UDP.
    #[must_use]
    pub const fn protocol(&self) -> Option<Protocol> {
        Protocol::from_number(self.protocol)
    }

    /// Whether the socket was translated at `connect`. Only such a socket can be told that its backend is gone.
    #[must_use]
    pub const fn connected(&self) -> bool {
        self.connected != 0
    }
}

/// Who a client is, for session affinity: the 16 bytes of an address, or of a network namespace's cookie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Client([u32; 4]);

impl Client {
    /// The sockets of one network namespace (`SO_NETNS_COOKIE`). It cannot be mistaken for an address: `::/64`
    /// is no client's network.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the cookie")]
    pub const fn from_netns(cookie: u64) -> Self {
        Self([0, 0, (cookie >> 32) as u32, cookie as u32])
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
}

/// Row of the `affinity` table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AffinityRow {
    pub(super) addr: Addr,
    pub(super) port: Port,
    pub(super) zero: [u8; 2],
    /// When the client last connected: seconds since boot, suspended time included.
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
