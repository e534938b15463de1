//! Carries out a translation on the bytes of a packet: addresses, ports, time to live and every checksum over them.
//!
//! Called by the programs, whose frame is a packet in the kernel, and by [`crate::testing`], whose frame is a vector: what
//! is written where is decided here, once.

use super::checksum::Sum;
use crate::abi::{Addr, Peer, Protocol};
use crate::datapath::packet::Translation;
use crate::wire::{Bytes, Kind, Packet, Quoted, parse_quoted};

/// The frame could not be changed: too short, or no memory. It may be changed in parts and must not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stuck;

/// Length of an IPv4 header without options in bytes (RFC 791).
pub(super) const IPV4: u32 = 20;
/// Length of an IPv6 header without extensions in bytes (RFC 8200).
pub(super) const IPV6: u32 = 40;

/// How what a transport checksum covers has changed. The kernel may have put off computing a packet's checksum until it
/// leaves, and the field then holds the sum of the pseudo-header alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// By the addresses of the pseudo-header (RFC 9293 section 3.1, RFC 768, RFC 8200 section 8.1).
    pub addresses: Sum,
    /// Whether these are of IPv4: there the header has a checksum of its own.
    pub is_v4: bool,
    /// By the segment, datagram or message itself.
    pub content: Sum,
    /// What the field holds if the checksum was put off; `None`: that cannot be told from the headers.
    pub put_off: Option<Sum>,
}

/// Something to change bytes of.
pub trait Frame: Bytes {
    /// Replaces bytes whose changes the checksums over them make up for.
    ///
    /// # Errors
    /// [`Stuck`]
    fn store<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> Result<(), Stuck>;

    /// Notes a difference in the content that no checksum in the packet makes up for.
    fn note_uncovered(&mut self, _difference: Sum) {}

    /// Brings the transport checksum at `offset` up to date with what it covers. A checksum of zero means "none" and stays
    /// where `optional` (UDP). By itself, of a frame whose checksum was never put off.
    ///
    /// # Errors
    /// [`Stuck`]
    #[inline(always)]
    fn update_checksum(&mut self, offset: u32, change: &Change, optional: bool) -> Result<(), Stuck> {
        let before = u16::from_ne_bytes(self.load(offset).ok_or(Stuck)?);
        let after = updated(before, change.addresses.and(change.content), optional);
        self.store(offset, after.to_ne_bytes())
    }
}

/// A whole checksum after a difference in what it covers. Where zero means "none" (UDP, RFC 768), none stays none, and a
/// sum of zero is written as all ones.
#[inline(always)]
#[must_use]
pub fn updated(before: u16, difference: Sum, optional: bool) -> u16 {
    if optional && before == 0 {
        return 0;
    }
    match difference.applied_to(before) {
        0 if optional => u16::MAX,
        after => after,
    }
}

/// Gives the packet the addresses and ports of the translation; with `hop`, takes one from its time to live.
///
/// # Errors
/// [`Stuck`]
#[inline(always)]
pub fn rewrite<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    translation: &Translation,
    hop: bool,
) -> Result<(), Stuck> {
    let (src, dst) = (translation.src, translation.dst);
    let is_v4 = dst.addr.is_v4();
    match packet.kind {
        // Nearly every packet. Each family for itself, so that it is asked for once.
        Kind::Transport(protocol @ (Protocol::Tcp | Protocol::Udp)) if packet.has_ports() => {
            if is_v4 {
                write_header_v4(frame, packet, src, dst, hop)?;
                let addresses =
                    difference_v4(packet.src.addr, src.addr).and(difference_v4(packet.dst.addr, dst.addr));
                update_transport(frame, packet, translation, protocol, addresses, IPV4)
            } else {
                write_header_v6(frame, packet, src, dst, hop)?;
                let addresses =
                    difference_v6(packet.src.addr, src.addr).and(difference_v6(packet.dst.addr, dst.addr));
                update_transport(frame, packet, translation, protocol, addresses, IPV6)
            }
        }
        kind => {
            if is_v4 {
                write_header_v4(frame, packet, src, dst, hop)?;
            } else {
                write_header_v6(frame, packet, src, dst, hop)?;
            }
            rewrite_rest(frame, packet, translation, kind)
        }
    }
}

