//! Ethernet frames to try decisions with. Both families by the same calls; checksums are right.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Ethernet2Slice, Icmpv4Type, Icmpv6Type, IpFragOffset, IpHeaders, IpNumber, Ipv6FragmentHeader, NetSlice,
    PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice, icmpv4, icmpv6,
};

use crate::wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Time to live of every frame that is made here.
pub const TTL: u8 = 64;
/// Who sends every frame.
pub const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Who gets it.
pub const RECEIVER: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn ip(src: IpAddr, dst: IpAddr, ttl: u8) -> PacketBuilderStep<IpHeaders> {
    let ethernet = PacketBuilder::ethernet2(SENDER, RECEIVER);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), ttl),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), ttl),
        _ => panic!("{src} and {dst} are of two families"),
    }
}

fn written(
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), etherparse::err::packet::BuildWriteError>,
) -> Vec<u8> {
    let mut frame = Vec::new();
    write(&mut frame).expect("a frame that can be");
    frame
}

/// A TCP segment; `flags` as in [`crate::wire::Packet::tcp_flags`].
#[must_use]
pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut step = ip(src.ip(), dst.ip(), TTL).tcp(src.port(), dst.port(), 1000, 64_000);
    if flags & TCP_SYN != 0 {
        step = step.syn();
    }
    if flags & TCP_ACK != 0 {
        step = step.ack(2000);
    }
    if flags & TCP_FIN != 0 {
        step = step.fin();
    }
    if flags & TCP_RST != 0 {
        step = step.rst();
    }
    written(|frame| step.write(frame, payload))
}

/// A UDP datagram.
#[must_use]
pub fn udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let step = ip(src.ip(), dst.ip(), TTL).udp(src.port(), dst.port());
    written(|frame| step.write(frame, payload))
}

/// An SCTP packet with these bytes for its chunks (RFC 9260 section 3.1).
#[must_use]
pub fn sctp(src: SocketAddr, dst: SocketAddr, chunks: &[u8]) -> Vec<u8> {
    let mut packet =
        [&src.port().to_be_bytes()[..], &dst.port().to_be_bytes(), &[0, 0, 0, 7], &[0; 4]].concat();
    packet.extend_from_slice(chunks);
    let checksum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&checksum);
    let step = PacketBuilder::ethernet2(SENDER, RECEIVER).ip(ip_headers(src.ip(), dst.ip()));
    written(|frame| step.write(frame, IpNumber::SCTP, &packet))
}

/// CRC32c bit by bit (RFC 9260 appendix A); what the datapath computes is compared with it.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0x82f6_3b78 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// An echo request.
#[must_use]
pub fn echo_request(src: IpAddr, dst: IpAddr, payload: &[u8]) -> Vec<u8> {
    let step = ip(src, dst, TTL);
    written(|frame| match src {
        IpAddr::V4(_) => step.icmpv4_echo_request(7, 8).write(frame, payload),
        IpAddr::V6(_) => step.icmpv6_echo_request(7, 8).write(frame, payload),
    })
}

/// An ICMP error about a frame, from `reporter` to the frame's sender: too big (for 1280 bytes), or otherwise port
/// unreachable. It quotes the IP header and 8 bytes more of IPv4, and everything of IPv6, as RFC 792 and RFC 4443 ask.
#[must_use]
pub fn icmp_error(reporter: IpAddr, about: &[u8], too_big: bool) -> Vec<u8> {
    let quoted = &about[ETHERNET..];
    let (sender, _) = addresses(about);
    let step = ip(reporter, sender, TTL);
    written(|frame| match reporter {
        IpAddr::V4(_) => {
            let why = if too_big {
                icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1280 }
            } else {
                icmpv4::DestUnreachableHeader::Port
            };
            step.icmpv4(Icmpv4Type::DestinationUnreachable(why)).write(frame, &quoted[..28.min(quoted.len())])
        }
        IpAddr::V6(_) => {
            let kind = if too_big {
                Icmpv6Type::PacketTooBig { mtu: 1280 }
            } else {
                Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port)
            };
            step.icmpv6(kind).write(frame, quoted)
        }
    })
}

/// The pieces of a packet with `size` bytes each after the IP headers, a multiple of 8.
#[must_use]
pub fn fragments(whole: &[u8], size: usize, id: u16) -> Vec<Vec<u8>> {
    let sliced = SlicedPacket::from_ethernet(whole).expect("a frame");
    let (src, dst) = addresses(whole);
    let (payload, protocol): (&[u8], _) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => (ip.payload().payload, ip.payload().ip_number),
        Some(NetSlice::Ipv6(ip)) => (ip.payload().payload, ip.payload().ip_number),
        _ => panic!("no IP packet"),
    };
    let count = payload.len().div_ceil(size);
    let piece = |(n, part): (usize, &[u8])| {
        let offset =
            IpFragOffset::try_new(u16::try_from(n * size / 8).expect("short enough")).expect("13 bits");
        let more = n + 1 < count;
        let step = match ip_headers(src, dst) {
            IpHeaders::Ipv4(mut header, extensions) => {
                (header.identification, header.fragment_offset, header.more_fragments) = (id, offset, more);
                IpHeaders::Ipv4(header, extensions)
            }
            IpHeaders::Ipv6(header, mut extensions) => {
                extensions.fragment = Some(Ipv6FragmentHeader::new(protocol, offset, more, u32::from(id)));
                IpHeaders::Ipv6(header, extensions)
            }
        };
        let step = PacketBuilder::ethernet2(SENDER, RECEIVER).ip(step);
        written(|frame| step.write(frame, protocol, part))
    };
    payload.chunks(size).enumerate().map(piece).collect()
}

fn ip_headers(src: IpAddr, dst: IpAddr) -> IpHeaders {
    use etherparse::{Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header};
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let header = Ipv4Header::new(0, TTL, etherparse::ip_number::UDP, src.octets(), dst.octets());
            IpHeaders::Ipv4(header.expect("a header"), Ipv4Extensions::default())
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: etherparse::ip_number::UDP,
                hop_limit: TTL,
                source: src.octets(),
                destination: dst.octets(),
            };
            IpHeaders::Ipv6(header, Ipv6Extensions::default())
        }
        _ => panic!("{src} and {dst} are of two families"),
    }
}

/// Source and destination of a frame.
#[must_use]
pub fn addresses(frame: &[u8]) -> (IpAddr, IpAddr) {
    match SlicedPacket::from_ethernet(frame).expect("a frame").net {
        Some(NetSlice::Ipv4(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        Some(NetSlice::Ipv6(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        _ => panic!("no IP packet"),
    }
}

/// Source and destination of a TCP or UDP frame, with their ports.
#[must_use]
pub fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let (src, dst) = addresses(frame);
    let (from, to) = match SlicedPacket::from_ethernet(frame).expect("a frame").transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        _ => panic!("neither TCP nor UDP"),
    };
    (SocketAddr::new(src, from), SocketAddr::new(dst, to))
}

/// `ether_type` of a frame, in host order.
#[must_use]
pub fn ether_type(frame: &[u8]) -> u16 {
    Ethernet2Slice::from_slice_without_fcs(frame).expect("a frame").ether_type().0
}
