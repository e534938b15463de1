//! The table. Each file is a chapter.

mod affinity;
mod basics;
mod conditions;
mod datagrams;
mod policy;
mod refusal;

use super::spec::Case;
use crate::prober::How;

/// Every way to use a socket.
const ALL: &[How] = &How::ALL;
/// Unconnected UDP sockets only.
const UNCONNECTED: &[How] = &[How::UdpUnconnected];
/// Ways in which a UDP socket names its destination.
const UDP: &[How] = &[How::UdpConnected, How::UdpUnconnected];

/// All cases.
#[must_use]
pub fn table() -> Vec<Case> {
    [
        basics::cases(),
        refusal::cases(),
        conditions::cases(),
        policy::cases(),
        affinity::cases(),
        datagrams::cases(),
    ]
    .concat()
}
