//! Tells the agent of a drop: what it was, where and why. Nothing here is called for what passes, and nothing but counters is
//! touched for what may not be told.

use aya_ebpf::bindings::__sk_buff;
use weir_ebpf::abi::{Counter, DropEvent, DropReason, HookPoint, Peer, Port, Protocol, Side};
use weir_ebpf::datapath::enforce::Ruling;
use weir_ebpf::datapath::events::{EventAllowance, describe_judgement, describe_packet};
use weir_ebpf::datapath::packet::Onward;
use weir_ebpf::datapath::{Moment as _, Socket, Tables as _};

use crate::decision::{Decision, Todo};
use crate::kernel_tables::{KernelTables, Now};
use crate::maps::{DROP_EVENTS, TELLING};
use crate::skb::Skb;

/// Row of the map: one per CPU.
#[repr(C)]
pub(crate) struct Telling {
    allowance: EventAllowance,
    event: DropEvent,
}

/// The row of this CPU with an event begun in it; `None`: it may not be told.
#[inline(always)]
fn begin(whose: u32, hook: HookPoint, reason: u32) -> Option<&'static mut Telling> {
    let telling = TELLING.get_ptr_mut(0)?;
    // SAFETY: the kernel checked the index, and the row is this CPU's own; a program that interrupts another one here would
    // at worst spoil what is told.
    let telling = unsafe { &mut *telling };
    let now_ns = Now.now().ns;
    if !telling.allowance.take(now_ns, whose, reason) {
        KernelTables.count(Counter::DropUntold);
        return None;
    }
    telling.event = DropEvent::by_index(now_ns, hook, reason);
    Some(telling)
}

#[inline(always)]
fn tell(event: &DropEvent) {
    let told = DROP_EVENTS.output::<DropEvent>(event, 0);
    KernelTables.count(if told.is_ok() { Counter::DropTold } else { Counter::DropLost });
}

/// Tells of the packet in the map what was said of it: why it does not go on, or that a policy which only watches would deny it.
#[inline(never)]
pub(crate) fn tell_packet(raw: *mut __sk_buff, row: &Decision, hook: HookPoint, ruling: Ruling) {
    let skb = Skb::new(raw);
    let (reason, flags) = match (ruling.reason_index(), ruling.audited()) {
        // Its sender is told, or both ends are.
        (Some(reason), _) if !ruling.has(Ruling::UNREAD) && matches!(row.todo, Todo::Answer | Todo::Cut) => {
            (reason, DropEvent::REFUSED)
        }
        (Some(reason), _) => (reason, 0),
        (None, Some(Side::Ingress)) => (DropReason::PolicyIngress as u32, DropEvent::WOULD),
        (None, Some(Side::Egress)) => (DropReason::PolicyEgress as u32, DropEvent::WOULD),
        // An answer that is no refusal, or a packet that could not be changed.
        (None, None) => return,
    };
    let (device, side) = match row.translation.onward {
        Onward::Workload(workload) if ruling.has(Ruling::DELIVERED) => {
            (workload.ifindex, Some(Side::Ingress))
        }
        _ => (skb.ifindex(), side_at(hook)),
    };
    let Some(Telling { event, .. }) = begin(device, hook, reason) else { return };
    event.device = device;
    event.came_by = skb.came_by();
    event.ether_type = skb.ether_type();
    event.flags = flags;
    if let Some(side) = side {
        event.set_side(side);
    }
    if !ruling.has(Ruling::UNREAD) {
        let translation = if ruling.has(Ruling::TRANSLATED) { Some(&row.translation) } else { None };
        describe_packet(event, &row.packet, translation, &skb);
        describe_judgement(&KernelTables, event);
    }
    tell(event);
}

/// The way that packets are on there, as the pod sees it behind whose device the hook is.
#[inline(always)]
const fn side_at(hook: HookPoint) -> Option<Side> {
    match hook {
        HookPoint::FromPod => Some(Side::Egress),
        HookPoint::ToPod => Some(Side::Ingress),
        _ => None,
    }
}

/// Tells of a socket that was refused what it dialled.
#[inline(never)]
pub(crate) fn tell_socket(socket: &impl Socket, dialled: &Peer, hook: HookPoint, reason: DropReason) {
    let netns = socket.netns();
    let Some(Telling { event, .. }) = begin(netns as u32, hook, reason as u32) else { return };
    let client = KernelTables.lookup_netns(netns);
    let src = client.map_or_else(|| dialled.addr.unspecified(), |netns| netns.address_like(dialled.addr));
    event.set_ends(Peer { addr: src, port: Port::new(0) }, *dialled);
    // The hooks of datagrams see no other protocol, and are not told.
    event.protocol = socket.protocol().unwrap_or(Protocol::Udp) as u8;
    event.flags |= DropEvent::REFUSED;
    tell(event);
}
