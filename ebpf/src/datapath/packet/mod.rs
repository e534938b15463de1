//! Translation per packet: what the socket hooks did not see.
//!
//! Two questions are asked of each packet. [`arrive`], at the first hook that it meets on this node (from a pod, or from a
//! node-facing device), and [`leave`], at the last one; the latter only finishes what the former left to the end, or what
//! the node itself sends in reply. Called by the tc and XDP programs, by tests and fuzzers, and by commands that explain.

mod verdict;

pub use verdict::{Answer, Onward, Translation, Verdict};

use crate::abi::Origin;
use crate::datapath::{Moment, Network, PacketTables};
use crate::wire::{Bytes, Packet};

/// A packet at the first hook that it meets on this node.
#[inline(always)]
pub fn arrive(
    _tables: &impl PacketTables,
    _moment: &impl Moment,
    _network: &impl Network,
    _origin: Origin,
    _packet: &Packet,
    _bytes: &(impl Bytes + ?Sized),
) -> Verdict {
    Verdict::Pass
}

/// A packet at the last hook that it meets on this node, if the first one did not already finish it.
#[inline(always)]
pub fn leave(
    _tables: &impl PacketTables,
    _moment: &impl Moment,
    _packet: &Packet,
    _bytes: &(impl Bytes + ?Sized),
) -> Verdict {
    Verdict::Pass
}
