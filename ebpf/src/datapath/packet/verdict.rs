//! What becomes of a packet.

use super::Stage;
use crate::abi::{DropReason, Hop, Peer, Workload};
use crate::wire::{Packet, Quoted};

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Verdict {
    /// As it is: none of ours, or (at the first hook) one for the last hook to translate. The first cannot tell these apart:
    /// netfilter may be about to change a packet into one of ours, as it does with replies to who was masqueraded.
    Pass,
    /// With other addresses.
    Translate(Translation),
    /// Not delivered; its sender gets this instead.
    Answer(Answer),
    /// Not delivered, and nobody is told.
    Drop(DropReason),
    /// Not delivered: its TCP connection is over, and both ends are told by resets.
    Cut(DropReason, Cut),
}

/// What the ends of a TCP connection are told by that policies no longer allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Where it was found out.
    pub stage: Stage,
    /// Whom the packet at hand comes from, as who gets it is to see that.
    pub src: Peer,
    /// Whom it is for; likewise.
    pub dst: Peer,
}

/// Other addresses for a packet, and its way from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// Its new source. The port means nothing where the packet has none.
    pub src: Peer,
    /// Its new destination; the port as above.
    pub dst: Peer,
    /// Of an ICMP error: the packet that it quotes, with the addresses that it is to have (offsets as they are).
    pub quoted: Option<Quoted>,
    /// Where it goes.
    pub onward: Onward,
    /// Of [`Onward::Route`]: the hop there, if it was found a moment ago.
    pub hop: Hop,
    /// Whether the flow begins with it.
    pub begins: bool,
}

/// Where a translated packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Onward {
    /// On through the stack. The last hook looks at it again.
    Stack,
    /// Out by the route to its destination, past the stack: time to live, next hop and Ethernet addresses are the
    /// program's job. Where that turns out to be impossible for this one packet it may go through the stack.
    Route,
    /// Into a pod of this node, past the stack.
    Workload(Workload),
}

/// What the sender of a packet gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A refusal: a TCP reset; to anything else ICMP port unreachable (type 3 code 3; ICMPv6: type 1 code 4).
    Refusal(DropReason),
    /// An echo reply with the same content.
    EchoReply,
    /// ICMP time exceeded in transit (type 11 code 0; ICMPv6: type 3 code 0), from the address that was dialled.
    TimeExceeded,
}

impl Translation {
    /// Of a packet that quotes no other.
    #[inline(always)]
    #[must_use]
    pub const fn new(src: Peer, dst: Peer, onward: Onward) -> Self {
        Self { src, dst, quoted: None, onward, hop: Hop::UNKNOWN, begins: false }
    }

    /// Whether the packet has no hop left: past the stack this node is one all the same (RFC 1812 section 5.3.1, RFC 8200
    /// section 3). Then [`Answer::TimeExceeded`] takes the place of the translation.
    #[inline(always)]
    #[must_use]
    pub fn is_beyond(&self, packet: &Packet) -> bool {
        packet.ttl <= 1 && self.onward != Onward::Stack
    }
}
