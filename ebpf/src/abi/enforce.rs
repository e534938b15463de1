//! Policies in force: which pod is behind a device, and which of its flows were allowed.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Addr, ClassId, Peer, PodPolicy, PolicySetId, Port, Side, Signs};

/// Row of the `pod_policies` table, under the index of the host's end of a pod's veth: the pod behind it. A device of a pod
/// that has none is one of a pod that nobody knows yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BoundPod {
    /// Its IPv4 address; all zero where it has none.
    pub v4: Addr,
    /// Its IPv6 address; all zero where it has none.
    pub v6: Addr,
    /// How it is isolated.
    pub policy: PodPolicy,
    /// The constants below.
    pub flags: u32,
}

impl BoundPod {
    /// What it sends may have any source: it forwards for others.
    pub const ANY_SOURCE: u32 = 1;
    /// No policy is about what is behind the device: a container of another runtime, or another network of a pod's than the
    /// cluster's. It passes, though not under the address of a pod.
    pub const NO_POD: u32 = 2;

    /// A pod with these addresses.
    #[must_use]
    pub const fn new(v4: Addr, v6: Addr, policy: PodPolicy, flags: u32) -> Self {
        Self { v4, v6, policy, flags }
    }

    /// Its address in the family of `other`; `None` where it has none.
    #[inline(always)]
    #[must_use]
    pub fn address_like(&self, other: Addr) -> Option<Addr> {
        let addr = if other.is_v4() { self.v4 } else { self.v6 };
        (addr.halves() != [0; 2]).then_some(addr)
    }
}

/// Key of the `judged` table: a flow as one pod of this node sees it, so before translation on its way out and after it on
/// its way in. A flow between two pods of this node has a row for each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct JudgedKey {
    pub(super) peer_addr: Addr,
    pub(super) device: u32,
    pub(super) pod_port: Port,
    pub(super) peer_port: Port,
    pub(super) protocol: u8,
    pub(super) zero: [u8; 7],
}

impl JudgedKey {
    /// Of the pod behind a device, with its port, towards a peer; `protocol` is the IANA number, ports are 0 where it has
    /// none.
    #[inline(always)]
    #[must_use]
    pub const fn new(device: u32, pod_port: Port, peer: Peer, protocol: u8) -> Self {
        // As one word: of bytes the compiler makes a call that clears them, for each packet.
        let [protocol, zero @ ..] = (protocol as u64).to_le_bytes();
        Self { peer_addr: peer.addr, device, pod_port, peer_port: peer.port, protocol, zero }
    }

    /// The device that the pod is behind.
    #[must_use]
    pub const fn device(&self) -> u32 {
        self.device
    }

    /// The protocol's IANA number.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }
}

/// Row of the `judged` table: that a flow was allowed, and by what.
///
/// `basis` is one word and written at once; each of the two directions has signs of its own, so hooks on two CPUs do not write
/// to one field, but for the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Judged {
    pub(super) basis: u64,
    /// [`Enforcement::generation`] when the peer was last found to be of the class.
    pub generation: u32,
    /// When a packet was last let pass: seconds since boot.
    pub seen_s: u32,
    /// When the flow began, or was first seen: seconds since boot.
    pub begun_s: u32,
    pub(super) began: u8,
    /// What was seen on the way out.
    pub outward: Signs,
    /// What was seen on the way in.
    pub inward: Signs,
    /// How the flow stands with the policies.
    pub standing: Standing,
}

/// How a flow stands with the policies, beyond being allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Standing(pub(super) u8);

impl Standing {
    /// It is allowed, as far as anybody asked.
    pub const ALLOWED: Self = Self(0);
    /// It was allowed, is not any more, and goes on ([`PodPolicy::KEEP_INGRESS`]).
    pub const KEPT: Self = Self(0x80);
    /// How often its ends may be told that it is over: each reset that they get counts, and more than one may have to be sent
    /// before one is believed (RFC 5961 section 3.2). Whoever sends resets himself sends no more than so many.
    const MOST_TOLD: u8 = 16;

