//! The quick way, which nearly every packet takes: of a flow that is known, past the stack, by a hop that was found a moment
//! ago. Asked first, at tc, and at XDP, where nothing else is asked.
//!
//! Nothing is written. A hop is good for one window, and the packet that found it noted in this very window that its
//! direction goes on; a packet with other news takes the longer way.

use super::hop::recall_hop;
use super::known::{is_opening, signs_after};
use super::{Onward, Translation};
use crate::abi::{Counter, End, Form, Path, Tuple, Window};
use crate::datapath::PacketTables;
use crate::wire::{Fragment, Kind, Packet};

/// What there is to do with a packet ahead of everything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ahead {
    /// It becomes this and goes on by the translation's hop, if that takes its length; and is counted then.
    Translate(Translation, Counter),
    /// It has no flow, and may begin one.
    New,
    /// The longer way says what.
    Wait,
}

/// What can be said of a packet at once.
#[inline(always)]
pub fn look_ahead<T: PacketTables>(tables: &T, window: Window, packet: &Packet) -> Ahead {
    let Kind::Transport(protocol) = packet.kind else { return Ahead::Wait };
    if packet.fragment != Fragment::Whole {
        return Ahead::Wait;
    }
    let (tuple, src_is_low) = Tuple::new(packet.src, packet.dst, protocol);
    let Some(flow) = tables.lookup_flow(&tuple) else { return Ahead::New };
    let (src, dst, end, counter) = match (flow.form(), flow.is_forward(src_is_low)) {
        (Form::Dialled, true) => (flow.source(), flow.backend(), End::Backend, Counter::PacketForward),
        (Form::Received, false) => (flow.dialled(), flow.client(), End::Client, Counter::PacketReply),
        _ => return Ahead::Wait,
    };
    let is_plain = flow.path() == Path::Redirect && !flow.is_local(end) && packet.ttl > 1;
    let has_news = is_opening(packet) || signs_after(packet, &flow) != flow.signs;
    let hop = recall_hop(tables, &flow, window);
    if !is_plain || has_news || hop.ifindex == 0 {
        return Ahead::Wait;
    }
    Ahead::Translate(Translation { hop, ..Translation::new(src, dst, Onward::Route) }, counter)
}
