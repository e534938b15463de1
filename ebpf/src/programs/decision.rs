//! Decides about a packet. What was decided goes to the subprogram that acts by way of a map: so each of the two has the
//! whole stack for itself.

use aya_ebpf::bindings::__sk_buff;
use weir_ebpf::abi::{Counter, DropReason, Origin};
use weir_ebpf::datapath::Tables as _;
use weir_ebpf::datapath::packet::{Node, Verdict, arrive, leave};
use weir_ebpf::wire::{Packet, Unusable, parse};

use crate::kernel_tables::{KernelTables, Now};
use crate::maps::DECISION;
use crate::network::Here;
use crate::skb::Skb;

/// Row of the map.
pub(crate) struct Decision {
    pub(crate) packet: Packet,
    pub(crate) verdict: Verdict,
}

/// A hook: which question it asks of a packet.
pub(crate) trait Hook {
    /// Of the first hook, whom packets come from; `None`: the last hook.
    const ORIGIN: Option<Origin>;
}

/// What there is to do.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Todo {
    /// The packet is none of ours.
    Nothing = 0,
    /// It is not for the wire.
    Drop = 1,
    /// What stands in the map.
    Verdict = 2,
}

/// Reads the packet whose IP header is at `L3` into the map.
#[inline(never)]
pub(crate) fn read<const L3: u32>(raw: *mut __sk_buff) -> Todo {
    let skb = Skb::new(raw);
    let packet = match parse(&skb, L3, skb.ether_type()) {
        Ok(packet) => packet,
        Err(Unusable::NotIp | Unusable::Malformed) => return Todo::Nothing,
        Err(Unusable::MappedAddress) => {
            KernelTables.count(Counter::from(DropReason::MappedAddress));
            return Todo::Drop;
        }
    };
    let Some(row) = DECISION.get_ptr_mut(0) else { return Todo::Nothing };
    // SAFETY: the kernel checked the index, and the row is this CPU's own.
    unsafe { (&raw mut (*row).packet).write(packet) };
    Todo::Verdict
}

/// Decides about the packet in the map.
#[inline(never)]
pub(crate) fn decide<H: Hook>(raw: *mut __sk_buff) -> Todo {
    let Some(row) = DECISION.get_ptr_mut(0) else { return Todo::Nothing };
    // SAFETY: the kernel checked the index, the row is this CPU's own, and the packet was just written.
    let packet = unsafe { &(*row).packet };
    let skb = Skb::new(raw);
    let here = Here { context: raw.cast(), ifindex: skb.ifindex() };
    let node = Node { tables: &KernelTables, moment: &Now, network: &here };
    let verdict = match H::ORIGIN {
        Some(origin) => arrive(&node, origin, packet, &skb),
        None => leave(&node, packet, &skb),
    };
    if matches!(verdict, Verdict::Pass) {
        return Todo::Nothing;
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*row).verdict).write(verdict) };
    Todo::Verdict
}
