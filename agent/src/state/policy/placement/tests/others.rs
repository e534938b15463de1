//! Who is told otherwise than by a device of their own, and who is nobody of the cluster's.

use super::*;

/// A device into whose namespace nobody has found a way.
fn unreached(has: &[u8]) -> Device {
    Device { netns: None, ..device(Owner::Unknown, 0, has) }
}

#[test]
fn who_is_known_by_address_alone_is_told_by_the_cgroup() {
    // A static pod's cgroup is named by its manifest.
    let mirror = Pod {
        identity: Some(Box::new(PodIdentity { uid: uid(2), mirrors: Some(uid(3)) })),
        ..pod(2, 2, &[6])
    };
    // It says that it stands for another pod of this node.
    let liar = Pod {
        identity: Some(Box::new(PodIdentity { uid: uid(4), mirrors: Some(uid(5)) })),
        ..pod(4, 4, &[8])
    };
    let pods = [("a", pod(1, 1, &[5])), ("m", mirror), ("l", liar), ("n", pod(5, 5, &[]))];
    let devices =
        vec![(7, unreached(&[5])), (8, unreached(&[6])), (9, unreached(&[8])), (10, unreached(&[9]))];
    let mut world = World::new(&pods, devices);
    assert_eq!(*world.behind(10), Behind::Unknown(Unknown::NoWay));
    assert_eq!(world.placement.by_cgroup, BTreeSet::from([uid(1), uid(2), uid(3), uid(4)]));
    assert_eq!(world.placement.untold, BTreeSet::new(), "who is not known is held");
    // One whose namespace is reached is told by that.
    world.plug(7, Some(of_pod(1, &[5])));
    assert_eq!(world.placement.by_cgroup, BTreeSet::from([uid(2), uid(3), uid(4)]));
}

#[test]
fn a_pod_without_a_uid_in_a_namespace_out_of_reach_is_told_by_nothing() {
    let mute = Pod { identity: None, ..pod(1, 1, &[5]) };
    let mut world = World::new(&[("a", mute)], vec![(7, unreached(&[5])), (8, unreached(&[9]))]);
    assert_eq!(world.placement.untold, BTreeSet::from([7]));
    world.plug(7, Some(device(Owner::Unknown, 0, &[5])));
    assert_eq!(world.placement.untold, BTreeSet::new());
}

fn host(number: u8, mirrors: Option<u8>) -> Pod {
    let identity = PodIdentity { uid: uid(number), mirrors: mirrors.map(uid) };
    Pod {
        host_network: true,
        addresses: Box::default(),
        identity: Some(Box::new(identity)),
        ..pod(number, 1, &[])
    }
}

#[test]
fn what_a_pod_with_the_nodes_network_makes_is_no_pod() {
    let mut world =
        World::new(&[("proxy", host(1, Some(2)))], vec![(7, of_pod(1, &[5])), (8, of_pod(2, &[6]))]);
    assert!(matches!(world.behind(7), Behind::Other(_)) && matches!(world.behind(8), Behind::Other(_)));
    assert_eq!(world.placement.by_cgroup, BTreeSet::from([uid(1), uid(2)]));
    assert!(world.placement.unplaced.is_empty(), "it is behind no device");
    assert!(world.state.take_pods_here_changed());
    // Saying so makes nobody free who has a network of its own.
    world.set("static", Some(pod(2, 1, &[])));
    assert_eq!(*world.behind(8), Behind::Pod(key("static")));
    assert_eq!(world.placement.by_cgroup, BTreeSet::from([uid(1)]));
    world.set("proxy", None);
    assert_eq!(*world.behind(7), Behind::Unknown(Unknown::NoPod(uid(1))));
    assert_eq!(world.placement.by_cgroup, BTreeSet::new());
    // Another node's is nobody here.
    world.set("proxy", Some(Pod { node: Some("there".into()), ..host(1, None) }));
    assert_eq!(world.placement.by_cgroup, BTreeSet::new());
    // Made anew under its name, with a network of its own.
    world.set("proxy", Some(host(1, None)));
    assert_eq!(world.placement.by_cgroup, BTreeSet::from([uid(1)]));
    world.set("proxy", Some(pod(3, 1, &[])));
    assert_eq!(world.placement.by_cgroup, BTreeSet::new());
}

