//! Frames from a fuzzer's bytes: valid ones, then twisted; and whether a frame's checksums are right. Everything here is
//! computed anew from the whole packet, with nothing of Weir's: what it is to judge is kept up to date in place.

use std::net::IpAddr;

use arbitrary::Arbitrary;
use etherparse::checksum::Sum16BitWords;
use weir_ebpf::abi::{Peer, Protocol};

use crate::pool::{End, Place, PortSeed, Transport};

/// Length of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// A packet, and what is wrong with it.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) v6: bool,
    pub(crate) src: End,
    pub(crate) dst: End,
    pub(crate) carries: Carries,
    pub(crate) headers: Headers,
    pub(crate) twist: Option<Twist>,
}

/// What is in it.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Carries {
    /// With these flags if it is TCP.
    Transport(Transport, u8),
    Echo,
    /// An ICMP error from that type of a few, about a packet from one to the other.
    Error(u8, Transport, End, End),
    Other(u8),
}

/// The headers around it.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) struct Headers {
    pub(crate) ttl: Ttl,
    /// IPv4: words of options; IPv6: extension headers.
    pub(crate) extensions: u8,
    pub(crate) fragment: FragmentSeed,
    pub(crate) payload: u8,
    /// Without an Ethernet header, as from a tunnel.
    pub(crate) bare: bool,
    /// Of UDP.
    pub(crate) no_checksum: bool,
    pub(crate) may_fragment: bool,
}

impl Headers {
    /// Of packets of which nothing else matters.
    pub(crate) const PLAIN: Self = Self {
        ttl: Ttl::Plenty,
        extensions: 0,
        fragment: FragmentSeed::Whole,
        payload: 9,
        bare: false,
        no_checksum: false,
        may_fragment: false,
    };
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Ttl {
    Plenty,
    One,
    Zero,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum FragmentSeed {
    Whole,
    First(bool),
    Later(bool),
}

/// A change to a frame that was valid.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Twist {
    Flip(u8, u8),
    Cut(u8),
    Longer(u8),
}

impl Shape {
    /// The bytes, where the IP header is, and the `ether_type`.
    pub(crate) fn build(&self) -> Frame {
        let (src, dst) = (self.src.peer(self.v6), self.dst.peer(self.v6));
        let (number, content) = self.content(src, dst);
        let mut frame = build(src, dst, number, content, &self.headers);
        match self.twist {
            Some(Twist::Flip(at, bits)) => {
                if let Some(byte) = frame.bytes.get_mut(frame.l3 + usize::from(at)) {
                    *byte ^= bits;
                }
            }
            Some(Twist::Cut(len)) => frame.bytes.truncate(frame.l3 + usize::from(len)),
            Some(Twist::Longer(len)) => frame.bytes.extend(std::iter::repeat_n(0, usize::from(len))),
            None => {}
        }
        frame
    }

    fn content(&self, src: Peer, dst: Peer) -> (u8, Vec<u8>) {
        match self.carries {
            Carries::Transport(transport, flags) => {
                let protocol = transport.protocol();
                (protocol as u8, transport_content(src, dst, protocol, flags, &self.headers))
            }
            Carries::Echo => (icmp(self.v6), icmp_content(src, dst, if self.v6 { 128 } else { 8 }, &[7; 9])),
            Carries::Error(kind, transport, from, to) => {
                let (from, to) = (from.peer(self.v6), to.peer(self.v6));
                (
                    icmp(self.v6),
                    error_content(src, dst, kind, (from, to, transport.protocol()), &self.headers),
                )
            }
            Carries::Other(number) => (number, vec![number; usize::from(self.headers.payload)]),
        }
    }
}

/// A frame.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    /// Where its IP header is.
    pub(crate) l3: usize,
    pub(crate) ether_type: u16,
}

/// A segment or datagram, whole.
pub(crate) fn transport(src: Peer, dst: Peer, protocol: Protocol, flags: u8, headers: &Headers) -> Frame {
    build(src, dst, protocol as u8, transport_content(src, dst, protocol, flags, headers), headers)
}

