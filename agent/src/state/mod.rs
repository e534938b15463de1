//! The cluster as this node needs it, kept from events; knows what changed since it was last asked.
//!
//! The agent's main loop applies each [`Event`] of a source, takes the dirty Services, and has `compile` look at
//! those alone: what a change costs does not depend on how many Services there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weir_ebpf::abi::AddressUses;

use crate::network::Facts;
use crate::source::{
    EndpointSlice, Event, Interner, Node, NodeAddress, ObjectKey, ObjectRef, Problem, Service,
};

mod demand;
mod node_ports;
mod policy;

pub use demand::NARROW;
pub use node_ports::NodePortAddresses;
pub use policy::{
    Behind, ClusterPolicyView, Given, Placement, PodView, PolicyChanges, PolicyState, Selected, Unknown,
};

#[cfg(test)]
mod tests;

/// The cluster's objects, joined.
#[derive(Debug)]
pub struct State {
    node: NodeView,
    node_ports: NodePortAddresses,
    /// What each address of this node is used for; `None` until somebody said.
    addresses: Option<BTreeMap<IpAddr, AddressUses>>,
    /// Whether load balancers should send this node no new connections.
    leaving: bool,
    /// `Node.spec.podCIDRs`
    pod_networks: Box<[IpNet]>,
    /// Whether `addresses` changed since [`State::take_addresses_changed`].
    addresses_changed: bool,
    /// Services, and what slices say of Services that are not there (yet, or any more).
    entries: HashMap<ObjectKey, Entry>,
    /// Which Service each slice belongs to, by its name; the namespace is the slice's.
    owners: HashMap<ObjectKey, Arc<str>>,
    dirty: BTreeSet<ObjectKey>,
    policy: PolicyState,
    problems: BTreeMap<ObjectRef, Vec<Problem>>,
    /// Whether `problems` changed since [`State::take_problems_changed`].
    problems_changed: bool,
    counts: Counts,
    synced: bool,
    interner: Interner,
}

/// A Service and its slices; either may be missing, not both.
#[derive(Debug, Default)]
struct Entry {
    service: Option<Service>,
    /// By name, so that their order never depends on the order of events.
    slices: BTreeMap<Arc<str>, EndpointSlice>,
}

/// This node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeView {
    /// `metadata.name`
    pub name: Arc<str>,
    /// The zone it is in, as far as it is known.
    pub zone: Option<Arc<str>>,
}

/// A Service with all that decides about its backends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceView<'a> {
    /// Which Service.
    pub key: &'a ObjectKey,
    /// The Service.
    pub service: &'a Service,
    /// Its slices of both families, in the order of their names.
    pub slices: Vec<&'a EndpointSlice>,
}

/// How much there is, for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Services that are ours.
    pub services: usize,
    /// EndpointSlices, with those of Services that are not there.
    pub slices: usize,
    /// Endpoints in these slices, usable or not.
    pub endpoints: usize,
    /// Pods that policies may select or mean: those of this node, and of other nodes those that are asked for.
    #[serde(default)]
    pub pods: usize,
    /// NetworkPolicies.
    #[serde(default)]
    pub policies: usize,
    /// ClusterNetworkPolicies.
    #[serde(default)]
    pub cluster_policies: usize,
    /// Those of both that are audited. Of a namespace that is not asked for it is not known.
    #[serde(default)]
    pub audited: usize,
}

impl State {
    /// An empty cluster, seen from this node.
    #[must_use]
    pub fn new(node_name: impl Into<Arc<str>>) -> Self {
        let name = node_name.into();
        Self {
            policy: PolicyState::new(name.clone()),
            node: NodeView { name, zone: None },
            node_ports: NodePortAddresses::All,
            addresses: None,
            leaving: false,
            pod_networks: Box::default(),
            addresses_changed: false,
            entries: HashMap::new(),
            owners: HashMap::new(),
            dirty: BTreeSet::new(),
            problems: BTreeMap::new(),
            problems_changed: false,
            counts: Counts::default(),
            synced: false,
            interner: Interner::default(),
        }
    }

    /// The same with node ports at these addresses of the node alone.
    #[must_use]
    pub fn with_node_ports(self, node_ports: NodePortAddresses) -> Self {
        Self { node_ports, ..self }
    }

