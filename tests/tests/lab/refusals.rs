//! Who is not served is told so where kube-proxy would tell, and each reason is counted under its name.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weir_tests::cases::spec::service;
use weir_tests::lab::{Cluster, DualStack, Form, address};
use weir_tests::prober::{Command, How, Outcome};

use crate::SETTINGS;
use crate::{exposed, http};

const FORMS: [Form; 2] = [Form::V4, Form::V6];
const METRICS: &str = "127.0.0.1:9964";

/// What a client outside sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    Answer,
    Refused,
    /// Nothing at all.
    Silence,
}

/// A destination, what must be seen there, and the counter that says why.
type Row = (&'static str, DualStack, u16, Seen, Option<&'static str>);

/// Node ports: nobody's, the other node's, those with and without the client in their ranges.
const EMPTY: u16 = 30_080;
const ELSEWHERE: u16 = 30_081;
const CLOSED: u16 = 30_082;
const OPEN: u16 = 30_083;
const HALF: u16 = 30_084;

fn objects() -> Vec<Value> {
    let local = service("elsewhere").to(&["n2-a"]);
    let ranged = |number, port, name, ranges: &[&str]| {
        let objects = exposed::service(number, port, &service(name).to(&["n1-b"]));
        exposed::with(objects, "loadBalancerSourceRanges", json!(ranges))
    };
    [
        exposed::service(20, EMPTY, &service("empty")),
        exposed::with(exposed::service(21, ELSEWHERE, &local), "externalTrafficPolicy", "Local"),
        ranged(22, CLOSED, "closed", &["192.0.2.0/24", "2001:db8:ffff::/48"]),
        ranged(23, OPEN, "open", &["203.0.113.0/24", "2001:db8:113::/64"]),
        ranged(24, HALF, "half", &["192.0.2.0/24"]),
    ]
    .concat()
}

fn rows() -> Vec<Row> {
    use Seen::{Answer, Refused, Silence};
    let node = address::node(1);
    vec![
        ("no endpoint, node port", node, EMPTY, Refused, Some("no-endpoint")),
        ("no endpoint, load balancer", address::balancer(20), 80, Refused, Some("no-endpoint")),
        ("no endpoint, external IP", address::external(20), 80, Refused, Some("no-endpoint")),
        ("no endpoint, ClusterIP", address::service(20), 80, Refused, Some("no-endpoint")),
        ("no such port, ClusterIP", address::service(22), 81, Refused, Some("unknown-port")),
        ("no local endpoint, node port", node, ELSEWHERE, Silence, Some("no-local-endpoint")),
        ("no local endpoint, load balancer", address::balancer(21), 80, Silence, Some("no-local-endpoint")),
        ("the other node has one", address::node(2), ELSEWHERE, Answer, None),
        ("not in the ranges", address::balancer(22), 80, Silence, Some("source-range")),
        ("ranges are load balancers'", node, CLOSED, Answer, None),
        ("in the ranges", address::balancer(23), 80, Answer, None),
        ("nobody's Service address", address::service(99), 80, Silence, Some("unknown-address")),
    ]
}

/// Each of them over TCP and UDP, in both families, from outside.
pub(crate) fn from_outside() -> Result<()> {
    let arguments = ["--service-cidrs", "10.96.0.0/24,fd00:10:96::/120"];
    let mut cluster = exposed::cluster(SETTINGS, &objects(), &arguments)?;
    for (what, own, port, seen, reason) in rows() {
        for (how, form) in
            [How::Tcp, How::UdpConnected].into_iter().flat_map(|how| FORMS.map(|form| (how, form)))
        {
            let to = own.dial(form, port);
            check(&mut cluster, how, to, seen, reason).with_context(|| format!("{what}: {how} to {to}"))?;
        }
    }
    // Ranges of one family say nothing of the other.
    for (form, seen) in [(Form::V4, Seen::Silence), (Form::V6, Seen::Answer)] {
        let to = address::balancer(24).dial(form, 80);
        check(&mut cluster, How::Tcp, to, seen, None).context("ranges of IPv4 alone")?;
    }
    inside_the_same(&cluster)?;
    in_metrics(&mut cluster)
}

fn check(cluster: &mut Cluster, how: How, to: SocketAddr, seen: Seen, reason: Option<&str>) -> Result<()> {
    let before = reason.map(|reason| drops(cluster, reason)).transpose()?;
    let outcome = cluster.prober("outside")?.call(Command::Ask { how, to })?;
    let is_seen = match (&outcome, seen) {
        (Outcome::Answered(_), Seen::Answer) => true,
        (Outcome::Failed(failure), Seen::Refused) => failure.error == "ECONNREFUSED",
        (Outcome::Failed(failure), Seen::Silence) => failure.error == "no answer in time",
        _ => false,
    };
    ensure!(is_seen, "{outcome:?} instead of {seen:?}");
    if let (Some(reason), Some(before)) = (reason, before) {
        let after = drops(cluster, reason)?;
        ensure!(after > before, "{reason} is {after} after {before}");
    }
    Ok(())
}

fn drops(cluster: &mut Cluster, reason: &str) -> Result<u64> {
    let status = cluster.agent(1)?.status()?;
    status["drops"][reason].as_u64().with_context(|| format!("`weir status` does not know {reason}"))
}

/// Pods and nodes are no exception from source ranges; they are told at the socket.
fn inside_the_same(cluster: &Cluster) -> Result<()> {
    for from in ["n1-a", "n2-b", "n1"] {
        for form in FORMS {
            let to = address::balancer(22).dial(form, 80);
            let outcome = cluster.prober(from)?.call(Command::Ask { how: How::Tcp, to })?;
            let is_told = matches!(&outcome, Outcome::Failed(failure) if failure.error == "EHOSTUNREACH");
            ensure!(is_told, "{from} to {to}, which is not in the ranges: {outcome:?}");
        }
    }
    Ok(())
}

/// What `weir status` counts is in the metrics, too.
fn in_metrics(cluster: &mut Cluster) -> Result<()> {
    let metrics = http::get(cluster.lab().nodes()[0].place(), METRICS.parse()?, "/metrics")?.body;
    let reasons = ["no-endpoint", "unknown-port", "no-local-endpoint", "source-range", "unknown-address"];
    for reason in reasons {
        let line = format!("weir_drops_total{{reason=\"{reason}\"}} {}", drops(cluster, reason)?);
        ensure!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    Ok(())
}
