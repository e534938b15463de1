//! What a pod may try with a raw socket, as rows: a name, frames, where they would be seen, and the reason for which they must
//! be dropped. No row says what becomes of it: nothing of any row may arrive.

use std::net::IpAddr;

use super::frames::mark;

/// Why a frame is dropped: the counters that may rise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// Policies deny it.
    Policy,
    /// It does not bear its pod's address, or speaks of an address that is not its pod's.
    Spoofed,
    /// Only routers send such.
    Router,
    /// An IPv4 address in an IPv6 header.
    Mapped,
    /// Nobody can say what it is.
    Unreadable,
    /// A piece whose first nobody has seen.
    Piece,
}

/// Whom a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum To {
    /// The victim, on the same bridge.
    Victim,
    /// The friend, on the same bridge.
    Friend,
    /// The victim, by the node's own Ethernet address, so that the node forwards it.
    VictimByNode,
    /// A pod of the other node.
    Remote,
}

/// One thing to try.
#[derive(Clone, Debug)]
pub(super) struct Attack {
    pub(super) name: String,
    pub(super) why: Why,
    pub(super) to: To,
    /// What is sent first, and may arrive.
    pub(super) before: Vec<Vec<u8>>,
    pub(super) frames: Vec<Vec<u8>>,
    /// By which its frames are known.
    pub(super) mark: [u8; 4],
}

/// Who is where, in one family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cast {
    pub(super) attacker: IpAddr,
    pub(super) victim: IpAddr,
    pub(super) friend: IpAddr,
    pub(super) remote: IpAddr,
    pub(super) gateway: IpAddr,
    pub(super) mac: [u8; 6],
}

/// The port that the victim serves its friends at.
pub(super) const PORT: u16 = 8080;
/// The only port that the attacker may send to, where it is isolated: at its friend, UDP.
pub(super) const ALLOWED: u16 = 8081;
/// Where what the attacker sends comes from.
pub(super) const FROM: u16 = 40_000;

/// Rows under way.
pub(super) struct Table {
    pub(super) cast: Cast,
    next: u16,
    pub(super) rows: Vec<Attack>,
}

impl Table {
    /// Rows whose marks begin here.
    pub(super) fn new(cast: Cast, first: u16) -> Self {
        Self { cast, next: first, rows: Vec::new() }
    }

    pub(super) fn rows(self) -> Vec<Attack> {
        self.rows
    }

    pub(super) fn is_v4(&self) -> bool {
        self.cast.attacker.is_ipv4()
    }

    /// Frames for one attack, with its mark.
    pub(super) fn add(&mut self, name: &str, why: Why, to: To, frames: impl FnOnce([u8; 4]) -> Vec<Vec<u8>>) {
        let mark = mark(self.next);
        self.next += 1;
        let family = if self.is_v4() { "IPv4" } else { "IPv6" };
        let frames = frames(mark);
        self.rows.push(Attack {
            name: format!("{family}: {name}"),
            why,
            to,
            before: Vec::new(),
            frames,
            mark,
        });
    }

    /// One frame for the victim.
    pub(super) fn one(&mut self, name: &str, why: Why, frame: impl FnOnce([u8; 4]) -> Vec<u8>) {
        self.add(name, why, To::Victim, |mark| vec![frame(mark)]);
    }

    pub(super) fn ends(&self) -> (IpAddr, IpAddr) {
        (self.cast.attacker, self.cast.victim)
    }
}
