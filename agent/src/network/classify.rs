//! What each device is to us, and whose each address is: pure rules over the [`Mirror`].
//!
//! Node-facing is what leads to other nodes and the world. A device that belongs to a bridge, bond or team never is:
//! its master is, because only there is a packet for this node a packet for this node. (A bond's members see the same
//! frames before they are put in order, and come and go; a bridge's port also sees what is only bridged through.) A
//! bridge is node-facing if it has an address and a port that is no pod's, as on many machines at home; a CNI
//! plugin's bridge has none. A veth into another namespace is a pod's, unless this node itself sends beyond it: by a
//! default route, a gateway, or a tunnel on top. That is how a node that is itself a container looks from inside.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::facts::{Facts, NodeDevice, Pod};
use super::mirror::{Kind, Link, Mirror, Nsid};
use super::options::Options;
use super::owner::Owner;
use crate::source::NodeAddress;

/// kube-proxy's ipvs mode gives every Service address to this device. They are no addresses of the node.
const KUBE_IPVS: &str = "kube-ipvs0";

/// Where each pod's end is: by the index of ours, its namespace and its index there.
pub(super) fn pod_ends(mirror: &Mirror, options: &Options) -> BTreeMap<u32, (Nsid, u32)> {
    let ends = mirror.links.values().filter_map(|link| {
        if link.kind != Kind::Pair || is_node_facing(mirror, options, link) {
            return None;
        }
        Some((link.index, (link.lower_netns?, link.lower?)))
    });
    ends.collect()
}

/// All of it, as one value.
pub(super) fn classify(mirror: &Mirror, options: &Options, host_netns: u64) -> Facts {
    let node_facing: Vec<&Link> =
        mirror.links.values().filter(|link| is_node_facing(mirror, options, link)).collect();
    let primary = [false, true].map(|is_v6| select_primary(mirror, options, &node_facing, is_v6));
    let devices = node_facing.iter().map(|link| {
        let device = NodeDevice {
            name: link.name.clone(),
            mac: link.mac,
            mtu: link.mtu,
            v4: select_source(mirror, link.index, false),
            v6: select_source(mirror, link.index, true),
        };
        (link.index, device)
    });
    Facts {
        host_netns,
        devices: devices.collect(),
        pods: pods(mirror, options),
        elsewhere: BTreeMap::new(),
        addresses: node_addresses(mirror, &primary),
        primary_v4: primary[0],
        primary_v6: primary[1],
        // One that is down takes nothing.
        carriers: mirror.links.values().filter(|link| link.is_up).filter_map(|link| link.carrier).collect(),
    }
}

fn is_node_facing(mirror: &Mirror, options: &Options, link: &Link) -> bool {
    if let Some(devices) = &options.devices {
        return devices.is_match(&link.name);
    }
    if link.master.is_some_and(|master| is_master(mirror, master)) {
        return false;
    }
    let has_address = || select_source(mirror, link.index, false).or(select_source(mirror, link.index, true));
    match link.kind {
        Kind::Loopback | Kind::Nowhere => false,
        Kind::Tunnel => link.is_up,
        Kind::Plain | Kind::Stacked => has_address().is_some() || leads_away(mirror, link),
        Kind::Pair if link.lower_netns.is_none() => false,
        Kind::Pair => leads_away(mirror, link),
        Kind::Bridge => leads_away(mirror, link) || (has_address().is_some() && has_uplink(mirror, link)),
    }
}

/// A VRF is a master, too, but one that takes nothing from its devices.
fn is_master(mirror: &Mirror, index: u32) -> bool {
    mirror.links.get(&index).is_none_or(|master| master.kind != Kind::Nowhere)
}

/// Whether the node itself sends beyond it.
fn leads_away(mirror: &Mirror, link: &Link) -> bool {
    let carries = |above: &Link| {
        above.kind == Kind::Tunnel && above.lower == Some(link.index) && above.lower_netns.is_none()
    };
    mirror.routes.iter().any(|route| route.device == link.index) || mirror.links.values().any(carries)
}

