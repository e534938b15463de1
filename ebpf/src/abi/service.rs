//! Services: frontends, sets of backends, and the names that only people read.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Addr, DropReason, Peer, Port, Protocol};

/// What clients dial. Key of the `frontends` table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FrontendKey {
    pub(super) addr: Addr,
    pub(super) port: Port,
    pub(super) zero: u16,
    pub(super) protocol: u32,
}

impl FrontendKey {
    /// The frontend at this address, port and protocol.
    #[inline(always)]
    #[must_use]
    pub const fn new(peer: Peer, protocol: Protocol) -> Self {
        Self { addr: peer.addr, port: peer.port, zero: 0, protocol: protocol as u32 }
    }

    /// The row that says "this address is a Service's; a port without a row of its own is refused".
    #[inline(always)]
    #[must_use]
    pub const fn whole_address(addr: Addr) -> Self {
        Self { addr, port: Port::new(0), zero: 0, protocol: 0 }
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

/// Which of a Service port's two sets: what a traffic policy chooses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scope {
    /// Endpoints anywhere, as near as hints say.
    Cluster,
    /// Endpoints on this node alone.
    Local,
}

/// Index into the `sets` table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SetId(pub u32);

impl ServiceId {
    /// The set of this Service port with that scope.
    #[inline(always)]
    #[must_use]
    pub const fn set(self, scope: Scope) -> SetId {
        SetId(self.0 * 2 + matches!(scope, Scope::Local) as u32)
    }
}

/// What kind of address clients dial.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum FrontendKind {
    /// `spec.clusterIPs`
    ClusterIp = 1,
    /// `spec.ports[].nodePort`; stands under the unspecified address of its family.
    NodePort = 2,
    /// `status.loadBalancer.ingress[].ip`
    LoadBalancer = 3,
    /// `spec.externalIPs`
    ExternalIp = 4,
}

/// Row of the `frontends` table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Frontend {
    /// Whose frontend it is. 0 in a whole-address row.
    pub service: ServiceId,
    /// `sessionAffinityConfig.clientIP.timeoutSeconds`; 0 without session affinity.
    pub affinity_s: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) zero: [u8; 2],
}

impl Frontend {
    /// Clients in the cluster use [`Scope::Local`] (`internalTrafficPolicy: Local` of a ClusterIP).
    pub const INSIDE_LOCAL: u8 = 1;
    /// Clients outside use [`Scope::Local`] (`externalTrafficPolicy: Local`; of a ClusterIP the internal one).
    pub const OUTSIDE_LOCAL: u8 = 2;
    /// Clients must be in a source range of the Service port (`loadBalancerSourceRanges`).
    pub const SOURCE_RANGES: u8 = 4;
    /// The address is the node's own as well (k3s' ServiceLB, NodeLocal DNS): what listens there comes first.
    pub const NODE_ADDRESS: u8 = 8;
    /// Every node has to choose the same backend for the same client: reachable from outside.
    pub const CONSISTENT: u8 = 16;

    /// A frontend of this Service port; `flags` are the constants above.
    #[inline(always)]
    #[must_use]
    pub const fn new(service: ServiceId, affinity_s: u32, kind: FrontendKind, flags: u8) -> Self {
        Self { service, affinity_s, kind: kind as u8, flags, zero: [0; 2] }
    }

    /// The row of a whole address ([`FrontendKey::whole_address`]).
    #[inline(always)]
    #[must_use]
    pub const fn whole_address(uses: AddressUses) -> Self {
        Self { service: ServiceId(0), affinity_s: 0, kind: 0, flags: uses.0, zero: [0; 2] }
    }

    /// What the address is dialled as; `None` in a whole-address row.
    #[inline(always)]
    #[must_use]
    pub const fn kind(&self) -> Option<FrontendKind> {
        match self.kind {
            1 => Some(FrontendKind::ClusterIp),
            2 => Some(FrontendKind::NodePort),
            3 => Some(FrontendKind::LoadBalancer),
            4 => Some(FrontendKind::ExternalIp),
            _ => None,
        }
    }

    /// Whether this flag is set. Meaningless in a whole-address row.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// All of its flags. Meaningless in a whole-address row.
    #[inline(always)]
    #[must_use]
    pub const fn flags(&self) -> u8 {
        self.flags
    }

    /// What a whole address is used for. Meaningless in any other row.
    #[inline(always)]
    #[must_use]
    pub const fn uses(&self) -> AddressUses {
        AddressUses(self.flags)
    }

    /// The set that clients of this kind use.
    #[inline(always)]
    #[must_use]
    pub const fn scope(&self, origin: Origin) -> Scope {
        let flag = match origin {
            Origin::Inside => Self::INSIDE_LOCAL,
            Origin::Outside => Self::OUTSIDE_LOCAL,
        };
        if self.has(flag) { Scope::Local } else { Scope::Cluster }
    }
}

/// Where a client is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// A pod of this node, or the node itself.
    Inside,
    /// Anybody else: whatever arrives through a node-facing device.
    Outside,
}

/// What an address is used for, whatever the port: a set of the constants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct AddressUses(pub u8);

impl AddressUses {
    /// Some Service's ClusterIP: ports without a frontend are refused, echo requests are answered.
    pub const CLUSTER_IP: Self = Self(1);
    /// A load balancer's or an external address: echo requests are answered, other ports are none of ours.
    pub const EXTERNAL: Self = Self(2);
    /// An address of this node at which node ports are served (`nodePortAddresses`).
    pub const NODE_PORTS: Self = Self(4);
    /// An address of this node, whether node ports are served there or not: the node answers for itself.
    pub const NODE: Self = Self(8);
    /// A loopback address: served for sockets of the node alone.
    pub const LOOPBACK: Self = Self(16);

    /// Whether it has all the uses of `other`.
    #[inline(always)]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of `self` that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Key of the `source_ranges` table, a prefix tree: from where a load balancer's address may be dialled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SourceRangeKey {
    /// Bits that count, of those that follow; in host order, as the kernel wants it.
    pub prefix_len: u32,
    pub(super) service: ServiceId,
    pub(super) addr: Addr,
}

impl SourceRangeKey {
    /// Bits of the Service's number.
    const SERVICE_BITS: u32 = 32;

    /// A range: the first `bits` of the 128 of `addr` count (of an IPv4 prefix: 96 more than its length).
    #[must_use]
    pub const fn range(service: ServiceId, addr: Addr, bits: u32) -> Self {
        Self { prefix_len: Self::SERVICE_BITS + bits, service, addr }
    }

    /// A client that is looked for.
    #[inline(always)]
    #[must_use]
    pub const fn client(service: ServiceId, addr: Addr) -> Self {
        Self::range(service, addr, 128)
    }

    /// The Service port, the address and how many of its 128 bits count.
    #[must_use]
    pub const fn parts(&self) -> (ServiceId, Addr, u32) {
        (self.service, self.addr, self.prefix_len.saturating_sub(Self::SERVICE_BITS))
    }
}

/// Row of the `sets` table, read and written as one aligned 64-bit word: a set is replaced by one store, so that
/// nobody ever sees half of the change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct SetWord(pub u64);

/// Consecutive rows of the `backends` table, sorted by [`Backend::order`](super::Backend::order).
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
        Protocol::from_number(self.protocol as u32)
    }

    /// 4 or 6: a dual-stack Service port is two, each with its own set.
    #[must_use]
    pub const fn family(&self) -> u8 {
        self.family
    }
}
