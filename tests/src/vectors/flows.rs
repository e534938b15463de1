//! `kubeproxy-flows.json`: kube-proxy's packet-flow tests, through the whole chain from API objects to the decision.
//!
//! What the node itself sends is judged at its sockets; what a pod sends as packets at the pod's device, and at its sockets,
//! which have to agree; everything else as packets at a device of the node. `masq` is compared by the rule in
//! `vectors/README.md` ([`contradiction`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, ensure};
use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use serde::Deserialize;
use weir_agent::source::Protocol;
use weir_ebpf::abi::Origin;

use super::ask::{Answer, MOST_BACKENDS, ask};
use super::chain::Objects;
use super::packets::ask_packets;
use super::tally::{Outcome, Tally};
use super::world::{HOST, POD, Spec, World, build_world};

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
    ip: IpAddr,
    #[serde(rename = "localIPs")]
    local_ips: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Options {
    ip_family: String,
    local_detector: LocalDetector,
    #[serde(default)]
    masquerade_all: bool,
    node_port_addresses: Vec<IpNet>,
    /// Whether 127.0.0.1 serves node ports, where its backend of kube-proxy can do that; `[::1]` never does there.
    #[serde(default)]
    localhost_node_ports: bool,
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
    masq: bool,
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
    judge_by(states, &mut ask_tables)
}

/// The same, by what this function says that the flow's client gets.
fn judge_by(
    states: &[State],
    ask: &mut impl FnMut(&State, &Flow, &World, Protocol) -> Result<Answer, String>,
) -> Tally {
    let mut tally = Tally::default();
    for state in states {
        let world = state.build_world().map_err(|error| format!("{error:#}"));
        for flow in &state.flows {
            let judged =
                world.as_ref().map_err(Clone::clone).and_then(|world| judge_flow(state, flow, world, ask));
            tally.add(flow_name(state, flow), judged.map_or_else(Outcome::Failed, |()| Outcome::Passed));
        }
    }
    tally
}

/// The flows that only the tables answer for: the node's sockets of SCTP pass no socket hook (the kernel calls none).
#[must_use]
pub fn judged_by_tables_alone(states: &[State]) -> Vec<String> {
    let judged = states.iter().flat_map(|state| state.flows.iter().map(move |flow| (state, flow)));
    judged
        .filter(|(state, flow)| flow.protocol == Protocol::Sctp.name() && state.from(flow) == From::Node)
        .map(|(state, flow)| flow_name(state, flow))
        .collect()
}

