//! Policies: who is isolated how, which class an address is of, and what a class may.
//!
//! Every row but the two classes says the same for as long as it exists; which sets a pod has is in its [`super::BoundPod`].

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Addr, Port};

/// Number of what all policies that select a pod allow in one direction.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct PolicySetId(pub u32);

impl PolicySetId {
    /// No policy isolates the pod, or the policies allow everything.
    pub const OPEN: Self = Self(0);
    /// Nothing is allowed.
    pub const CLOSED: Self = Self(1);
    /// The first that has rows.
    pub const FIRST: Self = Self(2);
}

/// Number of a class: addresses that no policy on this node tells apart.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct ClassId(pub u32);

impl ClassId {
    /// Whom no selector and no block matches.
    pub const EVERYBODY: Self = Self(0);
    /// The first that has rows.
    pub const FIRST: Self = Self(1);
}

/// Number of a set of ports.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct PortRulesId(pub u32);

impl PortRulesId {
    /// Every port of every protocol, and what has no ports (ICMP).
    pub const ALL: Self = Self(0);
    /// The same; but a policy that only watches would deny all of it.
    pub const AUDIT: Self = Self(1);
    /// Nothing, whatever the row of [`ClassId::EVERYBODY`] says.
    pub const NONE: Self = Self(2);
    /// The first that has rows.
    pub const FIRST: Self = Self(3);
}

/// A pod's part in a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Side {
    /// The flow comes to the pod.
    Ingress,
    /// The flow leaves the pod.
    Egress,
}

/// How a pod is isolated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PodPolicy {
    /// What may come to it.
    pub ingress: PolicySetId,
    /// What may leave it.
    pub egress: PolicySetId,
    /// The constants below.
    pub flags: u32,
}

impl PodPolicy {
    /// Of a pod that nothing isolates.
    pub const OPEN: Self = Self::new(PolicySetId::OPEN, PolicySetId::OPEN);
    /// What came to the pod while that was allowed goes on when it no longer is.
    pub const KEEP_INGRESS: u32 = 1;
    /// The same of what the pod began.
    pub const KEEP_EGRESS: u32 = 2;
    /// Only policies that watch isolate the pod as to what comes to it: nothing is denied there, also for want of room.
    pub const WATCH_INGRESS: u32 = 4;
    /// The same as to what it begins.
    pub const WATCH_EGRESS: u32 = 8;

    /// With these sets and no flags.
    #[must_use]
    pub const fn new(ingress: PolicySetId, egress: PolicySetId) -> Self {
        Self { ingress, egress, flags: 0 }
    }

    /// Whether nothing isolates it.
    #[inline(always)]
    #[must_use]
    pub fn is_open(self) -> bool {
        self.ingress == PolicySetId::OPEN && self.egress == PolicySetId::OPEN
    }

    /// What holds for one side of its flows.
    #[inline(always)]
    #[must_use]
    pub const fn set(self, side: Side) -> PolicySetId {
        match side {
            Side::Ingress => self.ingress,
            Side::Egress => self.egress,
        }
    }

    /// Whether anything may be denied on one side of its flows.
    #[inline(always)]
    #[must_use]
    pub fn denies(self, side: Side) -> bool {
        let watched = match side {
            Side::Ingress => Self::WATCH_INGRESS,
            Side::Egress => Self::WATCH_EGRESS,
        };
        self.set(side) != PolicySetId::OPEN && self.flags & watched == 0
    }

    /// Whether anything may be denied on either side.
    #[inline(always)]
    #[must_use]
    pub fn denies_any(self) -> bool {
        self.denies(Side::Ingress) || self.denies(Side::Egress)
    }

    /// Whether flows that began on this side go on when they are no longer allowed.
    #[inline(always)]
    #[must_use]
    pub const fn keeps(self, side: Side) -> bool {
        let flag = match side {
            Side::Ingress => Self::KEEP_INGRESS,
            Side::Egress => Self::KEEP_EGRESS,
        };
        self.flags & flag != 0
    }
}

/// Key of the `network_classes` table, an LPM trie: a prefix, or an address with all of its bits. The value is a
/// [`ClassId`].
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct NetworkKey {
    /// How many bits of the address count; of IPv4 96 more than its prefix length.
    pub prefix_len: u32,
    pub(super) addr: [u8; 16],
}

