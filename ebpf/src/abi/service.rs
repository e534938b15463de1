//! Services: frontends, sets of backends, and the names that only people read.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Addr, DropReason, Peer, Port, Protocol};

/// What clients dial. Key of the `frontends` table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FrontendKey {
    pub(super) addr: Addr,
    pub(super) port: Port,
    pub(super) protocol: u8,
    pub(super) zero: u8,
}

impl FrontendKey {
    /// The frontend at this address, port and protocol.
    #[inline(always)]
    #[must_use]
    pub const fn new(peer: Peer, protocol: Protocol) -> Self {
        Self { addr: peer.addr, port: peer.port, protocol: protocol as u8, zero: 0 }
    }

    /// The row that says "this address is a Service's; a port without a row of its own is refused".
    #[inline(always)]
    #[must_use]
    pub const fn whole_address(addr: Addr) -> Self {
        Self { addr, port: Port::new(0), protocol: 0, zero: 0 }
    }

    /// Address and port that clients dial.
    #[must_use]
    pub const fn peer(&self) -> Peer {
        Peer { addr: self.addr, port: self.port }
    }

    /// The protocol; `None` for [`FrontendKey::whole_address`].
    #[must_use]
    pub const fn protocol(&self) -> Option<Protocol> {
        Protocol::from_number(self.protocol)
    }
}

/// Number of one port of one Service in one family. Given out by the agent, kept across its restarts.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct ServiceId(pub u32);

/// Which of a Service port's two sets a client uses (`internalTrafficPolicy`, `externalTrafficPolicy`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// Clients in the cluster.
    Internal,
    /// Clients outside the cluster.
    External,
}

/// Index into the `sets` table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SetId(pub u32);

impl ServiceId {
    /// The set of this Service port for clients on that side.
    #[inline(always)]
    #[must_use]
    pub const fn set(self, side: Side) -> SetId {
        SetId(self.0 * 2 + matches!(side, Side::External) as u32)
    }
}

/// Row of the `frontends` table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Frontend {
    /// Whose frontend it is. Meaningless in a whole-address row.
    pub service: ServiceId,
    /// `sessionAffinityConfig.clientIP.timeoutSeconds`; 0 without session affinity.
    pub affinity_s: u32,
}

/// Row of the `sets` table, read and written as one aligned 64-bit word: a set is replaced by one store, so that
/// nobody ever sees half of the change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct SetWord(pub u64);

/// Consecutive rows of the `backends` table, sorted by [`Peer::order`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Run {
    /// Index of the first row.
    pub offset: u32,
    /// Number of rows, 1 to [`Run::MAX_LEN`].
    pub len: u32,
}

impl Run {
    /// The longest run that the programs search to its end.
    pub const MAX_LEN: u32 = (1 << 20) - 1;
}

impl SetWord {
    /// A set of this many backends, from there.
    #[must_use]
    pub const fn of(run: Run) -> Self {
        Self((run.len as u64) << 32 | run.offset as u64)
    }

    /// A set without a backend, and what happens to its clients.
    #[must_use]
    pub const fn empty(reason: DropReason) -> Self {
        Self(reason as u64)
    }

    /// The backends, or why there is none. A word that was never written refuses.
    #[inline(always)]
    pub const fn run(self) -> Result<Run, DropReason> {
        let (len, low) = ((self.0 >> 32) as u32, (self.0 & 0xffff_ffff) as u32);
        if len != 0 {
            return Ok(Run { offset: low, len });
        }
        if low == DropReason::NoLocalEndpoint as u32 {
            return Err(DropReason::NoLocalEndpoint);
        }
        Err(DropReason::NoEndpoint)
    }
}

/// Row of the `backends` table: one place in one set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Backend {
    pub(super) addr: Addr,
    pub(super) port: Port,
    pub(super) flags: u16,
}

impl Backend {
    /// The backend's pod is on this node.
    pub const LOCAL: u16 = 1;

    /// A backend at this address.
    #[must_use]
    pub const fn new(peer: Peer, flags: u16) -> Self {
        Self { addr: peer.addr, port: peer.port, flags }
    }

    /// Where it is reached.
    #[inline(always)]
    #[must_use]
    pub const fn peer(&self) -> Peer {
        Peer { addr: self.addr, port: self.port }
    }

    /// [`Backend::LOCAL`] or 0.
    #[inline(always)]
    #[must_use]
    pub const fn flags(&self) -> u16 {
        self.flags
    }
}

/// Row of the `names` table: what a [`ServiceId`] stands for. No program reads it; it lets a restarted agent give
/// the same ids, and lets the commands name a Service while no agent runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceName {
    pub(super) lengths: [u8; 3],
    pub(super) protocol: u8,
    /// 4 or 6
    pub(super) family: u8,
    pub(super) zero: [u8; 3],
    pub(super) text: [u8; Self::TEXT],
}

impl ServiceName {
    /// Room for three DNS labels (RFC 1123): namespace, Service and port.
    pub const TEXT: usize = 192;

    /// `None` if the three together are longer than three DNS labels can be.
    #[must_use]
    pub fn new(namespace: &str, name: &str, port: &str, protocol: Protocol, family: u8) -> Option<Self> {
        let mut row =
            Self { lengths: [0; 3], protocol: protocol as u8, family, zero: [0; 3], text: [0; Self::TEXT] };
        let mut at = 0;
        for (length, part) in row.lengths.iter_mut().zip([namespace, name, port]) {
            *length = u8::try_from(part.len()).ok()?;
            row.text.get_mut(at..at + part.len())?.copy_from_slice(part.as_bytes());
            at += part.len();
        }
        Some(row)
    }

    /// Namespace, Service name and port name; `None` if the row was not written by [`ServiceName::new`].
    #[must_use]
    pub fn parts(&self) -> Option<[&str; 3]> {
        let [a, b, c] = self.lengths.map(usize::from);
        let part = |from: usize, to: usize| core::str::from_utf8(self.text.get(from..to)?).ok();
        Some([part(0, a)?, part(a, a + b)?, part(a + b, a + b + c)?])
    }

    /// The protocol.
    #[must_use]
    pub const fn protocol(&self) -> Option<Protocol> {
        Protocol::from_number(self.protocol)
    }

    /// 4 or 6: a dual-stack Service port is two, each with its own set.
    #[must_use]
    pub const fn family(&self) -> u8 {
        self.family
    }
}
