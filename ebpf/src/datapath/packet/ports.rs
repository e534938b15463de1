//! Which source ports a flow may get (`--snat-ports`).

use super::begin::hash_addr;
use crate::abi::{Config, End, Flow, Peer, Port, mix};

/// Ports below are privileged: a server may ask for one (NFS), so a client keeps its own.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// The source ports that a flow may get, in the order in which they are tried.
pub(super) struct Ports {
    hash: u32,
    first: u16,
    count: u16,
    /// The client's own, if it may keep it.
    own: Option<Port>,
}

impl Ports {
    #[inline(always)]
    pub(super) fn of(config: &Config, flow: &Flow) -> Self {
        let own = flow.client().port;
        let hash =
            mix(hash_addr(u32::from(own.host()), flow.client().addr), u32::from(flow.dialled().port.host()));
        let keeps = own.host() < FIRST_UNPRIVILEGED && !flow.hides_client();
        let (first, count) = source_ports(config, flow);
        Self { hash, first, count, own: if keeps { Some(own) } else { None } }
    }

    /// Whom the backend is to take for the client, at this attempt.
    #[inline(always)]
    pub(super) fn source(&self, flow: &Flow, attempt: u32) -> Peer {
        let port = match self.own {
            Some(own) if attempt == 0 => own,
            _ => Port::new(self.first.wrapping_add(nth(mix(self.hash, attempt), self.count))),
        };
        Peer { addr: flow.source().addr, port }
    }
}

/// The source ports that a flow may get: the first, and how many. Clients from outside whom the backend sees have the upper
/// half, since they may be nodes, each of which makes tuples with the same address for clients that it hides: without
/// this, two nodes would give the same tuple to two flows, and the backend's replies to one would be taken for the other's.
#[inline(always)]
fn source_ports(config: &Config, flow: &Flow) -> (u16, u16) {
    let half = config.ports / 2;
    if half == 0 {
        return (config.first_port, config.ports);
    }
    if flow.hides_client() || flow.is_local(End::Client) {
        (config.first_port, half)
    } else {
        (config.first_port.wrapping_add(half), config.ports - half)
    }
}

/// A number below `count` that follows from the hash: the high half of the product is uniform there.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "below `count`")]
const fn nth(hash: u32, count: u16) -> u16 {
    ((hash as u64 * count as u64) >> 32) as u16
}
