//! Whole hooks, as tests and fuzzers call them: translation and policies in the order in which the programs take the steps.

use super::{
    Denied, EnforceTables, Passed, Passing, admit, admit_to, cut, ends_of_cut, judge_in, judge_out,
    judge_unread, release_from,
};
use crate::abi::{Addr, DropReason, Origin};
use crate::datapath::packet::{
    Cut, Node, Onward, Stage, Translation, Verdict, arrive_anywhere, leave, unless_beyond,
};
use crate::datapath::{Moment, Network};
use crate::wire::{Bytes, Packet, Unusable};

/// A packet at a pod's device.
#[derive(Debug)]
pub struct PodHook<'a, B: ?Sized> {
    /// The device's index.
    pub device: u32,
    /// The device by which it came to this node; 0: this node made it.
    pub came_by: u32,
    /// In host order.
    pub ether_type: u16,
    /// What its bytes came to.
    pub read: Result<Packet, Unusable>,
    /// Its bytes.
    pub bytes: &'a B,
}

/// A packet that a pod sends.
pub fn arrive_from_pod<T: EnforceTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    hook: &PodHook<'_, impl Bytes + ?Sized>,
) -> Verdict {
    let is_on = node.tables.enforcement().is_on();
    let policy = if is_on {
        match admit(
            node.tables,
            hook.device,
            hook.ether_type,
            hook.read.as_ref().map_err(|why| *why),
            hook.bytes,
        ) {
            Ok(policy) => Some(policy),
            Err(reason) => return Verdict::Drop(reason),
        }
    } else {
        None
    };
    let packet = match &hook.read {
        Ok(packet) => packet,
        Err(why) => return unread(node, *why),
    };
    let verdict = arrive_anywhere(node, Origin::Inside, packet, hook.bytes);
    let Some(policy) = policy else { return unless_beyond(packet, verdict) };
    enforced(node, Stage::Arrive, packet, verdict, |translation| {
        let passing = Passing { packet, translation, bytes: hook.bytes };
        let left = judge_out(node, hook.device, policy, &passing)?;
        let (src, dst) = ends(packet, translation);
        admit_to(node, src, dst)?;
        Ok(left.or(judge_delivery(node, hook.device, &passing)?))
    })
}

/// A packet that comes from elsewhere.
pub fn arrive_from_net<T: EnforceTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    device: u32,
    packet: &Packet,
    bytes: &(impl Bytes + ?Sized),
) -> Verdict {
    let verdict = arrive_anywhere(node, Origin::Outside, packet, bytes);
    if !node.tables.enforcement().is_on() {
        return unless_beyond(packet, verdict);
    }
    enforced(node, Stage::Arrive, packet, verdict, |translation| {
        let (src, dst) = ends(packet, translation);
        admit_to(node, src, dst)?;
        judge_delivery(node, device, &Passing { packet, translation, bytes })
    })
}

/// A packet that leaves the node, and was not finished by another hook. `came_by` is the device by which it came to this node; 0:
/// this node made it.
pub fn leave_to_net<T: EnforceTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    came_by: u32,
    packet: &Packet,
    bytes: &(impl Bytes + ?Sized),
) -> Verdict {
    let verdict = leave(node, packet, bytes);
    if !node.tables.enforcement().is_on() {
        return verdict;
    }
    enforced(node, Stage::Leave, packet, verdict, |_| {
        release_from(node, came_by, packet.src.addr, packet.dst.addr)?;
        Ok(Passed::Plainly)
    })
}

/// A packet for a pod, at the pod's device; `is_finished`: another hook translated it.
pub fn leave_to_pod<T: EnforceTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    hook: &PodHook<'_, impl Bytes + ?Sized>,
    is_finished: bool,
) -> Verdict {
    let is_on = node.tables.enforcement().is_on();
    let packet = match &hook.read {
        Ok(packet) => packet,
        Err(why @ Unusable::MappedAddress) => return unread(node, *why),
        Err(_) if is_on => {
            return match judge_unread(node.tables, hook.device, hook.came_by, hook.ether_type) {
                Ok(()) => Verdict::Pass,
                Err(reason) => Verdict::Drop(reason),
            };
        }
        Err(why) => return unread(node, *why),
    };
    let verdict = if is_finished { Verdict::Pass } else { leave(node, packet, hook.bytes) };
    if !is_on {
        return verdict;
    }
    enforced(node, Stage::Leave, packet, verdict, |translation| {
        judge_in(node, hook.device, hook.came_by, &Passing { packet, translation, bytes: hook.bytes })
    })
}

/// From where to where a packet goes, after translation.
fn ends(packet: &Packet, translation: Option<&Translation>) -> (Addr, Addr) {
    translation.map_or((packet.src.addr, packet.dst.addr), |translation| {
        (translation.src.addr, translation.dst.addr)
    })
}

/// What goes past the stack into a pod of this node: its own hook does not see it.
fn judge_delivery<T: EnforceTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    came_by: u32,
    passing: &Passing<'_, impl Bytes + ?Sized>,
) -> Result<Passed, Denied> {
    match passing.translation {
        Some(Translation { onward: Onward::Workload(workload), .. }) => {
            judge_in(node, workload.ifindex, came_by, passing)
        }
        _ => Ok(Passed::Plainly),
    }
}

fn enforced<T: EnforceTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    stage: Stage,
    packet: &Packet,
    verdict: Verdict,
    judge: impl FnOnce(Option<&Translation>) -> Result<Passed, Denied>,
) -> Verdict {
    let translation = match &verdict {
        Verdict::Translate(translation) => Some(translation),
        Verdict::Pass => None,
        Verdict::Answer(_) | Verdict::Drop(_) | Verdict::Cut(..) => return verdict,
    };
    match judge(translation) {
        Ok(_) => unless_beyond(packet, verdict),
        Err(Denied { reason, cuts: true }) => {
            let (src, dst) = ends_of_cut(stage, packet, translation);
            Verdict::Cut(reason, Cut { stage, src, dst })
        }
        Err(Denied { reason, cuts: false }) => {
            if translation.is_some() {
                cut(node.tables, packet);
            }
            Verdict::Drop(reason)
        }
    }
}

/// Bytes that are no packet: whether a pod may send them was asked before.
fn unread<T: EnforceTables, M: Moment, N: Network>(node: &Node<'_, T, M, N>, why: Unusable) -> Verdict {
    if why != Unusable::MappedAddress {
        return Verdict::Pass;
    }
    node.tables.count(DropReason::MappedAddress.into());
    Verdict::Drop(DropReason::MappedAddress)
}
