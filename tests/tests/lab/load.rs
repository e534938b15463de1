//! Policies under load: what changes elsewhere, and what others do, is nothing to a connection that is allowed.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weir_ebpf::testing::frame;
use weir_tests::cases::CAST;
use weir_tests::lab::{Cluster, Form, Wire};
use weir_tests::prober::{Command, How, Outcome};

use crate::SETTINGS;
use crate::policies::pods;
use crate::support::{ask, ensure_all_delivered, load};

const SERVER: &str = "n1-b";
const CLIENT: &str = "n1-c";
const CROWD: &str = "n1-a";
const LABELS: [(&str, &str); 5] =
    [(CROWD, "crowd"), (SERVER, "server"), (CLIENT, "client"), ("n2-a", "free"), ("n2-b", "other")];
const PORT: u16 = 8080;
const OTHER: u16 = 8081;
const FORMS: [Form; 2] = [Form::V4, Form::V6];
/// Rows for judged flows, of which a pod has a quarter at most.
const ROWS: &str = "256";
/// Flows of a flood: many times what there is room for.
const FLOOD: u16 = 2_000;
const SOCKET: u64 = 1;

/// A policy for an app: what of the client may come to it, and what may leave it for the client; `None`: that side is open.
fn policy(app: &str, ingress: bool, egress: bool) -> Value {
    let client = json!([{"podSelector": {"matchLabels": {"app": "client"}}}]);
    let ports =
        json!([{"port": PORT}, {"port": PORT, "protocol": "UDP"}, {"port": OTHER, "protocol": "UDP"}]);
    let types: Vec<_> = [(ingress, "Ingress"), (egress, "Egress")]
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| *name)
        .collect();
    let mut spec = json!({"podSelector": {"matchLabels": {"app": app}}, "policyTypes": types});
    if ingress {
        spec["ingress"] = json!([{"from": client, "ports": ports}]);
    }
    if egress {
        spec["egress"] = json!([{"to": client, "ports": ports}]);
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "lab", "name": app},
        "spec": spec,
    })
}

/// A cluster without policies.
fn cluster(arguments: &[&str]) -> Result<Cluster> {
    let mut cluster = Cluster::create(SETTINGS, &CAST)?;
    cluster.start_agents_with(arguments)?;
    cluster.apply("pods.yaml", &pods(&cluster, LABELS)?)?;
    Ok(cluster)
}

fn wire(cluster: &Cluster, name: &str) -> Result<Wire> {
    let mut pods = cluster.lab().nodes().iter().flat_map(|node| node.pods());
    let pod = pods.find(|pod| pod.place.name() == name).with_context(|| name.to_owned())?;
    Wire::open(pod.place.netns(), "eth0")
}

/// Datagrams from one pod to another, each from another port.
fn flood(cluster: &Cluster, from: &str, to: &str, port: u16) -> Result<()> {
    let (sender, receiver) = (wire(cluster, from)?, wire(cluster, to)?);
    for number in 0..FLOOD {
        let src = cluster.addresses(from)?.dial(Form::V4, 10_000 + number);
        let dst = cluster.addresses(to)?.dial(Form::V4, port);
        let datagram = frame::udp(src, dst, b"one of many");
        sender.send(&[&receiver.mac()[..], &sender.mac(), &datagram[12..]].concat())?;
    }
    Ok(())
}

fn open(cluster: &Cluster, socket: u64, to: SocketAddr) -> Result<()> {
    cluster.prober(CLIENT)?.must(Command::Open { socket, how: How::Tcp, to })
}

fn goes_on(cluster: &Cluster, from: &str, socket: u64, to: SocketAddr) -> Result<()> {
    let outcome = cluster.prober(from)?.call(Command::ExchangeLong { socket, to, padding: 50_000 })?;
    ensure!(matches!(outcome, Outcome::Answered(_)), "{from} to {to}: {outcome:?}");
    Ok(())
}

fn dropped(cluster: &mut Cluster, reason: &str) -> Result<u64> {
    cluster.agent(1)?.status()?["drops"][reason].as_u64().with_context(|| reason.to_owned())
}

