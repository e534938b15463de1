//! A cluster as the API has it, and what is asked about it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;
use weir_agent::source::Protocol;

/// Namespace and name.
pub type Name = (String, String);

/// The objects that policies are about.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// By name.
    pub namespaces: BTreeMap<String, core::Namespace>,
    /// Pods.
    pub pods: BTreeMap<Name, core::Pod>,
    /// NetworkPolicies.
    pub policies: BTreeMap<Name, NetworkPolicy>,
    /// ClusterNetworkPolicies by name, as they are written.
    pub cluster_policies: BTreeMap<String, Value>,
}

/// A connection that somebody begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Who begins it.
    pub source: IpAddr,
    /// To whom, after Service translation.
    pub dest: IpAddr,
    /// `None`: an echo request, which stands for all that has no ports.
    pub protocol: Option<Protocol>,
    /// The destination's port; 0 where there is none.
    pub port: u16,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, dest, protocol, port } = self;
        let protocol = protocol.map_or("ICMP", Protocol::name);
        write!(f, "{source} -> {dest} {protocol}/{port}")
    }
}

impl Cluster {
    /// Removes a namespace and everything in it.
    pub fn delete_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
        self.pods.retain(|(namespace, _), _| namespace != name);
        self.policies.retain(|(namespace, _), _| namespace != name);
    }
}
