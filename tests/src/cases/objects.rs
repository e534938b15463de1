//! The Kubernetes objects that a [`ServiceSpec`] stands for.

use serde_json::{Value, json};

use super::row::{node_of, place_addresses};
use super::spec::{Endpoint, ServiceSpec};
use crate::lab::DualStack;

/// The Service and its EndpointSlices.
#[must_use]
pub fn of_service(spec: &ServiceSpec, namespace: &str, cluster_ips: DualStack) -> Vec<Value> {
    let mut objects = vec![service(spec, namespace, cluster_ips)];
    for (number, endpoints) in spec.slices.iter().enumerate() {
        for family in [4, 6] {
            objects.push(slice(spec, namespace, number, family, endpoints));
        }
    }
    objects
}

fn service(spec: &ServiceSpec, namespace: &str, cluster_ips: DualStack) -> Value {
    let ports: Vec<Value> = each_port(spec)
        .map(|(name, protocol, port, _)| json!({ "name": name, "protocol": protocol, "port": port }))
        .collect();
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "namespace": namespace, "name": spec.name },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ips.v4,
            "clusterIPs": cluster_ips.both(),
            "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack",
            "ports": ports,
        },
    });
    if let Some(label) = spec.foreign_label {
        object["metadata"]["labels"] = json!({ label: "another-proxy" });
    }
    if spec.local {
        object["spec"]["internalTrafficPolicy"] = json!("Local");
    }
    if let Some(distribution) = spec.distribution {
        object["spec"]["trafficDistribution"] = json!(distribution);
    }
    if let Some(timeout) = spec.affinity_s {
        object["spec"]["sessionAffinity"] = json!("ClientIP");
        object["spec"]["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": timeout } });
    }
    object
}

fn slice(spec: &ServiceSpec, namespace: &str, number: usize, family: u8, endpoints: &[Endpoint]) -> Value {
    let ports: Vec<Value> = each_port(spec)
        .map(|(name, protocol, _, target)| json!({ "name": name, "protocol": protocol, "port": target }))
        .collect();
    let listed = endpoints.iter().filter(|endpoint| endpoint.only.is_none_or(|only| only == family));
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace,
            "name": format!("{}-{number}-ipv{family}", spec.name),
            "labels": { "kubernetes.io/service-name": spec.name },
        },
        "addressType": format!("IPv{family}"),
        "ports": ports,
        "endpoints": listed.map(|it| endpoint(it, family)).collect::<Vec<_>>(),
    })
}

fn endpoint(spec: &Endpoint, family: u8) -> Value {
    let [v4, v6] = place_addresses(spec.place).both();
    let mut endpoint = json!({
        "addresses": [if family == 4 { v4 } else { v6 }],
        "conditions": { "ready": spec.ready, "serving": spec.serving, "terminating": spec.terminating },
        "nodeName": node_of(spec.place),
    });
    if let Some(node) = spec.for_node {
        endpoint["hints"] = json!({ "forNodes": [{ "name": node }] });
    }
    endpoint
}

/// Name, protocol, port and the endpoints' port.
fn each_port(spec: &ServiceSpec) -> impl Iterator<Item = (String, &'static str, u16, u16)> {
    spec.ports.iter().flat_map(|(name, port, target)| {
        let protocols = spec.protocols.iter();
        protocols
            .map(move |protocol| (format!("{name}-{}", protocol.to_lowercase()), *protocol, *port, *target))
    })
}
