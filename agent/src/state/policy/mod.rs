//! Pods, namespaces and policies, and what of them changed. Read by `compile::policy`.
//!
//! An address belongs to one pod: of this node's, the one that is behind the device which has it, where that says whose it is
//! ([`placement`]); else, of those that claim it, the youngest. The network gave it to that one; the others have lost it, and
//! nobody has said so yet.

mod placement;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::Counts;
use super::demand::{Asker, Demand};
use crate::source::{
    ClusterNetworkPolicy, Labels, Namespace, NetworkPolicy, ObjectKey, Pod, PodIdentity, PolicyDemand,
    PolicySync,
};

mod cluster;
#[cfg(test)]
mod tests;

pub use cluster::{ClusterPolicyView, Selected};

pub use placement::{Behind, Given, Placement, Unknown};

/// The objects by namespace, then by name.
type ByNamespace<T> = HashMap<Arc<str>, BTreeMap<Arc<str>, T>>;

/// What policies are about.
#[derive(Debug)]
pub struct PolicyState {
    /// This node's name.
    node: Arc<str>,
    namespaces: HashMap<Arc<str>, Namespace>,
    pods: ByNamespace<Pod>,
    policies: ByNamespace<NetworkPolicy>,
    cluster: BTreeMap<Arc<str>, ClusterNetworkPolicy>,
    /// How many of both are audited.
    audited: usize,
    /// The pods that say that they have an address; hardly ever more than one.
    claimants: HashMap<IpAddr, Vec<ObjectKey>>,
    /// Those of this node that have its network: what they are known by. They are not among the pods.
    hosts: BTreeMap<ObjectKey, PodIdentity>,
    /// The pods of this node.
    here: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// The addresses of pods of this node that are known by their UIDs.
    proven: HashMap<IpAddr, ObjectKey>,
    /// Pods of this node whose status says no address yet, or those of a sandbox before: they have those that they were made with.
    /// What the status says.
    provisional: HashMap<ObjectKey, Box<[IpAddr]>>,
    /// The pods of this node by the devices that they are behind.
    behind: BTreeMap<u32, ObjectKey>,
    pods_here_changed: bool,
    demand: Demand,
    /// How far all of this was told; `None`: it is still to come.
    sync: Option<PolicySync>,
    /// All that policies here ask for was known once.
    known: bool,
    changes: PolicyChanges,
}

/// What must be looked at again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PolicyChanges {
    /// Addresses that may be matched by other selectors, or have other port names, than before.
    pub peers: BTreeSet<IpAddr>,
    /// Addresses that may be isolated in another way than before, or be no longer this node's.
    pub workloads: BTreeSet<IpAddr>,
}

/// A pod and its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PodView<'a> {
    /// `metadata.namespace`
    pub namespace: &'a Arc<str>,
    /// `metadata.name`
    pub name: &'a Arc<str>,
    /// The pod.
    pub pod: &'a Pod,
}

impl PolicyState {
    pub(super) fn new(node: Arc<str>) -> Self {
        Self {
            node,
            namespaces: HashMap::new(),
            pods: HashMap::new(),
            policies: HashMap::new(),
            cluster: BTreeMap::new(),
            audited: 0,
            claimants: HashMap::new(),
            hosts: BTreeMap::new(),
            here: HashMap::new(),
            proven: HashMap::new(),
            provisional: HashMap::new(),
            behind: BTreeMap::new(),
            pods_here_changed: false,
            demand: Demand::default(),
            sync: None,
            known: false,
            changes: PolicyChanges::default(),
        }
    }

    /// What changed since the last call.
    pub(super) fn take_changes(&mut self) -> PolicyChanges {
        std::mem::take(&mut self.changes)
    }

    /// What of other nodes is to be told, so that the policies that apply here mean what they say.
    #[must_use]
    pub fn demand(&self) -> PolicyDemand {
        self.demand.demand()
    }

    /// How far all of this was told; `None`: it is still to come.
    #[must_use]
    pub fn sync(&self) -> Option<&PolicySync> {
        self.sync.as_ref()
    }

