//! Tells both ends of a TCP connection that it is over: one packet of it becomes two resets. A copy of the first enters at the
//! device of the hook and goes its way as any packet of the connection; the second takes the packet's place and leaves by the
//! device.

use aya_ebpf::bindings::{__sk_buff, BPF_F_INGRESS};
use aya_ebpf::helpers::generated::bpf_clone_redirect;
use weir_ebpf::act::reset::{Segment, cut_entering, cut_leaving};
use weir_ebpf::datapath::enforce::ends_of_cut;
use weir_ebpf::datapath::packet::{Cut, Stage, Translation};

use crate::decision::{Decision, Hook, Todo};
use crate::skb::Skb;

/// What is to be told, into the map; what there was to do is still known.
#[inline(never)]
pub(crate) fn note_cut(row: &mut Decision, stage: Stage) {
    let translation: Option<&Translation> =
        if row.todo == Todo::Translate { Some(&row.translation) } else { None };
    let (src, dst) = ends_of_cut(stage, &row.packet, translation);
    row.cut = Cut { stage, src, dst };
    row.todo = Todo::Cut;
}

pub(crate) const fn stage<H: Hook>() -> Stage {
    if H::ORIGIN.is_some() { Stage::Arrive } else { Stage::Leave }
}

/// `false`: the packet is neither what it was nor a reset.
#[inline(always)]
pub(crate) fn tell_both(skb: Skb, row: &mut Decision) -> bool {
    if !write_entering(skb.raw(), row) {
        return false;
    }
    // SAFETY: the kernel's context and plain numbers. It enters later, when nobody uses the row any more. Where there is no
    // memory for a copy, that end will be told when it speaks.
    let _not_told_yet = unsafe { bpf_clone_redirect(skb.raw(), skb.ifindex(), u64::from(BPF_F_INGRESS)) };
    write_leaving(skb.raw(), row)
}

#[inline(never)]
fn write_entering(raw: *mut __sk_buff, row: &mut Decision) -> bool {
    let mut skb = Skb::new(raw);
    let Ok(segment) = Segment::load(&skb, &row.packet) else { return false };
    row.segment = segment;
    cut_entering(&mut skb, &row.packet, &row.cut, &segment).is_ok()
}

#[inline(never)]
fn write_leaving(raw: *mut __sk_buff, row: &Decision) -> bool {
    cut_leaving(&mut Skb::new(raw), &row.packet, &row.cut, &row.segment).is_ok()
}
