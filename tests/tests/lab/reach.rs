//! Everybody reaches every kind of address, whatever else is on the node: the per-packet path with real sockets.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, bail, ensure};
use weir_agent::kernel::pass_at_xdp;
use weir_tests::cases::CAST;
use weir_tests::cases::spec::service;
use weir_tests::lab::{Cluster, Form, Neighbour, Network, Settings, address};
use weir_tests::prober::{Answer, Command, How, Outcome};

use crate::exposed::{self, CLUSTER_IP};
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
pub(crate) const SCENES: [Scene; 11] = [
    scene("routed"),
    Scene { arguments: &["--xdp", "native"], ..scene("routed-xdp-native") },
    Scene { arguments: &["--xdp", "generic"], ..scene("routed-xdp-generic") },
    Scene { network: Network::Overlay, arguments: &["--xdp", "generic"], ..scene("overlay-xdp-generic") },
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
    if scene.xdp().is_some() {
        cluster.lab().ensure_no_offload()?;
    }
    let mut objects = Vec::new();
    for (number, (name, endpoint, node_port)) in (20..).zip(SERVICES) {
        objects.extend(exposed::service(number, node_port, &service(name).to(&[endpoint])));
    }
    let local = service(LOCAL.0).to(&["n1-b", "n2-a"]);
    objects.extend(exposed::with(exposed::service(23, LOCAL.1, &local), "externalTrafficPolicy", "Local"));
    cluster.manifests.replace_objects("exposed.yaml", &objects)?;
    cluster.start_agents_with(scene.arguments)?;
    cluster.settle()?;
    Ok(cluster)
}

/// Who asks.
const CLIENTS: [&str; 4] = ["outside", "n1-a", "n1", "n2-b"];

/// Everything in one scene.
pub(crate) fn everybody_reaches_everything(scene: &Scene) -> Result<()> {
    let mut cluster = cluster(scene)?;
    let _held = if scene.xdp().is_some() { hold_wires(&cluster)? } else { Vec::new() };
    let mut asked = 0;
    let mut wrong = Vec::new();
    for (number, (name, endpoint, node_port)) in (20..).zip(SERVICES) {
        for (kind, addresses, port) in exposed::addresses(number, node_port) {
            for (from, how, form) in askers() {
                let to = addresses.dial(form, port);
                asked += 1;
                let view = View { scene, from, endpoint, kind };
                if let Err(error) = view.ask(&cluster, how, to) {
                    wrong.push(format!("{from} -> {name} by {kind} {to}, {how}: {error:#}"));
                }
            }
        }
    }
    for (from, how, form) in askers() {
        for (node, endpoint) in [(1, "n1-b"), (2, "n2-a")] {
            let to = address::node(node).dial(form, LOCAL.1);
            asked += 1;
            if let Err(error) = ask_local(scene, &cluster, from, how, to, endpoint) {
                wrong.push(format!("{from} -> local {to}, {how}: {error:#}"));
            }
        }
    }
    println!("figure lab.reach.{} {}/{asked}", scene.name, asked - wrong.len());
    ensure!(wrong.is_empty(), "{} of {asked}:\n{}\n{}", wrong.len(), wrong.join("\n"), cluster.logs());
    if let Some(mode) = scene.xdp() {
        ensure_xdp(&mut cluster, scene, mode)?;
    }
    Ok(())
}

/// A veth takes what the XDP program of its peer sends only with a program of its own, as these have while they are held.
fn hold_wires(cluster: &Cluster) -> Result<Vec<OwnedFd>> {
    cluster.lab().router().netns().enter(|| {
        let ports = ["node1", "node2"].into_iter();
        ports.map(|port| Ok(pass_at_xdp(nix::net::if_::if_nametoindex(port)?)?)).collect()
    })
}

