//! The node's own sockets: at node ports, at loopback addresses, at Service addresses that the node has itself, and those
//! that load balancers ask for its health.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use weir_tests::cases::objects;
use weir_tests::cases::spec::service;
use weir_tests::lab::{Cluster, DualStack, Form, Network, Settings, address};
use weir_tests::prober::{Command, How, Outcome};

use crate::SETTINGS;
use crate::exposed::{self, FILE};
use crate::http;
use crate::support::{ask, eventually};

const FORMS: [Form; 2] = [Form::V4, Form::V6];
const NODE_PORT: u16 = 30_080;
const LOOPBACK: DualStack =
    DualStack { v4: std::net::Ipv4Addr::LOCALHOST, v6: std::net::Ipv6Addr::LOCALHOST };

fn web(endpoint: &'static str) -> Vec<Value> {
    exposed::service(20, NODE_PORT, &service("web").to(&[endpoint]))
}

/// A process of the node does not get a node port, so that it does not wait for clients that never come; a pod does, and
/// so does anybody once the Service is gone.
pub(crate) fn node_ports_are_protected() -> Result<()> {
    let mut cluster = exposed::cluster(SETTINGS, &web("n1-b"), &[])?;
    let ways = || [How::Tcp, How::UdpConnected].into_iter().flat_map(|how| FORMS.map(|form| (how, form)));
    for (how, form) in ways() {
        let bound = bind(&cluster, "n1", how, form)?;
        let is_refused = matches!(&bound, Outcome::Failed(failure)
            if failure.error == "EADDRINUSE" && failure.at == "bind");
        ensure!(is_refused, "the node, {how}, {form}: {bound:?}");
        let bound = bind(&cluster, "n1-a", how, form)?;
        ensure!(bound == Outcome::Done, "a pod, {how}, {form}: {bound:?}");
    }
    let counted = cluster.agent(1)?.status()?["events"]["bind-refused"].as_u64();
    ensure!(counted == Some(4), "binds that were refused: {counted:?}");
    cluster.apply(FILE, &[])?;
    for (how, form) in ways() {
        let bound = bind(&cluster, "n1", how, form)?;
        ensure!(bound == Outcome::Done, "after the Service, {how}, {form}: {bound:?}");
    }
    Ok(())
}

/// Binds the node port and dials somebody from it.
fn bind(cluster: &Cluster, from: &str, how: How, form: Form) -> Result<Outcome> {
    let to = cluster.addresses("n1-c")?.dial(form, 8080);
    let prober = cluster.prober(from)?;
    let outcome = prober.call(Command::OpenFrom { socket: 1, how, to, port: NODE_PORT })?;
    prober.must(Command::Close { socket: 1 })?;
    Ok(outcome)
}

/// 127.0.0.1 and `::1` have node ports for the node's sockets, and for nobody else's.
pub(crate) fn node_ports_at_loopback() -> Result<()> {
    let mut cluster = exposed::cluster(SETTINGS, &web("n1-b"), &[])?;
    for endpoint in ["n1-b", "n2-a", "n1", "n2"] {
        cluster.apply(FILE, &web(endpoint))?;
        for (how, form) in How::ALL.into_iter().flat_map(|how| FORMS.map(|form| (how, form))) {
            let to = LOOPBACK.dial(form, NODE_PORT);
            for from in ["n1", "n2"] {
                let answer =
                    ask(&cluster, from, how, to).with_context(|| format!("{from} to {to}, {how}"))?;
                ensure!(answer.server == endpoint, "{from} to {to}: {} answered", answer.server);
                ensure!(answer.peer.is_none_or(|peer| peer == to), "{answer:?}");
            }
            let outcome = cluster.prober("n1-a")?.call(Command::Ask { how, to })?;
            ensure!(matches!(outcome, Outcome::Failed(_)), "a pod's own {to}: {outcome:?}");
        }
    }
    Ok(())
}

