//! Carries out verdicts: rewrites packets, answers in their place, sends them on their way.

use aya_ebpf::bindings::{__sk_buff, BPF_F_INGRESS, TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer};
use weir_ebpf::abi::{Config, Counter, Origin};
use weir_ebpf::act::answer::{answer, answer_too_long, is_error};
use weir_ebpf::act::ethernet::addressed;
use weir_ebpf::act::rewrite::{Frame as _, Stuck, rewrite};
use weir_ebpf::datapath::packet::{Answer, Onward, remember_hop};
use weir_ebpf::datapath::{Moment as _, Tables as _};
use weir_ebpf::wire::{Bytes as _, Kind, Packet};

use crate::cut::tell_both;
use crate::decision::{Decision, Exit, Hook, Todo};
use crate::events::tell_packet;
use crate::kernel_tables::{KernelTables, Now};
use crate::limit;
use crate::network::{Here, NextHop, Way};
use crate::skb::{Note, Skb};

/// The next program has its turn: TCX_NEXT, and TC_ACT_UNSPEC of a filter, are one number.
pub(crate) const NEXT: i32 = TC_ACT_UNSPEC;
/// TCX_DROP, TC_ACT_SHOT
pub(crate) const DROP: i32 = TC_ACT_SHOT as i32;

/// TCX_REDIRECT, TC_ACT_REDIRECT
const REDIRECT: i32 = TC_ACT_REDIRECT as i32;

/// Of a translated packet that the stack forwards: flannel's masquerade leaves such packets alone. It is what kube-proxy
/// marks packets with that it masquerades itself.
const FORWARDED: u32 = 0x4000;

/// What `bpf_redirect_neigh` is told of a next hop.
const NEXT_HOP: i32 = size_of::<NextHop>() as i32;

/// Carries out what was decided.
#[inline(always)]
pub(crate) fn act<H: Hook>(skb: Skb, row: &mut Decision, todo: Todo) -> i32 {
    match todo {
        Todo::Sent => REDIRECT,
        Todo::Pass | Todo::Unread if H::ORIGIN.is_none() => NEXT,
        Todo::Pass | Todo::Unread => pass(skb, Note::LookAgain),
        Todo::Translate if row.translation.is_beyond(&row.packet) => {
            give_answer::<H>(skb.raw(), &row.packet, &Answer::TimeExceeded)
        }
        Todo::Translate => translate::<H>(skb, row),
        Todo::Answer => {
            tell_packet(skb.raw(), row, H::POINT, row.ruling);
            give_answer::<H>(skb.raw(), &row.packet, &row.answer)
        }
        Todo::Drop => {
            tell_packet(skb.raw(), row, H::POINT, row.ruling);
            DROP
        }
        Todo::Cut => {
            tell_packet(skb.raw(), row, H::POINT, row.ruling);
            cut::<H>(skb, row)
        }
        // Steps, of which `decide` takes the next.
        Todo::Read | Todo::LookUp | Todo::Follow | Todo::Begin | Todo::BeginAgain | Todo::Reclaim => NEXT,
    }
}

#[inline(always)]
fn pass(skb: Skb, note: Note) -> i32 {
    skb.leave_note(note);
    NEXT
}

/// Where it goes on, what it becomes, off it goes: step by step, as in [`crate::tc`]. What a step returns is looked at
/// before the next one is called: the verifier of Linux 6.1 loses track of it, and takes branches for dead that are not.
#[inline(always)]
fn translate<H: Hook>(skb: Skb, row: &mut Decision) -> i32 {
    let raw = skb.raw();
    match find_exit(raw, row) {
        Told::Nobody => {}
        Told::Sender => return send_back::<H>(skb),
        Told::TooOften => return DROP,
    }
    match rewrite_here(raw, row) {
        To::Nobody => DROP,
        To::Stack => send_through_stack::<H>(skb),
        to => send(skb, row, to).unwrap_or(DROP),
    }
}

/// Whom a packet goes to from here.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum To {
    /// Nobody.
    Nobody = 0,
    /// The stack; after the last hook, whoever it is on its way to.
    Stack = 1,
    /// The next hop that stands in the map.
    Hop = 2,
    /// The next hop whose address stands in the map; the kernel finds its Ethernet address.
    Neighbour = 3,
    /// A pod.
    Workload = 4,
}

/// Where the translated packet is to go, into the map; or its sender is told that it cannot.
#[inline(never)]
fn find_exit(raw: *mut __sk_buff, row: &mut Decision) -> Told {
    row.to = match &row.translation.onward {
        Onward::Stack => To::Stack,
        Onward::Route => return find_hop(Skb::new(raw), row),
        Onward::Workload(workload) => {
            row.exit = Exit { ifindex: workload.ifindex, ethernet: addressed(workload) };
            To::Workload
        }
    };
    Told::Nobody
}

