//! Whether what was decided may be done: the steps of policies, between deciding and acting. Each has the stack for itself,
//! and finds in the map what those before it left.

use aya_ebpf::bindings::__sk_buff;
use weir_ebpf::abi::{Config, DropReason, Origin};
use weir_ebpf::datapath::Tables as _;
use weir_ebpf::datapath::enforce::{
    EnforceTables as _, Passing, Ruling, admit, admit_to, cut, judge_in, judge_out, judge_unread,
    release_from,
};
use weir_ebpf::datapath::packet::{Onward, Translation};
use weir_ebpf::wire::Unusable;

use crate::act::{DROP, NEXT};
use crate::cut::{note_cut, stage};
use crate::decision::{Decision, Hook, Todo, read};
use crate::events::tell_packet;
use crate::kernel_tables::KernelTables;
use crate::maps::CONFIG;
use crate::network::Here;
use crate::skb::Skb;

/// `ether_type` of a VLAN's tag (IEEE 802.1Q), which the kernel keeps beside the packet.
const TAGGED: u16 = 0x8100;

/// Whether there are policies.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    KernelTables.enforcement().is_on()
}

/// Replaces what there is to do by [`Todo::Drop`] where it may not be done. `is_guarded`: at a pod's device, with policies.
#[inline(always)]
pub(crate) fn enforce<H: Hook>(skb: Skb, row: &mut Decision, is_guarded: bool) {
    let raw = skb.raw();
    let leaves_pod = matches!(H::ORIGIN, Some(Origin::Inside));
    let ruling = match row.todo {
        Todo::Pass | Todo::Translate if is_guarded && leaves_pod => {
            let left = may_leave(raw, row);
            let crossed = if left.passes() { may_cross::<H>(raw, row) } else { Ruling::PASSES };
            if crossed.passes() { left } else { crossed }
        }
        Todo::Pass | Todo::Translate if is_guarded => may_enter_here(raw, row),
        Todo::Unread if is_guarded && !leaves_pod => may_enter_unread(raw),
        Todo::Pass | Todo::Translate if !H::AT_POD => may_cross::<H>(raw, row),
        _ => Ruling::PASSES,
    };
    if !ruling.passes() {
        return deny::<H>(row, ruling);
    }
    // What was to be refused or dropped has its reason already.
    if ruling != Ruling::PASSES {
        tell_packet(raw, row, H::POINT, circumstances(row, ruling));
        row.ruling = ruling;
    }
    // What goes past the stack into a pod does not meet the hook there.
    if H::ORIGIN.is_some()
        && row.todo == Todo::Translate
        && matches!(row.translation.onward, Onward::Workload(_))
        && (is_guarded || is_on())
    {
        let ruling = may_be_delivered(raw, row);
        if !ruling.passes() {
            return deny::<H>(row, ruling.with(Ruling::DELIVERED));
        }
        if ruling != Ruling::PASSES {
            tell_packet(raw, row, H::POINT, circumstances(row, ruling.with(Ruling::DELIVERED)));
            row.ruling = ruling;
        }
    }
}

/// Of a translated flow nothing is to be left: its first packet has entered it.
#[inline(always)]
fn deny<H: Hook>(row: &mut Decision, ruling: Ruling) {
    row.ruling = circumstances(row, ruling);
    if ruling.cuts() {
        return note_cut(row, stage::<H>());
    }
    if row.todo == Todo::Translate {
        cut_flow(row);
    }
    row.todo = Todo::Drop;
}

/// What of the packet stands in the row, for whoever tells of it.
#[inline(always)]
fn circumstances(row: &Decision, ruling: Ruling) -> Ruling {
    match row.todo {
        Todo::Translate => ruling.with(Ruling::TRANSLATED),
        Todo::Unread => ruling.with(Ruling::UNREAD),
        _ => ruling,
    }
}

/// Whether the packet is its pod's to send; how the pod is isolated, into the map.
#[inline(never)]
pub(crate) fn admit_packet(raw: *mut __sk_buff, row: &mut Decision) -> Ruling {
    let skb = Skb::new(raw);
    let read = match row.todo {
        Todo::Unread => Err(Unusable::NotIp),
        _ => Ok(&row.packet),
    };
    match admit(&KernelTables, skb.ifindex(), skb.ether_type(), read, &skb) {
        Ok(policy) => {
            row.policy = policy;
            Ruling::PASSES
        }
        Err(reason) => circumstances(row, reason.into()),
    }
}

