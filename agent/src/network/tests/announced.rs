//! Messages of the kernel, constructed as it sends them for the nodes that are described.

use std::net::IpAddr;

use netlink_packet_core::{Emitable as _, Parseable as _};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};

use super::super::classify::classify;
use super::super::mirror::{Inside, Mirror, Namespace};
use super::super::options::Options;
use super::super::parse::parse;

pub(super) const HOST: u64 = 1;

/// A device as the kernel announces it, written and read again: the bytes are the kernel's.
pub(super) struct Announced(pub(super) LinkMessage);

pub(super) fn device(index: u32, name: &str) -> Announced {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.link_layer_type = LinkLayerType::Ether;
    message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
    message.attributes.push(LinkAttribute::IfName(name.into()));
    let low = u8::try_from(index).unwrap();
    message.attributes.push(LinkAttribute::Address(vec![2, 0, 0, 0, 0, low]));
    message.attributes.push(LinkAttribute::Mtu(1500));
    Announced(message)
}

impl Announced {
    pub(super) fn kind(mut self, kind: InfoKind) -> Self {
        self.0.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
        self
    }

    pub(super) fn kind_with(mut self, kind: InfoKind, data: InfoData) -> Self {
        let info = vec![LinkInfo::Kind(kind), LinkInfo::Data(data)];
        self.0.attributes.push(LinkAttribute::LinkInfo(info));
        self
    }

    pub(super) fn vxlan(self, lower: u32) -> Self {
        let data = InfoData::Vxlan(vec![InfoVxlan::Id(1), InfoVxlan::Link(lower), InfoVxlan::Port(8472)]);
        self.kind_with(InfoKind::Vxlan, data)
    }

    pub(super) fn master(mut self, master: u32) -> Self {
        self.0.attributes.push(LinkAttribute::Controller(master));
        self
    }

    pub(super) fn peer(mut self, index: u32, nsid: i32) -> Self {
        self.0.attributes.push(LinkAttribute::Link(index));
        self.0.attributes.push(LinkAttribute::LinkNetNsId(nsid));
        self
    }

    pub(super) fn without_ethernet(mut self) -> Self {
        self.0.header.link_layer_type = LinkLayerType::None;
        self.0.attributes.retain(|attribute| !matches!(attribute, LinkAttribute::Address(_)));
        self
    }

    pub(super) fn down(mut self) -> Self {
        self.0.header.flags = LinkFlags::empty();
        self
    }

    pub(super) fn loopback(mut self) -> Self {
        self.0.header.flags |= LinkFlags::Loopback;
        self.0.header.link_layer_type = LinkLayerType::Loopback;
        self
    }

    pub(super) fn of_a_bridge(mut self) -> Self {
        self.0.header.interface_family = AddressFamily::Bridge;
        self
    }

    pub(super) fn there(self) -> RouteNetlinkMessage {
        RouteNetlinkMessage::NewLink(self.reread())
    }

    pub(super) fn gone(self) -> RouteNetlinkMessage {
        RouteNetlinkMessage::DelLink(self.reread())
    }

    pub(super) fn reread(self) -> LinkMessage {
        let mut bytes = vec![0; self.0.buffer_len()];
        self.0.emit(&mut bytes);
        LinkMessage::parse(&bytes).unwrap()
    }
}

pub(super) fn address(index: u32, ip: &str) -> AddressMessage {
    let ip: IpAddr = ip.parse().unwrap();
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.attributes =
        vec![AddressAttribute::Address(ip), AddressAttribute::Flags(AddressFlags::Permanent)];
    if ip.is_ipv4() {
        message.attributes.push(AddressAttribute::Local(ip));
    }
    message
}

pub(super) fn has(index: u32, ip: &str) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewAddress(address(index, ip))
}

pub(super) fn has_with(index: u32, ip: &str, flags: AddressFlags) -> RouteNetlinkMessage {
    let mut message = address(index, ip);
    message.attributes.push(AddressAttribute::Flags(flags));
    RouteNetlinkMessage::NewAddress(message)
}

pub(super) fn lost(index: u32, ip: &str) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelAddress(address(index, ip))
}

