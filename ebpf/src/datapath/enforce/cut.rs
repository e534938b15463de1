//! A translated flow that policies deny leaves no trace: its first packet has entered it before anybody knew its backend.

use crate::abi::{Flow, Form, Protocol, Tuple};
use crate::datapath::PacketTables;
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
