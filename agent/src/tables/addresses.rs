//! What whole addresses are used for: by how many Service ports, and by the node itself.
//!
//! An address may be several things at once, each of them said by somebody else: a ClusterIP, somebody's external
//! address, an address of this node. Its row is their union, and goes with the last of them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use weir_ebpf::abi::{AddressUses, FrontendKind};

/// How many Service ports use an address as what.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Users {
    cluster_ip: usize,
    external: usize,
}

impl Users {
    /// Who uses it as this; node ports stand under no address of their own.
    fn of(&mut self, kind: FrontendKind) -> Option<&mut usize> {
        match kind {
            FrontendKind::ClusterIp => Some(&mut self.cluster_ip),
            FrontendKind::LoadBalancer | FrontendKind::ExternalIp => Some(&mut self.external),
            FrontendKind::NodePort => None,
        }
    }
}

/// All addresses that are used for something.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    users: HashMap<IpAddr, Users>,
    node: BTreeMap<IpAddr, AddressUses>,
}

impl Addresses {
    /// One more Service port has the address in a frontend of this kind.
    pub(super) fn add(&mut self, addr: IpAddr, kind: FrontendKind) {
        if let Some(count) = self.users.entry(addr).or_default().of(kind) {
            *count += 1;
        }
        self.forget_if_unused(addr);
    }

    /// One less.
    pub(super) fn remove(&mut self, addr: IpAddr, kind: FrontendKind) {
        if let Some(count) = self.users.get_mut(&addr).and_then(|users| users.of(kind)) {
            *count = count.saturating_sub(1);
        }
        self.forget_if_unused(addr);
    }

    fn forget_if_unused(&mut self, addr: IpAddr) {
        if self.users.get(&addr) == Some(&Users::default()) {
            self.users.remove(&addr);
        }
    }

    /// All that the address is used for.
    pub(super) fn uses(&self, addr: IpAddr) -> AddressUses {
        let users = self.users.get(&addr).copied().unwrap_or_default();
        let mut uses = self.node.get(&addr).copied().unwrap_or_default();
        if users.cluster_ip > 0 {
            uses = uses.and(AddressUses::CLUSTER_IP);
        }
        if users.external > 0 {
            uses = uses.and(AddressUses::EXTERNAL);
        }
        uses
    }

    /// Whether it is an address of this node.
    pub(super) fn is_of_node(&self, addr: IpAddr) -> bool {
        self.node.get(&addr).is_some_and(|uses| uses.contains(AddressUses::NODE))
    }

    /// What the node uses its addresses for from now on. Returns those for which that is not what it was.
    pub(super) fn set_node(&mut self, node: BTreeMap<IpAddr, AddressUses>) -> Vec<IpAddr> {
        let before = std::mem::replace(&mut self.node, node);
        let mut changed: Vec<IpAddr> = before.keys().chain(self.node.keys()).copied().collect();
        changed.sort_unstable();
        changed.dedup();
        changed.retain(|addr| before.get(addr) != self.node.get(addr));
        changed
    }
}

/// The part of an address' uses that the node says, and Services do not.
pub(super) fn said_by_node(uses: AddressUses) -> AddressUses {
    uses.without(AddressUses::CLUSTER_IP.and(AddressUses::EXTERNAL))
}
