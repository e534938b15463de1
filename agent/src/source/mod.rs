//! Where the cluster's objects come from, as typed [`Event`]s of our own compact model.
//!
//! Only this module knows the Kubernetes API types.

mod cluster_policy;
mod connection;
mod demand;
mod event;
mod intern;
#[cfg(feature = "live")]
mod kubernetes;
mod labels;
mod manifests;
mod object;
pub mod parse;
mod pod_uid;
mod policy;
mod problem;

pub use cluster_policy::{
    ClusterNetworkPolicy, ClusterRule, PolicyModes, RuleAction, RuleLabel, Subject, Tier,
};
pub use connection::{Connection, Health};
pub use demand::{NamespaceDemand, PodDemand, PolicyDemand, PolicySync};
pub use event::Event;
pub use intern::Interner;
#[cfg(feature = "live")]
pub use kubernetes::{Announcer, Kubernetes, KubernetesOptions, Reason};
pub use labels::{Labels, Requirement, Selector, Test};
#[cfg(feature = "live")]
pub use manifests::Manifests;
#[cfg(feature = "testing")]
pub use manifests::read_manifest;
pub use object::{
    Affinity, Endpoint, EndpointPort, EndpointSlice, Family, Node, NodeAddress, ObjectKey, Protocol, Service,
    ServicePort, ServiceType, SourceRanges, TrafficDistribution, TrafficPolicy,
};
pub use parse::{
    ApiClusterNetworkPolicy, Parsed, closed_policy, parse_cluster_network_policy, parse_namespace,
    parse_network_policy, parse_node, parse_pod, parse_service, parse_slice,
};
pub use pod_uid::PodUid;
pub use policy::{
    IpBlock, NamedPort, Namespace, NetworkPolicy, Pod, PodIdentity, PolicyPeer, PolicyPort, PolicyRule,
};
pub use problem::{ObjectRef, Problem};
pub use weir_ebpf::abi::Side;
