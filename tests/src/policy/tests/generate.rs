//! Small clusters of few words, so that everything meets everything; some of it is wrong.

use std::fmt;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use proptest::collection::{btree_map, vec};
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::cluster_policies;
use crate::policy::Cluster;

/// The addresses that pods may have. More pods than these, so that some claim the same.
pub(super) const POOL: &[&str] =
    &["10.0.0.1", "10.0.0.2", "10.0.1.3", "10.0.1.4", "10.1.0.5", "fd00::1", "fd00::2", "fd00:1::3"];

/// Addresses that no pod has.
pub(super) const OUTSIDE: &[&str] = &["10.0.0.9", "192.0.2.1", "0.0.0.0", "2001:db8::1", "fd00::9"];

const NAMESPACES: &[&str] = &["a", "b", "c"];
pub(super) const NETWORKS: &[&str] = &[
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/15",
    "10.0.0.0/24",
    "10.0.0.7/24",
    "10.0.0.1/32",
    "10.0.0.2/31",
    "192.0.2.0/24",
    "::/0",
    "fd00::/16",
    "fd00::/64",
    "fd00::2/128",
    "::/64",
    "::ffff:10.0.0.0/104",
    "10.0.0.0/33",
];

/// Each within the one before it; the pods' addresses are in the narrow ones, too.
const NESTED: &[&[&str]] = &[
    &["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/15", "10.0.0.0/24", "10.0.0.2/31", "10.0.0.2/32"],
    &["10.0.0.0/8", "10.0.0.0/23", "10.0.1.0/24", "10.0.1.3/32"],
    &["0.0.0.0/0", "192.0.0.0/8", "192.0.2.0/24"],
    &["::/0", "fc00::/7", "fd00::/64", "fd00::2/128"],
];

/// One change of the cluster.
#[derive(Clone)]
pub(super) enum Op {
    PutNamespace(String, Box<core::Namespace>),
    DeleteNamespace(String),
    PutPod(Box<core::Pod>),
    DeletePod(String, String),
    PutPolicy(Box<NetworkPolicy>),
    DeletePolicy(String, String),
    PutClusterPolicy(String, Value),
    DeleteClusterPolicy(String),
}

/// Changes that a node hears of together.
pub(super) type Batch = Vec<Op>;

/// As a person would write it.
impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutNamespace(_, object) => write!(f, "put Namespace {}", json!(object)),
            Self::PutPod(object) => write!(f, "put Pod {}", json!(object)),
            Self::PutPolicy(object) => write!(f, "put NetworkPolicy {}", json!(object)),
            Self::DeleteNamespace(name) => write!(f, "delete Namespace {name}"),
            Self::DeletePod(namespace, name) => write!(f, "delete Pod {namespace}/{name}"),
            Self::DeletePolicy(namespace, name) => write!(f, "delete NetworkPolicy {namespace}/{name}"),
            Self::PutClusterPolicy(_, object) => write!(f, "put ClusterNetworkPolicy {object}"),
            Self::DeleteClusterPolicy(name) => write!(f, "delete ClusterNetworkPolicy {name}"),
        }
    }
}

impl Op {
    pub(super) fn apply(&self, cluster: &mut Cluster) {
        let name = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
            (meta.namespace.clone().unwrap(), meta.name.clone().unwrap())
        };
        match self.clone() {
            Self::PutNamespace(name, namespace) => drop(cluster.namespaces.insert(name, *namespace)),
            Self::DeleteNamespace(name) => drop(cluster.namespaces.remove(&name)),
            Self::PutPod(pod) => drop(cluster.pods.insert(name(&pod.metadata), *pod)),
            Self::DeletePod(namespace, name) => drop(cluster.pods.remove(&(namespace, name))),
            Self::PutPolicy(policy) => drop(cluster.policies.insert(name(&policy.metadata), *policy)),
            Self::DeletePolicy(namespace, name) => drop(cluster.policies.remove(&(namespace, name))),
            Self::PutClusterPolicy(name, object) => drop(cluster.cluster_policies.insert(name, object)),
            Self::DeleteClusterPolicy(name) => drop(cluster.cluster_policies.remove(&name)),
        }
    }
}

