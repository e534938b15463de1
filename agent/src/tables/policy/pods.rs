//! Pods by their addresses, as the compiler has them, and devices, as the network has them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use weir_ebpf::abi::{Addr, BoundPod, PodPolicy, PolicySetId, Side};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pods {
    policies: HashMap<Addr, PodPolicy>,
    /// Addresses whose sets ask for networks that have no row.
    closed: HashSet<Addr>,
    /// Sets that are closed for want of rows by which they deny.
    shut: BTreeSet<PolicySetId>,
    devices: HashMap<Addr, u32>,
    /// In the order of the addresses as a person reads them.
    addresses: BTreeMap<u32, BTreeSet<IpAddr>>,
    /// Devices of pods that forward for others.
    trusted: BTreeSet<u32>,
    /// Devices that no policy is about.
    free: BTreeSet<u32>,
    /// Devices whose row may not be what it should be.
    touched: BTreeSet<u32>,
}

impl Pods {
    /// How the pod with this address is isolated, if it is one of this node's. `is_incomplete`: what its sets ask for has no
    /// row, so that nothing is to be allowed by them.
    pub(super) fn set_policy(&mut self, addr: Addr, policy: Option<PodPolicy>, is_incomplete: bool) {
        match policy {
            Some(policy) => self.policies.insert(addr, policy),
            None => self.policies.remove(&addr),
        };
        if is_incomplete && policy.is_some_and(|policy| !policy.is_open()) {
            self.closed.insert(addr);
        } else {
            self.closed.remove(&addr);
        }
        self.touched.extend(self.devices.get(&addr));
    }

    /// All rows are there.
    pub(super) fn reopen(&mut self) {
        let closed = std::mem::take(&mut self.closed);
        self.touched.extend(closed.iter().filter_map(|addr| self.devices.get(addr)));
    }

    /// Which sets are closed for want of rows; whether they are others than before.
    pub(super) fn set_shut(&mut self, shut: BTreeSet<PolicySetId>) -> bool {
        if shut == self.shut {
            return false;
        }
        let changed: BTreeSet<_> = shut.symmetric_difference(&self.shut).copied().collect();
        let has_one =
            |policy: &PodPolicy| changed.contains(&policy.ingress) || changed.contains(&policy.egress);
        let addresses = self.policies.iter().filter(|(_, policy)| has_one(policy)).map(|(addr, _)| addr);
        self.touched.extend(addresses.filter_map(|addr| self.devices.get(addr)));
        self.shut = shut;
        true
    }

    pub(super) fn set_workloads(
        &mut self,
        workloads: impl Iterator<Item = (Addr, u32)>,
        trusted: BTreeSet<u32>,
    ) {
        let devices: HashMap<Addr, u32> = workloads.collect();
        self.touched.extend(self.trusted.symmetric_difference(&trusted));
        self.trusted = trusted;
        if devices == self.devices {
            return;
        }
        let mut addresses: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        for (addr, device) in &devices {
            addresses.entry(*device).or_default().insert((*addr).into());
        }
        let changed = |device: &&u32| self.addresses.get(device) != addresses.get(device);
        self.touched.extend(self.addresses.keys().chain(addresses.keys()).filter(changed));
        (self.devices, self.addresses) = (devices, addresses);
    }

    /// Devices of whom no policy is about.
    pub(super) fn set_free(&mut self, free: BTreeSet<u32>) {
        self.touched.extend(self.free.symmetric_difference(&free));
        self.free = free;
    }

    pub(super) fn touch(&mut self, devices: impl Iterator<Item = u32>) {
        self.touched.extend(devices);
    }

