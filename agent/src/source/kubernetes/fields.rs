//! The fields that are read of each kind, and how they become what `source::parse` takes. All others (managedFields,
//! most annotations, conditions, volumes) are skipped where they stand: they are most of the text, and none of them can then
//! be wrong.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;
use serde_json::Value;

use crate::source::ApiClusterNetworkPolicy;
use crate::source::parse::{ANNOTATION_MIRROR, ESTABLISHED, POLICY_MODE};

/// What all objects have.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) uid: Option<String>,
    pub(super) resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<Annotations>,
}

/// Those that mean something here.
#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "weir.dev/policy-mode")]
    policy_mode: Option<String>,
    #[serde(rename = "weir.dev/established")]
    established: Option<String>,
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<String>,
}

impl Annotations {
    fn into_map(self) -> BTreeMap<String, String> {
        let all = [
            (POLICY_MODE, self.policy_mode),
            (ESTABLISHED, self.established),
            (ANNOTATION_MIRROR, self.mirror),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

impl Meta {
    /// What `source::parse` looks at.
    fn take(&mut self) -> ObjectMeta {
        ObjectMeta {
            name: self.name.clone(),
            uid: self.uid.clone(),
            labels: self.labels.take(),
            annotations: self.annotations.take().map(Annotations::into_map),
            creation_timestamp: self.creation_timestamp.take(),
            deletion_timestamp: self.deletion_timestamp.take(),
            ..ObjectMeta::default()
        }
    }
}

/// Any object, as far as it is named.
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) metadata: Meta,
}

#[derive(Deserialize)]
pub(super) struct ServiceFields {
    metadata: Meta,
    spec: Option<core::ServiceSpec>,
    status: Option<ServiceStatus>,
}

/// The addresses of load balancers; conditions mean nothing here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceStatus {
    load_balancer: Option<core::LoadBalancerStatus>,
}

impl ServiceFields {
    pub(super) fn split(self) -> (Meta, core::Service) {
        let Self { mut metadata, spec, status } = self;
        let status = status.map(|status| core::ServiceStatus {
            load_balancer: status.load_balancer,
            ..core::ServiceStatus::default()
        });
        let api = core::Service { metadata: metadata.take(), spec, status };
        (metadata, api)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SliceFields {
    metadata: Meta,
    address_type: String,
    endpoints: Option<Vec<discovery::Endpoint>>,
    ports: Option<Vec<discovery::EndpointPort>>,
}

impl SliceFields {
    pub(super) fn split(mut self) -> (Meta, discovery::EndpointSlice) {
        let api = discovery::EndpointSlice {
            metadata: self.metadata.take(),
            address_type: self.address_type,
            endpoints: self.endpoints.unwrap_or_default(),
            ports: self.ports,
        };
        (self.metadata, api)
    }
}

#[derive(Deserialize)]
pub(super) struct NodeFields {
    metadata: Meta,
    spec: Option<NodeSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeSpec {
    taints: Option<Vec<Taint>>,
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

/// Which taint it is; whom it keeps away means nothing here.
#[derive(Deserialize)]
struct Taint {
    key: String,
}

impl NodeFields {
    pub(super) fn split(self) -> (Meta, core::Node) {
        let Self { mut metadata, spec } = self;
        let spec = spec.map(|spec| {
            let taints = spec.taints.unwrap_or_default().into_iter();
            core::NodeSpec {
                taints: Some(
                    taints.map(|taint| core::Taint { key: taint.key, ..core::Taint::default() }).collect(),
                ),
                pod_cidr: spec.pod_cidr,
                pod_cidrs: spec.pod_cidrs,
                ..core::NodeSpec::default()
            }
        });
        let api = core::Node { metadata: metadata.take(), spec, status: None };
        (metadata, api)
    }
}

#[derive(Deserialize)]
pub(super) struct PolicyFields {
    metadata: Meta,
    spec: Option<networking::NetworkPolicySpec>,
}

impl PolicyFields {
    pub(super) fn split(self) -> (Meta, networking::NetworkPolicy) {
        let Self { mut metadata, spec } = self;
        let api = networking::NetworkPolicy { metadata: metadata.take(), spec };
        (metadata, api)
    }
}

#[derive(Deserialize)]
pub(super) struct ClusterPolicyFields {
    metadata: Meta,
    #[serde(default)]
    spec: Value,
}

impl ClusterPolicyFields {
    pub(super) fn split(self) -> (Meta, ApiClusterNetworkPolicy) {
        let Self { mut metadata, spec } = self;
        let api = ApiClusterNetworkPolicy { metadata: metadata.take(), spec };
        (metadata, api)
    }
}

/// A namespace is its labels and annotations.
impl Header {
    pub(super) fn split(self) -> (Meta, core::Namespace) {
        let Self { mut metadata } = self;
        let api = core::Namespace { metadata: metadata.take(), ..core::Namespace::default() };
        (metadata, api)
    }
}

#[derive(Deserialize)]
pub(super) struct PodFields {
    metadata: Meta,
    spec: Option<PodSpec>,
    status: Option<PodStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    node_name: Option<String>,
    host_network: Option<bool>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    ports: Option<Vec<core::ContainerPort>>,
    restart_policy: Option<String>,
}

#[derive(Deserialize)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<core::PodIP>>,
}

impl PodFields {
    pub(super) fn split(self) -> (Meta, core::Pod) {
        let Self { mut metadata, spec, status } = self;
        let containers =
            |list: Option<Vec<Container>>| list.unwrap_or_default().into_iter().map(Container::split);
        let spec = spec.map(|spec| core::PodSpec {
            node_name: spec.node_name,
            host_network: spec.host_network,
            containers: containers(spec.containers).collect(),
            init_containers: Some(containers(spec.init_containers).collect()),
            ..core::PodSpec::default()
        });
        let status = status.map(|status| core::PodStatus {
            phase: status.phase,
            pod_ip: status.pod_ip,
            pod_ips: status.pod_ips,
            ..core::PodStatus::default()
        });
        let api = core::Pod { metadata: metadata.take(), spec, status };
        (metadata, api)
    }
}

impl Container {
    fn split(self) -> core::Container {
        core::Container {
            ports: self.ports,
            restart_policy: self.restart_policy,
            ..core::Container::default()
        }
    }
}
