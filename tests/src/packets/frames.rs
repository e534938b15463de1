//! Frames that no library builds, for the cases.

use std::net::{IpAddr, SocketAddr};

use weir_ebpf::abi::{Addr, Protocol};
use weir_ebpf::testing::frame::{self, ETHERNET};
use weir_ebpf::wire::TCP_ACK;

/// Options that say nothing: four of one byte in IPv4, a hop-by-hop header of padding in IPv6.
pub(super) fn with_options(mut frame: Vec<u8>) -> Vec<u8> {
    let is_v4 = frame[ETHERNET] >> 4 == 4;
    let (at, length_at, length) =
        if is_v4 { (ETHERNET + 20, ETHERNET + 2, 4) } else { (ETHERNET + 40, ETHERNET + 4, 8) };
    let options: &[u8] = if is_v4 { &[1, 1, 1, 0] } else { &[Protocol::Udp as u8, 0, 1, 4, 0, 0, 0, 0] };
    frame.splice(at..at, options.iter().copied());
    let before = u16::from_be_bytes([frame[length_at], frame[length_at + 1]]);
    frame[length_at..length_at + 2].copy_from_slice(&(before + length).to_be_bytes());
    if is_v4 {
        frame[ETHERNET] = 0x46;
        complete_ipv4(&mut frame);
    } else {
        frame[ETHERNET + 6] = 0;
    }
    frame
}

pub(super) fn complete_ipv4(frame: &mut [u8]) {
    let header = etherparse::Ipv4Header::from_slice(&frame[ETHERNET..]);
    let checksum = header.map_or(0, |(header, _)| header.calc_header_checksum());
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&checksum.to_be_bytes());
}

pub(super) fn mapped(src: u16, dst: u16) -> Vec<u8> {
    let addr = |last: u8| IpAddr::from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 0, last]);
    frame::udp(SocketAddr::new(addr(1), src), SocketAddr::new(addr(2), dst), b"in disguise")
}

/// A request of whoever has this address.
pub(super) fn arp(src: IpAddr, dst: IpAddr) -> Vec<u8> {
    let mut bytes = [frame::RECEIVER, frame::SENDER].concat();
    bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    bytes.extend(frame::SENDER);
    let octets = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => addr.octets(),
        IpAddr::V6(_) => [0; 4],
    };
    bytes.extend(octets(src));
    bytes.extend([0; 6]);
    bytes.extend(octets(dst));
    bytes
}

/// An ICMPv6 packet about an address, with the hop limit that neighbour discovery has; of IPv4 it is an echo reply.
fn message(src: IpAddr, dst: IpAddr, [v4, v6]: [u8; 2], about: Addr) -> Vec<u8> {
    let mut bytes = frame::echo_request(src, dst, &[0; 24]);
    let l4 = ETHERNET + if src.is_ipv4() { 20 } else { 40 };
    if src.is_ipv4() {
        bytes[l4] = v4;
    } else {
        (bytes[l4], bytes[ETHERNET + 7]) = (v6, 255);
        for (at, word) in (l4 + 8..).step_by(4).zip(about.words()) {
            bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
    }
    bytes
}

/// Somebody says where an address is (RFC 4861 section 4.4).
pub(super) fn advertisement(src: IpAddr, dst: IpAddr, whose: Addr) -> Vec<u8> {
    message(src, dst, [0, 136], whose)
}

/// A redirect (RFC 792; RFC 4861 section 4.5).
pub(super) fn redirect(src: IpAddr, dst: IpAddr) -> Vec<u8> {
    message(src, dst, [5, 137], dst.into())
}

/// The frame with a type that is nobody's (IEEE 802: for experiments).
pub(super) fn strange(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[ETHERNET - 2..ETHERNET].copy_from_slice(&[0x88, 0xb5]);
    bytes
}

/// The ports of a TCP segment and 4 bytes more, as the first piece of a datagram, in a frame that is longer.
pub(super) fn tiny_piece(src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    let mut bytes = frame::fragments(&frame::udp(src, dst, &[7; 16]), 8, 9).swap_remove(0);
    let number = ETHERNET + if src.is_ipv4() { 9 } else { 40 };
    bytes[number] = Protocol::Tcp as u8;
    if src.is_ipv4() {
        complete_ipv4(&mut bytes);
    }
    bytes.extend([TCP_ACK; 18]);
    bytes
}
