//! A node made of plain data: its tables, built by the agent's own steps, its network namespaces, devices and routes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::ensure;
use ipnet::IpNet;
use weir_agent::source::NodeAddress;
use weir_agent::state::NodePortAddresses;
use weir_ebpf::abi::{Addr, Config, Device, Netns, Prefix, Workload};
use weir_ebpf::testing::{FakeNetwork, MemoryTables};

use super::chain::{Objects, build_tables};

/// The network namespace of the node itself, and that of the pod that asks.
pub(super) const HOST: u64 = 1;
pub(super) const POD: u64 = 2;

/// The device that leads to other nodes and the world, and those of the pods.
pub(super) const UPLINK: u32 = 2;
pub(super) const VETH: u32 = 3;

/// The ports that hidden clients get.
pub(super) const SOURCE_PORTS: std::ops::Range<u16> = 16_384..30_000;

/// A node, as a file of vectors describes it.
pub(super) struct Spec<'a> {
    pub(super) name: &'a str,
    /// The address by which others know it.
    pub(super) primary: IpAddr,
    /// All addresses of its devices.
    pub(super) addresses: &'a BTreeSet<IpAddr>,
    /// Those of them that serve node ports to the node itself alone are left out where this is false.
    pub(super) loopback: bool,
    pub(super) node_ports: &'a [IpNet],
    pub(super) service_networks: &'a [IpNet],
    /// Whether clients of ClusterIPs are never hidden: kube-proxy does not where it cannot tell who is a pod.
    pub(super) shows_clients: bool,
}

/// What decisions on this node are made of.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) tables: MemoryTables,
    pub(super) network: FakeNetwork,
}

/// The node once it has seen these objects, and a pod with each of these addresses.
///
/// # Errors
/// An object has a problem, or a row could not be written.
pub(super) fn build_world(spec: &Spec<'_>, objects: &Objects<'_>, pods: &[IpAddr]) -> anyhow::Result<World> {
    ensure!(spec.service_networks.len() <= 4, "more Service networks than a node has room for");
    let addresses = spec.addresses.iter().filter(|addr| spec.loopback || !addr.is_loopback());
    let addresses = addresses.map(|&addr| NodeAddress { addr, primary: addr == spec.primary }).collect();
    let node_ports = NodePortAddresses::Networks(spec.node_ports.to_vec());
    let mut tables = build_tables(spec.name, node_ports, addresses, objects)?;

    let (v4, v6) = (own_addr(spec, true), own_addr(spec, false));
    let mut service_networks = [Prefix::NONE; 4];
    for (row, network) in service_networks.iter_mut().zip(spec.service_networks) {
        *row = prefix(*network);
    }
    let flags = if spec.shows_clients { Config::SHOW_CLUSTER_IP_CLIENTS } else { 0 };
    let ports = SOURCE_PORTS.end - SOURCE_PORTS.start;
    let first_port = SOURCE_PORTS.start;
    tables.config = Some(Config { service_networks, v4, v6, first_port, ports, flags, ..Config::EMPTY });
    tables.netns.insert(HOST, Netns { v4, v6, flags: Netns::HOST });
    let device = |flags| Device { v4, v6, mac: [2; 6], flags, mtu: 1500, netns: 0 };
    tables.devices.extend([(UPLINK, device(Device::NODE_FACING)), (VETH, device(0))]);
    for pod in pods {
        let workload = Workload { ifindex: VETH, mac: [4; 6], host_mac: [2; 6] };
        tables.workloads.insert((*pod).into(), workload);
    }
    Ok(World { tables, network: network(spec) })
}

impl World {
    /// The same, asked by a pod with this address.
    pub(super) fn asked_by_pod(mut self, addr: IpAddr) -> Self {
        let none = Addr::from_words([0; 4]);
        let (v4, v6) = if addr.is_ipv4() { (addr.into(), none) } else { (none, addr.into()) };
        self.tables.netns.insert(POD, Netns { v4, v6, flags: 0 });
        let workload = Workload { ifindex: VETH, mac: [4; 6], host_mac: [2; 6] };
        self.tables.workloads.insert(addr.into(), workload);
        self
    }
}

/// Nothing is forwarded to the node's own addresses; all else leads out.
fn network(spec: &Spec<'_>) -> FakeNetwork {
    let own = spec.addresses.iter().map(|addr| (Prefix::new((*addr).into(), 128), None));
    let everything = (Prefix::new(Addr::from_words([0; 4]), 0), Some(UPLINK));
    FakeNetwork { routes: own.chain([everything]).collect(), ..FakeNetwork::default() }
}

/// Its address of that family towards others: the primary one, or any.
fn own_addr(spec: &Spec<'_>, v4: bool) -> Addr {
    let fits = |addr: &&IpAddr| addr.is_ipv4() == v4 && !addr.is_loopback();
    let found = Some(&spec.primary).filter(fits).or_else(|| spec.addresses.iter().find(fits));
    found.map_or(Addr::from_words([0; 4]), |addr| (*addr).into())
}

fn prefix(network: IpNet) -> Prefix {
    let mapped = if network.addr().is_ipv4() { 96 } else { 0 };
    Prefix::new(network.addr().into(), mapped + u32::from(network.prefix_len()))
}
