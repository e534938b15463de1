//! The kinds of objects that are watched, and the requests for them.

use form_urlencoded::Serializer;

/// kube-proxy's informers select by the same labels; `source::parse` knows them too, for sources that cannot.
const OURS: &str = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";

/// Objects in one page of a list; the size that Kubernetes' own clients use.
const PAGE: &str = "500";

/// One watch for each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    Service,
    EndpointSlice,
    /// This node only.
    Node,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Service, Self::EndpointSlice, Self::Node];

    /// As [`crate::source::ObjectRef`] names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
        }
    }

    /// As RBAC rules name it.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices.discovery.k8s.io",
            Self::Node => "nodes",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Service => "/api/v1/services",
            Self::EndpointSlice => "/apis/discovery.k8s.io/v1/endpointslices",
            Self::Node => "/api/v1/nodes",
        }
    }

    fn query(self, node: &str) -> Serializer<'static, String> {
        let mut query = Serializer::for_suffix(format!("{}?", self.path()), self.path().len() + 1);
        match self {
            Self::Service | Self::EndpointSlice => query.append_pair("labelSelector", OURS),
            Self::Node => query.append_pair("fieldSelector", &format!("metadata.name={node}")),
        };
        query
    }

    /// The first page of a full list, or the one that `token` continues; `whole`: everything in one page.
    pub(super) fn list(self, node: &str, token: Option<&str>, whole: bool) -> String {
        let mut query = self.query(node);
        if !whole {
            query.append_pair("limit", PAGE);
        }
        if let Some(token) = token {
            query.append_pair("continue", token);
        }
        query.finish()
    }

    /// The list of the one object of this name.
    pub(super) fn list_one(self, namespace: &str, name: &str) -> String {
        let selector = format!("metadata.name={name},metadata.namespace={namespace}");
        let mut query = Serializer::for_suffix(format!("{}?", self.path()), self.path().len() + 1);
        query.append_pair("fieldSelector", &selector).finish()
    }

    /// A watch of what happens after a version.
    pub(super) fn watch(self, node: &str, version: &str, seconds: u64) -> String {
        self.watch_query(node, seconds).append_pair("resourceVersion", version).finish()
    }

    /// A watch that begins with a full list (KEP-3157): all objects, a bookmark that says so, then changes.
    pub(super) fn streaming_list(self, node: &str, seconds: u64) -> String {
        self.watch_query(node, seconds)
            .append_pair("sendInitialEvents", "true")
            .append_pair("resourceVersionMatch", "NotOlderThan")
            .finish()
    }

    fn watch_query(self, node: &str, seconds: u64) -> Serializer<'static, String> {
        let mut query = self.query(node);
        query.append_pair("watch", "true").append_pair("allowWatchBookmarks", "true");
        query.append_pair("timeoutSeconds", &seconds.to_string());
        query
    }
}

/// The namespace and name of the Service that every API server makes for itself.
pub(super) const API_SERVICE: (&str, &str) = ("default", "kubernetes");

/// The list of that one Service.
pub(super) const LIST_API_SERVICE: &str =
    "/api/v1/services?fieldSelector=metadata.name%3Dkubernetes%2Cmetadata.namespace%3Ddefault";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let ours = "labelSelector=%21service.kubernetes.io%2Fservice-proxy-name%2C\
                    %21service.kubernetes.io%2Fheadless";
        assert_eq!(Kind::Service.list("n", None, false), format!("/api/v1/services?{ours}&limit=500"));
        assert_eq!(
            Kind::EndpointSlice.list("n", Some("a+b="), true),
            format!("/apis/discovery.k8s.io/v1/endpointslices?{ours}&continue=a%2Bb%3D")
        );
        assert_eq!(
            Kind::Node.watch("node-1", "7", 300),
            "/api/v1/nodes?fieldSelector=metadata.name%3Dnode-1&watch=true&allowWatchBookmarks=true\
             &timeoutSeconds=300&resourceVersion=7"
        );
        let streaming = Kind::Node.streaming_list("node-1", 300);
        assert!(
            streaming.ends_with("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"),
            "{streaming}"
        );
    }
}
