//! TCP resets: in answer to a segment that nobody takes, and to both ends of a connection that is over.
//!
//! Who gets one believes it if its sequence number is the very next that he expects. Another one within his window he answers
//! by saying what he expects (RFC 5961 section 3.2); that segment is answered again, and then the number is right. Called by
//! the programs and by [`crate::testing`], as [`super::answer`] is.

use super::answer::{Reshape, put_ip_header, swap_ethernet};
use super::checksum::Sum;
use super::rewrite::Stuck;
use crate::abi::{Peer, Protocol};
use crate::datapath::packet::{Cut, Stage};
use crate::wire::{Bytes, Packet, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

const TCP: u32 = 20;

/// What a reset takes from the segment in whose place it goes.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    sequence: u32,
    acknowledgment: u32,
    /// Bytes of payload.
    data: u32,
    flags: u8,
}

/// The numbers and flags of a reset.
struct Reset {
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
}

impl Segment {
    /// Of a packet that has one.
    ///
    /// # Errors
    /// [`Stuck`]
    #[inline(always)]
    pub fn load(bytes: &impl Bytes, packet: &Packet) -> Result<Self, Stuck> {
        let [s0, s1, s2, s3, a0, a1, a2, a3, offset, _] = bytes.load::<10>(packet.l4 + 4).ok_or(Stuck)?;
        Ok(Self {
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            acknowledgment: u32::from_be_bytes([a0, a1, a2, a3]),
            data: (packet.l3 + packet.length).saturating_sub(packet.l4 + u32::from(offset >> 4) * 4),
            flags: packet.tcp_flags,
        })
    }

    /// What its sender gets: RFC 9293 section 3.10.7.1 (no connection there).
    #[inline(always)]
    const fn back(&self) -> Reset {
        if self.flags & TCP_ACK != 0 {
            return Reset { sequence: self.acknowledgment, acknowledgment: 0, flags: TCP_RST };
        }
        let counted = (self.flags & TCP_SYN != 0) as u32 + (self.flags & TCP_FIN != 0) as u32;
        let acknowledgment = self.sequence.wrapping_add(self.data).wrapping_add(counted);
        Reset { sequence: 0, acknowledgment, flags: TCP_RST | TCP_ACK }
    }

    /// What whoever it is for gets in its place, who has not had it.
    #[inline(always)]
    const fn onward(&self) -> Reset {
        let flags = TCP_RST | self.flags & TCP_ACK;
        Reset { sequence: self.sequence, acknowledgment: self.acknowledgment, flags }
    }
}

/// Turns the packet into the reset that its sender gets, ready to leave by the device that it came from: it looks as if sent
/// by whoever was dialled.
///
/// # Errors
/// [`Stuck`]
#[inline(always)]
pub(super) fn refuse<F: Reshape>(frame: &mut F, packet: &Packet) -> Result<(), Stuck> {
    let segment = Segment::load(frame, packet)?;
    write(frame, packet.l3, packet.dst, packet.src, &segment.back())?;
    swap_ethernet(frame, packet)
}

/// Turns a packet of a connection that is over into the reset that enters at the device of the hook, on its way as a packet
/// of the connection.
///
/// # Errors
/// [`Stuck`]
#[inline(always)]
pub fn cut_entering<F: Reshape>(
    frame: &mut F,
    packet: &Packet,
    cut: &Cut,
    segment: &Segment,
) -> Result<(), Stuck> {
    match cut.stage {
        Stage::Arrive => write(frame, packet.l3, cut.src, cut.dst, &segment.onward()),
        Stage::Leave => {
            write(frame, packet.l3, cut.dst, cut.src, &segment.back())?;
            swap_ethernet(frame, packet)
        }
    }
}

/// Turns what [`cut_entering`] left, of which a copy has entered, into the reset that leaves by the device.
///
/// # Errors
/// [`Stuck`]
#[inline(always)]
pub fn cut_leaving<F: Reshape>(
    frame: &mut F,
    packet: &Packet,
    cut: &Cut,
    segment: &Segment,
) -> Result<(), Stuck> {
    match cut.stage {
        Stage::Arrive => write(frame, packet.l3, cut.dst, cut.src, &segment.back())?,
        Stage::Leave => write(frame, packet.l3, cut.src, cut.dst, &segment.onward())?,
    }
    // In both cases the other way round than what entered.
    swap_ethernet(frame, packet)
}

#[inline(always)]
fn write<F: Reshape>(frame: &mut F, l3: u32, src: Peer, dst: Peer, reset: &Reset) -> Result<(), Stuck> {
    let header = header(src, dst, reset);
    let ends = (src.addr, dst.addr);
    let l4 = put_ip_header(frame, l3, ends, Protocol::Tcp as u8, TCP, |frame, l4| frame.resize(l4 + TCP))?;
    frame.put(l4, header)?;
    frame.put_checksum(
        l4 + 16,
        Sum::pseudo_header(src.addr, dst.addr, Protocol::Tcp as u8, TCP),
        Sum::ZERO.bytes(&header),
    )
}

/// The TCP header, its checksum zero.
#[inline(always)]
fn header(src: Peer, dst: Peer, reset: &Reset) -> [u8; TCP as usize] {
    let [a, b] = src.port.network().to_ne_bytes();
    let [c, d] = dst.port.network().to_ne_bytes();
    let words = [
        u32::from_ne_bytes([a, b, c, d]),
        reset.sequence.to_be(),
        reset.acknowledgment.to_be(),
        // Five words of header; no window.
        u32::from_ne_bytes([5 << 4, reset.flags, 0, 0]),
        0,
    ];
    zerocopy::transmute!(words)
}
