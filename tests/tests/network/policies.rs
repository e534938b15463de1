//! Policies between real sockets in real namespaces: objects through state, compiler and rows into the kernel, programs on the
//! devices, and who reaches whom.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};
use weir_agent::kernel::{
    DeviceKind, Generation, Grace, Hooks, KernelPolicyStore, KernelStore, SweptJudged, View, sweep_judged,
};
use weir_agent::tables::{PolicyOptions, PolicyRows, PolicySnapshot, Store as _};
use weir_ebpf::abi::{Addr, AddressUses, Counter, Frontend, FrontendKey};
use weir_tests::lab::netns::Netns;
use weir_tests::policy::{Cluster, Node as Compiled, Placement};

use crate::stage::{Stage, run};

/// Longer than a packet takes from one namespace to another, and than the kernel takes to send a SYN again.
const SHORT: Duration = Duration::from_millis(1500);
const HERE: &str = "here";
/// On the bridge: the node, and three pods.
const NODE: [&str; 2] = ["10.244.0.1", "fd00:244::1"];
const SERVER: [&str; 2] = ["10.244.0.2", "fd00:244::2"];
const FRIEND: [&str; 2] = ["10.244.0.3", "fd00:244::3"];
const STRANGER: [&str; 2] = ["10.244.0.4", "fd00:244::4"];

/// A node with three pods on a bridge, programs at their devices, and policies.
struct World {
    stage: Stage,
    generation: Generation,
    _hooks: Hooks,
    server: Netns,
    friend: Netns,
    stranger: Netns,
    cluster: Cluster,
    compiled: Compiled,
    rows: PolicyRows,
    store: KernelPolicyStore,
    grace: Grace,
}

impl World {
    fn new(name: &str) -> Self {
        let mut stage = Stage::new(name);
        let with_bits = |[v4, v6]: [&str; 2]| [format!("{v4}/24"), format!("{v6}/64")];
        for address in with_bits(NODE) {
            stage.ip(&[&format!(
                "address add {address} dev cni0 {}",
                if address.contains(':') { "nodad" } else { "" }
            )]);
        }
        let mut pod = |name: &str, addresses| {
            let [v4, v6] = with_bits(addresses);
            stage.pod(name, &[&v4, &v6])
        };
        let (server, friend, stranger) =
            (pod("server", SERVER), pod("friend", FRIEND), pod("stranger", STRANGER));
        let (root, generation, hooks) = stage.load();
        let devices = ["server", "friend", "stranger"].map(|name| stage.index(name));
        let wanted: BTreeMap<u32, DeviceKind> =
            devices.iter().map(|device| (*device, DeviceKind::Pod)).collect();
        let problems = stage.node.enter(|| hooks.sync_devices(&root, &wanted)).unwrap();
        assert_eq!(problems, []);
        write_node_addresses(&generation);
        let mut store = KernelPolicyStore::open(&generation).unwrap();
        let options = PolicyOptions { judged: 64, holds_unknown: true };
        let mut rows = PolicyRows::new(options, PolicySnapshot::default());
        let workloads = [SERVER, FRIEND, STRANGER].into_iter().zip(devices);
        rows.set_workloads(
            workloads.flat_map(|(pod, device)| pod.map(|address| (addr(address), device))),
            BTreeSet::new(),
            &mut store,
        );
        let (cluster, compiled) = (Cluster::default(), Compiled::new(Placement::Named(HERE.to_owned())));
        let grace = Grace::new().unwrap();
        let mut world = Self {
            stage,
            generation,
            _hooks: hooks,
            server,
            friend,
            stranger,
            cluster,
            compiled,
            rows,
            store,
            grace,
        };
        world.cluster.namespaces.insert("ns".into(), Namespace::default());
        world.set_pod("server", "server", SERVER);
        world.set_pod("friend", "client", FRIEND);
        world.set_pod("stranger", "other", STRANGER);
        world.sync();
        world
    }

