//! The wires: what a bridge CNI plugin, a router and two nodes make of network namespaces.
//!
//! ```text
//!   n1: cni0 (bridge) -- veth -- pods          n2: cni0 (bridge) -- veth -- pods
//!       eth0 --------------- net: br0 (bridge, router) --------------- eth0
//!                                 out0 -------- eth0 :outside
//! ```
//!
//! Nodes have a static route to each other's pod networks and a default route to the router, which knows
//! nothing beyond the client: no packet can leave the lab.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::address::{self, DualStack};
use super::ident::LabId;
use super::netns::{self, Netns};
use super::process::Place;
use super::{cgroup, offload, overlay, teardown};

/// What can be chosen about a lab.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// The bridge plugin's `hairpinMode`: whether the bridge sends a frame back to the pod that it came from.
    pub hairpin: bool,
    /// How nodes reach each other's pods.
    pub network: Network,
}

/// How nodes reach each other's pods.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Network {
    /// By routes (kindnet, flannel's host-gw).
    #[default]
    Routed,
    /// Through vxlan tunnels (flannel's default).
    Overlay,
}

/// Two nodes, the network between them, and a client outside. Removed when dropped.
#[derive(Debug)]
pub struct Lab {
    id: LabId,
    settings: Settings,
    nodes: Vec<Node>,
    router: Place,
    client: Place,
}

/// A node of the lab.
#[derive(Debug)]
pub struct Node {
    number: u8,
    place: Place,
    cgroup: PathBuf,
    pods: Vec<Pod>,
}

/// A pod of a node.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Where its processes run.
    pub place: Place,
    /// Its addresses.
    pub addresses: DualStack,
}

impl Lab {
    /// Makes a lab without pods, after removing what dead labs left.
    ///
    /// # Errors
    /// Not root, no iproute2, no cgroup v2; whatever was made until then is removed again.
    pub fn create(settings: Settings) -> Result<Self> {
        teardown::sweep()?;
        teardown::ensure_bpffs()?;
        let id = LabId::next();
        teardown::register(id);
        Self::wire(id, settings).inspect_err(|_| teardown::unregister(id))
    }

    fn wire(id: LabId, settings: Settings) -> Result<Self> {
        let _held = teardown::changing();
        let cgroup = cgroup::ensure_root()?.join(id.to_string());
        fs::create_dir_all(teardown::directory(id))?;
        let names = ["net", "outside", "n1", "n2"];
        let made = netns::create(&names.map(|name| id.name(name)))?;
        for netns in &made {
            netns.ensure_sysctls(QUIET_IPV6)?;
        }
        let place = |name: &str, netns: &Netns, cgroup: PathBuf| {
            cgroup::ensure(&cgroup)?;
            Ok::<_, anyhow::Error>(Place::new(name, netns.clone(), cgroup))
        };
        let [net, outside, n1, n2] = made.as_slice() else {
            anyhow::bail!("{} namespaces instead of {}", made.len(), names.len());
        };
        net.ensure_sysctls(FORWARDING)?;
        // it answers at ClusterIPs that it has a route for and no device with
        net.ensure_sysctls(&[("ipv6/ip_nonlocal_bind", "1")])?;
        net.ip(&router_commands(n1, n2, outside))?;
        outside.ip(&client_commands())?;
        let mut nodes = Vec::new();
        for (number, netns) in (1..).zip([n1, n2]) {
            let cgroup = cgroup.join(format!("n{number}"));
            netns.ensure_sysctls(FORWARDING)?;
            netns.ip(&node_commands(number))?;
            match settings.network {
                Network::Routed => netns.ip(&peer_commands(number))?,
                Network::Overlay => {
                    netns.ip(&overlay::commands(number))?;
                    netns.bridge(&overlay::forwarding(number))?;
                }
            }
            let place = place(&format!("n{number}"), netns, cgroup.join("host"))?;
            nodes.push(Node { number, place, cgroup, pods: Vec::new() });
        }
        let router = place("net", net, cgroup.join("net"))?;
        let client = place("outside", outside, cgroup.join("outside"))?;
        Ok(Self { id, settings, nodes, router, client })
    }

    /// Its name on the machine.
    #[must_use]
    pub fn id(&self) -> LabId {
        self.id
    }

