//! What the messages of the kernel come to.

mod announced;
mod carriers;
mod rows;

use netlink_packet_core::DefaultNla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressFlags, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};

use super::classify::{classify, pod_ends};
use super::mirror::{Change, Mirror};
use super::options::Options;
use super::parse::parse;

use announced::*;

#[test]
fn an_ordinary_node() {
    let facts = classify(&ordinary(), &Options::default(), HOST);
    let devices: Vec<&str> = facts.devices.values().map(|device| device.name.as_str()).collect();
    assert_eq!(devices, ["eth0", "flannel.1"]);
    assert_eq!(facts.devices[&2].v4, Some("192.0.2.1".parse().unwrap()));
    assert_eq!(facts.devices[&2].v6, Some("2001:db8::1".parse().unwrap()));
    assert_eq!(facts.devices[&5].v6, None);
    let addresses: Vec<(String, bool)> =
        facts.addresses.iter().map(|address| (address.addr.to_string(), address.primary)).collect();
    let expected = [
        ("10.244.1.0", false),
        ("10.244.1.1", false),
        ("127.0.0.1", false),
        ("169.254.20.10", false),
        ("172.17.0.1", false),
        ("192.0.2.1", true),
        ("::1", false),
        ("2001:db8::1", true),
    ];
    assert_eq!(addresses, expected.map(|(addr, primary)| (addr.to_owned(), primary)));
    assert_eq!(facts.pods.len(), 2);
    let pod = &facts.pods[&7];
    assert_eq!((pod.host_mac, pod.mac), ([2, 0, 0, 0, 0, 7], [6, 0, 0, 0, 0, 11]));
    assert_eq!(pod.netns, Some(1011));
    let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.244.1.2", "fd00:1::2"]);
}

/// What a node looks like, and which of its devices lead to other nodes and the world.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_node_facing() {
    let rows: Vec<(&str, Vec<RouteNetlinkMessage>, &[&str])> = vec![
        ("a card without an address or route", vec![device(2, "eth0").there()], &[]),
        ("a card with a link-local address", vec![device(2, "eth0").there(), has(2, "fe80::1")], &[]),
        (
            "unnumbered cards: addresses on lo, default routes through both",
            vec![
                device(1, "lo").loopback().there(),
                has(1, "192.0.2.1"),
                device(2, "eth0").there(),
                device(3, "eth1").there(),
                leads(2, "0.0.0.0/0"),
                leads(3, "0.0.0.0/0"),
            ],
            &["eth0", "eth1"],
        ),
        (
            "a bond: the master, not its members",
            vec![
                device(2, "eth0").master(4).there(),
                device(3, "eth1").master(4).there(),
                device(4, "bond0").kind(InfoKind::Bond).there(),
                has(4, "192.0.2.1"),
            ],
            &["bond0"],
        ),
        (
            "a bridge over a card, with a virtual machine",
            vec![
                device(2, "eth0").master(4).there(),
                device(3, "tap0").kind(InfoKind::Tun).master(4).there(),
                device(4, "br0").kind(InfoKind::Bridge).there(),
                has(4, "192.0.2.1"),
            ],
            &["br0"],
        ),
        (
            "a bridge over a bond",
            vec![
                device(2, "eth0").master(3).there(),
                device(3, "bond0").kind(InfoKind::Bond).master(4).there(),
                device(4, "br0").kind(InfoKind::Bridge).there(),
                has(4, "192.0.2.1"),
            ],
            &["br0"],
        ),
        (
            "a VLAN",
            vec![
                device(2, "eth0").there(),
                device(3, "eth0.7").kind(InfoKind::Vlan).there(),
                has(3, "192.0.2.1"),
            ],
            &["eth0.7"],
        ),
        (
            "a card in a VRF",
            vec![
                device(2, "eth0").master(3).there(),
                has(2, "192.0.2.1"),
                device(3, "blue").kind(InfoKind::Vrf).there(),
            ],
            &["eth0"],
        ),
        (
            "WireGuard and tun; a tunnel that is down is a module's fallback",
            vec![
                device(2, "wg0").kind(InfoKind::Wireguard).without_ethernet().there(),
                device(3, "tun0").kind(InfoKind::Tun).without_ethernet().there(),
                device(4, "tunl0").kind(InfoKind::IpIp).without_ethernet().down().there(),
            ],
            &["wg0", "tun0"],
        ),
        (
            "a node that is a container: its veth has the default route",
            vec![
                device(2, "eth0").kind(InfoKind::Veth).peer(9, 0).there(),
                has(2, "172.18.0.2"),
                leads(2, "0.0.0.0/0"),
            ],
            &["eth0"],
        ),
        (
            "the same with gateways to other nodes only",
            vec![device(2, "eth0").kind(InfoKind::Veth).peer(9, 0).there(), leads(2, "10.244.2.0/24")],
            &["eth0"],
        ),
        (
            "the same with nothing but a VXLAN on it",
            vec![
                device(2, "eth0").kind(InfoKind::Veth).peer(9, 0).there(),
                device(3, "flannel.1").vxlan(2).there(),
            ],
            &["eth0", "flannel.1"],
        ),
        (
            "ptp's veths carry the gateway's address",
            vec![device(2, "veth1").kind(InfoKind::Veth).peer(2, 0).there(), has(2, "10.244.1.1")],
            &[],
        ),
        (
            "both ends of a veth are here",
            vec![
                device(2, "a").kind(InfoKind::Veth).there(),
                device(3, "b").kind(InfoKind::Veth).there(),
                has(2, "10.9.0.1"),
                leads(2, "0.0.0.0/0"),
            ],
            &[],
        ),
    ];
    for (node, messages, expected) in rows {
        assert_eq!(facing(&mirror(messages), &Options::default()), expected, "{node}");
    }
}

