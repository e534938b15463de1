//! `cargo xtask cluster check`: what Services promise, on the real cluster, from pods, from nodes and from outside.
//!
//! Servers and clients are agnhost's `netexec`, which Kubernetes' own suite uses: an HTTP server and a UDP server that
//! tell their pod's name or their client's address, and that dial others when they are asked to.

mod clients;
mod objects;
mod restart;
mod services;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use self::clients::{Answers, Client, Request};
use self::services::{Port, Served};
use super::kubectl::{Kubectl, wait_for};
use super::plan::{EXTERNAL, Room};
use crate::shell::{Style, announce};

/// Everything is in this namespace.
const NAMESPACE: &str = "weir-check";
/// Until all pods are there.
const PODS_TIMEOUT: Duration = Duration::from_secs(120);
/// Until a change has reached the nodes, and their agents.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections in which one of three backends that are chosen at random stays away once in 3,000,000 times.
const MANY: u32 = 40;

/// One promise: what it is, and whether it is kept.
type Finding = (String, Result<()>);

/// Runs all; says each, and fails if one is not as promised.
pub(super) fn run(kubectl: &Kubectl, agnhost: &str) -> Result<()> {
    announce(&format!("servers and clients in the namespace {NAMESPACE}"));
    objects::make(kubectl, agnhost)?;
    let clients = clients::find(kubectl)?;
    let served = services::find(kubectl)?;
    let mut findings = vec![api_server(kubectl, &clients)];
    for client in &clients {
        findings.extend(reach(kubectl, client, &served));
    }
    findings.extend(keep_client(kubectl, &clients, &served));
    findings.extend(refuse(kubectl, &clients, &served));
    findings.extend(follow_change(kubectl, &clients, &served));
    findings.push(restart::survive(kubectl, &clients, &served));
    let failed = report(&findings);
    objects::remove(kubectl)?;
    ensure!(failed == 0, "{failed} of {} promises are not kept", findings.len());
    println!("{} of {} promises are kept", findings.len(), findings.len());
    Ok(())
}

fn report(findings: &[Finding]) -> usize {
    let style = Style::of(&std::io::stdout());
    for (what, result) in findings {
        match result {
            Ok(()) => println!("{}  {what}", style.good("ok")),
            Err(error) => println!("{}  {what}: {error:#}", style.bad("no")),
        }
    }
    findings.iter().filter(|(_, result)| result.is_err()).count()
}

/// The API server's own Service, from pods on every node: with TLS, by the certificate that is in every pod.
fn api_server(kubectl: &Kubectl, clients: &[Client]) -> Finding {
    let request = || {
        let address = kubectl.get(&["--namespace=default", "service", "kubernetes"])?;
        let address = address["spec"]["clusterIP"].as_str().context("it has no address")?.to_owned();
        for pod in clients.iter().filter_map(Client::pod) {
            let url = format!("https://{address}/version");
            let authority = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
            let curl = ["curl", "--silent", "--show-error", "--max-time", "5", "--cacert", authority, &url];
            let namespace = format!("--namespace={NAMESPACE}");
            let answer = kubectl.run(&[&["exec", &namespace, pod, "--"], &curl[..]].concat())?;
            let version: Value = serde_json::from_str(&answer)?;
            ensure!(version["major"] == "1", "{pod}: {answer}");
        }
        Ok(())
    };
    ("every pod and node reaches default/kubernetes".to_owned(), request())
}

/// Every address of a Service leads to all of its backends, over both protocols.
fn reach(kubectl: &Kubectl, client: &Client, served: &Served) -> Vec<Finding> {
    let mut findings = Vec::new();
    for port in Port::ALL {
        for (name, address, number) in served.frontends(port, client) {
            let what = format!("{client} -> {name} {address} port {number}, {port}");
            let request = Request { address, port: number, protocol: port, word: "hostname", times: MANY };
            let result = client.ask(kubectl, &request).and_then(|answers| every_backend(&answers, served));
            findings.push((what, result));
        }
    }
    findings
}

fn every_backend(answers: &Answers, served: &Served) -> Result<()> {
    ensure!(answers.errors.is_empty(), "{} of {MANY} failed: {}", answers.errors.len(), answers.errors[0]);
    let heard: BTreeSet<_> = answers.said.iter().cloned().collect();
    ensure!(heard == served.servers(), "heard {heard:?}, expected {:?}", served.servers());
    Ok(())
}

