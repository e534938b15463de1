//! From the kernel's messages to [`Change`]s. Messages that say nothing of interest parse to `None`.

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBareUdp, InfoData, InfoGeneve, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage,
};
use netlink_packet_route::nsid::NsidAttribute;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use weir_ebpf::abi::Mac;

use super::facts::Carrier;
use super::mirror::{Address, Change, Kind, Link, Route};

/// What a message says. A route with several next hops is several.
pub(super) fn parse(message: &RouteNetlinkMessage) -> Vec<Change> {
    match message {
        RouteNetlinkMessage::NewLink(message) if is_whole(message) => {
            vec![Change::Link(parse_link(message))]
        }
        RouteNetlinkMessage::DelLink(message) if is_whole(message) => {
            vec![Change::LinkGone(message.header.index)]
        }
        RouteNetlinkMessage::NewAddress(message) => parse_address(message)
            .map(|address| vec![Change::Address(message.header.index, address)])
            .unwrap_or_default(),
        RouteNetlinkMessage::DelAddress(message) => parse_address(message)
            .map(|address| vec![Change::AddressGone(message.header.index, address.ip)])
            .unwrap_or_default(),
        RouteNetlinkMessage::NewRoute(message) => {
            parse_route(message).into_iter().map(Change::Route).collect()
        }
        RouteNetlinkMessage::DelRoute(message) => {
            parse_route(message).into_iter().map(Change::RouteGone).collect()
        }
        RouteNetlinkMessage::DelNsId(message) => message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NsidAttribute::Id(nsid) => Some(vec![Change::NetnsGone(*nsid)]),
                _ => None,
            })
            .unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Whether a message is about the device itself: a bridge speaks of its ports (one that leaves it is "deleted"), and a
/// wireless driver of its events, in messages of the same type.
fn is_whole(message: &LinkMessage) -> bool {
    let is_event = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::Wireless(_));
    message.header.interface_family == AddressFamily::Unspec && !message.attributes.iter().any(is_event)
}

/// A device.
pub(super) fn parse_link(message: &LinkMessage) -> Link {
    let header = &message.header;
    let has_ethernet = matches!(header.link_layer_type, LinkLayerType::Ether | LinkLayerType::Loopback);
    let mut link = Link {
        index: header.index,
        name: String::new(),
        kind: Kind::Plain,
        is_up: header.flags.contains(LinkFlags::Up),
        mac: None,
        mtu: 0,
        master: None,
        lower: None,
        lower_netns: None,
        carrier: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) if has_ethernet => {
                link.mac = Mac::try_from(bytes.as_slice()).ok();
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(master) => link.master = Some(*master).filter(|master| *master != 0),
            LinkAttribute::Link(lower) => link.lower = Some(*lower).filter(|lower| *lower != 0),
            LinkAttribute::LinkNetNsId(nsid) => link.lower_netns = Some(*nsid).filter(|nsid| *nsid >= 0),
            LinkAttribute::LinkInfo(infos) => parse_info(infos, &mut link),
            _ => {}
        }
    }
    if header.flags.contains(LinkFlags::Loopback) {
        link.kind = Kind::Loopback;
    } else if link.kind == Kind::Tunnel && is_tap(message) {
        // The kernel calls both the same.
        link.kind = Kind::Stacked;
    }
    link
}

/// A tun device with Ethernet headers: a virtual machine's.
fn is_tap(message: &LinkMessage) -> bool {
    let is_tun = |attribute: &LinkAttribute| {
        let LinkAttribute::LinkInfo(infos) = attribute else { return false };
        infos.contains(&LinkInfo::Kind(InfoKind::Tun))
    };
    message.header.link_layer_type == LinkLayerType::Ether && message.attributes.iter().any(is_tun)
}