#[test]
fn devices_can_be_named() {
    let options = |patterns: &[&str]| Options {
        devices: Options::devices("--devices", &patterns.iter().map(ToString::to_string).collect::<Vec<_>>())
            .unwrap(),
        ..Options::default()
    };
    assert_eq!(facing(&ordinary(), &options(&["eth*", "docker0"])), ["eth0", "eth1", "docker0"]);
    assert_eq!(facing(&ordinary(), &options(&["nothing"])), [""; 0]);
    // A veth that is named leads to no pod.
    let named = options(&["vethpod1"]);
    assert_eq!(pod_ends(&ordinary(), &named).into_keys().collect::<Vec<_>>(), [8]);
    assert!(Options::devices("--devices", &["[".into()]).is_err());
    assert!(Options::devices("--devices", &[]).unwrap().is_none());
}

/// Messages about an ordinary node's addresses, and its primary address of IPv4 then.
#[test]
fn the_primary_address() {
    let default =
        |index, metric, source| RouteNetlinkMessage::NewRoute(route(index, "0.0.0.0/0", metric, source));
    let cards = || {
        vec![
            device(1, "lo").loopback().there(),
            device(2, "eth0").there(),
            has(2, "192.0.2.1"),
            has_with(2, "192.0.2.2", AddressFlags::Secondary),
            device(3, "eth1").there(),
            has(3, "198.51.100.1"),
        ]
    };
    let primary = |mut messages: Vec<RouteNetlinkMessage>, more: Vec<RouteNetlinkMessage>| {
        messages.extend(more);
        classify(&mirror(messages), &Options::default(), HOST).primary_v4.map(|ip| ip.to_string())
    };
    let some = |ip: &str| Some(ip.to_owned());
    assert_eq!(primary(cards(), vec![]), some("192.0.2.1"));
    assert_eq!(primary(cards(), vec![has(1, "203.0.113.1")]), some("203.0.113.1"));
    assert_eq!(primary(cards(), vec![default(3, 100, None)]), some("198.51.100.1"));
    assert_eq!(primary(cards(), vec![default(3, 100, None), default(2, 50, None)]), some("192.0.2.1"));
    assert_eq!(primary(cards(), vec![default(3, 100, Some("192.0.2.2"))]), some("192.0.2.2"));
    assert_eq!(primary(cards(), vec![default(3, 100, Some("192.0.2.9"))]), some("198.51.100.1"));
    assert_eq!(primary(vec![], vec![]), None);
    let asked = Options { node_ips: vec!["192.0.2.2".parse().unwrap()], ..Options::default() };
    let facts = classify(&mirror(cards()), &asked, HOST);
    assert_eq!(facts.primary_v4, Some("192.0.2.2".parse().unwrap()));
}

