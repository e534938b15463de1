//! What is told of a drop, and how often.
//!
//! Called by the programs where something was dropped, and never otherwise; what it says decides about nothing.

use super::enforce::EnforceTables;
use super::packet::Translation;
use super::policy::lookup_class;
use crate::abi::{DropEvent, DropReason, PolicySetId, Side};
use crate::wire::{Bytes, Fragment, Packet};

/// IANA numbers of ICMP and ICMPv6.
const ICMP: [u8; 2] = [1, 58];

/// Says of a packet what it was, and what it would have become.
#[inline(always)]
pub fn describe_packet(
    event: &mut DropEvent,
    packet: &Packet,
    translation: Option<&Translation>,
    bytes: &(impl Bytes + ?Sized),
) {
    event.set_ends(packet.src, packet.dst);
    event.protocol = packet.protocol;
    event.detail = packet.tcp_flags;
    if matches!(packet.fragment, Fragment::Later(_)) {
        event.flags |= DropEvent::PIECE;
    } else if ICMP.contains(&packet.protocol)
        && let Some([kind]) = bytes.load(packet.l4)
    {
        event.detail = kind;
    }
    if let Some(translation) = translation {
        event.set_translation(translation.dst);
    }
}

/// Says which set of the pod and which class of its peer were asked, where policies decided: as they are now.
#[inline(always)]
pub fn describe_judgement<T: EnforceTables>(tables: &T, event: &mut DropEvent) {
    let asked = if event.is_for(DropReason::PolicyIngress) {
        Side::Ingress
    } else if event.is_for(DropReason::PolicyEgress) {
        Side::Egress
    } else {
        return;
    };
    let Some(pod) = tables.lookup_pod(event.device) else { return };
    let set = pod.policy.set(asked);
    if set == PolicySetId::OPEN {
        return;
    }
    let peer = match event.side() {
        Some(Side::Egress) => event.new_dst().unwrap_or(event.dst()),
        _ => event.src(),
    };
    event.set_judged(set, lookup_class(tables, peer.addr));
}

/// How often something may happen, in one word: when the allowance will be whole again (the generic cell rate algorithm of
/// ITU-T I.371). All zero: it is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Bucket(u64);

impl Bucket {
    /// Takes one; `false`: there is none left. There are `burst` at most, and one more each `interval_ns`.
    #[inline(always)]
    pub const fn take(&mut self, now_ns: u64, burst: u32, interval_ns: u64) -> bool {
        let whole = if self.0 > now_ns { self.0 } else { now_ns };
        if whole - now_ns > (burst as u64 - 1) * interval_ns {
            return false;
        }
        self.0 = whole + interval_ns;
        true
    }
}

/// What one CPU may still tell. Each pod and reason has an allowance of its own within that of all, so that one which is flooded
/// leaves room for the others; of many, some share theirs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct EventAllowance {
    all: Bucket,
    each: [Bucket; Self::KINDS],
}

impl Default for EventAllowance {
    fn default() -> Self {
        Self { all: Bucket::default(), each: [Bucket::default(); Self::KINDS] }
    }
}

impl EventAllowance {
    const KINDS: usize = 64;

    /// Of all kinds together: so many at once,
    pub const BURST: u32 = 200;
    /// and one more after so many nanoseconds: a hundred a second.
    pub const INTERVAL_NS: u64 = 10_000_000;
    /// Of one kind: so many at once,
    pub const BURST_OF_KIND: u32 = 20;
    /// and one more after so many nanoseconds: ten a second.
    pub const INTERVAL_OF_KIND_NS: u64 = 100_000_000;

    /// Whether an event may be told now; then it counts as told. `whose`: the number of a pod's device, or of its namespace;
    /// `reason`: a place in [`DropReason::ALL`].
    #[inline(always)]
    pub fn take(&mut self, now_ns: u64, whose: u32, reason: u32) -> bool {
        // By an odd number, so that neighbouring devices and reasons do not meet.
        let kind = whose.wrapping_add(reason.wrapping_mul(37)) as usize % Self::KINDS;
        self.each[kind].take(now_ns, Self::BURST_OF_KIND, Self::INTERVAL_OF_KIND_NS)
            && self.all.take(now_ns, Self::BURST, Self::INTERVAL_NS)
    }
}
