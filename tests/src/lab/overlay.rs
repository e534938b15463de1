//! The network between nodes as flannel's vxlan backend makes it: pod networks behind tunnel devices.

use super::address::{self, NODES, pod_cidrs};

/// The tunnels' devices, IPv4 and IPv6, as flannel names them.
const DEVICES: [&str; 2] = ["flannel.1", "flannel-v6.1"];
/// What an encapsulated packet leaves of the 1500 bytes: 50 less in IPv4, 70 in IPv6.
const MTU: u16 = 1430;

/// The Ethernet address of a node's tunnel device.
fn mac(node: u8, family: usize) -> String {
    format!("02:42:00:0{family}:00:0{node}")
}

/// The addresses of a node's tunnel devices.
fn own(node: u8) -> [String; 2] {
    address::tunnel(node).both().map(|addr| addr.to_string())
}

/// What flannel does on node `number`, as `ip` commands; the routes to other nodes' pods lead into the tunnel.
pub(super) fn commands(number: u8) -> Vec<String> {
    let mut commands = Vec::new();
    for (family, device) in DEVICES.into_iter().enumerate() {
        let underlay = address::node(number).both()[family];
        let id = if family == 0 { "1" } else { "2" };
        commands.push(format!(
            "link add {device} address {} mtu {MTU} type vxlan id {id} local {underlay} dev eth0 dstport 8472 nolearning",
            mac(number, family)
        ));
        commands.push(format!("link set {device} up"));
        let bits = if family == 0 { 32 } else { 128 };
        let nodad = if family == 0 { "" } else { " nodad" };
        commands.push(format!("addr add {}/{bits} dev {device}{nodad}", own(number)[family]));
        for other in (1..=NODES).filter(|other| *other != number) {
            let (gateway, cidr) = (&own(other)[family], &pod_cidrs(other)[family]);
            commands.push(format!(
                "neigh replace {gateway} lladdr {} dev {device} nud permanent",
                mac(other, family)
            ));
            commands.push(format!("route replace {cidr} via {gateway} dev {device} onlink"));
        }
    }
    commands
}

/// What `bridge` has to be told: behind which node each tunnel address is.
pub(super) fn forwarding(number: u8) -> Vec<String> {
    let others = (1..=NODES).filter(|other| *other != number);
    others
        .flat_map(|other| {
            DEVICES.into_iter().enumerate().map(move |(family, device)| {
                let underlay = address::node(other).both()[family];
                format!("fdb replace {} dev {device} dst {underlay}", mac(other, family))
            })
        })
        .collect()
}

/// The length of packets in pods, so that they fit into the tunnel.
pub(super) const POD_MTU: u16 = MTU;
