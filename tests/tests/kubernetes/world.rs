//! An API server, a source that watches it, and what the source's events add up to.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weir_agent::source::{
    Announcer, ApiClusterNetworkPolicy, ClusterNetworkPolicy, Connection, EndpointSlice, Event, Health,
    Kubernetes, KubernetesOptions, Namespace, NamespaceDemand, NetworkPolicy, Node, ObjectKey, ObjectRef,
    Parsed, Pod, PodDemand, PolicyDemand, Problem, Service, parse_cluster_network_policy, parse_namespace,
    parse_network_policy, parse_node, parse_pod, parse_service, parse_slice,
};
use weir_agent::state::State;
use weir_tests::apiserver::{ApiServer, ServerOptions};

/// The node that the source is on.
pub(crate) const NODE: &str = "node-a";

/// How long a test waits for what must happen. Nothing is slower when it passes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The objects that count, as events tell them or as a server holds them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Objects {
    pub(crate) services: BTreeMap<ObjectKey, Service>,
    pub(crate) slices: BTreeMap<ObjectKey, EndpointSlice>,
    pub(crate) nodes: BTreeMap<Arc<str>, Node>,
    pub(crate) pods: BTreeMap<ObjectKey, Pod>,
    pub(crate) namespaces: BTreeMap<Arc<str>, Namespace>,
    pub(crate) policies: BTreeMap<ObjectKey, NetworkPolicy>,
    pub(crate) cluster_policies: BTreeMap<Arc<str>, ClusterNetworkPolicy>,
}

impl Objects {
    /// What a source on [`NODE`] should know, of which this is asked for.
    pub(crate) fn of(server: &ApiServer, demand: &PolicyDemand) -> Self {
        Self::of_lists(|kind| server.truth(kind), demand)
    }

    /// The same, of a server's lists by kind.
    pub(crate) fn of_lists(list: impl Fn(&str) -> Vec<Value>, demand: &PolicyDemand) -> Self {
        let objects = Self {
            services: parse_all(list("Service"), parse_service),
            slices: parse_all(list("EndpointSlice"), parse_slice),
            nodes: by_name(parse_all(list("Node"), parse_node)),
            pods: parse_all(list("Pod"), parse_pod),
            namespaces: by_name(parse_all(list("Namespace"), parse_namespace)),
            policies: parse_all(list("NetworkPolicy"), parse_network_policy),
            cluster_policies: by_name(parse_all::<ApiClusterNetworkPolicy, _>(
                list("ClusterNetworkPolicy"),
                parse_cluster_network_policy,
            )),
        };
        objects.demanded(demand)
    }

    /// Of all that there is, what is to be told.
    fn demanded(mut self, demand: &PolicyDemand) -> Self {
        self.nodes.retain(|name, _| **name == *NODE);
        self.namespaces.retain(|name, _| match &demand.namespaces {
            NamespaceDemand::All => true,
            NamespaceDemand::Of(names) => names.contains(name),
        });
        self.pods.retain(|key, pod| match (pod.node.as_deref(), &demand.pods) {
            (Some(NODE), _) => true,
            (None, _) => false,
            (Some(_), PodDemand::All) => true,
            (Some(_), PodDemand::Of(namespaces)) => namespaces.contains(&key.namespace),
        });
        self
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Service(key, Some(service)) => drop(self.services.insert(key, service)),
            Event::Service(key, None) => drop(self.services.remove(&key)),
            Event::EndpointSlice(key, Some(slice)) => drop(self.slices.insert(key, slice)),
            Event::EndpointSlice(key, None) => drop(self.slices.remove(&key)),
            Event::Node(name, Some(node)) => drop(self.nodes.insert(name, node)),
            Event::Node(name, None) => drop(self.nodes.remove(&name)),
            Event::Pod(key, Some(pod)) => drop(self.pods.insert(key, pod)),
            Event::Pod(key, None) => drop(self.pods.remove(&key)),
            Event::Namespace(name, Some(namespace)) => drop(self.namespaces.insert(name, namespace)),
            Event::Namespace(name, None) => drop(self.namespaces.remove(&name)),
            Event::NetworkPolicy(key, Some(policy)) => drop(self.policies.insert(key, policy)),
            Event::NetworkPolicy(key, None) => drop(self.policies.remove(&key)),
            Event::ClusterNetworkPolicy(name, Some(policy)) => {
                drop(self.cluster_policies.insert(name, policy));
            }
            Event::ClusterNetworkPolicy(name, None) => drop(self.cluster_policies.remove(&name)),
            Event::NodeAddresses(_) | Event::Problems(..) | Event::PolicySync(_) | Event::Synced => {}
        }
    }
}

fn key(object: &Value) -> ObjectKey {
    let text = |field| object["metadata"][field].as_str().unwrap_or_default();
    ObjectKey::new(text("namespace"), text("name"))
}

