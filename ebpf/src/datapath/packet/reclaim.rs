//! Taking back the source port of a connection that is over, where no other is to be had.
//!
//! A flow is kept for a while after its end, for what is still on its way. Under a load of short connections such flows have
//! all of a backend's ports (`--snat-ports`); netfilter lets a new connection have the tuple of one that is over, and so do
//! we.

use core::ops::ControlFlow;

use super::Node;
use super::begin::{ATTEMPTS, withdraw};
use super::ports::Ports;
use crate::abi::{Flow, Form, Protocol, Tuple};
use crate::datapath::lifetime::is_over;
use crate::datapath::{Moment, Network, PacketTables};
use crate::repeat::repeat;

/// How long nothing must have been seen of a connection that is over: its last segments may still be on their way.
const QUIET_S: u32 = 2;

/// Removes a flow that is over and has one of the ports that this one would get. Whether there was one.
#[inline(always)]
pub(super) fn reclaim<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    protocol: Protocol,
    flow: &mut Flow,
) -> bool {
    if protocol != Protocol::Tcp {
        return false;
    }
    let ports = Ports::of(node.tables.config(), flow);
    let now_s = node.moment.seconds();
    let mut found = false;
    repeat(ATTEMPTS, |attempt| {
        flow.set_source(ports.source(flow, attempt));
        let received = flow.set_form(Form::Received, protocol);
        found = remove_if_over(node.tables, protocol, &received, now_s);
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found
}

/// Of two CPUs that come here with the same flow at once, one removes the client's row, and no other goes on.
#[inline(always)]
fn remove_if_over<T: PacketTables>(tables: &T, protocol: Protocol, received: &Tuple, now_s: u32) -> bool {
    let Some(backend) = tables.lookup_flow(received) else { return true };
    if backend.form() != Form::Received {
        return false;
    }
    let (client, dialled) = backend.ends(Form::Dialled);
    let key = Tuple::new(client, dialled, protocol).0;
    let Some(client) = tables.lookup_flow(&key) else { return false };
    let last_s = client.seen_s.max(backend.seen_s);
    if client.begun_s != backend.begun_s
        || now_s.saturating_sub(last_s) < QUIET_S
        || !is_over(&client, Some(&backend))
    {
        return false;
    }
    let is_ours = tables.delete_flow(&key);
    if is_ours {
        withdraw(tables, protocol, &backend);
    }
    is_ours
}
