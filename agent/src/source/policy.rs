//! NetworkPolicies and what they select, reduced to what decides about packets.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Labels, PodUid, PolicyModes, Protocol, Selector};

/// A pod that has not ended: with a network of its own policies may select it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pod {
    /// `metadata.creationTimestamp`, seconds since 1970; `None` where the object has none.
    pub created_s: Option<i64>,
    /// `metadata.labels`
    pub labels: Labels,
    /// `status.podIPs` (or `status.podIP`), each once; none yet where the pod has not begun.
    pub addresses: Box<[IpAddr]>,
    /// The ports of its containers that have names, in their order; each once.
    pub ports: Box<[NamedPort]>,
    /// `spec.nodeName`
    pub node: Option<Arc<str>>,
    /// By what its node knows it; `None` where that is not known. The state keeps it of pods of its own node alone.
    pub identity: Option<Box<PodIdentity>>,
    /// `spec.hostNetwork`: no policy is about it, and of all of this only `node` and `identity` are there.
    pub host_network: bool,
}

/// By what the kubelet of a pod's node names the pod's cgroup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PodIdentity {
    /// `metadata.uid`
    pub uid: PodUid,
    /// Of a mirror pod, the static pod that it stands for: annotation `kubernetes.io/config.mirror`. Whoever may make pods may
    /// write it.
    pub mirrors: Option<PodUid>,
}

/// An item of a container's `ports`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedPort {
    /// `name`
    pub name: Arc<str>,
    /// `protocol`
    pub protocol: Protocol,
    /// `containerPort`, never 0
    pub port: u16,
}

impl Pod {
    /// The number that a port of this name and protocol has in this pod: of several the first, as for a Service's target port
    /// (Kubernetes' `FindPort`).
    #[must_use]
    pub fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.ports_named(name, protocol).next()
    }

    /// All of them: each container may have one.
    pub fn ports_named(&self, name: &str, protocol: Protocol) -> impl Iterator<Item = u16> {
        let same = move |port: &&NamedPort| *port.name == *name && port.protocol == protocol;
        self.ports.iter().filter(same).map(|port| port.port)
    }
}

/// A Namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Namespace {
    /// `metadata.labels`
    pub labels: Labels,
    /// `weir.dev/policy-mode: audit`: all of its NetworkPolicies are audited.
    pub audit: bool,
}

/// A NetworkPolicy (networking.k8s.io/v1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkPolicy {
    /// `spec.podSelector`: which pods of its namespace.
    pub pods: Selector,
    /// What may come to these pods; `None` where `policyTypes` leaves it alone.
    pub ingress: Option<Box<[PolicyRule]>>,
    /// What may leave these pods; `None` where `policyTypes` leaves it alone.
    pub egress: Option<Box<[PolicyRule]>>,
    /// What its annotations say.
    pub modes: PolicyModes,
}

/// An item of `spec.ingress` or `spec.egress`. What is wrong in a list is left out of it, and the list remains one: a list
/// of which nothing is left allows nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyRule {
    /// `from`, `to`; `None`: whoever it is.
    pub peers: Option<Box<[PolicyPeer]>>,
    /// `ports`; `None`: any port of any protocol, and what has no ports.
    pub ports: Option<Box<[PolicyPort]>>,
}

/// An item of `from` or `to`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum PolicyPeer {
    /// `podSelector`, `namespaceSelector`
    Pods {
        /// `namespaceSelector`; `None`: the policy's own namespace.
        namespaces: Option<Selector>,
        /// `podSelector`; where it is missing, the one that selects all.
        pods: Selector,
    },
    /// `ipBlock`
    Block(IpBlock),
}

impl PolicyPeer {
    /// Everybody in a network.
    #[must_use]
    pub fn network(cidr: IpNet) -> Self {
        Self::Block(IpBlock { cidr, except: Box::default() })
    }
}

/// `ipBlock`, with host bits cleared. `except` is sorted, each once, without those that are not within `cidr`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct IpBlock {
    /// `cidr`
    pub cidr: IpNet,
    /// `except`
    pub except: Box<[IpNet]>,
}

/// An item of `ports`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum PolicyPort {
    /// `port` to `endPort`, both included. A missing `port` is 0 to 65535.
    Range {
        /// `protocol`
        protocol: Protocol,
        /// The first port.
        first: u16,
        /// The last port, at least `first`.
        last: u16,
    },
    /// A `port` that is a name: of ingress the selected pod's, of egress each destination's.
    Named {
        /// `protocol`
        protocol: Protocol,
        /// `port`
        name: Arc<str>,
    },
}
