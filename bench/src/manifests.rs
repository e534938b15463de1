//! The Services that are loaded: the first leads to the server pod, the others are there to be there.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use serde_json::{Value, json};
use weir_tests::lab::manifests::Manifests;

use crate::workload::Workload;

/// The network of ClusterIPs; the lab has no route to it, so that whoever is not translated reaches nobody.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 0);

/// How many objects a file holds: a change in one of many files is read alone.
const PER_FILE: u32 = 1_000;

/// The port of every Service at which UDP is served, and at which the hook benchmark dials.
pub const UDP_PORT: u16 = 7004;

/// The ClusterIP of Service `number`.
#[must_use]
pub fn cluster_ip(number: u32) -> Ipv4Addr {
    // not the network's own address
    Ipv4Addr::from_bits(FIRST.to_bits() + 1 + number)
}

/// How the Services look beyond the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Others {
    /// Endpoints of their own, which nobody dials.
    Apart,
    /// The same endpoint as the first, on the UDP port only, so that any of them can be dialled.
    Alike,
}

/// Writes so many Services, the first of which has `backend` for its one endpoint.
///
/// # Errors
/// Those of writing.
pub fn write(manifests: &Manifests, count: u32, others: Others, backend: IpAddr) -> Result<()> {
    for (file, first) in (0..count).step_by(PER_FILE as usize).enumerate() {
        let numbers = first..count.min(first + PER_FILE);
        let objects: Vec<Value> = numbers.flat_map(|number| service(number, others, backend)).collect();
        manifests.replace(&format!("services-{file:04}.yaml"), &documents(&objects)?)?;
    }
    Ok(())
}

/// One JSON document a line: JSON is YAML, and is written and read faster.
fn documents(objects: &[Value]) -> Result<String> {
    let lines: Result<Vec<String>, _> = objects.iter().map(serde_json::to_string).collect();
    Ok(lines?.join("\n---\n"))
}

fn service(number: u32, others: Others, backend: IpAddr) -> [Value; 2] {
    let (workloads, endpoint): (&[Workload], IpAddr) = match (number, others) {
        (0, _) => (&Workload::ALL, backend),
        (_, Others::Alike) => (&[Workload::UdpConnect], backend),
        // 10.128.0.0/9: as many addresses as there are Services, and none of the lab's
        (_, Others::Apart) => (&[Workload::Connect], Ipv4Addr::from_bits(0x0a80_0000 + number).into()),
    };
    let name = format!("service-{number}");
    let ports: Vec<Value> = workloads.iter().map(|workload| port(*workload)).collect();
    let ip = cluster_ip(number);
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "namespace": "bench", "name": name },
        "spec": { "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"], "ports": ports },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "bench",
            "name": format!("{name}-1"),
            "labels": { "kubernetes.io/service-name": name },
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{ "addresses": [endpoint], "conditions": { "ready": true } }],
    });
    [service, slice]
}

fn port(workload: Workload) -> Value {
    let protocol = if workload == Workload::UdpConnect { "UDP" } else { "TCP" };
    json!({ "name": workload.name(), "protocol": protocol, "port": workload.port() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_its_own_address_and_one_endpoint() {
        let folder = tempfile::tempdir().unwrap();
        let manifests = Manifests::ensure(folder.path()).unwrap();
        write(&manifests, 2_500, Others::Apart, "10.244.1.11".parse().unwrap()).unwrap();
        let files: Vec<_> = std::fs::read_dir(manifests.directory()).unwrap().collect();
        assert_eq!(files.len(), 3);
        let mut ips = std::collections::BTreeSet::new();
        for file in files {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for document in text.split("\n---\n") {
                let object: Value = serde_json::from_str(document).unwrap();
                match object["kind"].as_str() {
                    Some("Service") => assert!(ips.insert(object["spec"]["clusterIP"].to_string())),
                    _ => assert_eq!(object["endpoints"][0]["addresses"].as_array().unwrap().len(), 1),
                }
            }
        }
        assert_eq!(ips.len(), 2_500);
    }

    #[test]
    fn the_udp_port_is_the_workloads() {
        assert_eq!(UDP_PORT, Workload::UdpConnect.port());
    }
}