/// The program is where it should be, nobody complains, and packets went by it.
fn ensure_xdp(cluster: &mut Cluster, scene: &Scene, mode: &str) -> Result<()> {
    let agent = cluster.agent(1)?;
    let status = agent.status()?;
    let hook = format!("weir_xdp_{mode}");
    let attached = status["device_hooks"].as_array().context("no hooks on devices")?;
    ensure!(attached.iter().any(|entry| entry["hook"] == hook.as_str()), "no {hook} in {attached:?}");
    let problems = agent.problems()?;
    ensure!(problems.is_empty(), "{problems:?}");
    let packets = status["events"]["packet-xdp"].as_u64().context("no counter packet-xdp")?;
    println!("figure lab.reach.{}.packets {packets}", scene.name);
    ensure!(packets > 0, "no packet went on at XDP: {}", status["events"]);
    Ok(())
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

/// Who asks whom, by what kind of address.
struct View<'a> {
    scene: &'a Scene,
    from: &'a str,
    endpoint: &'a str,
    kind: &'a str,
}

impl View<'_> {
    fn ask(&self, cluster: &Cluster, how: How, to: SocketAddr) -> Result<()> {
        let answer = ask(cluster, self.from, how, to)?;
        ensure!(answer.server == self.endpoint, "{} answered", answer.server);
        ensure_client(cluster, self.from, &answer, self.may_be_hidden())
    }

    /// Whether the endpoint may see a node where the client is.
    fn may_be_hidden(&self) -> bool {
        let (from_n1, is_near) = (self.from.starts_with("n1"), self.endpoint.starts_with("n1"));
        // All but ClusterIPs lead to n1. Who comes to it from elsewhere is hidden from an endpoint that is not there.
        let by_n1 = self.from == "outside" || self.kind != CLUSTER_IP;
        let by_us = by_n1 && !from_n1 && !is_near;
        // A pod that speaks to what is no pod is masqueraded by such neighbours; a ClusterIP is a pod by then.
        let by_neighbour = self.scene.masquerades()
            && self.from.contains('-')
            && !from_n1
            && (self.kind != CLUSTER_IP || self.endpoint == "n1");
        by_us || by_neighbour
    }
}

impl Scene {
    /// What `--xdp` says.
    fn xdp(&self) -> Option<&'static str> {
        match self.arguments {
            ["--xdp", mode, ..] => Some(mode),
            _ => None,
        }
    }

    /// Whether somebody hides pods from what is no pod.
    fn masquerades(&self) -> bool {
        let masquerade = [Neighbour::Flannel, Neighbour::Kindnet];
        self.neighbours.iter().any(|neighbour| masquerade.contains(neighbour))
    }
}

/// Policy Local: the node's own endpoint for who is outside, any for who is inside.
fn ask_local(
    scene: &Scene,
    cluster: &Cluster,
    from: &str,
    how: How,
    to: SocketAddr,
    endpoint: &str,
) -> Result<()> {
    let answer = ask(cluster, from, how, to)?;
    if from == "outside" {
        ensure!(answer.server == endpoint, "{} answered", answer.server);
    }
    let on_node = |node: &str| cluster.addresses(node).is_ok_and(|own| own.has(to.ip()));
    let leaves_its_node = from.contains('-') && !from.split('-').next().is_some_and(on_node);
    ensure_client(cluster, from, &answer, leaves_its_node && scene.masquerades())
}

/// The backend saw the client, or a node where that may be. A node speaks to pods from whichever of its addresses the
/// route says.
fn ensure_client(cluster: &Cluster, from: &str, answer: &Answer, may_be_hidden: bool) -> Result<()> {
    let seen = answer.client.ip();
    let of_nodes =
        (1..=2).flat_map(|node| [address::node(node), address::gateway(node), address::tunnel(node)]);
    let is_node = of_nodes.into_iter().any(|own| own.has(seen));
    let from_node = from == "n1" || from == "n2";
    let is_own = cluster.addresses(from)?.has(seen);
    ensure!(is_own || (is_node && (may_be_hidden || from_node)), "the backend saw {seen}");
    Ok(())
}