/// An ICMP error of one of a few types, from `reporter` to `about.0`, about a packet from there to `about.1`.
pub(crate) fn error(reporter: Place, kind: u8, about: (Peer, Peer, Protocol), headers: &Headers) -> Frame {
    let v6 = !about.0.addr.is_v4();
    let src = Peer { addr: reporter.addr(v6), port: PortSeed::Any(0).port() };
    build(src, about.0, icmp(v6), error_content(src, about.0, kind, about, headers), headers)
}

const fn icmp(v6: bool) -> u8 {
    if v6 { 58 } else { 1 }
}

fn octets(peer: Peer) -> Vec<u8> {
    match IpAddr::from(peer.addr) {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn ports(src: Peer, dst: Peer) -> [u8; 4] {
    let ([a, b], [c, d]) = (src.port.host().to_be_bytes(), dst.port.host().to_be_bytes());
    [a, b, c, d]
}

fn pseudo_sum(src: &[u8], dst: &[u8], number: u8, content: &[u8]) -> Sum16BitWords {
    let len = u32::try_from(content.len()).expect("short");
    let sum = Sum16BitWords::new().add_slice(src).add_slice(dst).add_2bytes([0, number]).add_slice(content);
    sum.add_slice(&len.to_be_bytes())
}

fn transport_content(src: Peer, dst: Peer, protocol: Protocol, flags: u8, headers: &Headers) -> Vec<u8> {
    let mut content = ports(src, dst).to_vec();
    let payload: Vec<u8> = (0..headers.payload).collect();
    let checksum = match protocol {
        Protocol::Tcp => {
            content.extend([0, 0, 1, 0, 0, 0, 2, 0, 5 << 4, flags, 1, 0, 0, 0, 0, 0]);
            Some(16)
        }
        Protocol::Udp => {
            content.extend((8 + u16::from(headers.payload)).to_be_bytes());
            content.extend([0, 0]);
            (!headers.no_checksum).then_some(6)
        }
        Protocol::Sctp => {
            content.extend([1, 2, 3, 4, 0, 0, 0, 0]);
            None
        }
    };
    content.extend(payload);
    if let Some(at) = checksum {
        let sum = pseudo_sum(&octets(src), &octets(dst), protocol as u8, &content);
        content[at..at + 2].copy_from_slice(&sum.to_ones_complement_with_no_zero().to_ne_bytes());
    }
    if protocol == Protocol::Sctp {
        let checksum = crc32c(&content);
        content[8..12].copy_from_slice(&checksum.to_le_bytes());
    }
    content
}

fn icmp_content(src: Peer, dst: Peer, kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut content = vec![kind, 0, 0, 0];
    content.extend(rest);
    let sum = if src.addr.is_v4() {
        Sum16BitWords::new().add_slice(&content)
    } else {
        pseudo_sum(&octets(src), &octets(dst), 58, &content)
    };
    content[2..4].copy_from_slice(&sum.ones_complement().to_ne_bytes());
    content
}

fn error_content(
    src: Peer,
    dst: Peer,
    kind: u8,
    about: (Peer, Peer, Protocol),
    headers: &Headers,
) -> Vec<u8> {
    let kinds = if src.addr.is_v4() { [3, 11, 12, 5] } else { [1, 2, 3, 4] };
    let (from, to, protocol) = about;
    let quoted = transport(from, to, protocol, 0, &Headers { bare: true, ..Headers::PLAIN });
    // Of the transport header 8 bytes or more are quoted, sometimes fewer.
    let len = quoted.bytes.len().min(20 + usize::from(headers.payload));
    let rest = [&[0, 0, 5, 0], &quoted.bytes[..len]].concat();
    icmp_content(src, dst, kinds[usize::from(kind) % 4], &rest)
}

fn build(src: Peer, dst: Peer, number: u8, content: Vec<u8>, headers: &Headers) -> Frame {
    let v6 = !src.addr.is_v4();
    let ip =
        if v6 { ipv6(src, dst, number, content, headers) } else { ipv4(src, dst, number, content, headers) };
    let ether_type = if v6 { IPV6 } else { IPV4 };
    if headers.bare {
        return Frame { bytes: ip, l3: 0, ether_type };
    }
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    bytes.extend(ether_type.to_be_bytes());
    bytes.extend(ip);
    Frame { bytes, l3: ETHERNET, ether_type }
}

const fn ttl(headers: &Headers) -> u8 {
    match headers.ttl {
        Ttl::Plenty => 64,
        Ttl::One => 1,
        Ttl::Zero => 0,
    }
}

fn ipv4(src: Peer, dst: Peer, number: u8, content: Vec<u8>, headers: &Headers) -> Vec<u8> {
    let words = headers.extensions % 4;
    let header_len = 20 + 4 * u16::from(words);
    let (id, place): (bool, u16) = match headers.fragment {
        FragmentSeed::Whole => (false, if headers.may_fragment { 0 } else { 0x4000 }),
        FragmentSeed::First(id) => (id, 0x2000),
        FragmentSeed::Later(id) => (id, 3),
    };
    let length = header_len + u16::try_from(content.len()).expect("short");
    let mut ip = vec![0x45 + words, 0];
    ip.extend(length.to_be_bytes());
    ip.extend([0, u8::from(id)]);
    ip.extend(place.to_be_bytes());
    ip.extend([ttl(headers), number, 0, 0]);
    ip.extend(octets(src));
    ip.extend(octets(dst));
    // No operation (RFC 791 section 3.1).
    ip.extend(std::iter::repeat_n(1, 4 * usize::from(words)));
    let checksum = Sum16BitWords::new().add_slice(&ip).ones_complement();
    ip[10..12].copy_from_slice(&checksum.to_ne_bytes());
    ip.extend(content);
    ip
}

fn ipv6(src: Peer, dst: Peer, number: u8, content: Vec<u8>, headers: &Headers) -> Vec<u8> {
    // Hop-by-hop options, destination options, routing, authentication: each 8 or 12 bytes.
    let kinds = [0_u8, 60, 43, 51, 60, 60, 60, 60, 60];
    let mut chain: Vec<u8> = kinds.into_iter().take(usize::from(headers.extensions % 10)).collect();
    let fragment = match headers.fragment {
        FragmentSeed::Whole => None,
        FragmentSeed::First(id) => Some((1_u16, id)),
        FragmentSeed::Later(id) => Some((3 << 3, id)),
    };
    chain.extend(fragment.map(|_| 44));
    let mut body = Vec::new();
    for (kind, next) in chain.iter().zip(chain.iter().skip(1).chain([&number])) {
        match (*kind, fragment) {
            (44, Some((place, id))) => {
                body.extend([*next, 0]);
                body.extend(place.to_be_bytes());
                body.extend([0, 0, 0, u8::from(id)]);
            }
            (51, _) => body.extend([*next, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]),
            (43, _) => body.extend([*next, 0, 4, 0, 0, 0, 0, 0]),
            _ => body.extend([*next, 0, 1, 4, 0, 0, 0, 0]),
        }
    }
    body.extend(content);
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
    ip.extend([chain.first().copied().unwrap_or(number), ttl(headers)]);
    ip.extend(octets(src));
    ip.extend(octets(dst));
    ip.extend(body);
    ip
}

/// The checksum of SCTP (RFC 9260 section 6.8), a bit at a time.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1)))
    })
}

/// Whether the transport checksum over these bytes is right; `None` where there is none, or nobody can tell.
pub(crate) fn is_transport_right(src: &[u8], dst: &[u8], number: u8, content: &[u8]) -> Option<bool> {
    let right = |content: &[u8]| pseudo_sum(src, dst, number, content).ones_complement() == 0;
    match number {
        6 if content.len() >= 20 => Some(right(content)),
        17 if content.len() >= 8 => {
            let len = usize::from(u16::from_be_bytes([content[4], content[5]]));
            (content[6..8] != [0, 0] && len >= 8).then(|| content.get(..len).map(right))?
        }
        132 if content.len() >= 12 => {
            let mut zeroed = content.to_vec();
            zeroed[8..12].fill(0);
            Some(crc32c(&zeroed).to_le_bytes() == content[8..12])
        }
        1 if content.len() >= 4 => Some(Sum16BitWords::new().add_slice(content).ones_complement() == 0),
        58 if content.len() >= 4 => Some(right(content)),
        _ => None,
    }
}
