//! What the kernel tells of a packet that was dropped or refused: of each one, unless there were too many, and of no other.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use weir_agent::kernel::PacketIn;
use weir_ebpf::abi::{Counter, DropEvent, DropReason, HookPoint, Peer, Side};
use weir_ebpf::testing::Outcome;
use weir_ebpf::wire::{Fragment, Packet};

use super::case::Hook;
use super::judge::{Passed, parse};
use super::node::{FIRST_POD, Node};

/// A packet, and what pure Rust made of it.
pub(super) struct Told<'a> {
    pub(super) node: &'a Node,
    pub(super) passed: &'a Passed<'a>,
    pub(super) packet: &'a PacketIn<'a>,
    /// What it counted.
    pub(super) expected: &'a HashMap<Counter, u64>,
}

impl Told<'_> {
    /// `told`: how many drops were told and how many were not, since there were too many.
    pub(super) fn compare(&self, told: [u64; 2], events: &[DropEvent]) -> Result<()> {
        let drops = DropReason::ALL.iter().map(|&reason| (Counter::from(reason), reason, false));
        let audited = [
            (Counter::WouldDropIngress, DropReason::PolicyIngress, true),
            (Counter::WouldDropEgress, DropReason::PolicyEgress, true),
        ];
        let reasons: Vec<(DropReason, bool)> = drops
            .chain(audited)
            .filter(|(counter, ..)| self.expected.contains_key(counter))
            .map(|(_, reason, would)| (reason, would))
            .collect();
        ensure!(told.iter().sum::<u64>() == reasons.len() as u64, "{told:?} of {reasons:?}");
        ensure!(events.len() as u64 == told[0], "{events:?}");
        // Of a packet that passes two pods there may be two, and of one alone may be told.
        for event in events {
            let said = (event.reason(), event.has(DropEvent::WOULD));
            let expected = reasons.iter().find(|(reason, would)| said == (Some(*reason), *would));
            let (reason, would) = expected.with_context(|| format!("{event:?} of {reasons:?}"))?;
            self.compare_event(event, *reason, *would).with_context(|| format!("{event:?}"))?;
        }
        Ok(())
    }

    fn compare_event(&self, event: &DropEvent, reason: DropReason, would: bool) -> Result<()> {
        let hook = match self.passed.sent.hook {
            Hook::FromPod => HookPoint::FromPod,
            Hook::ToPod => HookPoint::ToPod,
            Hook::FromNet | Hook::FromL3 => HookPoint::FromNet,
            Hook::ToNet | Hook::ToL3 => HookPoint::ToNet,
        };
        ensure!((event.hook(), event.reason()) == (Some(hook), Some(reason)));
        ensure!(event.when_ns > 0);
        let refused = !would && !matches!(self.passed.outcome, Outcome::Dropped(Some(_)));
        ensure!(event.has(DropEvent::REFUSED) == refused);
        ensure!(event.came_by == self.packet.came_by);
        self.compare_pod(event, reason)?;
        let Ok(packet) = parse(self.passed.sent.hook, self.passed.before) else {
            ensure!(event.flags & !DropEvent::REFUSED == 0, "nobody can read it");
            ensure!(event.src() == Peer::default() && event.dst() == Peer::default());
            return Ok(());
        };
        compare_packet(event, &packet)?;
        // What was translated when policies were asked is the case of Services' addresses alone.
        let by_policy = matches!(reason, DropReason::PolicyIngress | DropReason::PolicyEgress);
        let is_service = self.node.tables.frontends.keys().any(|key| key.peer().addr == packet.dst.addr);
        ensure!(event.new_dst().is_none() || (by_policy && is_service));
        if let Some(backend) = event.new_dst() {
            ensure!(self.node.tables.backends.values().any(|row| row.peer() == backend), "no backend");
        }
        Ok(())
    }

    /// The pod that it is about, and the way as that sees it.
    fn compare_pod(&self, event: &DropEvent, reason: DropReason) -> Result<()> {
        let hooks_own = (
            self.packet.ifindex,
            match self.passed.sent.hook {
                Hook::FromPod => Some(Side::Egress),
                Hook::ToPod => Some(Side::Ingress),
                _ => None,
            },
        );
        // Of the policies of the pod that it is sent to past the stack.
        let is_sent = event.new_dst().is_some() && reason == DropReason::PolicyIngress;
        let expected = if is_sent { (FIRST_POD, Some(Side::Ingress)) } else { hooks_own };
        ensure!((event.device, event.side()) == expected, "of {expected:?}");
        let by_policy = matches!(reason, DropReason::PolicyIngress | DropReason::PolicyEgress);
        ensure!(event.has(DropEvent::JUDGED) == by_policy);
        if by_policy {
            let pod = self.node.tables.pods.get(&event.device).context("an unknown pod")?;
            let side = if reason == DropReason::PolicyIngress { Side::Ingress } else { Side::Egress };
            ensure!(event.set == pod.policy.set(side));
        }
        Ok(())
    }
}

fn compare_packet(event: &DropEvent, packet: &Packet) -> Result<()> {
    ensure!(event.has(DropEvent::READ));
    ensure!((event.src(), event.dst()) == (packet.src, packet.dst));
    ensure!(event.protocol == packet.protocol);
    let is_piece = matches!(packet.fragment, Fragment::Later(_));
    ensure!(event.has(DropEvent::PIECE) == is_piece);
    match packet.protocol {
        6 => ensure!(event.detail == packet.tcp_flags),
        1 => ensure!([3, 5, 8].contains(&event.detail), "an error, a redirect or an echo request"),
        58 => ensure!([1, 2, 128, 137].contains(&event.detail), "an error, an echo request or a redirect"),
        _ => ensure!(event.detail == 0),
    }
    Ok(())
}
