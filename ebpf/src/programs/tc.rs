//! The entry points at devices: the first and the last hook that a packet meets on this node.
//!
//! | program | hook | packets |
//! | --- | --- | --- |
//! | `weir_from_pod` | ingress of the host's end of a pod's device | that the pod sends |
//! | `weir_to_pod` | its egress | for the pod |
//! | `weir_from_net` | ingress of a node-facing device | from other nodes and the world |
//! | `weir_to_net` | its egress | that leave the node |
//! | `weir_from_l3`, `weir_to_l3` | the same of devices without Ethernet header | the same |
//!
//! What is not ours goes on to the next program of the hook, as it came.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weir_ebpf::abi::{HookPoint, Origin};
use weir_ebpf::act::ethernet::ETHERNET;
use weir_ebpf::datapath::enforce::Ruling;

use crate::act::{NEXT, act};
use crate::ahead::go_ahead;
use crate::decision::{
    Decision, Hook, Todo, choose_flow, enter_flow, find_frontend, follow, forget_flow, give_up_flow, look_up,
    read, reclaim_port, refuse_flow, reserve_flow, withdraw_flow,
};
use crate::enforce::{act_on_tagged, admit_packet, enforce, is_on};
use crate::maps::DECISION;
use crate::skb::Skb;

struct FromPod;
struct FromNet;
struct ToPod;
struct ToNet;

impl Hook for FromPod {
    const ORIGIN: Option<Origin> = Some(Origin::Inside);
    const AT_POD: bool = true;
    const POINT: HookPoint = HookPoint::FromPod;
}

impl Hook for FromNet {
    const ORIGIN: Option<Origin> = Some(Origin::Outside);
    const AT_POD: bool = false;
    const POINT: HookPoint = HookPoint::FromNet;
}

impl Hook for ToPod {
    const ORIGIN: Option<Origin> = None;
    const AT_POD: bool = true;
    const POINT: HookPoint = HookPoint::ToPod;
}

impl Hook for ToNet {
    const ORIGIN: Option<Origin> = None;
    const AT_POD: bool = false;
    const POINT: HookPoint = HookPoint::ToNet;
}

#[inline(always)]
fn run<H: Hook, const L3: u32>(ctx: &TcContext) -> i32 {
    let skb = Skb::new(ctx.skb.skb);
    let is_guarded = H::AT_POD && is_on();
    // A tagged packet is for a device on top of this one, or from it, and meets the hook there.
    let is_tagged = skb.is_tagged();
    if is_tagged && !is_guarded {
        return NEXT;
    }
    let is_done = H::ORIGIN.is_none() && skb.is_done();
    if is_done && !is_guarded {
        return NEXT;
    }
    // Of a pod's packets a bridge takes those for other pods, whose flows are ours to follow.
    if L3 != 0 && matches!(H::ORIGIN, Some(Origin::Outside)) && skb.is_for_others() {
        return NEXT;
    }
    let Some(row) = DECISION.get_ptr_mut(0) else { return NEXT };
    // SAFETY: the kernel checked the index, the row is this CPU's own, and each step reads what one before it wrote.
    let row = unsafe { &mut *row };
    row.ruling = Ruling::PASSES;
    if is_tagged {
        return act_on_tagged::<H, L3>(skb, row);
    }
    row.todo = if is_done { read_finished::<L3>(skb, row) } else { decide::<H, L3>(skb, row, is_guarded) };
    enforce::<H>(skb, row, is_guarded);
    let todo = row.todo;
    act::<H>(skb, row, todo)
}

/// What another hook finished is only to be judged.
#[inline(always)]
fn read_finished<const L3: u32>(skb: Skb, row: &mut Decision) -> Todo {
    match read::<L3>(skb.raw(), row) {
        Todo::LookUp | Todo::Follow => Todo::Pass,
        todo => todo,
    }
}

/// Step by step: each has the stack for itself.
#[inline(always)]
fn decide<H: Hook, const L3: u32>(skb: Skb, row: &mut Decision, is_guarded: bool) -> Todo {
    let raw = skb.raw();
    let ahead = H::ORIGIN.is_some() && L3 == ETHERNET && !is_guarded;
    let todo = if ahead { go_ahead(raw, row) } else { Todo::Read };
    match todo {
        Todo::Sent | Todo::Drop => return todo,
        Todo::Begin => return begin::<H>(raw, row),
        Todo::LookUp => {}
        _ => {
            row.todo = read::<L3>(raw, row);
            if is_guarded && H::ORIGIN.is_some() && row.todo != Todo::Drop {
                let ruling = admit_packet(raw, row);
                if !ruling.passes() {
                    row.ruling = ruling;
                    return Todo::Drop;
                }
            }
            match row.todo {
                Todo::Follow => return follow::<H>(raw, row),
                Todo::LookUp => {}
                todo => return todo,
            }
        }
    }
    match look_up::<H>(raw, row) {
        Todo::Begin if H::ORIGIN.is_some() => {}
        Todo::BeginAgain if H::ORIGIN.is_some() => forget_flow(row),
        todo => return todo,
    }
    begin::<H>(raw, row)
}

/// A packet without a flow: likewise.
#[inline(always)]
fn begin<H: Hook>(raw: *mut __sk_buff, row: &mut Decision) -> Todo {
    match find_frontend(raw, row) {
        Todo::Begin => {}
        todo => return todo,
    }
    match choose_flow::<H>(raw, row) {
        Todo::Begin => {}
        todo => return todo,
    }
    match reserve_flow(raw, row) {
        Todo::Begin => {}
        Todo::Reclaim => {
            if !reclaim_port(raw, row) {
                return refuse_flow(row);
            }
            match reserve_flow(raw, row) {
                Todo::Begin => {}
                Todo::Reclaim => return refuse_flow(row),
                todo => return todo,
            }
        }
        todo => return todo,
    }
    match enter_flow(raw, row) {
        Todo::BeginAgain => withdraw_flow(row),
        todo => return todo,
    }
    match look_up::<H>(raw, row) {
        Todo::Begin | Todo::BeginAgain => give_up_flow(row),
        todo => todo,
    }
}

#[classifier]
fn weir_from_pod(ctx: TcContext) -> i32 {
    run::<FromPod, ETHERNET>(&ctx)
}

#[classifier]
fn weir_to_pod(ctx: TcContext) -> i32 {
    run::<ToPod, ETHERNET>(&ctx)
}

#[classifier]
fn weir_from_net(ctx: TcContext) -> i32 {
    run::<FromNet, ETHERNET>(&ctx)
}

#[classifier]
fn weir_to_net(ctx: TcContext) -> i32 {
    run::<ToNet, ETHERNET>(&ctx)
}

#[classifier]
fn weir_from_l3(ctx: TcContext) -> i32 {
    run::<FromNet, 0>(&ctx)
}

#[classifier]
fn weir_to_l3(ctx: TcContext) -> i32 {
    run::<ToNet, 0>(&ctx)
}