    fn set_pod(&mut self, name: &str, app: &str, [v4, v6]: [&str; 2]) {
        let pod = json!({
            "metadata": {"namespace": "ns", "name": name, "labels": {"app": app}},
            "spec": {"nodeName": HERE, "containers": []},
            "status": {"phase": "Running", "podIPs": [{"ip": v4}, {"ip": v6}]},
        });
        self.cluster.pods.insert(key(name), serde_json::from_value(pod).unwrap());
    }

    fn set_policy(&mut self, name: &str, spec: Value) {
        let policy = json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
        self.cluster.policies.insert(key(name), serde_json::from_value(policy).unwrap());
    }

    /// Writes what is different, as the daemon does.
    fn sync(&mut self) {
        let update = self.compiled.compile(&self.cluster);
        self.rows.apply(update, !self.cluster.policies.is_empty(), &mut self.store);
        if let Some(retired) = self.rows.take_retired() {
            self.grace.wait().unwrap();
            self.rows.release(retired, &mut self.store);
        }
        assert!(!self.rows.has_refused(), "{:?}", self.rows.problems());
    }

    /// Whether the server takes clients from one port of TCP.
    fn serve(&mut self) {
        self.set_policy(
            "serve",
            json!({
                "podSelector": {"matchLabels": {"app": "server"}},
                "ingress": [{
                    "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
                    "ports": [{"port": 8080}],
                }],
            }),
        );
        self.sync();
    }

    fn counters(&mut self) -> HashMap<Counter, u64> {
        let (root, _) = self.stage.root();
        View::open(&root).unwrap().unwrap().counters().unwrap().into_iter().collect()
    }
}

fn key(name: &str) -> (String, String) {
    ("ns".to_owned(), name.to_owned())
}

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// Which addresses are the node's own.
fn write_node_addresses(generation: &Generation) {
    let mut store = KernelStore::open(generation, Grace::new().unwrap()).unwrap();
    for address in NODE {
        let row = Frontend::whole_address(AddressUses::NODE);
        store.put_frontend(&FrontendKey::whole_address(addr(address)), &row).unwrap();
    }
}

/// Takes every connection and gives back what comes, one thread for each, until the process ends.
fn echo(netns: &Netns, address: &str, port: u16) {
    let address = at(address, port);
    let listener = netns.enter(|| Ok(TcpListener::bind(address)?)).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            std::thread::spawn(move || {
                let mut bytes = [0; 64];
                while let Ok(count @ 1..) = connection.read(&mut bytes) {
                    if connection.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

fn connect(netns: &Netns, address: &str, port: u16) -> Option<TcpStream> {
    let address = at(address, port);
    netns.enter(|| Ok(TcpStream::connect_timeout(&address, SHORT).ok())).unwrap()
}

/// Whether what is said comes back.
fn speaks(connection: &mut TcpStream) -> bool {
    connection.set_read_timeout(Some(SHORT)).unwrap();
    let mut bytes = [0; 5];
    connection.write_all(b"hello").is_ok() && connection.read_exact(&mut bytes).is_ok()
}

fn reaches(netns: &Netns, address: &str, port: u16) -> bool {
    connect(netns, address, port).is_some_and(|mut connection| speaks(&mut connection))
}

/// Whether a question that goes from one socket to another has an answer.
fn asks(client: &Netns, server: &Netns, address: &str, port: u16) -> bool {
    let server = server.enter(|| Ok(UdpSocket::bind(at(address, port))?)).unwrap();
    let any = if address.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let client = client.enter(|| Ok(UdpSocket::bind(any)?)).unwrap();
    server.set_read_timeout(Some(SHORT)).unwrap();
    client.set_read_timeout(Some(SHORT)).unwrap();
    let mut bytes = [0; 8];
    client.send_to(b"question", at(address, port)).unwrap();
    let Ok((_, from)) = server.recv_from(&mut bytes) else { return false };
    server.send_to(b"answer", from).unwrap();
    client.recv_from(&mut bytes).is_ok()
}

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
