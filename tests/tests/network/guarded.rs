//! A node with pods on a bridge, programs at their devices, and policies; and sockets in its namespaces.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};
use weir_agent::kernel::{DeviceKind, Generation, Grace, Hooks, KernelPolicyStore, KernelStore, View};
use weir_agent::tables::{PolicyOptions, PolicyRows, PolicySnapshot, Store as _};
use weir_ebpf::abi::{Addr, AddressUses, Counter, Frontend, FrontendKey};
use weir_policy::{Cluster, Node as Compiled, Placement};
use weir_tests::lab::netns::Netns;

use crate::stage::Stage;

/// Longer than a packet takes from one namespace to another, and than the kernel takes to send a SYN again.
const SHORT: Duration = Duration::from_millis(1500);
pub(crate) const HERE: &str = "here";
/// On the bridge: the node, and three pods.
pub(crate) const NODE: [&str; 2] = ["10.244.0.1", "fd00:244::1"];
pub(crate) const SERVER: [&str; 2] = ["10.244.0.2", "fd00:244::2"];
pub(crate) const FRIEND: [&str; 2] = ["10.244.0.3", "fd00:244::3"];
pub(crate) const STRANGER: [&str; 2] = ["10.244.0.4", "fd00:244::4"];

/// A node with three pods on a bridge, programs at their devices, and policies.
pub(crate) struct World {
    pub(crate) stage: Stage,
    pub(crate) generation: Generation,
    _hooks: Hooks,
    pub(crate) server: Netns,
    pub(crate) friend: Netns,
    pub(crate) stranger: Netns,
    pub(crate) cluster: Cluster,
    pub(crate) compiled: Compiled,
    pub(crate) rows: PolicyRows,
    pub(crate) store: KernelPolicyStore,
    grace: Grace,
}

impl World {
    pub(crate) fn new(name: &str) -> Self {
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

    pub(crate) fn set_pod(&mut self, name: &str, app: &str, [v4, v6]: [&str; 2]) {
        let pod = json!({
            "metadata": {"namespace": "ns", "name": name, "labels": {"app": app}},
            "spec": {"nodeName": HERE, "containers": []},
            "status": {"phase": "Running", "podIPs": [{"ip": v4}, {"ip": v6}]},
        });
        self.cluster.pods.insert(key(name), serde_json::from_value(pod).unwrap());
    }

    pub(crate) fn set_policy(&mut self, name: &str, spec: Value) {
        let policy = json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
        self.cluster.policies.insert(key(name), serde_json::from_value(policy).unwrap());
    }

    /// Writes what is different, as the daemon does.
    pub(crate) fn sync(&mut self) {
        let update = self.compiled.compile(&self.cluster);
        self.rows.apply(update, !self.cluster.policies.is_empty(), &mut self.store);
        if let Some(retired) = self.rows.take_retired() {
            self.grace.wait().unwrap();
            self.rows.release(retired, &mut self.store);
        }
        assert!(!self.rows.has_refused(), "{:?}", self.rows.problems());
    }

    /// Whether the server takes clients from one port of TCP.
    pub(crate) fn serve(&mut self) {
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

    pub(crate) fn counters(&mut self) -> HashMap<Counter, u64> {
        let (root, _) = self.stage.root();
        View::open(&root).unwrap().unwrap().counters().unwrap().into_iter().collect()
    }
}

pub(crate) fn key(name: &str) -> (String, String) {
    ("ns".to_owned(), name.to_owned())
}

pub(crate) fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

pub(crate) fn at(address: &str, port: u16) -> SocketAddr {
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
pub(crate) fn echo(netns: &Netns, address: &str, port: u16) {
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

pub(crate) fn connect(netns: &Netns, address: &str, port: u16) -> Option<TcpStream> {
    let address = at(address, port);
    netns.enter(|| Ok(TcpStream::connect_timeout(&address, SHORT).ok())).unwrap()
}

/// Whether what is said comes back.
pub(crate) fn speaks(connection: &mut TcpStream) -> bool {
    connection.set_read_timeout(Some(SHORT)).unwrap();
    let mut bytes = [0; 5];
    connection.write_all(b"hello").is_ok() && connection.read_exact(&mut bytes).is_ok()
}

pub(crate) fn reaches(netns: &Netns, address: &str, port: u16) -> bool {
    connect(netns, address, port).is_some_and(|mut connection| speaks(&mut connection))
}

/// Whether a question that goes from one socket to another has an answer.
pub(crate) fn asks(client: &Netns, server: &Netns, address: &str, port: u16) -> bool {
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