/// By the route to its destination.
#[inline(always)]
fn find_hop(skb: Skb, row: &mut Decision) -> Told {
    let Ok(length) = length_on_wire(skb, &row.packet) else { return Told::TooOften };
    // What came by a device without Ethernet header cannot leave by one with.
    if row.packet.l3 == 0 {
        KernelTables.count(Counter::RedirectFailed);
        row.to = To::Stack;
        return Told::Nobody;
    }
    if row.translation.hop.takes(length) {
        row.exit = Exit::from(&row.translation.hop);
        row.to = To::Hop;
        return Told::Nobody;
    }
    let here = Here { context: skb.raw().cast(), ifindex: skb.ifindex() };
    let window = Now.window();
    row.to = match here.lookup_way(row.translation.src.addr, row.translation.dst.addr, length) {
        // This packet goes by the neighbour table, for those that follow in the same window: so the kernel knows that the
        // entry is in use, and finds out in time that somebody else has the address now.
        Way::Known(hop, next) => {
            remember_hop(&KernelTables, &row.packet, &hop, window);
            (row.exit.ifindex, row.next) = (hop.ifindex, next);
            To::Neighbour
        }
        Way::Unresolved { ifindex, next } => {
            (row.exit.ifindex, row.next) = (ifindex, next);
            To::Neighbour
        }
        Way::TooLong { mtu, .. } => {
            KernelTables.count(Counter::RedirectFailed);
            row.to = To::Stack;
            return refuse_length(skb.raw(), &row.packet, mtu);
        }
        Way::None => {
            KernelTables.count(Counter::RedirectFailed);
            To::Stack
        }
    };
    Told::Nobody
}

/// The packet as it is to leave, and where to: nobody gets what could not be rewritten.
#[inline(never)]
fn rewrite_here(raw: *mut __sk_buff, row: &Decision) -> To {
    let to = row.to;
    match rewrite(&mut Skb::new(raw), &row.packet, &row.translation, to != To::Stack) {
        Ok(()) => to,
        Err(Stuck) => To::Nobody,
    }
}

/// Past the stack.
#[inline(always)]
fn send(mut skb: Skb, row: &mut Decision, to: To) -> Result<i32, Stuck> {
    if to != To::Neighbour && row.packet.l3 != 0 {
        skb.store(0, row.exit.ethernet)?;
    }
    skb.leave_note(Note::Done);
    let ifindex = row.exit.ifindex;
    if to == To::Workload {
        skb.set_for_us();
    }
    // SAFETY: plain numbers, and a next hop of that size.
    let action = unsafe {
        match to {
            To::Workload => bpf_redirect_peer(ifindex, 0),
            To::Neighbour => bpf_redirect_neigh(ifindex, (&raw mut row.next).cast(), NEXT_HOP, 0),
            _ => bpf_redirect(ifindex, 0),
        }
    };
    Ok(action as i32)
}

/// On through the stack; at the last hook, simply on.
#[inline(always)]
fn send_through_stack<H: Hook>(skb: Skb) -> i32 {
    if H::ORIGIN.is_none() {
        return pass(skb, Note::Done);
    }
    // A pod's own packets are the CNI plugin's to masquerade or not.
    let is_from_outside = matches!(H::ORIGIN, Some(Origin::Outside));
    if is_from_outside && KernelTables.config().flags & Config::MARK_FORWARDED != 0 {
        skb.add_mark(FORWARDED);
    }
    pass(skb, Note::LookAgain)
}

/// Length of the IP packet, or of the longest of those that a device is to make of it.
#[inline(always)]
pub(crate) fn length_on_wire(skb: Skb, packet: &Packet) -> Result<u16, Stuck> {
    let payload = skb.segment_size();
    if payload == 0 {
        return Ok(packet.length as u16);
    }
    let header = match packet.kind {
        Kind::Transport(weir_ebpf::abi::Protocol::Tcp) => {
            let [offset] = skb.load(packet.l4 + 12).ok_or(Stuck)?;
            u32::from(offset >> 4) * 4
        }
        _ => 8,
    };
    Ok((packet.l4 - packet.l3 + header + payload) as u16)
}

/// Who learned why a packet does not go on.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Told {
    /// The packet has become the answer.
    Sender = 0,
    /// There is no answer to it.
    Nobody = 1,
    /// There was no room for it in this second, or no memory: it is neither packet nor answer.
    TooOften = 2,
}

#[inline(always)]
fn told(answered: Result<bool, Stuck>) -> Told {
    match answered {
        Ok(true) => Told::Sender,
        Ok(false) => Told::Nobody,
        Err(Stuck) => Told::TooOften,
    }
}

#[inline(always)]
fn give_answer<H: Hook>(raw: *mut __sk_buff, packet: &Packet, what: &Answer) -> i32 {
    match tell(raw, packet, what) {
        Told::Sender => send_back::<H>(Skb::new(raw)),
        Told::Nobody | Told::TooOften => DROP,
    }
}

#[inline(never)]
fn tell(raw: *mut __sk_buff, packet: &Packet, what: &Answer) -> Told {
    if is_error(packet, what) && !limit::take_one() {
        return Told::TooOften;
    }
    told(answer(&mut Skb::new(raw), packet, *what))
}

#[inline(never)]
fn refuse_length(raw: *mut __sk_buff, packet: &Packet, mtu: u16) -> Told {
    if !limit::take_one() {
        return Told::TooOften;
    }
    told(answer_too_long(&mut Skb::new(raw), packet, mtu))
}

/// The reset in the packet's place: to its sender, or at the last hook to whom it is for.
#[inline(always)]
fn cut<H: Hook>(skb: Skb, row: &mut Decision) -> i32 {
    if !tell_both(skb, row) {
        return DROP;
    }
    if H::ORIGIN.is_some() { send_back::<H>(skb) } else { pass(skb, Note::Done) }
}

/// To where the packet came from: out by the device of the first hook, and from the last one up into the node.
#[inline(always)]
fn send_back<H: Hook>(skb: Skb) -> i32 {
    skb.leave_note(Note::Done);
    let flags = if H::ORIGIN.is_some() { 0 } else { u64::from(BPF_F_INGRESS) };
    // SAFETY: plain numbers.
    unsafe { bpf_redirect(skb.ifindex(), flags) as i32 }
}
