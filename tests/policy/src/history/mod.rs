//! Small clusters and what befalls them, as bytes have it: chance's in the tests here, a fuzzer's in `weir-fuzz`; and how a node
//! [lives through](live_through) that.

mod canonical;
mod choices;
mod cluster_policies;
mod live;
mod objects;

use std::fmt;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cluster::{Cluster, Name};

pub use choices::Choices;
pub use live::{Tally, live_through};

/// One change of the cluster.
#[derive(Clone)]
pub enum Op {
    /// It is there, and as it says.
    PutNamespace(Box<core::Namespace>),
    /// It alone goes, not what is in it: that is told one by one.
    DeleteNamespace(String),
    /// It is there, and as it says.
    PutPod(Box<core::Pod>),
    /// It goes.
    DeletePod(Name),
    /// It is there, and as it says.
    PutPolicy(Box<NetworkPolicy>),
    /// It goes.
    DeletePolicy(Name),
    /// It is there, and as it says.
    PutClusterPolicy(Value),
    /// It goes.
    DeleteClusterPolicy(String),
}

/// Changes that a node hears of together.
pub type Batch = Vec<Op>;

/// The most changes by which a cluster comes into being, the most together afterwards, and the most batches.
const MOST_AT_FIRST: usize = 24;
const MOST_TOGETHER: usize = 4;
const MOST_BATCHES: usize = 10;

/// A cluster comes into being by one batch; then single changes, and some together, until the bytes are at an end.
#[must_use]
pub fn history(choices: &mut Choices<'_>) -> Vec<Batch> {
    let mut batches = vec![choices.several(1, MOST_AT_FIRST, op)];
    while !choices.is_over() && batches.len() < MOST_BATCHES {
        let most = choices.weighted(&[(9, 1), (1, MOST_TOGETHER)]);
        batches.push(choices.several(1, most, op));
    }
    batches
}

/// Any change.
#[must_use]
pub fn op(choices: &mut Choices<'_>) -> Op {
    match choices.place(&[5, 6, 8, 7, 1, 1, 3, 2]) {
        0 => put_namespace(choices),
        1 => put_pod(choices),
        2 => put_policy(choices),
        3 => put_cluster_policy(choices),
        4 => Op::DeleteNamespace(objects::namespace_name(choices)),
        5 => Op::DeletePod((objects::namespace_name(choices), objects::pod_name(choices))),
        6 => Op::DeletePolicy((objects::namespace_name(choices), objects::policy_name(choices))),
        _ => Op::DeleteClusterPolicy(cluster_policies::name(choices)),
    }
}

/// A namespace.
#[must_use]
pub fn put_namespace(choices: &mut Choices<'_>) -> Op {
    Op::PutNamespace(read(objects::namespace(choices)))
}

/// A pod.
#[must_use]
pub fn put_pod(choices: &mut Choices<'_>) -> Op {
    Op::PutPod(read(objects::pod(choices)))
}

/// A NetworkPolicy.
#[must_use]
pub fn put_policy(choices: &mut Choices<'_>) -> Op {
    Op::PutPolicy(read(objects::policy(choices)))
}

/// A ClusterNetworkPolicy.
#[must_use]
pub fn put_cluster_policy(choices: &mut Choices<'_>) -> Op {
    Op::PutClusterPolicy(cluster_policies::policy(choices))
}

fn read<T: DeserializeOwned>(object: Value) -> Box<T> {
    serde_json::from_value(object).expect("what is made here has the types of its kind")
}

/// As a person would write it.
impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutNamespace(object) => write!(f, "put Namespace {}", json!(object)),
            Self::PutPod(object) => write!(f, "put Pod {}", json!(object)),
            Self::PutPolicy(object) => write!(f, "put NetworkPolicy {}", json!(object)),
            Self::PutClusterPolicy(object) => write!(f, "put ClusterNetworkPolicy {object}"),
            Self::DeleteNamespace(name) => write!(f, "delete Namespace {name}"),
            Self::DeletePod((namespace, name)) => write!(f, "delete Pod {namespace}/{name}"),
            Self::DeletePolicy((namespace, name)) => write!(f, "delete NetworkPolicy {namespace}/{name}"),
            Self::DeleteClusterPolicy(name) => write!(f, "delete ClusterNetworkPolicy {name}"),
        }
    }
}

impl Op {
    /// Makes the change.
    pub fn apply(&self, cluster: &mut Cluster) {
        match self.clone() {
            Self::PutNamespace(object) => {
                let (_, name) = name(&object.metadata);
                cluster.namespaces.insert(name, *object);
            }
            Self::DeleteNamespace(name) => drop(cluster.namespaces.remove(&name)),
            Self::PutPod(object) => drop(cluster.pods.insert(name(&object.metadata), *object)),
            Self::DeletePod(name) => drop(cluster.pods.remove(&name)),
            Self::PutPolicy(object) => drop(cluster.policies.insert(name(&object.metadata), *object)),
            Self::DeletePolicy(name) => drop(cluster.policies.remove(&name)),
            Self::PutClusterPolicy(object) => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                cluster.cluster_policies.insert(name, object);
            }
            Self::DeleteClusterPolicy(name) => drop(cluster.cluster_policies.remove(&name)),
        }
    }

    /// The namespace that it is about.
    fn namespace(&self) -> Option<&str> {
        match self {
            Self::PutNamespace(object) => object.metadata.name.as_deref(),
            Self::DeleteNamespace(name) => Some(name),
            _ => None,
        }
    }
}

fn name(meta: &ObjectMeta) -> Name {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}
