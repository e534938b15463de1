//! What is heard of devices, addresses and pods, as they come, change and go.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_agent::network::{Carrier, Facts, Forwarding, NodeRows, RowOptions, SocketLb, Told, Xdp, own_netns};

use crate::stage::{Stage, run, until};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The device on which the tables would reach this address.
fn reached(facts: &Facts, addr: &str) -> Option<u32> {
    let options = RowOptions {
        service_networks: Vec::new(),
        pod_networks: Vec::new(),
        source_ports: (1, 2),
        forwarding: Forwarding::Auto,
        socket_lb: SocketLb::All,
        shows_cluster_ip_clients: false,
        marks_forwarded: true,
        xdp: Xdp::Off,
    };
    let rows = NodeRows::compile(facts, &Told::by_network(facts), &options);
    rows.workloads.get(&ip(addr).into()).map(|workload| workload.ifindex)
}

fn facing(facts: &Facts) -> Vec<&str> {
    facts.devices.values().map(|device| device.name.as_str()).collect()
}

#[test]
fn a_pod_comes_changes_and_goes() {
    let mut stage = Stage::new("pod");
    let mut watch = stage.watch();
    assert_eq!(watch.now().pods.len(), 0);
    let pod = stage.pod("p1", &["10.244.1.5/24", "fd00:1::5/64"]);
    let index = stage.index("p1");
    let both = |facts: &Facts| facts.pods.get(&index).is_some_and(|pod| pod.addresses.len() == 2);
    let facts = until(&mut watch, "both addresses", both);
    let found = &facts.pods[&index];
    assert_eq!(found.addresses, [ip("10.244.1.5"), ip("fd00:1::5")]);
    assert_eq!(found.netns, Some(pod.enter(own_netns).unwrap()));
    assert_eq!(Some(facts.host_netns), stage.node.enter(own_netns).ok());
    assert_ne!(found.mac, found.host_mac);

    run(&pod, &["address add 10.244.1.6/24 dev eth0", "address del 10.244.1.5/24 dev eth0"]);
    // The first address takes the second with it, or hands over to it: both are in the kernel's gift.
    until(&mut watch, "the old address gone", |facts| reached(facts, "10.244.1.5").is_none());
    run(&pod, &["link set eth0 address 06:00:00:00:00:01"]);
    let mac = [6, 0, 0, 0, 0, 1];
    until(&mut watch, "another MAC", |facts| facts.pods.get(&index).is_some_and(|pod| pod.mac == mac));
    run(&pod, &["link set eth0 mtu 1400"]);
    until(&mut watch, "another MTU", |facts| facts.pods.get(&index).is_some_and(|pod| pod.mtu == 1400));

    stage.remove(&pod);
    let facts = until(&mut watch, "no pod", |facts| facts.pods.is_empty());
    assert_eq!(reached(&facts, "fd00:1::5"), None);
}

#[test]
fn a_pod_that_was_there_before_is_known_at_once() {
    let mut stage = Stage::new("before");
    let pod = stage.pod("p1", &["10.244.1.5/24"]);
    let facts = stage.watch().now();
    let found = &facts.pods[&stage.index("p1")];
    assert_eq!(found.addresses, [ip("10.244.1.5")]);
    assert_eq!(found.netns, Some(pod.enter(own_netns).unwrap()));
}

#[test]
fn where_somebody_is_behind_a_bridge_within_a_pod_its_sockets_are_not_all() {
    let mut stage = Stage::new("within");
    // The node's own bridge is nothing to its pods.
    let (plain, before) = (stage.pod("p1", &["10.244.1.5/24"]), stage.pod("p2", &["10.244.1.6/24"]));
    let (one, two) = (stage.index("p1"), stage.index("p2"));
    run(&before, &["link add docker0 type bridge", "link set docker0 up"]);
    let mut watch = stage.watch();
    let facts = watch.now();
    assert!(facts.pods[&one].nsid.is_some() && facts.pods[&two].nsid.is_none(), "{:?}", facts.pods);
    run(&plain, &["link add docker0 type bridge"]);
    run(&plain, &["link set docker0 up"]);
    until(&mut watch, "another such", |facts| facts.pods[&one].nsid.is_none());
}

#[test]
fn an_end_that_is_handed_to_a_pod_makes_it_one() {
    let mut stage = Stage::new("handed");
    let mut watch = stage.watch();
    let pod = stage.namespace("p1");
    stage.ip(&["link add p1 type veth peer name tmp", "link set p1 up"]);
    let name = pod.name().to_owned();
    stage.ip(&[&format!("link set tmp netns {name} name eth0")]);
    run(&pod, &["address add 10.244.1.5/24 dev eth0", "link set eth0 up"]);
    let index = stage.index("p1");
    until(&mut watch, "the pod's address", |facts| reached(facts, "10.244.1.5") == Some(index));
}

