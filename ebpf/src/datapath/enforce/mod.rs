//! Policies in force: which packets of and for the pods of this node go on.
//!
//! Three questions. [`admit`], of a packet that leaves a pod, before anything else is asked: is it the pod's to send?
//! [`judge_out`], when it is decided what the packet becomes: may it leave? [`judge_in`], where a packet is about to enter a
//! pod: may it? The last is asked at the pod's device, and of what goes past the stack into a pod at the hook that sends it
//! there, since the pod's own hook never sees that. Called by the tc programs, by tests and fuzzers, and by commands that
//! explain.
//!
//! A flow that was allowed has a row in `judged` (`flow`), so replies pass, and a packet costs two look-ups. A pod that
//! nothing isolates has no rows: one look-up says so. While there are no policies nobody asks anything.

mod admit;
mod cut;
mod flow;
mod hooks;
mod message;
mod older;
mod ruling;
mod strangers;
mod tunnel;

use core::ops::Deref;

pub use admit::admit;
pub use cut::{cut, ends_of_cut};
pub use hooks::{PodHook, arrive_from_net, arrive_from_pod, leave_to_net, leave_to_pod};
pub use ruling::{Denied, Passed, Ruling};
pub use strangers::{admit_to, release_from};

use super::packet::{Node, Translation, lookup_ends, remember_piece};
use super::policy::PolicyTables;
use super::{Full, Moment, Network, PacketTables};
use crate::abi::{
    AddressUses, BoundPod, Counter, DropReason, Enforcement, Judged, JudgedKey, Peer, PodPolicy, PolicySetId,
    Port, Protocol, Share, Side, Signs, Standing,
};
use crate::wire::{Bytes, Fragment, Kind, Packet, TCP_ACK, TCP_RST, TCP_SYN, parse_quoted_ends};
use flow::{Shape, View};
use message::Message;

/// The tables of policies in force.
pub trait EnforceTables: PacketTables + PolicyTables {
    /// A row of `judged` in place: its parts change, each at once.
    type JudgedRef<'a>: Deref<Target = Judged>
    where
        Self: 'a;

    /// `enforcement`
    fn enforcement(&self) -> Enforcement;
    /// `pod_policies`, by the index of the device that leads to the pod
    fn lookup_pod(&self, device: u32) -> Option<BoundPod>;
    /// `devices`: [`Device::netns`](crate::abi::Device::netns), 0 where there is no row.
    fn lookup_pod_netns(&self, device: u32) -> u64;
    /// `judged`
    fn lookup_judged(&self, key: &JudgedKey) -> Option<Self::JudgedRef<'_>>;
    /// `judged`: says by what the flow goes on now: first how it stands, then the basis, then the generation.
    fn confirm_judged(&self, row: &Self::JudgedRef<'_>, basis: u64, generation: u32, standing: Standing);
    /// `judged`: says how the flow stands.
    fn note_standing(&self, row: &Self::JudgedRef<'_>, standing: Standing);
    /// `judged`: says when a packet was last seen, and everything that was seen on its way.
    fn touch_judged(&self, row: &Self::JudgedRef<'_>, side: Side, seen_s: u32, signs: Signs);
    /// `judged`: adds or replaces a row.
    ///
    /// # Errors
    /// [`Full`]
    fn put_judged(&self, key: &JudgedKey, row: &Judged) -> Result<(), Full>;
    /// `judged_shares`: what the pod behind a device has of `judged`.
    fn lookup_share(&self, device: u32) -> Option<Share>;
    /// `judged_shares`: one row more. The first begins a new row here.
    fn add_share(&self, device: u32, now_s: u32);
    /// `judged_shares`: a flow found no room.
    fn note_unremembered(&self, device: u32, now_s: u32);
}

/// A packet at a hook, and what it becomes there.
#[derive(Debug)]
pub struct Passing<'a, B: ?Sized> {
    /// As it came.
    pub packet: &'a Packet,
    /// Its new addresses, if it is translated.
    pub translation: Option<&'a Translation>,
    /// Its bytes as it came.
    pub bytes: &'a B,
}

/// Whether a packet may leave the pod behind a device. The policy is what [`admit`] found.
///
/// # Errors
/// Why not; it is counted.
#[inline(always)]
pub fn judge_out<T: EnforceTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    device: u32,
    policy: PodPolicy,
    passing: &Passing<'_, impl Bytes + ?Sized>,
) -> Result<Passed, Denied> {
    if policy.is_open() {
        return Ok(Passed::Plainly);
    }
    let judged = judge(node, device, 0, policy, Side::Egress, passing);
    // A pod may always reach its own node (kubernetes.io, Network Policies). Asked last: hardly any packet needs it.
    if judged != Ok(Passed::Plainly) && is_node(node.tables, far(Side::Egress, passing)) {
        return Ok(Passed::Plainly);
    }
    counted_both(node.tables, judged)
}

/// Whether a packet may enter the pod behind a device. `came_by` is the device by which it came to this node; 0: this node
/// made it.
///
/// # Errors
/// Why not; it is counted.
#[inline(always)]
pub fn judge_in<T: EnforceTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    device: u32,
    came_by: u32,
    passing: &Passing<'_, impl Bytes + ?Sized>,
) -> Result<Passed, Denied> {
    // The node's own, by what the kernel says of it and never by an address: a pod that is masqueraded would pass for the
    // node. And what a pod gets back that it sent itself: answers in the place of its packets.
    if came_by == 0 || came_by == device {
        return Ok(Passed::Plainly);
    }
    let Some(pod) = node.tables.lookup_pod(device) else {
        let message = Message::of(passing.packet, passing.bytes);
        if !message.is_for_links() {
            counted(node.tables, unknown(node.tables))?;
        }
        return Ok(Passed::Plainly);
    };
    if pod.policy.is_open() {
        return Ok(Passed::Plainly);
    }
    counted_both(node.tables, judge(node, device, came_by, pod.policy, Side::Ingress, passing))
}