    /// Where its files are: manifests, the agents' logs.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        teardown::directory(self.id)
    }

    /// n1 and n2.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The router between the nodes and the client.
    #[must_use]
    pub fn router(&self) -> &Place {
        &self.router
    }

    /// The client outside the cluster. No agent sees its sockets.
    #[must_use]
    pub fn client(&self) -> &Place {
        &self.client
    }

    /// Switches off every offload of every device: packets are then between namespaces what they would be on a wire.
    ///
    /// # Errors
    /// What `ethtool` said.
    pub fn ensure_no_offload(&self) -> Result<()> {
        let nodes = self
            .nodes
            .iter()
            .flat_map(|node| node.pods.iter().map(|pod| &pod.place).chain(std::iter::once(&node.place)));
        nodes.chain([&self.router, &self.client]).try_for_each(|place| offload::ensure_off(place.netns()))
    }

    /// The same of the nodes' devices alone: they compute what pods and clients leave to them.
    ///
    /// # Errors
    /// What `ethtool` said.
    pub fn ensure_no_offload_of_nodes(&self) -> Result<()> {
        self.nodes.iter().try_for_each(|node| offload::ensure_off(node.place.netns()))
    }

    /// Makes a pod on a node (1, 2), as the bridge plugin would.
    ///
    /// # Errors
    /// There is no such node, or the name is taken.
    pub fn add_pod(&mut self, node: u8, name: &str) -> Result<Pod> {
        self.add_pod_below(node, name, Path::new(name))
    }

    /// The same with its processes in this cgroup of the node's.
    ///
    /// # Errors
    /// As there.
    pub fn add_pod_below(&mut self, node: u8, name: &str, below: &Path) -> Result<Pod> {
        let _held = teardown::changing();
        let hairpin = self.settings.hairpin;
        let id = self.id;
        let node = self.nodes.iter_mut().find(|it| it.number == node).context("no such node")?;
        let ordinal = u8::try_from(node.pods.len())?;
        let addresses = address::pod(node.number, ordinal);
        let made = netns::create(&[id.name(name)])?;
        let netns = made.first().context("no namespace")?;
        netns.ensure_sysctls(QUIET_IPV6)?;
        let veth = format!("veth{ordinal}");
        netns.ip(&pod_commands(node.number, addresses, &veth, node.place.netns().name()))?;
        if self.settings.network == Network::Overlay {
            let mtu = overlay::POD_MTU;
            netns.ip(&[format!("link set eth0 mtu {mtu}")])?;
            node.place.netns().ip(&[format!("link set {veth} mtu {mtu}")])?;
        }
        node.place.netns().ip(&plug_commands(&veth, hairpin))?;
        let cgroup = node.cgroup.join(below);
        cgroup::ensure(&cgroup)?;
        let pod = Pod { place: Place::new(name, netns.clone(), cgroup), addresses };
        node.pods.push(pod.clone());
        Ok(pod)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        teardown::unregister(self.id);
    }
}

impl Node {
    /// 1 or 2
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Where the node's own processes run.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The cgroup that holds the node's processes and its pods': the agent's `--cgroup-root`.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Its address on the nodes' network.
    #[must_use]
    pub fn addresses(&self) -> DualStack {
        address::node(self.number)
    }

    /// Its pods, in the order they were made.
    #[must_use]
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }
}

/// Addresses are usable at once, and none come from outside.
const QUIET_IPV6: &[(&str, &str)] = &[
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
];

const FORWARDING: &[(&str, &str)] = &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];

fn router_commands(n1: &Netns, n2: &Netns, client: &Netns) -> Vec<String> {
    let mut commands = vec!["link set lo up".into(), "link add br0 type bridge".into()];
    for (port, node) in [("node1", n1), ("node2", n2)] {
        commands.push(format!("link add {port} type veth peer name eth0 netns {}", node.name()));
        commands.push(format!("link set {port} master br0 up"));
    }
    commands.push(format!("link add out0 type veth peer name eth0 netns {}", client.name()));
    commands.extend(["link set br0 up".into(), "link set out0 up".into()]);
    commands.extend(address_commands("br0", address::ROUTER));
    commands.extend(address_commands("out0", address::ROUTER_OUTSIDE));
    for number in 1..=address::NODES {
        commands.extend(route_commands(&address::pod_cidrs(number), address::node(number)));
    }
    let n1 = address::node(1);
    commands.extend(address::LED_TO_N1.map(|cidr| {
        let via = if cidr.contains(':') { n1.v6.to_string() } else { n1.v4.to_string() };
        format!("route add {cidr} via {via}")
    }));
    // whoever dials one of these untranslated reaches the router itself, which can tell
    commands.extend(address::FOREIGN_CIDRS.map(|cidr| format!("route add local {cidr} dev lo")));
    commands
}

fn node_commands(number: u8) -> Vec<String> {
    let mut commands: Vec<String> =
        ["link set lo up", "link set eth0 up", "link add cni0 type bridge", "link set cni0 up"]
            .map(Into::into)
            .into();
    commands.extend(address_commands("eth0", address::node(number)));
    commands.extend(address_commands("cni0", address::gateway(number)));
    commands.extend(default_commands(address::ROUTER));
    commands
}

/// The routes to other nodes' pods.
fn peer_commands(number: u8) -> Vec<String> {
    let others = (1..=address::NODES).filter(|other| *other != number);
    others.flat_map(|other| route_commands(&address::pod_cidrs(other), address::node(other))).collect()
}

fn client_commands() -> Vec<String> {
    let mut commands = vec!["link set lo up".into(), "link set eth0 up".into()];
    commands.extend(address_commands("eth0", address::CLIENT));
    commands.extend(default_commands(address::ROUTER_OUTSIDE));
    commands
}

fn pod_commands(node: u8, addresses: DualStack, veth: &str, node_netns: &str) -> Vec<String> {
    let mut commands = vec![
        "link set lo up".into(),
        format!("link add eth0 type veth peer name {veth} netns {node_netns}"),
        "link set eth0 up".into(),
    ];
    commands.extend(address_commands("eth0", addresses));
    commands.extend(default_commands(address::gateway(node)));
    commands
}

fn plug_commands(veth: &str, hairpin: bool) -> Vec<String> {
    let hairpin = if hairpin { "on" } else { "off" };
    vec![
        format!("link set {veth} master cni0 up"),
        format!("link set {veth} type bridge_slave hairpin {hairpin}"),
    ]
}

fn address_commands(device: &str, addresses: DualStack) -> [String; 2] {
    [
        format!("addr add {}/24 dev {device}", addresses.v4),
        format!("addr add {}/64 dev {device} nodad", addresses.v6),
    ]
}

fn default_commands(gateway: DualStack) -> [String; 2] {
    [format!("route add default via {}", gateway.v4), format!("route add default via {}", gateway.v6)]
}

fn route_commands(cidrs: &[String; 2], via: DualStack) -> [String; 2] {
    let [v4, v6] = cidrs;
    [format!("route add {v4} via {}", via.v4), format!("route add {v6} via {}", via.v6)]
}