/// What other packets than those of TCP and UDP have behind their IP header.
#[inline(always)]
fn rewrite_rest<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    translation: &Translation,
    kind: Kind,
) -> Result<(), Stuck> {
    let (src, dst) = (translation.src, translation.dst);
    match kind {
        Kind::Transport(Protocol::Sctp) if packet.has_ports() => {
            let (old, new) = (ports(packet.src, packet.dst), ports(src, dst));
            if old == new { Ok(()) } else { super::crc32c::update_sctp(frame, packet, old ^ new) }
        }
        Kind::IcmpError => {
            let addresses = difference(packet.src.addr, src.addr).and(difference(packet.dst.addr, dst.addr));
            rewrite_error(frame, packet, translation.quoted.as_ref(), addresses)
        }
        // The checksum over these addresses is in another piece.
        Kind::Transport(_) if !packet.has_ports() && !dst.addr.is_v4() => {
            let addresses = difference(packet.src.addr, src.addr).and(difference(packet.dst.addr, dst.addr));
            frame.note_uncovered(addresses);
            Ok(())
        }
        // ICMPv4 does not cover the addresses (RFC 792), ICMPv6 does (RFC 4443 section 2.3).
        Kind::Transport(_) | Kind::EchoRequest | Kind::Other => Ok(()),
    }
}

/// How a sum changes from one address to another of the same family.
#[inline(always)]
fn difference(old: Addr, new: Addr) -> Sum {
    if new.is_v4() { difference_v4(old, new) } else { difference_v6(old, new) }
}

#[inline(always)]
fn difference_v4(old: Addr, new: Addr) -> Sum {
    Sum::ZERO.replaced([old.v4()], [new.v4()])
}

#[inline(always)]
fn difference_v6(old: Addr, new: Addr) -> Sum {
    Sum::ZERO.replaced(old.words(), new.words())
}

/// The addresses of an IPv4 header, its time to live and its checksum; and the ports, which mostly follow at once: each store
/// costs about as much as the look-up of a flow.
#[inline(always)]
fn write_header_v4<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    src: Peer,
    dst: Peer,
    hop: bool,
) -> Result<(), Stuck> {
    let old = [u32::from_ne_bytes(packet.before_addresses), packet.src.addr.v4(), packet.dst.addr.v4()];
    let [a, b, c] = ipv4_tail(old, src.addr, dst.addr, hop);
    let at = packet.l3 + 8;
    if packet.has_ports() && packet.l4 == at + 12 {
        return frame.store::<16>(at, zerocopy::transmute!([a, b, c, ports(src, dst)]));
    }
    frame.store::<12>(at, zerocopy::transmute!([a, b, c]))?;
    write_ports(frame, packet, src, dst)
}

/// The same of an IPv6 header.
#[inline(always)]
fn write_header_v6<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    src: Peer,
    dst: Peer,
    hop: bool,
) -> Result<(), Stuck> {
    let [length_high, length_low, next, hops] = packet.before_addresses;
    let before = u32::from_ne_bytes(packet.before_addresses);
    let hops = if hop { hops.saturating_sub(1) } else { hops };
    let head = u32::from_ne_bytes([length_high, length_low, next, hops]);
    if hop {
        frame.note_uncovered(Sum::ZERO.replaced([before], [head]));
    }
    let ([a, b, c, d], [e, f, g, h]) = (src.addr.words(), dst.addr.words());
    let at = packet.l3 + 4;
    if packet.has_ports() && packet.l4 == at + 36 {
        let words: [u32; 10] = [head, a, b, c, d, e, f, g, h, ports(src, dst)];
        return frame.store::<40>(at, zerocopy::transmute!(words));
    }
    let words: [u32; 9] = [head, a, b, c, d, e, f, g, h];
    frame.store::<36>(at, zerocopy::transmute!(words))?;
    write_ports(frame, packet, src, dst)
}

#[inline(always)]
fn write_ports<F: Frame>(frame: &mut F, packet: &Packet, src: Peer, dst: Peer) -> Result<(), Stuck> {
    if packet.has_ports() { frame.store(packet.l4, ports(src, dst).to_ne_bytes()) } else { Ok(()) }
}

/// The last 12 of the 20 bytes of an IPv4 header: time to live, protocol, checksum, addresses.
#[inline(always)]
fn ipv4_tail([before, old_src, old_dst]: [u32; 3], src: Addr, dst: Addr, hop: bool) -> [u32; 3] {
    let [mut ttl, protocol, check_a, check_b] = before.to_ne_bytes();
    let mut change = Sum::ZERO.replaced([old_src, old_dst], [src.v4(), dst.v4()]);
    if hop {
        let fewer = ttl.saturating_sub(1);
        change =
            change.replaced_word(u16::from_ne_bytes([ttl, protocol]), u16::from_ne_bytes([fewer, protocol]));
        ttl = fewer;
    }
    let [check_a, check_b] = change.applied_to(u16::from_ne_bytes([check_a, check_b])).to_ne_bytes();
    [u32::from_ne_bytes([ttl, protocol, check_a, check_b]), src.v4(), dst.v4()]
}