fn parse_info(infos: &[LinkInfo], link: &mut Link) {
    for info in infos {
        match info {
            LinkInfo::Kind(kind) => {
                link.kind = parse_kind(kind);
                link.carrier = link.carrier.or(carrier_of(kind));
            }
            // The device that it sends through is no `IFLA_LINK` here.
            LinkInfo::Data(InfoData::Vxlan(data)) => {
                link.carrier = data.iter().find_map(|info| match info {
                    InfoVxlan::Port(port) => Some(Carrier::Udp(*port)),
                    _ => None,
                });
                let lower = data.iter().find_map(|info| match info {
                    InfoVxlan::Link(lower) => Some(*lower).filter(|lower| *lower != 0),
                    _ => None,
                });
                link.lower = link.lower.or(lower);
            }
            LinkInfo::Data(InfoData::Geneve(data)) => {
                link.carrier = data.iter().find_map(|info| match info {
                    InfoGeneve::Port(port) => Some(Carrier::Udp(*port)),
                    _ => None,
                });
            }
            LinkInfo::Data(InfoData::BareUdp(data)) => {
                link.carrier = data.iter().find_map(|info| match info {
                    InfoBareUdp::Port(port) => Some(Carrier::Udp(*port)),
                    _ => None,
                });
            }
            _ => {}
        }
    }
}

/// Of tunnels over UDP the port is said beside.
fn carrier_of(kind: &InfoKind) -> Option<Carrier> {
    match kind {
        InfoKind::IpIp | InfoKind::Ip6Tnl | InfoKind::SitTun => Some(Carrier::Ip),
        InfoKind::GreTap
        | InfoKind::GreTap6
        | InfoKind::GreTun
        | InfoKind::GreTun6
        | InfoKind::ErSpan
        | InfoKind::Ip6ErSpan => Some(Carrier::Gre),
        _ => None,
    }
}

fn parse_kind(kind: &InfoKind) -> Kind {
    match kind {
        InfoKind::Veth | InfoKind::Netkit => Kind::Pair,
        InfoKind::Bridge => Kind::Bridge,
        InfoKind::Dummy | InfoKind::Ifb | InfoKind::Nlmon | InfoKind::Vrf => Kind::Nowhere,
        InfoKind::Vxlan
        | InfoKind::Geneve
        | InfoKind::Wireguard
        | InfoKind::Tun
        | InfoKind::GreTap
        | InfoKind::GreTap6
        | InfoKind::GreTun
        | InfoKind::GreTun6
        | InfoKind::IpIp
        | InfoKind::Ip6Tnl
        | InfoKind::SitTun
        | InfoKind::Vti
        | InfoKind::Vti6
        | InfoKind::ErSpan
        | InfoKind::Ip6ErSpan
        | InfoKind::Xfrm
        | InfoKind::Gtp
        | InfoKind::BareUdp => Kind::Tunnel,
        _ => Kind::Stacked,
    }
}

/// An address; `None` where it is multicast, or none at all.
pub(super) fn parse_address(message: &AddressMessage) -> Option<Address> {
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            // Of a device with a peer, `Address` is the peer's.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            // All of them: the header has room for the first eight only.
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let ip: IpAddr = local.or(address)?;
    let waits = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    Some(Address {
        ip,
        is_first_choice: !flags.intersects(AddressFlags::Secondary | AddressFlags::Deprecated),
        is_usable: !waits && !flags.contains(AddressFlags::Dadfailed),
    })
}

/// Default routes and routes through a gateway, one for each next hop.
pub(super) fn parse_route(message: &RouteMessage) -> Vec<Route> {
    if message.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let mut route = Route {
        is_v6: message.header.address_family == AddressFamily::Inet6,
        dst: None,
        table: message.header.table.into(),
        metric: 0,
        device: 0,
        source: None,
    };
    let mut has_gateway = false;
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(dst) => {
                route.dst = parse_ip(dst).map(|ip| (ip, message.header.destination_prefix_length));
            }
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => has_gateway = true,
            RouteAttribute::Oif(device) => hops.push(*device),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::PrefSource(source) => route.source = parse_ip(source),
            RouteAttribute::MultiPath(next) => {
                has_gateway = true;
                hops.extend(next.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    if message.header.destination_prefix_length == 0 {
        route.dst = None;
    } else if !has_gateway || route.dst.is_none() {
        return Vec::new();
    }
    hops.into_iter().map(|device| Route { device, ..route.clone() }).collect()
}

fn parse_ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
