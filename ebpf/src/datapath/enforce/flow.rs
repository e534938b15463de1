//! Flows that were allowed, one row for each pod that has a part in one.
//!
//! A row says who began the flow, and which set of the pod allowed it to which class of the peer. While both are what they
//! were its packets pass, in both directions; when one is another, the flow is judged again at its next packet, whichever way
//! that goes. What is denied makes no row, and a row of what is denied now stays until it is swept: so it is not forgotten
//! who began the flow, and the other direction does not let it live on.

use super::older::{Told, answer, ask, is_older, join, recall};
use super::{Denied, EnforceTables, Passed};
use crate::abi::{
    Addr, ClassId, DropReason, Judged, JudgedKey, Peer, PodPolicy, PolicySetId, Port, Side, Signs, Standing,
};
use crate::datapath::packet::signs_of;
use crate::datapath::policy::{Access, Judgement, judge_class, judge_rules, lookup_class};
use crate::datapath::{Moment, Network};
use crate::wire::TCP_RST;

/// What a packet is to a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// A TCP segment that opens a connection: no reply.
    Opening,
    /// Any other TCP segment: of a connection that somebody opened.
    Midstream,
    /// A reset, and nothing else in it.
    Reset,
    /// Of a connection as well, but there is no answer to it: a piece, or a reset that carries something.
    Mute,
    /// It asks for an answer and is none.
    Request,
    /// Neither can be said.
    Other,
}

impl Shape {
    #[inline(always)]
    const fn is_no_reply(self) -> bool {
        matches!(self, Self::Opening | Self::Request)
    }

    #[inline(always)]
    const fn is_midstream(self) -> bool {
        matches!(self, Self::Midstream | Self::Reset | Self::Mute)
    }
}

/// A packet as one pod sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Whether it comes to the pod or leaves it.
    pub(super) side: Side,
    /// The device that the pod is behind.
    pub(super) device: u32,
    /// How the pod is isolated.
    pub(super) policy: PodPolicy,
    /// The pod.
    pub(super) pod: Addr,
    /// Its port.
    pub(super) pod_port: Port,
    /// The other end as the pod sees it.
    pub(super) near: Peer,
    /// The other end beyond translation: of what the pod began, the backend.
    pub(super) far: Peer,
    /// IANA number
    pub(super) protocol: u8,
    /// Of TCP.
    pub(super) tcp_flags: u8,
    /// What it is to a flow.
    pub(super) shape: Shape,
    /// Whom policies know the other end by, where that is not its address as the pod sees it.
    pub(super) near_owner: Addr,
    /// With it the pod reaches a backend that it was not sent to before.
    pub(super) begins: bool,
}

impl View {
    #[inline(always)]
    const fn key(&self) -> JudgedKey {
        JudgedKey::new(self.device, self.pod_port, self.near, self.protocol)
    }

    /// What is asked about its flow, if the pod had this part in it.
    #[inline(always)]
    const fn access(&self, began: Side) -> Access {
        let (peer, port) = match began {
            Side::Egress => (self.far.addr, self.far.port),
            Side::Ingress => (self.near_owner, self.pod_port),
        };
        Access { side: began, pod: self.pod, peer, protocol: self.protocol, port }
    }

    #[inline(always)]
    const fn signs(&self) -> Signs {
        signs_of(self.tcp_flags)
    }
}

