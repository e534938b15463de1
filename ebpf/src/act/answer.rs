//! What the sender of a packet gets where the packet is not delivered: a TCP reset, an ICMP error, an echo reply.
//!
//! The packet is turned into its answer in place. Called by the programs and by [`crate::testing`], as
//! [`super::rewrite`] is.

use core::ops::ControlFlow;

use super::checksum::Sum;
use super::ethernet::{ETHERNET, addresses};
use super::reset;
use super::rewrite::{Frame, IPV4, IPV6, Stuck};
use crate::abi::{Addr, Protocol};
use crate::datapath::packet::Answer;
use crate::repeat::repeat;
use crate::wire::{Bytes, Fragment, Kind, Packet, TCP_RST};

/// A frame that can become another packet.
pub trait Reshape: Frame {
    /// Makes the frame this long, by cutting its end off or by growing it.
    ///
    /// # Errors
    /// [`Stuck`]
    fn resize(&mut self, length: u32) -> Result<(), Stuck>;

    /// Makes room for so many bytes before the frame's first one.
    ///
    /// # Errors
    /// [`Stuck`]
    fn push(&mut self, length: u32) -> Result<(), Stuck>;

    /// Writes bytes that no checksum makes up for.
    ///
    /// # Errors
    /// [`Stuck`]
    fn put<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> Result<(), Stuck>;

    /// Writes a transport checksum where one of the same protocol was: from the sum of the pseudo-header and of what
    /// follows it, with the field itself zero.
    ///
    /// # Errors
    /// [`Stuck`]
    fn put_checksum(&mut self, offset: u32, pseudo: Sum, content: Sum) -> Result<(), Stuck>;
}

/// Time to live of what the node itself sends (RFC 1700; Linux' default).
const TTL: u8 = 64;
/// An ICMP error is at most this long: RFC 1812 section 4.3.2.3.
const ICMPV4_MAX: u32 = 576;
/// RFC 4443 section 2.4 (c): the least MTU of IPv6.
const ICMPV6_MAX: u32 = 1280;

const ICMP: u32 = 8;

/// In the byte of an IPv4 header that has the flags (RFC 791 section 3.1).
const DONT_FRAGMENT: u8 = 0x40;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;

/// An ICMP error: type and code, for each family, and the last half of the header's second word.
struct Error {
    v4: [u8; 2],
    v6: [u8; 2],
    mtu: u16,
}

/// RFC 792 and RFC 4443 section 3.1
const PORT_UNREACHABLE: Error = Error { v4: [3, 3], v6: [1, 4], mtu: 0 };
/// RFC 792 and RFC 4443 section 3.3
const TIME_EXCEEDED: Error = Error { v4: [11, 0], v6: [3, 0], mtu: 0 };

/// Turns the packet into its answer, ready to leave by the device that it came from. `false`: to this one there is no
/// answer (RFC 9293 section 3.10.7.1: a reset; RFC 1122 section 3.2.2: a later fragment, an ICMP error, an address that is
/// not one host's).
///
/// # Errors
/// [`Stuck`]
#[inline(always)]
pub fn answer<F: Reshape>(frame: &mut F, packet: &Packet, answer: Answer) -> Result<bool, Stuck> {
    if matches!(packet.fragment, Fragment::Later(_)) || matches!(packet.kind, Kind::IcmpError) {
        return Ok(false);
    }
    if !is_a_hosts(packet.src.addr) {
        return Ok(false);
    }
    match answer {
        Answer::EchoReply => reply_to_echo(frame, packet)?,
        Answer::TimeExceeded => send_error(frame, packet, &TIME_EXCEEDED)?,
        Answer::Refusal(_) => match packet.kind {
            Kind::Transport(Protocol::Tcp) if packet.tcp_flags & TCP_RST != 0 => return Ok(false),
            Kind::Transport(Protocol::Tcp) => reset::refuse(frame, packet)?,
            _ => send_error(frame, packet, &PORT_UNREACHABLE)?,
        },
    }
    Ok(true)
}

/// Turns the packet into the error that says how long one may be for the way on: RFC 1191 section 4, RFC 4443 section 3.2.
/// `false`: its sender allows that it is cut to pieces, or is told nothing, as in [`answer`].
///
/// # Errors
/// [`Stuck`]
#[inline(always)]
pub fn answer_too_long<F: Reshape>(frame: &mut F, packet: &Packet, mtu: u16) -> Result<bool, Stuck> {
    if !matches!(packet.fragment, Fragment::Whole) || matches!(packet.kind, Kind::IcmpError) {
        return Ok(false);
    }
    if !is_a_hosts(packet.src.addr) {
        return Ok(false);
    }
    if packet.dst.addr.is_v4() {
        let [flags] = frame.load(packet.l3 + 6).ok_or(Stuck)?;
        if flags & DONT_FRAGMENT == 0 {
            return Ok(false);
        }
    }
    send_error(frame, packet, &Error { v4: [3, 4], v6: [2, 0], mtu })?;
    Ok(true)
}

