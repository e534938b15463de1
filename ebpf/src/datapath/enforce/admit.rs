//! Whether a packet is its pod's to send: the addresses that it bears, and what only routers send.

use super::message::{Message, load_arp_sender, load_target};
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
    let Some(pod) = tables.lookup_pod(device) else { return admit_unknown(tables, device, read) };
    let packet = match read {
        Ok(packet) => packet,
        Err(Unusable::NotIp) if ether_type == ARP => {
            let sender = load_arp_sender(bytes).ok_or(DropReason::Unreadable)?;
            check_source(&pod, sender)?;
            // There is nothing in it to judge.
            return Ok(PodPolicy::OPEN);
        }
        Err(_) if pod.policy.is_open() => return Ok(PodPolicy::OPEN),
        Err(_) => return Err(DropReason::Unreadable),
    };
    check_source(&pod, packet.src.addr)?;
    match Message::of(packet, bytes) {
        Message::OfRouter => return Err(DropReason::RouterMessage),
        // Whoever says where an address is, says it of its own.
        Message::Neighbour { advertises: true } => {
            check_source(&pod, load_target(bytes, packet).ok_or(DropReason::Unreadable)?)?;
        }
        _ => {}
    }
    Ok(pod.policy)
}

/// Of a pod that nobody knows yet, where such are let pass: but not under the address of another.
#[inline(always)]
fn admit_unknown<T: EnforceTables>(
    tables: &T,
    device: u32,
    read: Result<&Packet, Unusable>,
) -> Result<PodPolicy, DropReason> {
    unknown(tables)?;
    let owner = read.ok().and_then(|packet| tables.lookup_workload(packet.src.addr));
    match owner {
        Some(owner) if owner.ifindex != device => Err(DropReason::SpoofedSource),
        _ => Ok(PodPolicy::OPEN),
    }
}

/// An address of the pod, or one that means nothing beyond the link.
#[inline(always)]
fn check_source(pod: &BoundPod, src: Addr) -> Result<(), DropReason> {
    match pod.address_like(src) {
        Some(own) if own == src => Ok(()),
        _ if is_of_link(src) || pod.flags & BoundPod::ANY_SOURCE != 0 => Ok(()),
        Some(_) => Err(DropReason::SpoofedSource),
        // It may have one in this family that nobody has heard of yet.
        None => Err(DropReason::UnknownPod),
    }
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
