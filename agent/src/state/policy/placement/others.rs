//! Who is behind a device and nobody of the cluster's network: containers of other engines, and what pods make that have their node's
//! network. While a pod is being made whose device nobody knows, one of them may be that pod.

use std::collections::{BTreeSet, HashMap};

use super::claims::Known;
use super::{Behind, Given, Placement, PodView, PolicyState, Unknown};
use crate::network::Owner;
use crate::source::{self, ObjectKey, PodUid};

impl PolicyState {
    /// Takes in a pod that has the network of this node, or that one has it no more; returns whoever else it is.
    pub(super) fn set_host(&mut self, key: &ObjectKey, pod: Option<source::Pod>) -> Option<source::Pod> {
        let (host, pod) = match pod {
            Some(pod) if pod.host_network => (self.is_here(&pod).then_some(pod.identity).flatten(), None),
            pod => (None, pod),
        };
        let before = match host {
            Some(identity) => self.hosts.insert(key.clone(), *identity),
            None => self.hosts.remove(key),
        };
        self.pods_here_changed |= before.as_ref() != self.hosts.get(key);
        pod
    }

    /// The pods that have the network of this node, by UID. That a pod only says that it stands for another makes nobody free of
    /// policies who has a network of its own.
    pub(super) fn host_uids(&self, uids: &HashMap<PodUid, PodView<'_>>) -> HashMap<PodUid, &ObjectKey> {
        let all = self.hosts.iter().flat_map(|(key, identity)| {
            [Some(identity.uid), identity.mirrors].into_iter().flatten().map(move |uid| (uid, key))
        });
        all.filter(|(uid, _)| !uids.contains_key(uid)).collect()
    }

    /// Holds those of them that may be a pod of this node whose device is not known: who came lately, with an address of its pods'
    /// networks, or none that we could see. One that is itself in a pod's cgroup (what makes a pod may be a pod), or without any process,
    /// whatever its address is; and without any process for good if that is of the pods' networks.
    pub(super) fn hold_others(
        &self,
        known: &[Known<'_>],
        elsewhere: &BTreeSet<ObjectKey>,
        given: &Given<'_>,
        placement: &mut Placement,
    ) {
        let made = self.is_made(elsewhere, placement);
        placement.seeks.making = made.is_some();
        let networks = given.networks;
        for one in known {
            let Some(behind @ Behind::Other(_)) = placement.devices.get_mut(&one.index) else { continue };
            let addresses = &one.device.addresses;
            let is_pods = addresses.iter().any(|addr| networks.iter().any(|network| network.contains(addr)));
            let may_be = match one.device.owner {
                Owner::Nobody if is_pods => {
                    *behind = Behind::Unknown(Unknown::NoProcess);
                    continue;
                }
                Owner::Nobody => true,
                Owner::Pod(_) if networks.is_empty() => true,
                _ => is_pods || addresses.is_empty() && !networks.is_empty(),
            };
            if let Some(made) = made.as_ref().filter(|_| may_be && !given.settled.contains(&one.index)) {
                *behind = Behind::Unknown(Unknown::MayBe(made.clone()));
            }
        }
    }

    /// A pod of this node that may be behind a device that seems to be another's: it has none of its own, and is not known to be
    /// elsewhere. Where it has no UID its address says which device is its.
    fn is_made(&self, elsewhere: &BTreeSet<ObjectKey>, placement: &Placement) -> Option<ObjectKey> {
        let is_open = |(key, has_addresses): &(&ObjectKey, &bool)| {
            let has_uid = self.pod(key).is_some_and(|view| view.pod.identity.is_some());
            (has_uid || !**has_addresses) && !elsewhere.contains(*key)
        };
        placement.unplaced.iter().find(is_open).map(|(key, _)| key.clone())
    }
}
