//! Pods, namespaces and policies, and what of them changed. Read by `compile::policy`.
//!
//! An address belongs to one pod: of those that claim it, the youngest. The network gave it to that one; the others have
//! lost it, and nobody has said so yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::demand::Demand;
use crate::source::{Labels, Namespace, NetworkPolicy, ObjectKey, Pod, PolicyDemand, PolicySync};

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
    /// The pods of this node.
    here: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
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
            claimants: HashMap::new(),
            here: HashMap::new(),
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

    /// How many pods and policies there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.pods.values().map(BTreeMap::len).sum(), self.policies.values().map(BTreeMap::len).sum())
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

    /// A pod by its name.
    #[must_use]
    pub fn pod(&self, key: &ObjectKey) -> Option<&Pod> {
        self.pods.get(&key.namespace)?.get(&key.name)
    }

    /// Whether there are policies at all.
    #[must_use]
    pub fn has_policies(&self) -> bool {
        !self.policies.is_empty()
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
        if names.is_empty() {
            self.here.remove(&key.namespace);
        }
        for (name, policy) in self.policies.get(&key.namespace).into_iter().flatten() {
            let matches = |labels: Option<&Labels>| labels.is_some_and(|labels| policy.pods.matches(labels));
            let (before, after) = (matches(before), matches(after));
            if before != after {
                let key = ObjectKey { namespace: key.namespace.clone(), name: name.clone() };
                self.demand.count_pod(&key, policy, after, &self.namespaces);
            }
        }
    }

    /// The pods of this node in a namespace.
    fn pods_here(&self, namespace: &str) -> impl Iterator<Item = &Pod> {
        let names = self.here.get(namespace).into_iter().flatten();
        let pods = self.pods.get(namespace);
        names.filter_map(move |name| pods?.get(name))
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
        let labels = |namespace: &Option<Namespace>| namespace.as_ref().map(|one| one.labels.clone());
        self.demand.set_namespace(name, labels(&before).as_ref(), labels(&namespace).as_ref());
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
        let touched =
            self.pods_here(&key.namespace).filter(|pod| selectors.iter().any(|one| one.matches(&pod.labels)));
        let touched: Vec<IpAddr> = touched.flat_map(|pod| &pod.addresses).copied().collect();
        let selects = policy.as_ref().map_or(0, |policy| {
            self.pods_here(&key.namespace).filter(|pod| policy.pods.matches(&pod.labels)).count()
        });
        self.demand.set_policy(key, (before, policy.as_ref()), selects, &self.namespaces);
        self.changes.workloads.extend(touched);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Labels, Requirement, Selector, Test};

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    fn addr(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn addresses(last: &[u8]) -> BTreeSet<IpAddr> {
        last.iter().map(|last| addr(*last)).collect()
    }

    fn pod(node: &str, label: &str, created_s: Option<i64>, last: &[u8]) -> Pod {
        Pod {
            created_s,
            labels: Labels::from_iter([("app".into(), label.into())]),
            addresses: last.iter().map(|last| addr(*last)).collect(),
            ports: Box::default(),
            node: Some(node.into()),
        }
    }

    fn policy(label: &str) -> NetworkPolicy {
        let test = Test::In([label.into()].into());
        let pods = Selector::from_iter([Requirement { key: "app".into(), test }]);
        NetworkPolicy { pods, ingress: None, egress: None }
    }

    /// Three pods here and one there; nothing waits to be looked at.
    fn state() -> PolicyState {
        let mut state = PolicyState::new("here".into());
        for (name, node, label, last) in
            [("a", "here", "x", 1), ("b", "here", "x", 2), ("c", "here", "y", 3), ("d", "there", "x", 4)]
        {
            state.apply_pod(&key(name), Some(pod(node, label, None, &[last])));
        }
        assert_eq!(state.take_changes().workloads, addresses(&[1, 2, 3, 4]));
        state
    }

    #[test]
    fn a_policy_touches_the_pods_here_that_it_selects_or_selected() {
        let mut state = state();
        state.apply_policy(&key("p"), Some(policy("x")));
        let expected = PolicyChanges { workloads: addresses(&[1, 2]), ..PolicyChanges::default() };
        assert_eq!(state.take_changes(), expected);
        state.apply_policy(&key("p"), Some(policy("x")));
        assert_eq!(state.take_changes(), PolicyChanges::default(), "it is the same");
        state.apply_policy(&key("p"), Some(policy("y")));
        assert_eq!(state.take_changes().workloads, addresses(&[1, 2, 3]));
        state.apply_policy(&key("p"), None);
        assert_eq!(state.take_changes().workloads, addresses(&[3]));
        let elsewhere = ObjectKey::new("other", "p");
        state.apply_policy(&elsewhere, Some(policy("x")));
        assert_eq!(state.take_changes(), PolicyChanges::default());
    }

    #[test]
    fn a_namespace_touches_its_pods_as_peers() {
        let mut state = state();
        let labels = Labels::from_iter([("team".into(), "t".into())]);
        state.apply_namespace(&"ns".into(), Some(Namespace { labels: labels.clone() }));
        let expected = PolicyChanges { peers: addresses(&[1, 2, 3, 4]), workloads: BTreeSet::new() };
        assert_eq!(state.take_changes(), expected);
        state.apply_namespace(&"ns".into(), Some(Namespace { labels }));
        assert_eq!(state.take_changes(), PolicyChanges::default(), "it is the same");
        state.apply_namespace(&"other".into(), None);
        assert_eq!(state.take_changes(), PolicyChanges::default());
    }

    #[test]
    fn a_pod_touches_the_addresses_that_it_has_and_had() {
        let mut state = state();
        state.apply_pod(&key("a"), Some(pod("here", "x", None, &[1])));
        assert_eq!(state.take_changes(), PolicyChanges::default(), "it is the same");
        state.apply_pod(&key("a"), Some(pod("here", "x", None, &[5, 6])));
        let changes = state.take_changes();
        assert_eq!((changes.peers, changes.workloads), (addresses(&[1, 5, 6]), addresses(&[1, 5, 6])));
        assert_eq!(state.owner(addr(1)), None);
        state.apply_pod(&key("a"), None);
        assert_eq!(state.take_changes().peers, addresses(&[5, 6]));
        assert_eq!((state.owner(addr(5)), state.all_pods().count()), (None, 3));
    }

    #[test]
    fn of_several_pods_the_youngest_has_the_address() {
        let name = |state: &PolicyState| state.owner(addr(9)).map(|view| view.name.to_string());
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let mut state = PolicyState::new("here".into());
            let pods = [("old", Some(1)), ("young", Some(2)), ("ageless", None)];
            for (name, created_s) in order.map(|at| pods[at]) {
                state.apply_pod(&key(name), Some(pod("here", "x", created_s, &[9])));
            }
            assert_eq!(name(&state).as_deref(), Some("young"));
            assert_eq!(state.workload(addr(9)).map(|view| &**view.name), Some("young"));
            state.apply_pod(&key("young"), Some(pod("there", "x", Some(2), &[9])));
            assert_eq!(state.workload(addr(9)), None, "it is none of ours any more");
            state.apply_pod(&key("young"), None);
            assert_eq!(name(&state).as_deref(), Some("old"));
            state.apply_pod(&key("old"), None);
            assert_eq!(name(&state).as_deref(), Some("ageless"));
        }
    }
}