    pub(super) fn take_touched(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.touched)
    }

    /// The row of a device: `None` where no pod of the cluster is known to have an address that is behind it.
    pub(super) fn bound(&self, device: u32) -> Option<BoundPod> {
        let none = Addr::from_words([0; 4]);
        if self.free.contains(&device) {
            return Some(BoundPod::new(none, none, PodPolicy::OPEN, BoundPod::NO_POD));
        }
        let mut row: Option<BoundPod> = None;
        for addr in self.addresses.get(&device)? {
            let addr = Addr::from(*addr);
            let Some(policy) = self.policy(addr) else { continue };
            let flags = if self.trusted.contains(&device) { BoundPod::ANY_SOURCE } else { 0 };
            let row = row.get_or_insert(BoundPod::new(none, none, policy, flags));
            // Of two in one family the first has it, whichever the network names first.
            let place = if addr.is_v4() { &mut row.v4 } else { &mut row.v6 };
            if place.words() == [0; 4] {
                *place = addr;
            }
            row.policy = PodPolicy {
                ingress: stricter(row.policy.ingress, policy.ingress),
                egress: stricter(row.policy.egress, policy.egress),
                flags: row.policy.flags & policy.flags,
            };
        }
        row
    }

    fn policy(&self, addr: Addr) -> Option<PodPolicy> {
        let policy = *self.policies.get(&addr)?;
        if self.closed.contains(&addr) {
            return Some(closed_where_isolated(policy));
        }
        let shut = |set| if self.shut.contains(&set) { PolicySetId::CLOSED } else { set };
        Some(PodPolicy { ingress: shut(policy.ingress), egress: shut(policy.egress), ..policy })
    }

    /// Whether two pods have addresses behind a device, and other sets.
    pub(super) fn disagrees(&self, device: u32, side: Side) -> bool {
        let policies = self.addresses_of(device).filter_map(|addr| self.policies.get(&addr.into()));
        let mut sets = policies.map(|policy| policy.set(side));
        sets.next().is_some_and(|first| sets.any(|set| set != first))
    }

    /// One of the addresses of pods that have a set which is shut, and how many there are.
    pub(super) fn shut(&self) -> Option<(IpAddr, usize)> {
        let is_shut =
            |policy: &PodPolicy| self.shut.contains(&policy.ingress) || self.shut.contains(&policy.egress);
        let shut = || self.policies.iter().filter(|(_, policy)| is_shut(policy));
        Some((shut().map(|(addr, _)| IpAddr::from(*addr)).min()?, shut().count()))
    }

    /// The addresses behind a device.
    pub(super) fn addresses_of(&self, device: u32) -> impl Iterator<Item = IpAddr> {
        self.addresses.get(&device).into_iter().flatten().copied()
    }

    /// The addresses that are closed for want of rows, or whose set is, and those of pods that have one of these sets.
    pub(super) fn lacking(&self, sets: &BTreeSet<PolicySetId>) -> impl Iterator<Item = IpAddr> {
        let lacks = |set: &PolicySetId| sets.contains(set) || self.shut.contains(set);
        let has_one = move |policy: &PodPolicy| lacks(&policy.ingress) || lacks(&policy.egress);
        let with = self.policies.iter().filter(move |(_, policy)| has_one(policy)).map(|(addr, _)| addr);
        with.chain(&self.closed).map(|addr| IpAddr::from(*addr))
    }

    /// One of the addresses that are closed for want of rows, and how many there are.
    pub(super) fn closed(&self) -> Option<(IpAddr, usize)> {
        let first = self.closed.iter().map(|addr| IpAddr::from(*addr)).min()?;
        Some((first, self.closed.len()))
    }
}

/// Nothing is allowed where something isolates; what only watches denies nothing for that, either.
pub(super) fn closed_where_isolated(policy: PodPolicy) -> PodPolicy {
    let close = |side| if policy.denies(side) { PolicySetId::CLOSED } else { policy.set(side) };
    PodPolicy { ingress: close(Side::Ingress), egress: close(Side::Egress), ..policy }
}

/// A pod has one set for all of its addresses. Where two pods claim addresses behind one device nobody knows whose it is.
fn stricter(one: PolicySetId, other: PolicySetId) -> PolicySetId {
    if one == other { one } else { PolicySetId::CLOSED }
}
