//! What a person can say about the node's network: options of `weir agent`.

use std::net::IpAddr;

use clap::{ArgAction, Args, ValueEnum};
use ipnet::IpNet;

use crate::network::{Forwarding, Options, RowOptions, SocketLb, Xdp};
use crate::state::NodePortAddresses;

#[derive(Args, Debug)]
pub(super) struct NetworkArgs {
    /// Devices that lead to other nodes and the world, by name or glob, with commas between them. Default: found out.
    #[arg(long, env = "WEIR_DEVICES", value_delimiter = ',', value_name = "NAME")]
    devices: Vec<String>,
    /// Devices of pods whose packets may have any source while there are NetworkPolicies, by name or glob, with commas between
    /// them: of pods that forward for others.
    #[arg(long, env = "WEIR_TRUSTED_DEVICES", value_delimiter = ',', value_name = "NAME")]
    trusted_devices: Vec<String>,
    /// The same by the pods themselves: NAMESPACE/NAME, or globs of such, with commas between them.
    #[arg(long, env = "WEIR_TRUSTED_PODS", value_delimiter = ',', value_name = "NAMESPACE/NAME")]
    trusted_pods: Vec<String>,
    /// The node's own addresses, at most one of each family. Default: the one towards the default route.
    #[arg(long, env = "WEIR_NODE_IP", value_delimiter = ',', value_name = "ADDRESS")]
    node_ip: Vec<IpAddr>,
    /// Where node ports are served: `primary` (the node's own addresses, and the node's sockets at loopback addresses),
    /// or networks with commas between them.
    #[arg(long, env = "WEIR_NODE_PORT_ADDRESSES", default_value = "primary", value_name = "NETWORKS")]
    pub(super) node_port_addresses: NodePortAddresses,
    /// The networks of ClusterIPs, at most four: their addresses without a Service are refused, instead of being sent
    /// on.
    #[arg(long, env = "WEIR_SERVICE_CIDRS", value_delimiter = ',', num_args = 0..=4, value_name = "NETWORK")]
    service_cidrs: Vec<IpNet>,
    /// The networks of which this node's pods have their addresses, at most two: while there are NetworkPolicies an address of
    /// theirs that is no known pod's is held, also while no agent runs. Default: the Node's `spec.podCIDRs`.
    #[arg(long, env = "WEIR_POD_CIDRS", value_delimiter = ',', value_name = "NETWORK")]
    pod_cidrs: Vec<IpNet>,
    /// The ports that stand for clients towards backends on other nodes. No process of the node should use them.
    #[arg(long, env = "WEIR_SNAT_PORTS", default_value = "16384-29999", value_parser = parse_ports, value_name = "FIRST-LAST")]
    snat_ports: (u16, u16),
    /// Whether translated packets pass the stack and its netfilter, or go from device to device past it.
    #[arg(long, env = "WEIR_FORWARDING", value_enum, default_value_t)]
    forwarding: ForwardingArg,
    /// Whose connections are translated at the socket; those of all others are translated per packet.
    #[arg(long, env = "WEIR_SOCKET_LB", value_enum, default_value_t)]
    socket_lb: SocketLbArg,
    /// Whether a backend on another node sees who outside the cluster dials a ClusterIP. It must then answer by way of
    /// this node, as where this node is its gateway.
    #[arg(long, env = "WEIR_CLUSTER_IP_CLIENTS", value_enum, default_value_t)]
    cluster_ip_clients: ClientsArg,
    /// Where packets of known flows between nodes are translated: in the driver of the device by which they come, before
    /// the stack has them. Their checksums must be whole, as from a wire.
    #[arg(long, env = "WEIR_XDP", value_enum, default_value_t)]
    xdp: XdpArg,
    /// Whether translated packets that go through the stack are marked 0x4000: flannel then leaves their source alone.
    /// Rules that kube-proxy has left behind do the opposite: remove those, or say `false`.
    #[arg(long, env = "WEIR_MARK_FORWARDED", default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    mark_forwarded: bool,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
enum ClientsArg {
    /// It sees an address of this node.
    #[default]
    Hide,
    /// It sees the client.
    Show,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default)]
enum XdpArg {
    /// At tc, like all others.
    #[default]
    Off,
    /// In the driver, where it can.
    Native,
    /// Behind the driver, whatever it is: slower, for trying it out.
    Generic,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default)]
enum SocketLbArg {
    /// The node's and its pods'.
    #[default]
    All,
    /// The node's own only, as where every pod is a virtual machine or has a sidecar that reads what was dialled.
    Node,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default)]
enum ForwardingArg {
    /// Past the stack where that is possible.
    #[default]
    Auto,
    /// Always through the stack.
    Stack,
    /// Past the stack where that is possible.
    Redirect,
}

impl NetworkArgs {
    pub(super) fn options(&self) -> anyhow::Result<Options> {
        for is_v6 in [false, true] {
            let count = self.node_ip.iter().filter(|ip| ip.is_ipv6() == is_v6).count();
            anyhow::ensure!(count <= 1, "--node-ip: {count} addresses of one family; give at most one");
        }
        anyhow::ensure!(self.service_cidrs.len() <= 4, "--service-cidrs: more than four networks");
        anyhow::ensure!(self.pod_cidrs.len() <= 2, "--pod-cidrs: more than two networks");
        Ok(Options {
            devices: Options::devices("--devices", &self.devices)?,
            trusted: Options::devices("--trusted-devices", &self.trusted_devices)?,
            trusted_pods: Options::devices("--trusted-pods", &self.trusted_pods)?,
            node_ips: self.node_ip.clone(),
        })
    }

    pub(super) fn rows(&self) -> RowOptions {
        let forwarding = match self.forwarding {
            ForwardingArg::Auto => Forwarding::Auto,
            ForwardingArg::Stack => Forwarding::Stack,
            ForwardingArg::Redirect => Forwarding::Redirect,
        };
        let socket_lb = match self.socket_lb {
            SocketLbArg::All => SocketLb::All,
            SocketLbArg::Node => SocketLb::Node,
        };
        let xdp = match self.xdp {
            XdpArg::Off => Xdp::Off,
            XdpArg::Native => Xdp::Native,
            XdpArg::Generic => Xdp::Generic,
        };
        let shows_cluster_ip_clients = self.cluster_ip_clients == ClientsArg::Show;
        let service_networks = self.service_cidrs.clone();
        RowOptions {
            service_networks,
            pod_networks: self.pod_cidrs.clone(),
            source_ports: self.snat_ports,
            forwarding,
            socket_lb,
            shows_cluster_ip_clients,
            marks_forwarded: self.mark_forwarded,
            xdp,
        }
    }
}

fn parse_ports(text: &str) -> Result<(u16, u16), String> {
    let expected = || format!("{text:?} is no range of ports such as 16384-29999");
    let (first, last) = text.split_once('-').ok_or_else(expected)?;
    let (first, last): (u16, u16) =
        (first.parse().map_err(|_| expected())?, last.parse().map_err(|_| expected())?);
    if first == 0 || last < first {
        return Err(expected());
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports() {
        assert_eq!(parse_ports("16384-29999"), Ok((16384, 29999)));
        assert_eq!(parse_ports("1-65535"), Ok((1, 65535)));
        for text in ["", "1", "2-1", "0-5", "1-65536", "a-b", "1-2-3"] {
            assert!(parse_ports(text).is_err(), "{text}");
        }
    }
}
