//! Which drops are logged: each kind when it begins and then now and then, and few lines in all. Somebody who is woken at night
//! looks into the log first; what a flood says there a thousand times hides the rest.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use weir_ebpf::abi::{Addr, DropEvent};

/// A kind that goes on is logged again after this long.
const AGAIN: Duration = Duration::from_secs(600);
/// Lines in a minute, of all kinds.
const LINES: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// When so many kinds are remembered, those are forgotten that would be logged again. In the time after which they would be
/// fewer than these can be logged at all.
const KINDS: usize = 1024;

/// What makes two drops of one kind: everything but the client's port.
type Kind = ([u8; 2], u32, Addr, Addr, u16, u8);

fn kind(event: &DropEvent) -> Kind {
    let reason = event.reason().map_or(u8::MAX, |reason| reason as u8);
    let told = [reason, event.flags & DropEvent::WOULD];
    (told, event.device, event.src_addr, event.dst_addr, event.dst().port.network(), event.protocol)
}

/// What is to be logged of a drop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Say {
    /// It, in a line.
    It,
    /// That there are more than are logged.
    ThatThereAreMore,
    /// Nothing.
    Nothing,
}

/// What was logged lately.
#[derive(Debug, Default)]
pub struct Talker {
    kinds: HashMap<Kind, Instant>,
    /// When the present minute began.
    minute: Option<Instant>,
    lines: u32,
}

impl Talker {
    /// What is to be logged of a drop that is read now.
    pub fn hear(&mut self, event: &DropEvent, now: Instant) -> Say {
        let kind = kind(event);
        let is_fresh = |said: &Instant| now.duration_since(*said) < AGAIN;
        if self.kinds.get(&kind).is_some_and(is_fresh) {
            return Say::Nothing;
        }
        if self.minute.is_none_or(|begun| now.duration_since(begun) >= MINUTE) {
            (self.minute, self.lines) = (Some(now), 0);
        }
        if self.lines > LINES {
            return Say::Nothing;
        }
        if self.kinds.len() >= KINDS {
            self.kinds.retain(|_, said| is_fresh(said));
        }
        self.lines += 1;
        if self.lines > LINES {
            return Say::ThatThereAreMore;
        }
        self.kinds.insert(kind, now);
        Say::It
    }
}

#[cfg(test)]
mod tests {
    use weir_ebpf::abi::{DropReason, HookPoint, Peer, Port};

    use super::*;

    fn event(device: u32, src_port: u16, dst_port: u16) -> DropEvent {
        let peer = |port| Peer { addr: Addr::from_v4(7), port: Port::new(port) };
        let mut event = DropEvent::new(0, HookPoint::ToPod, DropReason::PolicyIngress);
        event.device = device;
        event.set_ends(peer(src_port), peer(dst_port));
        event
    }

    #[test]
    fn a_kind_is_said_when_it_begins_and_then_now_and_then() {
        let (mut talker, begun) = (Talker::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(talker.hear(&event(1, 1000, 80), after(0)), Say::It);
        assert_eq!(talker.hear(&event(1, 1001, 80), after(1)), Say::Nothing, "another port of the client");
        assert_eq!(talker.hear(&event(1, 1001, 81), after(1)), Say::It, "another port of the pod");
        assert_eq!(talker.hear(&event(1, 1001, 80), after(599)), Say::Nothing);
        assert_eq!(talker.hear(&event(1, 1001, 80), after(600)), Say::It);
        let mut would = event(1, 1000, 80);
        would.flags |= DropEvent::WOULD;
        assert_eq!(talker.hear(&would, after(601)), Say::It);
    }

    #[test]
    fn few_lines_a_minute_whatever_comes() {
        let (mut talker, begun) = (Talker::default(), Instant::now());
        let mut said = Vec::new();
        for second in 0..180_u16 {
            for port in 0..100 {
                let now = begun + Duration::from_secs(second.into());
                said.push(talker.hear(&event(second.into(), 1, port), now));
            }
        }
        let count = |say| said.iter().filter(|one| **one == say).count();
        assert_eq!((count(Say::It), count(Say::ThatThereAreMore)), (30, 3));
    }

    #[test]
    fn it_remembers_so_many_and_no_more() {
        let (mut talker, begun) = (Talker::default(), Instant::now());
        for at in 0..2000_u32 {
            let now = begun + MINUTE * (at / LINES);
            talker.hear(&event(at, 1, 80), now);
        }
        assert!(talker.kinds.len() <= KINDS);
    }
}