/// Every flow once more, each alone and with other expectations; a harness that works fails every one.
#[must_use]
pub fn altered(states: &[State]) -> Vec<State> {
    let mut altered = Vec::new();
    for state in states {
        for flow in &state.flows {
            let others = other_expectations(flow).into_iter();
            let others = others.map(|(outcome, output)| Flow { outcome, output, ..flow.clone() });
            let shown = (flow.masq && state.is_hidden(flow)).then(|| Flow { masq: false, ..flow.clone() });
            altered.extend(others.chain(shown).map(|flow| State { flows: vec![flow], ..state.clone() }));
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

/// Who sends a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    /// A socket of the node.
    Node,
    /// A pod of the node.
    Pod,
    /// Anybody else.
    Outside,
}

impl State {
    /// A packet whose source is what it is for can only be the node's, from an address that a load balancer of the node's
    /// has; where nobody can tell pods from others (detector `none`), nobody is a pod.
    fn from(&self, flow: &Flow) -> From {
        if self.node.local_ips.contains(&flow.source) || flow.source == flow.dest {
            From::Node
        } else if self.options.local_detector.cluster_cidr.is_some_and(|pods| pods.contains(&flow.source)) {
            From::Pod
        } else {
            From::Outside
        }
    }

    fn build_world(&self) -> anyhow::Result<World> {
        let Options { ip_family, node_port_addresses, localhost_node_ports, service_cidrs, .. } =
            &self.options;
        let spec = Spec {
            name: &self.node.name,
            primary: self.node.ip,
            addresses: &self.node.local_ips,
            loopback: *localhost_node_ports && ip_family == "IPv4",
            node_ports: node_port_addresses,
            service_networks: service_cidrs,
            shows_clients: self.options.local_detector.cluster_cidr.is_none() && !self.options.masquerade_all,
        };
        let objects = Objects { services: &self.services, slices: &self.endpoint_slices };
        let pods: Vec<IpAddr> = self.local_endpoints().into_iter().collect();
        build_world(&spec, &objects, &pods)
    }

    /// The pods of this node that some Service has.
    fn local_endpoints(&self) -> BTreeSet<IpAddr> {
        let endpoints = self.endpoint_slices.iter().flat_map(|slice| &slice.endpoints);
        let local = endpoints.filter(|endpoint| endpoint.node_name.as_ref() == Some(&self.node.name));
        local.flat_map(|endpoint| &endpoint.addresses).filter_map(|addr| addr.parse().ok()).collect()
    }

    /// Whether some backend of a flow has to see another address than the client's, by the rule.
    fn is_hidden(&self, flow: &Flow) -> bool {
        let local = self.local_endpoints();
        let mut backends = flow.output.iter().filter_map(|output| output.parse::<SocketAddr>().ok());
        match self.from(flow) {
            From::Node => false,
            From::Pod => backends.any(|backend| backend.ip() == flow.source),
            From::Outside => backends.any(|backend| !local.contains(&backend.ip())),
        }
    }

    /// Whether this is some Service's ClusterIP.
    fn owns(&self, addr: IpAddr) -> bool {
        self.services.iter().any(|service| cluster_ips(service).any(|ip| ip == addr))
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

fn judge_flow(
    state: &State,
    flow: &Flow,
    world: &World,
    ask: &mut impl FnMut(&State, &Flow, &World, Protocol) -> Result<Answer, String>,
) -> Result<(), String> {
    let protocol = parse_protocol(&flow.protocol).map_err(|error| format!("{error:#}"))?;
    let expected = expected(state, flow, protocol).map_err(|error| format!("{error:#}"))?;
    let found = ask(state, flow, world, protocol)?;
    match contradiction(state, flow, state.from(flow), &expected, &found) {
        None => Ok(()),
        Some(how) => Err(how),
    }
}

/// By tables in memory.
fn ask_tables(state: &State, flow: &Flow, world: &World, protocol: Protocol) -> Result<Answer, String> {
    let dialled = SocketAddr::new(flow.dest, flow.port);
    match state.from(flow) {
        From::Node => ask(&world.tables, HOST, protocol, dialled),
        From::Pod => ask_pod(state, world.clone(), flow.source, protocol, dialled),
        From::Outside => ask_packets(world, Origin::Outside, protocol, flow.source, dialled),
    }
}

/// A pod's packets, and its sockets beside them. Only what stands under an address of the node itself is left to the
/// packets: a socket hook cannot tell whether the node listens there.
fn ask_pod(
    state: &State,
    world: World,
    source: IpAddr,
    protocol: Protocol,
    dialled: SocketAddr,
) -> Result<Answer, String> {
    let world = world.asked_by_pod(source);
    let found = ask_packets(&world, Origin::Inside, protocol, source, dialled)?;
    let at_socket = ask(&world.tables, POD, protocol, dialled)?;
    let left = at_socket == Answer::Pass && state.node.local_ips.contains(&dialled.ip());
    if left || at_socket.outcome() == found.outcome() {
        return Ok(found);
    }
    Err(format!("the packet path gives {found}, the socket {at_socket}"))
}

/// How what was found is not what was expected. The rule about `masq`: true may become false where the backend is on this
/// node, and where the client's socket is; but a pod that reaches itself by packets stays hidden. False stays false.
fn contradiction(
    state: &State,
    flow: &Flow,
    from: From,
    expected: &Answer,
    found: &Answer,
) -> Option<String> {
    if expected.outcome() != found.outcome() {
        return Some(format!("expected {expected}, found {found}"));
    }
    let Answer::Backends(backends) = found else { return None };
    let local = state.local_endpoints();
    let wrong = |(backend, hidden): &(&SocketAddr, &bool)| {
        let is_hairpin = from != From::Node && backend.ip() == flow.source;
        let may_show = !is_hairpin && (from != From::Outside || local.contains(&backend.ip()));
        **hidden != flow.masq && !(flow.masq && may_show)
    };
    let (backend, hidden) = backends.iter().find(wrong)?;
    Some(format!("{backend}: masq is {hidden}, expected {}", flow.masq))
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
            let parse = |output: &String| -> anyhow::Result<_> {
                Ok((output.parse().with_context(|| format!("{output} is no address"))?, flow.masq))
            };
            let backends: BTreeMap<SocketAddr, bool> =
                flow.output.iter().map(parse).collect::<Result<_, _>>()?;
            ensure!(backends.len() <= MOST_BACKENDS as usize / 4, "more backends than draws");
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

#[cfg(feature = "kernel")]
pub mod kernel;
#[cfg(test)]
mod tests;
