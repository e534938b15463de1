//! NetworkPolicies through agents, with real sockets: directly and through Services, on this node and the other, from pods,
//! nodes and outside.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weir_tests::cases::{CAST, spec::service};
use weir_tests::lab::cluster::PORTS;
use weir_tests::lab::{Cluster, DualStack, Form, address};
use weir_tests::prober::{Command, How, Outcome};

use crate::support::{ask, cluster};
use crate::{SETTINGS, exposed};

pub(crate) const FORMS: [Form; 2] = [Form::V4, Form::V6];
const NUMBER: u8 = 30;
const NODE_PORT: u16 = 30_090;
pub(crate) const OPEN: u16 = PORTS[0];
const OTHER: u16 = PORTS[1];

/// Who is what: servers on both nodes, clients on both, and somebody else.
pub(crate) const LABELS: [(&str, &str); 5] =
    [("n1-a", "client"), ("n1-b", "server"), ("n1-c", "other"), ("n2-a", "server"), ("n2-b", "client")];

/// Who dials what; whether that passes.
type Row = (&'static str, To, bool);

/// What is dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum To {
    /// A pod at the port that is allowed.
    Pod(&'static str),
    /// A pod at the other.
    Other(&'static str),
    /// The Service of both servers.
    Service,
    /// Its node port on the first node.
    NodePort,
}

/// The pods of the cast, each with its label, and their namespace.
pub(crate) fn pods(cluster: &Cluster, labels: [(&str, &str); 5]) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for ((name, app), (node, _)) in labels.into_iter().zip(CAST) {
        let DualStack { v4, v6 } = cluster.addresses(name)?;
        objects.push(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": "lab", "name": name, "labels": {"app": app}},
            "spec": {"nodeName": format!("n{node}"), "containers": []},
            "status": {"phase": "Running", "podIPs": [{"ip": v4}, {"ip": v6}]},
        }));
    }
    objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab"}}));
    Ok(objects)
}

/// Servers take the pods of a label, and these networks, at one port.
pub(crate) fn policy(app: &str, networks: &[&str]) -> Value {
    let clients = json!({"podSelector": {"matchLabels": {"app": app}}});
    let blocks = networks.iter().map(|cidr| json!({"ipBlock": {"cidr": cidr}}));
    let from: Vec<Value> = std::iter::once(clients).chain(blocks).collect();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "lab", "name": "servers"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"from": from, "ports": [{"port": OPEN}, {"port": OPEN, "protocol": "UDP"}]}],
        },
    })
}

/// The pods of a label send nothing.
pub(crate) fn silent(app: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "lab", "name": "silent"},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Egress"]},
    })
}

fn rows(outside: bool) -> Vec<Row> {
    use To::{NodePort, Other, Pod, Service};
    vec![
        ("n1-a", Pod("n1-b"), true),
        ("n1-a", Other("n1-b"), false),
        ("n1-a", Pod("n2-a"), true),
        ("n1-a", Service, true),
        ("n1-a", Pod("n1-c"), true),
        ("n2-b", Pod("n1-b"), true),
        ("n2-b", Service, true),
        ("n2-b", Other("n2-a"), false),
        ("n1-c", Pod("n1-b"), false),
        ("n1-c", Pod("n2-a"), false),
        ("n1-c", Service, false),
        ("n1-b", Pod("n1-c"), true),
        ("n1-b", Pod("n2-a"), false),
        ("n1", Other("n1-b"), true),
        ("n1", Pod("n2-a"), false),
        ("outside", Pod("n1-b"), outside),
        ("outside", NodePort, outside),
    ]
}

fn dialled(cluster: &Cluster, to: To, form: Form) -> Result<SocketAddr> {
    let (addresses, port) = match to {
        To::Pod(name) => (cluster.addresses(name)?, OPEN),
        To::Other(name) => (cluster.addresses(name)?, OTHER),
        To::Service => (address::service(NUMBER), 80),
        To::NodePort => (address::node(1), NODE_PORT),
    };
    Ok(addresses.dial(form, port))
}

fn check(cluster: &Cluster, rows: &[Row]) -> Result<usize> {
    let mut asked = 0;
    for &(from, to, passes) in rows {
        for form in FORMS {
            let at = dialled(cluster, to, form)?;
            for how in [How::Tcp, How::UdpUnconnected] {
                let outcome = cluster.prober(from)?.call(Command::Ask { how, to: at })?;
                let answered = matches!(outcome, Outcome::Answered(_));
                ensure!(answered == passes, "{from} to {to:?} ({at}, {how}): {outcome:?}, expected {passes}");
                asked += 1;
            }
        }
    }
    Ok(asked)
}

