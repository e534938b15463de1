//! Translation per packet: what the socket hooks did not see.
//!
//! Two questions are asked of a packet. [`arrive`], at the first hook that it meets on this node (from a pod, or from a
//! node-facing device), and [`leave`], at the last one; the latter only finishes what the former left to the end, and
//! translates what the node itself sends in reply. Called by the tc and XDP programs, by tests and fuzzers, and by
//! commands that explain.
//!
//! The tables of flows say what a packet becomes (`known`); a packet that has no flow may begin one (`begin`). ICMP
//! errors follow the flow that they quote (`icmp`). Most packets are ahead of all that (`ahead`).

mod ahead;
mod begin;
mod hop;
mod icmp;
mod known;
mod ports;
mod reclaim;
mod verdict;

pub use ahead::{Ahead, look_ahead};
pub use hop::remember_hop;
pub use known::Known;
pub(in crate::datapath) use known::signs_of;
pub use verdict::{Answer, Cut, Onward, Translation, Verdict};

use crate::abi::{
    AddressUses, Counter, DropReason, End, Flow, FragmentKey, FragmentRow, Frontend, FrontendKey, Origin,
    Path, Peer, Protocol, Tuple,
};
use crate::datapath::socket::is_unallocated;
use crate::datapath::{Moment, Network, PacketTables};
use crate::wire::{Bytes, Fragment, Kind, Packet};

/// What decisions about packets need: where state is kept, the time, and the node's ways.
#[derive(Debug)]
pub struct Node<'a, T, M, N> {
    /// The tables.
    pub tables: &'a T,
    /// Time and chance.
    pub moment: &'a M,
    /// Routes and sockets.
    pub network: &'a N,
}

/// Which hook asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The first one on this node.
    Arrive,
    /// The last one.
    Leave,
}

/// A packet at the first hook that it meets on this node. `origin`: [`Origin::Inside`] from a pod of this node,
/// [`Origin::Outside`] through a node-facing device.
///
/// A BPF program has 512 bytes of stack, not enough for all of this at once: it takes the steps one by one.
#[inline(always)]
pub fn arrive<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    origin: Origin,
    packet: &Packet,
    bytes: &(impl Bytes + ?Sized),
) -> Verdict {
    unless_beyond(packet, arrive_anywhere(node, origin, packet, bytes))
}

/// The same, but for a packet that has no hop left.
#[inline(always)]
pub(in crate::datapath) fn unless_beyond(packet: &Packet, verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Translate(translation) if translation.is_beyond(packet) => {
            Verdict::Answer(Answer::TimeExceeded)
        }
        verdict => verdict,
    }
}

/// What becomes of a packet that has hops enough.
#[inline(always)]
pub(in crate::datapath) fn arrive_anywhere<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    origin: Origin,
    packet: &Packet,
    bytes: &(impl Bytes + ?Sized),
) -> Verdict {
    if packet.kind == Kind::IcmpError {
        return follow_error(node.tables, Stage::Arrive, packet, bytes);
    }
    match recognise(node, packet) {
        Known::Verdict(verdict) => return verdict,
        Known::New => {}
        Known::Again => forget(node.tables, packet),
    }
    let frontend = match find(node, packet) {
        Ok(frontend) => frontend,
        Err(verdict) => return verdict,
    };
    let mut flow = match choose(node, origin, packet, &frontend) {
        Ok(flow) => flow,
        Err(verdict) => return verdict,
    };
    match reserve(node, packet, &mut flow) {
        Ok(()) => {}
        Err(Unreserved::Verdict(verdict)) => return verdict,
        Err(Unreserved::NoPort) => {
            if !reclaim(node, packet, &mut flow) || reserve(node, packet, &mut flow).is_err() {
                return refuse_port(node.tables);
            }
        }
    }
    if let Some(verdict) = enter(node, packet, &mut flow) {
        return verdict;
    }
    withdraw(node.tables, packet, &flow);
    match recognise(node, packet) {
        Known::Verdict(verdict) => verdict,
        Known::New | Known::Again => give_up(node.tables),
    }
}

/// A step of [`arrive`] and [`leave`]: an ICMP error follows the flow that it quotes.
#[inline(always)]
pub fn follow_error<T: PacketTables>(
    tables: &T,
    stage: Stage,
    packet: &Packet,
    bytes: &(impl Bytes + ?Sized),
) -> Verdict {
    icmp::translate(tables, stage, packet, bytes)
}

