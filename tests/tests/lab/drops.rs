//! `weir drops`: who was denied what, and by which policies, in the names of the cluster.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use weir_tests::lab::{Cluster, Form};
use weir_tests::prober::{Command, How, Outcome};

use crate::policies::{FORMS, LABELS, OPEN, pods, policy, silent};
use crate::support::{cluster, eventually};

/// A denied question, and what is to be said of it.
struct Denied {
    from: &'static str,
    to: &'static str,
    /// The node that denies it.
    node: u8,
    direction: &'static str,
    policies: &'static [&'static str],
}

const INGRESS: [Denied; 3] = [
    Denied { from: "n1-c", to: "n1-b", node: 1, direction: "ingress", policies: &["lab/servers"] },
    Denied { from: "n1-c", to: "n2-a", node: 2, direction: "ingress", policies: &["lab/servers"] },
    Denied { from: "outside", to: "n1-b", node: 1, direction: "ingress", policies: &["lab/servers"] },
];

const EGRESS: [Denied; 2] = [
    Denied { from: "n1-a", to: "n1-c", node: 1, direction: "egress", policies: &["lab/silent"] },
    Denied { from: "n2-b", to: "outside", node: 2, direction: "egress", policies: &["lab/silent"] },
];

/// The pod in a place of the lab.
fn pod(place: &str) -> Option<String> {
    place.contains('-').then(|| format!("lab/{place}"))
}

