//! The lab around a measurement: a client pod, a server pod, and Weir, which is put in force and taken away again.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use weir_tests::lab::manifests::Manifests;
use weir_tests::lab::topology::Settings;
use weir_tests::lab::{Agent, Lab, Place};

use crate::manifests::{self, Others, cluster_ip};
use crate::peer::Peer;
use crate::workload::{Spec, Workload};
use crate::{cpu, programs};

/// The hooks at which Weir has a program.
const HOOKS: [&str; 8] =
    ["connect4", "connect6", "sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6", "getpeername4", "getpeername6"];

/// What the kernel still has to do after programs came or went; the same for both subjects.
const REST: Duration = Duration::from_millis(100);

/// Each takes a tenth of a second at least.
const REACHABLE_ATTEMPTS: u32 = 50;

/// The node of the client pod. Only its agent matters: sockets are translated where the client is.
const CLIENT_NODE: u8 = 1;

/// Weir as it is compared with direct traffic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Variant {
    /// Empty for the one that is built here, otherwise what `--compare` calls it.
    pub name: String,
    /// Its program.
    pub binary: PathBuf,
    /// How many Services it is told of.
    pub services: u32,
}

impl Variant {
    /// `@10`, or `[other]@10`.
    #[must_use]
    pub fn label(&self) -> String {
        match self.name.as_str() {
            "" => format!("@{}", self.services),
            name => format!("[{name}]@{}", self.services),
        }
    }
}

/// The lab, its two processes, and an agent for each variant, of which one runs at most.
#[derive(Debug)]
pub struct Stage {
    // in the order in which they end: nobody runs when the lab goes
    client: Peer,
    server: Peer,
    agents: Vec<(Agent, u32)>,
    in_force: Option<usize>,
    client_place: Place,
    server_at: IpAddr,
    _lab: Lab,
}

impl Stage {
    /// A client pod on n1 and a server pod on this node (1, 2). Nothing is in force.
    ///
    /// # Errors
    /// Something of it cannot be made; the rest is removed again.
    pub fn create(server_node: u8, variants: &[Variant]) -> Result<Self> {
        let mut lab = Lab::create(Settings::default())?;
        let client_place = lab.add_pod(CLIENT_NODE, "client")?.place;
        let server_pod = lab.add_pod(server_node, "server")?;
        let server_at = IpAddr::V4(server_pod.addresses.v4);
        let [client_cpu, server_cpu] = cpus();
        let mut client = Peer::start(&client_place, client_cpu)?;
        let mut server = Peer::start(&server_pod.place, server_cpu)?;
        server.serve(server_at)?;
        wait_reachable(&mut client, server_at, server.pid())?;
        let node = lab.nodes().iter().find(|node| node.number() == CLIENT_NODE).context("no node")?;
        let mut agents = Vec::new();
        for (number, variant) in variants.iter().enumerate() {
            let directory = lab.directory().join(format!("variant-{number}"));
            let manifests = Manifests::ensure(&directory)?;
            manifests::write(&manifests, variant.services, Others::Apart, server_at)?;
            let pins = lab.id().name(&format!("bench-{number}"));
            let agent = Agent::new(variant.binary.clone(), node, &pins, &directory, manifests.directory())?;
            agents.push((agent, variant.services));
        }
        Ok(Self { client, server, agents, in_force: None, client_place, server_at, _lab: lab })
    }

    /// The client.
    pub fn client(&mut self) -> &mut Peer {
        &mut self.client
    }

    /// The server's process.
    #[must_use]
    pub fn server_pid(&self) -> u32 {
        self.server.pid()
    }

    /// What is dialled: the server pod, or the first Service.
    #[must_use]
    pub fn dial(&self, variant: Option<usize>, workload: Workload) -> SocketAddr {
        let address = if variant.is_some() { cluster_ip(0).into() } else { self.server_at };
        SocketAddr::new(address, workload.port())
    }

    /// Puts this variant in force, and nothing else; `None`: nothing at all. Returns when the kernel confirms it.
    ///
    /// # Errors
    /// It does not come into force, or something stays in force.
    pub fn enter(&mut self, variant: Option<usize>) -> Result<()> {
        if self.in_force != variant || variant.is_none() {
            self.leave()?;
        }
        if let Some(number) = variant.filter(|_| self.in_force.is_none()) {
            let (agent, services) = self.agents.get_mut(number).context("no such variant")?;
            agent.start()?;
            self.in_force = Some(number);
            agent.wait_ready()?;
            ensure_loaded(agent, *services, self.client_place.cgroup())?;
        }
        sleep(REST);
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        if let Some((agent, _)) = self.in_force.take().and_then(|number| self.agents.get_mut(number)) {
            agent.kill()?;
            agent.cleanup()?;
            let status = agent.status()?;
            let hooks = status["hooks"].as_array().context("weir status --json has no hooks")?;
            ensure!(hooks.is_empty() && status["tables"].is_null(), "weir cleanup left something: {status}");
        }
        let left = programs::effective(self.client_place.cgroup())?;
        ensure!(left.is_empty(), "programs are in the way of direct traffic: {}", left.join(", "));
        Ok(())
    }
}

/// A device that has just been made takes up to a second to carry anything.
fn wait_reachable(client: &mut Peer, server_at: IpAddr, server_pid: u32) -> Result<()> {
    let workload = Workload::Connect;
    let to = SocketAddr::new(server_at, workload.port());
    let (warm_up_ms, limit_ms, limit_count) = (0, 100, 1);
    let spec = Spec { workload, to, workers: 1, warm_up_ms, limit_ms, limit_count, server_pid };
    let mut last = None;
    for _ in 0..REACHABLE_ATTEMPTS {
        let sample = client.measure(&spec)?;
        if sample.delivered > 0 {
            return Ok(());
        }
        last = sample.failure;
    }
    bail!("the client pod cannot reach the server pod: {}", last.unwrap_or_default())
}

fn ensure_loaded(agent: &Agent, services: u32, cgroup: &Path) -> Result<()> {
    let status = agent.status()?;
    let loaded = status["tables"]["rows"]["services"].as_u64().unwrap_or(0);
    ensure!(loaded >= u64::from(services), "{loaded} Services of {services} are loaded");
    let found = programs::effective(cgroup)?;
    let missing: Vec<&str> = HOOKS.into_iter().filter(|hook| !found.contains(hook)).collect();
    ensure!(missing.is_empty(), "no program at {}", missing.join(", "));
    Ok(())
}

/// The client's CPU and the server's.
#[must_use]
pub fn cpus() -> [usize; 2] {
    [0, 1 % cpu::count()]
}
