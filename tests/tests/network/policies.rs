//! Policies between real sockets in real namespaces: objects through state, compiler and rows into the kernel, programs on the
//! devices, and who reaches whom.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::json;
use weir_agent::kernel::{KernelPolicyStore, SweptJudged, sweep_judged};
use weir_agent::tables::{PolicyOptions, PolicyRows};
use weir_ebpf::abi::Counter;
use weir_policy::{Node as Compiled, Placement};

use crate::guarded::{
    FRIEND, HERE, NODE, SERVER, STRANGER, World, addr, asks, connect, echo, key, reaches, speaks,
};
use crate::stage::run;

#[test]
fn ingress_is_for_whom_a_policy_names() {
    let mut world = World::new("pol-in");
    for server in SERVER {
        echo(&world.server, server, 8080);
        echo(&world.server, server, 8081);
        assert!(reaches(&world.stranger, server, 8080), "there is no policy");
    }
    world.serve();
    for server in SERVER {
        assert!(reaches(&world.friend, server, 8080));
        assert!(!reaches(&world.friend, server, 8081), "another port");
        assert!(!reaches(&world.stranger, server, 8080), "another pod");
        assert!(!asks(&world.friend, &world.server, server, 8080), "another protocol");
        assert!(reaches(&world.stage.node, server, 8081), "the node itself");
    }
    // What the server begins, and what comes back of it, is not for this policy to say.
    for stranger in STRANGER {
        assert!(asks(&world.server, &world.stranger, stranger, 53));
    }
    assert!(world.counters()[&Counter::PolicyIngress] > 0);
    // Another label, and it may.
    world.set_pod("stranger", "client", STRANGER);
    world.sync();
    assert!(SERVER.iter().all(|server| reaches(&world.stranger, server, 8080)));
    world.cluster.policies.clear();
    world.sync();
    assert!(SERVER.iter().all(|server| asks(&world.friend, &world.server, server, 8081)));
}

#[test]
fn egress_is_to_whom_a_policy_names_and_to_the_node() {
    let mut world = World::new("pol-out");
    for (server, node) in SERVER.into_iter().zip(NODE) {
        echo(&world.server, server, 8080);
        echo(&world.server, server, 8081);
        echo(&world.stage.node, node, 9000);
    }
    world.set_policy(
        "ask",
        json!({
            "podSelector": {"matchLabels": {"app": "client"}},
            "policyTypes": ["Egress", "Ingress"],
            "egress": [{
                "to": [{"podSelector": {"matchLabels": {"app": "server"}}}],
                "ports": [{"port": 8080}, {"port": 53, "protocol": "UDP"}],
            }],
        }),
    );
    world.sync();
    for (server, node) in SERVER.into_iter().zip(NODE) {
        assert!(reaches(&world.friend, server, 8080));
        assert!(!reaches(&world.friend, server, 8081));
        assert!(asks(&world.friend, &world.server, server, 53), "and the answer comes in");
        assert!(!asks(&world.friend, &world.server, server, 54));
        assert!(reaches(&world.friend, node, 9000), "its own node");
    }
    for friend in FRIEND {
        echo(&world.friend, friend, 8080);
        assert!(!reaches(&world.server, friend, 8080));
        assert!(reaches(&world.stage.node, friend, 8080), "the node itself, and the replies");
    }
    assert!(world.counters()[&Counter::PolicyEgress] > 0);
}

#[test]
fn a_connection_that_is_revoked_stops_and_another_goes_on() {
    let mut world = World::new("pol-cut");
    world.serve();
    for server in SERVER {
        echo(&world.server, server, 8080);
        let mut connection = connect(&world.friend, server, 8080).expect("it is allowed");
        assert!(speaks(&mut connection));
        // What others may is nothing to it.
        world.set_pod("stranger", "client", STRANGER);
        world.sync();
        assert!(speaks(&mut connection));
        let mut other = connect(&world.stranger, server, 8080).expect("it is allowed");
        assert!(speaks(&mut other));
        world.set_pod("friend", "other", FRIEND);
        world.sync();
        assert!(!speaks(&mut connection), "its class has changed");
        assert!(speaks(&mut other));
        world.set_pod("friend", "client", FRIEND);
        world.sync();
        assert!(speaks(&mut other));
        world.cluster.policies.remove(&key("serve"));
        world.set_policy("none", json!({"podSelector": {}}));
        world.sync();
        assert!(!speaks(&mut other), "nobody allows it any more");
        world.cluster.policies.clear();
        world.set_pod("stranger", "other", STRANGER);
        world.serve();
    }
}

