//! Which pod is behind which device of this node, and whose each address is.
//!
//! A device says whose the namespace behind it is (`network::Owner`): of a pod, by its UID. Where it does not, a pod is known by
//! its address, as long as nobody has a better claim to that. Who may take an address: the pod whose status says so; until a
//! status says anything, the pod that had it when it was made; then who had it before. So a pod that may change its own
//! addresses gets nothing by taking a neighbour's.

mod claims;
mod missing;
mod others;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use self::claims::{Known, claims, is_same_pod, weigh};
use super::cluster::Selected;
use super::{PodView, PolicyState};
use crate::network::{Facts, Owner, Pod as Device, Seeks};
use crate::source::{self, ObjectKey, PodUid};

/// Which pod is where, at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    /// The device that leads to each address of this node's pods; 0: a pod has it that no device of ours leads to.
    pub addresses: BTreeMap<IpAddr, u32>,
    /// Who is behind each device.
    pub devices: BTreeMap<u32, Behind>,
    /// Devices that have an address which is another's.
    pub contested: BTreeSet<(u32, IpAddr)>,
    /// Pods of this node that no device leads to; whether they have addresses.
    pub unplaced: BTreeMap<ObjectKey, bool>,
    /// The addresses of those of them whose namespaces were found, by the namespaces' cookies.
    pub elsewhere: BTreeMap<u64, Vec<IpAddr>>,
    /// Whether there are others, which are to be sought, and whether one of this node's pods may come into any namespace.
    pub seeks: Seeks,
    /// Pods that at sockets are told by their cgroups: those that are known by their addresses alone, because nobody has found a way
    /// into their namespaces, and those that have the node's.
    pub by_cgroup: BTreeSet<PodUid>,
    /// Devices of pods without UIDs into whose namespaces nobody has found a way: nothing tells their sockets from those of a
    /// pod that nobody knows.
    pub untold: BTreeSet<u32>,
    /// The addresses of pods that are known by their UIDs.
    proven: HashMap<IpAddr, ObjectKey>,
    /// Of pods whose status says none yet, or those of a sandbox before this one, the addresses that they were made with.
    provisional: BTreeMap<ObjectKey, Box<[IpAddr]>>,
}

impl Placement {
    /// Where nothing is known but who had which address when an agent before this one wrote it down.
    #[must_use]
    pub fn before(addresses: BTreeMap<IpAddr, u32>) -> Self {
        Self { addresses, ..Self::default() }
    }
}

/// What decides beside devices and pods.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// Who had which address until now.
    pub before: &'a BTreeMap<IpAddr, u32>,
    /// Of which this node's pods have their addresses; none where nobody says so.
    pub networks: &'a [IpNet],
    /// Devices behind which has been nobody of the cluster's for so long that it is no pod in the making.
    pub settled: &'a BTreeSet<u32>,
}

/// Who is behind a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Behind {
    /// A pod, in the cluster's network.
    Pod(ObjectKey),
    /// A pod, in a network of its own beside that: no policy is about it.
    Second(ObjectKey),
    /// Nobody of the cluster's, in this cgroup.
    Other(Arc<str>),
    /// Nobody knows (yet).
    Unknown(Unknown),
}

impl Behind {
    /// The pod that is there, whatever is known of its addresses.
    fn pod(&self) -> Option<&ObjectKey> {
        match self {
            Self::Pod(key) | Self::Second(key) | Self::Unknown(Unknown::NoAddress(key)) => Some(key),
            Self::Other(_) | Self::Unknown(_) => None,
        }
    }
}

/// Why nobody knows who is behind a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unknown {
    /// Nobody has found a way into the namespace.
    NoWay,
    /// No process is in it yet that says so.
    NoProcess,
    /// The API server has not told of a pod with this UID.
    NoPod(PodUid),
    /// The pod has no address yet, or another one's.
    NoAddress(ObjectKey),
    /// It seems to be nobody of the cluster's, but may be this pod, which is behind no device that we know.
    MayBe(ObjectKey),
}

