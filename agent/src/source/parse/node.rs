//! `Node`, as far as topology and load balancers ask.

use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;

use super::Parsed;
use crate::source::Node;

/// Where a node says which zone it is in.
const LABEL_ZONE: &str = "topology.kubernetes.io/zone";

/// What the cluster autoscaler taints a node with that it is about to remove.
const TAINT_TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// A node. Always an object, and never a problem: an empty zone is no zone, and a network that cannot be read is none (the API
/// server takes no such).
#[must_use]
pub fn parse_node(api: &api::Node) -> Parsed<Node> {
    let zone = api.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_ZONE));
    let zone = zone.filter(|zone| !zone.is_empty()).map(|zone| Arc::from(zone.as_str()));
    let taints = api.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let leaving = api.metadata.deletion_timestamp.is_some()
        || taints.iter().any(|taint| taint.key == TAINT_TO_BE_DELETED);
    let pod_networks = parse_pod_networks(api.spec.as_ref());
    Parsed { object: Some(Node { zone, leaving, pod_networks }), problems: Vec::new() }
}

/// `podCIDR` counts only where there are no `podCIDRs`: the API server keeps it equal to the first of them.
fn parse_pod_networks(spec: Option<&api::NodeSpec>) -> Box<[IpNet]> {
    let Some(spec) = spec else { return Box::default() };
    let cidrs = match spec.pod_cidrs.as_deref() {
        Some(cidrs @ [_, ..]) => cidrs,
        _ => spec.pod_cidr.as_slice(),
    };
    cidrs.iter().filter_map(|cidr| cidr.parse().ok()).map(|network: IpNet| network.trunc()).collect()
}
