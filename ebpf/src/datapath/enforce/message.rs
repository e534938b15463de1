//! What ICMP, IGMP and ARP say, as far as policies ask.

use super::admit::{IPV4, IPV6};
use crate::abi::Addr;
use crate::wire::{Bytes, Fragment, Packet};

/// IANA protocol numbers
const ICMP: u8 = 1;
const IGMP: u8 = 2;
const ICMPV6: u8 = 58;

/// What an ICMP or ICMPv6 packet is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Message {
    /// It asks for an answer: it opens, and never is a reply.
    EchoRequest,
    /// Neighbour discovery (RFC 4861 sections 4.1, 4.3, 4.4).
    Neighbour {
        /// It says where an address is, and does not ask.
        advertises: bool,
    },
    /// Membership of groups: who asks for members, and who is one (RFC 2236, RFC 3376; RFC 2710, RFC 3810).
    Membership,
    /// What only routers send: advertisements and redirects (RFC 4861 sections 4.2, 4.5; RFC 792, type 5; RFC 1256, type 9).
    OfRouter,
    /// An error, and the packet that it quotes, in pieces: of whom it speaks nobody can say. No stack makes such, since errors
    /// are kept short (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4).
    ErrorInPieces,
    /// Anything else, or no ICMP.
    Other,
}

impl Message {
    /// What a packet says. Neighbour discovery in pieces is none (RFC 6980).
    #[inline(always)]
    pub(super) fn of(packet: &Packet, bytes: &(impl Bytes + ?Sized)) -> Self {
        let is_v6 = match (packet.protocol, packet.src.addr.is_v4()) {
            (ICMP, true) => false,
            (ICMPV6, false) => true,
            (IGMP, true) => return Self::of_igmp(packet, bytes),
            _ => return Self::Other,
        };
        if matches!(packet.fragment, Fragment::Later(_)) {
            return Self::Other;
        }
        let Some([kind]) = bytes.load(packet.l4) else { return Self::Other };
        // Nobody believes what came from farther away (RFC 4861 section 6.1, RFC 2710 section 3).
        let is_whole = packet.fragment == Fragment::Whole;
        let (is_neighbour, is_member) = (is_whole && packet.ttl == 255, is_whole && packet.ttl == 1);
        match (is_v6, kind) {
            (false, 8) | (true, 128) => Self::EchoRequest,
            (false, 5 | 9) | (true, 134 | 137) => Self::OfRouter,
            (true, 133 | 135) if is_neighbour => Self::Neighbour { advertises: false },
            (true, 136) if is_neighbour => Self::Neighbour { advertises: true },
            (true, 130..=132 | 143) if is_member => Self::Membership,
            (false, 3 | 4 | 11 | 12) | (true, 0..=127) if !is_whole => Self::ErrorInPieces,
            _ => Self::Other,
        }
    }

    /// To a group, and no farther than the link (RFC 3376 section 4).
    #[inline(always)]
    fn of_igmp(packet: &Packet, bytes: &(impl Bytes + ?Sized)) -> Self {
        let [.., dst] = packet.dst.addr.words().map(u32::from_be);
        let stays = packet.fragment == Fragment::Whole && packet.ttl == 1 && dst >> 28 == 0xe;
        match bytes.load(packet.l4) {
            Some([0x11 | 0x12 | 0x16 | 0x17 | 0x22]) if stays => Self::Membership,
            _ => Self::Other,
        }
    }

    /// Whether no policy is about it: without it nothing works on the link. Whose it is was checked where it was sent.
    #[inline(always)]
    pub(super) const fn is_for_links(self) -> bool {
        matches!(self, Self::Neighbour { .. } | Self::Membership)
    }
}

/// The address that an advertisement is about.
#[inline(always)]
pub(super) fn load_target(bytes: &(impl Bytes + ?Sized), packet: &Packet) -> Option<Addr> {
    let target: [u8; 16] = bytes.load(packet.l4 + 8)?;
    Some(zerocopy::transmute!(target))
}

/// To whom the packet was that an ICMP error is about, as far as it is quoted: behind the error's own 8 bytes.
#[inline(always)]
pub(super) fn load_about(bytes: &(impl Bytes + ?Sized), error: &Packet) -> Option<Addr> {
    if error.src.addr.is_v4() {
        let dst: [u8; 4] = bytes.load(error.l4 + 8 + 16)?;
        Some(Addr::from_v4(zerocopy::transmute!(dst)))
    } else {
        let dst: [u8; 16] = bytes.load(error.l4 + 8 + 24)?;
        Some(zerocopy::transmute!(dst))
    }
}

/// The source in the IP header behind an Ethernet header, of a packet that is not read beyond it. `None`: it is no IP, or too
/// short.
#[inline(always)]
pub(super) fn load_source(bytes: &(impl Bytes + ?Sized), ether_type: u16) -> Option<Addr> {
    match ether_type {
        IPV4 => {
            let src: [u8; 4] = bytes.load(14 + 12)?;
            Some(Addr::from_v4(zerocopy::transmute!(src)))
        }
        IPV6 => {
            let src: [u8; 16] = bytes.load(14 + 8)?;
            Some(zerocopy::transmute!(src))
        }
        _ => None,
    }
}

/// Who says that it sends an ARP packet behind an Ethernet header: of IPv4 over Ethernet alone (RFC 826).
#[inline(always)]
pub(super) fn load_arp_sender(bytes: &(impl Bytes + ?Sized)) -> Option<Addr> {
    let head: [u8; 6] = bytes.load(14)?;
    let sender: [u8; 4] = bytes.load(28)?;
    // Ethernet and IPv4, with addresses of 6 and 4 bytes.
    (head == [0, 1, 8, 0, 6, 4]).then_some(Addr::from_v4(zerocopy::transmute!(sender)))
}