    /// Whether there is nothing to wait for: what the policies here ask for was told, or none will be told.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match &self.sync {
            None => false,
            Some(PolicySync::Refused) => true,
            Some(PolicySync::Told(told)) => self.demand().is_met_by(told),
        }
    }

    pub(super) fn apply_sync(&mut self, sync: PolicySync) {
        self.sync = Some(sync);
    }

    /// How much there is of what policies are about.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            pods: self.pods.values().map(BTreeMap::len).sum(),
            policies: self.policies.values().map(BTreeMap::len).sum(),
            cluster_policies: self.cluster.len(),
            audited: self.audited,
            ..Counts::default()
        }
    }

    /// See [`super::State::take_policy_update`].
    pub(super) fn take_update(&mut self) -> Option<PolicyChanges> {
        let changes = self.take_changes();
        if self.known {
            return Some(changes);
        }
        self.known = matches!(self.sync, Some(PolicySync::Told(_))) && self.is_settled();
        self.known.then(|| {
            let all: BTreeSet<IpAddr> = self.claimants.keys().copied().collect();
            PolicyChanges { peers: all.clone(), workloads: all }
        })
    }

    /// The pod that has an address.
    #[must_use]
    pub fn owner(&self, addr: IpAddr) -> Option<PodView<'_>> {
        let proven = self.proven.get(&addr).and_then(|key| self.pod(key));
        proven.or_else(|| self.youngest(addr))
    }

    /// The pod of this node that has an address.
    #[must_use]
    pub fn workload(&self, addr: IpAddr) -> Option<PodView<'_>> {
        self.owner(addr).filter(|view| self.is_here(view.pod))
    }

    /// The pod of this node that is behind a device, also where it has no address there, or another's.
    #[must_use]
    pub fn pod_behind(&self, device: u32) -> Option<&ObjectKey> {
        self.behind.get(&device)
    }

    /// A namespace; `None` where it is not known (yet), though pods of it may be.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// All pods, each with its namespace.
    pub fn all_pods(&self) -> impl Iterator<Item = (&Arc<str>, &Pod)> {
        self.pods.iter().flat_map(|(namespace, pods)| pods.values().map(move |pod| (namespace, pod)))
    }

    /// The policies of a namespace, in the order of their names.
    pub fn policies(&self, namespace: &str) -> impl Iterator<Item = &NetworkPolicy> {
        self.policies.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// The same with their names.
    pub fn named_policies(&self, namespace: &str) -> impl Iterator<Item = (&Arc<str>, &NetworkPolicy)> {
        self.policies.get(namespace).into_iter().flatten()
    }

    /// Whether there are policies at all.
    #[must_use]
    pub fn has_policies(&self) -> bool {
        !self.policies.is_empty() || !self.cluster.is_empty()
    }

    /// Whether what a policy of this namespace would deny passes. A namespace that is not known has no annotations.
    #[must_use]
    pub fn is_audited(&self, namespace: &str, policy: &NetworkPolicy) -> bool {
        policy.modes.audit || self.namespaces.get(namespace).is_some_and(|namespace| namespace.audit)
    }

    fn is_here(&self, pod: &Pod) -> bool {
        pod.node.as_deref() == Some(&*self.node)
    }

    fn put_pod(&mut self, key: &ObjectKey, pod: Option<Pod>) {
        let before = self.pods.get(&key.namespace).and_then(|pods| pods.get(&key.name));
        if before == pod.as_ref() {
            return;
        }
        let touched_here = before.into_iter().chain(&pod).any(|pod| self.is_here(pod));
        let before: Box<[IpAddr]> = before.map(|pod| pod.addresses.clone()).unwrap_or_default();
        let after = pod.as_ref().map(|pod| &*pod.addresses).unwrap_or_default();
        for addr in before.iter().filter(|addr| !after.contains(addr)) {
            self.unclaim(*addr, key);
        }
        for addr in after.iter().filter(|addr| !before.contains(addr)) {
            // Most have one for ever: no room for more.
            self.claimants.entry(*addr).or_insert_with(|| Vec::with_capacity(1)).push(key.clone());
        }
        self.pods_here_changed |= touched_here;
        for addr in before.iter().chain(after) {
            self.changes.peers.insert(*addr);
            self.changes.workloads.insert(*addr);
        }
        let here = |pod: Option<&Pod>| pod.filter(|pod| self.is_here(pod)).map(|pod| pod.labels.clone());
        let before = self.pods.get(&key.namespace).and_then(|pods| pods.get(&key.name));
        let (before, after) = (here(before), here(pod.as_ref()));
        replace(&mut self.pods, key, pod);
        self.move_pod_here(key, before.as_ref(), after.as_ref());
    }

    /// A pod of this node has other labels, or came, or went.
    fn move_pod_here(&mut self, key: &ObjectKey, before: Option<&Labels>, after: Option<&Labels>) {
        if before == after {
            return;
        }
        let names = self.here.entry(key.namespace.clone()).or_default();
        match after {
            Some(_) => names.insert(key.name.clone()),
            None => names.remove(&key.name),
        };
        let is_here = !names.is_empty();
        if !is_here {
            self.here.remove(&key.namespace);
        }
        self.demand.set_here(&key.namespace, is_here);
        self.count_for_cluster(&key.namespace, before, after);
        for (name, policy) in self.policies.get(&key.namespace).into_iter().flatten() {
            let matches = |labels: Option<&Labels>| labels.is_some_and(|labels| policy.pods.matches(labels));
            let (before, after) = (matches(before), matches(after));
            if before != after {
                let key = ObjectKey { namespace: key.namespace.clone(), name: name.clone() };
                let asker = Asker::Policy(&key.namespace, policy);
                self.demand.count_pod(&key, asker, after, &self.namespaces);
            }
        }
    }

    /// The pods of this node in a namespace.
    fn pods_here(&self, namespace: &str) -> impl Iterator<Item = &Pod> {
        let names = self.here.get(namespace).into_iter().flatten();
        let pods = self.pods.get(namespace);
        names.filter_map(move |name| pods?.get(name))
    }

    /// Whom policies of the namespace select does not depend on its labels: they decide about its pods as peers, and about
    /// which policies without a namespace select them.
    pub(super) fn apply_namespace(&mut self, name: &Arc<str>, namespace: Option<Namespace>) {
        if self.namespaces.get(name) == namespace.as_ref() {
            return;
        }
        let (selected, audited) = (self.selected_here(name), self.audited_in(name));
        let before = match namespace.clone() {
            Some(namespace) => self.namespaces.insert(name.clone(), namespace),
            None => self.namespaces.remove(name),
        };
        self.audited = self.audited + self.audited_in(name) - audited;
        let labels = |namespace: &Option<Namespace>| namespace.as_ref().map(|one| one.labels.clone());
        self.demand.set_namespace(name, labels(&before).as_ref(), labels(&namespace).as_ref());
        // What asks for namespaces like this one is to know it as it is before anybody asks or ceases to.
        let is_audited = |namespace: &Option<Namespace>| namespace.as_ref().is_some_and(|one| one.audit);
        self.move_namespace_here(name, &selected, is_audited(&before) != is_audited(&namespace));
        let pods = self.pods.get(name).into_iter().flat_map(BTreeMap::values);
        self.changes.peers.extend(pods.flat_map(|pod| &pod.addresses));
    }

    /// The pods here that it selects or selected.
    pub(super) fn apply_policy(&mut self, key: &ObjectKey, policy: Option<NetworkPolicy>) {
        let before = self.policies.get(&key.namespace).and_then(|policies| policies.get(&key.name));
        if before == policy.as_ref() {
            return;
        }
        let is_audited = |policy: Option<&NetworkPolicy>| {
            policy.is_some_and(|policy| self.is_audited(&key.namespace, policy))
        };
        let audited =
            self.audited + usize::from(is_audited(policy.as_ref())) - usize::from(is_audited(before));
        let selectors = [before, policy.as_ref()].into_iter().flatten().map(|policy| &policy.pods);
        let selectors: Vec<_> = selectors.collect();
        let touched =
            self.pods_here(&key.namespace).filter(|pod| selectors.iter().any(|one| one.matches(&pod.labels)));
        let touched: Vec<IpAddr> = touched.flat_map(|pod| &pod.addresses).copied().collect();
        let selects = policy.as_ref().map_or(0, |policy| {
            self.pods_here(&key.namespace).filter(|pod| policy.pods.matches(&pod.labels)).count()
        });
        let asker = |policy| Asker::Policy(&key.namespace, policy);
        let askers = (before.map(asker), policy.as_ref().map(asker));
        self.demand.set_policy(key, askers, selects, &self.namespaces);
        self.audited = audited;
        self.changes.workloads.extend(touched);
        replace(&mut self.policies, key, policy);
    }

    /// How many policies of a namespace are audited.
    fn audited_in(&self, namespace: &str) -> usize {
        self.policies(namespace).filter(|policy| self.is_audited(namespace, policy)).count()
    }

    fn unclaim(&mut self, addr: IpAddr, key: &ObjectKey) {
        if let Some(claimants) = self.claimants.get_mut(&addr) {
            claimants.retain(|claimant| claimant != key);
            if claimants.is_empty() {
                self.claimants.remove(&addr);
            }
        }
    }
}

fn replace<T>(objects: &mut ByNamespace<T>, key: &ObjectKey, object: Option<T>) {
    if let Some(object) = object {
        objects.entry(key.namespace.clone()).or_default().insert(key.name.clone(), object);
    } else if let Some(named) = objects.get_mut(&key.namespace) {
        named.remove(&key.name);
        if named.is_empty() {
            objects.remove(&key.namespace);
        }
    }
}
