//! Whether a packet is its pod's to send: the addresses that it bears, and what only routers send.

use super::message::{Message, load_about, load_arp_sender, load_source, load_target};
use super::tunnel::check_tunnel;
use super::{EnforceTables, counted, unknown};
use crate::abi::{Addr, BoundPod, DropReason, PodPolicy};
use crate::wire::{Bytes, Kind, Packet, Unusable};

/// `ether_type` of ARP (RFC 826).
pub(super) const ARP: u16 = 0x0806;
/// `ether_type` of IPv4 (RFC 894).
pub(super) const IPV4: u16 = 0x0800;
/// `ether_type` of IPv6 (RFC 2464).
pub(super) const IPV6: u16 = 0x86dd;
/// `ether_type` of a VLAN's tag, a customer's or a provider's (IEEE 802.1Q).
const TAGS: [u16; 2] = [0x8100, 0x88a8];

/// What leaves a pod, as far as it could be read.
struct Sent<'a, B: ?Sized> {
    /// The device that the pod is behind.
    device: u32,
    /// In host order.
    ether_type: u16,
    read: Result<&'a Packet, Unusable>,
    bytes: &'a B,
}

/// Whether what leaves the pod behind a device is the pod's to send, and how the pod is isolated. `read` is what the bytes
/// came to; `ether_type` is in host order.
///
/// # Errors
/// Why not; it is counted.
#[inline(always)]
pub fn admit<T: EnforceTables>(
    tables: &T,
    device: u32,
    ether_type: u16,
    read: Result<&Packet, Unusable>,
    bytes: &(impl Bytes + ?Sized),
) -> Result<PodPolicy, DropReason> {
    counted(tables, admit_from(tables, &Sent { device, ether_type, read, bytes }))
}

#[inline(always)]
fn admit_from<T: EnforceTables>(
    tables: &T,
    sent: &Sent<'_, impl Bytes + ?Sized>,
) -> Result<PodPolicy, DropReason> {
    let Sent { device, ether_type, read, bytes } = *sent;
    if matches!(read, Err(Unusable::MappedAddress)) {
        return Err(DropReason::MappedAddress);
    }
    if let Ok(packet) = read {
        check_tunnel(tables, device, packet)?;
    }
    // The kernel takes tags that name no VLAN off, one after the other: nobody can say what is left then.
    let is_tagged_twice = read.is_err() && TAGS.contains(&ether_type);
    let Some(pod) = tables.lookup_pod(device) else {
        if is_tagged_twice {
            return Err(DropReason::Unreadable);
        }
        return admit_unknown(tables, sent);
    };
    if pod.flags & BoundPod::NO_POD != 0 {
        // Nor does it pass for one of another node's, as far as policies tell those from the rest.
        let is_pods = |packet: &Packet| tables.lookup_address_class(packet.src.addr).is_some();
        return if read.is_ok_and(is_pods) {
            Err(DropReason::SpoofedSource)
        } else {
            admit_others(tables, sent)
        };
    }
    let packet = match read {
        Ok(packet) => packet,
        Err(Unusable::NotIp) if ether_type == ARP => {
            let sender = load_arp_sender(bytes).ok_or(DropReason::Unreadable)?;
            check_source(tables, device, &pod, sender)?;
            // There is nothing in it to judge.
            return Ok(PodPolicy::OPEN);
        }
        Err(_) => return admit_unread(tables, &pod, sent, is_tagged_twice),
    };
    check_source(tables, device, &pod, packet.src.addr)?;
    // An error is told by who got the packet that it is about.
    if packet.kind == Kind::IcmpError
        && let Some(about) = load_about(bytes, packet)
        && leaves_link(about)
    {
        check_source(tables, device, &pod, about)?;
    }
    let message = Message::of(packet, bytes);
    match message {
        Message::OfRouter => return Err(DropReason::RouterMessage),
        Message::ErrorInPieces => return Err(DropReason::Unreadable),
        // Whoever says where an address is, says it of its own.
        Message::Neighbour { advertises: true } => {
            let target = load_target(bytes, packet).ok_or(DropReason::Unreadable)?;
            check_source(tables, device, &pod, target)?;
        }
        _ => {}
    }
    let strays = is_of_link(packet.src.addr) && !message.is_for_links() && leaves_link(packet.dst.addr);
    if strays && pod.flags & BoundPod::ANY_SOURCE == 0 {
        return Err(DropReason::SpoofedSource);
    }
    Ok(pod.policy)
}

/// What nobody can read leaves a pod that nothing isolates, under its own address. Of IPv6 it does not: behind too many headers
/// there may be a router's message.
#[inline(always)]
fn admit_unread<T: EnforceTables>(
    tables: &T,
    pod: &BoundPod,
    sent: &Sent<'_, impl Bytes + ?Sized>,
    is_tagged_twice: bool,
) -> Result<PodPolicy, DropReason> {
    let Sent { device, ether_type, bytes, .. } = *sent;
    if !pod.policy.denies_any() && pod.flags & BoundPod::ANY_SOURCE != 0 {
        return Ok(PodPolicy::OPEN);
    }
    if pod.policy.denies_any() || is_tagged_twice || ether_type == IPV6 {
        return Err(DropReason::Unreadable);
    }
    if ether_type == IPV4 {
        let source = load_source(bytes, ether_type).ok_or(DropReason::Unreadable)?;
        check_source(tables, device, pod, source)?;
    }
    Ok(PodPolicy::OPEN)
}

