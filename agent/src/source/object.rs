//! The cluster's objects, reduced to what decides about packets. Parsed once; nothing downstream validates.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
pub use weir_ebpf::abi::Protocol;

/// Namespace and name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ObjectKey {
    /// `metadata.namespace`
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
}

impl ObjectKey {
    /// From its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// The family of an address. A v4-mapped IPv6 address is no valid address of either family in the API.
    #[must_use]
    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// 4 or 6
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IPv{}", self.number())
    }
}

/// `spec.internalTrafficPolicy`, `spec.externalTrafficPolicy`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TrafficPolicy {
    /// Endpoints anywhere.
    #[default]
    Cluster,
    /// Endpoints on this node only.
    Local,
}

/// `spec.trafficDistribution` (KEP-4444, KEP-3015). `PreferClose` is `PreferSameZone`'s older name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrafficDistribution {
    /// `PreferClose`, `PreferSameZone`
    PreferSameZone,
    /// `PreferSameNode`
    PreferSameNode,
}

/// `spec.type`, without those that no proxy serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ServiceType {
    /// `ClusterIP`
    #[default]
    ClusterIp,
    /// `NodePort`
    NodePort,
    /// `LoadBalancer`
    LoadBalancer,
}

/// `spec.sessionAffinity: ClientIP`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Affinity {
    /// `spec.sessionAffinityConfig.clientIP.timeoutSeconds`, 1 to 86400
    pub timeout_s: u32,
}

/// A Service that is ours to serve: it has at least one ClusterIP, and neither the headless nor the
/// service-proxy-name label.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// `metadata.creationTimestamp`, seconds since 1970; `None` where the object has none.
    pub created_s: Option<i64>,
    /// `spec.type`
    pub kind: ServiceType,
    /// `spec.clusterIPs` (or `spec.clusterIP`): at most one of each family.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ports`, without those that have a problem.
    pub ports: Vec<ServicePort>,
    /// `spec.internalTrafficPolicy`
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`
    pub external_policy: TrafficPolicy,
    /// `spec.sessionAffinity`
    pub affinity: Option<Affinity>,
    /// `spec.trafficDistribution`
    pub distribution: Option<TrafficDistribution>,
    /// `spec.externalIPs`, each once, of families in which the Service has a ClusterIP.
    pub external_ips: Box<[IpAddr]>,
    /// `status.loadBalancer.ingress[].ip`, likewise, without those whose `ipMode` is `Proxy` (KEP-1860).
    pub load_balancer_ips: Box<[IpAddr]>,
    /// `spec.loadBalancerSourceRanges`; `None` where there are none.
    pub source_ranges: Option<Box<SourceRanges>>,
    /// `spec.healthCheckNodePort`, where there is one
    pub health_check_node_port: Option<u16>,
}

/// From where the load balancer's addresses of a Service may be dialled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceRanges {
    /// The networks, each once.
    pub networks: Box<[IpNet]>,
    /// Some range cannot be read. Nobody knows of which family it was to be, so that neither is open to all.
    pub incomplete: bool,
}

impl SourceRanges {
    /// Whether clients of this family are restricted to its networks, of which there may be none. Ranges of the other
    /// family say nothing about it, as in kube-proxy.
    #[must_use]
    pub fn restrict(&self, family: Family) -> bool {
        self.incomplete || self.of(family).next().is_some()
    }

    /// The networks of one family.
    pub fn of(&self, family: Family) -> impl Iterator<Item = IpNet> {
        self.networks.iter().copied().filter(move |network| Family::of(network.addr()) == family)
    }
}

/// An item of `spec.ports`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePort {
    /// `name`, empty where a single port has none. Joins the port to those of EndpointSlices.
    pub name: Arc<str>,
    /// `protocol`
    pub protocol: Protocol,
    /// `port`, never 0
    pub port: u16,
    /// `nodePort`, where there is one
    pub node_port: Option<u16>,
}

/// An EndpointSlice (discovery.k8s.io/v1) of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointSlice {
    /// The Service: same namespace, label `kubernetes.io/service-name`.
    pub service: Arc<str>,
    /// `addressType`; every endpoint's address is of this family.
    pub family: Family,
    /// `ports`
    pub ports: Vec<EndpointPort>,
    /// `endpoints`, without those that have a problem.
    pub endpoints: Vec<Endpoint>,
}

/// An item of a slice's `ports`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointPort {
    /// `name`, empty where it has none
    pub name: Arc<str>,
    /// `protocol`
    pub protocol: Protocol,
    /// `port`, never 0
    pub port: u16,
}

/// An item of a slice's `endpoints`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// `addresses[0]`: the only one that means anything (API comment on `Endpoint.addresses`).
    pub addr: IpAddr,
    /// `conditions.ready`; missing means true
    pub ready: bool,
    /// `conditions.serving`; missing follows `ready`
    pub serving: bool,
    /// `conditions.terminating`; missing means false
    pub terminating: bool,
    /// `nodeName`
    pub node: Option<Arc<str>>,
    /// `hints.forZones`
    pub zone_hints: Vec<Arc<str>>,
    /// `hints.forNodes`
    pub node_hints: Vec<Arc<str>>,
}

/// A Node, as far as topology asks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Label `topology.kubernetes.io/zone`
    pub zone: Option<Arc<str>>,
    /// It is being deleted, or is about to be: load balancers should send it no new connections (KEP-3836).
    pub leaving: bool,
    /// `spec.podCIDRs`: the networks that its pods have their addresses of, where the cluster gives them out so.
    pub pod_networks: Box<[IpNet]>,
}

/// An address of this node, as its devices have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeAddress {
    /// The address.
    pub addr: IpAddr,
    /// The one by which others know the node: `--node-ip` of that family, or the one towards the default route.
    pub primary: bool,
}