/// Whether a packet can come from there: from one host, and not from within it. Past the stack nobody else asks. RFC 1122
/// section 3.2.1.3 (this network, loopback, multicast, broadcast); RFC 4291 sections 2.5.2, 2.5.3 and 2.7.
#[inline(always)]
const fn is_a_hosts(addr: Addr) -> bool {
    let [a, b, c, d] = addr.words();
    if addr.is_v4() {
        let first = u32::from_be(d) >> 24;
        return first != 0 && first != 127 && first < 224;
    }
    u32::from_be(a) >> 24 != 0xff && (a | b | c != 0 || u32::from_be(d) > 1)
}

/// Whether the answer is an ICMP error, of which RFC 1812 section 4.3.2.8 and RFC 4443 section 2.4 (f) want a limit.
#[inline(always)]
#[must_use]
pub const fn is_error(packet: &Packet, answer: &Answer) -> bool {
    match answer {
        Answer::EchoReply => false,
        Answer::TimeExceeded => true,
        Answer::Refusal(_) => !matches!(packet.kind, Kind::Transport(Protocol::Tcp)),
    }
}

/// An echo reply has the request's content and another type (RFC 792, RFC 4443 section 4.2).
#[inline(always)]
fn reply_to_echo<F: Reshape>(frame: &mut F, packet: &Packet) -> Result<(), Stuck> {
    let v4 = packet.dst.addr.is_v4();
    let [kind, code, check_a, check_b] = frame.load(packet.l4).ok_or(Stuck)?;
    let reply = if v4 { 0 } else { 129 };
    // The addresses change places, which no sum notices.
    let change = Sum::ZERO.replaced_word(u16::from_ne_bytes([kind, code]), u16::from_ne_bytes([reply, code]));
    let [check_a, check_b] = change.applied_to(u16::from_ne_bytes([check_a, check_b])).to_ne_bytes();
    frame.put(packet.l4, [reply, code, check_a, check_b])?;
    if v4 {
        let [ttl, protocol, check_a, check_b, ..] = frame.load::<12>(packet.l3 + 8).ok_or(Stuck)?;
        let change =
            Sum::ZERO.replaced_word(u16::from_ne_bytes([ttl, protocol]), u16::from_ne_bytes([TTL, protocol]));
        let [check_a, check_b] = change.applied_to(u16::from_ne_bytes([check_a, check_b])).to_ne_bytes();
        let words = [
            u32::from_ne_bytes([TTL, protocol, check_a, check_b]),
            packet.dst.addr.v4(),
            packet.src.addr.v4(),
        ];
        frame.put::<12>(packet.l3 + 8, zerocopy::transmute!(words))?;
    } else {
        frame.put(packet.l3 + 7, [TTL])?;
        frame.put::<32>(
            packet.l3 + 8,
            zerocopy::transmute!([packet.dst.addr.words(), packet.src.addr.words()]),
        )?;
    }
    swap_ethernet(frame, packet)
}

/// An ICMP error, from whoever was dialled, with as much of the packet as fits, to a multiple of 4 bytes.
#[inline(always)]
fn send_error<F: Reshape>(frame: &mut F, packet: &Packet, error: &Error) -> Result<(), Stuck> {
    let v4 = packet.dst.addr.is_v4();
    let (header, max) = if v4 { (IPV4, ICMPV4_MAX) } else { (IPV6, ICMPV6_MAX) };
    let quote = packet.length.min(max - header - ICMP) & !3;
    let sum = sum_of(frame, packet.l3, quote)?;
    let ([kind, code], protocol, pseudo) = if v4 {
        (error.v4, PROTOCOL_ICMP, Sum::ZERO)
    } else {
        let pseudo = Sum::pseudo_header(packet.dst.addr, packet.src.addr, PROTOCOL_ICMPV6, ICMP + quote);
        (error.v6, PROTOCOL_ICMPV6, pseudo)
    };
    let sum = sum.and(pseudo).word(u16::from_ne_bytes([kind, code])).word(error.mtu.to_be());
    let [check_a, check_b] = sum.checksum().to_ne_bytes();
    let [mtu_a, mtu_b] = error.mtu.to_be_bytes();
    let ends = (packet.dst.addr, packet.src.addr);
    let l4 = put_ip_header(frame, packet.l3, ends, protocol, ICMP + quote, |frame, _| {
        frame.resize(packet.l3 + quote)?;
        frame.push(header + ICMP)?;
        // The Ethernet header is now where the quote begins, less its own length.
        if packet.l3 == ETHERNET {
            let ethernet: [u8; ETHERNET as usize] = frame.load(header + ICMP).ok_or(Stuck)?;
            frame.put(0, ethernet)?;
        }
        Ok(())
    })?;
    frame.put(l4, [kind, code, check_a, check_b, 0, 0, mtu_a, mtu_b])?;
    swap_ethernet(frame, packet)
}