    /// Takes in one event. Events about different objects may come in any order: slices before their Service,
    /// and after it is gone.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Service(key, service) => self.apply_service(key, service),
            Event::EndpointSlice(key, slice) => self.apply_slice(key, slice),
            Event::Node(name, node) => self.apply_node(&name, node),
            Event::Pod(mut key, mut pod) => {
                self.interner.share_key(&mut key);
                pod.iter_mut().for_each(|pod| self.interner.share_pod(pod));
                self.policy.apply_pod(&key, pod);
            }
            Event::Namespace(mut name, mut namespace) => {
                self.interner.share(&mut name);
                namespace.iter_mut().for_each(|namespace| self.interner.share_namespace(namespace));
                self.policy.apply_namespace(&name, namespace);
            }
            Event::NetworkPolicy(mut key, policy) => {
                self.interner.share_key(&mut key);
                self.policy.apply_policy(&key, policy);
            }
            Event::ClusterNetworkPolicy(name, policy) => self.policy.apply_cluster_policy(&name, policy),
            Event::NodeAddresses(addresses) => self.apply_addresses(&addresses),
            Event::Problems(object, problems) => {
                self.problems_changed = true;
                if problems.is_empty() {
                    self.problems.remove(&object);
                } else {
                    self.problems.insert(object, problems);
                }
            }
            Event::PolicySync(sync) => self.policy.apply_sync(sync),
            Event::Synced => self.synced = true,
        }
    }

    /// The Services whose plan may have changed since the last call, in the order of their keys; also those that
    /// are gone.
    pub fn take_dirty(&mut self) -> Vec<ObjectKey> {
        std::mem::take(&mut self.dirty).into_iter().collect()
    }

    /// Pods, namespaces and policies.
    #[must_use]
    pub fn policy(&self) -> &PolicyState {
        &self.policy
    }

    /// Puts the pods of this node and its devices together. What policies say is said of the pods that are found. Where `given`
    /// has no networks it is as the Node says.
    pub fn place(&mut self, facts: &Facts, given: Given<'_>) -> Placement {
        let networks = if given.networks.is_empty() { &self.pod_networks } else { given.networks };
        let placement = self.policy.place(facts, &Given { networks, ..given });
        self.policy.set_placement(&placement);
        placement
    }

    /// Whether a pod of this node came, went or changed since the last call.
    pub fn take_pods_here_changed(&mut self) -> bool {
        self.policy.take_pods_here_changed()
    }

    /// The networks of which this node's pods have their addresses, as its Node says.
    #[must_use]
    pub fn pod_networks(&self) -> &[IpNet] {
        &self.pod_networks
    }

    /// What changed among them since the last call.
    pub fn take_policy_changes(&mut self) -> PolicyChanges {
        self.policy.take_changes()
    }

    /// The same for tables that an earlier agent may have left: `None` until all is known once that policies here ask for.
    /// Until then the tables must stay as they are, or what is allowed would be denied for a while, and what is isolated
    /// opened where the source tells nothing. Then everything, once; and from then on what changed.
    pub fn take_policy_update(&mut self) -> Option<PolicyChanges> {
        self.policy.take_update()
    }

    /// A Service that is ours, with its slices.
    #[must_use]
    pub fn service(&self, key: &ObjectKey) -> Option<ServiceView<'_>> {
        let (key, entry) = self.entries.get_key_value(key)?;
        let service = entry.service.as_ref()?;
        Some(ServiceView { key, service, slices: entry.slices.values().collect() })
    }

    /// Some Service that has this address, at whatever port: all are looked at.
    #[must_use]
    pub fn service_at(&self, addr: IpAddr) -> Option<&ObjectKey> {
        let has = |service: &Service| {
            [&*service.cluster_ips, &service.external_ips, &service.load_balancer_ips]
                .iter()
                .any(|addresses| addresses.contains(&addr))
        };
        self.entries.iter().find(|(_, entry)| entry.service.as_ref().is_some_and(has)).map(|(key, _)| key)
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> &NodeView {
        &self.node
    }

    /// Whether this node is being deleted, or about to be.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// What each address of this node is used for; `None` until a source said.
    #[must_use]
    pub fn addresses(&self) -> Option<&BTreeMap<IpAddr, AddressUses>> {
        self.addresses.as_ref()
    }

    /// Whether [`State::addresses`] says something else than when this was last asked.
    pub fn take_addresses_changed(&mut self) -> bool {
        std::mem::take(&mut self.addresses_changed)
    }

    /// Whether all Services, slices and nodes that existed at the start have been told: what is not here does not exist.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The same; and of policies all that they ask for was told, or the source may not tell it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.synced && self.policy.is_settled()
    }

    /// Whether [`State::problems`] may say something else than when this was last asked.
    pub fn take_problems_changed(&mut self) -> bool {
        std::mem::take(&mut self.problems_changed)
    }

    /// Everything that is wrong with any object, in the order of the objects.
    pub fn problems(&self) -> impl Iterator<Item = (&ObjectRef, &Problem)> {
        self.problems
            .iter()
            .flat_map(|(object, problems)| problems.iter().map(move |problem| (object, problem)))
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Counts { services, slices, endpoints, .. } = self.counts;
        Counts { services, slices, endpoints, ..self.policy.counts() }
    }

    fn apply_service(&mut self, mut key: ObjectKey, mut service: Option<Service>) {
        self.interner.share_key(&mut key);
        if let Some(service) = &mut service {
            self.interner.share_service(service);
        }
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.service != service {
            self.counts.services -= usize::from(entry.service.is_some());
            self.counts.services += usize::from(service.is_some());
            entry.service = service;
            self.dirty.insert(key.clone());
        }
        self.forget_if_empty(&key);
    }

    fn apply_slice(&mut self, mut key: ObjectKey, mut slice: Option<EndpointSlice>) {
        self.interner.share_key(&mut key);
        if let Some(slice) = &mut slice {
            self.interner.share_slice(slice);
        }
        let owner = |service: &Arc<str>| ObjectKey::new(key.namespace.clone(), service.clone());
        let before = self.owners.get(&key).map(owner);
        let after = slice.as_ref().map(|slice| owner(&slice.service));
        if let Some(before) = before.filter(|before| Some(before) != after.as_ref()) {
            self.set_slice(&before, &key.name, None);
        }
        match (after, slice) {
            (Some(after), Some(slice)) => {
                self.owners.insert(key.clone(), slice.service.clone());
                self.set_slice(&after, &key.name, Some(slice));
            }
            _ => {
                self.owners.remove(&key);
            }
        }
    }

    /// Puts a slice into, or takes it out of, the entry of a Service.
    fn set_slice(&mut self, service: &ObjectKey, name: &Arc<str>, slice: Option<EndpointSlice>) {
        let entry = self.entries.entry(service.clone()).or_default();
        if entry.slices.get(name) == slice.as_ref() {
            return;
        }
        if let Some(slice) = &slice {
            self.counts.slices += 1;
            self.counts.endpoints += slice.endpoints.len();
        }
        let before = match slice {
            Some(slice) => entry.slices.insert(name.clone(), slice),
            None => entry.slices.remove(name),
        };
        if let Some(before) = before {
            self.counts.slices -= 1;
            self.counts.endpoints -= before.endpoints.len();
        }
        if entry.service.is_some() {
            self.dirty.insert(service.clone());
        }
        self.forget_if_empty(service);
    }

    /// Only this node matters; and of it, only a zone that is another one.
    fn apply_node(&mut self, name: &str, node: Option<Node>) {
        if *name != *self.node.name {
            return;
        }
        // One that is gone is on its way out, too.
        self.leaving = node.as_ref().is_none_or(|node| node.leaving);
        // Nobody takes them back from a Node that is there; one that is gone comes back with the same, or with others.
        if let Some(node) = &node
            && self.pod_networks != node.pod_networks
        {
            self.pod_networks.clone_from(&node.pod_networks);
            self.policy.look_at_places();
        }
        let zone = node.and_then(|node| node.zone);
        if zone == self.node.zone {
            return;
        }
        self.node.zone = zone;
        let services = self.entries.iter().filter(|(_, entry)| entry.service.is_some());
        self.dirty.extend(services.map(|(key, _)| key.clone()));
    }

    /// No Service is dirty by it: their plans do not depend on the addresses of the node.
    fn apply_addresses(&mut self, found: &[NodeAddress]) {
        let mut addresses = BTreeMap::<_, AddressUses>::new();
        for address in found {
            // On two devices at once, it is used for what it is used for on either.
            let uses = addresses.entry(address.addr).or_default();
            *uses = uses.and(self.node_ports.uses(*address));
        }
        if self.addresses.as_ref() != Some(&addresses) {
            self.addresses = Some(addresses);
            self.addresses_changed = true;
        }
    }

    fn forget_if_empty(&mut self, key: &ObjectKey) {
        if self.entries.get(key).is_some_and(|entry| entry.service.is_none() && entry.slices.is_empty()) {
            self.entries.remove(key);
        }
    }
}
