//! A history of changes, lived through by a node, with every question asked after each.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_agent::source::Protocol;
use weir_ebpf::abi::{PolicySetId, Side};

use super::canonical::canonical;
use super::objects::{OUTSIDE, POOL};
use super::{Batch, Op};
use crate::node::{judge_by, write};
use crate::reference::{self, Answer, Manner, Ruling};
use crate::{Cluster, Flow, Node, Placement};

/// What was asked.
#[derive(Debug, Default)]
pub struct Tally {
    /// States of the cluster.
    pub states: usize,
    /// Questions about a set and a flow, once all was written.
    pub settled: usize,
    /// Of these, allowed.
    pub allowed: usize,
    /// Denied.
    pub denied: usize,
    /// Allowed, and an audited policy would deny it.
    pub audited: usize,
    /// Sides of pods that keep what was allowed.
    pub kept: usize,
    /// Such sides where a policy without a namespace that does not say so is in the cluster.
    pub kept_beside: usize,
    /// Sides that policies which only watch isolate, where such a policy is in the cluster.
    pub watched_beside: usize,
    /// Questions between two writes.
    pub between: usize,
}

/// Protocols and ports that are asked about.
const PORTS: [(Option<Protocol>, u16); 10] = [
    (Some(Protocol::Tcp), 80),
    (Some(Protocol::Udp), 53),
    (Some(Protocol::Tcp), 8080),
    (None, 0),
    (Some(Protocol::Tcp), 81),
    (Some(Protocol::Sctp), 80),
    (Some(Protocol::Udp), 80),
    (Some(Protocol::Tcp), 79),
    (Some(Protocol::Tcp), 65_535),
    (Some(Protocol::Udp), 8081),
];

/// After each batch every pair of addresses is asked about, at `ports` ports; in the next state at others. Between the writes of a
/// single change either the answer before it or the one after it is right. A restart changes nothing, and step by step is
/// from nothing.
///
/// # Errors
/// What is not as it should be.
pub fn live_through(history: &[Batch], ports: usize, tally: &mut Tally) -> Result<(), String> {
    let mut cluster = Cluster::default();
    let mut node = Node::new(Placement::Named("here".into()));
    for (n, batch) in history.iter().enumerate() {
        let (before, tables) = (cluster.clone(), node.tables.clone());
        batch.iter().for_each(|change| change.apply(&mut cluster));
        let update = node.sync(&cluster);
        if let [change] = &batch[..] {
            let mut tables = tables;
            let flows = flows(n, ports).filter(|flow| !is_one_pod(&before, &cluster, flow));
            let flows = flows.filter(|flow| !is_within(change, &cluster, flow));
            let both = flows.map(|flow| (flow, answer(&before, &flow), answer(&cluster, &flow)));
            // Where the answer at either end is another one afterwards, either is right there in between.
            let steady: Vec<_> = both
                .filter(|(_, before, after)| before.egress == after.egress || before.ingress == after.ingress)
                .collect();
            for (at, change) in update.changes.iter().enumerate() {
                write(&mut tables, change);
                for (flow, before, after) in &steady {
                    let found = judge_by(&tables, flow);
                    let either = |found, before, after| found == before || found == after;
                    tally.between += 1;
                    if !either(found.egress, before.egress, after.egress)
                        || !either(found.ingress, before.ingress, after.ingress)
                    {
                        return Err(format!(
                            "batch {n}, after write {at} ({change:?}), {flow}: {found:?}, before {before:?}, after {after:?}"
                        ));
                    }
                }
            }
        }
        ask_everything(n, &cluster, &node, (ports, tally))?;
        if n % 3 == 1 {
            let (desired, update) = node.restart(&cluster);
            if desired != node.tables || !update.garbage.is_empty() {
                return Err(format!("batch {n}: after a restart {desired:#?}, before {:#?}", node.tables));
            }
        }
        let mut other = Node::new(Placement::Named("here".into()));
        other.sync(&cluster);
        let (found, expected) = (canonical(&node.tables)?, canonical(&other.tables)?);
        if found != expected {
            return Err(format!("batch {n}: step by step {found:#?}\nfrom nothing {expected:#?}"));
        }
    }
    Ok(())
}

