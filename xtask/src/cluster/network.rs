//! The wires: a namespace for each room, a bridge in the control plane's, and ways to the pods. Nothing of it leads
//! off this machine: the nodes' gateway is the control plane, which forwards nothing.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::plan::{CONTROL, EXTERNAL, Network, Room, machine_addresses, on_link};

/// The bridge, in the control plane's namespace.
const BRIDGE: &str = "br0";
/// The tunnels, IPv4 and IPv6, as flannel names them.
const TUNNELS: [&str; 2] = ["flannel.1", "flannel-v6.1"];
/// What an encapsulated packet leaves of 1500 bytes; in IPv6, which takes more.
const TUNNEL_MTU: u16 = 1430;

/// Makes all namespaces and what is in them, and the machine's own device on the bridge.
pub(super) fn create(network: Network) -> Result<()> {
    batch("ip", None, &[namespaces(), wires()].concat())?;
    batch("ip", Some(CONTROL), &control())?;
    for room in Room::nodes() {
        batch("ip", Some(&room.to_string()), &[node(room), ways(room, network)].concat())?;
        if network == Network::Vxlan {
            batch("bridge", Some(&room.to_string()), &forwarding(room))?;
        }
    }
    Ok(())
}

/// The longest packet of a pod.
pub(super) fn pod_mtu(network: Network) -> u16 {
    match network {
        Network::Routes => 1500,
        Network::Vxlan => TUNNEL_MTU,
    }
}

fn namespaces() -> Vec<String> {
    Room::all().map(|room| format!("netns add {room}")).collect()
}

/// From the machine's namespace: every wire, and the machine's own end.
fn wires() -> Vec<String> {
    let mut commands = vec![format!("link add {CONTROL} type veth peer name machine netns {CONTROL}")];
    for room in Room::nodes() {
        commands
            .push(format!("link add eth0 netns {room} type veth peer name {} netns {CONTROL}", room.port()));
    }
    commands.extend(addresses(CONTROL, machine_addresses().map(on_link)));
    commands.push(format!("link set {CONTROL} up"));
    commands
}

/// In the control plane's namespace: the bridge, its ports, and ways to pods and external addresses.
fn control() -> Vec<String> {
    let mut commands = vec!["link set lo up".to_owned(), format!("link add {BRIDGE} type bridge")];
    commands.extend(addresses(BRIDGE, Room::Control.addresses().map(on_link)));
    commands.push(format!("link set {BRIDGE} up"));
    for port in std::iter::once("machine".to_owned()).chain(Room::nodes().map(Room::port)) {
        commands.push(format!("link set {port} master {BRIDGE}"));
        commands.push(format!("link set {port} up"));
    }
    for room in Room::nodes() {
        commands.extend(routes(room));
    }
    let first = Room::Node(1).addresses();
    commands
        .extend(EXTERNAL.iter().zip(first).map(|(address, via)| format!("route add {address} via {via}")));
    commands
}

/// In a node's namespace: its address, and the gateway, without which a node has no device that faces others.
fn node(room: Room) -> Vec<String> {
    let mut commands = vec!["link set lo up".to_owned()];
    commands.extend(addresses("eth0", room.addresses().map(on_link)));
    commands.push("link set eth0 up".to_owned());
    commands.extend(Room::Control.addresses().map(|gateway| format!("route add default via {gateway}")));
    commands
}

/// From a node to the pods of the others.
fn ways(room: Room, network: Network) -> Vec<String> {
    let others = Room::nodes().filter(|other| *other != room);
    match network {
        Network::Routes => others.flat_map(routes).collect(),
        Network::Vxlan => tunnels(room).into_iter().chain(others.flat_map(tunnel_routes)).collect(),
    }
}

/// To a node's pods by the node's own address.
fn routes(to: Room) -> Vec<String> {
    let pairs = to.pod_cidrs().into_iter().flatten().zip(to.addresses());
    pairs.map(|(cidr, via)| format!("route add {cidr} via {via}")).collect()
}

