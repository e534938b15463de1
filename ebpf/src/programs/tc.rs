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

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weir_ebpf::abi::Origin;
use weir_ebpf::wire::ethernet::ETHERNET;

use crate::act::{DROP, NEXT, act, pass};
use crate::decision::{Hook, Todo, decide, read};
use crate::skb::{Note, Skb};

struct FromPod;
struct FromNet;
struct Last;

impl Hook for FromPod {
    const ORIGIN: Option<Origin> = Some(Origin::Inside);
}

impl Hook for FromNet {
    const ORIGIN: Option<Origin> = Some(Origin::Outside);
}

impl Hook for Last {
    const ORIGIN: Option<Origin> = None;
}

#[inline(always)]
fn run<H: Hook, const L3: u32>(ctx: &TcContext) -> i32 {
    let skb = Skb::new(ctx.skb.skb);
    // A tagged packet is for a device on top of this one, or from it, and meets the hook there.
    if skb.is_tagged() || (H::ORIGIN.is_none() && skb.is_done()) {
        return NEXT;
    }
    let todo = match read::<L3>(skb.raw()) {
        Todo::Verdict => decide::<H>(skb.raw()),
        todo => todo,
    };
    match todo {
        Todo::Nothing if H::ORIGIN.is_none() => NEXT,
        Todo::Nothing => pass(skb, Note::Done),
        Todo::Drop => DROP,
        Todo::Verdict => act::<H>(skb.raw()),
    }
}

#[classifier]
fn weir_from_pod(ctx: TcContext) -> i32 {
    run::<FromPod, ETHERNET>(&ctx)
}

#[classifier]
fn weir_to_pod(ctx: TcContext) -> i32 {
    run::<Last, ETHERNET>(&ctx)
}

#[classifier]
fn weir_from_net(ctx: TcContext) -> i32 {
    run::<FromNet, ETHERNET>(&ctx)
}

#[classifier]
fn weir_to_net(ctx: TcContext) -> i32 {
    run::<Last, ETHERNET>(&ctx)
}

#[classifier]
fn weir_from_l3(ctx: TcContext) -> i32 {
    run::<FromNet, 0>(&ctx)
}

#[classifier]
fn weir_to_l3(ctx: TcContext) -> i32 {
    run::<Last, 0>(&ctx)
}
