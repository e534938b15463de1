//! The prefixes that ipBlocks write, and which blocks match what has one of them as its longest.
//!
//! All cidrs and all excepts, each once, and 0.0.0.0/0, so that no block of IPv6 matches an IPv4 address, which in the tables
//! is one of `::ffff:0:0/96`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use weir_ebpf::abi::{ClassId, NetworkKey};

use super::rule::{Atom, AtomId};
use crate::source::IpBlock;

/// See the module.
#[derive(Debug)]
pub(super) struct Networks {
    /// The blocks with each cidr.
    blocks: HashMap<IpNet, BTreeMap<AtomId, Arc<Atom>>>,
    nodes: BTreeMap<IpNet, Node>,
}

/// A prefix.
#[derive(Debug, Default)]
struct Node {
    /// How many cidrs and excepts are this one.
    mentions: u32,
    /// What its row says; `None` where there is no row yet.
    class: Option<ClassId>,
}

/// What to do with a prefix.
pub(super) enum Touched {
    /// Its class is to be looked at.
    Stays,
    /// No block mentions it any more.
    Goes,
}

impl Networks {
    /// With all of IPv4 alone.
    pub(super) fn new() -> Self {
        let node = Node { mentions: 1, class: None };
        Self { blocks: HashMap::new(), nodes: BTreeMap::from([(all_v4(), node)]) }
    }

    /// Takes in a block; its prefixes have no rows yet.
    pub(super) fn add(&mut self, id: AtomId, atom: &Arc<Atom>, block: &IpBlock) {
        self.blocks.entry(block.cidr).or_default().insert(id, atom.clone());
        for network in mentioned(block) {
            self.nodes.entry(network).or_default().mentions += 1;
        }
    }

    /// Takes out a block; its prefixes stay until their rows are gone.
    pub(super) fn remove(&mut self, id: AtomId, block: &IpBlock) {
        if let Some(blocks) = self.blocks.get_mut(&block.cidr) {
            blocks.remove(&id);
            if blocks.is_empty() {
                self.blocks.remove(&block.cidr);
            }
        }
        for network in mentioned(block) {
            if let Some(node) = self.nodes.get_mut(&network) {
                node.mentions -= 1;
            }
        }
    }

    /// The prefixes within a network, and whether they are still mentioned.
    pub(super) fn within(&self, network: IpNet) -> impl Iterator<Item = (IpNet, Touched)> {
        // By address, then by length: whatever begins in the network and is no longer than it is within it.
        let last = IpNet::from(network.broadcast());
        self.nodes.range(network..=last).map(|(network, node)| {
            (*network, if node.mentions == 0 { Touched::Goes } else { Touched::Stays })
        })
    }

    /// The prefixes that have no row.
    pub(super) fn unwritten(&self) -> impl Iterator<Item = IpNet> {
        self.nodes.iter().filter(|(_, node)| node.class.is_none()).map(|(network, _)| *network)
    }

    /// The blocks that match the addresses whose longest prefix this is, in order; of an address, those that match it.
    pub(super) fn matching(&self, network: IpNet) -> BTreeSet<AtomId> {
        let mut found = BTreeSet::new();
        if self.blocks.is_empty() {
            return found;
        }
        for len in 0..=network.prefix_len() {
            let Ok(cidr) = IpNet::new(network.addr(), len) else { continue };
            let blocks = self.blocks.get(&cidr.trunc()).into_iter().flatten();
            let matching = blocks.filter(|(_, atom)| {
                atom.block().is_some_and(|block| !block.except.iter().any(|except| except.contains(&network)))
            });
            found.extend(matching.map(|(id, _)| *id));
        }
        found
    }

    /// Notes what the row of a prefix says; returns what it said.
    pub(super) fn set_class(&mut self, network: IpNet, class: ClassId) -> Option<ClassId> {
        self.nodes.get_mut(&network).and_then(|node| node.class.replace(class))
    }

    /// Forgets a prefix; returns what its row said.
    pub(super) fn forget(&mut self, network: IpNet) -> Option<ClassId> {
        self.nodes.remove(&network).and_then(|node| node.class)
    }

    /// How many prefixes there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}

/// The key of a prefix' row.
pub(super) fn network_key(network: IpNet) -> NetworkKey {
    let mapped = if network.addr().is_ipv4() { 96 } else { 0 };
    NetworkKey::new(network.addr().into(), mapped + u32::from(network.prefix_len()))
}

/// An address as the prefix of all its bits.
pub(super) fn host(addr: IpAddr) -> IpNet {
    IpNet::from(addr)
}

fn all_v4() -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0))
}

fn mentioned(block: &IpBlock) -> impl Iterator<Item = IpNet> {
    std::iter::once(block.cidr).chain(block.except.iter().copied())
}
