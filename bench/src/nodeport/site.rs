//! One subject in its own lab, where it stays in force for the whole benchmark: nothing is switched between measurements.

use std::thread::sleep;
use std::time::Duration;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use weir_tests::lab::manifests::Manifests;
use weir_tests::lab::topology::Settings;
use weir_tests::lab::{Agent, Lab};

use super::plan::{DEVICES, End, Family, endpoint, network};
use super::wires::Row;
use super::{flush, rules, services};
use crate::peer::Peer;
use crate::stage::{Variant, cpus};
use crate::workload::{Spec, Workload};

/// Each takes a tenth of a second at least.
const REACHABLE_ATTEMPTS: u32 = 50;
/// Rows of flows: more than one measurement makes.
const FLOWS: &str = "2097152";

/// What is in force on the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Subject {
    /// Nothing: it forwards.
    Forward,
    /// It forwards, and netfilter keeps track of connections.
    Conntrack,
    /// kube-proxy's rules for so many Services.
    Iptables(u32),
    /// Weir, with so many Services.
    Weir(Variant),
}

impl Subject {
    /// `forward`, `conntrack`, `iptables@10`, `weir@10`, `weir[other]@10`
    pub(super) fn label(&self) -> String {
        match self {
            Self::Forward => "forward".into(),
            Self::Conntrack => "conntrack".into(),
            Self::Iptables(services) => format!("iptables@{services}"),
            Self::Weir(variant) => format!("weir{}", variant.label()),
        }
    }

    /// How many Services there are; of those without any, as many backends are dialled.
    pub(super) fn services(&self, most: u32) -> u32 {
        match self {
            Self::Forward | Self::Conntrack => most,
            Self::Iptables(services) => *services,
            Self::Weir(variant) => variant.services,
        }
    }

    /// Whether node ports are dialled, and not the backends themselves.
    pub(super) fn has_node_ports(&self) -> bool {
        matches!(self, Self::Iptables(_) | Self::Weir(_))
    }

    /// kube-proxy's rules are written for IPv4 only.
    pub(super) fn has(&self, family: Family) -> bool {
        family == Family::V4 || matches!(self, Self::Forward | Self::Weir(_))
    }
}

/// A subject in force.
pub(super) struct Site {
    // in the order in which they end: nobody runs when the lab goes
    pub(super) client: Peer,
    pub(super) server: Peer,
    agent: Option<Agent>,
    pub(super) subject: Subject,
    pub(super) row: Row,
    _lab: Lab,
}

impl Site {
    /// Makes one, and shows that its backend is reached.
    ///
    /// # Errors
    /// Something of it cannot be made, or nothing arrives.
    pub(super) fn create(subject: Subject) -> Result<Self> {
        let lab = Lab::create(Settings::default())?;
        let [process_cpu, node_cpu] = cpus();
        let row = Row::wire(&lab, node_cpu)?;
        let agent = match &subject {
            Subject::Forward => None,
            Subject::Conntrack => rules::track(row.node.netns()).map(|()| None)?,
            Subject::Iptables(services) => rules::proxy(row.node.netns(), *services).map(|()| None)?,
            Subject::Weir(variant) => Some(start(&lab, variant)?),
        };
        let client = Peer::start(&row.client, process_cpu)?;
        let mut server = Peer::start(&row.other, process_cpu)?;
        server.serve(std::net::Ipv6Addr::UNSPECIFIED.into())?;
        let mut site = Self { client, server, agent, subject, row, _lab: lab };
        for family in Family::BOTH {
            if site.subject.has(family) {
                site.wait_reachable(family)?;
            }
        }
        Ok(site)
    }

    /// What a TCP workload's client dials.
    pub(super) fn dial(&self, family: Family, workload: Workload) -> SocketAddr {
        if self.subject.has_node_ports() {
            SocketAddr::new(End::NodeUplink.address(family), services::tcp_node_port(workload.port()))
        } else {
            SocketAddr::new(endpoint(family, 0, 0), workload.port())
        }
    }

    /// Where Weir's pins are, if it is Weir.
    pub(super) fn pin_root(&self) -> Option<&Path> {
        self.agent.as_ref().map(Agent::pin_root)
    }

    /// The node has seen no flow.
    pub(super) fn flush(&self) -> Result<()> {
        match (&self.subject, &self.agent) {
            (Subject::Forward, _) => Ok(()),
            (_, Some(agent)) => flush::flows(agent.pin_root()).map(drop),
            (_, None) => flush::connections(self.row.node.netns()),
        }
    }

    fn wait_reachable(&mut self, family: Family) -> Result<()> {
        let workload = Workload::Connect;
        let (to, server_pid) = (self.dial(family, workload), self.server.pid());
        let spec =
            Spec { workload, to, workers: 1, warm_up_ms: 0, limit_ms: 100, limit_count: 1, server_pid };
        let mut last = None;
        for _ in 0..REACHABLE_ATTEMPTS {
            let sample = self.client.measure(&spec)?;
            if sample.delivered > 0 {
                return Ok(());
            }
            last = sample.failure;
            sleep(Duration::from_millis(20));
        }
        let log = self.agent.as_ref().map(Agent::log_end).unwrap_or_default();
        bail!("{}: {to} is not reached: {}\n{log}", self.subject.label(), last.unwrap_or_default())
    }
}

fn start(lab: &Lab, variant: &Variant) -> Result<Agent> {
    let node = lab.nodes().iter().find(|node| node.number() == 1).context("no node")?;
    let manifests = Manifests::ensure(&lab.directory())?;
    services::write(&manifests, variant.services)?;
    let pins = lab.id().name("nodeport");
    let mut agent = Agent::new(variant.binary.clone(), node, &pins, &lab.directory(), manifests.directory())?;
    let join = |of: &dyn Fn(Family) -> String| Family::BOTH.map(of).join(",");
    agent.add_arguments(&[
        &format!("--devices={}", DEVICES.join(",")),
        &format!("--node-ip={}", join(&|family| End::NodeUplink.address(family).to_string())),
        &format!("--node-port-addresses={}", join(&|family| network(End::NodeUplink, family).to_owned())),
        &format!("--max-flows={FLOWS}"),
    ]);
    agent.start()?;
    agent.wait_ready()?;
    let loaded = agent.status()?["tables"]["rows"]["services"].as_u64().unwrap_or(0);
    ensure!(loaded >= u64::from(variant.services), "{loaded} Services of {} are loaded", variant.services);
    Ok(agent)
}