/// Those that can be read and are ours.
fn parse_all<A: DeserializeOwned, T>(list: Vec<Value>, parse: fn(&A) -> Parsed<T>) -> BTreeMap<ObjectKey, T> {
    let parsed = list.into_iter().filter_map(|value| {
        let key = key(&value);
        Some((key, parse(&serde_json::from_value(value).ok()?).object?))
    });
    parsed.collect()
}

fn by_name<T>(objects: BTreeMap<ObjectKey, T>) -> BTreeMap<Arc<str>, T> {
    objects.into_iter().map(|(key, object)| (key.name, object)).collect()
}

/// A source that runs, and all that it told. It is asked for what policies then ask for, as an agent asks.
pub(crate) struct Watcher {
    events: Receiver<Event>,
    demand: watch::Sender<PolicyDemand>,
    /// The cluster, as an agent knows it.
    pub(crate) state: State,
    pub(crate) health: Health,
    pub(crate) announcer: Announcer,
    pub(crate) told: Objects,
    pub(crate) problems: HashMap<ObjectRef, Vec<Problem>>,
    /// The removals since [`Watcher::removed`] was last asked.
    removed: Vec<String>,
    pub(crate) synced: usize,
    task: JoinHandle<()>,
}

impl Watcher {
    pub(crate) fn start(options: KubernetesOptions) -> Self {
        let source = Kubernetes::open(options).unwrap();
        let (health, announcer) = (source.health(), source.announcer());
        let (sender, events) = channel(16);
        let (demand, asked) = watch::channel(PolicyDemand::default());
        Self {
            events,
            demand,
            state: State::new(NODE),
            health,
            announcer,
            told: Objects::default(),
            problems: HashMap::new(),
            removed: Vec::new(),
            synced: 0,
            task: tokio::spawn(source.run(sender, asked)),
        }
    }

    /// Takes events until `condition` holds.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let wait = async {
            while !condition(self) {
                // The connection changes without an event: look again now and then. It is no part of what is tested.
                let event = timeout(Duration::from_millis(20), self.events.recv()).await;
                if let Ok(event) = event {
                    self.take(event.expect("the source ended"));
                }
            }
        };
        if timeout(PATIENCE, wait).await.is_err() {
            panic!("{what}: not within {PATIENCE:?}; {:?}; problems {:?}", self.connection(), self.problems);
        }
    }

    /// Takes events until all has been told that `server` holds and policies ask for; nobody changes it meanwhile.
    pub(crate) async fn until_true(&mut self, server: &ApiServer) {
        self.until_told(|demand| Objects::of(server, demand)).await;
    }

    /// Takes events until all that was told, put together, is the truth for what is asked for, and the source says so.
    pub(crate) async fn until_told(&mut self, truth: impl Fn(&PolicyDemand) -> Objects) {
        let wait = async {
            let mut known = (self.state.policy().demand(), truth(&self.state.policy().demand()));
            while !self.state.is_complete() || self.told != known.1 || self.state.policy().demand() != known.0
            {
                let demand = self.state.policy().demand();
                if demand != known.0 {
                    let truth = truth(&demand);
                    known = (demand, truth);
                    continue;
                }
                let event = self.events.recv().await.expect("the source ended");
                self.take(event);
                while let Ok(event) = self.events.try_recv() {
                    self.take(event);
                }
            }
        };
        if timeout(PATIENCE, wait).await.is_err() {
            let (told, demand) = (&self.told, self.state.policy().demand());
            let truth = truth(&demand);
            panic!(
                "not true within {PATIENCE:?}; {:?};\n{:?}\n{demand:?}\ntold {told:#?}\ntruth {truth:#?}",
                self.connection(),
                self.state.policy().sync()
            );
        }
    }

    pub(crate) async fn until_error(&mut self, words: &str) {
        self.until(words, |watcher| watcher.connection().error.contains(words)).await;
    }

    pub(crate) async fn until_connected(&mut self) {
        self.until("connected", |watcher| watcher.connection().connected).await;
    }

    /// Takes what is there, and lets the others run.
    pub(crate) async fn drain(&mut self) {
        while let Ok(Some(event)) = timeout(Duration::from_millis(1), self.events.recv()).await {
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        match &event {
            Event::Service(key, None) => self.removed.push(format!("Service {key}")),
            Event::EndpointSlice(key, None) => self.removed.push(format!("EndpointSlice {key}")),
            Event::Node(name, None) => self.removed.push(format!("Node {name}")),
            Event::Pod(key, None) => self.removed.push(format!("Pod {key}")),
            Event::Namespace(name, None) => self.removed.push(format!("Namespace {name}")),
            Event::NetworkPolicy(key, None) => self.removed.push(format!("NetworkPolicy {key}")),
            Event::ClusterNetworkPolicy(name, None) => {
                self.removed.push(format!("ClusterNetworkPolicy {name}"));
            }
            Event::Problems(object, problems) if problems.is_empty() => {
                self.problems.remove(object);
            }
            Event::Problems(object, problems) => {
                self.problems.insert(object.clone(), problems.clone());
            }
            Event::Synced => self.synced += 1,
            _ => {}
        }
        self.state.apply(event.clone());
        self.told.apply(event);
        let demand = self.state.policy().demand();
        self.demand.send_if_modified(|asked| std::mem::replace(asked, demand) != *asked);
    }

    /// What was removed since the last call, sorted.
    pub(crate) fn removed(&mut self) -> Vec<String> {
        self.removed.sort();
        std::mem::take(&mut self.removed)
    }

    pub(crate) fn connection(&self) -> Connection {
        self.health.read()
    }

    /// Ends it, as an agent's end would.
    pub(crate) async fn stop(self) {
        drop(self.events);
        timeout(PATIENCE, self.task).await.expect("the source does not end with its receiver").unwrap();
    }
}

