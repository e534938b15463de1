//! What the kernel has said so far: devices, addresses and the routes that matter, here and at the pods' ends of our
//! veths. Changes come in the order in which they happened; one that says what is known already changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use weir_ebpf::abi::Mac;

use super::facts::Carrier;

/// Number of another network namespace, as this one calls it.
pub(super) type Nsid = i32;

/// What a device is, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Hardware, as far as the kernel says.
    Plain,
    /// `lo`
    Loopback,
    /// One of two ends: veth, netkit.
    Pair,
    /// A bridge.
    Bridge,
    /// What packs packets into packets: VXLAN, Geneve, GRE, IP in IP, WireGuard, tun.
    Tunnel,
    /// Leads nowhere: dummy, ifb, nlmon, VRF.
    Nowhere,
    /// On top of others: bond, team, VLAN, macvlan.
    Stacked,
}

/// A device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) is_up: bool,
    /// `None` where its packets have no Ethernet header.
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    /// The bridge, bond or team that it belongs to.
    pub(super) master: Option<u32>,
    /// The other end of a pair; what a tunnel or VLAN sends through.
    pub(super) lower: Option<u32>,
    /// Where `lower` is, if not here.
    pub(super) lower_netns: Option<Nsid>,
    /// What it takes packets out of, if it is such a tunnel.
    pub(super) carrier: Option<Carrier>,
}

impl Link {
    /// Whether somebody is behind it, or other packets are in those that it has: containers in a container, a virtual machine
    /// (at a tap), a VPN. (A namespace is made with tunnels that are down.)
    pub(super) fn leads_on(&self) -> bool {
        self.is_up && matches!(self.kind, Kind::Bridge | Kind::Tunnel | Kind::Stacked)
    }
}

/// An address of a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Address {
    pub(super) ip: IpAddr,
    /// Not secondary, temporary or deprecated.
    pub(super) is_first_choice: bool,
    /// Not (yet) refused by duplicate address detection.
    pub(super) is_usable: bool,
}

/// A default route, or one through a gateway.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct Route {
    pub(super) is_v6: bool,
    /// `None`: a default route.
    pub(super) dst: Option<(IpAddr, u8)>,
    pub(super) table: u32,
    /// Less is better.
    pub(super) metric: u32,
    pub(super) device: u32,
    /// The source address that it prefers.
    pub(super) source: Option<IpAddr>,
}

/// The main routing table (`RT_TABLE_MAIN`).
const MAIN: u32 = 254;

/// The pod's end of a veth.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Inside {
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    /// In the order in which they came.
    pub(super) addresses: Vec<Address>,
}

/// By what a network namespace is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Namespace {
    /// `SO_NETNS_COOKIE`: never another one's.
    pub(super) cookie: u64,
    /// As processes say it (`/proc/PID/ns/net`); another one's when this one is gone.
    pub(super) inode: u64,
}

/// One thing that the kernel said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// A device is there, or has changed.
    Link(Link),
    /// A device is gone, or has gone to another network namespace.
    LinkGone(u32),
    /// A device has an address.
    Address(u32, Address),
    /// A device lost an address.
    AddressGone(u32, IpAddr),
    /// A route leads somewhere.
    Route(Route),
    /// It does no more.
    RouteGone(Route),
    /// A network namespace is gone; its number may be given to another.
    NetnsGone(Nsid),
}

/// The mirror.
#[derive(Clone, Debug, Default)]
pub(super) struct Mirror {
    pub(super) links: BTreeMap<u32, Link>,
    /// Of devices here; each device's in the order in which they came.
    pub(super) addresses: BTreeMap<u32, Vec<Address>>,
    pub(super) routes: BTreeSet<Route>,
    /// The pods' ends, by namespace and index there: those that were asked for.
    pub(super) inside: HashMap<(Nsid, u32), Inside>,
    /// The namespaces that somebody here has found a way into.
    pub(super) namespaces: HashMap<Nsid, Namespace>,
    /// Namespaces of pods in which somebody may be who is no socket of theirs: behind a bridge, a tunnel or a tap.
    pub(super) forwarding: HashSet<Nsid>,
    /// Something was announced whose whole consequence is not: everything is to be asked for again.
    pub(super) is_doubtful: bool,
}

