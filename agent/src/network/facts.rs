//! What is known of this node's network, as one value.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weir_ebpf::abi::Mac;

use super::owner::Owner;
use crate::source::{NodeAddress, PodUid};

/// This node's network at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// The cookie of this network namespace (`SO_NETNS_COOKIE`).
    pub host_netns: u64,
    /// Devices that lead to other nodes and the world, by their indexes.
    pub devices: BTreeMap<u32, NodeDevice>,
    /// Pods of this node, by the index of the host's end of their veth.
    pub pods: BTreeMap<u32, Pod>,
    /// The namespaces of pods that are behind no device of this kind, as far as they were sought ([`super::Watch::seek`]): by
    /// their cookies.
    pub elsewhere: BTreeMap<u64, PodUid>,
    /// This node's addresses, each once, in order; those that mean something on one link only left out.
    pub addresses: Vec<NodeAddress>,
    /// The node's own IPv4 address, under which others know it.
    pub primary_v4: Option<IpAddr>,
    /// The same in IPv6.
    pub primary_v6: Option<IpAddr>,
    /// What this node takes packets out of tunnels from.
    pub carriers: BTreeSet<Carrier>,
}

/// What is sought ([`super::Watch::seek`]) beside the owners of the namespaces behind our veths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seeks {
    /// Pods that are behind none of our veths ([`Facts::elsewhere`]).
    pub elsewhere: bool,
    /// Pods whose place nobody knows, in namespaces that seem to be nobody's.
    pub making: bool,
}

/// What packets of a tunnel are in, where whoever sends one may write into it what it likes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Carrier {
    /// UDP to this port of the node (VXLAN, Geneve, bare UDP).
    Udp(u16),
    /// IP.
    Ip,
    /// GRE.
    Gre,
}

/// A device that leads to other nodes and the world.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeDevice {
    /// Its name.
    pub name: String,
    /// Its Ethernet address; `None` where its packets have no Ethernet header (tun, WireGuard, IP in IP).
    pub mac: Option<Mac>,
    /// The longest IP packet that it takes, in bytes.
    pub mtu: u32,
    /// Its first IPv4 address.
    pub v4: Option<IpAddr>,
    /// Its first IPv6 address beyond the link.
    pub v6: Option<IpAddr>,
}

/// A pod: whoever is behind a veth of this namespace, in another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pod {
    /// The name of the host's end.
    pub name: String,
    /// The Ethernet address of the host's end.
    pub host_mac: Mac,
    /// The Ethernet address of the pod's end.
    pub mac: Mac,
    /// The longest IP packet that either end takes, in bytes.
    pub mtu: u32,
    /// The cookie of the pod's network namespace; `None` as long as nobody has found a way into it.
    pub netns: Option<u64>,
    /// The number that this namespace has for that one (`IFLA_LINK_NETNSID`), if whoever speaks there does so by sockets of
    /// that namespace, as far as its devices show.
    pub nsid: Option<u32>,
    /// Whose that namespace is.
    pub owner: Owner,
    /// The pod's addresses on this device, those of the link left out.
    pub addresses: Vec<IpAddr>,
    /// Those that were on this device when the namespace's owner was first seen: given by who made it. A pod that may can add
    /// others, and take these away. While the owner is not known, none.
    pub early: Vec<IpAddr>,
}