/// Whether bytes that are no packet may go to the pod behind a device: what cannot be judged would pass what is judged by.
///
/// # Errors
/// Why not; it is counted.
#[inline(always)]
pub fn judge_unread<T: EnforceTables>(
    tables: &T,
    device: u32,
    came_by: u32,
    ether_type: u16,
) -> Result<(), DropReason> {
    if came_by == 0 || came_by == device || ether_type == admit::ARP {
        return Ok(());
    }
    counted(
        tables,
        match tables.lookup_pod(device) {
            None => unknown(tables),
            Some(pod) if !pod.policy.denies_any() => Ok(()),
            Some(_) => Err(DropReason::Unreadable),
        },
    )
}

/// What becomes of packets of and for a pod that nobody knows yet.
///
/// # Errors
/// [`DropReason::UnknownPod`] where they are held.
#[inline(always)]
fn unknown<T: EnforceTables>(tables: &T) -> Result<(), DropReason> {
    let holds = tables.enforcement().flags & Enforcement::HOLD_UNKNOWN != 0;
    if holds { Err(DropReason::UnknownPod) } else { Ok(()) }
}

#[inline(always)]
fn counted<T: EnforceTables, R>(tables: &T, judged: Result<R, DropReason>) -> Result<R, DropReason> {
    if let Err(reason) = judged {
        tables.count(reason.into());
    }
    judged
}

/// The same, and what passes although it would be denied, and what is cut.
#[inline(always)]
fn counted_both<T: EnforceTables>(tables: &T, judged: Result<Passed, Denied>) -> Result<Passed, Denied> {
    match judged {
        Ok(passed) => {
            if let Some(counter) = passed.counter() {
                tables.count(counter);
            }
        }
        Err(Denied { reason, cuts }) => {
            tables.count(reason.into());
            if cuts {
                tables.count(Counter::Reset);
            }
        }
    }
    judged
}

/// One side of the packet's flow. `came_by`: as for [`judge_in`]; 0 of what the pod sends.
#[inline(always)]
fn judge<T: EnforceTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    device: u32,
    came_by: u32,
    policy: PodPolicy,
    side: Side,
    passing: &Passing<'_, impl Bytes + ?Sized>,
) -> Result<Passed, Denied> {
    let packet = passing.packet;
    let message = Message::of(packet, passing.bytes);
    if message.is_for_links() && stays_on_link(node.tables, message, packet) {
        return Ok(Passed::Plainly);
    }
    if packet.kind == Kind::IcmpError && quotes_judged(node.tables, device, policy, side, passing) {
        return Ok(Passed::Plainly);
    }
    let Some((src, dst)) = lookup_piece_ends(node, packet) else {
        return if policy.denies(side) {
            Err(DropReason::FragmentWithoutFirst.into())
        } else {
            Ok(Passed::Plainly)
        };
    };
    let mut view = view(device, policy, side, (src, dst), message, passing);
    if admit::is_of_link(view.near.addr)
        && let Some(sender) = node.tables.lookup_pod(came_by)
        && let Some(addr) = sender.address_like(view.near.addr)
    {
        view.near_owner = addr;
    }
    // The only way past its device to its own address is a Service.
    if view.far.addr == view.pod {
        return Ok(Passed::Plainly);
    }
    let passed = flow::pass(node.tables, node.moment, node.network, &view)?;
    // Where it was translated that is done.
    if let (Kind::Transport(protocol), None) = (packet.kind, passing.translation) {
        remember_piece(node, packet, protocol);
    }
    Ok(passed)
}

