//! Frames that no honest stack sends, byte by byte. Ethernet addresses are whoever sends them's to fill in; checksums are right
//! where nothing else is said, so that nothing is dropped for another reason than it should.

use std::net::{IpAddr, SocketAddr};

use weir_ebpf::testing::frame::{self, ETHERNET};

/// IANA protocol numbers.
pub(super) mod protocol {
    pub(in super::super) const HOP_BY_HOP: u8 = 0;
    pub(in super::super) const ICMP: u8 = 1;
    pub(in super::super) const TCP: u8 = 6;
    pub(in super::super) const UDP: u8 = 17;
    pub(in super::super) const ROUTING: u8 = 43;
    pub(in super::super) const FRAGMENT: u8 = 44;
    pub(in super::super) const AUTHENTICATION: u8 = 51;
    pub(in super::super) const ICMPV6: u8 = 58;
    pub(in super::super) const DESTINATION: u8 = 60;
}

/// `ether_type`s (IEEE registry).
pub(super) mod ether {
    pub(in super::super) const IPV4: u16 = 0x0800;
    pub(in super::super) const ARP: u16 = 0x0806;
    pub(in super::super) const VLAN: u16 = 0x8100;
    pub(in super::super) const PROVIDER_VLAN: u16 = 0x88a8;
    pub(in super::super) const IPV6: u16 = 0x86dd;
    pub(in super::super) const MPLS: u16 = 0x8847;
    pub(in super::super) const PPPOE: u16 = 0x8864;
    pub(in super::super) const EXPERIMENTAL: u16 = 0x88b5;
}

/// By which an observer knows frames again: nobody else sends these bytes.
pub(super) fn mark(number: u16) -> [u8; 4] {
    let [high, low] = number.to_be_bytes();
    [0xa7, 0x7a, high, low]
}

/// Content in which every eight bytes have the mark.
pub(super) fn content(mark: [u8; 4]) -> Vec<u8> {
    mark.repeat(16)
}

/// A frame of any kind with Ethernet addresses that are still to be filled in.
pub(super) fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&[0; 12], &ether_type.to_be_bytes()[..], payload].concat()
}

/// An IP packet of any protocol.
pub(super) fn ip(src: IpAddr, dst: IpAddr, ttl: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) => ip4_piece(src, dst, (ttl, protocol), (0, false, 0), payload),
        _ => {
            let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
            let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], protocol, ttl];
            packet.extend([six(src), six(dst)].concat());
            packet.extend_from_slice(payload);
            ethernet(ether::IPV6, &packet)
        }
    }
}

/// A piece of an IPv4 packet: where it is in units of 8 bytes, whether more follow, and of which.
pub(super) fn ip4_piece(
    src: IpAddr,
    dst: IpAddr,
    (ttl, protocol): (u8, u8),
    (offset, more, id): (u16, bool, u16),
    payload: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let (id, place) = (id.to_be_bytes(), (offset | if more { 0x2000 } else { 0 }).to_be_bytes());
    let mut header =
        vec![0x45, 0, length[0], length[1], id[0], id[1], place[0], place[1], ttl, protocol, 0, 0];
    for end in [src, dst] {
        if let IpAddr::V4(end) = end {
            header.extend(end.octets());
        }
    }
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    ethernet(ether::IPV4, &[&header, payload].concat())
}

/// A piece of an IPv6 packet.
pub(super) fn ip6_piece(
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    (offset, more, id): (u16, bool, u16),
    payload: &[u8],
) -> Vec<u8> {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    let id = id.to_be_bytes();
    let header = [protocol, 0, high, low, 0, 0, id[0], id[1]];
    ip(src, dst, frame::TTL, protocol::FRAGMENT, &[&header, payload].concat())
}

/// A piece of either.
pub(super) fn piece(
    (src, dst): (IpAddr, IpAddr),
    protocol: u8,
    at: (u16, bool, u16),
    payload: &[u8],
) -> Vec<u8> {
    match src {
        IpAddr::V4(_) => ip4_piece(src, dst, (frame::TTL, protocol), at, payload),
        IpAddr::V6(_) => ip6_piece(src, dst, protocol, at, payload),
    }
}