impl Mirror {
    /// Takes in what the kernel says of this network namespace.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Link(link) => {
                if !link.is_up {
                    // The kernel takes the routes of a device that goes down, and does not say so for IPv4.
                    self.routes.retain(|route| route.device != link.index);
                }
                self.links.insert(link.index, link);
            }
            Change::LinkGone(index) => self.forget_link(index),
            Change::Address(index, address) => put(self.addresses.entry(index).or_default(), address),
            Change::AddressGone(index, ip) => {
                let addresses = self.addresses.entry(index).or_default();
                addresses.retain(|address| address.ip != ip);
                // With the last address of a family go the routes, unannounced in IPv4.
                if !addresses.iter().any(|address| address.ip.is_ipv6() == ip.is_ipv6()) {
                    self.routes.retain(|route| route.device != index || route.is_v6 != ip.is_ipv6());
                }
            }
            Change::Route(route) => {
                self.routes.insert(route);
            }
            Change::RouteGone(route) => {
                self.routes.remove(&route);
            }
            Change::NetnsGone(nsid) => {
                self.namespaces.remove(&nsid);
                self.forwarding.remove(&nsid);
                self.inside.retain(|(of, _), _| *of != nsid);
            }
        }
    }

    /// Takes in what the kernel says of another network namespace, where it is about a pod's end of a veth.
    pub(super) fn apply_inside(&mut self, nsid: Nsid, change: Change) {
        match change {
            Change::Link(link) => {
                if link.leads_on() {
                    self.forwarding.insert(nsid);
                }
                if let Some(inside) = self.inside.get_mut(&(nsid, link.index)) {
                    (inside.mac, inside.mtu) = (link.mac, link.mtu);
                }
            }
            Change::LinkGone(index) => {
                self.inside.remove(&(nsid, index));
            }
            Change::Address(index, address) => {
                if let Some(inside) = self.inside.get_mut(&(nsid, index)) {
                    put(&mut inside.addresses, address);
                }
            }
            Change::AddressGone(index, ip) => {
                if let Some(inside) = self.inside.get_mut(&(nsid, index)) {
                    inside.addresses.retain(|address| address.ip != ip);
                }
            }
            Change::Route(_) | Change::RouteGone(_) | Change::NetnsGone(_) => {}
        }
    }

    fn forget_link(&mut self, index: u32) {
        let gone = self.links.remove(&index);
        self.addresses.remove(&index);
        self.routes.retain(|route| route.device != index);
        // Its other end stays here and is told nothing: it went to a pod.
        let pair = |link: &Link| link.kind == Kind::Pair && link.lower == Some(index);
        self.is_doubtful |= self.links.values().any(|link| pair(link) && link.lower_netns.is_none());
        if let Some(Link { lower: Some(lower), lower_netns: Some(nsid), .. }) = gone {
            self.inside.remove(&(nsid, lower));
        }
    }

    /// Default routes of a family in the main table, the best first.
    pub(super) fn default_routes(&self, is_v6: bool) -> Vec<&Route> {
        let mut routes: Vec<&Route> = self
            .routes
            .iter()
            .filter(|route| route.is_v6 == is_v6 && route.dst.is_none() && route.table == MAIN)
            .collect();
        routes.sort_by_key(|route| (route.metric, route.device));
        routes
    }
}

/// One address is there once; what is known of it is replaced in its place.
fn put(addresses: &mut Vec<Address>, address: Address) {
    match addresses.iter_mut().find(|known| known.ip == address.ip) {
        Some(known) => *known = address,
        None => addresses.push(address),
    }
}