/// `healthCheckNodePort`, `/healthz` and `/livez`, as load balancers ask for them.
pub(crate) fn health() -> Result<()> {
    const CHECK: u16 = 32_000;
    let objects = exposed::with(web("n1-b"), "externalTrafficPolicy", "Local");
    let objects = exposed::with(objects, "healthCheckNodePort", CHECK);
    let mut cluster = exposed::cluster(SETTINGS, &objects, &[])?;
    for node in [1, 2] {
        for to in address::node(node).both() {
            ensure_health(&cluster, (to, CHECK).into(), u64::from(node == 1))?;
        }
        for path in ["/healthz", "/livez"] {
            let to = SocketAddr::new(address::node(node).v4.into(), 10256);
            let response = http::get(cluster.lab().client(), to, path)?;
            ensure!(response.status == 200, "{path}: {response:?}");
            let body: Value = serde_json::from_str(&response.body)?;
            ensure!(body["lastUpdated"].is_string() && body["currentTime"].is_string(), "{body}");
            ensure!(body["nodeEligible"].is_null() == (path == "/livez"), "{path}: {body}");
        }
    }
    // The endpoint moves: so do the answers.
    let objects = exposed::with(web("n2-a"), "externalTrafficPolicy", "Local");
    cluster.apply(FILE, &exposed::with(objects, "healthCheckNodePort", CHECK))?;
    for node in [1, 2] {
        ensure_health(&cluster, (address::node(node).v4, CHECK).into(), u64::from(node == 2))?;
    }
    cluster.apply(FILE, &[])?;
    eventually("the port is open after its Service", || {
        Ok(http::get(cluster.lab().client(), (address::node(1).v4, CHECK).into(), "/").err())
    })
    .map(drop)
}

fn ensure_health(cluster: &Cluster, to: SocketAddr, endpoints: u64) -> Result<()> {
    let response = http::get(cluster.lab().client(), to, "/").with_context(|| cluster.logs())?;
    let wanted = json!({
        "service": { "namespace": "lab", "name": "web" },
        "localEndpoints": endpoints,
        "serviceProxyHealthy": true,
    });
    let status = if endpoints > 0 { 200 } else { 503 };
    ensure!(response.status == status, "{to}: {response:?}");
    ensure!(serde_json::from_str::<Value>(&response.body)? == wanted, "{to}: {response:?}");
    let weight = format!("x-load-balancing-endpoint-weight: {endpoints}");
    ensure!(response.head.contains(&weight), "{to}: {response:?}");
    Ok(())
}

/// A Service address that the node itself has, as NodeLocal DNS gives it: whatever listens there answers the node and its
/// pods, and where nothing listens the Service does.
pub(crate) fn service_address_of_the_node() -> Result<()> {
    const NUMBER: u8 = 40;
    for socket_lb in ["all", "node"] {
        let own = address::service(NUMBER);
        let objects = objects::of_service(&service("dns").to(&["n2-a"]), "lab", own);
        let settings = Settings { network: Network::Routed, ..SETTINGS };
        let cluster = exposed::cluster(settings, &objects, &["--socket-lb", socket_lb])?;
        let node = cluster.lab().nodes()[0].place().netns();
        node.ip(&[
            "link add nodelocaldns type bridge".into(),
            "link set nodelocaldns up".into(),
            format!("addr add {}/32 dev nodelocaldns", own.v4),
            format!("addr add {}/128 dev nodelocaldns nodad", own.v6),
        ])?;
        ensure_who(&cluster, own, &[("n1", "n2-a"), ("n1-a", "n2-a"), ("n2-b", "n2-a")])
            .with_context(|| format!("--socket-lb {socket_lb}, nobody listens"))?;
        cluster.prober("n1")?.serve("cache", &own.both().map(|own| SocketAddr::new(own, 80)))?;
        ensure_who(&cluster, own, &[("n1", "cache"), ("n1-a", "cache"), ("n2-b", "n2-a")])
            .with_context(|| format!("--socket-lb {socket_lb}, a cache listens"))?;
    }
    Ok(())
}

/// Who answers whom, once the agent knows of the address.
fn ensure_who(cluster: &Cluster, own: DualStack, rows: &[(&str, &str)]) -> Result<()> {
    for ((from, server), (how, form)) in
        rows.iter().flat_map(|row| How::ALL.iter().flat_map(move |how| FORMS.map(|form| (row, (*how, form)))))
    {
        let mut last = None;
        let found = eventually("another answers", || {
            last = Some(cluster.prober(from)?.call(Command::Ask { how, to: own.dial(form, 80) })?);
            Ok(matches!(&last, Some(Outcome::Answered(answer)) if answer.server == *server).then_some(()))
        });
        if let Err(error) = found {
            bail!("{from}, {how}, {form}: {server} does not answer ({error:#}): {last:?}");
        }
    }
    Ok(())
}