/// Whether the packet passes.
///
/// # Errors
/// Why not.
#[inline(always)]
pub(super) fn pass<T: EnforceTables>(
    tables: &T,
    moment: &impl Moment,
    network: &impl Network,
    view: &View,
) -> Result<Passed, Denied> {
    let key = view.key();
    let mut row = tables.lookup_judged(&key);
    let mut told = Told::Unseen;
    if row.is_none() && view.shape.is_midstream() {
        told = ask(tables, network, view);
        if let Told::Began(side) = told
            && is_older(tables, moment, view, told)
        {
            row = recall(tables, moment, view, &key, side);
        }
    }
    let Some(row) = row else {
        if view.shape.is_midstream() {
            return join(tables, moment, view, &key, told);
        }
        let begun = begin(tables, moment, view, &key, false);
        return begun.or_else(|denied| answer(tables, moment, network, view, &key).ok_or(denied));
    };
    let began = row.began();
    let begins_anew = match view.shape {
        // To whom it goes was not asked before, though the pod sees the same other end.
        _ if view.begins => true,
        // Nor does a connection that only goes on let another begin.
        Shape::Opening => began != view.side || is_over(&row) || row.standing.is_kept(),
        shape => began != view.side && shape.is_no_reply(),
    };
    if begins_anew {
        return begin(tables, moment, view, &key, true);
    }
    match confirm(tables, view, &row, began) {
        Ok(passed) => {
            touch(tables, moment, view, &row);
            Ok(passed)
        }
        Err(reason) => end(tables, view, &row, reason),
    }
}

/// What becomes of a packet of a flow that was allowed and no longer is. The ends of a TCP connection are told: whoever sent
/// the packet, and whom it is for. Resets pass, so that they are told wherever it was found out; a few, or a pod could go on
/// to speak by them.
#[inline(always)]
fn end<T: EnforceTables>(
    tables: &T,
    view: &View,
    row: &T::JudgedRef<'_>,
    reason: DropReason,
) -> Result<Passed, Denied> {
    let cuts = match (view.shape, row.standing.told()) {
        (Shape::Midstream | Shape::Reset, Some(told)) => {
            tables.note_standing(row, told);
            true
        }
        _ => false,
    };
    if cuts && view.shape == Shape::Reset { Ok(Passed::Plainly) } else { Err(Denied { reason, cuts }) }
}

/// Whether a flow that was allowed still is, or goes on all the same.
///
/// # Errors
/// Why not.
#[inline(always)]
fn confirm<T: EnforceTables>(
    tables: &T,
    view: &View,
    row: &T::JudgedRef<'_>,
    began: Side,
) -> Result<Passed, DropReason> {
    let set = view.policy.set(began);
    let (is_kept, keeps) = (row.standing.is_kept(), view.policy.keeps(began));
    // Before the class is asked for, which may change meanwhile.
    let generation = tables.enforcement().generation;
    if row.set() == set && (set == PolicySetId::OPEN || row.generation == generation) && (keeps || !is_kept) {
        return Ok(Passed::Plainly);
    }
    let access = view.access(began);
    let class = if set == PolicySetId::OPEN { ClassId::EVERYBODY } else { lookup_class(tables, access.peer) };
    let basis = Judged::basis_of(set, class);
    let (mut passed, mut standing) = (Passed::Plainly, Standing::ALLOWED);
    if set != PolicySetId::OPEN && (row.basis() != basis || is_kept) {
        match judge_class(tables, set, class, &access) {
            Judgement::Denied(..) if !view.policy.denies(began) => passed = Passed::Audited(began),
            Judgement::Denied(..) | Judgement::NotAPod if keeps => standing = Standing::KEPT,
            Judgement::Denied(..) | Judgement::NotAPod => return Err(denied(began)),
            judgement => passed = said_of(judgement, began),
        }
    }
    tables.confirm_judged(row, basis, generation, standing);
    Ok(passed)
}

/// The first packet of a flow.
#[inline(always)]
fn begin<T: EnforceTables>(
    tables: &T,
    moment: &impl Moment,
    view: &View,
    key: &JudgedKey,
    replaces: bool,
) -> Result<Passed, Denied> {
    let Some((row, passed)) = judge(tables, moment, view, view.side) else {
        return Err(denied(view.side).into());
    };
    match create(tables, moment, view, key, row, replaces) {
        Ok(()) => Ok(passed),
        Err(NoRoom) => without_row(view),
    }
}

