//! Addresses, ports and protocols: one form for both families.

use core::cmp::Ordering;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IP address: 16 bytes in network order, IPv4 as v4-mapped (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).
///
/// Kept as two words of 64 bits, so that it is copied, compared and hashed in as few steps as the machine can.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Addr([u64; 2]);

/// What comes before the IPv4 address in the second half of every v4-mapped address; the first half is zero.
const V4_MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Addr {
    /// From the four words of an IPv6 address, each in network order.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(zerocopy::transmute!(words))
    }

    /// From an IPv4 address in network order.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(word: u32) -> Self {
        Self([0, zerocopy::transmute!([V4_MAPPED, word])])
    }

    /// The four words, each in network order.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> [u32; 4] {
        zerocopy::transmute!(self.0)
    }

    /// The halves, each with its bytes as they stand in the address.
    #[inline(always)]
    #[must_use]
    pub const fn halves(self) -> [u64; 2] {
        self.0
    }

    /// The IPv4 address in network order; meaningful only where [`Addr::is_v4`] holds.
    #[inline(always)]
    #[must_use]
    pub const fn v4(self) -> u32 {
        let [_, word]: [u32; 2] = zerocopy::transmute!(self.0[1]);
        word
    }

    /// The unspecified address of the same family (`0.0.0.0` as v4-mapped, or `::`): node ports stand under it.
    #[inline(always)]
    #[must_use]
    pub const fn unspecified(self) -> Self {
        if self.is_v4() { Self::from_v4(0) } else { Self([0; 2]) }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(self) -> bool {
        let [mapped, _]: [u32; 2] = zerocopy::transmute!(self.0[1]);
        self.0[0] == 0 && mapped == V4_MAPPED
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        let bytes = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Self(zerocopy::transmute!(bytes))
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        let octets: [u8; 16] = zerocopy::transmute!(addr.0);
        Ipv6Addr::from(octets).to_canonical()
    }
}

impl core::fmt::Display for Addr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

/// A port in network order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Port(u16);

impl Port {
    /// From a number in host order.
    #[inline(always)]
    #[must_use]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// From a number that already is in network order.
    #[inline(always)]
    #[must_use]
    pub const fn from_network(network: u16) -> Self {
        Self(network)
    }

    /// As a number in network order.
    #[inline(always)]
    #[must_use]
    pub const fn network(self) -> u16 {
        self.0
    }

    /// As a number in host order.
    #[inline(always)]
    #[must_use]
    pub const fn host(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// An address and a port: one end of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Peer {
    /// The address.
    pub addr: Addr,
    /// The port.
    pub port: Port,
}

impl Peer {
    /// Some total order: by the words as this machine reads them. It means nothing beyond that, and is the same only
    /// on machines of one byte order.
    #[inline(always)]
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        let (a, b) = (self.addr.0, other.addr.0);
        // The last half first: among neighbours it is the one that differs.
        if a[1] != b[1] {
            a[1].cmp(&b[1])
        } else if a[0] != b[0] {
            a[0].cmp(&b[0])
        } else {
            self.port.0.cmp(&other.port.0)
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self { addr: address.ip().into(), port: Port::new(address.port()) }
    }
}

impl From<Peer> for SocketAddr {
    fn from(peer: Peer) -> Self {
        Self::new(peer.addr.into(), peer.port.host())
    }
}

impl core::fmt::Display for Peer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

/// A transport protocol that a Service can have; the value is the IANA number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Protocol {
    /// TCP
    Tcp = 6,
    /// UDP
    Udp = 17,
    /// SCTP: translated per packet only; its sockets do not pass the socket hooks.
    Sctp = 132,
}

impl Protocol {
    /// From an IANA number.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    /// As the API writes it (`ServicePort.protocol`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl core::fmt::Display for Protocol {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}