/// A route through a gateway; `0.0.0.0/0` and `::/0` are default routes.
pub(super) fn route(index: u32, dst: &str, metric: u32, source: Option<&str>) -> RouteMessage {
    let dst: ipnet::IpNet = dst.parse().unwrap();
    let mut message = RouteMessage::default();
    let v4 = dst.addr().is_ipv4();
    message.header.address_family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.kind = RouteType::Unicast;
    message.header.table = 254;
    message.header.destination_prefix_length = dst.prefix_len();
    if dst.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(dst.addr().into()));
    }
    let gateway: IpAddr = if v4 { "192.0.2.254" } else { "2001:db8::ff" }.parse().unwrap();
    message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    message.attributes.push(RouteAttribute::Oif(index));
    message.attributes.push(RouteAttribute::Priority(metric));
    if let Some(source) = source {
        message.attributes.push(RouteAttribute::PrefSource(source.parse::<IpAddr>().unwrap().into()));
    }
    message
}

pub(super) fn leads(index: u32, dst: &str) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewRoute(route(index, dst, 100, None))
}

pub(super) fn mirror(messages: impl IntoIterator<Item = RouteNetlinkMessage>) -> Mirror {
    let mut mirror = Mirror::default();
    tell(&mut mirror, messages);
    mirror
}

pub(super) fn tell(mirror: &mut Mirror, messages: impl IntoIterator<Item = RouteNetlinkMessage>) {
    for message in messages {
        parse(&message).into_iter().for_each(|change| mirror.apply(change));
    }
}

pub(super) fn facing(mirror: &Mirror, options: &Options) -> Vec<String> {
    classify(mirror, options, HOST).devices.into_values().map(|device| device.name).collect()
}

/// A pod whose end is `index` in namespace `nsid`, with these addresses.
pub(super) fn plug(mirror: &mut Mirror, nsid: i32, index: u32, addresses: &[&str]) {
    let mac = Some([6, 0, 0, 0, 0, u8::try_from(nsid).unwrap()]);
    mirror.inside.insert((nsid, index), Inside { mac, mtu: 1450, addresses: Vec::new() });
    let number = 1000 + u64::try_from(nsid).unwrap();
    mirror.namespaces.insert(nsid, Namespace { cookie: number, inode: number });
    for ip in addresses {
        parse(&has(index, ip)).into_iter().for_each(|change| mirror.apply_inside(nsid, change));
    }
}

/// An ordinary node: two network cards of which one is in use, docker's and the CNI plugin's bridges, flannel's VXLAN,
/// three pods.
pub(super) fn ordinary() -> Mirror {
    let mut mirror = mirror([
        device(1, "lo").loopback().there(),
        has(1, "127.0.0.1"),
        has(1, "::1"),
        device(2, "eth0").there(),
        has(2, "192.0.2.1"),
        has(2, "2001:db8::1"),
        has(2, "fe80::1"),
        leads(2, "0.0.0.0/0"),
        leads(2, "::/0"),
        device(3, "eth1").down().there(),
        device(4, "docker0").kind(InfoKind::Bridge).there(),
        has(4, "172.17.0.1"),
        device(5, "flannel.1").vxlan(2).there(),
        has(5, "10.244.1.0"),
        leads(5, "10.244.2.0/24"),
        device(6, "cni0").kind(InfoKind::Bridge).there(),
        has(6, "10.244.1.1"),
        device(7, "vethpod1").kind(InfoKind::Veth).master(6).peer(2, 11).there(),
        device(8, "vethpod2").kind(InfoKind::Veth).master(6).peer(2, 12).there(),
        device(9, "nodelocaldns").kind(InfoKind::Dummy).there(),
        has(9, "169.254.20.10"),
        device(10, "kube-ipvs0").kind(InfoKind::Dummy).there(),
        has(10, "10.96.0.1"),
    ]);
    plug(&mut mirror, 11, 2, &["10.244.1.2", "fd00:1::2", "fe80::2"]);
    plug(&mut mirror, 12, 2, &["10.244.1.3"]);
    mirror
}
