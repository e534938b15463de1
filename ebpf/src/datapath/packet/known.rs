//! A packet of a flow that is in the tables: one look-up says what it becomes.

use super::begin::withdraw;
use super::hop::recall_hop;
use super::{Node, Onward, Translation, Verdict, onward, remember_piece};
use crate::abi::{Counter, End, Flow, Form, Hop, Path, Protocol, Signs, Tuple};
use crate::datapath::lifetime::is_over;
use crate::datapath::{Instant, Moment, Network, PacketTables};
use crate::wire::{Kind, Packet, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

/// What the tables say of a packet at the first hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// What becomes of it.
    Verdict(Verdict),
    /// It belongs to no flow and may begin one.
    New,
    /// It may begin a flow in the place of one that is over.
    Again,
}

/// At the first hook.
#[inline(always)]
pub(super) fn arrive<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    protocol: Protocol,
    tuple: &Tuple,
    src_is_low: bool,
) -> Known {
    let Some(flow) = node.tables.lookup_flow(tuple) else { return Known::New };
    let forward = flow.is_forward(src_is_low);
    match (flow.form(), forward) {
        (Form::Dialled, true) => {
            if is_opening(packet)
                && is_over(&flow, lookup_backend_side(node.tables, &flow, packet).as_deref())
            {
                return Known::Again;
            }
            let hop = recall_hop(node.tables, &flow, node.moment.window());
            touch(node.tables, node.moment.now(), packet, &flow);
            remember_piece(node, packet, protocol);
            Known::Verdict(forward_verdict(node.tables, &flow, hop))
        }
        // Whoever opens a connection is no one's reply.
        (Form::Received, false) if !is_opening(packet) => {
            Known::Verdict(reply_verdict(node, packet, protocol, &flow))
        }
        // Not of this flow, though of the same tuple: what the client sends to the backend itself.
        _ => Known::Verdict(Verdict::Pass),
    }
}

/// At the last hook.
#[inline(always)]
pub(super) fn leave<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    protocol: Protocol,
    tuple: &Tuple,
    src_is_low: bool,
) -> Verdict {
    let Some(flow) = node.tables.lookup_flow(tuple) else { return Verdict::Pass };
    let forward = flow.is_forward(src_is_low);
    match (flow.form(), forward) {
        (Form::Forwarded, true) => {
            remember_piece(node, packet, protocol);
            Verdict::Translate(Translation::new(flow.source(), flow.backend(), Onward::Stack))
        }
        (Form::Forwarded, false) => {
            remember_piece(node, packet, protocol);
            finish_reply(node.tables, &flow)
        }
        (Form::Received, false) if !flow.hides_client() && !is_opening(packet) => {
            touch(node.tables, node.moment.now(), packet, &flow);
            remember_piece(node, packet, protocol);
            finish_reply(node.tables, &flow)
        }
        _ => Verdict::Pass,
    }
}

/// From the client: past the stack at once to what the backend is to see; through it, all but an address of ours, which
/// the stack would not believe in a packet that comes from outside.
#[inline(always)]
pub(super) fn forward_verdict(tables: &impl PacketTables, flow: &Flow, hop: Hop) -> Verdict {
    tables.count(Counter::PacketForward);
    let form = match flow.path() {
        Path::Stack => Form::Forwarded,
        Path::Redirect => Form::Received,
    };
    let (src, dst) = flow.ends(form);
    let onward = onward(tables, flow, End::Backend);
    Verdict::Translate(Translation { hop, ..Translation::new(src, dst, onward) })
}

/// From the backend.
#[inline(always)]
fn reply_verdict<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    protocol: Protocol,
    flow: &T::FlowRef<'_>,
) -> Verdict {
    match (flow.path(), flow.hides_client()) {
        (Path::Redirect, _) => {
            let hop = recall_hop(node.tables, flow, node.moment.window());
            touch(node.tables, node.moment.now(), packet, flow);
            remember_piece(node, packet, protocol);
            node.tables.count(Counter::PacketReply);
            let onward = onward(node.tables, flow, End::Client);
            Verdict::Translate(Translation { hop, ..Translation::new(flow.dialled(), flow.client(), onward) })
        }
        (Path::Stack, true) => {
            touch(node.tables, node.moment.now(), packet, flow);
            remember_piece(node, packet, protocol);
            let (client, backend) = flow.ends(Form::Forwarded);
            Verdict::Translate(Translation::new(backend, client, Onward::Stack))
        }
        // The last hook's.
        (Path::Stack, false) => Verdict::Pass,
    }
}

#[inline(always)]
fn finish_reply(tables: &impl PacketTables, flow: &Flow) -> Verdict {
    tables.count(Counter::PacketReply);
    Verdict::Translate(Translation::new(flow.dialled(), flow.client(), Onward::Stack))
}

/// A TCP segment that opens a connection: SYN without ACK.
#[inline(always)]
pub(super) const fn is_opening(packet: &Packet) -> bool {
    packet.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN
}

/// Says that a packet of the row's direction was seen; writes at most once a second, unless there is news.
#[inline(always)]
pub(super) fn touch<T: PacketTables>(tables: &T, now: Instant, packet: &Packet, flow: &T::FlowRef<'_>) {
    let now_s = now.seconds();
    let signs = signs_after(packet, flow);
    if flow.seen_s != now_s || flow.signs != signs {
        tables.touch_flow(flow, now_s, signs);
    }
}

/// What was seen of the row's direction, with this packet.
#[inline(always)]
pub(super) const fn signs_after(packet: &Packet, flow: &Flow) -> Signs {
    flow.signs.unless_continued(packet.tcp_flags & TCP_RST == 0).and(signs(packet))
}

#[inline(always)]
pub(super) const fn signs(packet: &Packet) -> Signs {
    signs_of(packet.tcp_flags)
}

/// What a packet shows; the flags are those of TCP, or 0.
#[inline(always)]
pub(in crate::datapath) const fn signs_of(tcp_flags: u8) -> Signs {
    let mut signs = Signs::SEEN;
    if tcp_flags & TCP_FIN != 0 {
        signs = signs.and(Signs::FIN);
    }
    if tcp_flags & TCP_RST != 0 {
        signs = signs.and(Signs::RST);
    }
    if tcp_flags & (TCP_ACK | TCP_SYN | TCP_RST) == TCP_ACK {
        signs = signs.and(Signs::ACK);
    }
    signs
}

/// The row that the backend's direction is noted in.
#[inline(always)]
fn lookup_backend_side<'a, T: PacketTables>(
    tables: &'a T,
    flow: &Flow,
    packet: &Packet,
) -> Option<T::FlowRef<'a>> {
    let Kind::Transport(protocol) = packet.kind else { return None };
    let (client, server) = flow.ends(Form::Received);
    tables.lookup_flow(&Tuple::new(client, server, protocol).0)
}

/// Removes every row of the flow that this packet from its client belongs to.
#[inline(always)]
pub(super) fn forget<T: PacketTables>(tables: &T, packet: &Packet, protocol: Protocol) {
    let (tuple, _) = Tuple::new(packet.src, packet.dst, protocol);
    let Some(client) = tables.lookup_flow(&tuple) else { return };
    let begun_s = client.begun_s;
    let (source, server) = client.ends(Form::Received);
    let backend = tables.lookup_flow(&Tuple::new(source, server, protocol).0);
    tables.delete_flow(&tuple);
    // Where the flow has no such row any more, the tuple may be another's.
    if let Some(backend) = backend
        && backend.begun_s == begun_s
    {
        withdraw(tables, protocol, &backend);
    }
}