/// What a frame carries behind its plain IP header.
pub(super) fn inside(frame: &[u8]) -> &[u8] {
    let header = if frame::ether_type(frame) == ether::IPV4 { 20 } else { 40 };
    &frame[ETHERNET + header..]
}

/// A datagram or a segment, without anything around it.
pub(super) fn udp(src: SocketAddr, dst: SocketAddr, content: &[u8]) -> Vec<u8> {
    inside(&frame::udp(src, dst, content)).to_vec()
}

/// The same packet with these headers of IPv6 before what it carries, each as short as it can be.
pub(super) fn chained(frame: &[u8], headers: &[u8]) -> Vec<u8> {
    let mut next = frame[ETHERNET + 6];
    let mut payload = frame[ETHERNET + 40..].to_vec();
    for &header in headers.iter().rev() {
        let front: &[u8] = match header {
            // RFC 4302: units of 4 bytes, less two; nobody checks it here.
            protocol::AUTHENTICATION => &[next, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
            // RFC 8200 section 4.5: a datagram in one piece
            protocol::FRAGMENT => &[next, 0, 0, 0, 0, 0, 0, 9],
            // RFC 8200 section 4.4: an unknown type, with no segment left
            protocol::ROUTING => &[next, 0, 253, 0, 0, 0, 0, 0],
            // RFC 8200 section 4.2: padding
            _ => &[next, 0, 1, 4, 0, 0, 0, 0],
        };
        payload = [front, &payload].concat();
        next = header;
    }
    let mut all = frame[..ETHERNET + 40].to_vec();
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    all[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&length);
    all[ETHERNET + 6] = next;
    all.extend(payload);
    all
}

/// The same frame with these tags (type, and priority with number), the outermost first.
pub(super) fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let tags = tags.iter().flat_map(|(kind, number)| [kind.to_be_bytes(), number.to_be_bytes()].concat());
    [addresses, &tags.collect::<Vec<u8>>(), rest].concat()
}

/// An ICMP or ICMPv6 message with a checksum that holds.
pub(super) fn icmp(src: IpAddr, dst: IpAddr, ttl: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0], body].concat();
    let number = if src.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
    let length = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
    let pseudo = [&six(src)[..], &six(dst), &length, &[0, 0, 0, number]].concat();
    let sum = if src.is_ipv4() { checksum(&message) } else { checksum(&[&pseudo[..], &message].concat()) };
    message[2..4].copy_from_slice(&sum);
    ip(src, dst, ttl, number, &message)
}

/// A neighbour's message (RFC 4861 sections 4.3 and 4.4) about an address, with the link-layer address as its option.
pub(super) fn neighbour(
    (src, dst): (IpAddr, IpAddr),
    kind: u8,
    target: IpAddr,
    mac: [u8; 6],
    mark: [u8; 4],
) -> Vec<u8> {
    let (flags, option) = if kind == 136 { (0x60, 2) } else { (0, 1) };
    let mut body = [&[flags, 0, 0, 0], &six(target)[..], &[option, 1], &mac].concat();
    // A nonce (RFC 3971 section 5.3.2), which nobody reads.
    body.extend([&[14, 1], &mark[..], &[0, 0]].concat());
    icmp(src, dst, 255, kind, &body)
}

/// An ARP packet (RFC 826): 1 asks, 2 answers. The mark is in the padding.
pub(super) fn arp(operation: u8, mac: [u8; 6], sender: IpAddr, target: IpAddr, mark: [u8; 4]) -> Vec<u8> {
    let four = |addr: IpAddr| if let IpAddr::V4(addr) = addr { addr.octets() } else { [0; 4] };
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    let body = [&head[..], &mac, &four(sender), &[0; 6], &four(target), &content(mark)[..18]].concat();
    ethernet(ether::ARP, &body)
}

/// 16 bytes; of IPv4 those of RFC 4291 section 2.5.5.2.
pub(super) fn six(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

/// RFC 1071.
pub(super) fn checksum(bytes: &[u8]) -> [u8; 2] {
    let pairs = bytes.chunks(2).map(|pair| [pair[0], pair.get(1).copied().unwrap_or(0)]);
    let mut sum: u32 = pairs.map(|pair| u32::from(u16::from_be_bytes(pair))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap_or_default()).to_be_bytes()
}