/// The first policy on a pod, others that are nothing to it, and its end: no connection that is allowed before and after notices,
/// neither one that stays nor those that begin meanwhile. Whose connection is not allowed any more is told.
pub(crate) fn changes_cut_nothing_that_is_allowed() -> Result<()> {
    let mut cluster = cluster(&[])?;
    let server =
        |cluster: &Cluster, form| Ok::<_, anyhow::Error>(cluster.addresses(SERVER)?.dial(form, PORT));
    for (socket, form) in (SOCKET..).zip(FORMS) {
        let to = server(&cluster, form)?;
        open(&cluster, socket, to)?;
        goes_on(&cluster, CLIENT, socket, to)?;
        // What the server itself began: replies to it come in where its policy lets nobody begin.
        let back = cluster.addresses("n2-a")?.dial(form, PORT);
        cluster.prober(SERVER)?.must(Command::Open { socket, how: How::Tcp, to: back })?;
        goes_on(&cluster, SERVER, socket, back)?;
        cluster.prober(CROWD)?.must(Command::Open { socket, how: How::Tcp, to })?;
        goes_on(&cluster, CROWD, socket, to)?;
    }
    let bulk = cluster.prober(CLIENT)?.begin(load(How::Tcp, server(&cluster, Form::V4)?))?;
    let all = |cluster: &Cluster, when: &str| -> Result<()> {
        for (socket, form) in (SOCKET..).zip(FORMS) {
            goes_on(cluster, CLIENT, socket, server(cluster, form)?).with_context(|| when.to_owned())?;
            goes_on(cluster, SERVER, socket, cluster.addresses("n2-a")?.dial(form, PORT))
                .with_context(|| when.to_owned())?;
        }
        Ok(())
    };
    cluster.apply("server.yaml", &[policy("server", true, false)])?;
    all(&cluster, "after the first policy")?;
    for (socket, form) in (SOCKET..).zip(FORMS) {
        let to = server(&cluster, form)?;
        let outcome = cluster.prober(CROWD)?.call(Command::Exchange { socket, to })?;
        let is_told = matches!(&outcome, Outcome::Failed(failure) if failure.error == "ECONNRESET");
        ensure!(is_told, "whom the first policy denies: {outcome:?}");
    }
    for round in 0..5 {
        let other = policy(if round % 2 == 0 { "crowd" } else { "other" }, true, round % 2 == 0);
        cluster.apply("other.yaml", &[other])?;
        all(&cluster, "after a policy of others")?;
    }
    cluster.manifests.remove("server.yaml")?;
    cluster.settle()?;
    all(&cluster, "without a policy again")?;
    let report = cluster.prober(CLIENT)?.stop(bulk)?;
    ensure_all_delivered("policies", &report)
}

/// A pod that has its share of what is remembered, and more flows than that, answers all who are let in, and gets answers.
pub(crate) fn a_full_share_cuts_no_reply() -> Result<()> {
    let mut cluster = cluster(&["--max-judged", ROWS])?;
    cluster.apply("server.yaml", &[policy("server", true, false)])?;
    for (socket, form) in (SOCKET..).zip(FORMS) {
        open(&cluster, socket, cluster.addresses(SERVER)?.dial(form, PORT))?;
    }
    flood(&cluster, CLIENT, SERVER, OTHER)?;
    for (socket, form) in (SOCKET..).zip(FORMS) {
        let to = cluster.addresses(SERVER)?.dial(form, PORT);
        goes_on(&cluster, CLIENT, socket, to)?;
        for how in [How::Tcp, How::UdpConnected] {
            ask(&cluster, CLIENT, how, to).context("somebody new")?;
            let other = cluster.addresses("n2-a")?.dial(form, PORT);
            ask(&cluster, SERVER, how, other).context("what it asks itself")?;
        }
    }
    is_full(&mut cluster)?;
    // It may send nothing to them but answers.
    cluster.apply("server.yaml", &[policy("server", false, true)])?;
    flood(&cluster, CLIENT, SERVER, OTHER)?;
    for form in FORMS {
        let to = cluster.addresses(SERVER)?.dial(form, PORT);
        ask(&cluster, CROWD, How::Tcp, to).context("somebody to whom it may send nothing")?;
    }
    is_full(&mut cluster)
}

/// Of the rows of the first node the server has its share.
fn is_full(cluster: &mut Cluster) -> Result<()> {
    let rows = cluster.agent(1)?.status()?["tables"]["rows"]["judged"].as_u64().context("judged")?;
    ensure!((32..=128).contains(&rows), "{rows} rows: the flood was to fill the server's share");
    Ok(())
}

/// A pod that is isolated both ways floods: what it has no room for is dropped, and nobody else loses a row.
pub(crate) fn a_flood_evicts_nobody_elses_flows() -> Result<()> {
    let mut cluster = cluster(&["--max-judged", ROWS])?;
    cluster.apply("policies.yaml", &[policy("crowd", true, true), policy("server", true, true)])?;
    for (socket, form) in (SOCKET..).zip(FORMS) {
        let to = cluster.addresses(SERVER)?.dial(form, PORT);
        open(&cluster, socket, to)?;
        goes_on(&cluster, CLIENT, socket, to)?;
    }
    let before = dropped(&mut cluster, "judged-full")?;
    flood(&cluster, CROWD, CLIENT, OTHER)?;
    let full = dropped(&mut cluster, "judged-full")? - before;
    ensure!(full > u64::from(FLOOD) / 2, "{full} of {FLOOD} found no room");
    for (socket, form) in (SOCKET..).zip(FORMS) {
        let to = cluster.addresses(SERVER)?.dial(form, PORT);
        goes_on(&cluster, CLIENT, socket, to).context("a connection from before the flood")?;
        ask(&cluster, CLIENT, How::Tcp, to).context("a new one")?;
        ask(&cluster, CLIENT, How::UdpConnected, to).context("a new one")?;
    }
    Ok(())
}