/// A cluster comes into being by one batch; then single changes, and some together.
pub(super) fn history() -> impl Strategy<Value = Vec<Batch>> {
    let first = (
        vec(put_namespace(), 3..6),
        vec(put_pod(), 6..12),
        vec(put_policy(), 3..8),
        vec(put_cluster_policy(), 0..4),
    );
    let rest = vec(prop_oneof![9 => vec(op(), 1), 1 => vec(op(), 2..5)], 4..16);
    (first, rest).prop_map(|((namespaces, pods, policies, of_cluster), rest)| {
        let first = [namespaces, pods, policies, of_cluster].concat();
        std::iter::once(first).chain(rest).collect()
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => put_namespace(),
        1 => namespace_name().prop_map(|name| Op::DeleteNamespace(name.to_owned())),
        6 => put_pod(),
        1 => (namespace_name(), pod_name())
            .prop_map(|(namespace, name)| Op::DeletePod(namespace.into(), name.into())),
        8 => put_policy(),
        7 => put_cluster_policy(),
        2 => cluster_policies::name().prop_map(|name| Op::DeleteClusterPolicy(name.to_owned())),
        3 => (namespace_name(), policy_name())
            .prop_map(|(namespace, name)| Op::DeletePolicy(namespace.into(), name.into())),
    ]
}

fn put_namespace() -> impl Strategy<Value = Op> {
    (namespace_name(), labels(), annotations(0.1)).prop_map(|(name, labels, annotations)| {
        let object = json!({"metadata": {"name": name, "labels": labels, "annotations": annotations}});
        Op::PutNamespace(name.to_owned(), from(object))
    })
}

fn put_pod() -> impl Strategy<Value = Op> {
    pod().prop_map(|object| Op::PutPod(from(object)))
}

fn put_policy() -> impl Strategy<Value = Op> {
    policy().prop_map(|object| Op::PutPolicy(from(object)))
}

fn put_cluster_policy() -> impl Strategy<Value = Op> {
    cluster_policies::policy().prop_map(|(name, object)| Op::PutClusterPolicy(name.to_owned(), object))
}

/// Of a policy or a namespace; so many of them are audited, and as many say what becomes of what was allowed.
pub(super) fn annotations(audited: f64) -> impl Strategy<Value = Value> {
    let mode = prop_oneof![6 => Just("audit"), 1 => Just("enforce"), 1 => Just("Audit")];
    let established = prop_oneof![6 => Just("keep"), 1 => Just("cut"), 1 => Just("keeps")];
    (weighted(audited, mode), weighted(0.4, established)).prop_map(|(mode, established)| {
        let set = [("weir.dev/policy-mode", mode), ("weir.dev/established", established)];
        let set = set.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?))));
        Value::Object(set.collect())
    })
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> Box<T> {
    serde_json::from_value(value).unwrap()
}

fn namespace_name() -> impl Strategy<Value = &'static str> {
    select(NAMESPACES)
}

fn pod_name() -> impl Strategy<Value = &'static str> {
    select(&["p", "q", "r"][..])
}

fn policy_name() -> impl Strategy<Value = &'static str> {
    select(&["one", "two"][..])
}

pub(super) fn labels() -> impl Strategy<Value = Value> {
    btree_map(select(&["k", "l"][..]), select(&["x", "y", ""][..]), 0..=2).prop_map(|labels| json!(labels))
}

fn pod() -> impl Strategy<Value = Value> {
    let state = prop_oneof![
        8 => Just(json!({})),
        1 => Just(json!({"hostNetwork": true})),
        1 => Just(json!({"phase": "Succeeded"})),
    ];
    let addresses = subsequence(POOL, 0..=2);
    let created = of(select(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"][..]));
    let node = select(&["here", "here", "there"][..]);
    let names = (namespace_name(), pod_name());
    (names, labels(), addresses, vec(container(), 0..3), created, node, state).prop_map(
        |((namespace, name), labels, addresses, containers, created, node, state)| {
            json!({
                "metadata": {"namespace": namespace, "name": name, "labels": labels, "creationTimestamp": created},
                "spec": {
                    "nodeName": node, "containers": containers.iter().skip(1).collect::<Vec<_>>(),
                    "initContainers": containers.first().map(|first| [first]), "hostNetwork": state.get("hostNetwork"),
                },
                "status": {
                    "phase": state.get("phase").unwrap_or(&json!("Running")),
                    "podIPs": addresses.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
                },
            })
        },
    )
}

fn container() -> impl Strategy<Value = Value> {
    let number = select(&[80, 8080, 53, 0][..]);
    let port = (port_name(), protocol(), number).prop_map(
        |(name, protocol, number)| json!({"name": name, "protocol": protocol, "containerPort": number}),
    );
    (vec(port, 0..3), of(Just("Always")))
        .prop_map(|(ports, restart)| json!({"name": "c", "ports": ports, "restartPolicy": restart}))
}

pub(super) fn port_name() -> impl Strategy<Value = &'static str> {
    select(&["web", "dns"][..])
}

fn protocol() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![2 => Just(None), 3 => Just(Some("TCP")), 2 => Just(Some("UDP")), 1 => Just(Some("SCTP"))]
}

