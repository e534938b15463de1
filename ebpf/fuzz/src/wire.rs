//! The parser, beside etherparse's: where both take a packet, they see the same one.

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use weir_ebpf::abi::Addr;
use weir_ebpf::wire::{Fragment, Kind, Packet, Quoted, parse, parse_plain, parse_quoted};

/// The first two bytes choose the place of the IP header and the `ether_type`; the rest is the frame.
pub(crate) fn run(data: &[u8]) {
    let [kind, bytes @ ..] = data else { return };
    let l3 = u32::from(kind & 4 != 0) * 14;
    let ether_type = [0x0800, 0x86dd, 0x0806, u16::from(*kind)][usize::from(kind & 3)];
    let plain = parse_plain(bytes, l3, ether_type);
    let Ok(packet) = parse(bytes, l3, ether_type) else {
        assert_eq!(plain, None);
        return;
    };
    assert!(plain.is_none_or(|plain| plain == packet), "{plain:?} is {packet:?}");
    is_inside(&packet, bytes);
    if packet.kind == Kind::IcmpError
        && let Some(quoted) = parse_quoted(bytes, &packet)
    {
        is_quote_inside(&packet, &quoted, bytes);
    }
    let ip = bytes.get(l3 as usize..).expect("what was parsed");
    if let Ok(theirs) = SlicedPacket::from_ip(ip) {
        agrees(&packet, &theirs);
    }
}

/// Whatever the packet says can be read again.
fn is_inside(packet: &Packet, bytes: &[u8]) {
    assert!(packet.l4 > packet.l3);
    let is_later = matches!(packet.fragment, Fragment::Later(_));
    match packet.kind {
        Kind::Transport(_) if !is_later => assert!(packet.l4 as usize + 4 <= bytes.len()),
        Kind::EchoRequest | Kind::IcmpError => assert!((packet.l4 as usize) < bytes.len()),
        _ => assert_eq!((packet.src.port.host(), packet.dst.port.host(), packet.tcp_flags), (0, 0, 0)),
    }
    assert_eq!(packet.src.addr.is_v4(), packet.dst.addr.is_v4());
}

fn is_quote_inside(packet: &Packet, quoted: &Quoted, bytes: &[u8]) {
    assert_eq!(quoted.l3, packet.l4 + 8);
    assert!(quoted.l4 > quoted.l3 && quoted.l4 as usize + 4 <= bytes.len());
    assert_eq!(quoted.src.addr.is_v4(), packet.src.addr.is_v4());
}

fn agrees(packet: &Packet, theirs: &SlicedPacket<'_>) {
    let (src, dst, payload, ttl): (IpAddr, IpAddr, _, _) = match theirs.net.as_ref().expect("an IP packet") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), ip.payload(), header.ttl())
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), ip.payload(), header.hop_limit())
        }
        NetSlice::Arp(_) => panic!("ARP in {packet:?}"),
    };
    assert_eq!((packet.src.addr, packet.dst.addr, packet.ttl), (Addr::from(src), Addr::from(dst), ttl));
    assert_eq!(!matches!(packet.fragment, Fragment::Whole), payload.fragmented, "{packet:?}");
    // Behind a later piece's header is the middle of something, which etherparse goes on reading as headers.
    if matches!(packet.fragment, Fragment::Later(_)) {
        return;
    }
    let number = payload.ip_number.0;
    match packet.kind {
        Kind::Transport(protocol) => assert_eq!(protocol as u8, number),
        Kind::EchoRequest | Kind::IcmpError => assert!(number == 1 || number == 58),
        Kind::Other => assert!(![6, 17, 132].contains(&number)),
    }
    let (ports, flags) = match &theirs.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            ((tcp.source_port(), tcp.destination_port()), tcp.slice().get(13).copied())
        }
        Some(TransportSlice::Udp(udp)) => ((udp.source_port(), udp.destination_port()), None),
        _ => return,
    };
    assert_eq!((packet.src.port.host(), packet.dst.port.host()), ports);
    assert_eq!(packet.tcp_flags, flags.unwrap_or_default());
}