impl PolicyState {
    /// Puts devices and pods together.
    #[must_use]
    pub fn place(&self, facts: &Facts, given: &Given<'_>) -> Placement {
        let before = given.before;
        let uids = self.uids();
        let hosts = self.host_uids(&uids);
        let mut known: Vec<Known<'_>> =
            facts.pods.iter().map(|(index, device)| self.know(*index, device, &uids)).collect();
        weigh(&mut known, before);
        let mut placement = Placement::default();
        let claims = claims(&known, before);
        for (addr, claims) in &claims {
            let had = before.get(addr);
            // Of two pods that both say so the younger: nobody gives an address away that is not free.
            let best = claims
                .iter()
                .max_by_key(|(index, claim)| (*claim, had == Some(index), std::cmp::Reverse(*index)));
            placement.addresses.extend(best.map(|(index, _)| (*addr, *index)));
        }
        for one in &known {
            let taken = one.device.addresses.iter().filter(|addr| {
                placement.addresses.get(addr).is_some_and(|holder| *holder != one.index)
                    && !known.iter().any(|other| {
                        is_same_pod(one, other) && Some(&other.index) == placement.addresses.get(addr)
                    })
            });
            placement.contested.extend(taken.map(|addr| (one.index, *addr)));
        }
        for one in &known {
            let behind = self.behind(one, &known, &placement.addresses, &hosts);
            if let (Behind::Pod(key), Some(_)) = (&behind, &one.pod) {
                let own = placement.addresses.iter().filter(|(_, index)| **index == one.index);
                let own: Vec<IpAddr> = own.map(|(addr, _)| *addr).collect();
                placement.proven.extend(own.iter().map(|addr| (*addr, key.clone())));
                if one.said.is_empty() || one.is_stale {
                    let all = placement.provisional.entry(key.clone()).or_default();
                    *all = all.iter().copied().chain(own).collect();
                }
            }
            placement.devices.insert(one.index, behind);
        }
        let elsewhere = self.find_unplaced(facts, &uids, &mut placement);
        placement.by_cgroup.extend(hosts.into_keys());
        self.find_unreached(&known, &mut placement);
        self.hold_others(&known, &elsewhere, given, &mut placement);
        placement
    }

    /// Takes in where the pods are: an address that is proven to be a pod's is no other's, and a pod whose status says no address,
    /// or one of a sandbox before, has those that it was made with.
    pub fn set_placement(&mut self, placement: &Placement) {
        let pods =
            placement.devices.iter().filter_map(|(index, behind)| Some((*index, behind.pod()?.clone())));
        self.behind = pods.collect();
        let (before, after) = (std::mem::take(&mut self.proven), placement.proven.clone());
        for addr in before.keys().chain(after.keys()).filter(|addr| before.get(addr) != after.get(addr)) {
            self.changes.peers.insert(*addr);
            self.changes.workloads.insert(*addr);
        }
        self.proven = after;
        let pods_here_changed = self.pods_here_changed;
        let mut said = std::mem::take(&mut self.provisional);
        for (key, addresses) in &placement.provisional {
            let Some(pod) = self.pods.get(&key.namespace).and_then(|pods| pods.get(&key.name)).cloned()
            else {
                continue;
            };
            let status = said.remove(key).unwrap_or_else(|| pod.addresses.clone());
            self.provisional.insert(key.clone(), status);
            self.put_addresses(key, addresses);
        }
        for (key, status) in &said {
            self.put_addresses(key, status);
        }
        self.pods_here_changed = pods_here_changed;
    }

    fn put_addresses(&mut self, key: &ObjectKey, addresses: &[IpAddr]) {
        let pod = self.pods.get(&key.namespace).and_then(|pods| pods.get(&key.name)).cloned();
        if let Some(pod) = pod.filter(|pod| *pod.addresses != *addresses) {
            self.put_pod(key, Some(source::Pod { addresses: addresses.into(), ..pod }));
        }
    }

    /// Takes in what a source says of a pod.
    pub(in crate::state) fn apply_pod(&mut self, key: &ObjectKey, pod: Option<source::Pod>) {
        let mut pod = self.set_host(key, pod);
        let before = self.pods.get(&key.namespace).and_then(|pods| pods.get(&key.name));
        if let Some(pod) = &mut pod {
            if !self.is_here(pod) {
                pod.identity = None;
            }
            match before.zip(self.provisional.get(key)) {
                Some((before, said)) if pod.addresses == *said && before.identity == pod.identity => {
                    pod.addresses.clone_from(&before.addresses);
                }
                _ => {
                    self.provisional.remove(key);
                }
            }
        } else {
            self.provisional.remove(key);
        }
        self.put_pod(key, pod);
    }

    /// What is known of pods' places may mean something else than before.
    pub(in crate::state) fn look_at_places(&mut self) {
        self.pods_here_changed = true;
    }

    /// Whether a pod of this node came, went or changed since the last call.
    pub fn take_pods_here_changed(&mut self) -> bool {
        std::mem::take(&mut self.pods_here_changed)
    }

