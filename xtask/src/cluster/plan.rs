//! Names and addresses of the cluster: pure. Everything else of `cargo xtask cluster` asks here.
//!
//! Nodes stand in 198.18.0.0/15, the range for tests of network devices (RFC 2544), and in unique local IPv6
//! addresses, so that the machine's own networks are hardly ever hidden.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How many nodes there are, from 1.
pub(super) const NODES: u8 = 3;
/// The room of the control plane; also its network namespace, the cgroup of all rooms and the machine's device.
pub(super) const CONTROL: &str = "weir-cluster";
/// Of Services.
pub(super) const SERVICE_CIDRS: &str = "10.96.0.0/16,fd00:96::/112";
/// Of pods, all nodes together.
pub(super) const CLUSTER_CIDRS: &str = "10.244.0.0/16,fd00:244::/48";
/// The Service `default/kubernetes`: the first address of the first range.
pub(super) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Where the API server listens.
pub(super) const API_PORT: u16 = 6443;
/// What a load balancer would give out; the control plane's namespace sends them to the first node.
pub(super) const EXTERNAL: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 18, 1, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x18, 1, 0, 0, 0, 0, 1))];

/// How the packets of pods get from node to node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ValueEnum)]
pub(super) enum Network {
    /// The nodes know the way to each other's pods
    Routes,
    /// Through tunnels, as flannel's
    Vxlan,
}

/// What `up` was asked for; the other commands read it again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The folder with the programs of Kubernetes.
    pub(super) binaries: PathBuf,
    /// How nodes are connected.
    pub(super) network: Network,
    /// The image of the containers that hold a pod's namespaces.
    pub(super) sandbox_image: String,
}

/// One of the cluster's machines, so to say: the control plane, or a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    /// etcd, API server, controllers, scheduler. No node.
    Control,
    /// Node 1 to [`NODES`].
    Node(u8),
}

impl Room {
    /// All, the control plane first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::Control).chain(Self::nodes())
    }

    /// The nodes.
    pub(super) fn nodes() -> impl Iterator<Item = Self> {
        (1..=NODES).map(Self::Node)
    }

    /// The room of that name.
    pub(super) fn parse_name(name: &str) -> Option<Self> {
        Self::all().find(|room| room.to_string() == name)
    }

    /// Its addresses, IPv4 first.
    pub(super) fn addresses(self) -> [IpAddr; 2] {
        let host = match self {
            Self::Control => 0x1,
            Self::Node(number) => 10 + number,
        };
        underlay(host)
    }

    /// The networks of its pods, IPv4 first. The control plane has none.
    pub(super) fn pod_cidrs(self) -> Option<[String; 2]> {
        match self {
            Self::Control => None,
            Self::Node(number) => {
                Some([format!("10.244.{number}.0/24"), format!("fd00:244:0:{number}::/64")])
            }
        }
    }

    /// The bridge's port for it, in the control plane's namespace.
    pub(super) fn port(self) -> String {
        match self {
            Self::Control => "lo".to_owned(),
            Self::Node(number) => format!("node-{number}"),
        }
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str(CONTROL),
            Self::Node(number) => write!(f, "weir-node-{number}"),
        }
    }
}

/// The machine's own addresses on the cluster's bridge: for kubectl, and as a client outside.
pub(super) fn machine_addresses() -> [IpAddr; 2] {
    underlay(0xfe)
}

/// With the length of the network that all machines are in.
pub(super) fn on_link(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}/24"),
        IpAddr::V6(address) => format!("{address}/64"),
    }
}

fn underlay(host: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, host.into());
    [IpAddr::V4(Ipv4Addr::new(198, 18, 0, host)), IpAddr::V6(v6)]
}

/// Where everything of the cluster is on disk. One place on a machine, whichever checkout it was made from, so that
/// `down` finds it.
#[derive(Clone, Debug)]
pub(super) struct State {
    root: PathBuf,
}

impl State {
    /// The cluster's of this machine.
    pub(super) fn of_machine() -> Self {
        Self { root: Path::new("/var/tmp").join(CONTROL) }
    }

    /// One of a test's.
    #[cfg(test)]
    pub(super) fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder of everything.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What `up` was asked for.
    pub(super) fn plan(&self) -> PathBuf {
        self.root.join("plan.json")
    }

    /// For whoever uses the cluster.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// What a room keeps.
    pub(super) fn room(&self, room: Room) -> PathBuf {
        self.root.join(room.to_string())
    }

    /// What its programs say: a file for each.
    pub(super) fn logs(&self, room: Room) -> PathBuf {
        self.room(room).join("log")
    }

    /// The number of its first process, as the machine counts.
    pub(super) fn pid(&self, room: Room) -> PathBuf {
        self.room(room).join("pid")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everybody_has_an_address_and_a_name_of_its_own() {
        let mut addresses: Vec<_> = Room::all().flat_map(Room::addresses).collect();
        addresses.extend(machine_addresses());
        addresses.extend(EXTERNAL);
        let count = addresses.len();
        assert_eq!(addresses.into_iter().collect::<BTreeSet<_>>().len(), count);
        for room in Room::all() {
            assert_eq!(Room::parse_name(&room.to_string()), Some(room));
        }
        assert_eq!(Room::parse_name("weir-node-4"), None);
    }

    #[test]
    fn pods_of_a_node_are_in_the_cluster_s_networks() {
        let [v4, v6] = Room::Node(2).pod_cidrs().unwrap();
        assert_eq!((v4.as_str(), v6.as_str()), ("10.244.2.0/24", "fd00:244:0:2::/64"));
        assert_eq!(Room::Control.pod_cidrs(), None);
    }

    #[test]
    fn names_of_devices_fit_into_what_the_kernel_allows() {
        for room in Room::all() {
            assert!(room.port().len() < 16 && CONTROL.len() < 16);
        }
    }
}
