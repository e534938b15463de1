//! What one watch is about: objects of a kind, all of them or some. The requests for them.
//!
//! Most kinds have one watch for as long as the agent runs. Namespaces and the pods of other nodes are watched while a
//! policy asks for them; the latter by namespace, where few are asked for.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use form_urlencoded::{Serializer, byte_serialize};

use super::kind::Kind;
use crate::source::{NamespaceDemand, PodDemand, PolicyDemand};

/// kube-proxy's informers select by the same labels; `source::parse` knows them too, for sources that cannot.
const OURS: &str = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";

/// Pods that run, or will. Those that have ended have lost their address, and stay in a cluster for long.
const NOT_ENDED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Objects in one page of a list; the size that Kubernetes' own clients use.
const PAGE: &str = "500";

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Scope {
    /// Services that are ours.
    Services,
    /// EndpointSlices of Services that are ours.
    EndpointSlices,
    /// This node only.
    ThisNode,
    /// All of them: which select a pod of this node follows from their labels.
    NetworkPolicies,
    /// The same, where the server has them.
    ClusterNetworkPolicies,
    /// The pods of this node.
    PodsHere,
    /// All of them.
    Namespaces,
    /// One.
    Namespace(Arc<str>),
    /// The pods that other nodes have in a namespace.
    PodsOf(Arc<str>),
    /// The pods of all other nodes.
    PodsElsewhere,
}

impl Scope {
    /// Those that are always watched.
    pub(super) const ALWAYS: [Self; 6] = [
        Self::Services,
        Self::EndpointSlices,
        Self::ThisNode,
        Self::NetworkPolicies,
        Self::ClusterNetworkPolicies,
        Self::PodsHere,
    ];

    /// All that are watched for a demand.
    pub(super) fn of_demand(demand: &PolicyDemand) -> BTreeSet<Self> {
        let mut scopes = BTreeSet::from(Self::ALWAYS);
        match &demand.namespaces {
            NamespaceDemand::Of(names) => scopes.extend(names.iter().cloned().map(Self::Namespace)),
            NamespaceDemand::All => drop(scopes.insert(Self::Namespaces)),
        }
        match &demand.pods {
            PodDemand::Of(namespaces) => scopes.extend(namespaces.iter().cloned().map(Self::PodsOf)),
            PodDemand::All => drop(scopes.insert(Self::PodsElsewhere)),
        }
        scopes
    }

