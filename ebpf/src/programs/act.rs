//! Carries out verdicts: rewrites packets, answers in their place, sends them on their way.

use aya_ebpf::bindings::{__sk_buff, BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer};
use weir_ebpf::abi::{Config, Counter, Hop, Origin, Window, Workload};
use weir_ebpf::act::answer::{answer, answer_too_long, is_error};
use weir_ebpf::act::ethernet::{addressed, addresses};
use weir_ebpf::act::rewrite::{Frame as _, Stuck, rewrite};
use weir_ebpf::datapath::packet::{Answer, Onward, Translation, remember_hop};
use weir_ebpf::datapath::{Moment as _, Tables as _};
use weir_ebpf::wire::{Bytes as _, Kind, Packet};

use crate::decision::{Decision, Hook, Todo};
use crate::kernel_tables::{KernelTables, Now};
use crate::limit;
use crate::network::{Here, Way};
use crate::skb::{Note, Skb};

/// The next program has its turn: TCX_NEXT, and TC_ACT_UNSPEC of a filter, are one number.
pub(crate) const NEXT: i32 = TC_ACT_UNSPEC;
/// TCX_DROP, TC_ACT_SHOT
const DROP: i32 = TC_ACT_SHOT as i32;

/// Of a translated packet that the stack forwards: flannel's masquerade leaves such packets alone. It is what kube-proxy
/// marks packets with that it masquerades itself.
const FORWARDED: u32 = 0x4000;

/// Carries out what was decided.
#[inline(always)]
pub(crate) fn act<H: Hook>(skb: Skb, row: &Decision, todo: Todo) -> i32 {
    match todo {
        Todo::Pass if H::ORIGIN.is_none() => NEXT,
        Todo::Pass => pass(skb, Note::LookAgain),
        Todo::Translate if row.translation.is_beyond(&row.packet) => {
            give_answer::<H>(skb.raw(), &row.packet, &Answer::TimeExceeded)
        }
        Todo::Translate => translate::<H>(skb.raw(), &row.packet, &row.translation),
        Todo::Answer => give_answer::<H>(skb.raw(), &row.packet, &row.answer),
        Todo::Drop => DROP,
        // Steps, of which `decide` takes the next.
        Todo::LookUp | Todo::Follow | Todo::Begin | Todo::BeginAgain => NEXT,
    }
}

#[inline(always)]
fn pass(skb: Skb, note: Note) -> i32 {
    skb.leave_note(note);
    NEXT
}

#[inline(never)]
fn translate<H: Hook>(raw: *mut __sk_buff, packet: &Packet, translation: &Translation) -> i32 {
    let mut skb = Skb::new(raw);
    let done = match &translation.onward {
        Onward::Stack => through_stack::<H>(&mut skb, packet, translation),
        Onward::Route => route::<H>(&mut skb, packet, translation),
        Onward::Workload(workload) => deliver(&mut skb, packet, translation, workload),
    };
    done.unwrap_or(DROP)
}

/// [`rewrite`], once in the object.
#[inline(never)]
fn rewrite_here(raw: *mut __sk_buff, packet: &Packet, translation: &Translation, hop: bool) -> bool {
    rewrite(&mut Skb::new(raw), packet, translation, hop).is_ok()
}

#[inline(always)]
fn write(skb: &mut Skb, packet: &Packet, translation: &Translation, hop: bool) -> Result<(), Stuck> {
    if rewrite_here(skb.raw(), packet, translation, hop) { Ok(()) } else { Err(Stuck) }
}

/// On through the stack; at the last hook, simply on.
#[inline(always)]
fn through_stack<H: Hook>(skb: &mut Skb, packet: &Packet, translation: &Translation) -> Result<i32, Stuck> {
    write(skb, packet, translation, false)?;
    if H::ORIGIN.is_none() {
        return Ok(pass(*skb, Note::Done));
    }
    // A pod's own packets are the CNI plugin's to masquerade or not.
    let is_from_outside = matches!(H::ORIGIN, Some(Origin::Outside));
    if is_from_outside && KernelTables.config().flags & Config::MARK_FORWARDED != 0 {
        skb.add_mark(FORWARDED);
    }
    Ok(pass(*skb, Note::LookAgain))
}

/// Out by the route to its destination.
#[inline(always)]
fn route<H: Hook>(skb: &mut Skb, packet: &Packet, translation: &Translation) -> Result<i32, Stuck> {
    let length = length_on_wire(*skb, packet)?;
    if translation.hop.takes(length) {
        return leave_by(skb, packet, translation, &translation.hop);
    }
    let here = Here { context: skb.raw().cast(), ifindex: skb.ifindex() };
    let window = Now.now().window();
    match here.lookup_way(translation.src.addr, translation.dst.addr, length) {
        Way::Known(hop) => {
            remember(packet, &hop, window);
            leave_by(skb, packet, translation, &hop)
        }
        Way::Unresolved { ifindex } => {
            write(skb, packet, translation, true)?;
            skb.leave_note(Note::Done);
            // SAFETY: no next hop is given, so the helper looks it up itself.
            Ok(unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) } as i32)
        }
        Way::TooLong { mtu, .. } => {
            KernelTables.count(Counter::RedirectFailed);
            match refuse_length(skb.raw(), packet, mtu) {
                Told::Sender => Ok(send_back::<H>(*skb)),
                Told::Nobody => through_stack::<H>(skb, packet, translation),
                Told::TooOften => Ok(DROP),
            }
        }
        Way::None => {
            KernelTables.count(Counter::RedirectFailed);
            through_stack::<H>(skb, packet, translation)
        }
    }
}

/// Out to the next hop.
#[inline(always)]
fn leave_by(skb: &mut Skb, packet: &Packet, translation: &Translation, hop: &Hop) -> Result<i32, Stuck> {
    write(skb, packet, translation, true)?;
    skb.store(0, addresses(hop.dst, hop.src))?;
    skb.leave_note(Note::Done);
    // SAFETY: plain numbers.
    Ok(unsafe { bpf_redirect(hop.ifindex, 0) } as i32)
}

/// [`remember_hop`], once in the object.
#[inline(never)]
fn remember(packet: &Packet, hop: &Hop, window: Window) {
    remember_hop(&KernelTables, packet, hop, window);
}

/// Length of the IP packet, or of the longest of those that a device is to make of it.
#[inline(always)]
fn length_on_wire(skb: Skb, packet: &Packet) -> Result<u16, Stuck> {
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

/// Into a pod of this node.
#[inline(always)]
fn deliver(
    skb: &mut Skb,
    packet: &Packet,
    translation: &Translation,
    workload: &Workload,
) -> Result<i32, Stuck> {
    write(skb, packet, translation, true)?;
    if packet.l3 != 0 {
        skb.store(0, addressed(workload))?;
    }
    skb.leave_note(Note::Done);
    // SAFETY: plain numbers.
    Ok(unsafe { bpf_redirect_peer(workload.ifindex, 0) } as i32)
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

/// To where the packet came from: out by the device of the first hook, and from the last one up into the node.
#[inline(always)]
fn send_back<H: Hook>(skb: Skb) -> i32 {
    skb.leave_note(Note::Done);
    let flags = if H::ORIGIN.is_some() { 0 } else { u64::from(BPF_F_INGRESS) };
    // SAFETY: plain numbers.
    unsafe { bpf_redirect(skb.ifindex(), flags) as i32 }
}