/// Makes room with `reshape`, which is told where the transport header will be, then writes the header of an IP packet
/// between these ends, from and to. Returns where the transport header goes.
#[inline(always)]
pub(super) fn put_ip_header<F: Reshape>(
    frame: &mut F,
    l3: u32,
    (src, dst): (Addr, Addr),
    protocol: u8,
    payload: u32,
    reshape: impl FnOnce(&mut F, u32) -> Result<(), Stuck>,
) -> Result<u32, Stuck> {
    if dst.is_v4() {
        reshape(frame, l3 + IPV4)?;
        frame.put(l3, ipv4_header(src, dst, protocol, IPV4 + payload))?;
        Ok(l3 + IPV4)
    } else {
        reshape(frame, l3 + IPV6)?;
        frame.put(l3, ipv6_header(src, dst, protocol, payload))?;
        Ok(l3 + IPV6)
    }
}

/// RFC 791 section 3.1; never fragmented, so without identification (RFC 6864 section 4.1).
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most 1,280")]
fn ipv4_header(src: Addr, dst: Addr, protocol: u8, length: u32) -> [u8; IPV4 as usize] {
    let [length_a, length_b] = (length as u16).to_be_bytes();
    let first =
        [u32::from_ne_bytes([0x45, 0, length_a, length_b]), u32::from_ne_bytes([0, 0, DONT_FRAGMENT, 0])];
    let ends = [src.v4(), dst.v4()];
    let third = u32::from_ne_bytes([TTL, protocol, 0, 0]);
    let [check_a, check_b] = Sum::ZERO.words(first).word32(third).words(ends).checksum().to_ne_bytes();
    let third = u32::from_ne_bytes([TTL, protocol, check_a, check_b]);
    zerocopy::transmute!([first[0], first[1], third, ends[0], ends[1]])
}

/// RFC 8200 section 3
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most 1,280")]
fn ipv6_header(src: Addr, dst: Addr, next: u8, payload: u32) -> [u8; IPV6 as usize] {
    let [length_a, length_b] = (payload as u16).to_be_bytes();
    let [a, b, c, d] = src.words();
    let [e, f, g, h] = dst.words();
    let head = [0x60, 0, 0, 0, length_a, length_b, next, TTL];
    let [first, second]: [u32; 2] = zerocopy::transmute!(head);
    zerocopy::transmute!([first, second, a, b, c, d, e, f, g, h])
}

/// The answer goes back to where the packet came from.
#[inline(always)]
pub(super) fn swap_ethernet<F: Reshape>(frame: &mut F, packet: &Packet) -> Result<(), Stuck> {
    if packet.l3 != ETHERNET {
        return Ok(());
    }
    let [a, b, c, d, e, f, g, h, i, j, k, l] = frame.load::<12>(0).ok_or(Stuck)?;
    frame.put(0, addresses([g, h, i, j, k, l], [a, b, c, d, e, f]))
}

/// The sum over `length` bytes, a multiple of 4, at most [`ICMPV6_MAX`].
#[inline(always)]
fn sum_of(bytes: &impl Bytes, offset: u32, length: u32) -> Result<Sum, Stuck> {
    const BLOCK: u32 = 32;
    let mut sum = Sum::ZERO;
    let blocks = length / BLOCK;
    let mut done = Ok(());
    repeat(blocks, |block| match bytes.load::<{ BLOCK as usize }>(offset + block * BLOCK) {
        Some(bytes) => {
            sum = sum.bytes(&bytes);
            ControlFlow::Continue(())
        }
        None => {
            done = Err(Stuck);
            ControlFlow::Break(())
        }
    });
    let rest = blocks * BLOCK;
    repeat((length - rest) / 4, |word| match bytes.load::<4>(offset + rest + word * 4) {
        Some(bytes) => {
            sum = sum.bytes(&bytes);
            ControlFlow::Continue(())
        }
        None => {
            done = Err(Stuck);
            ControlFlow::Break(())
        }
    });
    done.map(|()| sum)
}

#[cfg(test)]
mod tests;