fn ask_everything(
    n: usize,
    cluster: &Cluster,
    node: &Node,
    (ports, tally): (usize, &mut Tally),
) -> Result<(), String> {
    tally.states += 1;
    let flows: Vec<Flow> = flows(n, ports).collect();
    for (flow, at_hooks) in flows.iter().zip(node.pass_hooks(&flows)) {
        if at_hooks != node.passes(flow) {
            return Err(format!("batch {n}, {flow}: {at_hooks} at the hooks, and not by the rules"));
        }
        let (found, expected) = (node.judge(flow), answer(cluster, flow));
        if found != expected {
            return Err(format!("batch {n}, {flow}: {found:?}, the API says {expected:?}"));
        }
        for (addr, ruling) in [(flow.source, found.egress), (flow.dest, found.ingress)] {
            if node.tables.pods.contains_key(&addr.into()) {
                tally.settled += 1;
                *(match ruling {
                    Ruling::Allowed => &mut tally.allowed,
                    Ruling::Audited => &mut tally.audited,
                    Ruling::Denied => &mut tally.denied,
                }) += 1;
            }
        }
    }
    ask_what_is_kept(n, cluster, node, tally)
}

/// What is said of a side that nothing isolates is of no interest.
fn ask_what_is_kept(n: usize, cluster: &Cluster, node: &Node, tally: &mut Tally) -> Result<(), String> {
    for (addr, row) in &node.tables.pods {
        let pod = reference::pod_at(cluster, (*addr).into()).ok_or("a row of nobody")?;
        for (side, name) in [(Side::Ingress, "ingress"), (Side::Egress, "egress")] {
            let is_open = row.set(side) == PolicySetId::OPEN;
            let expected = reference::manner(cluster, pod, name);
            let found = Manner { denies: row.denies(side), keeps: row.keeps(side) };
            if !is_open && found != expected {
                return Err(format!("batch {n}, {addr:?} {name}: {row:?}, the API says {expected:?}"));
            }
            if is_open && (expected.denies || found.keeps) {
                return Err(format!("batch {n}, {addr:?} {name} is open, the API says {expected:?}"));
            }
            let others = cluster.cluster_policies.values().any(|policy| {
                let rules = policy["spec"][name].as_array().is_some_and(|rules| !rules.is_empty());
                rules
                    && policy["metadata"]["annotations"]["weir.dev/policy-mode"] != "audit"
                    && policy["metadata"]["annotations"]["weir.dev/established"] != "keep"
            });
            tally.kept += usize::from(found.keeps);
            tally.kept_beside += usize::from(found.keeps && others);
            tally.watched_beside += usize::from(!is_open && !found.denies && others);
        }
    }
    Ok(())
}

/// What this node has to say: an end that is no pod of its own is not its to judge.
fn answer(cluster: &Cluster, flow: &Flow) -> Answer {
    let is_here = |addr: IpAddr| {
        let pod = reference::pod_at(cluster, addr);
        pod.is_some_and(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some("here"))
    };
    Answer {
        egress: if is_here(flow.source) { reference::may_send(cluster, flow) } else { Ruling::Allowed },
        ingress: if is_here(flow.dest) { reference::may_get(cluster, flow) } else { Ruling::Allowed },
    }
}

/// Some flows between all pairs of addresses of one family.
fn flows(state: usize, ports: usize) -> impl Iterator<Item = Flow> {
    let all = POOL.iter().chain(OUTSIDE).map(|text| text.parse().expect("an address"));
    let all: Vec<IpAddr> = all.collect();
    let pairs: Vec<_> = all.iter().flat_map(|source| all.iter().map(move |dest| (*source, *dest))).collect();
    let pairs = pairs.into_iter().filter(|(source, dest)| source.is_ipv4() == dest.is_ipv4());
    pairs.enumerate().flat_map(move |(n, (source, dest))| {
        (0..ports).map(move |port| {
            let (protocol, port) = PORTS[(n + state * ports + port) % PORTS.len()];
            Flow { source, dest, protocol, port }
        })
    })
}

/// Whether both ends are, or were, addresses of one pod: what it may and who it is change together there, and in between
/// neither the one nor the other answer is right. Nothing keeps a pod from itself anyway.
fn is_one_pod(before: &Cluster, after: &Cluster, flow: &Flow) -> bool {
    let names = |addr: IpAddr| -> BTreeSet<String> {
        let pods = [before, after].into_iter().filter_map(|cluster| reference::pod_at(cluster, addr));
        pods.map(|pod| format!("{:?}/{:?}", pod.metadata.namespace, pod.metadata.name)).collect()
    };
    !names(flow.source).is_disjoint(&names(flow.dest))
}

/// The same of two pods of a namespace that is another one afterwards.
fn is_within(change: &Op, cluster: &Cluster, flow: &Flow) -> bool {
    let Some(changed) = change.namespace() else { return false };
    [flow.source, flow.dest].into_iter().all(|addr| {
        let pod = reference::pod_at(cluster, addr);
        pod.is_some_and(|pod| pod.metadata.namespace.as_deref() == Some(changed))
    })
}
