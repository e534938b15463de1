//! What Weir is told: the same Services as the rules of [`super::rules`].

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use serde_json::{Value, json};
use weir_tests::lab::manifests::Manifests;

use super::plan::{ENDPOINTS, Family, SINK_PORT, endpoint, node_port};
use crate::workload::Workload;

/// The ports of the TCP workloads, each of which has a node port.
pub(super) const TCP: [u16; 2] = [7001, 7002];
/// Beyond the Services' own.
const FIRST_TCP_NODE_PORT: u16 = 32_760;
/// The network of ClusterIPs, which nobody dials here.
const FIRST_CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);
const PER_FILE: usize = 1_000;

/// The node port of a TCP workload's port.
pub(super) const fn tcp_node_port(port: u16) -> u16 {
    FIRST_TCP_NODE_PORT + (port - TCP[0])
}

/// The ClusterIP of Service `number`.
pub(super) fn cluster_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_CLUSTER_IP.to_bits() + number)
}

/// Writes so many Services with a node port, in both families, and one for the TCP workloads.
///
/// # Errors
/// Those of writing.
pub(super) fn write(manifests: &Manifests, count: u32) -> Result<()> {
    let mut objects = Vec::new();
    for number in 0..count {
        let port =
            json!({ "name": "udp", "protocol": "UDP", "port": SINK_PORT, "nodePort": node_port(number) });
        let of = |family| (0..ENDPOINTS).map(|at| endpoint(family, number, at)).collect::<Vec<_>>();
        objects.extend(service(&format!("service-{number}"), number, &[port], of));
    }
    let port = |workload: Workload| {
        let port = workload.port();
        json!({ "name": workload.name(), "protocol": "TCP", "port": port, "nodePort": tcp_node_port(port) })
    };
    let tcp = [Workload::Connect, Workload::Established].map(port);
    objects.extend(service("tcp", count, &tcp, |family| vec![endpoint(family, 0, 0)]));
    for (file, objects) in objects.chunks(PER_FILE).enumerate() {
        let lines: Result<Vec<String>, _> = objects.iter().map(serde_json::to_string).collect();
        manifests.replace(&format!("services-{file:04}.yaml"), &lines?.join("\n---\n"))?;
    }
    Ok(())
}

fn service(name: &str, number: u32, ports: &[Value], ends: impl Fn(Family) -> Vec<IpAddr>) -> Vec<Value> {
    let v6 = format!("fd00:10:97::{:x}", number + 1);
    let ips = [cluster_ip(number).to_string(), v6];
    let labels = json!({ "kubernetes.io/service-name": name });
    let mut objects = vec![json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "namespace": "bench", "name": name },
        "spec": {
            "type": "NodePort", "clusterIP": ips[0], "clusterIPs": ips, "ipFamilies": ["IPv4", "IPv6"],
            "ports": ports,
        },
    })];
    for (family, kind) in Family::BOTH.into_iter().zip(["IPv4", "IPv6"]) {
        let endpoints: Vec<Value> = ends(family)
            .into_iter()
            .map(|address| json!({ "addresses": [address], "nodeName": "n2", "conditions": { "ready": true } }))
            .collect();
        let ports: Vec<Value> = ports.iter().map(target).collect();
        objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": { "namespace": "bench", "name": format!("{name}-{kind}").to_lowercase(), "labels": labels },
            "addressType": kind,
            "ports": ports,
            "endpoints": endpoints,
        }));
    }
    objects
}

fn target(port: &Value) -> Value {
    json!({ "name": port["name"], "protocol": port["protocol"], "port": port["port"] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_a_node_port_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let manifests = Manifests::ensure(folder.path()).unwrap();
        write(&manifests, 2_700).unwrap();
        let mut ports = std::collections::BTreeSet::new();
        for file in std::fs::read_dir(manifests.directory()).unwrap() {
            for document in std::fs::read_to_string(file.unwrap().path()).unwrap().split("\n---\n") {
                let object: Value = serde_json::from_str(document).unwrap();
                for port in object["spec"]["ports"].as_array().into_iter().flatten() {
                    assert!(ports.insert(port["nodePort"].as_u64().unwrap()));
                }
            }
        }
        assert_eq!(ports.len(), 2_702);
        assert!(ports.iter().all(|port| (30_000..=32_767).contains(port)));
    }
}
