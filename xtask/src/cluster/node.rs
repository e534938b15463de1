//! A node's programs and their configuration: containerd and kubelet, and what CNI plugins are told. Pure but for
//! [`write_configs`].

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::network::pod_mtu;
use super::plan::{Plan, Room};
use super::service::Service;

/// Where containerd listens.
pub(super) const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// Where Debian has the plugins.
pub(super) const CNI_PLUGINS: &str = "/usr/lib/cni";
/// In a room: what is written by [`write_configs`].
const CONFIG: &str = "/etc/kubernetes";

/// What the first process of a node starts.
pub(super) fn services(node: Room) -> Vec<Service> {
    let addresses = node.addresses().map(|address| address.to_string()).join(",");
    let kubelet = vec![
        format!("--config={CONFIG}/kubelet.json"),
        format!("--kubeconfig={CONFIG}/kubelet.conf"),
        format!("--hostname-override={node}"),
        format!("--node-ip={addresses}"),
        "--v=1".to_owned(),
    ];
    vec![
        Service::new("containerd", vec![format!("--config={CONFIG}/containerd.toml")]),
        Service::new("kubelet", kubelet),
    ]
}

/// Writes what they are configured with: into `kubernetes`, the node's `/etc/kubernetes`, and `cni`, its
/// `/etc/cni/net.d`.
pub(super) fn write_configs(plan: &Plan, node: Room, kubernetes: &Path, cni: &Path) -> Result<()> {
    let write = |path: &Path, text: &str| fs::write(path, text).with_context(|| path.display().to_string());
    let json = |value: &Value| serde_json::to_string_pretty(value);
    write(&kubernetes.join("containerd.toml"), &containerd(plan))?;
    write(&kubernetes.join("kubelet.json"), &json(&kubelet())?)?;
    write(&cni.join("10-weir-cluster.conflist"), &json(&network(plan, node))?)
}

/// Version 2, which containerd 1.6 and all later ones read.
fn containerd(plan: &Plan) -> String {
    format!(
        "version = 2\n\
         [grpc]\n\
         address = \"{CONTAINERD}\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\n\
         sandbox_image = \"{}\"\n\
         # Where this very process may not lower anybody's score, containers must not ask for it.\n\
         restrict_oom_score_adj = true\n\
         disable_apparmor = true\n\
         # Not below /run/netns, which is the machine's.\n\
         netns_mounts_under_state_dir = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
         bin_dir = \"{CNI_PLUGINS}\"\n\
         conf_dir = \"/etc/cni/net.d\"\n",
        plan.sandbox_image
    )
}

fn kubelet() -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": { "x509": { "clientCAFile": format!("{CONFIG}/ca.crt") } },
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        // Both work in the node's own cgroup namespace, whoever keeps the machine's cgroups.
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "enforceNodeAllocatable": [],
        // Three nodes share one disk, which is the machine's; that it is nearly full is not theirs to mend.
        "evictionHard": { "nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi" },
        "imageGCHighThresholdPercent": 100,
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "nodeStatusReportFrequency": "10s",
        "serializeImagePulls": false,
    })
}

/// A bridge for the pods, both families, nothing masqueraded; host ports.
fn network(plan: &Plan, node: Room) -> Value {
    let ranges: Vec<_> =
        node.pod_cidrs().into_iter().flatten().map(|subnet| json!([{ "subnet": subnet }])).collect();
    json!({
        "cniVersion": "0.4.0",
        "name": "weir-cluster",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "mtu": pod_mtu(plan.network),
                "ipam": {
                    "type": "host-local",
                    "ranges": ranges,
                    "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// The Node as it is made before its kubelet comes: that it has these networks is for the routes' sake.
pub(super) fn object(node: Room) -> Value {
    let cidrs = node.pod_cidrs().unwrap_or_default();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.to_string(),
            "labels": {
                "kubernetes.io/hostname": node.to_string(),
                // Each in a zone of its own, so that traffic distribution has something to tell apart.
                "topology.kubernetes.io/zone": format!("zone-of-{node}"),
            },
        },
        "spec": { "podCIDR": cidrs[0], "podCIDRs": cidrs },
    })
}

#[cfg(test)]
mod tests {
    use super::super::plan::Network;
    use super::*;

    fn plan(network: Network) -> Plan {
        Plan { binaries: "/b".into(), network, sandbox_image: "registry.example/pause:1".into() }
    }

    #[test]
    fn a_node_gives_its_pods_the_networks_that_its_object_has() {
        let config = network(&plan(Network::Vxlan), Room::Node(3));
        let bridge = &config["plugins"][0];
        assert_eq!(bridge["mtu"], 1430);
        let object = object(Room::Node(3));
        for family in 0..2 {
            assert_eq!(bridge["ipam"]["ranges"][family][0]["subnet"], object["spec"]["podCIDRs"][family]);
        }
        assert_eq!(object["spec"]["podCIDR"], object["spec"]["podCIDRs"][0]);
    }

    #[test]
    fn what_a_node_reads_is_written() {
        let folder = tempfile::tempdir().unwrap();
        write_configs(&plan(Network::Routes), Room::Node(1), folder.path(), folder.path()).unwrap();
        let containerd = fs::read_to_string(folder.path().join("containerd.toml")).unwrap();
        assert!(containerd.contains("sandbox_image = \"registry.example/pause:1\""), "{containerd}");
        for service in services(Room::Node(1)) {
            let config = service.arguments[0].strip_prefix("--config=/etc/kubernetes/").unwrap();
            assert!(folder.path().join(config).is_file(), "{config}");
        }
    }
}