    /// What it is about.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Services => Kind::Service,
            Self::EndpointSlices => Kind::EndpointSlice,
            Self::ThisNode => Kind::Node,
            Self::NetworkPolicies => Kind::NetworkPolicy,
            Self::ClusterNetworkPolicies => Kind::ClusterNetworkPolicy,
            Self::Namespaces | Self::Namespace(_) => Kind::Namespace,
            Self::PodsHere | Self::PodsOf(_) | Self::PodsElsewhere => Kind::Pod,
        }
    }

    /// Whether Services depend on it: they wait for it at the start, and a server that refuses it is of no use.
    pub(super) fn is_essential(&self) -> bool {
        matches!(self, Self::Services | Self::EndpointSlices | Self::ThisNode)
    }

    /// Whether without it nothing is known of policies here.
    pub(super) fn is_base_of_policies(&self) -> bool {
        matches!(self, Self::NetworkPolicies | Self::PodsHere)
    }

    /// What follows while the server refuses it.
    pub(super) fn loss(&self) -> &'static str {
        match self {
            Self::Services | Self::EndpointSlices | Self::ThisNode => "what is known stays in force",
            Self::NetworkPolicies => {
                "no NetworkPolicy is known: those in force stay as they are; all else goes on"
            }
            Self::PodsHere => {
                "no policy is told this node's pods: those in force stay as they are; all else goes on"
            }
            Self::ClusterNetworkPolicies => {
                "no ClusterNetworkPolicy is in force that was not known before; all else goes on"
            }
            Self::Namespaces | Self::Namespace(_) => {
                "what policies allow by labels of namespaces is not allowed, what they deny by them is denied to all, and \
                 none is audited for its namespace; all else goes on"
            }
            Self::PodsOf(_) | Self::PodsElsewhere => {
                "what policies allow pods of other nodes is not allowed; all else goes on"
            }
        }
    }

    fn path(&self) -> String {
        match self {
            Self::PodsOf(namespace) => {
                let namespace: String = byte_serialize(namespace.as_bytes()).collect();
                format!("/api/v1/namespaces/{namespace}/pods")
            }
            _ => self.kind().path().to_owned(),
        }
    }

    fn query(&self, node: &str) -> Serializer<'static, String> {
        let path = self.path();
        let mut query = Serializer::for_suffix(format!("{path}?"), path.len() + 1);
        let fields = match self {
            Self::Services | Self::EndpointSlices => {
                query.append_pair("labelSelector", OURS);
                return query;
            }
            Self::NetworkPolicies | Self::ClusterNetworkPolicies | Self::Namespaces => return query,
            Self::Namespace(name) => format!("metadata.name={name}"),
            Self::ThisNode => format!("metadata.name={node}"),
            Self::PodsHere => format!("spec.nodeName={node},{NOT_ENDED}"),
            // One that is on no node yet has no address.
            Self::PodsOf(_) | Self::PodsElsewhere => {
                format!("spec.nodeName!={node},spec.nodeName!=,{NOT_ENDED}")
            }
        };
        query.append_pair("fieldSelector", &fields);
        query
    }

    /// The first page of a full list, or the one that `token` continues; `whole`: everything in one page.
    pub(super) fn list(&self, node: &str, token: Option<&str>, whole: bool) -> String {
        let mut query = self.query(node);
        if !whole {
            query.append_pair("limit", PAGE);
        }
        if let Some(token) = token {
            query.append_pair("continue", token);
        }
        query.finish()
    }

    /// A watch of what happens after a version.
    pub(super) fn watch(&self, node: &str, version: &str, seconds: u64) -> String {
        self.watch_query(node, seconds).append_pair("resourceVersion", version).finish()
    }

    /// A watch that begins with a full list (KEP-3157): all objects, a bookmark that says so, then changes.
    pub(super) fn streaming_list(&self, node: &str, seconds: u64) -> String {
        self.watch_query(node, seconds)
            .append_pair("sendInitialEvents", "true")
            .append_pair("resourceVersionMatch", "NotOlderThan")
            .finish()
    }

    fn watch_query(&self, node: &str, seconds: u64) -> Serializer<'static, String> {
        let mut query = self.query(node);
        query.append_pair("watch", "true").append_pair("allowWatchBookmarks", "true");
        query.append_pair("timeoutSeconds", &seconds.to_string());
        query
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PodsHere => f.write_str("pods of this node"),
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::PodsOf(namespace) => write!(f, "pods of namespace {namespace}"),
            Self::PodsElsewhere => f.write_str("pods of other nodes"),
            _ => f.write_str(self.kind().resource()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let ours = "labelSelector=%21service.kubernetes.io%2Fservice-proxy-name%2C\
                    %21service.kubernetes.io%2Fheadless";
        assert_eq!(Scope::Services.list("n", None, false), format!("/api/v1/services?{ours}&limit=500"));
        assert_eq!(
            Scope::EndpointSlices.list("n", Some("a+b="), true),
            format!("/apis/discovery.k8s.io/v1/endpointslices?{ours}&continue=a%2Bb%3D")
        );
        assert_eq!(
            Scope::ThisNode.watch("node-1", "7", 300),
            "/api/v1/nodes?fieldSelector=metadata.name%3Dnode-1&watch=true&allowWatchBookmarks=true\
             &timeoutSeconds=300&resourceVersion=7"
        );
        let streaming = Scope::ThisNode.streaming_list("node-1", 300);
        assert!(
            streaming.ends_with("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"),
            "{streaming}"
        );
        assert_eq!(
            Scope::NetworkPolicies.list("n", None, false),
            "/apis/networking.k8s.io/v1/networkpolicies?limit=500"
        );
        let not_ended = "status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed";
        assert_eq!(
            Scope::PodsHere.list("n", None, true),
            format!("/api/v1/pods?fieldSelector=spec.nodeName%3Dn%2C{not_ended}")
        );
        let elsewhere = format!("fieldSelector=spec.nodeName%21%3Dn%2Cspec.nodeName%21%3D%2C{not_ended}");
        assert_eq!(Scope::PodsElsewhere.list("n", None, true), format!("/api/v1/pods?{elsewhere}"));
        assert_eq!(
            Scope::PodsOf("a/b".into()).list("n", None, true),
            format!("/api/v1/namespaces/a%2Fb/pods?{elsewhere}")
        );
    }

    #[test]
    fn what_a_demand_watches() {
        let beyond = |demand: &PolicyDemand| {
            let mut scopes = Scope::of_demand(demand);
            Scope::ALWAYS.iter().for_each(|scope| assert!(scopes.remove(scope), "{scope}"));
            scopes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(beyond(&PolicyDemand::default()), [""; 0]);
        assert_eq!(beyond(&PolicyDemand::ALL), ["namespaces", "pods of other nodes"]);
        let pods = PodDemand::Of(["b".into(), "a".into()].into());
        let namespaces = NamespaceDemand::Of(["c".into()].into());
        assert_eq!(
            beyond(&PolicyDemand { namespaces, pods }),
            ["namespace c", "pods of namespace a", "pods of namespace b"]
        );
    }
}