/// The row of the flow if the pod has this part in it and that is allowed, and whether it would not be.
#[inline(always)]
pub(super) fn judge<T: EnforceTables>(
    tables: &T,
    moment: &impl Moment,
    view: &View,
    began: Side,
) -> Option<(Judged, Passed)> {
    let generation = tables.enforcement().generation;
    let set = view.policy.set(began);
    let mut judgement = judge_rules(tables, set, &view.access(began));
    // Who only watches denies nothing, also where rows that would say so found no room.
    if let Judgement::Denied(set, class) = judgement
        && !view.policy.denies(began)
    {
        judgement = Judgement::Audited(set, class);
    }
    let class = match judgement {
        Judgement::Open | Judgement::Itself => ClassId::EVERYBODY,
        Judgement::Allowed(_, class) | Judgement::Audited(_, class) => class,
        Judgement::Denied(..) | Judgement::NotAPod => return None,
    };
    Some((Judged::new(began, set, class, generation, moment.seconds()), said_of(judgement, began)))
}

/// What is said of a judgement by which a flow passes.
#[inline(always)]
const fn said_of(judgement: Judgement, began: Side) -> Passed {
    if matches!(judgement, Judgement::Audited(..)) { Passed::Audited(began) } else { Passed::Plainly }
}

/// The table has no room for another row, or the pod has its share of them.
pub(super) struct NoRoom;

/// Remembers a flow that is allowed.
#[inline(always)]
pub(super) fn create<T: EnforceTables>(
    tables: &T,
    moment: &impl Moment,
    view: &View,
    key: &JudgedKey,
    mut row: Judged,
    replaces: bool,
) -> Result<(), NoRoom> {
    let now_s = moment.seconds();
    let rows = tables.lookup_share(view.device).map_or(0, |share| share.rows);
    if !replaces && rows >= tables.enforcement().most_per_pod {
        tables.note_unremembered(view.device, now_s);
        return Err(NoRoom);
    }
    match view.side {
        Side::Egress => row.outward = view.signs(),
        Side::Ingress => row.inward = view.signs(),
    }
    if tables.put_judged(key, &row).is_err() {
        tables.note_unremembered(view.device, now_s);
        return Err(NoRoom);
    }
    if !replaces {
        tables.add_share(view.device, now_s);
    }
    Ok(())
}

/// What is allowed, and finds no room to be remembered. Of a pod that is isolated in one direction only, replies in the other
/// need nobody's memory; and what leaves in that other direction is allowed, whatever becomes of its replies. It is not said
/// of what would be denied, since nobody knew at its next packet that it was.
#[inline(always)]
fn without_row(view: &View) -> Result<Passed, Denied> {
    let denies_both = view.policy.denies(Side::Ingress) && view.policy.denies(Side::Egress);
    if denies_both { Err(DropReason::JudgedFull.into()) } else { Ok(Passed::Plainly) }
}

/// Says that a packet was seen; writes at most once a second, unless there is news.
#[inline(always)]
fn touch<T: EnforceTables>(tables: &T, moment: &impl Moment, view: &View, row: &T::JudgedRef<'_>) {
    let now_s = moment.seconds();
    let before = row.signs(view.side);
    let signs = before.unless_continued(view.tcp_flags & TCP_RST == 0).and(view.signs());
    if row.seen_s != now_s || signs != before {
        tables.touch_judged(row, view.side, now_s, signs);
    }
}

/// Whether a TCP connection is over: reset, closed by both sides, or cut.
#[inline(always)]
fn is_over(row: &Judged) -> bool {
    row.outward.contains(Signs::RST)
        || row.inward.contains(Signs::RST)
        || (row.outward.contains(Signs::FIN) && row.inward.contains(Signs::FIN))
        || row.standing.is_cut()
}

#[inline(always)]
pub(super) const fn other(side: Side) -> Side {
    match side {
        Side::Ingress => Side::Egress,
        Side::Egress => Side::Ingress,
    }
}

#[inline(always)]
pub(super) const fn denied(began: Side) -> DropReason {
    match began {
        Side::Ingress => DropReason::PolicyIngress,
        Side::Egress => DropReason::PolicyEgress,
    }
}
