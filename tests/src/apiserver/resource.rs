//! The resources that are served: how a path, a kind and an empty object of each look.

use serde_json::{Value, json};

/// A resource as the API server's discovery names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// The API group; empty for core/v1.
    pub group: String,
    /// The version within the group.
    pub version: String,
    /// The name in paths: `services`.
    pub plural: String,
    /// The name in objects: `Service`.
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Fields that may stand in a `fieldSelector` beside `metadata.name` and `metadata.namespace`.
    pub fields: Vec<String>,
    /// What a bookmark's object holds beside its metadata: servers encode an empty object of the Go type, in which
    /// fields without `omitempty` are there.
    pub blank: Value,
    /// Whether the server has it now.
    pub served: bool,
}

impl Resource {
    /// A resource without further fields to select by.
    #[must_use]
    pub fn new(api_version: &str, plural: &str, kind: &str, namespaced: bool) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            group: group.into(),
            version: version.into(),
            plural: plural.into(),
            kind: kind.into(),
            namespaced,
            fields: Vec::new(),
            blank: json!({}),
            served: true,
        }
    }

    /// ClusterNetworkPolicies, as their CustomResourceDefinition makes them; no server has them from its start.
    #[must_use]
    pub fn cluster_network_policies() -> Self {
        Self::new(
            "policy.networking.k8s.io/v1alpha2",
            "clusternetworkpolicies",
            "ClusterNetworkPolicy",
            false,
        )
    }

    fn with_fields(mut self, fields: &[&str]) -> Self {
        self.fields = fields.iter().map(ToString::to_string).collect();
        self
    }

    fn with_blank(mut self, blank: Value) -> Self {
        self.blank = blank;
        self
    }

    /// `v1`, `discovery.k8s.io/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `services`, `endpointslices.discovery.k8s.io`: as error messages name it.
    #[must_use]
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `/api/v1`, `/apis/discovery.k8s.io/v1`.
    #[must_use]
    pub fn root(&self) -> String {
        let prefix = if self.group.is_empty() { "/api" } else { "/apis" };
        format!("{prefix}/{}", self.api_version())
    }
}

/// What a server knows from its start: all that a node agent watches, and the Events it may create.
pub(super) fn builtin() -> Vec<Resource> {
    vec![
        Resource::new("v1", "namespaces", "Namespace", false)
            .with_fields(&["status.phase"])
            .with_blank(json!({"spec": {}, "status": {}})),
        Resource::new("v1", "nodes", "Node", false)
            .with_fields(&["spec.unschedulable"])
            .with_blank(json!({"spec": {}, "status": {"nodeInfo": {"kubeletVersion": ""}}})),
        Resource::new("v1", "pods", "Pod", true)
            .with_fields(&["spec.nodeName", "spec.restartPolicy", "status.phase", "status.podIP"])
            .with_blank(json!({"spec": {"containers": null}, "status": {}})),
        Resource::new("v1", "services", "Service", true)
            .with_fields(&["spec.clusterIP", "spec.type"])
            .with_blank(json!({"spec": {}, "status": {"loadBalancer": {}}})),
        // In a real server they stand under v1, too.
        Resource::new("events.k8s.io/v1", "events", "Event", true).with_fields(&["reason"]),
        Resource::new("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", true)
            .with_blank(json!({"addressType": "", "endpoints": null, "ports": null})),
        Resource::new("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", true)
            .with_blank(json!({"spec": {"podSelector": {}}})),
    ]
}
