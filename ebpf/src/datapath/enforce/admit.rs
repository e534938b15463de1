//! Whether a packet is its pod's to send: the addresses that it bears, and what only routers send.

use super::message::{Message, load_arp_sender, load_target};
use super::tunnel::check_tunnel;
use super::{EnforceTables, counted, unknown};
use crate::abi::{Addr, BoundPod, DropReason, PodPolicy};
use crate::wire::{Bytes, Packet, Unusable};

/// `ether_type` of ARP (RFC 826).
pub(super) const ARP: u16 = 0x0806;

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
    counted(tables, admit_from(tables, device, ether_type, read, bytes))
}

#[inline(always)]
fn admit_from<T: EnforceTables>(
    tables: &T,
    device: u32,
    ether_type: u16,
    read: Result<&Packet, Unusable>,
    bytes: &(impl Bytes + ?Sized),
) -> Result<PodPolicy, DropReason> {
    if matches!(read, Err(Unusable::MappedAddress)) {
        return Err(DropReason::MappedAddress);
    }
    if let Ok(packet) = read {
        check_tunnel(tables, device, packet)?;
    }
    let Some(pod) = tables.lookup_pod(device) else { return admit_unknown(tables, device, read) };
    let packet = match read {
        Ok(packet) => packet,
        Err(Unusable::NotIp) if ether_type == ARP => {
            let sender = load_arp_sender(bytes).ok_or(DropReason::Unreadable)?;
            check_source(tables, device, &pod, sender)?;
            // There is nothing in it to judge.
            return Ok(PodPolicy::OPEN);
        }
        Err(_) if pod.policy.is_open() => return Ok(PodPolicy::OPEN),
        Err(_) => return Err(DropReason::Unreadable),
    };
    check_source(tables, device, &pod, packet.src.addr)?;
    let message = Message::of(packet, bytes);
    match message {
        Message::OfRouter => return Err(DropReason::RouterMessage),
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

/// Of a pod that nobody knows yet.
#[inline(always)]
fn admit_unknown<T: EnforceTables>(
    tables: &T,
    device: u32,
    read: Result<&Packet, Unusable>,
) -> Result<PodPolicy, DropReason> {
    match read {
        Ok(packet) => check_unknown(tables, device, packet.src.addr)?,
        Err(_) => unknown(tables)?,
    }
    Ok(PodPolicy::OPEN)
}

/// An address that nobody knows to be this pod's: where such are let pass, it is not another's.
#[inline(always)]
fn check_unknown<T: EnforceTables>(tables: &T, device: u32, src: Addr) -> Result<(), DropReason> {
    unknown(tables)?;
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
fn leaves_link(dst: Addr) -> bool {
    let [first, _, _, last] = dst.words().map(u32::from_be);
    // Groups (224.0.0.0/4, ff00::/8), and everybody (255.255.255.255).
    let is_group = if dst.is_v4() { last >= 0xe000_0000 } else { first >> 24 == 0xff };
    !is_group && !is_of_link(dst)
}

/// No address yet (0.0.0.0, ::), or one of this link alone (169.254.0.0/16, fe80::/10).
#[inline(always)]
fn is_of_link(addr: Addr) -> bool {
    let [first, _, _, last] = addr.words().map(u32::from_be);
    if addr.is_v4() {
        last == 0 || last >> 16 == 0xa9fe
    } else {
        first >> 22 == 0xfe80 >> 6 || addr.halves() == [0; 2]
    }
}
