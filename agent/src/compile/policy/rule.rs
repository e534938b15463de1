//! What a pod's policies say, reduced to what can be compared: atoms and rules of atoms.

use std::sync::Arc;

use super::ports::{PortRange, Ports};
use crate::source::{IpBlock, Protocol, Selector};

/// What rules ask of a peer.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Atom {
    /// It is a pod with these labels.
    Pods {
        /// In which namespaces.
        namespaces: Scope,
        /// `podSelector`
        pods: Selector,
    },
    /// Its address is in this block.
    Block(IpBlock),
    /// It is a pod with a port of this name; which number that is there stands in the class.
    Name(Arc<str>, Protocol),
}

/// In which namespaces a pod is selected.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Scope {
    /// In this one: the policy's own.
    One(Arc<str>),
    /// In those with such labels.
    Selected(Selector),
}

impl AsRef<Self> for Atom {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Atom {
    /// The block, if it is one.
    pub(super) fn block(&self) -> Option<&IpBlock> {
        match self {
            Self::Block(block) => Some(block),
            Self::Pods { .. } | Self::Name(..) => None,
        }
    }
}

/// Number of an atom; never leaves this module.
pub(super) type AtomId = u32;

/// An atom that matches an address. A class is a list of them, in order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct Mark {
    pub(super) atom: AtomId,
    /// Of a name: the number that it has there. 0 of all else.
    pub(super) port: u16,
}

/// Who may use what. A set is a list of them, in order, each once.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct Rule {
    /// Whom one of these matches, in order; `None`: whoever it is.
    pub(super) peers: Option<Box<[AtomId]>>,
    /// In order; `None`: everything.
    pub(super) ports: Option<Box<[PortMatch]>>,
}

/// Ports that a rule allows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum PortMatch {
    Range(PortRange),
    /// What the peer calls so.
    Name(AtomId, Protocol),
}

impl Rule {
    /// Whether it allows nothing, whoever asks.
    pub(super) fn is_void(&self) -> bool {
        let is_empty_peers = self.peers.as_ref().is_some_and(|peers| peers.is_empty());
        is_empty_peers || self.ports.as_ref().is_some_and(|ports| ports.is_empty())
    }

    /// Whether it allows everything, whoever asks.
    pub(super) fn is_open(&self) -> bool {
        self.peers.is_none() && self.ports.is_none()
    }

    /// The atoms that decide about it.
    pub(super) fn atoms(&self) -> impl Iterator<Item = AtomId> {
        let names = self.ports.iter().flatten().filter_map(|port| match port {
            PortMatch::Name(atom, _) => Some(*atom),
            PortMatch::Range(_) => None,
        });
        self.peers.iter().flatten().copied().chain(names)
    }

    fn admits(&self, marks: &[Mark]) -> bool {
        let Some(peers) = &self.peers else { return true };
        marks.iter().any(|mark| peers.binary_search(&mark.atom).is_ok())
    }
}

/// What a class may use by a set: the union of the rules that admit it.
pub(super) fn compile_ports(rules: &[Rule], marks: &[Mark]) -> Ports {
    let mut ranges = Vec::new();
    for rule in rules.iter().filter(|rule| rule.admits(marks)) {
        let Some(ports) = &rule.ports else { return Ports::All };
        ranges.extend(ports.iter().filter_map(|port| resolve(*port, marks)));
    }
    Ports::merge(ranges)
}

/// `None` where the peer has no port of that name.
fn resolve(port: PortMatch, marks: &[Mark]) -> Option<PortRange> {
    match port {
        PortMatch::Range(range) => Some(range),
        PortMatch::Name(atom, protocol) => {
            let port = marks.iter().find(|mark| mark.atom == atom)?.port;
            Some(PortRange { protocol, first: port, last: port })
        }
    }
}
