//! What the check puts onto the cluster: a server and two clients on every node, and Services of several kinds.

use anyhow::Result;
use serde_json::{Value, json};

use super::super::kubectl::{Kubectl, wait_for};
use super::super::plan::EXTERNAL;
use super::{NAMESPACE, PODS_TIMEOUT};

/// The ports of the servers, and of the clients that are in a pod network.
pub(super) const HTTP: u16 = 8080;
/// The same over UDP.
pub(super) const UDP: u16 = 8081;
/// Of the clients in the node's network.
pub(super) const ON_NODE: u16 = 18080;

/// Makes everything and waits until it is there.
pub(super) fn make(kubectl: &Kubectl, agnhost: &str) -> Result<()> {
    kubectl.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }))?;
    let sets = [
        set("server", agnhost, HTTP, false),
        set("pod", agnhost, HTTP, false),
        set("node", agnhost, ON_NODE, true),
    ];
    for object in sets.iter().chain(&services()) {
        kubectl.apply(object)?;
    }
    // What a cloud's load balancer controller would do.
    let ingress: Vec<_> = EXTERNAL.iter().map(|address| json!({ "ip": address.to_string() })).collect();
    let status = json!({ "status": { "loadBalancer": { "ingress": ingress } } }).to_string();
    let namespace = format!("--namespace={NAMESPACE}");
    kubectl.run(&[
        "patch",
        &namespace,
        "service",
        "local",
        "--subresource=status",
        "--type=merge",
        "--patch",
        &status,
    ])?;
    for name in ["server", "pod", "node"] {
        let name = format!("daemonset/{name}");
        let timeout = format!("--timeout={}s", PODS_TIMEOUT.as_secs());
        kubectl.run(&["rollout", &namespace, "status", &name, &timeout])?;
    }
    wait_for("endpoints", PODS_TIMEOUT, || count_endpoints(kubectl))
}

/// And waits until all is gone.
pub(super) fn remove(kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&["delete", "namespace", NAMESPACE, "--timeout=120s"]).map(|_| ())
}

fn count_endpoints(kubectl: &Kubectl) -> Result<()> {
    let namespace = format!("--namespace={NAMESPACE}");
    let slices = kubectl.get(&[&namespace, "endpointslices", "--selector=kubernetes.io/service-name=web"])?;
    let slices = slices["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready = |slice: &Value| {
        let endpoints = slice["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
        endpoints.iter().filter(|endpoint| endpoint["conditions"]["ready"] == true).count()
    };
    let count: usize = slices.iter().map(ready).sum();
    anyhow::ensure!(count == 2 * usize::from(super::super::plan::NODES), "{count} endpoints are ready");
    Ok(())
}

/// One pod on every node.
fn set(name: &str, image: &str, port: u16, on_node: bool) -> Value {
    let labels = json!({ "app": name, "serves": if name == "server" { "yes" } else { "no" } });
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "hostNetwork": on_node,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "netexec",
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "args": ["netexec", format!("--http-port={port}"), format!("--udp-port={}", port + 1)],
                        "readinessProbe": { "httpGet": { "path": "/healthz", "port": port }, "periodSeconds": 1 },
                    }],
                },
            },
        },
    })
}

fn services() -> [Value; 4] {
    [
        service("web", &json!({ "type": "NodePort" })),
        service("local", &json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local" })),
        service("sticky", &json!({ "sessionAffinity": "ClientIP" })),
        service("empty", &json!({ "selector": { "app": "nobody" } })),
    ]
}

fn service(name: &str, more: &Value) -> Value {
    let mut spec = json!({
        "selector": { "app": "server", "serves": "yes" },
        "ipFamilyPolicy": "RequireDualStack",
        "ports": [
            { "name": "http", "port": 80, "targetPort": HTTP, "protocol": "TCP" },
            // As DNS is served.
            { "name": "dns", "port": 53, "targetPort": UDP, "protocol": "UDP" },
        ],
    });
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_both_families_and_both_protocols() {
        for service in services() {
            assert_eq!(service["spec"]["ipFamilyPolicy"], "RequireDualStack");
            assert_eq!(service["spec"]["ports"][1]["protocol"], "UDP");
        }
        assert_eq!(services()[3]["spec"]["selector"], json!({ "app": "nobody" }));
    }
}
