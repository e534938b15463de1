//! `Node`, as far as topology and load balancers ask.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;

use super::Parsed;
use crate::source::Node;

/// Where a node says which zone it is in.
const LABEL_ZONE: &str = "topology.kubernetes.io/zone";

/// What the cluster autoscaler taints a node with that it is about to remove.
const TAINT_TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// A node. Always an object, and never a problem: an empty zone is no zone.
#[must_use]
pub fn parse_node(api: &api::Node) -> Parsed<Node> {
    let zone = api.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_ZONE));
    let zone = zone.filter(|zone| !zone.is_empty()).map(|zone| Arc::from(zone.as_str()));
    let taints = api.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let leaving = api.metadata.deletion_timestamp.is_some()
        || taints.iter().any(|taint| taint.key == TAINT_TO_BE_DELETED);
    Parsed { object: Some(Node { zone, leaving }), problems: Vec::new() }
}
