//! A node of the cluster with the agent's own tables: parse, state, compile, and the decision of the datapath.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use serde::Deserialize as _;
use weir_agent::compile::policy::{Change, Fingerprint, Named, PolicyCompiler, Sizes, Update};
use weir_agent::source::{
    ApiClusterNetworkPolicy, Event, ObjectKey, Problem, Protocol, parse_cluster_network_policy,
    parse_namespace, parse_network_policy, parse_pod,
};
use weir_agent::state::State;
use weir_ebpf::abi::{PodPolicy, Port, Side};
use weir_ebpf::datapath::policy::{Access, Judgement, judge, judge_rules};
use weir_ebpf::testing::MemoryPolicy;

use super::cluster::{Cluster, Flow, Name};
use super::hooks::Hooks;
use super::reference::{Answer, Ruling};

/// Which pods are on a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Placement {
    /// All of them.
    All,
    /// This one alone.
    One(Name),
    /// Those whose `spec.nodeName` is this.
    Named(String),
}

/// See the module.
#[derive(Debug)]
pub struct Node {
    placement: Placement,
    state: State,
    compiler: PolicyCompiler,
    /// What was told, so that what is gone can be told too.
    namespaces: BTreeSet<String>,
    pods: BTreeSet<Name>,
    policies: BTreeSet<Name>,
    cluster_policies: BTreeSet<String>,
    /// What the numbers mean.
    names: HashMap<Named, Fingerprint>,
    /// The tables as they are after the last [`Node::sync`].
    pub tables: MemoryPolicy,
}

/// The name of the node in its own world.
const HERE: &str = "here";

impl Node {
    /// A node that knows nothing yet.
    #[must_use]
    pub fn new(placement: Placement) -> Self {
        let name = match &placement {
            Placement::Named(name) => name.clone(),
            Placement::All | Placement::One(_) => HERE.to_owned(),
        };
        Self {
            placement,
            state: State::new(name),
            compiler: PolicyCompiler::new(),
            namespaces: BTreeSet::new(),
            pods: BTreeSet::new(),
            policies: BTreeSet::new(),
            cluster_policies: BTreeSet::new(),
            names: HashMap::new(),
            tables: MemoryPolicy::default(),
        }
    }

    /// One that begins with tables in which numbers have these meanings.
    pub fn adopting(placement: Placement, names: impl IntoIterator<Item = (Named, Fingerprint)>) -> Self {
        Self { compiler: PolicyCompiler::adopting(names), ..Self::new(placement) }
    }

    /// Takes in the cluster as it is now, and writes what is different; returns what was written.
    pub fn sync(&mut self, cluster: &Cluster) -> Update {
        let update = self.compile(cluster);
        for change in update.changes.iter().chain(&update.garbage) {
            write(&mut self.tables, change);
            if let Change::Name(named, name) = change {
                match name {
                    Some(name) => self.names.insert(*named, *name),
                    None => self.names.remove(named),
                };
            }
        }
        update
    }

    /// The agent begins anew, with the tables and the names that are there, and hears of a cluster that is as it was. What it
    /// would have written from nothing is in the result.
    pub fn restart(&mut self, cluster: &Cluster) -> (MemoryPolicy, Update) {
        let mut other = Self::new(self.placement.clone());
        other.compiler = PolicyCompiler::adopting(self.names.iter().map(|(named, name)| (*named, *name)));
        let update = other.sync(cluster);
        let desired = std::mem::replace(&mut other.tables, self.tables.clone());
        other.names.clone_from(&self.names);
        *self = other;
        (desired, update)
    }

    /// The same without writing it.
    pub fn compile(&mut self, cluster: &Cluster) -> Update {
        self.tell(cluster);
        let changes = self.state.take_policy_changes();
        self.compiler.update(self.state.policy(), &changes)
    }

