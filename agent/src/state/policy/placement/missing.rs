//! Pods of this node that no device leads to, or into whose namespaces nobody has found a way: by what else they are told.

use std::collections::{BTreeSet, HashMap};

use super::claims::Known;
use super::{Behind, Placement, PodView, PolicyState, Unknown, key_of};
use crate::network::Facts;
use crate::source::{ObjectKey, PodUid};

impl PolicyState {
    /// The UIDs of these pods of this node. What a pod says that it stands for is its own if nobody has a better claim to it.
    #[must_use]
    pub fn uids_of(&self, keys: &BTreeSet<ObjectKey>) -> BTreeSet<PodUid> {
        if keys.is_empty() {
            return BTreeSet::new();
        }
        self.uids().into_iter().filter(|(_, view)| keys.contains(&key_of(view))).map(|(uid, _)| uid).collect()
    }

    pub(super) fn find_unreached(&self, known: &[Known<'_>], placement: &mut Placement) {
        let mut unreached = BTreeSet::new();
        for one in known.iter().filter(|one| one.device.netns.is_none()) {
            let Some(Behind::Pod(key)) = placement.devices.get(&one.index) else { continue };
            if self.pod(key).is_some_and(|view| view.pod.identity.is_some()) {
                unreached.insert(key.clone());
            } else {
                placement.untold.insert(one.index);
            }
        }
        placement.by_cgroup.extend(self.uids_of(&unreached));
    }

    /// Those that no device leads to; returns those of them whose namespaces were found.
    pub(super) fn find_unplaced(
        &self,
        facts: &Facts,
        uids: &HashMap<PodUid, PodView<'_>>,
        placement: &mut Placement,
    ) -> BTreeSet<ObjectKey> {
        let placed: BTreeSet<ObjectKey> = placement
            .devices
            .values()
            .filter_map(|behind| match behind {
                Behind::Pod(key) | Behind::Second(key) | Behind::Unknown(Unknown::NoAddress(key)) => {
                    Some(key.clone())
                }
                Behind::Other(_) | Behind::Unknown(_) => None,
            })
            .collect();
        for (namespace, name) in
            self.here.iter().flat_map(|(namespace, names)| names.iter().map(move |name| (namespace, name)))
        {
            let key = ObjectKey { namespace: namespace.clone(), name: name.clone() };
            let Some(view) = self.pod(&key).filter(|_| !placed.contains(&key)) else { continue };
            let said = self.said(&view);
            for addr in said {
                placement.addresses.entry(*addr).or_insert(0);
            }
            placement.unplaced.insert(key, !said.is_empty());
        }
        for (cookie, uid) in &facts.elsewhere {
            if let Some(view) = uids.get(uid) {
                let said = self.said(view);
                if !said.is_empty() {
                    placement.elsewhere.insert(*cookie, said.to_vec());
                }
            }
        }
        let found: BTreeSet<ObjectKey> =
            facts.elsewhere.values().filter_map(|uid| uids.get(uid)).map(key_of).collect();
        // One without addresses is being made, most likely behind a veth.
        placement.seeks.elsewhere = placement.unplaced.iter().any(|(key, has_addresses)| {
            let has_uid = self.pod(key).is_some_and(|view| view.pod.identity.is_some());
            *has_addresses && has_uid && !found.contains(key)
        });
        found
    }
}
