//! Packets: bytes to a [`Packet`], once; nothing downstream looks at bytes again.
//!
//! Called by the programs at tc and XDP hooks, by the tests' packet path and by the fuzzers.

mod parse;

pub use parse::{Unusable, parse, parse_plain, parse_quoted, parse_quoted_ends};

use crate::abi::{Peer, Protocol};

/// Something to read bytes from: a packet in the kernel, which may be in pieces, or a slice.
pub trait Bytes {
    /// The `N` bytes at `offset` from the beginning of the frame; `None` where it has fewer.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.get(usize::try_from(offset).ok()?..)?.first_chunk().copied()
    }
}

/// An IP packet, as far as translation asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Who sent it. The port is 0 where it has none: other kinds than [`Kind::Transport`], and later fragments.
    pub src: Peer,
    /// Whom it is for; the port as above.
    pub dst: Peer,
    /// What it carries, after all extension headers.
    pub kind: Kind,
    /// The protocol of that, by its IANA number; of a later piece what its fragment header says.
    pub protocol: u8,
    /// Whether it is a piece of a datagram, and of which.
    pub fragment: Fragment,
    /// The flags of a TCP segment (RFC 9293 section 3.1: FIN 1, SYN 2, RST 4, ACK 16); 0 of anything else.
    pub tcp_flags: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// The four bytes of the IP header before its addresses: time to live, protocol and checksum; in IPv6 length, next
    /// header and hop limit.
    pub before_addresses: [u8; 4],
    /// Bytes from the beginning of the frame to the IP header: 0 or the length of an Ethernet header.
    pub l3: u32,
    /// Bytes from the beginning of the frame to the header after the IP headers.
    pub l4: u32,
    /// Length of the IP packet in bytes, as its header says.
    pub length: u32,
}

impl Packet {
    /// Whether ports stand in the packet itself: not in a later piece of a datagram.
    #[inline(always)]
    #[must_use]
    pub const fn has_ports(&self) -> bool {
        matches!(self.kind, Kind::Transport(_)) && !matches!(self.fragment, Fragment::Later(_))
    }
}

/// FIN of [`Packet::tcp_flags`]
pub const TCP_FIN: u8 = 0x01;
/// SYN of [`Packet::tcp_flags`]
pub const TCP_SYN: u8 = 0x02;
/// RST of [`Packet::tcp_flags`]
pub const TCP_RST: u8 = 0x04;
/// ACK of [`Packet::tcp_flags`]
pub const TCP_ACK: u8 = 0x10;

/// What a packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A segment or datagram of a protocol that Services have.
    Transport(Protocol),
    /// An ICMP or ICMPv6 echo request.
    EchoRequest,
    /// An ICMP or ICMPv6 error. It quotes the packet that it is about, right after its own 8 bytes.
    IcmpError,
    /// Anything else.
    Other,
}

/// Whether a packet is a piece of a datagram. The number is the identification: 16 bits in IPv4, 32 in IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragment {
    /// It is whole.
    Whole,
    /// The first piece: it has the ports.
    First(u32),
    /// A later one: it has not.
    Later(u32),
}

/// The packet that an ICMP error is about, as the error quotes it: 8 bytes after its IP headers are certain, no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Quoted {
    /// Its protocol.
    pub protocol: Protocol,
    /// Who sent it.
    pub src: Peer,
    /// Whom it was for.
    pub dst: Peer,
    /// Bytes from the beginning of the frame to its IP header.
    pub l3: u32,
    /// Bytes from the beginning of the frame to its ports.
    pub l4: u32,
}
