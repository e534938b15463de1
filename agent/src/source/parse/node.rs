//! `Node`, as far as topology asks.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;

use super::Parsed;
use crate::source::Node;

/// Where a node says which zone it is in.
const LABEL_ZONE: &str = "topology.kubernetes.io/zone";

/// A node. Always an object, and never a problem: an empty zone is no zone.
#[must_use]
pub fn parse_node(api: &api::Node) -> Parsed<Node> {
    let zone = api.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_ZONE));
    let zone = zone.filter(|zone| !zone.is_empty()).map(|zone| Arc::from(zone.as_str()));
    Parsed { object: Some(Node { zone }), problems: Vec::new() }
}
