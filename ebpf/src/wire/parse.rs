//! Headers, up to the ports.

use super::{Bytes, Fragment, Kind, Packet, Quoted};
use crate::abi::{Addr, Peer, Port, Protocol};

/// Why there is no [`Packet`] in these bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// The headers are cut short, or say lengths that cannot be, or are more than anybody sends. The stack's to judge.
    Malformed,
    /// An IPv6 header with a v4-mapped address (RFC 4291 section 2.5.5.2: never on the wire). Its place in the tables
    /// is an IPv4 address's, so it must not get further.
    MappedAddress,
}

/// `ether_type` of IPv4 (RFC 894).
const IPV4: u16 = 0x0800;
/// `ether_type` of IPv6 (RFC 2464).
const IPV6: u16 = 0x86dd;

/// Protocol numbers that no Service has (IANA protocol numbers; RFC 8200 section 4).
mod number {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ICMP: u8 = 1;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const ICMPV6: u8 = 58;
    pub(super) const DESTINATION_OPTIONS: u8 = 60;
}

/// Extension headers that are walked. RFC 8200 recommends an order in which there are at most seven.
const MOST_EXTENSIONS: u32 = 8;

/// Where the ports of TCP, UDP and SCTP end, and the flags of TCP (RFC 9293 section 3.1).
const PORTS_END: u32 = 4;
const FLAGS_END: u32 = 14;

/// What IP headers say.
struct Headers {
    src: Addr,
    dst: Addr,
    protocol: u8,
    fragment: Fragment,
    ttl: u8,
    before_addresses: [u8; 4],
    l4: u32,
    length: u32,
}

/// The packet whose IP header is at `l3`; `ether_type` in host order, as in an Ethernet header.
///
/// # Errors
/// [`Unusable`]
#[inline(always)]
pub fn parse(bytes: &(impl Bytes + ?Sized), l3: u32, ether_type: u16) -> Result<Packet, Unusable> {
    let headers = match ether_type {
        IPV4 => parse_v4(bytes, l3)?,
        IPV6 => parse_v6(bytes, l3)?,
        _ => return Err(Unusable::NotIp),
    };
    let mut packet = headers.packet(l3);
    if let Some(protocol) = Protocol::from_number(headers.protocol.into()) {
        packet.kind = Kind::Transport(protocol);
        match packet.fragment {
            Fragment::Later(_) => {}
            Fragment::First(_) if is_tiny(&packet, protocol) => return Err(Unusable::Malformed),
            Fragment::First(_) | Fragment::Whole => parse_ports(bytes, protocol, &mut packet)?,
        }
    } else if matches!(packet.fragment, Fragment::Whole) {
        packet.kind = parse_icmp(bytes, headers.protocol, ether_type, packet.l4)?;
    }
    Ok(packet)
}

/// The same of a plain packet, as nearly every one is: a whole segment of TCP or datagram of UDP, without options of IPv4
/// or extension headers of IPv6, so that everything is at its place. `None`: another one, or bytes of these headers are
/// missing.
#[inline(always)]
pub fn parse_plain(bytes: &(impl Bytes + ?Sized), l3: u32, ether_type: u16) -> Option<Packet> {
    let (headers, l4) = match ether_type {
        IPV4 => (parse_v4(bytes, l3).ok()?, l3 + 20),
        IPV6 => (parse_v6_header(bytes, l3).ok()?, l3 + 40),
        _ => return None,
    };
    if headers.l4 != l4 || !matches!(headers.fragment, Fragment::Whole) {
        return None;
    }
    let protocol = Protocol::from_number(headers.protocol.into())?;
    match protocol {
        Protocol::Tcp => drop(bytes.load::<20>(l4)?),
        Protocol::Udp => drop(bytes.load::<8>(l4)?),
        Protocol::Sctp => return None,
    }
    let mut packet = Headers { l4, ..headers }.packet(l3);
    packet.kind = Kind::Transport(protocol);
    parse_ports(bytes, protocol, &mut packet).ok()?;
    Some(packet)
}

impl Headers {
    /// What is known of the packet so far.
    #[inline(always)]
    fn packet(&self, l3: u32) -> Packet {
        Packet {
            src: Peer { addr: self.src, port: Port::default() },
            dst: Peer { addr: self.dst, port: Port::default() },
            kind: Kind::Other,
            protocol: self.protocol,
            fragment: self.fragment,
            tcp_flags: 0,
            ttl: self.ttl,
            before_addresses: self.before_addresses,
            l3,
            l4: self.l4,
            length: self.length,
        }
    }
}

