//! From facts to rows: pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use weir_ebpf::abi::{Addr, Config, Device, Netns, Port, Prefix, Workload};

use super::facts::{Carrier, Facts, Pod};
use crate::source::PodUid;

/// Which way translated packets go on (`--forwarding`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Forwarding {
    /// Past the stack where the programs can, through it where not.
    #[default]
    Auto,
    /// Through the stack and its netfilter.
    Stack,
    /// Past the stack.
    Redirect,
}

/// Whose sockets are translated at connect (`--socket-lb`). All others are translated per packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SocketLb {
    /// The node's and its pods'.
    #[default]
    All,
    /// The node's own: nobody else could translate them in time.
    Node,
}

/// Where packets of known flows between nodes are translated (`--xdp`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Xdp {
    /// At tc, like all others.
    #[default]
    Off,
    /// In the driver.
    Native,
    /// Behind it.
    Generic,
}

/// What holds for the whole node, beside its network.
#[derive(Clone, Debug)]
pub struct RowOptions {
    /// The networks of ClusterIPs, at most four.
    pub service_networks: Vec<IpNet>,
    /// The networks of which this node's pods have their addresses, at most two, in the place of the Node's.
    pub pod_networks: Vec<IpNet>,
    /// First and last port that hidden clients get.
    pub source_ports: (u16, u16),
    /// Which way translated packets go on.
    pub forwarding: Forwarding,
    /// Whose sockets are translated.
    pub socket_lb: SocketLb,
    /// Clients outside stay visible to every backend of a ClusterIP (`--cluster-ip-clients show`).
    pub shows_cluster_ip_clients: bool,
    /// Packets that go through the stack get the mark that asks neighbours not to masquerade them
    /// (`--mark-forwarded`).
    pub marks_forwarded: bool,
    /// Where packets of known flows between nodes are translated.
    pub xdp: Xdp,
}

impl RowOptions {
    /// The networks of which this node's pods have their addresses, whoever says so.
    #[must_use]
    pub fn pod_networks<'a>(&'a self, told: &'a Told) -> &'a [IpNet] {
        if self.pod_networks.is_empty() { &told.pod_networks } else { &self.pod_networks }
    }
}

/// The rows of the tables `workloads`, `netns`, `devices` and `config`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeRows {
    /// By the pod's address.
    pub workloads: HashMap<Addr, Workload>,
    /// By the namespace's cookie.
    pub netns: HashMap<u64, Netns>,
    /// By the device's index.
    pub devices: HashMap<u32, Device>,
    /// The only one.
    pub config: Config,
}

/// What the cluster's objects say of this node, and the network alone cannot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Told {
    /// The device that leads to each address of this node's pods; 0: a pod has it that no device of ours leads to.
    pub addresses: BTreeMap<IpAddr, u32>,
    /// The addresses of pods in namespaces that no device of ours leads into, by the namespaces' cookies.
    pub elsewhere: BTreeMap<u64, Vec<IpAddr>>,
    /// Pods that are known though no row in `netns` says so: they are told by their cgroups.
    pub seen: BTreeSet<PodUid>,
    /// The networks of which this node's pods have their addresses.
    pub pod_networks: Box<[IpNet]>,
    /// Whether pods that nobody knows are held ([`Config::HOLD_STRANGERS`]).
    pub holds: bool,
}

impl Told {
    /// Where nobody says anything: the addresses that devices have. Of two with one the older has it.
    #[must_use]
    pub fn by_network(facts: &Facts) -> Self {
        let mut addresses = BTreeMap::new();
        for (index, pod) in &facts.pods {
            for ip in &pod.addresses {
                addresses.entry(*ip).or_insert(*index);
            }
        }
        Self { addresses, ..Self::default() }
    }
}