/// externalTrafficPolicy Local: a node's own backend, which sees the client; and session affinity: one backend.
fn keep_client(kubectl: &Kubectl, clients: &[Client], served: &Served) -> Vec<Finding> {
    let mut findings = Vec::new();
    let outside = clients.iter().filter(|client| client.pod().is_none());
    for client in outside {
        for (address, own) in EXTERNAL.into_iter().zip(Room::Control.addresses()) {
            for port in Port::ALL {
                let what = format!("{client} -> local, {address}, {port}: the node's own backend sees {own}");
                findings.push((what, local(kubectl, client, served, (address, port), own)));
            }
        }
    }
    for client in clients.iter().filter(|client| client.is_in_pod_network()) {
        for address in served.sticky() {
            let what = format!("{client} -> sticky, {address}: one backend");
            let request = Request { address, port: 80, protocol: Port::Http, word: "hostname", times: MANY };
            let result = client.ask(kubectl, &request).and_then(|answers| {
                ensure!(answers.errors.is_empty(), "{:?}", answers.errors);
                let heard: BTreeSet<_> = answers.said.into_iter().collect();
                ensure!(heard.len() == 1, "heard {heard:?}");
                Ok(())
            });
            findings.push((what, result));
        }
    }
    findings
}

fn local(
    kubectl: &Kubectl,
    client: &Client,
    served: &Served,
    (address, port): (IpAddr, Port),
    own: IpAddr,
) -> Result<()> {
    let mut request =
        Request { address, port: port.of_service(), protocol: port, word: "hostname", times: MANY };
    let answers = client.ask(kubectl, &request)?;
    ensure!(answers.errors.is_empty(), "{:?}", answers.errors);
    let expected = served.server_on(Room::Node(1)).context("no server is on the first node")?;
    ensure!(
        answers.said.iter().all(|name| name == expected),
        "heard {:?}, expected {expected}",
        answers.said
    );
    request.word = "clientip";
    for seen in client.ask(kubectl, &request)?.said {
        let address = seen.parse::<std::net::SocketAddr>().with_context(|| seen.clone())?.ip();
        ensure!(address.to_canonical() == own, "seen as {seen}");
    }
    Ok(())
}

/// A port that the Service does not have, and a Service without endpoints: refused, and at once.
fn refuse(kubectl: &Kubectl, clients: &[Client], served: &Served) -> Vec<Finding> {
    let mut findings = Vec::new();
    for client in clients {
        let wrong = served.cluster_ips().into_iter().map(|address| ("another port of", address, 81));
        let empty = served.empty().into_iter().map(|address| ("no endpoints:", address, 80));
        // The addresses of Services are no business of who is outside.
        for (why, address, port) in wrong.chain(empty).filter(|_| client.pod().is_some()) {
            let request = Request { address, port, protocol: Port::Http, word: "hostname", times: 1 };
            let result = client.ask(kubectl, &request).and_then(|answers| {
                let refused = |error: &String| error.contains("refused");
                ensure!(answers.said.is_empty(), "answered {:?}", answers.said);
                ensure!(answers.errors.iter().all(refused), "not refused: {:?}", answers.errors);
                Ok(())
            });
            findings.push((format!("{client} -> {why} {address}: refused"), result));
        }
    }
    findings
}

/// A backend that is gone is not asked any more; when it comes back, it is.
fn follow_change(kubectl: &Kubectl, clients: &[Client], served: &Served) -> Vec<Finding> {
    let request =
        |address| Request { address, port: 80, protocol: Port::Http, word: "hostname", times: MANY };
    let Some(gone) = served.server_on(Room::Node(2)) else { return Vec::new() };
    let namespace = format!("--namespace={NAMESPACE}");
    let label = |value: &str| {
        kubectl
            .run(&["label", &namespace, "--overwrite", "pod", gone, &format!("serves={value}")])
            .map(|_| ())
    };
    let ask = |expect_gone: bool| {
        for (client, address) in clients
            .iter()
            .filter(|client| client.pod().is_some())
            .flat_map(|client| served.cluster_ips().into_iter().map(move |address| (client, address)))
        {
            let answers = client.ask(kubectl, &request(address))?;
            let heard = answers.said.iter().any(|name| name == gone);
            if !answers.errors.is_empty() || heard == expect_gone {
                bail!("{client} heard {:?}, errors {:?}", answers.said, answers.errors);
            }
        }
        Ok(())
    };
    let without = label("no").and_then(|()| wait_for("without it", CHANGE_TIMEOUT, || ask(true)));
    let with = label("yes").and_then(|()| wait_for("with it", CHANGE_TIMEOUT, || ask(false)));
    vec![
        (format!("{gone} leaves its Services: nobody is sent to it"), without),
        (format!("{gone} is back: it is asked again"), with),
    ]
}