#[inline(always)]
fn addresses_v6(src: Addr, dst: Addr) -> [u8; 32] {
    zerocopy::transmute!([src.words(), dst.words()])
}

/// Where the checksum of a protocol is, from the beginning of its header, and whether zero means "none".
#[inline(always)]
const fn checksum_of(protocol: Protocol) -> Option<(u32, bool)> {
    match protocol {
        Protocol::Tcp => Some((16, false)),
        Protocol::Udp => Some((6, true)),
        Protocol::Sctp => None,
    }
}

#[inline(always)]
fn ports(src: Peer, dst: Peer) -> u32 {
    zerocopy::transmute!([src.port.network(), dst.port.network()])
}

/// The transport checksum, after new addresses and ports. `header`: length of an IP header without options.
#[inline(always)]
fn update_transport<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    translation: &Translation,
    protocol: Protocol,
    addresses: Sum,
    header: u32,
) -> Result<(), Stuck> {
    let Some((offset, optional)) = checksum_of(protocol) else { return Ok(()) };
    let (old, new) = (ports(packet.src, packet.dst), ports(translation.src, translation.dst));
    let change = Change {
        addresses,
        is_v4: header == IPV4,
        content: Sum::ZERO.replaced([old], [new]),
        put_off: (packet.l4 - packet.l3 == header).then(|| {
            let length = packet.length.wrapping_sub(header);
            Sum::pseudo_header(packet.src.addr, packet.dst.addr, protocol as u8, length)
        }),
    };
    frame.update_checksum(packet.l4 + offset, &change, optional)
}

/// An ICMP error: the packet that it quotes, and its own checksum, which covers the quote.
#[inline(always)]
fn rewrite_error<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    quoted: Option<&Quoted>,
    addresses: Sum,
) -> Result<(), Stuck> {
    let is_v4 = packet.src.addr.is_v4();
    let content = match quoted {
        Some(new) => {
            let Some(old) = parse_quoted(frame, packet) else { return Err(Stuck) };
            rewrite_quote(frame, packet, &old, new)?
        }
        None => Sum::ZERO,
    };
    // ICMPv4 does not cover the addresses (RFC 792).
    let addresses = if is_v4 { Sum::ZERO } else { addresses };
    frame.update_checksum(packet.l4 + 2, &Change { addresses, is_v4, content, put_off: None }, false)
}

/// Gives the quoted packet its addresses and ports, and its own checksums where they are quoted: RFC 5508 section 4.2
/// wants the sender to find what it sent. Returns how the sum over the quote changed.
#[inline(always)]
fn rewrite_quote<F: Frame>(frame: &mut F, packet: &Packet, old: &Quoted, new: &Quoted) -> Result<Sum, Stuck> {
    let mut change = Sum::ZERO;
    if new.dst.addr.is_v4() {
        let before: [u8; 12] = load(frame, old.l3 + 8)?;
        let before: [u32; 3] = zerocopy::transmute!(before);
        let after = ipv4_tail(before, new.src.addr, new.dst.addr, false);
        frame.store::<12>(old.l3 + 8, zerocopy::transmute!(after))?;
        change = change.replaced(before, after);
    } else {
        frame.store(old.l3 + 8, addresses_v6(new.src.addr, new.dst.addr))?;
        change = change.and(difference(old.src.addr, new.src.addr));
        change = change.and(difference(old.dst.addr, new.dst.addr));
    }
    let (ports_before, ports_after) = (ports(old.src, old.dst), ports(new.src, new.dst));
    frame.store(old.l4, ports_after.to_ne_bytes())?;
    change = change.replaced([ports_before], [ports_after]);

    let Some((offset, optional)) = checksum_of(old.protocol) else { return Ok(change) };
    let at = old.l4 + offset;
    // Beyond the end of the quote may be padding of the frame.
    if at + 2 > packet.l3 + packet.length {
        return Ok(change);
    }
    let before = u16::from_ne_bytes(load(frame, at)?);
    let covered = difference(old.src.addr, new.src.addr)
        .and(difference(old.dst.addr, new.dst.addr))
        .replaced([ports_before], [ports_after]);
    let after = updated(before, covered, optional);
    frame.store(at, after.to_ne_bytes())?;
    Ok(change.replaced_word(before, after))
}

#[inline(always)]
fn load<F: Frame, const N: usize>(frame: &F, offset: u32) -> Result<[u8; N], Stuck> {
    frame.load(offset).ok_or(Stuck)
}
