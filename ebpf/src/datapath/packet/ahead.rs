//! A packet before the first hook, at the driver: only what is quick, and nothing that leaves a trace before it is certain
//! that the packet goes on from there.

use super::hop::recall_hop;
use super::known::{is_opening, touch};
use super::{Onward, Translation};
use crate::abi::{Counter, End, Form, Path, Tuple};
use crate::datapath::{Instant, PacketTables};
use crate::wire::{Fragment, Kind, Packet};

/// What a packet of a known flow becomes that goes on by the route to its destination.
#[derive(Debug)]
pub struct Ahead<R> {
    /// Its new addresses.
    pub translation: Translation,
    flow: R,
    is_forward: bool,
}

/// The packet's flow, if it is known, goes past the stack and on to another node. `None`: the first hook decides; whatever
/// it would not simply translate is its own, and so is each first packet.
#[inline(always)]
pub fn look_ahead<'a, T: PacketTables>(
    tables: &'a T,
    now: Instant,
    packet: &Packet,
) -> Option<Ahead<T::FlowRef<'a>>> {
    let Kind::Transport(protocol) = packet.kind else { return None };
    if packet.fragment != Fragment::Whole || packet.ttl <= 1 || is_opening(packet) {
        return None;
    }
    let (tuple, src_is_low) = Tuple::new(packet.src, packet.dst, protocol);
    let flow = tables.lookup_flow(&tuple)?;
    if flow.path() != Path::Redirect {
        return None;
    }
    let (src, dst, end, is_forward) = match (flow.form(), flow.is_forward(src_is_low)) {
        (Form::Dialled, true) => (flow.source(), flow.backend(), End::Backend, true),
        (Form::Received, false) => (flow.dialled(), flow.client(), End::Client, false),
        _ => return None,
    };
    if flow.is_local(end) {
        return None;
    }
    let hop = recall_hop(tables, &flow, now);
    Some(Ahead {
        translation: Translation { hop, ..Translation::new(src, dst, Onward::Route) },
        flow,
        is_forward,
    })
}

/// Notes and counts the packet as the first hook would have done, when it has gone on.
#[inline(always)]
pub fn note_ahead<'a, T: PacketTables>(
    tables: &'a T,
    now: Instant,
    packet: &Packet,
    ahead: &Ahead<T::FlowRef<'a>>,
) {
    touch(tables, now, packet, &ahead.flow);
    tables.count(if ahead.is_forward { Counter::PacketForward } else { Counter::PacketReply });
}