/// The local backend alone where packets from outside count, so that its policy sees who they are from.
fn objects() -> Vec<Value> {
    let spec = service("servers").to(&["n1-b", "n2-a"]);
    exposed::with(exposed::service(NUMBER, NODE_PORT, &spec), "externalTrafficPolicy", "Local")
}

/// Everybody to everything, before policies, under them, and when they change; with the agents killed as well.
pub(crate) fn everybody_by_policies() -> Result<()> {
    let mut cluster = cluster()?;
    cluster.apply("pods.yaml", &pods(&cluster, LABELS)?)?;
    cluster.apply("service.yaml", &objects())?;
    let all: Vec<Row> = rows(true).into_iter().map(|(from, to, _)| (from, to, true)).collect();
    let mut asked = check(&cluster, &all).context("without policies")?;
    cluster.apply("policy.yaml", &[policy("client", &[])])?;
    asked += check(&cluster, &rows(false)).context("for clients alone")?;
    cluster.apply("policy.yaml", &[policy("client", &["203.0.113.0/24", "2001:db8:113::/64"])])?;
    asked += check(&cluster, &rows(true)).context("with networks")?;
    for node in [1, 2] {
        let agent = cluster.agent(node)?;
        ensure!(agent.problems()?.is_empty(), "{:?}", agent.problems()?);
        agent.kill()?;
    }
    asked += check(&cluster, &rows(true)).context("while no agent runs")?;
    for node in [1, 2] {
        let agent = cluster.agent(node)?;
        agent.start()?;
        agent.wait_ready()?;
    }
    asked += check(&cluster, &rows(true)).context("with other agents")?;
    cluster.apply("silent.yaml", &[silent("client")])?;
    let (client, to) = ("n1-a", To::Pod("n1-c"));
    asked += check(&cluster, &[(client, to, false), (client, To::Service, false)]).context("silent")?;
    cluster.manifests.remove("silent.yaml")?;
    cluster.manifests.remove("policy.yaml")?;
    cluster.settle()?;
    asked += check(&cluster, &all).context("without policies again")?;
    println!("figure lab.netpol {asked}/{asked}");
    Ok(())
}

/// A connection outlives what is nothing to it, and ends with what allowed it, directly and through Services, from pods and
/// from outside: its client is told.
pub(crate) fn connections_end_with_what_allowed_them() -> Result<()> {
    let outside = ["203.0.113.0/24", "2001:db8:113::/64"];
    let mut cluster = Cluster::create(SETTINGS, &CAST)?;
    cluster.start_agents()?;
    cluster.apply("pods.yaml", &pods(&cluster, LABELS)?)?;
    cluster.apply("service.yaml", &objects())?;
    cluster.apply("policy.yaml", &[policy("client", &outside)])?;
    let clients = [("n1-a", To::Pod("n2-a")), ("n1-a", To::Service), ("outside", To::NodePort)];
    let mut sockets = Vec::new();
    for (number, ((from, to), form)) in
        (1..).zip(clients.into_iter().flat_map(|client| FORMS.map(|form| (client, form))))
    {
        let at = dialled(&cluster, to, form)?;
        ask(&cluster, from, How::Tcp, at)?;
        cluster.prober(from)?.must(Command::Open { socket: number, how: How::Tcp, to: at })?;
        sockets.push((number, from, at));
    }
    let exchange = |cluster: &Cluster, (socket, from, to): (u64, &str, SocketAddr)| {
        cluster.prober(from)?.call(Command::Exchange { socket, to })
    };
    for change in ["192.0.2.0/24", "198.51.100.0/24"] {
        for &socket in &sockets {
            ensure!(
                matches!(exchange(&cluster, socket)?, Outcome::Answered(_)),
                "{socket:?} before {change}"
            );
        }
        cluster.apply("policy.yaml", &[policy("client", &[outside[0], outside[1], change])])?;
    }
    cluster.apply("policy.yaml", &[policy("nobody", &[])])?;
    for &socket in &sockets {
        let outcome = exchange(&cluster, socket)?;
        let is_told = matches!(&outcome, Outcome::Failed(failure) if failure.error == "ECONNRESET");
        ensure!(is_told, "{socket:?}, revoked: {outcome:?}");
    }
    Ok(())
}