#[test]
fn a_connection_from_before_the_first_policy_goes_on_where_it_is_allowed() {
    let mut world = World::new("pol-old");
    let server = SERVER[0];
    echo(&world.server, server, 8080);
    let mut friend = connect(&world.friend, server, 8080).unwrap();
    let mut to_friend = {
        echo(&world.friend, FRIEND[0], 7000);
        connect(&world.server, FRIEND[0], 7000).unwrap()
    };
    assert!(speaks(&mut friend) && speaks(&mut to_friend));
    world.serve();
    assert!(speaks(&mut friend), "the policy allows it");
    assert!(speaks(&mut to_friend), "the server began it, and nothing isolates its egress");
}

#[test]
fn a_pod_that_takes_anothers_address_is_not_heard() {
    let mut world = World::new("pol-spoof");
    world.serve();
    let spoofed = |world: &mut World| world.counters()[&Counter::SpoofedSource];
    for (at, server) in SERVER.into_iter().enumerate() {
        echo(&world.server, server, 8080);
        let before = spoofed(&mut world);
        let (own, bits) = (FRIEND[at], if at == 0 { 32 } else { 128 });
        let nodad = if at == 0 { "" } else { "nodad" };
        run(&world.stranger, &[&format!("address add {own}/{bits} dev eth0 {nodad}")]);
        let bound = world.stranger.enter(|| {
            let socket = UdpSocket::bind(SocketAddr::new(own.parse()?, 0))?;
            for _ in 0..3 {
                let _not_there = socket.send_to(b"it is me", SocketAddr::new(server.parse()?, 8080));
            }
            Ok(())
        });
        bound.unwrap();
        let patience = Instant::now() + Duration::from_secs(10);
        while spoofed(&mut world) == before {
            assert!(Instant::now() < patience, "nothing was dropped");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(reaches(&world.friend, server, 8080), "the one whose address it is");
        run(&world.stranger, &[&format!("address del {own}/{bits} dev eth0")]);
    }
}

#[test]
fn a_pod_that_nobody_knows_yet_is_held() {
    let mut world = World::new("pol-held");
    let server = SERVER[0];
    echo(&world.server, server, 8080);
    world.serve();
    assert!(reaches(&world.friend, server, 8080));
    world.cluster.pods.remove(&key("friend"));
    world.sync();
    assert!(!reaches(&world.friend, server, 8080));
    echo(&world.friend, FRIEND[0], 7000);
    assert!(!reaches(&world.stranger, FRIEND[0], 7000));
    assert!(world.counters()[&Counter::UnknownPod] > 0);
    world.set_pod("friend", "client", FRIEND);
    world.sync();
    assert!(reaches(&world.friend, server, 8080));
    assert!(reaches(&world.stranger, FRIEND[0], 7000));
}

#[test]
fn another_agent_finds_the_same_policies_in_force() {
    let mut world = World::new("pol-again");
    let server = SERVER[0];
    echo(&world.server, server, 8080);
    world.serve();
    let mut connection = connect(&world.friend, server, 8080).unwrap();
    assert!(speaks(&mut connection));
    let before = world.store.snapshot().unwrap();
    // It hears of the same objects, in another process, with what is pinned.
    let found = KernelPolicyStore::open(&world.generation).unwrap().snapshot().unwrap();
    world.compiled = Compiled::adopting(Placement::Named(HERE.to_owned()), found.named());
    let devices = ["server", "friend", "stranger"].map(|name| world.stage.index(name));
    world.rows = PolicyRows::new(PolicyOptions { judged: 64, holds_unknown: true }, found);
    let workloads = [SERVER, FRIEND, STRANGER].into_iter().zip(devices);
    world.rows.set_workloads(
        workloads.flat_map(|(pod, device)| pod.map(|address| (addr(address), device))),
        BTreeSet::new(),
        &mut world.store,
    );
    assert!(speaks(&mut connection) && !reaches(&world.stranger, server, 8080), "while it hears of nothing");
    world.sync();
    let after = world.store.snapshot().unwrap();
    assert_eq!((&after.pods, &after.names), (&before.pods, &before.names), "under the same numbers");
    assert_eq!((&after.addresses, &after.verdicts), (&before.addresses, &before.verdicts));
    assert!(speaks(&mut connection) && !reaches(&world.stranger, server, 8080));
}

#[test]
fn judged_flows_are_swept_with_their_pods_and_counted() {
    let mut world = World::new("pol-swept");
    let server = SERVER[0];
    echo(&world.server, server, 8080);
    world.serve();
    assert!(reaches(&world.friend, server, 8080));
    let swept = sweep_judged(&world.generation, SweptJudged::default()).unwrap();
    assert_eq!((swept.flows, swept.is_on), (0, true));
    assert!(swept.rows > 0, "the server's side of the connection");
    world.cluster.pods.remove(&key("server"));
    world.sync();
    let gone = sweep_judged(&world.generation, swept).unwrap();
    assert_eq!((gone.rows, gone.flows), (swept.rows, swept.rows));
    assert_eq!(sweep_judged(&world.generation, gone).unwrap().rows, 0);
}