impl NodeRows {
    /// The rows that say these facts.
    #[must_use]
    pub fn compile(facts: &Facts, told: &Told, options: &RowOptions) -> Self {
        let node = |ip: Option<IpAddr>| ip.map_or(Addr::from_words([0; 4]), Addr::from);
        let (v4, v6) = (node(facts.primary_v4), node(facts.primary_v6));
        let mut rows = Self {
            workloads: HashMap::new(),
            netns: HashMap::from([(facts.host_netns, Netns { v4, v6, flags: Netns::HOST })]),
            devices: HashMap::new(),
            config: compile_config(facts, told, options, v4, v6),
        };
        for (&index, device) in &facts.devices {
            let ethernet = if device.mac.is_none() { Device::NO_ETHERNET } else { 0 };
            // Behind the driver every device sends what is redirected to it. Of a driver nobody can be sure: what leaves by
            // another device than it came goes on by tc.
            let target =
                if options.xdp == Xdp::Generic && device.mac.is_some() { Device::XDP_TARGET } else { 0 };
            let row = Device {
                v4: node(device.v4),
                v6: node(device.v6),
                mac: device.mac.unwrap_or_default(),
                mtu: device.mtu.into(),
                netns: 0,
                flags: Device::NODE_FACING | ethernet | target,
            };
            rows.devices.insert(index, row);
        }
        let pod_flags = match options.socket_lb {
            SocketLb::All => 0,
            SocketLb::Node => Netns::NO_SOCKET_TRANSLATION,
        };
        let mut own: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
        for (&ip, &index) in &told.addresses {
            own.entry(index).or_default().push(ip);
            let pod = facts.pods.get(&index);
            let (mac, host_mac) = pod.map_or_else(Default::default, |pod| (pod.mac, pod.host_mac));
            let ifindex = pod.map_or(0, |_| index);
            rows.workloads.insert(ip.into(), Workload { ifindex, mac, host_mac });
        }
        for (&index, pod) in &facts.pods {
            let (v4, v6) = (node(None), node(None));
            let own = own.get(&index).map_or(&[][..], Vec::as_slice);
            let netns = sockets_of(pod, own);
            rows.devices
                .insert(index, Device { v4, v6, mac: pod.host_mac, flags: 0, mtu: pod.mtu.into(), netns });
            let Some(cookie) = pod.netns.filter(|cookie| *cookie != facts.host_netns) else { continue };
            // In the order in which the device got them.
            let ordered = pod.addresses.iter().filter(|ip| own.contains(ip)).chain(own);
            rows.add_netns(cookie, pod_flags, ordered);
        }
        for (&cookie, addresses) in &told.elsewhere {
            rows.add_netns(cookie, pod_flags, addresses.iter());
        }
        rows
    }

    /// A pod with several devices has the addresses of the first.
    fn add_netns<'a>(&mut self, cookie: u64, flags: u64, addresses: impl Iterator<Item = &'a IpAddr>) {
        let none = Addr::from_words([0; 4]);
        let row = self.netns.entry(cookie).or_insert(Netns { v4: none, v6: none, flags });
        for &ip in addresses {
            let place = if ip.is_ipv4() { &mut row.v4 } else { &mut row.v6 };
            if place.words() == [0; 4] {
                *place = ip.into();
            }
        }
    }
}

/// [`Device::netns`] of a pod that has these addresses. A sandbox that keeps its own sockets takes the addresses from the device
/// (gVisor), or has a tap beside it (virtual machines).
fn sockets_of(pod: &Pod, own: &[IpAddr]) -> u64 {
    let speaks = !own.is_empty() && own.iter().all(|ip| pod.addresses.contains(ip));
    pod.nsid.filter(|_| speaks).map_or(0, |nsid| u64::from(nsid) + 1)
}

fn compile_config(facts: &Facts, told: &Told, options: &RowOptions, v4: Addr, v6: Addr) -> Config {
    let service_networks = prefixes(&options.service_networks);
    let pod_networks = prefixes(options.pod_networks(told));
    let (first, last) = options.source_ports;
    Config {
        service_networks,
        pod_networks,
        v4,
        v6,
        first_port: first,
        ports: (last.saturating_sub(first)).saturating_add(1),
        flags: config_flags(options)
            | carrier_flags(facts)
            | if told.holds { Config::HOLD_STRANGERS } else { 0 },
        tunnel_ports: tunnel_ports(facts),
    }
}

/// More of them than there is room for has no node that anybody has seen.
fn tunnel_ports(facts: &Facts) -> [Port; 4] {
    let mut places = [Port::default(); 4];
    let ports = facts.carriers.iter().filter_map(|carrier| match carrier {
        Carrier::Udp(port) => Some(Port::new(*port)),
        Carrier::Ip | Carrier::Gre => None,
    });
    places.iter_mut().zip(ports).for_each(|(place, port)| *place = port);
    places
}

fn carrier_flags(facts: &Facts) -> u32 {
    let flag = |carrier: &Carrier| match carrier {
        Carrier::Udp(_) => 0,
        Carrier::Ip => Config::IP_IN_IP,
        Carrier::Gre => Config::GRE,
    };
    facts.carriers.iter().map(flag).fold(0, |all, flag| all | flag)
}

/// As many as there is room for.
fn prefixes<const N: usize>(networks: &[IpNet]) -> [Prefix; N] {
    let mut prefixes = [Prefix::NONE; N];
    for (place, network) in prefixes.iter_mut().zip(networks) {
        let bits = u32::from(network.prefix_len()) + if network.addr().is_ipv4() { 96 } else { 0 };
        *place = Prefix::new(network.addr().into(), bits);
    }
    prefixes
}

fn config_flags(options: &RowOptions) -> u32 {
    let redirect = if options.forwarding == Forwarding::Stack { Config::NO_REDIRECT } else { 0 };
    let sockets = if options.socket_lb == SocketLb::Node { Config::SOME_WITHOUT_SOCKETS } else { 0 };
    let clients = if options.shows_cluster_ip_clients { Config::SHOW_CLUSTER_IP_CLIENTS } else { 0 };
    let mark = if options.marks_forwarded { Config::MARK_FORWARDED } else { 0 };
    redirect | sockets | clients | mark
}