fn records(cluster: &mut Cluster, node: u8, arguments: &[&str]) -> Result<Vec<Value>> {
    let printed = cluster.agent(node)?.drops(&[&["--json"], arguments].concat())?;
    let printed = printed.map_err(|said| anyhow::anyhow!("weir drops: {said}"))?;
    printed.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn is_of(record: &Value, how: How, from: IpAddr, to: SocketAddr) -> bool {
    let protocol = if how == How::Tcp { "TCP" } else { "UDP" };
    record["protocol"] == protocol
        && record["src"]["addr"] == from.to_string()
        && record["dst"]["addr"] == to.ip().to_string()
        && record["dst"]["port"] == to.port()
}

/// Asks, is not answered, and finds it said why.
fn check(cluster: &mut Cluster, denied: &Denied) -> Result<()> {
    for form in FORMS {
        for how in [How::Tcp, How::UdpUnconnected] {
            let from = cluster.addresses(denied.from)?.dial(form, OPEN).ip();
            let to = cluster.addresses(denied.to)?.dial(form, OPEN);
            let outcome = cluster.prober(denied.from)?.call(Command::Ask { how, to })?;
            ensure!(!matches!(outcome, Outcome::Answered(_)), "{} reaches {to}", denied.from);
            let record = eventually(&format!("a drop from {from} to {to} ({how})"), || {
                let records = records(cluster, denied.node, &[])?;
                Ok(records.into_iter().rfind(|record| is_of(record, how, from, to)))
            })?;
            check_record(denied, &record).with_context(|| record.to_string())?;
        }
    }
    Ok(())
}

fn check_record(denied: &Denied, record: &Value) -> Result<()> {
    let said = |value: &Value| value.as_str().map(str::to_owned);
    ensure!(record["verdict"] == "drop");
    ensure!(record["reason"] == format!("policy-{}", denied.direction));
    ensure!(record["direction"] == denied.direction);
    ensure!(said(&record["src"]["pod"]) == pod(denied.from));
    ensure!(said(&record["dst"]["pod"]) == pod(denied.to));
    let isolated = if denied.direction == "ingress" { denied.to } else { denied.from };
    ensure!(said(&record["pod"]) == pod(isolated));
    let policies: Vec<&str> =
        record["policies"].as_array().into_iter().flatten().flat_map(Value::as_str).collect();
    ensure!(policies == denied.policies, "policies");
    let why = record["why"].as_str().context("why")?;
    ensure!(denied.policies.iter().all(|name| why.contains(name)), "why");
    Ok(())
}

/// Denied in both directions, both families, by name; also what was denied while no agent ran.
pub(crate) fn by_name() -> Result<()> {
    let mut cluster = cluster()?;
    cluster.apply("pods.yaml", &pods(&cluster, LABELS)?)?;
    let early = records(&mut cluster, 1, &["policy-"])?;
    ensure!(early.is_empty(), "nothing was denied yet: {early:?}");
    cluster.apply("policy.yaml", &[policy("client", &[])])?;
    for denied in &INGRESS {
        check(&mut cluster, denied)?;
    }
    cluster.apply("silent.yaml", &[silent("client")])?;
    for denied in &EGRESS {
        check(&mut cluster, denied)?;
    }
    ensure!(!records(&mut cluster, 1, &["lab/silent"])?.is_empty());
    ensure!(records(&mut cluster, 1, &["lab/nobody"])?.is_empty());
    let text = cluster.agent(1)?.drops(&["lab/silent"])?;
    let text = text.map_err(|said| anyhow::anyhow!("weir drops: {said}"))?;
    ensure!(text.contains("lab/n1-a is isolated for egress by lab/silent; none allows it"), "{text}");
    meanwhile(&mut cluster)?;
    watched(&mut cluster)
}

/// What a policy would deny that is only watched: it passes, and is told by the policy's name.
fn watched(cluster: &mut Cluster) -> Result<()> {
    let mut watched = policy("client", &[]);
    watched["metadata"]["name"] = "watched".into();
    watched["metadata"]["annotations"] = serde_json::json!({"weir.dev/policy-mode": "audit"});
    cluster.manifests.remove("silent.yaml")?;
    cluster.apply("policy.yaml", &[watched])?;
    for form in FORMS {
        for how in [How::Tcp, How::UdpUnconnected] {
            let from = cluster.addresses("n1-c")?.dial(form, OPEN).ip();
            let to = cluster.addresses("n1-b")?.dial(form, OPEN);
            let outcome = cluster.prober("n1-c")?.call(Command::Ask { how, to })?;
            ensure!(matches!(outcome, Outcome::Answered(_)), "{to} is only watched: {outcome:?}");
            let record = eventually(&format!("what would be dropped from {from} to {to} ({how})"), || {
                let records = records(cluster, 1, &["would-drop"])?;
                Ok(records.into_iter().find(|record| is_of(record, how, from, to)))
            })?;
            let said = (&record["verdict"], &record["reason"], &record["policies"][0]);
            ensure!(
                said == (&"would-drop".into(), &"policy-ingress".into(), &"lab/watched".into()),
                "{record}"
            );
        }
    }
    Ok(())
}

/// While no agent runs the hooks tell all the same, and the next one says it.
fn meanwhile(cluster: &mut Cluster) -> Result<()> {
    cluster.agent(1)?.kill()?;
    match cluster.agent(1)?.drops(&[])? {
        Err(said) => ensure!(said.contains("no agent runs"), "{said}"),
        Ok(printed) => bail!("nobody runs who could say: {printed}"),
    }
    let (from, to) = ("n1-c", cluster.addresses("n1-b")?.dial(Form::V4, OPEN));
    let outcome = cluster.prober(from)?.call(Command::Ask { how: How::Tcp, to })?;
    ensure!(!matches!(outcome, Outcome::Answered(_)), "{from} reaches {to} while no agent runs");
    let agent = cluster.agent(1)?;
    agent.start()?;
    agent.wait_ready()?;
    let from = cluster.addresses(from)?.dial(Form::V4, OPEN).ip();
    let record = eventually("a drop from before the agent", || {
        let records = records(cluster, 1, &[])?;
        Ok(records.into_iter().find(|record| is_of(record, How::Tcp, from, to)))
    })?;
    ensure!(record["policies"][0] == "lab/servers", "{record}");
    Ok(())
}