/// Whether a bridge has a port that is neither a pod's nor a virtual machine's.
fn has_uplink(mirror: &Mirror, bridge: &Link) -> bool {
    let is_uplink = |port: &Link| port.master == Some(bridge.index) && port.kind == Kind::Plain;
    let is_bond = |port: &Link| {
        let below = |member: &Link| member.master == Some(port.index) || port.lower == Some(member.index);
        port.master == Some(bridge.index)
            && port.kind == Kind::Stacked
            && mirror.links.values().any(|member| member.kind == Kind::Plain && below(member))
    };
    mirror.links.values().any(|port| is_uplink(port) || is_bond(port))
}

fn pods(mirror: &Mirror, options: &Options) -> BTreeMap<u32, Pod> {
    let mut pods = BTreeMap::new();
    for (index, end) in pod_ends(mirror, options) {
        let (Some(link), Some(inside)) = (mirror.links.get(&index), mirror.inside.get(&end)) else {
            continue;
        };
        let (Some(host_mac), Some(mac)) = (link.mac, inside.mac) else { continue };
        let addresses = inside.addresses.iter().filter(|address| address.is_usable).map(|address| address.ip);
        let pod = Pod {
            name: link.name.clone(),
            host_mac,
            mac,
            mtu: link.mtu.min(inside.mtu),
            netns: mirror.namespaces.get(&end.0).map(|namespace| namespace.cookie),
            nsid: u32::try_from(end.0).ok().filter(|_| !mirror.forwarding.contains(&end.0)),
            owner: Owner::Unknown,
            addresses: addresses.filter(|ip| is_global(*ip)).collect(),
            early: Vec::new(),
        };
        pods.insert(index, pod);
    }
    pods
}

fn node_addresses(mirror: &Mirror, primary: &[Option<IpAddr>; 2]) -> Vec<NodeAddress> {
    let mut found = BTreeSet::new();
    for (index, addresses) in &mirror.addresses {
        if mirror.links.get(index).is_some_and(|link| link.name != KUBE_IPVS) {
            found.extend(addresses.iter().filter(|address| address.is_usable).map(|address| address.ip));
        }
    }
    found.retain(|ip| !is_link_local_v6(*ip) && !ip.is_multicast());
    found.into_iter().map(|addr| NodeAddress { addr, primary: primary.contains(&Some(addr)) }).collect()
}

/// The node's own address: as asked for; or what the best default route says; or the first of the device that it
/// leads to; or the first of `lo` beyond the host (as where every link is unnumbered), then of node-facing devices,
/// tunnels last.
fn select_primary(mirror: &Mirror, options: &Options, node_facing: &[&Link], is_v6: bool) -> Option<IpAddr> {
    if let Some(asked) = options.node_ips.iter().find(|ip| ip.is_ipv6() == is_v6) {
        return Some(*asked);
    }
    let routes = mirror.default_routes(is_v6);
    let is_ours = |ip: &IpAddr| mirror.addresses.values().flatten().any(|address| address.ip == *ip);
    let said = routes.first().and_then(|route| route.source).filter(is_ours);
    let routed = || routes.iter().find_map(|route| select_source(mirror, route.device, is_v6));
    let loopback = mirror.links.values().filter(|link| link.kind == Kind::Loopback);
    let (tunnels, others): (Vec<&Link>, Vec<&Link>) =
        node_facing.iter().partition(|link| link.kind == Kind::Tunnel);
    let mut rest = loopback.chain(others).chain(tunnels);
    said.or_else(routed).or_else(|| rest.find_map(|link| select_source(mirror, link.index, is_v6)))
}

/// The address of a device that others can answer to.
fn select_source(mirror: &Mirror, index: u32, is_v6: bool) -> Option<IpAddr> {
    let addresses = mirror.addresses.get(&index)?.iter();
    let mut fitting = addresses
        .filter(|address| address.is_usable && address.ip.is_ipv6() == is_v6 && is_global(address.ip));
    let first = fitting.clone().find(|address| address.is_first_choice);
    first.or_else(|| fitting.next()).map(|address| address.ip)
}

/// Means the same on every link.
fn is_global(ip: IpAddr) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(_) => is_link_local_v6(ip),
    };
    !is_link_local && !ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified()
}

fn is_link_local_v6(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