#[inline(always)]
fn parse_v4(bytes: &(impl Bytes + ?Sized), l3: u32) -> Result<Headers, Unusable> {
    let header: [u8; 20] = bytes.load(l3).ok_or(Unusable::Malformed)?;
    // By words, and not by bytes that the compiler would put together again one by one.
    let [first, pieces, before_addresses, src, dst]: [[u8; 4]; 5] = zerocopy::transmute!(header);
    let header_len = u32::from(first[0] & 0x0f) * 4;
    let length = u32::from(u16::from_be_bytes([first[2], first[3]]));
    if first[0] >> 4 != 4 || header_len < 20 || length < header_len {
        return Err(Unusable::Malformed);
    }
    let id = u32::from(u16::from_be_bytes([pieces[0], pieces[1]]));
    let offset = u16::from_be_bytes([pieces[2], pieces[3]]);
    let [ttl, protocol, ..] = before_addresses;
    Ok(Headers {
        src: Addr::from_v4(u32::from_ne_bytes(src)),
        dst: Addr::from_v4(u32::from_ne_bytes(dst)),
        protocol,
        fragment: fragment(offset & 0x1fff != 0, offset & 0x2000 != 0, id),
        ttl,
        before_addresses,
        l4: l3 + header_len,
        length,
    })
}

#[inline(always)]
fn parse_v6(bytes: &(impl Bytes + ?Sized), l3: u32) -> Result<Headers, Unusable> {
    let mut headers = parse_v6_header(bytes, l3)?;
    walk_extensions(bytes, &mut headers)?;
    Ok(headers)
}

/// The header that every packet has.
#[inline(always)]
fn parse_v6_header(bytes: &(impl Bytes + ?Sized), l3: u32) -> Result<Headers, Unusable> {
    let header: [u8; 8] = bytes.load(l3).ok_or(Unusable::Malformed)?;
    let addrs: [u8; 32] = bytes.load(l3 + 8).ok_or(Unusable::Malformed)?;
    let [src, dst]: [Addr; 2] = zerocopy::transmute!(addrs);
    if header[0] >> 4 != 6 {
        return Err(Unusable::Malformed);
    }
    if src.is_v4() || dst.is_v4() {
        return Err(Unusable::MappedAddress);
    }
    Ok(Headers {
        src,
        dst,
        protocol: header[6],
        fragment: Fragment::Whole,
        ttl: header[7],
        before_addresses: [header[4], header[5], header[6], header[7]],
        l4: l3 + 40,
        length: u32::from(u16::from_be_bytes([header[4], header[5]])) + 40,
    })
}

/// To the first header that is no extension (RFC 8200 section 4). Behind a later fragment there is none.
#[inline(always)]
fn walk_extensions(bytes: &(impl Bytes + ?Sized), headers: &mut Headers) -> Result<(), Unusable> {
    for _ in 0..MOST_EXTENSIONS {
        let units = match headers.protocol {
            number::HOP_BY_HOP | number::ROUTING | number::DESTINATION_OPTIONS => 8,
            number::AUTHENTICATION => 4,
            number::FRAGMENT => {
                walk_fragment(bytes, headers)?;
                if matches!(headers.fragment, Fragment::Later(_)) {
                    return Ok(());
                }
                continue;
            }
            _ => return Ok(()),
        };
        let [next, len]: [u8; 2] = bytes.load(headers.l4).ok_or(Unusable::Malformed)?;
        // In units of 8 bytes, less the first; of an authentication header in units of 4, less the first two.
        headers.l4 += if units == 8 { (u32::from(len) + 1) * 8 } else { (u32::from(len) + 2) * 4 };
        headers.protocol = next;
    }
    Err(Unusable::Malformed)
}

#[inline(always)]
fn walk_fragment(bytes: &(impl Bytes + ?Sized), headers: &mut Headers) -> Result<(), Unusable> {
    // A piece of a piece: what is in it is known only after it was put together twice.
    if !matches!(headers.fragment, Fragment::Whole) {
        return Err(Unusable::Malformed);
    }
    let header: [u8; 8] = bytes.load(headers.l4).ok_or(Unusable::Malformed)?;
    let offset = u16::from_be_bytes([header[2], header[3]]);
    let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    // The offset is in the upper 13 bits. Neither offset nor more: a datagram in one piece (RFC 6946).
    headers.fragment = fragment(offset & 0xfff8 != 0, offset & 1 != 0, id);
    headers.protocol = header[0];
    headers.l4 += 8;
    Ok(())
}

