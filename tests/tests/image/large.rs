//! The objects of a large cluster, each with what a real one has.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// So many Services, each with one port and one slice of so many endpoints.
pub(crate) fn cluster(services: u32, endpoints: u32) -> Vec<Value> {
    (0..services).flat_map(|number| [service(number), slice(number, endpoints)]).collect()
}

fn service(number: u32) -> Value {
    let ip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 104, 0, 0).to_bits() + number);
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "namespace": format!("namespace-{}", number % 100), "name": name(number) },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ip,
            "clusterIPs": [ip],
            "selector": { "app": name(number) },
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080 }],
        },
    })
}

fn slice(number: u32, count: u32) -> Value {
    let namespace = format!("namespace-{}", number % 100);
    let first = Ipv4Addr::new(10, 128, 0, 1).to_bits() + number * count;
    let endpoints: Vec<Value> = (0..count)
        .map(|place| {
            json!({
                "addresses": [Ipv4Addr::from_bits(first + place)],
                "nodeName": format!("node-{}", place % 1000),
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "targetRef": { "kind": "Pod", "namespace": namespace, "name": format!("{}-{place}", name(number)) },
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace,
            "name": format!("{}-abcde", name(number)),
            "labels": { "kubernetes.io/service-name": name(number) },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": endpoints,
    })
}

fn name(number: u32) -> String {
    format!("service-{number}")
}
