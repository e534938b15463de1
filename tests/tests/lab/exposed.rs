//! Services that the world can reach: what the trials of the per-packet path put in force.

use anyhow::Result;
use serde_json::{Value, json};
use weir_tests::cases::{CAST, ServiceSpec, objects};
use weir_tests::lab::{Cluster, DualStack, Settings, address};

/// The kind of address that only clients inside are meant to dial.
pub(crate) const CLUSTER_IP: &str = "ClusterIP";

/// The Service with number `number` at a ClusterIP, a node port, a load balancer's address and an external address.
pub(crate) fn service(number: u8, node_port: u16, spec: &ServiceSpec) -> Vec<Value> {
    let mut objects = objects::of_service(spec, "lab", address::service(number));
    let object = &mut objects[0];
    object["spec"]["type"] = json!("LoadBalancer");
    object["spec"]["externalIPs"] = json!(address::external(number).both());
    let ingress = address::balancer(number).both().map(|ip| json!({ "ip": ip }));
    object["status"] = json!({ "loadBalancer": { "ingress": ingress } });
    for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
        port["nodePort"] = json!(node_port);
    }
    objects
}

/// The same with another value in the Service's `spec`.
pub(crate) fn with(mut objects: Vec<Value>, field: &str, value: impl Into<Value>) -> Vec<Value> {
    objects[0]["spec"][field] = value.into();
    objects
}

/// Where that Service is reached, each with its port. All but the ClusterIP lead to n1, as far as they leave their node.
pub(crate) fn addresses(number: u8, node_port: u16) -> [(&'static str, DualStack, u16); 4] {
    [
        (CLUSTER_IP, address::service(number), 80),
        ("node port", address::node(1), node_port),
        ("load balancer", address::balancer(number), 80),
        ("external IP", address::external(number), 80),
    ]
}

/// A cluster with these objects in force and agents with these arguments.
pub(crate) fn cluster(settings: Settings, objects: &[Value], arguments: &[&str]) -> Result<Cluster> {
    let mut cluster = Cluster::create(settings, &CAST)?;
    cluster.manifests.replace_objects(FILE, objects)?;
    cluster.start_agents_with(arguments)?;
    cluster.settle()?;
    Ok(cluster)
}

/// The file that has them.
pub(crate) const FILE: &str = "exposed.yaml";