#[inline(always)]
const fn fragment(has_offset: bool, more: bool, id: u32) -> Fragment {
    match (has_offset, more) {
        (true, _) => Fragment::Later(id),
        (false, true) => Fragment::First(id),
        (false, false) => Fragment::Whole,
    }
}

#[inline(always)]
fn parse_ports(
    bytes: &(impl Bytes + ?Sized),
    protocol: Protocol,
    packet: &mut Packet,
) -> Result<(), Unusable> {
    let loaded = if matches!(protocol, Protocol::Tcp) {
        let header: Option<[u8; 14]> = bytes.load(packet.l4);
        header.map(|[a, b, c, d, .., flags]| (ports([a, b, c, d]), flags))
    } else {
        load_ports(bytes, packet.l4).map(|ports| (ports, 0))
    };
    let ([src, dst], flags) = loaded.ok_or(Unusable::Malformed)?;
    packet.src.port = src;
    packet.dst.port = dst;
    packet.tcp_flags = flags;
    Ok(())
}

/// Whether a first piece ends before what is read of it (RFC 1858 section 3): behind its end there are the bytes that fill up
/// a frame, and flags that come with the next piece are other ones.
#[inline(always)]
fn is_tiny(packet: &Packet, protocol: Protocol) -> bool {
    let least = if matches!(protocol, Protocol::Tcp) { FLAGS_END } else { PORTS_END };
    packet.l3 + packet.length < packet.l4 + least
}

/// The two ports with which TCP, UDP and SCTP begin.
#[inline(always)]
fn load_ports(bytes: &(impl Bytes + ?Sized), l4: u32) -> Option<[Port; 2]> {
    bytes.load(l4).map(ports)
}

#[inline(always)]
const fn ports([a, b, c, d]: [u8; 4]) -> [Port; 2] {
    [Port::from_network(u16::from_ne_bytes([a, b])), Port::from_network(u16::from_ne_bytes([c, d]))]
}

/// Errors are those that quote a packet: of ICMP destination unreachable, time exceeded, parameter problem (RFC 792);
/// of ICMPv6 everything below 5 (RFC 4443 section 2.1). A redirect is none.
#[inline(always)]
fn parse_icmp(
    bytes: &(impl Bytes + ?Sized),
    protocol: u8,
    ether_type: u16,
    l4: u32,
) -> Result<Kind, Unusable> {
    let is_icmp = match (protocol, ether_type) {
        (number::ICMP, IPV4) => true,
        (number::ICMPV6, IPV6) => false,
        _ => return Ok(Kind::Other),
    };
    let [kind] = bytes.load(l4).ok_or(Unusable::Malformed)?;
    Ok(match (is_icmp, kind) {
        (true, 8) | (false, 128) => Kind::EchoRequest,
        (true, 3 | 11 | 12) | (false, 1..=4) => Kind::IcmpError,
        _ => Kind::Other,
    })
}

/// The packet that an ICMP error quotes; `None` where it quotes too little, or a protocol that Services have not.
#[inline(always)]
pub fn parse_quoted(bytes: &(impl Bytes + ?Sized), error: &Packet) -> Option<Quoted> {
    let l3 = error.l4 + 8;
    let headers = if error.src.addr.is_v4() { parse_v4(bytes, l3) } else { parse_v6(bytes, l3) }.ok()?;
    if matches!(headers.fragment, Fragment::Later(_)) {
        return None;
    }
    let protocol = Protocol::from_number(headers.protocol.into())?;
    let [src, dst] = load_ports(bytes, headers.l4)?;
    Some(Quoted {
        src: Peer { addr: headers.src, port: src },
        dst: Peer { addr: headers.dst, port: dst },
        protocol,
        l3,
        l4: headers.l4,
    })
}

