//! ICMP errors follow the flow that they quote: path MTU discovery has to work through a Service (RFC 1191, RFC 8201), and
//! whoever is told of an error must recognise its own packet in it.

use super::{Onward, Stage, Translation, Verdict, onward};
use crate::abi::{Addr, Counter, End, Flow, Form, Hop, Path, Peer, Tuple};
use crate::datapath::PacketTables;
use crate::wire::{Bytes, Packet, Quoted, parse_quoted};

/// An ICMP error at either hook.
#[inline(always)]
pub(super) fn translate<T: PacketTables>(
    tables: &T,
    stage: Stage,
    packet: &Packet,
    bytes: &(impl Bytes + ?Sized),
) -> Verdict {
    let Some(quoted) = parse_quoted(bytes, packet) else { return Verdict::Pass };
    let (tuple, src_is_low) = Tuple::new(quoted.src, quoted.dst, quoted.protocol);
    let Some(flow) = tables.lookup_flow(&tuple) else { return Verdict::Pass };
    // Who sent what the error quotes is whom it is for.
    let to_client = flow.is_forward(src_is_low);
    let Some(form) = select_form(stage, &flow, to_client) else { return Verdict::Pass };
    tables.count(Counter::PacketError);
    Verdict::Translate(translation(tables, stage, &flow, packet, quoted, form, to_client))
}

/// As with the packets of the flow: past the stack at once to the other end's form, through it by way of the form that
/// netfilter knows. `None`: it is none of ours, finished, or the last hook's.
#[inline(always)]
fn select_form(stage: Stage, flow: &Flow, to_client: bool) -> Option<Form> {
    match (stage, flow.form(), to_client, flow.path()) {
        (Stage::Arrive, Form::Received, true, Path::Redirect) => Some(Form::Dialled),
        (Stage::Arrive, Form::Received, true, Path::Stack) if flow.hides_client() => Some(Form::Forwarded),
        (Stage::Arrive, Form::Dialled, false, Path::Redirect) => Some(Form::Received),
        (Stage::Arrive, Form::Dialled, false, Path::Stack) => Some(Form::Forwarded),
        (Stage::Leave, Form::Forwarded, true, _) => Some(Form::Dialled),
        (Stage::Leave, Form::Forwarded, false, _) => Some(Form::Received),
        (Stage::Leave, Form::Received, true, _) if !flow.hides_client() => Some(Form::Dialled),
        _ => None,
    }
}

#[inline(always)]
fn translation<T: PacketTables>(
    tables: &T,
    stage: Stage,
    flow: &Flow,
    packet: &Packet,
    quoted: Quoted,
    form: Form,
    to_client: bool,
) -> Translation {
    let (client, server) = flow.ends(form);
    let (to, src, dst) = if to_client { (client, client, server) } else { (server, server, client) };
    Translation {
        src: Peer { addr: sender(flow, packet, form, to_client), ..packet.src },
        dst: Peer { addr: to.addr, ..packet.dst },
        quoted: Some(Quoted { src, dst, ..quoted }),
        onward: match stage {
            Stage::Arrive => onward(tables, flow, if to_client { End::Client } else { End::Backend }),
            Stage::Leave => Onward::Stack,
        },
        hop: Hop::UNKNOWN,
        begins: false,
    }
}

/// Whoever reports the error, except that the backend is what the client dialled, and that no stranger's address goes to a
/// backend that takes this node for its client.
#[inline(always)]
fn sender(flow: &Flow, packet: &Packet, form: Form, to_client: bool) -> Addr {
    let sender = packet.src.addr;
    if to_client && form == Form::Dialled && sender == flow.backend().addr {
        return flow.dialled().addr;
    }
    if !to_client && form == Form::Received && flow.hides_client() {
        return flow.source().addr;
    }
    sender
}
