//! The kinds of objects that are watched; [`super::scope`] has which objects of a kind.

use form_urlencoded::Serializer;

/// A kind of the Kubernetes API.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    Service,
    EndpointSlice,
    Node,
    NetworkPolicy,
    ClusterNetworkPolicy,
    Namespace,
    Pod,
}

impl Kind {
    /// As [`crate::source::ObjectRef`] names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
        }
    }

    /// As RBAC rules name it.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices.discovery.k8s.io",
            Self::Node => "nodes",
            Self::NetworkPolicy => "networkpolicies.networking.k8s.io",
            Self::ClusterNetworkPolicy => "clusternetworkpolicies.policy.networking.k8s.io",
            Self::Namespace => "namespaces",
            Self::Pod => "pods",
        }
    }

    /// Where the objects of all namespaces are.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Service => "/api/v1/services",
            Self::EndpointSlice => "/apis/discovery.k8s.io/v1/endpointslices",
            Self::Node => "/api/v1/nodes",
            Self::NetworkPolicy => "/apis/networking.k8s.io/v1/networkpolicies",
            Self::ClusterNetworkPolicy => "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies",
            Self::Namespace => "/api/v1/namespaces",
            Self::Pod => "/api/v1/pods",
        }
    }

    /// Where a server says what it has of the group and version that this is of, and by which name; `None`: every server has
    /// it.
    pub(super) fn discovery(self) -> Option<(&'static str, &'static str)> {
        let path = self.path();
        match self {
            Self::ClusterNetworkPolicy => path.rsplit_once('/'),
            _ => None,
        }
    }

    /// The list of the one object of this name; `namespace` is empty where it is in none.
    pub(super) fn list_one(self, namespace: &str, name: &str) -> String {
        let mut selector = format!("metadata.name={name}");
        if !namespace.is_empty() {
            selector.push_str(",metadata.namespace=");
            selector.push_str(namespace);
        }
        let mut query = Serializer::for_suffix(format!("{}?", self.path()), self.path().len() + 1);
        query.append_pair("fieldSelector", &selector).finish()
    }
}

/// The namespace and name of the Service that every API server makes for itself.
pub(super) const API_SERVICE: (&str, &str) = ("default", "kubernetes");

/// The list of that one Service.
pub(super) const LIST_API_SERVICE: &str =
    "/api/v1/services?fieldSelector=metadata.name%3Dkubernetes%2Cmetadata.namespace%3Ddefault";