#[test]
fn who_may_be_the_pod_that_is_being_made_is_held() {
    let mut world = World::new(&[("a", pod(1, 1, &[5]))], vec![(7, of_pod(1, &[5])), (8, other(&[6]))]);
    world.networks = vec!["10.0.0.0/24".parse().unwrap()];
    world.place();
    assert!(matches!(world.behind(8), Behind::Other(_)), "every pod has its place");
    world.set("new", Some(pod(2, 2, &[])));
    let may_be = || Behind::Unknown(Unknown::MayBe(key("new")));
    assert_eq!(*world.behind(8), may_be());
    // It was there long before.
    world.settled.insert(8);
    world.place();
    assert!(matches!(world.behind(8), Behind::Other(_)));
    world.settled.clear();
    world.place();
    assert_eq!(*world.behind(8), may_be());
    // It is on no network of pods; or nobody has seen where it is.
    world.plug(9, Some(Device { addresses: vec!["172.17.0.2".parse().unwrap()], ..other(&[]) }));
    assert!(matches!(world.behind(9), Behind::Other(_)));
    world.plug(9, Some(other(&[])));
    assert_eq!(*world.behind(9), may_be());
    // What makes the pod may itself be one, with the node's network: then it is not asked for the address.
    world.set("cni", Some(host(3, None)));
    world.networks.clear();
    world.plug(9, Some(of_pod(3, &[77])));
    assert_eq!(*world.behind(9), may_be());
    assert!(matches!(world.behind(8), Behind::Other(_)), "nobody says where pods are");
    world.networks = vec!["10.0.0.0/24".parse().unwrap()];
    // The pod has its place, or is elsewhere, or ends.
    world.plug(10, Some(of_pod(2, &[9])));
    assert!(matches!(world.behind(8), Behind::Other(_)) && matches!(world.behind(9), Behind::Other(_)));
    world.plug(10, None);
    assert_eq!(*world.behind(8), may_be());
    world.set("new", Some(pod(2, 2, &[9])));
    assert_eq!(*world.behind(8), may_be(), "its status may be of before");
    world.facts.elsewhere.insert(70, uid(2));
    world.place();
    assert!(matches!(world.behind(8), Behind::Other(_)));
    world.facts.elsewhere.clear();
    world.set("new", None);
    assert!(matches!(world.behind(8), Behind::Other(_)));
    // One without a UID is known by the address of its status.
    let mute = |said: &[u8]| Some(Pod { identity: None, ..pod(4, 4, said) });
    world.set("mute", mute(&[9]));
    assert!(matches!(world.behind(8), Behind::Other(_)));
    world.set("mute", mute(&[]));
    assert_eq!(*world.behind(8), Behind::Unknown(Unknown::MayBe(key("mute"))));
    world.set("mute", mute(&[6]));
    assert_eq!(*world.behind(8), Behind::Pod(key("mute")));
}

#[test]
fn a_namespace_without_any_process_is_nobodys_where_no_pod_can_be_meant() {
    let empty = |has: &[u8]| device(Owner::Nobody, 0, has);
    let mut world = World::new(&[("a", pod(1, 1, &[5]))], vec![(7, of_pod(1, &[5])), (8, empty(&[6]))]);
    assert!(matches!(world.behind(8), Behind::Other(_)) && !world.placement.seeks.making);
    world.networks = vec!["10.0.0.0/29".parse().unwrap()];
    world.place();
    assert_eq!(*world.behind(8), Behind::Unknown(Unknown::NoProcess), "its address is a pod's");
    world.plug(8, Some(empty(&[77])));
    assert!(matches!(world.behind(8), Behind::Other(_)));
    world.set("new", Some(pod(2, 2, &[])));
    assert_eq!(*world.behind(8), Behind::Unknown(Unknown::MayBe(key("new"))));
    assert!(world.placement.seeks.making, "its first process may come");
    world.set("new", Some(pod(2, 2, &[77])));
    assert_eq!(*world.behind(8), Behind::Pod(key("new")), "by its address: its processes may be elsewhere");
    world.set("new", None);
    world.set("mute", Some(Pod { identity: None, ..pod(4, 4, &[77]) }));
    assert_eq!(*world.behind(8), Behind::Pod(key("mute")));
}
