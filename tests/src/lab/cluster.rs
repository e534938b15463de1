//! A lab in which a cluster runs: pods that serve, a prober in each place, an agent per node, manifests.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::address::{self, DualStack, Form};
use super::manifests::Manifests;
use super::topology::{Lab, Settings};
use super::{Agent, binary};
use crate::prober::{Command, How, Outcome, Prober};

/// The ports on which every prober serves, TCP and UDP, both families.
pub const PORTS: [u16; 2] = [8080, 8081];

/// How long the agents may take to put a change in force; they take milliseconds.
const APPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// The file of the Service that [`Cluster::settle`] looks for.
const MARKER: &str = "marker.yaml";

/// A pod to be made: the number of its node, and its name.
pub type PodSpec<'a> = (u8, &'a str);

/// A lab with everything in it.
///
/// Places are called by name: a pod by its own, the nodes `n1` and `n2`, the client `outside`, the router
/// `net`.
pub struct Cluster {
    // in the order in which they end: nobody runs when the lab goes
    probers: BTreeMap<String, Prober>,
    addresses: BTreeMap<String, DualStack>,
    agents: Vec<Agent>,
    /// What the agents are told.
    pub manifests: Manifests,
    markers: u8,
    lab: Lab,
}

impl Cluster {
    /// A lab with these pods, each serving on [`PORTS`]. No agent runs yet.
    ///
    /// # Errors
    /// Something of it cannot be made; the rest is removed again.
    pub fn create(settings: Settings, pods: &[PodSpec<'_>]) -> Result<Self> {
        let mut lab = Lab::create(settings)?;
        let manifests = Manifests::ensure(&lab.directory())?;
        let mut places = Vec::new();
        for (node, name) in pods {
            let pod = lab.add_pod(*node, name)?;
            places.push((pod.place, pod.addresses));
        }
        for node in lab.nodes() {
            places.push((node.place().clone(), node.addresses()));
        }
        places.push((lab.client().clone(), address::CLIENT));
        places.push((lab.router().clone(), address::ROUTER));
        let program = binary::find_prober()?;
        let (mut probers, mut addresses) = (BTreeMap::new(), BTreeMap::new());
        for (place, own) in places {
            let prober = Prober::start(&program, &place)?;
            prober.serve(place.name(), &sockets(own, &PORTS))?;
            if place.name() == lab.router().name() {
                let foreign = (10..20).map(address::foreign);
                foreign.map(|own| sockets(own, &[80])).try_for_each(|at| prober.serve(place.name(), &at))?;
            }
            addresses.insert(place.name().to_owned(), own);
            probers.insert(place.name().to_owned(), prober);
        }
        Ok(Self { probers, addresses, agents: Vec::new(), manifests, markers: 0, lab })
    }

    /// Makes one more pod, whose processes are in this cgroup of its node's.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn add_pod_below(&mut self, (node, name): PodSpec<'_>, below: &Path) -> Result<()> {
        let pod = self.lab.add_pod_below(node, name, below)?;
        let prober = Prober::start(&binary::find_prober()?, &pod.place)?;
        prober.serve(name, &sockets(pod.addresses, &PORTS))?;
        self.addresses.insert(name.to_owned(), pod.addresses);
        self.probers.insert(name.to_owned(), prober);
        Ok(())
    }

    /// Starts the agents and waits until they are ready.
    ///
    /// # Errors
    /// There is no agent to run, or it is not ready in time.
    pub fn start_agents(&mut self) -> Result<()> {
        self.start_agents_with(&[])
    }

    /// As [`Cluster::start_agents`], with more arguments.
    ///
    /// # Errors
    /// As there.
    pub fn start_agents_with(&mut self, arguments: &[&str]) -> Result<()> {
        let binary: PathBuf = binary::find_weir()?;
        for node in self.lab.nodes() {
            let pins = self.lab.id().name(node.place().name());
            let (directory, manifests) = (self.lab.directory(), self.manifests.directory());
            let mut agent = Agent::new(binary.clone(), node, &pins, &directory, manifests)?;
            agent.add_arguments(arguments);
            agent.start()?;
            self.agents.push(agent);
        }
        self.agents.iter_mut().try_for_each(Agent::wait_ready)
    }