#[test]
fn an_address_that_is_refused_or_not_yet_ours_is_none() {
    let mut node = mirror([
        device(2, "eth0").there(),
        has_with(2, "2001:db8::1", AddressFlags::Tentative),
        has_with(2, "2001:db8::2", AddressFlags::Tentative | AddressFlags::Dadfailed),
        has_with(2, "2001:db8::3", AddressFlags::Tentative | AddressFlags::Optimistic),
    ]);
    let primary = |mirror: &Mirror| classify(mirror, &Options::default(), HOST).primary_v6;
    assert_eq!(primary(&node), Some("2001:db8::3".parse().unwrap()));
    tell(&mut node, [has(2, "2001:db8::1")]);
    assert_eq!(primary(&node), Some("2001:db8::1".parse().unwrap()));
    tell(&mut node, [lost(2, "2001:db8::1"), lost(2, "2001:db8::3")]);
    assert_eq!(primary(&node), None);
}

#[test]
fn a_bridge_speaking_of_its_ports_removes_no_device() {
    let mut node = ordinary();
    tell(
        &mut node,
        [device(7, "vethpod1").of_a_bridge().gone(), device(8, "vethpod2").of_a_bridge().there()],
    );
    assert_eq!(classify(&node, &Options::default(), HOST), classify(&ordinary(), &Options::default(), HOST));
    tell(&mut node, [device(7, "vethpod1").gone()]);
    assert_eq!(classify(&node, &Options::default(), HOST).pods.into_keys().collect::<Vec<_>>(), [8]);
    assert!(!node.inside.contains_key(&(11, 2)), "what was behind it is forgotten");
}

#[test]
fn a_number_that_is_given_to_another_namespace_says_nothing_of_the_old_one() {
    let mut node = ordinary();
    node.apply(Change::NetnsGone(11));
    assert!(!node.namespaces.contains_key(&11) && !node.inside.contains_key(&(11, 2)));
    // Nothing is said of what was not asked for.
    for message in [has(2, "10.244.1.9"), device(2, "eth0").there()] {
        parse(&message).into_iter().for_each(|change| node.apply_inside(11, change));
    }
    assert_eq!(classify(&node, &Options::default(), HOST).pods.into_keys().collect::<Vec<_>>(), [8]);
}

#[test]
fn a_peer_that_leaves_for_a_pod_makes_its_other_end_doubtful() {
    let pair = |index: u32, name: &str, other: u32| {
        let mut device = device(index, name).kind(InfoKind::Veth);
        device.0.attributes.push(LinkAttribute::Link(other));
        device
    };
    let mut node =
        mirror([pair(2, "veth1", 3).there(), pair(3, "eth0", 2).there(), device(4, "eth1").there()]);
    tell(&mut node, [device(4, "eth1").gone()]);
    assert!(!node.is_doubtful);
    tell(&mut node, [pair(3, "eth0", 2).gone()]);
    assert!(node.is_doubtful);
}

#[test]
fn routes_go_with_their_device_and_its_last_address() {
    let default = || leads(2, "0.0.0.0/0");
    let count = |node: &Mirror| node.default_routes(false).len();
    let mut node = mirror([device(2, "eth0").there(), has(2, "192.0.2.1"), has(2, "192.0.2.2"), default()]);
    tell(&mut node, [lost(2, "192.0.2.1")]);
    assert_eq!(count(&node), 1);
    tell(&mut node, [lost(2, "192.0.2.2")]);
    assert_eq!(count(&node), 0);
    tell(&mut node, [default(), device(2, "eth0").down().there()]);
    assert_eq!(count(&node), 0);
    tell(&mut node, [default(), RouteNetlinkMessage::DelRoute(route(2, "0.0.0.0/0", 100, None))]);
    assert_eq!(count(&node), 0);
    // On the link, or to nowhere: leads to no other node.
    let mut local = route(2, "192.0.2.0/24", 0, None);
    local.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Gateway(_)));
    let mut blackhole = route(2, "0.0.0.0/0", 0, None);
    blackhole.header.kind = RouteType::BlackHole;
    tell(&mut node, [RouteNetlinkMessage::NewRoute(local), RouteNetlinkMessage::NewRoute(blackhole)]);
    assert!(node.routes.is_empty());
}

#[test]
fn attributes_that_nobody_knows_are_no_trouble() {
    let mut message = device(2, "eth0");
    message.0.attributes.push(LinkAttribute::Other(DefaultNla::new(999, vec![1, 2, 3])));
    message.0.attributes.push(LinkAttribute::Qdisc("noqueue".into()));
    assert_eq!(facing(&mirror([message.there(), has(2, "192.0.2.1")]), &Options::default()), ["eth0"]);
    let empty = RouteMessage::default();
    assert_eq!(parse(&RouteNetlinkMessage::NewRoute(empty)), []);
    assert_eq!(parse(&RouteNetlinkMessage::NewAddress(AddressMessage::default())), []);
}