/// A server with a cluster's first objects, and a place for files.
pub(crate) struct World {
    pub(crate) server: ApiServer,
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let options = ServerOptions { bookmark_every: None, ..ServerOptions::default() };
        let server = ApiServer::start_with(options).await.unwrap();
        server.put(&api_service()).unwrap();
        server.put(&node(NODE, "zone-1")).unwrap();
        server.put(&node("node-b", "zone-2")).unwrap();
        Self { server, dir: tempfile::tempdir().unwrap() }
    }

    /// A source's options: the server's administrator, at the server's address alone.
    pub(crate) fn options(&self) -> KubernetesOptions {
        self.options_with(&self.server.kubeconfig())
    }

    pub(crate) fn options_with(&self, kubeconfig: &str) -> KubernetesOptions {
        options_in(self.dir.path(), kubeconfig)
    }

    /// A source that has told all that there is.
    pub(crate) async fn watch(&self) -> Watcher {
        let mut watcher = Watcher::start(self.options());
        watcher.until_true(&self.server).await;
        watcher.until_connected().await;
        watcher
    }

    /// Writes a Service and its slice.
    pub(crate) fn put(&self, number: usize, endpoints: usize) {
        self.server.put(&service(number, 80)).unwrap();
        self.server.put(&slice(number, endpoints)).unwrap();
    }

    /// Removes a Service and its slice.
    pub(crate) fn delete(&self, number: usize) {
        self.server.delete("Service", "shop", &format!("svc-{number}")).unwrap();
        self.server.delete("EndpointSlice", "shop", &format!("svc-{number}-1")).unwrap();
    }
}

/// A source's options: this kubeconfig, and nothing of the machine that the test runs on.
pub(crate) fn options_in(dir: &Path, kubeconfig: &str) -> KubernetesOptions {
    let path = dir.join("kubeconfig");
    std::fs::write(&path, kubeconfig).unwrap();
    KubernetesOptions {
        node_name: NODE.into(),
        kubeconfig: Some(path),
        api_servers: Vec::new(),
        state_dir: dir.join("state"),
        host_root: dir.join("host"),
        service_account: dir.join("account"),
        service_address: None,
        linger: Duration::ZERO,
        rediscover: Duration::from_mins(10),
    }
}

/// The Service that every API server makes for itself.
pub(crate) fn api_service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": "kubernetes"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}})
}

pub(crate) fn service(number: usize, port: u16) -> Value {
    let ip = format!("10.97.{}.{}", number / 250, 1 + number % 250);
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": format!("svc-{number}")},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "web", "port": port}]}})
}

pub(crate) fn slice(number: usize, endpoints: usize) -> Value {
    let endpoints: Vec<Value> = (0..endpoints)
        .map(|n| {
            let ip = format!("10.{}.{}.{}", 128 + n, number / 250, 1 + number % 250);
            json!({"addresses": [ip], "nodeName": "node-b", "conditions": {"ready": true}})
        })
        .collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "shop", "name": format!("svc-{number}-1"),
            "labels": {"kubernetes.io/service-name": format!("svc-{number}")}},
        "addressType": "IPv4", "ports": [{"name": "web", "port": 8080}], "endpoints": endpoints})
}

pub(crate) fn node(name: &str, zone: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}})
}

pub(crate) fn namespace(name: &str, team: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": team}}})
}

/// A pod that runs, with an address of its own for each number.
pub(crate) fn pod(namespace: &str, name: &str, node: &str, app: &str, number: usize) -> Value {
    let ip = format!("10.1.{}.{}", number / 250, 1 + number % 250);
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": app}},
        "spec": {"nodeName": node,
            "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}})
}

/// A policy that lets these peers come to pods of this app.
pub(crate) fn policy(namespace: &str, name: &str, app: &str, from: &[Value]) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"], "ingress": [{"from": from}]}})
}