/// The packet as the pod sees it, with the ports that the first piece had.
#[inline(always)]
fn view(
    device: u32,
    policy: PodPolicy,
    side: Side,
    came: (Peer, Peer),
    message: Message,
    passing: &Passing<'_, impl Bytes + ?Sized>,
) -> View {
    let packet = passing.packet;
    let goes = passing.translation.map_or(came, |translation| (translation.src, translation.dst));
    let (pod, near, far) = match side {
        Side::Egress => (came.0, came.1, goes.1),
        Side::Ingress => (goes.1, goes.0, came.0),
    };
    let has_ports = matches!(packet.kind, Kind::Transport(_));
    let portless =
        |peer: Peer| if has_ports { peer } else { Peer { addr: peer.addr, port: Port::default() } };
    let shape = match packet.kind {
        Kind::Transport(Protocol::Tcp) => segment_shape(packet, passing.bytes),
        _ if message == Message::EchoRequest => Shape::Request,
        _ => Shape::Other,
    };
    View {
        side,
        device,
        policy,
        pod: pod.addr,
        pod_port: portless(pod).port,
        near: portless(near),
        far: portless(far),
        protocol: packet.protocol,
        tcp_flags: packet.tcp_flags,
        shape,
        near_owner: near.addr,
        begins: side == Side::Egress && passing.translation.is_some_and(|translation| translation.begins),
    }
}

#[inline(always)]
fn segment_shape(packet: &Packet, bytes: &(impl Bytes + ?Sized)) -> Shape {
    if packet.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN {
        return Shape::Opening;
    }
    // A later piece says nothing of flags: it is like one in mid-stream.
    if packet.fragment != Fragment::Whole {
        return Shape::Mute;
    }
    if packet.tcp_flags & TCP_RST == 0 {
        return Shape::Midstream;
    }
    let headers =
        bytes.load(packet.l4 + 12).map(|[offset]| packet.l4 - packet.l3 + u32::from(offset >> 4) * 4);
    if headers == Some(packet.length) { Shape::Reset } else { Shape::Mute }
}

/// Whom the packet goes to or comes from, beyond what we make of it.
#[inline(always)]
fn far(side: Side, passing: &Passing<'_, impl Bytes + ?Sized>) -> Peer {
    match (side, passing.translation) {
        (Side::Egress, Some(translation)) => translation.dst,
        (Side::Egress, None) => passing.packet.dst,
        (Side::Ingress, _) => passing.packet.src,
    }
}

#[inline(always)]
fn lookup_piece_ends<T: EnforceTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
) -> Option<(Peer, Peer)> {
    match (packet.kind, packet.fragment) {
        (Kind::Transport(protocol), Fragment::Later(_)) => lookup_ends(node, packet, protocol),
        _ => Some((packet.src, packet.dst)),
    }
}

/// Whether an ICMP error quotes a packet of a flow that the pod is allowed. The quotation is looked at as the pod sees it,
/// and as it had seen the packet itself, on the opposite way.
#[inline(always)]
fn quotes_judged<T: EnforceTables>(
    tables: &T,
    device: u32,
    policy: PodPolicy,
    side: Side,
    passing: &Passing<'_, impl Bytes + ?Sized>,
) -> bool {
    let translated = passing.translation.and_then(|translation| translation.quoted);
    let (src, dst, protocol) = match (side, translated) {
        (Side::Ingress, Some(quoted)) => (quoted.src, quoted.dst, quoted.protocol as u8),
        _ => match parse_quoted_ends(passing.bytes, passing.packet) {
            Some(ends) => ends,
            None => return false,
        },
    };
    let (pod, peer) = match side {
        // It is told to who sent that packet, and to nobody else.
        Side::Egress if src.addr != passing.packet.dst.addr => return false,
        Side::Egress => (dst, src),
        Side::Ingress => (src, dst),
    };
    let key = JudgedKey::new(device, pod.port, peer, protocol);
    let Some(row) = tables.lookup_judged(&key) else { return false };
    let set = policy.set(row.began());
    // The class of the peer may be another one: the next packet of the flow says.
    let is_confirmed = set == PolicySetId::OPEN || row.generation == tables.enforcement().generation;
    row.set() == set && is_confirmed && !row.standing.is_cut()
}

/// Whether a message that no policy is about goes no further than the link: a stack that forwards takes it for any other.
#[inline(always)]
fn stays_on_link<T: EnforceTables>(tables: &T, message: Message, packet: &Packet) -> bool {
    let (src, dst) = (packet.src, packet.dst);
    if !admit::leaves_link(dst.addr) {
        return true;
    }
    // Pods of several nodes may be on one link; what has one prefix of 64 bits is on one (RFC 4291 section 2.5.1).
    let [src_prefix, _] = src.addr.halves();
    let [dst_prefix, _] = dst.addr.halves();
    // Who knows its neighbour asks it alone, and answers it alone; reports are for groups.
    let is_neighbour = matches!(message, Message::Neighbour { .. });
    is_neighbour
        && (src_prefix == dst_prefix || tables.lookup_workload(dst.addr).is_some() || is_node(tables, dst))
}

#[inline(always)]
fn is_node<T: EnforceTables>(tables: &T, peer: Peer) -> bool {
    let key = crate::abi::FrontendKey::whole_address(peer.addr);
    tables.lookup_frontend(&key).is_some_and(|row| row.uses().contains(AddressUses::NODE))
}