    /// The pod that has this name.
    #[must_use]
    pub fn pod(&self, key: &ObjectKey) -> Option<PodView<'_>> {
        let (namespace, pods) = self.pods.get_key_value(&key.namespace)?;
        let (name, pod) = pods.get_key_value(&key.name)?;
        Some(PodView { namespace, name, pod })
    }

    /// Whether some policy selects it.
    #[must_use]
    pub fn is_selected(&self, view: &PodView<'_>) -> bool {
        let (namespace, labels) = (view.namespace, &view.pod.labels);
        self.policies(namespace).any(|policy| policy.pods.matches(labels))
            || self.cluster.values().any(|policy| self.selects(policy, namespace, labels) != Selected::No)
    }

    /// Of the pods that claim an address the youngest.
    pub(super) fn youngest(&self, addr: IpAddr) -> Option<PodView<'_>> {
        let claimants = self.claimants.get(&addr)?.iter().filter_map(|key| {
            let (name, pod) = self.pods.get(&key.namespace)?.get_key_value(&key.name)?;
            Some(PodView { namespace: &key.namespace, name, pod })
        });
        // The names, so that every node and every order of events finds the same one.
        claimants.max_by_key(|view| (view.pod.created_s, view.namespace, view.name))
    }

    /// The pods of this node by UID. A UID of its own is stronger than one that a pod only says that it stands for; of several
    /// that say so, the oldest.
    fn uids(&self) -> HashMap<PodUid, PodView<'_>> {
        let here = || {
            let names = self
                .here
                .iter()
                .flat_map(|(namespace, names)| names.iter().map(move |name| (namespace, name)));
            names.filter_map(|(namespace, name)| {
                let pod = self.pods.get(namespace)?.get(name)?;
                Some((pod.identity.as_deref()?, PodView { namespace, name, pod }))
            })
        };
        let mut mirrors: Vec<_> =
            here().filter_map(|(identity, view)| Some((identity.mirrors?, view))).collect();
        mirrors.sort_by_key(|(_, view)| {
            std::cmp::Reverse((view.pod.created_s, view.namespace.clone(), view.name.clone()))
        });
        mirrors.into_iter().chain(here().map(|(identity, view)| (identity.uid, view))).collect()
    }

    fn know<'a>(&'a self, index: u32, device: &'a Device, uids: &HashMap<PodUid, PodView<'a>>) -> Known<'a> {
        let pod = match &device.owner {
            Owner::Pod(uid) => uids.get(uid).copied(),
            Owner::Unknown | Owner::Nobody | Owner::Other(_) => None,
        };
        let status = pod.map_or(&[][..], |view| self.said(&view));
        Known { index, device, pod, status, said: Vec::new(), is_stale: false }
    }

    /// The addresses in the status of a pod.
    fn said<'a>(&'a self, view: &PodView<'a>) -> &'a [IpAddr] {
        self.provisional.get(&key_of(view)).unwrap_or(&view.pod.addresses)
    }

    fn behind(
        &self,
        one: &Known<'_>,
        known: &[Known<'_>],
        addresses: &BTreeMap<IpAddr, u32>,
        hosts: &HashMap<PodUid, &ObjectKey>,
    ) -> Behind {
        let own = || addresses.iter().filter(|(_, index)| **index == one.index).map(|(addr, _)| *addr);
        if let Some(view) = &one.pod {
            let key = key_of(view);
            return match own().next() {
                Some(_) => Behind::Pod(key),
                None if one.is_second(known, addresses) => Behind::Second(key),
                None => Behind::Unknown(Unknown::NoAddress(key)),
            };
        }
        // One that says whose it is can be another's only if that one cannot say.
        let by_address = own().find_map(|addr| self.youngest(addr).filter(|view| self.is_here(view.pod)));
        let is_mute = |view: &PodView<'_>| view.pod.identity.is_none();
        match (&one.device.owner, by_address) {
            (Owner::Pod(uid), view) => match view.filter(is_mute) {
                Some(view) => Behind::Pod(key_of(&view)),
                None => match hosts.get(uid) {
                    Some(host) => Behind::Other(format!("made by {host}, which has hostNetwork").into()),
                    None => Behind::Unknown(Unknown::NoPod(*uid)),
                },
            },
            (_, Some(view)) => Behind::Pod(key_of(&view)),
            (Owner::Other(cgroup), None) => Behind::Other(cgroup.clone()),
            (Owner::Nobody, None) => Behind::Other("no process is in it".into()),
            (Owner::Unknown, None) if one.device.netns.is_none() => Behind::Unknown(Unknown::NoWay),
            (Owner::Unknown, None) => Behind::Unknown(Unknown::NoProcess),
        }
    }
}

fn key_of(view: &PodView<'_>) -> ObjectKey {
    ObjectKey { namespace: view.namespace.clone(), name: view.name.clone() }
}
