//! Which of this node's devices may claim which address.
//!
//! A status may be of a sandbox that is no more: a pod keeps its UID and its status over a restart of the node, and its addresses
//! only if IPAM happens to give it the same ones. So what a status says counts as far as the pod's devices bear it out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::PodView;
use crate::network::{Owner, Pod as Device};

/// What a device may say of an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Claim {
    /// It has it.
    Found,
    /// It had it when the pod was made whose status says nothing yet; or nothing speaks against what the status says.
    Early,
    /// The status of the pod says so, and its devices bear it out; when the pod was made.
    Said(Option<i64>),
}

/// A device, and the pod behind it as far as its UID says.
pub(super) struct Known<'a> {
    pub(super) index: u32,
    pub(super) device: &'a Device,
    pub(super) pod: Option<PodView<'a>>,
    /// What the pod's status says.
    pub(super) status: &'a [IpAddr],
    /// What of it counts, and how much.
    pub(super) said: Vec<(IpAddr, Claim)>,
    /// Whether the status speaks of addresses that the pod does not have.
    pub(super) is_stale: bool,
}

impl Known<'_> {
    fn has(&self, addr: IpAddr) -> bool {
        self.device.addresses.contains(&addr)
    }

    fn had(&self, addr: IpAddr) -> bool {
        self.device.early.contains(&addr)
    }

    fn is_said(&self, addr: IpAddr) -> bool {
        self.said.iter().any(|(said, _)| *said == addr)
    }

    /// Whether it had any address of this family when its pod was made.
    fn had_like(&self, addr: IpAddr) -> bool {
        self.device.early.iter().any(|early| early.is_ipv6() == addr.is_ipv6())
    }

    /// Whether it has and had no address of this family: a sandbox may keep its addresses to itself (gVisor, virtual machines).
    fn is_bare_of(&self, addr: IpAddr) -> bool {
        !self.had_like(addr) && !self.device.addresses.iter().any(|has| has.is_ipv6() == addr.is_ipv6())
    }

    /// Whether it leads to a network of the pod's beside the cluster's: it was made with other addresses than the status says, and
    /// another device of the pod has one of the status. Both must be plain: no policy is about it then.
    pub(super) fn is_second(&self, known: &[Known<'_>], addresses: &BTreeMap<IpAddr, u32>) -> bool {
        let is_first = |other: &Known<'_>| {
            self.index != other.index
                && is_same_pod(self, other)
                && other.said.iter().any(|(addr, claim)| {
                    matches!(claim, Claim::Said(_)) && addresses.get(addr) == Some(&other.index)
                })
        };
        let mut own = self.device.early.iter().chain(&self.device.addresses);
        !own.any(|addr| self.status.contains(addr)) && known.iter().any(is_first)
    }
}

/// Finds what of each status counts. `before`: who had which address until now.
pub(super) fn weigh(known: &mut [Known<'_>], before: &BTreeMap<IpAddr, u32>) {
    let all: Vec<Vec<(IpAddr, Claim)>> = known
        .iter()
        .map(|one| {
            let devices: Vec<&Known<'_>> = known.iter().filter(|other| is_same_pod(one, other)).collect();
            let created_s = one.pod.and_then(|view| view.pod.created_s);
            let weigh = |addr: &IpAddr| Some((*addr, evidence(&devices, *addr, before, created_s)?));
            one.status.iter().filter_map(weigh).collect()
        })
        .collect();
    for (one, said) in known.iter_mut().zip(all) {
        one.is_stale = said.len() < one.status.len();
        one.said = said;
    }
}

/// What the devices of a pod say of an address in its status; `None`: that it is not, or no more, the pod's.
fn evidence(
    devices: &[&Known<'_>],
    addr: IpAddr,
    before: &BTreeMap<IpAddr, u32>,
    created_s: Option<i64>,
) -> Option<Claim> {
    let nothing_else = !devices.iter().any(|device| device.had_like(addr));
    let is_plain = |device: &&Known<'_>| {
        device.had(addr)
            // An agent before this one saw it there, before the pod took it away.
            || before.get(&addr) == Some(&device.index) && device.had_like(addr)
            || nothing_else && device.has(addr)
    };
    if devices.iter().any(is_plain) {
        return Some(Claim::Said(created_s));
    }
    devices.iter().any(|device| device.has(addr) || device.is_bare_of(addr)).then_some(Claim::Early)
}

/// Who claims which address.
pub(super) fn claims(
    known: &[Known<'_>],
    before: &BTreeMap<IpAddr, u32>,
) -> BTreeMap<IpAddr, Vec<(u32, Claim)>> {
    let mut claims: BTreeMap<IpAddr, Vec<(u32, Claim)>> = BTreeMap::new();
    for one in known {
        let mut claim = |addr: &IpAddr, claim| claims.entry(*addr).or_default().push((one.index, claim));
        if one.pod.is_none() {
            // Its pod may have added others since.
            let is_pods = matches!(one.device.owner, Owner::Pod(_));
            let own = if is_pods { &one.device.early } else { &one.device.addresses };
            own.iter().for_each(|addr| claim(addr, Claim::Found));
            continue;
        }
        for (addr, found) in one.said.iter().filter(|(addr, _)| is_ones(one, *addr, known, before)) {
            claim(addr, *found);
        }
        // Of a family of which the status says nothing, or only what was before, what the pod was made with.
        let is_open = |addr: &&IpAddr| {
            let is_like = |other: &IpAddr| other.is_ipv6() == addr.is_ipv6();
            let is_named = one.status.is_empty() || one.status.iter().any(is_like);
            is_named && !one.said.iter().any(|(said, _)| is_like(said))
        };
        one.device.early.iter().filter(is_open).for_each(|addr| claim(addr, Claim::Early));
    }
    claims
}

/// Whether an address in the status of a pod is this device's. Of those into one pod it is the one that had it before, or when the
/// pod was made, whatever the pod does with its devices later; or that has it, or another of the status; or the first that has
/// none of the family.
fn is_ones(one: &Known<'_>, addr: IpAddr, known: &[Known<'_>], before: &BTreeMap<IpAddr, u32>) -> bool {
    let first = |fits: &dyn Fn(&Known<'_>) -> bool| {
        known.iter().find(|other| is_same_pod(one, other) && fits(other)).map(|other| other.index)
    };
    let best = first(&|other| before.get(&addr) == Some(&other.index))
        .or_else(|| first(&|other| other.had(addr)))
        .or_else(|| first(&|other| other.has(addr)))
        .or_else(|| first(&|other| other.device.addresses.iter().any(|has| one.is_said(*has))))
        .or_else(|| first(&|other| other.is_bare_of(addr)));
    best == Some(one.index)
}

pub(super) fn is_same_pod(one: &Known<'_>, other: &Known<'_>) -> bool {
    // Each device is compared with each other. What they have are the state's own pods, so one object is one pod.
    let is_one = |(one, other): (PodView<'_>, PodView<'_>)| std::ptr::eq(one.pod, other.pod);
    one.index == other.index || one.pod.zip(other.pod).is_some_and(is_one)
}
