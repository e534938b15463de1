//! What becomes of flows that policies deny.
//!
//! A translated flow that is denied from the start leaves no trace: its first packet has entered it before anybody knew its
//! backend. A TCP connection that was allowed is over, and its ends are told: a packet of it becomes two resets, one to whoever
//! sent it, one to whom it is for. One of them enters at the device of this hook, as if it had just come by it, and is
//! translated and sent on as any packet of its flow, so its rows are not taken out; the other leaves by the same device.
//! Nobody but the pod's own row remembers it (`Standing` of the row), which lets so many resets pass.

use crate::abi::{Flow, Form, Peer, Protocol, Tuple};
use crate::datapath::PacketTables;
use crate::datapath::packet::{Stage, Translation};
use crate::wire::{Kind, Packet};

/// Removes the flow of a packet that was to be translated and is denied; the client's row first.
#[inline(always)]
pub fn cut<T: PacketTables>(tables: &T, packet: &Packet) {
    let Kind::Transport(protocol) = packet.kind else { return };
    if !packet.has_ports() {
        return;
    }
    let (tuple, _) = Tuple::new(packet.src, packet.dst, protocol);
    let Some(flow) = tables.lookup_flow(&tuple) else { return };
    // The row may be any of these, and is read until the last of them is gone.
    for form in [Form::Dialled, Form::Forwarded, Form::Received] {
        let key = key_of(&flow, form, protocol);
        if key != tuple {
            remove(tables, &flow, &key);
        }
    }
    tables.delete_flow(&tuple);
}

/// Where the flow has no such row any more, the tuple may be another's.
#[inline(always)]
fn remove<T: PacketTables>(tables: &T, flow: &Flow, key: &Tuple) {
    let is_its_own = tables.lookup_flow(key).is_some_and(|row| row.begun_s == flow.begun_s);
    if is_its_own {
        tables.delete_flow(key);
    }
}

#[inline(always)]
fn key_of(flow: &Flow, form: Form, protocol: Protocol) -> Tuple {
    let (client, server) = flow.ends(form);
    Tuple::new(client, server, protocol).0
}

/// Between whom resets go in the place of a packet, from and to. At the first hook they are what the packet itself could be,
/// for they are translated like it; at the last one they are what the pod is to see.
#[inline(always)]
#[must_use]
pub fn ends_of_cut(stage: Stage, packet: &Packet, translation: Option<&Translation>) -> (Peer, Peer) {
    match (stage, translation) {
        (Stage::Leave, Some(translation)) => (translation.src, translation.dst),
        _ => (packet.src, packet.dst),
    }
}
