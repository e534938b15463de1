//! Agents that are replaced while everybody dials.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::Finding;
use super::clients::{Client, Request};
use super::services::{Port, Served};
use crate::cluster::kubectl::Kubectl;

/// Until every node has a new agent.
const LIMIT: Duration = Duration::from_secs(180);
/// In each round, by each client, at each address.
const TIMES: u32 = 5;

/// Replaces the agents of all nodes. Meanwhile no connection fails, of whomever and over whichever protocol.
pub(super) fn survive(kubectl: &Kubectl, clients: &[Client], served: &Served) -> Finding {
    let what = "every agent is replaced: nobody notices".to_owned();
    (what, replace(kubectl).and_then(|()| dial_until_replaced(kubectl, clients, served)))
}

fn replace(kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&["--namespace=kube-system", "rollout", "restart", "daemonset/weir"]).map(|_| ())
}

fn dial_until_replaced(kubectl: &Kubectl, clients: &[Client], served: &Served) -> Result<()> {
    let begun = Instant::now();
    let mut rounds = 0;
    // The round after the last new agent counts, too.
    loop {
        let status = ["--namespace=kube-system", "rollout", "status", "daemonset/weir", "--watch=false"];
        let is_done = kubectl.run(&status)?.contains("successfully rolled out");
        for client in clients {
            dial(kubectl, client, served)?;
        }
        rounds += 1;
        if is_done {
            ensure!(rounds > 1, "the agents were replaced before anybody could dial");
            return Ok(());
        }
        if begun.elapsed() > LIMIT {
            bail!("not all agents are replaced within {} s", LIMIT.as_secs());
        }
    }
}

fn dial(kubectl: &Kubectl, client: &Client, served: &Served) -> Result<()> {
    for protocol in Port::ALL {
        // The first of either kind: a ClusterIP for those inside, a node's port for who is outside.
        let Some((_, address, port)) = served.frontends(protocol, client).into_iter().next() else {
            continue;
        };
        let request = Request { address, port, protocol, word: "hostname", times: TIMES };
        let answers = client.ask(kubectl, &request)?;
        ensure!(
            answers.errors.is_empty(),
            "{client} -> {address} port {port}, {protocol}: {:?}",
            answers.errors
        );
    }
    Ok(())
}