/// The ends of the packet that an ICMP error quotes, and its protocol's number, also of an echo, which has no ports; `None`
/// where it quotes too little or something else.
#[inline(always)]
pub fn parse_quoted_ends(bytes: &(impl Bytes + ?Sized), error: &Packet) -> Option<(Peer, Peer, u8)> {
    let l3 = error.l4 + 8;
    let is_v4 = error.src.addr.is_v4();
    let headers = if is_v4 { parse_v4(bytes, l3) } else { parse_v6(bytes, l3) }.ok()?;
    if matches!(headers.fragment, Fragment::Later(_)) {
        return None;
    }
    let first: [u8; 4] = bytes.load(headers.l4)?;
    let [src, dst] = match (Protocol::from_number(headers.protocol.into()), is_v4, headers.protocol, first[0])
    {
        (Some(_), ..) => ports(first),
        (None, true, number::ICMP, 0 | 8) | (None, false, number::ICMPV6, 128 | 129) => [Port::default(); 2],
        _ => return None,
    };
    let end = |addr, port| Peer { addr, port };
    Some((end(headers.src, src), end(headers.dst, dst), headers.protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv6 packet with two fragment headers, whose second and third bytes of offset and flags are these; UDP.
    fn twice_in_pieces(outer: u8, inner: u8) -> Result<Packet, Unusable> {
        let mut bytes = [0; 64];
        (bytes[0], bytes[5], bytes[6], bytes[7]) = (0x60, 24, number::FRAGMENT, 64);
        (bytes[8], bytes[24]) = (0xfd, 0xfd);
        (bytes[40], bytes[43], bytes[47]) = (number::FRAGMENT, outer, 1);
        (bytes[48], bytes[51], bytes[55]) = (Protocol::Udp as u8, inner, 2);
        parse(bytes.as_slice(), 0, IPV6)
    }

    /// A whole IPv4 packet of this protocol, whose header has so many words.
    fn whole(protocol: u8, words: u8) -> [u8; 64] {
        let mut bytes = [0; 64];
        (bytes[0], bytes[3], bytes[9]) = (0x40 | words, 64, protocol);
        bytes[usize::from(words) * 4] = 0x12;
        bytes
    }

    #[test]
    fn plain_packets_have_everything_at_its_place() {
        let [tcp, udp, sctp, icmp] = [6, 17, 132, number::ICMP];
        for (protocol, least) in [(tcp, 40), (udp, 28)] {
            let bytes = whole(protocol, 5);
            assert_eq!(parse_plain(&bytes[..least], 0, IPV4), parse(&bytes[..], 0, IPV4).ok());
            assert!(
                parse_plain(&bytes[..least], 0, IPV4).is_some_and(|packet| packet.src.port.host() == 0x1200)
            );
            assert_eq!(parse_plain(&bytes[..least - 1], 0, IPV4), None, "its header is cut short");
            assert_eq!(parse_plain(&whole(protocol, 6)[..], 0, IPV4), None, "it has options");
            let mut piece = bytes;
            piece[6] = 0x20;
            assert_eq!(parse_plain(&piece[..], 0, IPV4), None, "there is more of it");
        }
        for protocol in [sctp, icmp] {
            assert_eq!(parse_plain(&whole(protocol, 5)[..], 0, IPV4), None);
        }
    }

    /// The first piece of a datagram, with so many bytes of it, in a longer frame.
    fn first_piece(ether_type: u16, protocol: Protocol, len: u8) -> Result<Packet, Unusable> {
        let mut bytes = [0x12; 96];
        if ether_type == IPV4 {
            bytes[..10].copy_from_slice(&[0x45, 0, 0, 20 + len, 0, 1, 0x20, 0, 64, protocol as u8]);
        } else {
            bytes[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 8 + len, number::FRAGMENT, 64]);
            bytes[40..48].copy_from_slice(&[protocol as u8, 0, 0, 1, 0, 0, 0, 1]);
        }
        parse(&bytes[..], 0, ether_type)
    }

    #[test]
    fn of_a_first_piece_nothing_is_read_behind_its_end() {
        for ether_type in [IPV4, IPV6] {
            for (protocol, least) in [(Protocol::Tcp, 14), (Protocol::Udp, 4), (Protocol::Sctp, 4)] {
                assert_eq!(first_piece(ether_type, protocol, least - 1), Err(Unusable::Malformed));
                let packet = first_piece(ether_type, protocol, least).unwrap();
                assert_eq!((packet.fragment, packet.dst.port.host()), (Fragment::First(1), 0x1212));
            }
        }
    }

    #[test]
    fn a_piece_of_a_piece_is_no_whole_datagram() {
        let [whole, first] = [0, 1];
        assert_eq!(twice_in_pieces(first, whole), Err(Unusable::Malformed));
        assert_eq!(twice_in_pieces(first, first), Err(Unusable::Malformed));
        assert_eq!(twice_in_pieces(whole, first).map(|packet| packet.fragment), Ok(Fragment::First(2)));
        assert_eq!(twice_in_pieces(whole, whole).map(|packet| packet.fragment), Ok(Fragment::Whole));
    }
}
