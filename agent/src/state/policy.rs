//! Pods, namespaces and policies, and what of them changed. Read by `compile::policy`.
//!
//! An address belongs to one pod: of those that claim it, the youngest. The network gave it to that one; the others have
//! lost it, and nobody has said so yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::source::{Namespace, NetworkPolicy, ObjectKey, Pod};

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
    /// The pods that say that they have an address; hardly ever more than one.
    claimants: HashMap<IpAddr, Vec<ObjectKey>>,
    changes: PolicyChanges,
}

/// What must be looked at again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PolicyChanges {
    /// Addresses that may be matched by other selectors, or have other port names, than before.
    pub peers: BTreeSet<IpAddr>,
    /// Addresses that may be isolated in another way than before, or be no longer this node's.
    pub workloads: BTreeSet<IpAddr>,
    /// Namespaces whose labels are others than before.
    pub namespaces: BTreeSet<Arc<str>>,
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
            claimants: HashMap::new(),
            changes: PolicyChanges::default(),
        }
    }

    /// What changed since the last call.
    pub(super) fn take_changes(&mut self) -> PolicyChanges {
        std::mem::take(&mut self.changes)
    }

    /// The pod that has an address.
    #[must_use]
    pub fn owner(&self, addr: IpAddr) -> Option<PodView<'_>> {
        let claimants = self.claimants.get(&addr)?.iter().filter_map(|key| {
            let (name, pod) = self.pods.get(&key.namespace)?.get_key_value(&key.name)?;
            Some(PodView { namespace: &key.namespace, name, pod })
        });
        // The names, so that every node and every order of events finds the same one.
        claimants.max_by_key(|view| (view.pod.created_s, view.namespace, view.name))
    }

    /// The pod of this node that has an address.
    #[must_use]
    pub fn workload(&self, addr: IpAddr) -> Option<PodView<'_>> {
        self.owner(addr).filter(|view| self.is_here(view.pod))
    }

    /// A namespace; `None` where it is not known (yet), though pods of it may be.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// The names of all namespaces that have pods.
    pub fn populated(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pods.keys()
    }

    /// The pods of a namespace.
    pub fn pods(&self, namespace: &str) -> impl Iterator<Item = &Pod> {
        self.pods.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// The policies of a namespace, in the order of their names.
    pub fn policies(&self, namespace: &str) -> impl Iterator<Item = &NetworkPolicy> {
        self.policies.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    fn is_here(&self, pod: &Pod) -> bool {
        pod.node.as_deref() == Some(&*self.node)
    }

    pub(super) fn apply_pod(&mut self, key: &ObjectKey, pod: Option<Pod>) {
        let before = self.pods.get(&key.namespace).and_then(|pods| pods.get(&key.name));
        if before == pod.as_ref() {
            return;
        }
        let before: Box<[IpAddr]> = before.map(|pod| pod.addresses.clone()).unwrap_or_default();
        let after = pod.as_ref().map(|pod| &*pod.addresses).unwrap_or_default();
        for addr in before.iter().filter(|addr| !after.contains(addr)) {
            self.unclaim(*addr, key);
        }
        for addr in after.iter().filter(|addr| !before.contains(addr)) {
            // Most have one for ever: no room for more.
            self.claimants.entry(*addr).or_insert_with(|| Vec::with_capacity(1)).push(key.clone());
        }
        for addr in before.iter().chain(after) {
            self.changes.peers.insert(*addr);
            self.changes.workloads.insert(*addr);
        }
        replace(&mut self.pods, key, pod);
    }

    /// Whom policies of the namespace select does not depend on its labels: they decide about its pods as peers alone.
    pub(super) fn apply_namespace(&mut self, name: &Arc<str>, namespace: Option<Namespace>) {
        let before = match namespace.clone() {
            Some(namespace) => self.namespaces.insert(name.clone(), namespace),
            None => self.namespaces.remove(name),
        };
        if before == namespace {
            return;
        }
        self.changes.namespaces.insert(name.clone());
        let pods = self.pods.get(name).into_iter().flat_map(BTreeMap::values);
        self.changes.peers.extend(pods.flat_map(|pod| &pod.addresses));
    }

    /// The pods here that it selects or selected.
    pub(super) fn apply_policy(&mut self, key: &ObjectKey, policy: Option<NetworkPolicy>) {
        let before = self.policies.get(&key.namespace).and_then(|policies| policies.get(&key.name));
        if before == policy.as_ref() {
            return;
        }
        let selectors = [before, policy.as_ref()].into_iter().flatten().map(|policy| &policy.pods);
        let selectors: Vec<_> = selectors.collect();
        let pods = self.pods.get(&key.namespace).into_iter().flat_map(BTreeMap::values);
        let touched = pods
            .filter(|pod| pod.node.as_deref() == Some(&*self.node))
            .filter(|pod| selectors.iter().any(|selector| selector.matches(&pod.labels)));
        self.changes.workloads.extend(touched.flat_map(|pod| &pod.addresses));
        replace(&mut self.policies, key, policy);
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
