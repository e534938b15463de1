//! What holds after every packet.

use std::collections::HashMap;
use std::net::IpAddr;

use weir_ebpf::abi::{DropReason, Flow, Form, FrontendKey, Path, Tuple};
use weir_ebpf::act::answer::is_error;
use weir_ebpf::datapath::Moment as _;
use weir_ebpf::datapath::lifetime::lifetime_s;
use weir_ebpf::datapath::packet::{Answer, Translation, Verdict};
use weir_ebpf::testing::{Outcome, apply_too_long};
use weir_ebpf::wire::{Fragment, Kind, Packet, TCP_ACK, TCP_RST, TCP_SYN, parse, parse_quoted};

use super::Hook;
use crate::check::{checksums, ends};
use crate::frame::{ETHERNET, Frame};
use crate::world::World;

/// Questions to the tables and the kernel for one packet. Most of them where a backend is chosen consistently in a run of
/// 2^20 (16 probes of 21) and every source port is taken (32 attempts of 4).
const MOST_QUESTIONS: u32 = 16 * 21 + 32 * 4 + 48;

/// What a packet may change.
pub(super) struct State {
    pub(super) flows: HashMap<Tuple, Flow>,
    fragments: usize,
    affinity: usize,
}

/// A packet about which the datapath was asked.
pub(super) struct Asked<'a> {
    pub(super) world: &'a World,
    pub(super) hook: Hook,
    pub(super) frame: &'a Frame,
    pub(super) packet: &'a Packet,
    pub(super) verdict: &'a Verdict,
}

/// Whether two rows are of one flow.
pub(super) fn is_same_flow(a: &Flow, b: &Flow) -> bool {
    let ends = |flow: &Flow| (flow.client(), flow.dialled(), flow.source(), flow.backend());
    ends(a) == ends(b) && a.path() == b.path()
}

impl State {
    pub(super) fn of(world: &World) -> Self {
        let tables = &world.tables;
        Self {
            flows: tables.flows.borrow().clone(),
            fragments: tables.fragments.borrow().len(),
            affinity: tables.affinity.borrow().len(),
        }
    }

    /// Each row stands under the tuple of its form, and all rows of a flow that are there are of that flow: no two flows
    /// are the same to a backend, or to the stack.
    pub(super) fn rows_agree(&self) {
        for (key, flow) in &self.flows {
            let protocol = key.protocol().expect("a protocol");
            let (client, server) = flow.ends(flow.form());
            let (tuple, client_is_low) = Tuple::new(client, server, protocol);
            assert_eq!((tuple, flow.is_forward(client_is_low)), (*key, true), "{flow:?}");
            // Between a reset and a day: nothing is kept for ever, or forgotten at once.
            assert!((10..=86_400).contains(&lifetime_s(protocol, flow.signs, flow.signs, 0)));
            if flow.form() != Form::Dialled {
                continue;
            }
            let mut forms = vec![Form::Received];
            forms.extend((flow.path() == Path::Stack && flow.hides_client()).then_some(Form::Forwarded));
            for form in forms {
                let (client, server) = flow.ends(form);
                let row = self.flows.get(&Tuple::new(client, server, protocol).0);
                assert!(row.is_some_and(|row| is_same_flow(row, flow)), "{form:?} of {flow:?}: {row:?}");
            }
        }
    }
}