/// A step of [`arrive`]: what the tables say of the packet.
#[inline(always)]
pub fn recognise<T: PacketTables, M: Moment, N: Network>(node: &Node<'_, T, M, N>, packet: &Packet) -> Known {
    match packet.kind {
        Kind::Transport(protocol) => recognise_transport(node, packet, protocol),
        Kind::EchoRequest => Known::Verdict(answer_echo(node.tables, packet)),
        Kind::IcmpError | Kind::Other => Known::Verdict(Verdict::Pass),
    }
}

/// A step of [`arrive`]: removes the flow that is over, whose place the packet's is to have.
#[inline(always)]
pub fn forget<T: PacketTables>(tables: &T, packet: &Packet) {
    if let Kind::Transport(protocol) = packet.kind {
        known::forget(tables, packet, protocol);
    }
}

/// A step of [`arrive`]: the frontend that the packet is for.
///
/// # Errors
/// What becomes of the packet if it is for none.
#[inline(always)]
pub fn find<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
) -> Result<Frontend, Verdict> {
    let Kind::Transport(protocol) = packet.kind else { return Err(Verdict::Pass) };
    begin::find(node, packet, protocol)
}

/// A step of [`arrive`]: the flow that the packet begins.
///
/// # Errors
/// What becomes of the packet if it begins none.
#[inline(always)]
pub fn choose<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    origin: Origin,
    packet: &Packet,
    frontend: &Frontend,
) -> Result<Flow, Verdict> {
    let Kind::Transport(protocol) = packet.kind else { return Err(Verdict::Pass) };
    begin::choose(node, origin, packet, protocol, frontend)
}

/// Why a flow got no source port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreserved {
    /// What becomes of its packet.
    Verdict(Verdict),
    /// All that were tried are taken: [`reclaim`] may help.
    NoPort,
}

/// A step of [`arrive`]: the flow gets a source port, and its backend's side is entered in the tables.
///
/// # Errors
/// [`Unreserved`]
#[inline(always)]
pub fn reserve<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    flow: &mut Flow,
) -> Result<(), Unreserved> {
    let Kind::Transport(protocol) = packet.kind else { return Err(Unreserved::Verdict(Verdict::Pass)) };
    begin::reserve(node, protocol, flow)
}

/// A step of [`arrive`], if there was no port: takes one back from a connection that is over. Whether it is worth while to
/// [`reserve`] again.
#[inline(always)]
pub fn reclaim<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    flow: &mut Flow,
) -> bool {
    let Kind::Transport(protocol) = packet.kind else { return false };
    reclaim::reclaim(node, protocol, flow)
}

/// A step of [`arrive`], if there is still none.
#[inline(always)]
pub fn refuse_port<T: PacketTables>(tables: &T) -> Verdict {
    begin::refuse_port(tables)
}

/// A step of [`arrive`]: the client's side is entered, and with it the flow has begun. `None`: it has not, for want of room
/// or because another CPU was faster.
#[inline(always)]
pub fn enter<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    flow: &mut Flow,
) -> Option<Verdict> {
    let Kind::Transport(protocol) = packet.kind else { return Some(Verdict::Pass) };
    begin::enter(node, packet, protocol, flow)
}

/// A step of [`arrive`], if the flow has not begun: it leaves no trace. Afterwards the tables may know another CPU's.
#[inline(always)]
pub fn withdraw<T: PacketTables>(tables: &T, packet: &Packet, flow: &Flow) {
    if let Kind::Transport(protocol) = packet.kind {
        begin::withdraw(tables, protocol, flow);
    }
}

/// A step of [`arrive`], if they know none: there was no room.
#[inline(always)]
pub fn give_up<T: PacketTables>(tables: &T) -> Verdict {
    refuse(tables, DropReason::FlowsFull)
}

/// A packet at the last hook that it meets on this node, unless the first one already finished it.
#[inline(always)]
pub fn leave<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    bytes: &(impl Bytes + ?Sized),
) -> Verdict {
    if packet.kind == Kind::IcmpError {
        return follow_error(node.tables, Stage::Leave, packet, bytes);
    }
    finish(node, packet)
}

/// A step of [`leave`]: what the tables say of the packet.
#[inline(always)]
pub fn finish<T: PacketTables, M: Moment, N: Network>(node: &Node<'_, T, M, N>, packet: &Packet) -> Verdict {
    match packet.kind {
        Kind::Transport(protocol) => leave_transport(node, packet, protocol),
        // The node's own: no first hook saw it.
        Kind::EchoRequest => answer_echo(node.tables, packet),
        Kind::IcmpError | Kind::Other => Verdict::Pass,
    }
}

#[inline(always)]
fn recognise_transport<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    protocol: Protocol,
) -> Known {
    let Some((src, dst)) = lookup_ends(node, packet, protocol) else {
        return Known::Verdict(refuse_piece(node.tables, packet));
    };
    let (tuple, src_is_low) = Tuple::new(src, dst, protocol);
    known::arrive(node, packet, protocol, &tuple, src_is_low)
}