fn policy() -> impl Strategy<Value = Value> {
    let types = prop_oneof![
        2 => Just(json!(null)),
        2 => Just(json!(["Ingress"])),
        2 => Just(json!(["Egress"])),
        3 => Just(json!(["Ingress", "Egress"])),
        1 => Just(json!(["ingress"])),
    ];
    let names = (namespace_name(), policy_name(), annotations(0.25));
    (names, of(selector()), types, rules("from"), rules("to")).prop_map(
        |((namespace, name, annotations), selector, types, ingress, egress)| {
            json!({
                "metadata": {"namespace": namespace, "name": name, "annotations": annotations},
                "spec": {"podSelector": selector, "policyTypes": types, "ingress": ingress, "egress": egress},
            })
        },
    )
}

fn rules(peers: &'static str) -> impl Strategy<Value = Option<Vec<Value>>> {
    let rule = (weighted(0.8, vec(peer(), 0..4)), of(vec(port(), 0..4)));
    weighted(0.8, vec(rule.prop_map(move |(list, ports)| json!({peers: list, "ports": ports})), 0..3))
}

pub(super) fn selector() -> impl Strategy<Value = Value> {
    let values = vec(select(&["x", "y"][..]), 1..3);
    let key = select(&["k", "l", "kubernetes.io/metadata.name"][..]);
    let test = prop_oneof![
        4 => (Just("In"), values.clone()),
        4 => (Just("NotIn"), values),
        2 => (Just("Exists"), Just(vec![])),
        2 => (Just("DoesNotExist"), Just(vec![])),
        1 => (select(&["In", "Like"][..]), Just(vec![])),
    ];
    let expression = (key, test)
        .prop_map(|(key, (operator, values))| json!({"key": key, "operator": operator, "values": values}));
    prop_oneof![
        3 => labels().prop_map(|labels| json!({"matchLabels": labels})),
        3 => (labels(), vec(expression, 0..2)).prop_map(|(labels, expressions)| {
            let labels: serde_json::Map<_, _> = labels.as_object().cloned().unwrap_or_default().into_iter().take(1).collect();
            json!({"matchLabels": labels, "matchExpressions": expressions})
        }),
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    let block = (select(NETWORKS), of(vec(select(NETWORKS), 0..3)))
        .prop_map(|(cidr, except)| json!({"cidr": cidr, "except": except}));
    let nested = select(NESTED).prop_flat_map(|chain| {
        (subsequence(chain, 1..=chain.len()), 1..3_usize).prop_map(|(chain, excepts)| {
            json!({"cidr": chain[0], "except": chain[1..].iter().take(excepts).collect::<Vec<_>>()})
        })
    });
    prop_oneof![
        2 => block.prop_map(|block| json!({"ipBlock": block})),
        6 => nested.prop_map(|block| json!({"ipBlock": block})),
        3 => selector().prop_map(|pods| json!({"podSelector": pods})),
        3 => selector().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        3 => (selector(), selector()).prop_map(|(namespaces, pods)| json!({"namespaceSelector": namespaces, "podSelector": pods})),
        1 => Just(json!({})),
        1 => selector().prop_map(|pods| json!({"podSelector": pods, "ipBlock": {"cidr": "0.0.0.0/0"}})),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        8 => select(&[53, 79, 80, 81, 8080][..]).prop_map(|port| json!(port)),
        1 => select(&[0, -1, 65_536, 65_535][..]).prop_map(|port| json!(port)),
        8 => port_name().prop_map(|name| json!(name)),
        2 => Just(json!(null)),
    ];
    let end = prop_oneof![4 => Just(json!(null)), 2 => select(&[80, 8081, 65_535, 70_000][..]).prop_map(|port| json!(port))];
    let protocol = prop_oneof![12 => protocol(), 1 => Just(Some("ICMP"))];
    (number, end, protocol)
        .prop_map(|(port, end, protocol)| json!({"port": port, "endPort": end, "protocol": protocol}))
}
