//! Everybody reaches every kind of address, whatever else is on the node: the per-packet path with real sockets.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use weir_tests::cases::spec::service;
use weir_tests::cases::{CAST, objects};
use weir_tests::lab::{Cluster, DualStack, Form, Neighbour, Network, Settings, address};
use weir_tests::prober::{Answer, Command, How, Outcome};

use crate::support::exchange;

/// A lab to be reached in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    /// What it is called in the list of trials.
    pub(crate) name: &'static str,
    network: Network,
    neighbours: &'static [Neighbour],
    arguments: &'static [&'static str],
}

const fn scene(name: &'static str) -> Scene {
    Scene { name, network: Network::Routed, neighbours: &[], arguments: &[] }
}

/// Every combination would take an hour; these are those that clusters have, and each thing at least twice.
pub(crate) const SCENES: [Scene; 8] = [
    scene("routed"),
    Scene { network: Network::Overlay, ..scene("overlay") },
    Scene { arguments: &["--forwarding", "stack"], ..scene("routed-stack") },
    Scene { network: Network::Overlay, arguments: &["--forwarding", "stack"], ..scene("overlay-stack") },
    Scene {
        neighbours: &[Neighbour::DropInvalid, Neighbour::StrictReversePath, Neighbour::NoBridgeNetfilter],
        arguments: &["--socket-lb", "node"],
        ..scene("routed-per-packet-firewall")
    },
    Scene {
        network: Network::Overlay,
        neighbours: &[Neighbour::Flannel, Neighbour::StrictReversePath, Neighbour::BridgeNetfilter],
        arguments: &["--socket-lb", "node"],
        ..scene("overlay-per-packet-flannel")
    },
    Scene {
        network: Network::Overlay,
        neighbours: &[Neighbour::Flannel, Neighbour::ForwardPodsOnly, Neighbour::DropInvalid],
        arguments: &["--socket-lb", "node", "--forwarding", "stack"],
        ..scene("overlay-per-packet-flannel-stack")
    },
    Scene {
        neighbours: &[Neighbour::Kindnet, Neighbour::ForwardPodsOnly, Neighbour::BridgeNetfilter],
        arguments: &["--socket-lb", "node", "--forwarding", "stack"],
        ..scene("routed-per-packet-kindnet-stack")
    },
];

/// The Services: where their endpoint is, and their node port.
const SERVICES: [(&str, &str, u16); 3] =
    [("near", "n1-b", 30_080), ("far", "n2-a", 30_081), ("host", "n1", 30_082)];
/// A Service with `externalTrafficPolicy: Local` and an endpoint on each node.
const LOCAL: (&str, u16) = ("local", 30_083);

/// A cluster as the scene has it, with Services of every kind.
fn cluster(scene: &Scene) -> Result<Cluster> {
    let settings = Settings { network: scene.network, ..Settings::default() };
    let mut cluster = Cluster::create(settings, &CAST)?;
    for node in cluster.lab().nodes() {
        for neighbour in scene.neighbours {
            neighbour
                .ensure(node.place().netns(), node.number())
                .with_context(|| format!("{neighbour:?}"))?;
        }
    }
    let mut objects = Vec::new();
    for (number, (name, endpoint, node_port)) in (20..).zip(SERVICES) {
        objects.extend(exposed(number, name, &[endpoint], node_port, "Cluster"));
    }
    objects.extend(exposed(23, LOCAL.0, &["n1-b", "n2-a"], LOCAL.1, "Local"));
    cluster.manifests.replace_objects("exposed.yaml", &objects)?;
    cluster.start_agents_with(scene.arguments)?;
    cluster.settle()?;
    Ok(cluster)
}

/// A Service at a ClusterIP, a node port, a load balancer's address and an external address, port 80 and TCP and UDP.
fn exposed(
    number: u8,
    name: &'static str,
    endpoints: &[&'static str],
    node_port: u16,
    policy: &str,
) -> Vec<Value> {
    let mut objects = objects::of_service(&service(name).to(endpoints), "lab", address::service(number));
    let object = &mut objects[0];
    object["spec"]["type"] = json!("LoadBalancer");
    object["spec"]["externalTrafficPolicy"] = json!(policy);
    object["spec"]["externalIPs"] = json!(address::external(number).both());
    let ingress = address::balancer(number).both().map(|ip| json!({ "ip": ip }));
    object["status"] = json!({ "loadBalancer": { "ingress": ingress } });
    for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
        port["nodePort"] = json!(node_port);
    }
    objects
}

/// Who asks, and what the backend may see of it.
const CLIENTS: [&str; 4] = ["outside", "n1-a", "n1", "n2-b"];

