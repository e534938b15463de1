//! The Services of the check as the cluster has made them: addresses, node ports, and the pods behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::NAMESPACE;
use super::clients::Client;
use crate::cluster::kubectl::Kubectl;
use crate::cluster::plan::Room;

/// One of the two ports that every Service has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Port {
    /// TCP.
    Http,
    /// UDP, as DNS is served.
    Dns,
}

impl Port {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Http, Self::Dns];

    /// At the Service's own addresses.
    pub(super) fn of_service(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Dns => 53,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Dns => "dns",
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Http { "TCP" } else { "UDP" })
    }
}

/// All that is served.
#[derive(Debug)]
pub(super) struct Served {
    services: BTreeMap<String, Value>,
    /// Node to pod.
    servers: BTreeMap<String, String>,
}

/// Asks the cluster.
pub(super) fn find(kubectl: &Kubectl) -> Result<Served> {
    let namespace = format!("--namespace={NAMESPACE}");
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let services = kubectl.get(&[&namespace, "services"])?;
    let pods = kubectl.get(&[&namespace, "pods", "--selector=app=server"])?;
    let (services, pods) = (items(&services)?, items(&pods)?);
    Ok(Served {
        services: services.iter().map(|service| (name(service), service.clone())).collect(),
        servers: pods
            .iter()
            .map(|pod| (pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned(), name(pod)))
            .collect(),
    })
}

/// Of a list.
pub(super) fn items(list: &Value) -> Result<&Vec<Value>> {
    list["items"].as_array().context("kubectl did not print a list")
}

impl Served {
    /// The pods that serve.
    pub(super) fn servers(&self) -> BTreeSet<String> {
        self.servers.values().cloned().collect()
    }

    /// The one on that node.
    pub(super) fn server_on(&self, node: Room) -> Option<&str> {
        self.servers.get(&node.to_string()).map(String::as_str)
    }

    /// Both addresses of the Service with a node port.
    pub(super) fn cluster_ips(&self) -> Vec<IpAddr> {
        self.addresses("web")
    }

    /// Those of the Service with session affinity.
    pub(super) fn sticky(&self) -> Vec<IpAddr> {
        self.addresses("sticky")
    }

    /// Those of the Service that nobody serves.
    pub(super) fn empty(&self) -> Vec<IpAddr> {
        self.addresses("empty")
    }

    /// Where a client may dial `web`: what it is, address and port.
    pub(super) fn frontends(&self, port: Port, client: &Client) -> Vec<(&'static str, IpAddr, u16)> {
        let mut frontends = Vec::new();
        if client.pod().is_some() {
            let own = self.cluster_ips().into_iter();
            frontends.extend(own.map(|address| ("ClusterIP", address, port.of_service())));
        }
        if let Some(number) = self.node_port(port) {
            let nodes = Room::nodes().flat_map(Room::addresses);
            frontends.extend(nodes.map(|address| ("node port", address, number)));
        }
        frontends
    }

    fn node_port(&self, port: Port) -> Option<u16> {
        let ports = self.services.get("web")?["spec"]["ports"].as_array()?;
        let found = ports.iter().find(|entry| entry["name"] == port.name())?;
        u16::try_from(found["nodePort"].as_u64()?).ok()
    }

    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let addresses = self.services.get(name).and_then(|service| service["spec"]["clusterIPs"].as_array());
        let addresses = addresses.map(Vec::as_slice).unwrap_or_default();
        addresses.iter().filter_map(|address| address.as_str()?.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_outside_dials_node_ports_alone() {
        let web = json!({ "spec": {
            "clusterIPs": ["10.96.0.5", "fd00:96::5"],
            "ports": [{ "name": "http", "nodePort": 30080 }, { "name": "dns", "nodePort": 30053 }],
        }});
        let served = Served {
            services: BTreeMap::from([("web".to_owned(), web)]),
            servers: BTreeMap::from([("weir-node-2".to_owned(), "server-b".to_owned())]),
        };
        let outside = served.frontends(Port::Dns, &Client::Outside);
        assert_eq!(outside.len(), 6);
        assert!(outside.iter().all(|(_, _, port)| *port == 30053));
        let pod = Client::Pod { name: "pod-a".to_owned(), node: "weir-node-1".to_owned(), port: 8080 };
        let inside = served.frontends(Port::Http, &pod);
        assert_eq!(inside.len(), 8);
        assert_eq!(inside[1], ("ClusterIP", "fd00:96::5".parse().unwrap(), 80));
        assert_eq!(served.server_on(Room::Node(2)), Some("server-b"));
    }
}