#[inline(always)]
fn leave_transport<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    protocol: Protocol,
) -> Verdict {
    let Some((src, dst)) = lookup_ends(node, packet, protocol) else { return Verdict::Pass };
    let (tuple, src_is_low) = Tuple::new(src, dst, protocol);
    known::leave(node, packet, protocol, &tuple, src_is_low)
}

/// How long the kernel waits for the pieces of a datagram (`net.ipv4.ipfrag_time`; of IPv6 it is twice that, RFC 8200
/// section 4.5).
const REASSEMBLY_S: u32 = 60;

/// Source and destination with their ports; a later piece of a datagram has those of the first, if that was one of ours.
#[inline(always)]
pub(in crate::datapath) fn lookup_ends<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    protocol: Protocol,
) -> Option<(Peer, Peer)> {
    let Fragment::Later(id) = packet.fragment else { return Some((packet.src, packet.dst)) };
    let key = FragmentKey::new(packet.src.addr, packet.dst.addr, id, protocol);
    let row = node.tables.lookup_fragment(&key)?;
    // Identifications come round. A datagram is put together within this time, or not at all.
    if node.moment.seconds().saturating_sub(row.seen_s) > REASSEMBLY_S {
        return None;
    }
    Some((Peer { port: row.src, ..packet.src }, Peer { port: row.dst, ..packet.dst }))
}

/// Of a packet that is translated: the pieces that follow have no ports. Called before there is a verdict, which would have
/// to be carried past it.
#[inline(always)]
pub(in crate::datapath) fn remember_piece<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    protocol: Protocol,
) {
    if let Fragment::First(id) = packet.fragment {
        let key = FragmentKey::new(packet.src.addr, packet.dst.addr, id, protocol);
        let seen_s = node.moment.seconds();
        node.tables.put_fragment(&key, &FragmentRow { src: packet.src.port, dst: packet.dst.port, seen_s });
    }
}

/// A later piece without a first: the whole datagram is lost. To a Service's address it would only wander.
#[inline(always)]
fn refuse_piece(tables: &impl PacketTables, packet: &Packet) -> Verdict {
    match lookup_uses(tables, packet.dst) {
        Some(uses) if uses.contains(AddressUses::CLUSTER_IP) && !uses.contains(AddressUses::NODE) => {
            drop(tables, DropReason::FragmentWithoutFirst)
        }
        _ => Verdict::Pass,
    }
}

/// Service addresses answer echo requests: nobody else would, and the node answers for its own.
#[inline(always)]
fn answer_echo(tables: &impl PacketTables, packet: &Packet) -> Verdict {
    let Some(uses) = lookup_uses(tables, packet.dst) else {
        if is_unallocated(tables, packet.dst.addr) {
            return drop(tables, DropReason::UnknownAddress);
        }
        return Verdict::Pass;
    };
    let is_service = uses.contains(AddressUses::CLUSTER_IP) || uses.contains(AddressUses::EXTERNAL);
    if !is_service || uses.contains(AddressUses::NODE) {
        return Verdict::Pass;
    }
    tables.count(Counter::Echo);
    Verdict::Answer(Answer::EchoReply)
}

#[inline(always)]
fn lookup_uses(tables: &impl PacketTables, dialled: Peer) -> Option<AddressUses> {
    tables.lookup_frontend(&FrontendKey::whole_address(dialled.addr)).map(|row| row.uses())
}

#[inline(always)]
fn drop(tables: &impl PacketTables, reason: DropReason) -> Verdict {
    tables.count(reason.into());
    Verdict::Drop(reason)
}

#[inline(always)]
fn refuse(tables: &impl PacketTables, reason: DropReason) -> Verdict {
    tables.count(reason.into());
    Verdict::Answer(Answer::Refusal(reason))
}

/// On towards an end of the flow. A function of its own: its result has fields that only one of its variants has, and the
/// kernel does not let a program carry a register around in which nothing is.
#[inline(never)]
fn onward<T: PacketTables>(tables: &T, flow: &Flow, end: End) -> Onward {
    if flow.path() == Path::Stack {
        return Onward::Stack;
    }
    if !flow.is_local(end) {
        return Onward::Route;
    }
    let addr = match end {
        End::Client => flow.client().addr,
        End::Backend => flow.backend().addr,
    };
    // A pod that is gone has no row; its packet goes where the route says.
    match tables.lookup_workload(addr) {
        Some(workload) if workload.ifindex != 0 => Onward::Workload(workload),
        _ => Onward::Route,
    }
}