fn tunnels(room: Room) -> Vec<String> {
    let mut commands = Vec::new();
    for (family, (device, local)) in TUNNELS.into_iter().zip(room.addresses()).enumerate() {
        let (address, mac, id) = (&tunnel_addresses(room)[family], mac(room, family), family + 1);
        commands.push(format!(
            "link add {device} address {mac} mtu {TUNNEL_MTU} type vxlan id {id} local {local} dev eth0 dstport 8472 \
             nolearning"
        ));
        let suffix = ["/32", "/128"][family];
        let flags = ["", " nodad"][family];
        commands.push(format!("addr add {address}{suffix} dev {device}{flags}"));
        commands.push(format!("link set {device} up"));
    }
    commands
}

fn tunnel_routes(to: Room) -> Vec<String> {
    let mut commands = Vec::new();
    let cidrs = to.pod_cidrs().into_iter().flatten().zip(tunnel_addresses(to));
    for (family, (cidr, via)) in cidrs.enumerate() {
        let device = TUNNELS[family];
        commands.push(format!("neigh add {via} lladdr {} dev {device} nud permanent", mac(to, family)));
        commands.push(format!("route add {cidr} via {via} dev {device} onlink"));
    }
    commands
}

/// For `bridge`: behind which node a tunnel's other end is.
fn forwarding(room: Room) -> Vec<String> {
    let mut commands = Vec::new();
    for other in Room::nodes().filter(|other| *other != room) {
        for (family, to) in other.addresses().into_iter().enumerate() {
            commands.push(format!("fdb add {} dev {} dst {to}", mac(other, family), TUNNELS[family]));
        }
    }
    commands
}

/// The first address of a node's pod networks, which no pod gets.
fn tunnel_addresses(room: Room) -> [String; 2] {
    let first = |cidr: String| cidr.split('/').next().unwrap_or_default().to_owned();
    room.pod_cidrs().map(|cidrs| cidrs.map(first)).unwrap_or_default()
}

fn mac(room: Room, family: usize) -> String {
    let number = match room {
        Room::Control => 0,
        Room::Node(number) => number,
    };
    format!("02:42:00:0{family}:00:{number:02x}")
}

fn addresses(device: &str, addresses: [String; 2]) -> impl Iterator<Item = String> {
    let [v4, v6] = addresses;
    [format!("addr add {v4} dev {device}"), format!("addr add {v6} dev {device} nodad")].into_iter()
}

fn batch(program: &str, namespace: Option<&str>, commands: &[String]) -> Result<()> {
    let mut child = Command::new(program);
    child.args(namespace.iter().flat_map(|namespace| ["-n", namespace])).args(["-batch", "-"]);
    let mut child = child
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program} (package iproute2)"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(commands.join("\n").as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} in {}: {}", namespace.unwrap_or("the machine's namespace"), said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_knows_the_way_to_all_other_pods_and_to_no_own() {
        for (network, device) in [(Network::Routes, ""), (Network::Vxlan, "flannel")] {
            let ways = ways(Room::Node(2), network);
            let routes: Vec<_> = ways.iter().filter(|line| line.starts_with("route add")).collect();
            assert_eq!(routes.len(), 4, "{routes:?}");
            assert!(routes.iter().all(|route| route.contains(device) && !route.contains("10.244.2.0")));
        }
    }

    #[test]
    fn tunnels_are_addressed_by_what_pods_never_get() {
        let lines = tunnels(Room::Node(3));
        assert!(lines.contains(&"addr add 10.244.3.0/32 dev flannel.1".to_owned()), "{lines:?}");
        assert!(
            lines.contains(&"addr add fd00:244:0:3::/128 dev flannel-v6.1 nodad".to_owned()),
            "{lines:?}"
        );
        assert_eq!(forwarding(Room::Node(3)).len(), 4);
    }
}
