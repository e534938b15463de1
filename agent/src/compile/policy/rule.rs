//! What a pod's policies say, reduced to what can be compared: atoms and rules of atoms.

use std::sync::Arc;

use super::names::Fingerprint;
use super::ports::{ByPort, PortRange};
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

    /// Whether it is known of every pod that is known whether it matches, also while its namespace is not.
    pub(super) fn is_sure(&self) -> bool {
        match self {
            Self::Pods { namespaces: Scope::Selected(selector), .. } => selector.selects_all(),
            Self::Pods { namespaces: Scope::One(_), .. } | Self::Block(_) | Self::Name(..) => true,
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
    /// Whether it matches depends on the labels of a namespace that is not known.
    pub(super) perhaps: bool,
    /// Of a name: the pod has another number before this one under it, which is the one that is meant where something is allowed.
    pub(super) again: bool,
}

impl Mark {
    /// Of what is no name.
    pub(super) const fn new(atom: AtomId) -> Self {
        Self { atom, port: 0, perhaps: false, again: false }
    }
}

/// Whether a rule is about a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Admits {
    No,
    Perhaps,
    Yes,
}

/// Who, and what. Whether it is allowed is said by where it stands.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct Rule {
    /// Whom one of these matches, in order; `None`: whoever it is.
    pub(super) peers: Option<Box<[AtomId]>>,
    /// In order; `None`: everything.
    pub(super) ports: Option<Box<[PortMatch]>>,
}

/// Ports that a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum PortMatch {
    Range(PortRange),
    /// What the peer calls so.
    Name(AtomId, Protocol),
}

impl Rule {
    /// Whether it is about nobody or nothing.
    pub(super) fn is_void(&self) -> bool {
        let is_empty_peers = self.peers.as_ref().is_some_and(|peers| peers.is_empty());
        is_empty_peers || self.ports.as_ref().is_some_and(|ports| ports.is_empty())
    }

    /// Whether it is about everybody and everything.
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

    /// What it says, with the names of atoms in place of their numbers.
    pub(super) fn name(&self, atom: &impl Fn(AtomId) -> Option<Fingerprint>) -> Fingerprint {
        let peers = self.peers.as_ref().map(|peers| peers.iter().filter_map(|one| atom(*one)));
        let ports = self.ports.as_ref().map(|ports| {
            ports.iter().map(|port| match port {
                PortMatch::Range(_) => (*port, None),
                PortMatch::Name(name, _) => (*port, atom(*name)),
            })
        });
        Fingerprint::of_rule(peers, ports)
    }

    /// Whether it is about whoever has these marks.
    pub(super) fn admits(&self, marks: &[Mark]) -> Admits {
        let Some(peers) = &self.peers else { return Admits::Yes };
        let found = marks.iter().filter(|mark| peers.binary_search(&mark.atom).is_ok());
        let admits = found.map(|mark| if mark.perhaps { Admits::Perhaps } else { Admits::Yes });
        admits.max().unwrap_or(Admits::No)
    }

    /// The ports that it is about. `all`: also those that are not the first of their name, as for what denies.
    pub(super) fn ports(&self, marks: &[Mark], all: bool) -> ByPort<bool> {
        match &self.ports {
            None => ByPort::all(true),
            Some(ports) => ByPort::within(ports.iter().flat_map(|port| resolve(*port, marks, all)).collect()),
        }
    }
}

/// What any of these rules is about that are surely about whoever has these marks.
pub(super) fn union_ports<'a>(rules: impl Iterator<Item = &'a Rule>, marks: &[Mark]) -> ByPort<bool> {
    let mut ranges = Vec::new();
    for rule in rules.filter(|rule| rule.admits(marks) == Admits::Yes) {
        let Some(ports) = &rule.ports else { return ByPort::all(true) };
        ranges.extend(ports.iter().flat_map(|port| resolve(*port, marks, false)));
    }
    ByPort::within(ranges)
}

/// None where the peer has no port of that name.
fn resolve(port: PortMatch, marks: &[Mark], all: bool) -> Vec<PortRange> {
    match port {
        PortMatch::Range(range) => vec![range],
        PortMatch::Name(atom, protocol) => {
            let meant = marks.iter().filter(|mark| mark.atom == atom && (all || !mark.again));
            meant.map(|mark| PortRange { protocol, first: mark.port, last: mark.port }).collect()
        }
    }
}
