//! The way on, remembered: asking the routes costs a packet more than all else that is asked for it.
//!
//! What was found is good for one [`Window`]. So a change of routes or neighbours is followed within 40 ms at most, with or
//! without an agent, and nobody need be told of it.

use crate::abi::{Form, Hop, HopRow, Path, Tuple, Window};
use crate::datapath::PacketTables;
use crate::wire::{Kind, Packet};

/// The hop that packets of the row's direction took a moment ago.
#[inline(always)]
pub(super) fn recall_hop<T: PacketTables>(tables: &T, flow: &T::FlowRef<'_>, window: Window) -> Hop {
    if flow.path() != Path::Redirect {
        return Hop::UNKNOWN;
    }
    tables.lookup_hop(flow).hop(window)
}

/// Remembers the hop that this packet takes, for those that follow in the same window. The window is that of a moment
/// before the routes were asked.
#[inline(always)]
pub fn remember_hop<T: PacketTables>(tables: &T, packet: &Packet, hop: &Hop, window: Window) {
    let Kind::Transport(protocol) = packet.kind else { return };
    if !packet.has_ports() {
        return;
    }
    let (tuple, src_is_low) = Tuple::new(packet.src, packet.dst, protocol);
    let Some(flow) = tables.lookup_flow(&tuple) else { return };
    let noted_here = if flow.is_forward(src_is_low) { Form::Dialled } else { Form::Received };
    if flow.path() == Path::Redirect && flow.form() == noted_here {
        tables.put_hop(&flow, HopRow::new(hop, window));
    }
}
