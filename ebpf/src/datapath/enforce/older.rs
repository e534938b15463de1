//! Flows that have no row and may be older than what is in force: from before the first policy, from when there was no room
//! for them, or idle for longer than rows are kept. None of them is to be cut because of that, and nobody is to pass for one.
//!
//! Whose such a flow is the pod's own sockets say: who connected, and who was connected to. It is then judged as if it had
//! a row from when nothing isolated the pod. Where sockets cannot be seen (sandboxes and virtual machines that keep their own,
//! pods that forward for others), packets are believed, some of them for a while only.

use super::EnforceTables;
use super::flow::{NoRoom, View, create, denied, judge, other};
use super::ruling::{Denied, Passed};
use crate::abi::{BoundPod, ClassId, Judged, JudgedKey, Peer, PolicySetId, Protocol, Side};
use crate::datapath::{Moment, Network, PodSocket};
use crate::wire::TCP_RST;

/// What the sockets of a pod say of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// The pod's part in it. It may be older than what isolates the pod.
    Began(Side),
    /// The pod's part in one that is being opened: it needs what every new one does.
    Begins(Side),
    /// None of them has it.
    Nothing,
    /// They cannot be seen, or are not to be believed.
    Unseen,
}

/// Asks the pod's sockets.
#[inline(always)]
pub(super) fn ask<T: EnforceTables>(tables: &T, network: &impl Network, view: &View) -> Told {
    let Some(protocol) = Protocol::from_number(view.protocol.into()) else { return Told::Unseen };
    if protocol == Protocol::Sctp {
        return Told::Unseen;
    }
    let netns = tables.lookup_pod_netns(view.device);
    if netns == 0 {
        return Told::Unseen;
    }
    if tables.lookup_pod(view.device).is_some_and(|pod| pod.flags & BoundPod::ANY_SOURCE != 0) {
        return Told::Unseen;
    }
    let pod = Peer { addr: view.pod, port: view.pod_port };
    let leaves = view.side == Side::Egress;
    match network.lookup_socket(netns - 1, protocol, pod, view.near) {
        // They are the pod's to make: that a peer began what it sends is no reason to let it out.
        PodSocket::Opens(Side::Ingress) | PodSocket::Connected(Side::Ingress)
            if leaves && view.policy.denies(Side::Egress) =>
        {
            Told::Unseen
        }
        PodSocket::Connected(side) => Told::Began(side),
        PodSocket::Opens(side) => Told::Begins(side),
        // A listener answers without another socket (SYN cookies), and a pod may send on what comes to a port to another of its
        // own, as meshes do.
        PodSocket::Waits if leaves => Told::Unseen,
        PodSocket::Waits | PodSocket::None => Told::Nothing,
    }
}

/// Whether it is one that the pod may have had when nothing isolated it. To have one kept that is denied a pod might make it up.
#[inline(always)]
pub(super) fn is_older<T: EnforceTables>(tables: &T, moment: &impl Moment, view: &View, told: Told) -> bool {
    match told {
        Told::Began(side) => !view.policy.keeps(side) || may_be_unknown(tables, moment, view),
        Told::Begins(_) | Told::Nothing | Told::Unseen => false,
    }
}

/// Makes the row of a TCP connection that the pod had when nothing isolated it, so that it goes on or ends as any other.
#[inline(always)]
pub(super) fn recall<'a, T: EnforceTables>(
    tables: &'a T,
    moment: &impl Moment,
    view: &View,
    key: &JudgedKey,
    began: Side,
) -> Option<T::JudgedRef<'a>> {
    let generation = tables.enforcement().generation;
    let row = Judged::new(began, PolicySetId::OPEN, ClassId::EVERYBODY, generation, moment.seconds());
    create(tables, moment, view, key, row, false).ok()?;
    tables.lookup_judged(key)
}

/// How long after the last moment at which a pod may have begun flows that have no row others are taken for such. Whoever
/// goes on by then has one; and from then on nobody gets past what isolates the pod by leaving out the SYN.
const JOIN_S: u32 = 600;

/// A packet of a TCP connection that has no row. What the pod's sockets have is as its policies say for whoever began it; and what
/// they know nothing of, as they say of the packet itself.
///
/// Where they cannot be asked it passes if policies allow either direction. The isolated one is asked first, so that what it
/// allows ends when it no longer does. What is denied in its own direction is believed to be a reply for a while.
#[inline(always)]
pub(super) fn join<T: EnforceTables>(
    tables: &T,
    moment: &impl Moment,
    view: &View,
    key: &JudgedKey,
    told: Told,
) -> Result<Passed, Denied> {
    let found = match told {
        Told::Began(side) | Told::Begins(side) => judge(tables, moment, view, side),
        Told::Nothing => judge(tables, moment, view, view.side),
        Told::Unseen => judge_either(tables, moment, view, may_be_unknown(tables, moment, view)),
    };
    let Some((row, passed)) = found else { return Err(denied(view.side).into()) };
    // Only what is new is refused for want of room; and of what was reset there is nothing to remember.
    if view.tcp_flags & TCP_RST == 0 && create(tables, moment, view, key, row, false).is_ok() {
        return Ok(passed);
    }
    Ok(Passed::Plainly)
}

/// The row of a flow that either end may have begun; `believes`: the packet may be a reply though it is denied itself.
#[inline(always)]
fn judge_either<T: EnforceTables>(
    tables: &T,
    moment: &impl Moment,
    view: &View,
    believes: bool,
) -> Option<(Judged, Passed)> {
    let own = judge(tables, moment, view, view.side);
    if own.is_none() && !believes {
        return None;
    }
    let is_first = (view.policy.ingress == PolicySetId::OPEN) == (view.side == Side::Egress);
    if is_first && own.is_some() {
        return own;
    }
    judge(tables, moment, view, other(view.side)).or(own)
}

/// Whether the pod may have connections that are allowed and have no row.
#[inline(always)]
fn may_be_unknown<T: EnforceTables>(tables: &T, moment: &impl Moment, view: &View) -> bool {
    let Some(share) = tables.lookup_share(view.device) else { return true };
    share.rows >= tables.enforcement().most_per_pod || moment.seconds().saturating_sub(share.since_s) < JOIN_S
}

/// A datagram for the pod that would begin what is denied. It is an answer if the pod has a socket that is connected to whom it
/// comes from, and not for whoever comes; it passes where policies allow the question.
#[inline(always)]
pub(super) fn answer<T: EnforceTables>(
    tables: &T,
    moment: &impl Moment,
    network: &impl Network,
    view: &View,
    key: &JudgedKey,
) -> Option<Passed> {
    if view.protocol != Protocol::Udp as u8 || view.side != Side::Ingress {
        return None;
    }
    let (row, passed) = judge(tables, moment, view, Side::Egress)?;
    if ask(tables, network, view) != Told::Began(Side::Egress) {
        return None;
    }
    match create(tables, moment, view, key, row, false) {
        Ok(()) => Some(passed),
        Err(NoRoom) => Some(Passed::Plainly),
    }
}
