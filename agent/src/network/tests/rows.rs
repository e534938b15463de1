//! What the facts come to in the tables.

use std::net::IpAddr;

use netlink_packet_route::link::InfoKind;
use weir_ebpf::abi::{Addr, Config, Device, Netns, Port, Prefix};

use super::super::classify::classify;
use super::super::mirror::{Change, Mirror};
use super::super::options::Options;
use super::super::parse::parse;
use super::super::rows::{Forwarding, NodeRows, RowOptions, SocketLb, Told, Xdp};
use super::announced::*;

pub(super) fn row_options() -> RowOptions {
    RowOptions {
        service_networks: vec!["10.96.0.0/12".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
        pod_networks: Vec::new(),
        source_ports: (16384, 29999),
        forwarding: Forwarding::Stack,
        socket_lb: SocketLb::All,
        shows_cluster_ip_clients: false,
        marks_forwarded: false,
        xdp: Xdp::Off,
    }
}

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn compiled(node: &Mirror) -> NodeRows {
    let facts = classify(node, &Options::default(), HOST);
    NodeRows::compile(&facts, &Told::by_network(&facts), &row_options())
}

#[test]
fn facts_become_rows() {
    let rows = compiled(&ordinary());
    assert_eq!(rows.workloads.len(), 3);
    let workload = rows.workloads[&addr("fd00:1::2")];
    assert_eq!(
        (workload.ifindex, workload.mac, workload.host_mac),
        (7, [6, 0, 0, 0, 0, 11], [2, 0, 0, 0, 0, 7])
    );
    let host = Netns { v4: addr("192.0.2.1"), v6: addr("2001:db8::1"), flags: Netns::HOST };
    assert_eq!(rows.netns[&HOST], host);
    assert_eq!(rows.netns[&1011], Netns { v4: addr("10.244.1.2"), v6: addr("fd00:1::2"), flags: 0 });
    assert_eq!(rows.devices.len(), 4);
    assert_eq!(rows.devices[&2].flags, Device::NODE_FACING);
    assert_eq!(rows.devices[&5].address_like(addr("10.0.0.1")), Some(addr("10.244.1.0")));
    assert_eq!(rows.devices[&5].address_like(addr("fd00::1")), None);
    assert_eq!((rows.devices[&7].flags, rows.devices[&7].mtu, rows.devices[&2].mtu), (0, 1450, 1500));
    let mut service_networks = [Prefix::NONE; 4];
    service_networks[0] = Prefix::new(addr("10.96.0.0"), 108);
    service_networks[1] = Prefix::new(addr("fd00:96::"), 112);
    let (v4, v6) = (host.v4, host.v6);
    let (flags, mut tunnel_ports) = (Config::NO_REDIRECT, Config::EMPTY.tunnel_ports);
    tunnel_ports[0] = Port::new(8472);
    let config = Config {
        service_networks,
        v4,
        v6,
        first_port: 16384,
        ports: 13616,
        flags,
        tunnel_ports,
        ..Config::EMPTY
    };
    assert_eq!(rows.config, config);
}

#[test]
fn of_two_devices_with_one_address_the_older_has_it_where_nobody_says_more() {
    let ifindex = |node: &Mirror| {
        let rows = compiled(node);
        rows.workloads.get(&addr("10.244.1.2")).map(|workload| workload.ifindex)
    };
    let mut node = ordinary();
    assert_eq!(ifindex(&node), Some(7));
    parse(&has(2, "10.244.1.2")).into_iter().for_each(|change| node.apply_inside(12, change));
    assert_eq!(ifindex(&node), Some(7));
    tell(&mut node, [device(7, "vethpod1").gone()]);
    assert_eq!(ifindex(&node), Some(8));
    parse(&lost(2, "10.244.1.2")).into_iter().for_each(|change| node.apply_inside(12, change));
    assert_eq!(ifindex(&node), None);
}

#[test]
fn sockets_are_a_pods_where_its_addresses_are() {
    let mut node = ordinary();
    let netns = |node: &Mirror, told: &Told| {
        let facts = classify(node, &Options::default(), HOST);
        NodeRows::compile(&facts, told, &row_options()).devices[&7].netns
    };
    let facts = classify(&node, &Options::default(), HOST);
    let told = Told::by_network(&facts);
    assert_eq!(netns(&node, &told), 12, "one more than its number");
    assert_eq!(compiled(&node).devices[&2].netns, 0, "what leads to other nodes");
    assert_eq!(netns(&node, &Told::default()), 0, "nobody's addresses");
    // A virtual machine behind a tap, containers behind a bridge, a VPN: when they are up.
    for kind in [InfoKind::Bridge, InfoKind::Tun, InfoKind::Wireguard] {
        let mut node = ordinary();
        let device = || device(9, "within").kind(kind.clone());
        parse(&device().down().there()).into_iter().for_each(|change| node.apply_inside(11, change));
        assert_eq!(netns(&node, &told), 12, "it is down");
        parse(&device().there()).into_iter().for_each(|change| node.apply_inside(11, change));
        assert_eq!(netns(&node, &told), 0);
        node.apply(Change::NetnsGone(11));
        assert!(node.forwarding.is_empty());
    }
    // A sandbox takes one of them for itself.
    parse(&lost(2, "10.244.1.2")).into_iter().for_each(|change| node.apply_inside(11, change));
    assert_eq!(netns(&node, &told), 0);
}