    /// Whether it goes on without being allowed.
    #[inline(always)]
    #[must_use]
    pub const fn is_kept(self) -> bool {
        self.0 & Self::KEPT.0 != 0
    }

    /// Whether its ends were told that it is over.
    #[inline(always)]
    #[must_use]
    pub const fn is_cut(self) -> bool {
        self.0 & !Self::KEPT.0 != 0
    }

    /// Told once more; `None`: often enough.
    #[inline(always)]
    #[must_use]
    pub const fn told(self) -> Option<Self> {
        let times = self.0 & !Self::KEPT.0;
        if times < Self::MOST_TOLD { Some(Self(times + 1)) } else { None }
    }
}

impl Judged {
    /// A flow that goes to the pod or leaves it, allowed by a set to a class.
    #[inline(always)]
    #[must_use]
    pub const fn new(began: Side, set: PolicySetId, class: ClassId, generation: u32, begun_s: u32) -> Self {
        Self {
            basis: Self::basis_of(set, class),
            generation,
            seen_s: begun_s,
            begun_s,
            began: matches!(began, Side::Egress) as u8,
            outward: Signs(0),
            inward: Signs(0),
            standing: Standing::ALLOWED,
        }
    }

    /// A set and a class in one word.
    #[inline(always)]
    #[must_use]
    pub const fn basis_of(set: PolicySetId, class: ClassId) -> u64 {
        (set.0 as u64) << 32 | class.0 as u64
    }

    /// The set and the class that it was allowed by, as [`Judged::basis_of`] puts them.
    #[inline(always)]
    #[must_use]
    pub const fn basis(&self) -> u64 {
        self.basis
    }

    /// Where a row has the two.
    #[inline(always)]
    #[must_use]
    pub const fn basis_of_row(row: *mut Self) -> *mut u64 {
        row.cast()
    }

    /// Replaces the set and the class.
    #[inline(always)]
    pub const fn set_basis(&mut self, basis: u64) {
        self.basis = basis;
    }

    /// The set that it was allowed by.
    #[inline(always)]
    #[must_use]
    pub const fn set(&self) -> PolicySetId {
        PolicySetId((self.basis >> 32) as u32)
    }

    /// The pod's part in the flow: [`Side::Egress`] if it began it.
    #[inline(always)]
    #[must_use]
    pub const fn began(&self) -> Side {
        if self.began != 0 { Side::Egress } else { Side::Ingress }
    }

    /// What was seen of the packets that leave the pod, or come to it.
    #[inline(always)]
    #[must_use]
    pub const fn signs(&self, side: Side) -> Signs {
        match side {
            Side::Egress => self.outward,
            Side::Ingress => self.inward,
        }
    }
}

/// Row of the `judged_shares` table, under the index of a pod's device: what the pod has of `judged`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Share {
    /// How many rows, as far as was counted.
    pub rows: u32,
    /// Since when every flow of the pod that was allowed has a row until it is forgotten: since its first one, and since the
    /// last that found no room. Seconds since boot.
    pub since_s: u32,
}

const _: () = assert!(core::mem::offset_of!(Judged, basis) == 0, "where `basis_of_row` has it");

/// The one row of the `enforcement` table: how policies are in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Enforcement {
    /// The constants below.
    pub flags: u32,
    /// Another one whenever an address or a prefix has got another class: once when that was written, and once more a grace
    /// period later, when nobody reads by what was before.
    pub generation: u32,
    /// How many rows of `judged` one pod may have.
    pub most_per_pod: u32,
    pub(super) zero: u32,
}

impl Enforcement {
    /// There are policies. Without this nobody asks anything.
    pub const ON: u32 = 1;
    /// What pods send and get that are not known yet is dropped (`--unknown-pods hold`).
    pub const HOLD_UNKNOWN: u32 = 2;

    /// With these flags.
    #[must_use]
    pub const fn new(flags: u32, generation: u32, most_per_pod: u32) -> Self {
        Self { flags, generation, most_per_pod, zero: 0 }
    }

    /// Whether there are policies.
    #[inline(always)]
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.flags & Self::ON != 0
    }
}
