//! The manifests of `deploy/examples/demo`, as they are there.

use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::lab::DualStack;
use crate::lab::manifests::Manifests;

macro_rules! example {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../deploy/examples/demo/", $name)))
    };
}

const FILES: [(&str, &str); 4] =
    [example!("nodes.yaml"), example!("pods.yaml"), example!("services.yaml"), example!("endpoints.yaml")];
const ENDPOINTS: &str = "endpoints.yaml";

/// The objects of the example.
pub(super) struct Examples {
    objects: Vec<Value>,
}

impl Examples {
    pub(super) fn parse() -> Result<Self> {
        let mut objects = Vec::new();
        for (name, text) in FILES {
            let documents: Vec<Value> = serde_saphyr::from_multiple(text).context(name)?;
            objects.extend(documents);
        }
        Ok(Self { objects })
    }

    /// Puts all files in force.
    pub(super) fn write(&self, manifests: &Manifests) -> Result<()> {
        FILES.iter().try_for_each(|(name, text)| manifests.replace(name, text))
    }

    /// Puts the EndpointSlices in force with one pod not ready.
    pub(super) fn write_without(&self, manifests: &Manifests, pod: &str) -> Result<()> {
        let mut slices: Vec<Value> =
            self.objects.iter().filter(|object| object["kind"] == "EndpointSlice").cloned().collect();
        let endpoints = slices.iter_mut().filter_map(|slice| slice["endpoints"].as_array_mut()).flatten();
        for endpoint in endpoints.filter(|endpoint| endpoint["targetRef"]["name"] == pod) {
            endpoint["conditions"] = json!({ "ready": false, "serving": false, "terminating": false });
        }
        manifests.replace_objects(ENDPOINTS, &slices)
    }

    /// The ClusterIPs of a Service.
    pub(super) fn cluster_ips(&self, service: &str) -> Result<DualStack> {
        let found = self.named("Service", service)?;
        both(&found["spec"]["clusterIPs"]).with_context(|| format!("the ClusterIPs of Service {service}"))
    }

    /// The addresses of a Service's load balancer.
    pub(super) fn balancer(&self, service: &str) -> Result<DualStack> {
        let found = self.named("Service", service)?;
        let ingress = found["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
        let ips: Value = ingress.map(|ingress| ingress["ip"].clone()).collect();
        both(&ips).with_context(|| format!("the load balancer of Service {service}"))
    }

    /// The node port of a Service's port.
    pub(super) fn node_port(&self, service: &str, port: u16, protocol: &str) -> Result<u16> {
        let own = self.port(service, port, protocol)?;
        let node_port = own.and_then(|own| own["nodePort"].as_u64());
        Ok(node_port.with_context(|| format!("{service}:{port} has no node port"))?.try_into()?)
    }

    fn port(&self, service: &str, port: u16, protocol: &str) -> Result<Option<&Value>> {
        let ports = self.named("Service", service)?["spec"]["ports"].as_array().into_iter().flatten();
        Ok(ports.into_iter().find(|own| own["port"] == port && own["protocol"] == protocol))
    }

    /// The endpoints' port behind a Service's port, and the port itself where there is none.
    pub(super) fn target_port(&self, service: &str, port: u16, protocol: &str) -> Result<u16> {
        let name = self.port(service, port, protocol)?.map_or(Value::Null, |own| own["name"].clone());
        let slice = self.named("EndpointSlice", &format!("{service}-ipv4"))?;
        let targets = slice["ports"].as_array().into_iter().flatten();
        let target = targets.into_iter().find(|target| target["name"] == name);
        Ok(target.and_then(|target| target["port"].as_u64()).map_or(Ok(port), TryInto::try_into)?)
    }

    fn named(&self, kind: &str, name: &str) -> Result<&Value> {
        let mut objects = self.objects.iter();
        let found = objects.find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.with_context(|| format!("deploy/examples/demo has no {kind} {name}"))
    }
}

/// An IPv4 address and an IPv6 address.
fn both(ips: &Value) -> Result<DualStack> {
    match serde_json::from_value::<Vec<IpAddr>>(ips.clone())?.as_slice() {
        [IpAddr::V4(v4), IpAddr::V6(v6)] => Ok(DualStack { v4: *v4, v6: *v6 }),
        other => anyhow::bail!("one address of each family was expected, not {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::PODS;
    use crate::lab::address;

    #[test]
    fn the_lab_gives_the_pods_the_addresses_of_the_manifests() {
        let examples = Examples::parse().unwrap();
        let mut ordinals = [0, 0];
        for (node, name) in PODS {
            let ordinal = &mut ordinals[usize::from(node) - 1];
            let pod = examples.named("Pod", name).unwrap();
            assert_eq!(pod["spec"]["nodeName"], format!("n{node}"));
            let own = address::pod(node, *ordinal);
            let listed: Vec<_> = own.both().iter().map(|ip| json!({ "ip": ip })).collect();
            assert_eq!(pod["status"]["podIPs"], json!(listed), "{name}");
            *ordinal += 1;
        }
    }

    #[test]
    fn the_nodes_have_the_addresses_of_the_manifests() {
        let examples = Examples::parse().unwrap();
        for node in 1..=address::NODES {
            let object = examples.named("Node", &format!("n{node}")).unwrap();
            let listed = object["status"]["addresses"].as_array().unwrap();
            for (ip, listed) in address::node(node).both().iter().zip(listed) {
                assert_eq!(listed["address"], json!(ip));
            }
            assert_eq!(object["spec"]["podCIDRs"], json!(address::pod_cidrs(node)));
        }
    }

    #[test]
    fn the_load_balancers_address_is_one_that_the_router_leads_to_a_node() {
        let examples = Examples::parse().unwrap();
        assert_eq!(examples.balancer("web").unwrap(), address::balancer(10));
        assert_eq!(examples.node_port("web", 80, "UDP").unwrap(), 30_080);
        assert!(examples.node_port("dns", 53, "UDP").is_err());
    }

    #[test]
    fn a_port_leads_to_the_slices_port_of_its_name() {
        let examples = Examples::parse().unwrap();
        assert_eq!(examples.target_port("web", 9090, "TCP").unwrap(), 8081);
        assert_eq!(examples.target_port("web", 80, "UDP").unwrap(), 8080);
    }
}