#[test]
fn an_address_that_moves_is_never_the_old_pods_again() {
    let mut stage = Stage::new("moves");
    let mut watch = stage.watch();
    let (first, second) = (stage.pod("p1", &["10.244.1.5/24"]), stage.pod("p2", &["10.244.1.6/24"]));
    let (one, two) = (stage.index("p1"), stage.index("p2"));
    until(&mut watch, "two pods", |facts| {
        reached(facts, "10.244.1.5") == Some(one) && reached(facts, "10.244.1.6") == Some(two)
    });
    // Another pod takes it while this one has it: as far as the network says, it gets nothing by that.
    run(&second, &["address add 10.244.1.5/24 dev eth0"]);
    let facts = until(&mut watch, "both have it", |facts| facts.pods[&two].addresses.len() == 2);
    assert_eq!(reached(&facts, "10.244.1.5"), Some(one));
    stage.remove(&first);
    let facts = until(&mut watch, "the old pod gone", |facts| facts.pods.len() == 1);
    assert_eq!(reached(&facts, "10.244.1.5"), Some(two));
    // And on to a third, while the kernel may still be at the second's end.
    stage.remove(&second);
    let _third = stage.pod("p3", &["10.244.1.5/24"]);
    let three = stage.index("p3");
    until(&mut watch, "a new pod", |facts| {
        reached(facts, "10.244.1.5") == Some(three) && facts.pods.len() == 1
    });
}

#[test]
fn many_pods_at_once_are_all_known_and_all_forgotten() {
    let mut stage = Stage::new("many");
    let mut watch = stage.watch();
    let addresses: Vec<String> = (2..32).map(|last| format!("10.244.1.{last}")).collect();
    let pods: Vec<_> = addresses
        .iter()
        .enumerate()
        .map(|(number, addr)| stage.pod(&format!("p{number}"), &[&format!("{addr}/24")]))
        .collect();
    let facts =
        until(&mut watch, "all pods", |facts| addresses.iter().all(|addr| reached(facts, addr).is_some()));
    let mut cookies: Vec<Option<u64>> = facts.pods.values().map(|pod| pod.netns).collect();
    cookies.sort_unstable();
    cookies.dedup();
    assert!(cookies.len() == 30 && cookies[0].is_some(), "{cookies:?}");
    for pod in &pods {
        stage.remove(pod);
    }
    until(&mut watch, "no pod", |facts| facts.pods.is_empty());
}

#[test]
fn devices_become_node_facing_and_cease_to() {
    let mut stage = Stage::new("facing");
    let mut watch = stage.watch();
    let outside = stage.namespace("out");
    stage.ip(&[&format!("link add eth0 type veth peer name n1 netns {}", outside.name())]);
    run(&outside, &["link set n1 up"]);
    stage.ip(&["address add 192.0.2.1/24 dev eth0", "link set eth0 up"]);
    let index = stage.index("eth0");
    until(&mut watch, "a veth like a pod's", |facts| facts.pods.contains_key(&index));
    stage.ip(&["route add default via 192.0.2.254"]);
    let facts = until(&mut watch, "eth0", |facts| facing(facts) == ["eth0"]);
    assert!(!facts.pods.contains_key(&index));
    assert_eq!(facts.primary_v4, Some(ip("192.0.2.1")));
    let primary: Vec<IpAddr> =
        facts.addresses.iter().filter(|address| address.primary).map(|address| address.addr).collect();
    assert_eq!(primary, [ip("192.0.2.1")]);

    stage.ip(&["link add flannel.1 type vxlan id 1 dev eth0 dstport 8472"]);
    stage.ip(&["address add 10.244.1.0/32 dev flannel.1", "link set flannel.1 up"]);
    let facts = until(&mut watch, "flannel.1 with its address", |facts| {
        facts.devices.values().any(|device| device.v4 == Some(ip("10.244.1.0")))
    });
    assert_eq!(facing(&facts), ["eth0", "flannel.1"]);
    // The tunnel on it is enough.
    stage.ip(&["route del default"]);
    stage.ip(&["link del flannel.1"]);
    until(&mut watch, "a veth like a pod's again", |facts| facing(facts).is_empty());

    stage.ip(&["address add 192.0.2.9/32 dev lo"]);
    until(&mut watch, "an address of lo", |facts| {
        facts.addresses.iter().any(|address| address.addr == ip("192.0.2.9"))
    });
    stage.ip(&["address del 192.0.2.9/32 dev lo"]);
    until(&mut watch, "none", |facts| facts.addresses.iter().all(|address| address.addr != ip("192.0.2.9")));
}

#[test]
fn what_the_node_takes_out_of_tunnels() {
    let stage = Stage::new("carriers");
    let mut watch = stage.watch();
    assert_eq!(watch.now().carriers, [].into());
    let wanted = BTreeSet::from([Carrier::Udp(8472)]);
    stage.ip(&["link add vx type vxlan external dstport 8472", "link set vx up"]);
    until(&mut watch, "a tunnel", |facts| facts.carriers == wanted);
    // Of one that is down nothing is taken out.
    stage.ip(&["link set vx down"]);
    until(&mut watch, "no tunnel", |facts| facts.carriers.is_empty());
}