    /// How much there is in the tables.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        self.compiler.sizes()
    }

    /// What its tables say by their rules, whoever speaks with whom. An end that is no pod of this node is asked nothing.
    #[must_use]
    pub fn judge(&self, flow: &Flow) -> Answer {
        judge_by(&self.tables, flow)
    }

    /// What they say of a flow in all, with what is said before rules are asked.
    #[must_use]
    pub fn passes(&self, flow: &Flow) -> bool {
        let ends = ends(flow);
        let is_pod = |access: &&Access| self.tables.pods.contains_key(&access.pod);
        ends.iter().filter(is_pod).all(|access| judge(&self.tables, access).passes())
    }

    /// The same by packets at the hooks, replies included.
    #[must_use]
    pub fn passes_hooks(&self, flow: &Flow) -> bool {
        Hooks::new(&self.tables).pass(flow)
    }

    /// The same of many flows.
    #[must_use]
    pub fn pass_hooks(&self, flows: &[Flow]) -> Vec<bool> {
        let hooks = Hooks::new(&self.tables);
        flows.iter().map(|flow| hooks.pass(flow)).collect()
    }

    /// All that is wrong with the objects.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.state.problems().map(|(object, problem)| format!("{object}: {problem}")).collect()
    }

    fn tell(&mut self, cluster: &Cluster) {
        let mut events = Vec::new();
        for (name, namespace) in &cluster.namespaces {
            events.push(Event::Namespace(name.as_str().into(), parse_namespace(namespace).object));
        }
        for (name, pod) in &cluster.pods {
            events.push(Event::Pod(key(name), parse_pod(&self.place(name, pod)).object));
        }
        for (name, policy) in &cluster.policies {
            let parsed = parse_network_policy(policy);
            events.push(Event::NetworkPolicy(key(name), parsed.object));
            events.push(problems("NetworkPolicy", name, parsed.problems));
        }
        for (name, policy) in &cluster.cluster_policies {
            let api: ApiClusterNetworkPolicy =
                ApiClusterNetworkPolicy::deserialize(policy).unwrap_or_default();
            let parsed = parse_cluster_network_policy(&api);
            events.push(Event::ClusterNetworkPolicy(name.as_str().into(), parsed.object));
            events.push(problems("ClusterNetworkPolicy", &(String::new(), name.clone()), parsed.problems));
        }
        let gone = |before: &BTreeSet<Name>, is_there: &dyn Fn(&Name) -> bool| -> Vec<Name> {
            before.iter().filter(|name| !is_there(name)).cloned().collect()
        };
        for name in gone(&self.policies, &|name| cluster.policies.contains_key(name)) {
            events.push(Event::NetworkPolicy(key(&name), None));
            events.push(problems("NetworkPolicy", &name, Vec::new()));
        }
        for name in gone(&self.pods, &|name| cluster.pods.contains_key(name)) {
            events.push(Event::Pod(key(&name), None));
        }
        for name in self.namespaces.iter().filter(|name| !cluster.namespaces.contains_key(*name)) {
            events.push(Event::Namespace(name.as_str().into(), None));
        }
        for name in self.cluster_policies.iter().filter(|name| !cluster.cluster_policies.contains_key(*name))
        {
            events.push(Event::ClusterNetworkPolicy(name.as_str().into(), None));
            events.push(problems("ClusterNetworkPolicy", &(String::new(), name.clone()), Vec::new()));
        }
        self.cluster_policies = cluster.cluster_policies.keys().cloned().collect();
        self.namespaces = cluster.namespaces.keys().cloned().collect();
        self.pods = cluster.pods.keys().cloned().collect();
        self.policies = cluster.policies.keys().cloned().collect();
        events.into_iter().for_each(|event| self.state.apply(event));
    }

    /// The pod as it is placed.
    fn place(&self, name: &Name, pod: &core::Pod) -> core::Pod {
        let here = match &self.placement {
            Placement::Named(_) => return pod.clone(),
            Placement::All => true,
            Placement::One(one) => one == name,
        };
        let mut pod = pod.clone();
        pod.spec.get_or_insert_default().node_name = Some(if here { HERE } else { "elsewhere" }.to_owned());
        pod
    }
}

/// What tables say by their rules.
#[must_use]
pub fn judge_by(tables: &MemoryPolicy, flow: &Flow) -> Answer {
    let open = PodPolicy::OPEN;
    let [egress, ingress] = ends(flow).map(|access| {
        let policy = tables.pods.get(&access.pod).copied().unwrap_or(open);
        match judge_rules(tables, policy.set(access.side), &access) {
            Judgement::Denied(..) | Judgement::NotAPod => Ruling::Denied,
            Judgement::Audited(..) => Ruling::Audited,
            Judgement::Itself | Judgement::Open | Judgement::Allowed(..) => Ruling::Allowed,
        }
    });
    Answer { egress, ingress }
}

/// What the source and what the destination is asked.
fn ends(flow: &Flow) -> [Access; 2] {
    let (source, dest) = (flow.source.into(), flow.dest.into());
    let icmp = if matches!(flow.dest, IpAddr::V4(_)) { 1 } else { 58 };
    let protocol = flow.protocol.map_or(icmp, |protocol: Protocol| protocol as u8);
    let port = Port::new(flow.port);
    [
        Access { side: Side::Egress, pod: source, peer: dest, protocol, port },
        Access { side: Side::Ingress, pod: dest, peer: source, protocol, port },
    ]
}

/// Writes one row.
pub fn write(tables: &mut MemoryPolicy, change: &Change) {
    match *change {
        Change::PortRule(key, Some(row)) => drop(tables.port_rules.insert(key, row)),
        Change::PortRule(key, None) => drop(tables.port_rules.remove(&key)),
        Change::Verdict(key, Some(row)) => drop(tables.verdicts.insert(key, row)),
        Change::Verdict(key, None) => drop(tables.verdicts.remove(&key)),
        Change::Network(key, Some(row)) => drop(tables.networks.insert(key, row)),
        Change::Network(key, None) => drop(tables.networks.remove(&key)),
        Change::Address(key, Some(row)) => drop(tables.addresses.insert(key, row)),
        Change::Address(key, None) => drop(tables.addresses.remove(&key)),
        Change::Pod(key, Some(row)) => drop(tables.pods.insert(key, row)),
        Change::Pod(key, None) => drop(tables.pods.remove(&key)),
        Change::Name(..) | Change::Exact(..) => {}
    }
}

fn key((namespace, name): &Name) -> ObjectKey {
    ObjectKey::new(namespace.as_str(), name.as_str())
}

fn problems(kind: &'static str, (namespace, name): &Name, problems: Vec<Problem>) -> Event {
    let (namespace, name): (Arc<str>, Arc<str>) = (namespace.as_str().into(), name.as_str().into());
    Event::Problems(weir_agent::source::ObjectRef { kind, namespace, name }, problems)
}