/// A packet of a VLAN: no pod has a device for it that we know. Where it comes from a pod it bears the pod's address as any
/// other does, since a bridge may take the tag off.
#[inline(always)]
pub(crate) fn act_on_tagged<H: Hook, const L3: u32>(skb: Skb, row: &mut Decision) -> i32 {
    let ruling = if H::ORIGIN.is_some() {
        row.todo = read::<L3>(skb.raw(), row);
        may_leave_tagged(skb.raw(), row)
    } else {
        may_enter_tagged(skb.raw())
    };
    if ruling.passes() {
        return NEXT;
    }
    tell_packet(skb.raw(), row, H::POINT, ruling.with(Ruling::UNREAD));
    DROP
}

#[inline(always)]
fn may_leave_tagged(raw: *mut __sk_buff, row: &mut Decision) -> Ruling {
    if row.todo == Todo::Drop {
        return row.ruling;
    }
    let ruling = admit_packet(raw, row);
    if ruling.passes() && row.policy.denies_any() {
        KernelTables.count(DropReason::Unreadable.into());
        return DropReason::Unreadable.into();
    }
    ruling
}

#[inline(never)]
fn may_enter_tagged(raw: *mut __sk_buff) -> Ruling {
    let skb = Skb::new(raw);
    ruled(judge_unread(&KernelTables, skb.ifindex(), skb.came_by(), TAGGED))
}

#[inline(never)]
fn may_enter_unread(raw: *mut __sk_buff) -> Ruling {
    let skb = Skb::new(raw);
    ruled(judge_unread(&KernelTables, skb.ifindex(), skb.came_by(), skb.ether_type()))
}

#[inline(always)]
fn ruled(judged: Result<(), DropReason>) -> Ruling {
    judged.map_or_else(Ruling::from, |()| Ruling::PASSES)
}

/// Out of the pod behind the device of this hook.
#[inline(always)]
fn may_leave(raw: *mut __sk_buff, row: &Decision) -> Ruling {
    if row.policy.is_open() { Ruling::PASSES } else { may_leave_isolated(raw, row) }
}

#[inline(never)]
fn may_leave_isolated(raw: *mut __sk_buff, row: &Decision) -> Ruling {
    let skb = Skb::new(raw);
    judge_out(&Here::of(raw).node(), skb.ifindex(), row.policy, &passing(row, &skb)).into()
}

/// Into the pod behind the device of this hook.
#[inline(never)]
fn may_enter_here(raw: *mut __sk_buff, row: &Decision) -> Ruling {
    let skb = Skb::new(raw);
    judge_in(&Here::of(raw).node(), skb.ifindex(), skb.came_by(), &passing(row, &skb)).into()
}

/// Into the pod that it is sent to.
#[inline(never)]
fn may_be_delivered(raw: *mut __sk_buff, row: &Decision) -> Ruling {
    let Onward::Workload(workload) = row.translation.onward else { return Ruling::PASSES };
    let skb = Skb::new(raw);
    judge_in(&Here::of(raw).node(), workload.ifindex, skb.ifindex(), &passing(row, &skb)).into()
}

/// Not to a pod that nobody knows, and not from one to the world.
#[inline(always)]
fn may_cross<H: Hook>(raw: *mut __sk_buff, row: &Decision) -> Ruling {
    let holds = CONFIG.get(0).is_some_and(|config| config.flags & Config::HOLD_STRANGERS != 0);
    match (holds, H::ORIGIN) {
        (false, _) => Ruling::PASSES,
        (true, Some(_)) => may_come(raw, row),
        (true, None) => may_go(raw, row),
    }
}

#[inline(never)]
fn may_come(raw: *mut __sk_buff, row: &Decision) -> Ruling {
    let (src, dst) = if row.todo == Todo::Translate {
        (row.translation.src.addr, row.translation.dst.addr)
    } else {
        (row.packet.src.addr, row.packet.dst.addr)
    };
    ruled(admit_to(&Here::of(raw).node(), src, dst))
}

#[inline(never)]
fn may_go(raw: *mut __sk_buff, row: &Decision) -> Ruling {
    let (src, dst) = (row.packet.src.addr, row.packet.dst.addr);
    ruled(release_from(&Here::of(raw).node(), Skb::new(raw).came_by(), src, dst))
}

#[inline(never)]
fn cut_flow(row: &Decision) {
    cut(&KernelTables, &row.packet);
}

#[inline(always)]
fn passing<'a>(row: &'a Decision, skb: &'a Skb) -> Passing<'a, Skb> {
    let translation: Option<&Translation> =
        if row.todo == Todo::Translate { Some(&row.translation) } else { None };
    Passing { packet: &row.packet, translation, bytes: skb }
}