/// Everything in one scene.
pub(crate) fn everybody_reaches_everything(scene: &Scene) -> Result<()> {
    let cluster = cluster(scene)?;
    let mut asked = 0;
    let mut wrong = Vec::new();
    for (number, (name, endpoint, node_port)) in (20..).zip(SERVICES) {
        for (kind, addresses, port) in addresses_of(number, node_port) {
            for (from, how, form) in askers() {
                let to = addresses.dial(form, port);
                asked += 1;
                if let Err(error) = ask_one(&cluster, from, how, to, endpoint) {
                    wrong.push(format!("{from} -> {name} by {kind} {to}, {how}: {error:#}"));
                }
            }
        }
    }
    for (from, how, form) in askers() {
        for (node, endpoint) in [(1, "n1-b"), (2, "n2-a")] {
            let to = address::node(node).dial(form, LOCAL.1);
            asked += 1;
            if let Err(error) = ask_local(&cluster, from, how, to, endpoint) {
                wrong.push(format!("{from} -> local {to}, {how}: {error:#}"));
            }
        }
    }
    println!("figure lab.reach.{} {}/{asked}", scene.name, asked - wrong.len());
    ensure!(wrong.is_empty(), "{} of {asked}:\n{}\n{}", wrong.len(), wrong.join("\n"), cluster.logs());
    Ok(())
}

fn addresses_of(number: u8, node_port: u16) -> [(&'static str, DualStack, u16); 4] {
    [
        ("ClusterIP", address::service(number), 80),
        ("node port", address::node(1), node_port),
        ("load balancer", address::balancer(number), 80),
        ("external IP", address::external(number), 80),
    ]
}

fn askers() -> impl Iterator<Item = (&'static str, How, Form)> {
    CLIENTS.into_iter().flat_map(|from| {
        How::ALL.into_iter().flat_map(move |how| [Form::V4, Form::V6].map(move |form| (from, how, form)))
    })
}

/// One question on a new socket, and three more on the same: what began must go on.
fn ask(cluster: &Cluster, from: &str, how: How, to: SocketAddr) -> Result<Answer> {
    let prober = cluster.prober(from)?;
    let result = (|| {
        match prober.call(Command::Open { socket: 1, how, to })? {
            Outcome::Done => {}
            other => bail!("{other:?}"),
        }
        let first = exchange(cluster, from, 1, to)?;
        for _ in 0..2 {
            let next = exchange(cluster, from, 1, to)?;
            ensure!(next.server == first.server, "first {}, then {}", first.server, next.server);
        }
        Ok(first)
    })();
    prober.must(Command::Close { socket: 1 })?;
    let answer = result?;
    ensure!(answer.from.is_none_or(|source| source == to), "the answer came from {:?}", answer.from);
    Ok(answer)
}

fn ask_one(cluster: &Cluster, from: &str, how: How, to: SocketAddr, endpoint: &str) -> Result<()> {
    let answer = ask(cluster, from, how, to)?;
    ensure!(answer.server == endpoint, "{} answered", answer.server);
    ensure_client(cluster, from, &answer, may_be_hidden(from, endpoint, to))
}

/// Policy Local: the node's own endpoint for who is outside, any for who is inside; nobody is hidden.
fn ask_local(cluster: &Cluster, from: &str, how: How, to: SocketAddr, endpoint: &str) -> Result<()> {
    let answer = ask(cluster, from, how, to)?;
    if from == "outside" {
        ensure!(answer.server == endpoint, "{} answered", answer.server);
    }
    let on_node = |node: &str| cluster.addresses(node).is_ok_and(|own| own.has(to.ip()));
    let inside = from.split('-').next().is_some_and(on_node);
    ensure_client(cluster, from, &answer, inside && from != "outside")
}

/// A client that is not of node n1, or of no node, comes to n1 from outside; an endpoint elsewhere then sees the node.
fn may_be_hidden(from: &str, endpoint: &str, _to: SocketAddr) -> bool {
    !from.starts_with("n1") && !endpoint.starts_with("n1")
}

fn ensure_client(cluster: &Cluster, from: &str, answer: &Answer, may_be_hidden: bool) -> Result<()> {
    let seen = answer.client.ip();
    // A node speaks to pods from whichever of its addresses the route says.
    let is_node = (1..=2).any(|node| {
        [address::node(node), address::gateway(node), address::tunnel(node)].iter().any(|own| own.has(seen))
    });
    let is_own = cluster.addresses(from)?.has(seen);
    ensure!(
        is_own || ((may_be_hidden || !from.contains('-') && from != "outside") && is_node),
        "the backend saw {seen}"
    );
    Ok(())
}