/// Of a pod that nobody knows yet. One that is held may say where its own addresses are, so that it need not ask a second time
/// when it is known.
#[inline(always)]
fn admit_unknown<T: EnforceTables>(
    tables: &T,
    sent: &Sent<'_, impl Bytes + ?Sized>,
) -> Result<PodPolicy, DropReason> {
    if let Err(held) = unknown(tables) {
        return if introduces(tables, sent) { Ok(PodPolicy::OPEN) } else { Err(held) };
    }
    admit_others(tables, sent)
}

/// Of somebody who is let pass though nobody knows an address of theirs: it is not another's of this node's pods, whose packets
/// and whose place on the link are their own; and routers are not behind such devices.
#[inline(always)]
fn admit_others<T: EnforceTables>(
    tables: &T,
    sent: &Sent<'_, impl Bytes + ?Sized>,
) -> Result<PodPolicy, DropReason> {
    let Sent { device, ether_type, read, bytes } = *sent;
    let said = match read {
        Ok(packet) => {
            check_no_others(tables, device, packet.src.addr)?;
            match Message::of(packet, bytes) {
                Message::OfRouter => return Err(DropReason::RouterMessage),
                Message::ErrorInPieces => return Err(DropReason::Unreadable),
                Message::Neighbour { advertises: true } => load_target(bytes, packet),
                _ if packet.kind == Kind::IcmpError => load_about(bytes, packet),
                _ => None,
            }
        }
        Err(_) if ether_type == ARP => load_arp_sender(bytes),
        Err(_) => load_source(bytes, ether_type),
    };
    if let Some(addr) = said {
        check_no_others(tables, device, addr)?;
    }
    Ok(PodPolicy::OPEN)
}

/// ARP, neighbour discovery and group membership, of addresses that are behind the device alone.
#[inline(always)]
fn introduces<T: EnforceTables>(tables: &T, sent: &Sent<'_, impl Bytes + ?Sized>) -> bool {
    let Sent { device, ether_type, read, bytes } = *sent;
    let is_own = |addr: Addr| {
        is_of_link(addr) || tables.lookup_workload(addr).is_some_and(|owner| owner.ifindex == device)
    };
    match read {
        Err(Unusable::NotIp) if ether_type == ARP => load_arp_sender(bytes).is_some_and(is_own),
        Err(_) => false,
        Ok(packet) => match Message::of(packet, bytes) {
            Message::Neighbour { advertises: true } => {
                is_own(packet.src.addr) && load_target(bytes, packet).is_some_and(is_own)
            }
            Message::Neighbour { advertises: false } | Message::Membership => is_own(packet.src.addr),
            _ => false,
        },
    }
}

/// An address that nobody knows to be this pod's: where such are let pass, it is not another's.
#[inline(always)]
fn check_unknown<T: EnforceTables>(tables: &T, device: u32, src: Addr) -> Result<(), DropReason> {
    unknown(tables)?;
    check_no_others(tables, device, src)
}

/// An address that is not another's of this node's pods.
#[inline(always)]
fn check_no_others<T: EnforceTables>(tables: &T, device: u32, src: Addr) -> Result<(), DropReason> {
    match tables.lookup_workload(src) {
        Some(owner) if owner.ifindex != device => Err(DropReason::SpoofedSource),
        _ => Ok(()),
    }
}

/// An address of the pod, or one that means nothing beyond the link.
#[inline(always)]
fn check_source<T: EnforceTables>(
    tables: &T,
    device: u32,
    pod: &BoundPod,
    src: Addr,
) -> Result<(), DropReason> {
    match pod.address_like(src) {
        Some(own) if own == src => Ok(()),
        _ if is_of_link(src) || pod.flags & BoundPod::ANY_SOURCE != 0 => Ok(()),
        Some(_) => Err(DropReason::SpoofedSource),
        // It may have one in this family that nobody has heard of yet.
        None => check_unknown(tables, device, src),
    }
}

/// Whether a destination is beyond the link that a pod has with its node. A source that means nothing there has no class of
/// its own: it would pass for the rest of the world.
#[inline(always)]
pub(super) fn leaves_link(dst: Addr) -> bool {
    let [first, _, _, last] = dst.words().map(u32::from_be);
    // Groups (224.0.0.0/4, ff00::/8), and everybody (255.255.255.255).
    let is_group = if dst.is_v4() { last >= 0xe000_0000 } else { first >> 24 == 0xff };
    !is_group && !is_of_link(dst)
}

/// No address yet (0.0.0.0, ::), or one of this link alone (169.254.0.0/16, fe80::/10).
#[inline(always)]
pub(super) fn is_of_link(addr: Addr) -> bool {
    let [first, _, _, last] = addr.words().map(u32::from_be);
    if addr.is_v4() {
        last == 0 || last >> 16 == 0xa9fe
    } else {
        first >> 22 == 0xfe80 >> 6 || addr.halves() == [0; 2]
    }
}