impl Asked<'_> {
    pub(super) fn is_bounded(&self, asked: u32, raced: bool) {
        let most = MOST_QUESTIONS + if raced { 16 } else { 0 };
        assert!(asked <= most, "{asked} questions for {:?}", self.packet);
    }

    pub(super) fn keeps_the_family(&self) {
        let Verdict::Translate(Translation { src, dst, quoted, .. }) = self.verdict else { return };
        let v4 = self.packet.src.addr.is_v4();
        assert!(src.addr.is_v4() == v4 && dst.addr.is_v4() == v4, "{:?}", self.verdict);
        if let Some(quoted) = quoted {
            assert!(quoted.src.addr.is_v4() == v4 && quoted.dst.addr.is_v4() == v4, "{:?}", self.verdict);
        }
    }

    /// Only what is translated, or has no hop left, begins a flow; and of pieces only what is translated is remembered.
    pub(super) fn enters_nothing_if_refused(&self, before: &State, after: &State, raced: bool) {
        let translated =
            matches!(self.verdict, Verdict::Translate(_) | Verdict::Answer(Answer::TimeExceeded));
        if translated || raced {
            return;
        }
        let new = after.flows.keys().find(|key| !before.flows.contains_key(key));
        assert_eq!(new, None, "{:?} for {:?}", self.verdict, self.packet);
        assert_eq!(after.fragments, before.fragments, "{:?} for {:?}", self.verdict, self.packet);
    }

    pub(super) fn leaves_alone_what_is_a_strangers(&self, before: &State, after: &State) {
        let Packet { src, dst, kind, fragment, .. } = *self.packet;
        let whole = FrontendKey::whole_address(dst.addr);
        let (Kind::Transport(protocol), false) = (kind, matches!(fragment, Fragment::Later(_))) else {
            return;
        };
        let is_known = self.world.tables.frontends.contains_key(&whole)
            || before.flows.contains_key(&Tuple::new(src, dst, protocol).0);
        if is_known {
            return;
        }
        let refused = Verdict::Drop(DropReason::UnknownAddress);
        assert!(*self.verdict == Verdict::Pass || *self.verdict == refused, "{:?}", self.verdict);
        assert_eq!(after.flows, before.flows);
        assert_eq!((after.fragments, after.affinity), (before.fragments, before.affinity));
    }

    /// Of a row that stays only what was seen changes, and nothing of it is taken back but a reset to which its own sender does not
    /// keep (RFC 5961). Who opens a connection may take the place of one that is over.
    pub(super) fn changes_no_flow(&self, before: &State, after: &State, raced: bool) {
        if self.packet.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN || raced {
            return;
        }
        let goes_on = self.packet.tcp_flags & TCP_RST == 0;
        for (key, old) in &before.flows {
            let new = after.flows.get(key).expect("no packet but the first of a connection ends another");
            let is_touched = new.seen_s == self.world.moment.seconds();
            assert!(new.signs.contains(old.signs.unless_continued(goes_on && is_touched)), "{old:?} {new:?}");
            let mut unseen = *new;
            (unseen.seen_s, unseen.signs) = (old.seen_s, old.signs);
            assert_eq!(unseen, *old);
        }
    }

    /// The bytes say what the verdict says.
    pub(super) fn is_carried_out(&self, outcome: Outcome, became: &Frame) {
        match (self.verdict, outcome) {
            (Verdict::Pass, Outcome::Untouched) => {
                assert_eq!(became.bytes, self.frame.bytes);
            }
            (Verdict::Drop(reason), Outcome::Dropped(Some(dropped))) => assert_eq!(*reason, dropped),
            // The frame is shorter than its headers say, or nobody may be answered.
            (Verdict::Translate(_) | Verdict::Answer(_), Outcome::Dropped(None)) => {}
            (Verdict::Translate(translation), Outcome::Stack | Outcome::Routed | Outcome::Delivered(_)) => {
                self.is_translated(translation, became);
            }
            (Verdict::Answer(answer), Outcome::Answered) => self.is_answered(*answer, became),
            (verdict, outcome) => panic!("{verdict:?} became {outcome:?}"),
        }
    }

    /// The way on may turn out to be too narrow.
    pub(super) fn is_told_what_is_too_long(&self) {
        let mut became = self.frame.clone();
        match apply_too_long(&mut became.bytes, self.packet, 1280) {
            Outcome::Answered => self.is_answered(Answer::TimeExceeded, &became),
            Outcome::Untouched => assert_eq!(became.bytes, self.frame.bytes),
            outcome => assert_eq!(outcome, Outcome::Dropped(None)),
        }
    }

    fn is_translated(&self, to: &Translation, became: &Frame) {
        assert_eq!(became.bytes.len(), self.frame.bytes.len());
        let bytes = became.bytes.as_slice();
        let packet = parse(bytes, self.packet.l3, became.ether_type).expect("still a packet");
        let Packet { kind, fragment, l4, length, .. } = *self.packet;
        assert_eq!((packet.kind, packet.fragment, packet.l4, packet.length), (kind, fragment, l4, length));
        assert_eq!((packet.src.addr, packet.dst.addr), (to.src.addr, to.dst.addr));
        if matches!(kind, Kind::Transport(_)) && !matches!(fragment, Fragment::Later(_)) {
            assert_eq!((packet.src.port, packet.dst.port), (to.src.port, to.dst.port));
        }
        if let Some(quoted) = to.quoted {
            assert_eq!(parse_quoted(bytes, &packet), Some(quoted));
        }
        let (were, are) = (checksums(self.frame), checksums(became));
        assert!(were.survived(are), "{were:?}, then {are:?}: {:?} {to:?}", self.packet);
    }

    fn is_answered(&self, answer: Answer, became: &Frame) {
        let Packet { src, dst, kind, tcp_flags, .. } = *self.packet;
        assert_ne!(kind, Kind::IcmpError, "nobody answers an error");
        let asker = IpAddr::from(src.addr);
        let is_a_hosts = !(asker.is_unspecified() || asker.is_loopback() || asker.is_multicast());
        assert!(is_a_hosts, "nobody answers {asker}");
        assert!(answer == Answer::TimeExceeded || tcp_flags & TCP_RST == 0, "nobody answers a reset");
        assert!(became.bytes.len() <= self.frame.bytes.len().max(ETHERNET + 1280), "{}", became.bytes.len());
        // A reply has the length that the request said, if it had it or not.
        if answer == Answer::EchoReply && ends(self.frame).is_none() {
            return;
        }
        let (from, to, number) = ends(became).expect("an answer is a packet");
        assert_eq!(is_error(self.packet, &answer), answer != Answer::EchoReply && number != 6, "{number}");
        assert_eq!((from, to), (dst.addr.into(), src.addr.into()));
        let (were, are) = (checksums(self.frame), checksums(became));
        let right = if answer == Answer::EchoReply { were.survived(are) } else { are.are_right() };
        assert!(right, "{were:?}, then {are:?}: {:?}", self.packet);
    }
}
