//! `kubeproxy-flows.json`: kube-proxy's packet-flow tests, through the whole chain from API objects to the
//! decision at the socket.
//!
//! Judged: what a pod or the node itself sends to a ClusterIP. Everything else is pending by rule ([`pending`]).
//! `masq` is not compared: all that is judged is translated before a packet exists, and keeps its source.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, ensure};
use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use serde::Deserialize;
use weir_agent::source::Protocol;
use weir_ebpf::testing::MemoryTables;

use super::ask::{Answer, MOST_BACKENDS, ask};
use super::chain::build_tables;
use super::tally::{Outcome, Tally};

/// The objects of one moment, and flows.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    name: String,
    node: Node,
    options: Options,
    services: Vec<core::Service>,
    endpoint_slices: Vec<discovery::EndpointSlice>,
    flows: Vec<Flow>,
    /// Whether it has flows at all.
    flows_asserted: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct Node {
    name: String,
    #[serde(rename = "localIPs")]
    local_ips: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Options {
    local_detector: LocalDetector,
    #[serde(default, rename = "serviceCIDRs")]
    service_cidrs: Vec<IpNet>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LocalDetector {
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: Option<IpNet>,
}

#[derive(Clone, Debug, Deserialize)]
struct Flow {
    name: String,
    #[serde(rename = "sourceIP")]
    source: IpAddr,
    protocol: String,
    #[serde(rename = "destIP")]
    dest: IpAddr,
    #[serde(rename = "destPort")]
    port: u16,
    outcome: FlowOutcome,
    output: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FlowOutcome {
    Dnat,
    Reject,
    Drop,
    Accept,
    Pass,
}

/// How many flows the file has for us to answer.
///
/// # Errors
/// A state has flows and says that it has none, or the other way round.
pub fn count_asserted(states: &[State]) -> anyhow::Result<usize> {
    for state in states {
        ensure!(
            state.flows_asserted != state.flows.is_empty(),
            "{}: flows and flowsAsserted differ",
            state.name
        );
    }
    Ok(states.iter().filter(|state| state.flows_asserted).map(|state| state.flows.len()).sum())
}

/// Judges every flow of every state.
#[must_use]
pub fn judge(states: &[State]) -> Tally {
    let pods = pod_networks(states);
    let mut tally = Tally::default();
    for state in states {
        let tables = build_tables(&state.node.name, &state.services, &state.endpoint_slices);
        let tables = tables.as_ref().map_err(|error| format!("{error:#}"));
        for flow in &state.flows {
            let outcome = match pending(state, flow, &pods) {
                Some(why) => Outcome::Pending(why),
                None => judge_flow(state, flow, tables.clone()),
            };
            tally.add(flow_name(state, flow), outcome);
        }
    }
    tally
}

/// The judged flows that only the tables answer for: sockets of SCTP pass no socket hook (the kernel calls none).
#[must_use]
pub fn judged_by_tables_alone(states: &[State]) -> Vec<String> {
    let pods = pod_networks(states);
    let judged = states.iter().flat_map(|state| state.flows.iter().map(move |flow| (state, flow)));
    judged
        .filter(|(_, flow)| flow.protocol == Protocol::Sctp.name())
        .filter(|(state, flow)| pending(state, flow, &pods).is_none())
        .map(|(state, flow)| flow_name(state, flow))
        .collect()
}

/// The judged flows once more, each alone and with other expectations; a harness that works fails every one.
#[must_use]
pub fn altered(states: &[State]) -> Vec<State> {
    let pods = pod_networks(states);
    let mut altered = Vec::new();
    for state in states {
        for flow in state.flows.iter().filter(|flow| pending(state, flow, &pods).is_none()) {
            altered.extend(other_expectations(flow).into_iter().map(|(outcome, output)| State {
                flows: vec![Flow { outcome, output, ..flow.clone() }],
                ..state.clone()
            }));
        }
    }
    altered
}

/// Expectations that contradict the flow's own under every reading of it.
fn other_expectations(flow: &Flow) -> Vec<(FlowOutcome, Vec<String>)> {
    use FlowOutcome::{Accept, Dnat, Drop, Pass, Reject};
    let stranger = match flow.dest {
        IpAddr::V4(_) => "192.0.2.1:9",
        IpAddr::V6(_) => "[2001:db8:ffff::1]:9",
    };
    let mut others = vec![(Dnat, vec![stranger.to_owned()])];
    match flow.outcome {
        Dnat => {
            others.extend([Reject, Drop, Pass].map(|outcome| (outcome, Vec::new())));
            let first = flow.output.first();
            others.push((Dnat, flow.output.iter().filter(|one| Some(*one) != first).cloned().collect()));
            others.push((Dnat, [&flow.output[..], &[stranger.to_owned()]].concat()));
        }
        Reject | Pass | Accept => others.push((Drop, Vec::new())),
        Drop => others.extend([Reject, Pass].map(|outcome| (outcome, Vec::new()))),
    }
    others
}

/// The networks that pods have, in any state: some states tell kube-proxy of none, and have the same pods.
fn pod_networks(states: &[State]) -> BTreeSet<IpNet> {
    states.iter().filter_map(|state| state.options.local_detector.cluster_cidr).collect()
}

/// Why a flow is not judged yet; `None`: it is. Clients outside the cluster pass no socket hook; the addresses have
/// no frontend yet.
fn pending(state: &State, flow: &Flow, pods: &BTreeSet<IpNet>) -> Option<&'static str> {
    if !state.owns(flow.dest) {
        return Some(state.pending_destination(flow.dest));
    }
    let is_node = state.node.local_ips.contains(&flow.source);
    let is_pod = pods.iter().any(|network| network.contains(&flow.source));
    (!is_node && !is_pod).then_some("from outside the cluster")
}

impl State {
    /// Whether this is some Service's ClusterIP.
    fn owns(&self, addr: IpAddr) -> bool {
        self.services.iter().any(|service| cluster_ips(service).any(|ip| ip == addr))
    }

    fn pending_destination(&self, addr: IpAddr) -> &'static str {
        let text = addr.to_string();
        let is_ingress = |service: &core::Service| {
            let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
            ingress.iter().any(|one| one.ip.as_ref() == Some(&text))
        };
        let is_external = |service: &core::Service| {
            let spec = service.spec.as_ref();
            spec.and_then(|spec| spec.external_ips.as_ref()).is_some_and(|ips| ips.contains(&text))
        };
        if self.services.iter().any(is_ingress) {
            "to a load balancer's address"
        } else if self.services.iter().any(is_external) {
            "to an external address"
        } else if self.node.local_ips.contains(&addr) {
            "to a port of the node"
        } else if self.options.service_cidrs.iter().any(|network| network.contains(&addr)) {
            "to an address of the Service CIDR that no Service has"
        } else {
            "to an address that no Service has"
        }
    }

    /// Whether a Service has exactly this port on this ClusterIP.
    fn serves(&self, addr: IpAddr, port: u16, protocol: Protocol) -> bool {
        let of_addr = self.services.iter().filter(|service| cluster_ips(service).any(|ip| ip == addr));
        of_addr.filter_map(|service| service.spec.as_ref()?.ports.as_ref()).flatten().any(|found| {
            let name = found.protocol.as_deref().unwrap_or("TCP");
            found.port == i32::from(port) && name == protocol.name()
        })
    }
}

fn cluster_ips(service: &core::Service) -> impl Iterator<Item = IpAddr> {
    let spec = service.spec.as_ref();
    let single = spec.and_then(|spec| spec.cluster_ip.as_ref());
    let several = spec.and_then(|spec| spec.cluster_ips.as_ref()).into_iter().flatten();
    single.into_iter().chain(several).filter_map(|ip| ip.parse().ok())
}

fn judge_flow(state: &State, flow: &Flow, tables: Result<&MemoryTables, String>) -> Outcome {
    let judged = || -> Result<(Answer, Answer), String> {
        let protocol = parse_protocol(&flow.protocol).map_err(|error| format!("{error:#}"))?;
        let expected = expected(state, flow, protocol).map_err(|error| format!("{error:#}"))?;
        Ok((expected, ask(tables?, protocol, SocketAddr::new(flow.dest, flow.port))?))
    };
    match judged() {
        Ok((expected, found)) if expected == found => Outcome::Passed,
        Ok((expected, found)) => Outcome::Failed(format!("expected {expected}, found {found}")),
        Err(error) => Outcome::Failed(error),
    }
}

/// The file's expectation in our words. The one mapping: kube-proxy's two modes differ about a ClusterIP's other
/// ports, which iptables lets pass and nftables rejects; ours are rejected (`vectors/README.md`).
fn expected(state: &State, flow: &Flow, protocol: Protocol) -> anyhow::Result<Answer> {
    Ok(match flow.outcome {
        FlowOutcome::Pass if state.owns(flow.dest) && !state.serves(flow.dest, flow.port, protocol) => {
            Answer::Refuse
        }
        FlowOutcome::Pass | FlowOutcome::Accept => Answer::Pass,
        FlowOutcome::Reject => Answer::Refuse,
        FlowOutcome::Drop => Answer::Drop,
        FlowOutcome::Dnat => {
            let parse = |output: &String| output.parse().with_context(|| format!("{output} is no address"));
            let backends: BTreeSet<SocketAddr> = flow.output.iter().map(parse).collect::<Result<_, _>>()?;
            ensure!(backends.len() <= MOST_BACKENDS as usize, "more backends than draws");
            Answer::Backends(backends)
        }
    })
}

fn parse_protocol(name: &str) -> anyhow::Result<Protocol> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    all.into_iter().find(|protocol| protocol.name() == name).with_context(|| format!("{name} is no protocol"))
}

/// Unique enough to find it: some flows of one state share their name.
fn flow_name(state: &State, flow: &Flow) -> String {
    let Flow { name, source, protocol, dest, port, .. } = flow;
    format!("{}: {name} ({source} -> {} {protocol})", state.name, SocketAddr::new(*dest, *port))
}

#[cfg(test)]
mod tests;
