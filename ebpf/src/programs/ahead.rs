//! The quick way at tc: in one step, by no table but that of flows, and by as few helpers as there can be.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_redirect;
use weir_ebpf::act::ethernet::{ETHERNET, addresses};
use weir_ebpf::act::rewrite::{Frame as _, Stuck, rewrite};
use weir_ebpf::datapath::packet::{Ahead, Translation, look_ahead};
use weir_ebpf::datapath::{Moment as _, Tables as _};
use weir_ebpf::wire::{Packet, parse_plain};

use crate::act::length_on_wire;
use crate::decision::{Decision, Todo};
use crate::in_place::InPlace;
use crate::kernel_tables::{KernelTables, Now};
use crate::skb::{Note, Skb};

/// Sends the packet on, if it is one of those that can be sent at once; otherwise it goes into the map as far as it was
/// read.
#[inline(never)]
pub(crate) fn go_ahead(raw: *mut __sk_buff, row: &mut Decision) -> Todo {
    let skb = Skb::new(raw);
    let mut frame = InPlace::new(skb);
    let Some(packet) = parse_plain(&frame, ETHERNET, skb.ether_type()) else { return Todo::Read };
    let todo = match look_ahead(&KernelTables, Now.window(), &packet) {
        Ahead::Translate(translation, counter) => match length_on_wire(skb, &packet) {
            Ok(length) if translation.hop.takes(length) => {
                KernelTables.count(counter);
                return if send(skb, &mut frame, &packet, &translation).is_ok() {
                    Todo::Sent
                } else {
                    Todo::Drop
                };
            }
            _ => Todo::LookUp,
        },
        Ahead::New => Todo::Begin,
        Ahead::Wait => Todo::LookUp,
    };
    row.packet = packet;
    todo
}

#[inline(always)]
fn send(skb: Skb, frame: &mut InPlace, packet: &Packet, translation: &Translation) -> Result<(), Stuck> {
    rewrite(frame, packet, translation, true)?;
    let hop = &translation.hop;
    frame.store(0, addresses(hop.dst, hop.src))?;
    skb.leave_note(Note::Done);
    // SAFETY: plain numbers. It fails for flags alone, of which there are none.
    unsafe { bpf_redirect(hop.ifindex, 0) };
    Ok(())
}