impl NetworkKey {
    /// The first `bits` of an address, at most 128. The others have to be 0.
    #[inline(always)]
    #[must_use]
    pub const fn new(addr: Addr, bits: u32) -> Self {
        Self { prefix_len: bits, addr: zerocopy::transmute!(addr.words()) }
    }

    /// The address.
    #[must_use]
    pub const fn addr(&self) -> Addr {
        Addr::from_words(zerocopy::transmute!(self.addr))
    }
}

/// Key of the `verdicts` table. The value is a [`PortRulesId`]; without a row that of [`ClassId::EVERYBODY`] holds, and without
/// that nothing is allowed.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct VerdictKey {
    /// The pod's set.
    pub set: PolicySetId,
    /// The peer's class.
    pub class: ClassId,
}

/// Key of the `port_rules` table, an LPM trie: of one set of ports, all whose first bits are these.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PortRuleKey {
    /// How many of the bits after this field count: [`PortRuleKey::RULES_BITS`], or [`PortRuleKey::PROTOCOL_BITS`] and those
    /// of the port.
    pub prefix_len: u32,
    /// Of which set.
    pub rules: PortRulesId,
    /// IANA number
    pub protocol: u8,
    pub(super) zero: u8,
    /// In network order.
    pub(super) port: [u8; 2],
}

impl PortRuleKey {
    /// The bits of the set alone.
    pub const RULES_BITS: u32 = 32;
    /// The bits before the port's.
    pub const PROTOCOL_BITS: u32 = 48;

    /// Everything that no longer prefix of the set has: any port of any protocol, and what has no ports.
    #[inline(always)]
    #[must_use]
    pub const fn otherwise(rules: PortRulesId) -> Self {
        let port = Port::new(0).network().to_ne_bytes();
        Self { prefix_len: Self::RULES_BITS, rules, protocol: 0, zero: 0, port }
    }

    /// The ports that begin with the first `bits` of `port`, at most 16. The others have to be 0.
    #[inline(always)]
    #[must_use]
    pub const fn new(rules: PortRulesId, protocol: u8, port: Port, bits: u32) -> Self {
        let prefix_len = Self::PROTOCOL_BITS + bits;
        Self { prefix_len, rules, protocol, zero: 0, port: port.network().to_ne_bytes() }
    }

    /// What counts of it, as it stands in memory.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u32; 2] {
        let [a, b] = self.port;
        [self.rules.0, u32::from_ne_bytes([self.protocol, self.zero, a, b])]
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> Port {
        Port::from_network(u16::from_ne_bytes(self.port))
    }
}

/// Row of the `port_rules` table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct PortRule(u32);

impl PortRule {
    /// These ports may not be used, as where there is no row.
    pub const DENY: Self = Self(0);
    /// They may. Anything but this and the next denies.
    pub const ALLOW: Self = Self(1);
    /// They may, but a policy that only watches would deny it.
    pub const AUDIT: Self = Self(2);
}

/// Key of the `policy_names` table: a number of the tables of policies, and of which kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PolicyNameKey {
    /// One of the constants below.
    pub kind: u32,
    /// The number.
    pub id: u32,
}

impl PolicyNameKey {
    /// Of a [`PolicySetId`]
    pub const SET: u32 = 1;
    /// Of a [`ClassId`]
    pub const CLASS: u32 = 2;
    /// Of a [`PortRulesId`]
    pub const PORTS: u32 = 3;
}

/// Row of the `policy_names` table: a digest of what the number means. No program reads it; the next agent does, and gives the
/// same numbers to the same meanings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct PolicyName(pub [u8; 16]);

const _: () = {
    assert!(size_of::<PolicyNameKey>() == 8 && size_of::<PolicyName>() == 16);
    assert!(size_of::<PodPolicy>() == 12 && offset_of!(PodPolicy, egress) == 4);
    assert!(size_of::<NetworkKey>() == 20 && offset_of!(NetworkKey, addr) == 4);
    assert!(size_of::<VerdictKey>() == 8 && offset_of!(VerdictKey, class) == 4);
    assert!(size_of::<PortRuleKey>() == 12 && offset_of!(PortRuleKey, rules) == 4);
    assert!(offset_of!(PortRuleKey, protocol) == 8 && offset_of!(PortRuleKey, port) == 10);
    assert!(size_of::<PortRule>() == 4);
};