    /// The wires.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The agent of node 1 or 2.
    ///
    /// # Errors
    /// It was never started.
    pub fn agent(&mut self, node: u8) -> Result<&mut Agent> {
        let index = usize::from(node).checked_sub(1).context("nodes are numbered from 1")?;
        self.agents.get_mut(index).with_context(|| format!("n{node} has no agent"))
    }

    /// The prober at a place.
    ///
    /// # Errors
    /// There is no such place.
    pub fn prober(&self, place: &str) -> Result<&Prober> {
        self.probers.get(place).with_context(|| format!("nothing in the lab is called {place}"))
    }

    /// The addresses of a place.
    ///
    /// # Errors
    /// There is no such place.
    pub fn addresses(&self, place: &str) -> Result<DualStack> {
        self.addresses.get(place).copied().with_context(|| format!("nothing in the lab is called {place}"))
    }

    /// The place that has this address.
    #[must_use]
    pub fn place_of(&self, addr: IpAddr) -> Option<&str> {
        self.addresses.iter().find(|(_, own)| own.has(addr)).map(|(name, _)| name.as_str())
    }

    /// Puts objects in force as file `name` and waits until every agent has applied them.
    ///
    /// # Errors
    /// Not in time.
    pub fn apply(&mut self, name: &str, objects: &[Value]) -> Result<()> {
        self.manifests.replace_objects(name, objects)?;
        self.settle()
    }

    /// Waits until every agent has applied all that was written until now.
    ///
    /// A marker Service that is in force shows that the agent has come as far as its file, but not that it
    /// has finished the same batch of changes. That the marker is gone again does: it was taken away after it
    /// was seen.
    ///
    /// # Errors
    /// Not in time.
    pub fn settle(&mut self) -> Result<()> {
        // an address that no agent can still have in force from before
        self.markers = self.markers % 200 + 1;
        let vip = address::marker(self.markers);
        self.manifests.replace_objects(MARKER, &[marker(vip)])?;
        self.wait_marker(vip, true)?;
        self.manifests.remove(MARKER)?;
        self.wait_marker(vip, false)
    }

    fn wait_marker(&mut self, vip: IpAddr, in_force: bool) -> Result<()> {
        let deadline = Instant::now() + APPLY_TIMEOUT;
        let connect = Command::Connect { how: How::UdpConnected, to: SocketAddr::new(vip, 1) };
        for node in 1..=u8::try_from(self.agents.len())? {
            loop {
                // connecting a UDP socket sends nothing: only a Service without endpoints can refuse it
                let outcome = self.prober(&format!("n{node}"))?.call(connect.clone())?;
                let refused = matches!(&outcome, Outcome::Failed(failure) if failure.error == "ECONNREFUSED");
                if refused == in_force {
                    break;
                }
                if Instant::now() > deadline {
                    let log = self.agent(node)?.log_end();
                    bail!("the agent of n{node} does not apply what is written ({outcome:?}):\n{log}");
                }
                sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// What the agents logged last, for a report of failure.
    #[must_use]
    pub fn logs(&self) -> String {
        self.agents.iter().map(|agent| agent.log_end() + "\n").collect()
    }
}

/// Each address with each port.
fn sockets(addresses: DualStack, ports: &[u16]) -> Vec<SocketAddr> {
    let forms = [Form::V4, Form::V6];
    forms.iter().flat_map(|form| ports.iter().map(|port| addresses.dial(*form, *port))).collect()
}

fn marker(vip: IpAddr) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "namespace": "weir-lab", "name": "marker" },
        "spec": {
            "clusterIP": vip,
            "clusterIPs": [vip],
            "ipFamilies": ["IPv4"],
            "ports": [{ "port": 1, "protocol": "UDP" }],
        },
    })
}
