//! What a number means, said so that the next agent recognizes it: a digest of the meaning, without any number in it.
//!
//! An agent that starts compiles everything from nothing. With the names of the tables that are there it gives the same
//! numbers to the same meanings, and finds nothing to write where nothing changed.

use ring::digest::{SHA256, digest};
use weir_ebpf::abi::{ClassId, PolicySetId, PortRulesId};

use super::rule::PortMatch;

/// What has a number in the tables.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Named {
    /// A policy set.
    Set(PolicySetId),
    /// A class.
    Class(ClassId),
    /// A set of ports.
    Ports(PortRulesId),
}

/// The first half of the SHA-256 of a meaning: nobody who writes policies can find two with the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// Of a text that says everything; what quotes its strings, as `Debug` does, says it in one way.
    pub(super) fn of(text: &str) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&digest(&SHA256, text.as_bytes()).as_ref()[..16]);
        Self(half)
    }

    /// Of a rule: its atoms by their fingerprints, which have an order that no number changes.
    pub(super) fn of_rule(
        peers: Option<impl Iterator<Item = Self>>,
        ports: Option<impl Iterator<Item = (PortMatch, Option<Self>)>>,
    ) -> Self {
        let peers = peers.map(|peers| in_order(peers.collect()));
        let ports = ports.map(|ports| {
            let said = ports.map(|(port, name)| match port {
                PortMatch::Range(range) => Self::of(&format!("{range:?}")),
                PortMatch::Name(_, protocol) => Self::of(&format!("{name:?} {protocol:?}")),
            });
            in_order(said.collect())
        });
        Self::of(&format!("rule {peers:?} {ports:?}"))
    }

    /// Of several things, whatever their order.
    pub(super) fn of_all(what: &str, things: impl Iterator<Item = Self>) -> Self {
        Self::of(&format!("{what} {:?}", in_order(things.collect())))
    }
}

fn in_order(mut fingerprints: Vec<Fingerprint>) -> Vec<Fingerprint> {
    fingerprints.sort_unstable();
    fingerprints
}
