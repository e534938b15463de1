//! `cargo xtask cluster`: a real Kubernetes cluster of three nodes on this one machine, without Docker and without
//! kube-proxy, for Weir to prove itself on.
//!
//! A *room* ([`plan::Room`]) is a machine of the cluster: namespaces, cgroups, and a root directory with a layer in
//! memory. `up` makes wires ([`network`]), rooms ([`room`], [`inside`]), and brings Weir onto the nodes as anybody
//! would: image and manifests ([`deploy`]). `down` ([`teardown`]) finds everything by name, so that it also works after
//! an `up` that broke off.

mod binaries;
mod cgroups;
mod check;
mod control;
mod deploy;
mod e2e;
mod inside;
mod kubectl;
mod network;
mod node;
mod pki;
mod plan;
mod room;
mod service;
mod teardown;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use self::kubectl::{Kubectl, wait_for_room};
use self::plan::{NODES, Network, Plan, Room, State};
use crate::shell::{announce, is_root};
use crate::workspace::Workspace;

/// For the API server, from nothing.
const API_TIMEOUT: Duration = Duration::from_secs(120);
/// For the kubelets, from then on.
const NODES_TIMEOUT: Duration = Duration::from_secs(120);

/// What can be asked for.
#[derive(Args, Debug)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// The folder with the programs of a Kubernetes release; without it, `up` says where to get them
    #[arg(long, value_name = "DIR", global = true)]
    binaries: Option<PathBuf>,
    /// How the packets of pods get from node to node
    #[arg(long, value_enum, default_value_t = Network::Routes, global = true)]
    network: Network,
    /// A folder of image archives (*.tar) for all nodes, which reach no registry
    #[arg(long, value_name = "DIR", global = true)]
    images: Option<PathBuf>,
    /// The image of the containers that hold a pod's namespaces; one of --images
    #[arg(long, value_name = "NAME", default_value = "registry.k8s.io/pause:3.10.2", global = true)]
    sandbox_image: String,
    /// An archive of Weir's image, in place of what `cargo xtask image` makes
    #[arg(long, value_name = "FILE", global = true)]
    image: Option<PathBuf>,
    /// More manifests to apply, such as those of a DNS: pods look for it at 10.96.0.10
    #[arg(long, value_name = "FILE", global = true)]
    apply: Vec<PathBuf>,
    /// Run the specs of Kubernetes' own end-to-end suite that match FOCUS (a regular expression), on the cluster that
    /// is there or a new one
    #[arg(long, num_args = 2, value_names = ["E2E_TEST", "FOCUS"])]
    e2e: Vec<String>,
    /// With --e2e: not those that match this one
    #[arg(long, value_name = "REGEX", requires = "e2e")]
    skip: Option<String>,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Make the cluster and bring Weir onto it (also without this word)
    Up,
    /// Remove everything that `up` made, also if it broke off
    Down,
    /// Ask Services for what they promise, from pods, nodes and outside; with agnhost among --images
    Check {
        /// The image of servers and clients, as `e2e.test --list-images` calls it
        #[arg(long, value_name = "NAME", default_value = "registry.k8s.io/e2e-test-images/agnhost:2.63.0")]
        agnhost: String,
    },
    /// What a room does with itself
    #[command(hide = true)]
    Room { name: String },
    /// What the first process in a room does
    #[command(hide = true)]
    Inside { name: String },
}

/// Does it.
///
/// # Errors
/// What could not be done; what was made until then stays to be looked at, and `down` removes it.
pub(crate) fn run(workspace: &Workspace, arguments: &ClusterArgs) -> Result<ExitCode> {
    let state = State::of_machine();
    if !is_root() {
        bail!("this makes network namespaces, cgroups and mounts: it needs root");
    }
    match &arguments.action {
        None if !arguments.e2e.is_empty() => {
            if !state.plan().exists() {
                up(workspace, &state, arguments)?;
            }
            let [suite, focus] = &arguments.e2e[..] else { bail!("--e2e E2E_TEST FOCUS") };
            let suite = Path::new(suite).canonicalize().with_context(|| suite.clone())?;
            return e2e::run(&state, &load(&state)?, &suite, focus, arguments.skip.as_deref());
        }
        None | Some(Action::Up) => up(workspace, &state, arguments)?,
        Some(Action::Check { agnhost }) => check::run(&Kubectl::new(&state, &load(&state)?), agnhost)?,
        Some(Action::Down) => teardown::remove(&state)?,
        Some(Action::Room { name }) => room::run(&state, parse_room(name)?)?,
        Some(Action::Inside { name }) => inside::run(&state, &load(&state)?, parse_room(name)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn parse_room(name: &str) -> Result<Room> {
    Room::parse_name(name).with_context(|| format!("no room is called {name}"))
}

/// What `up` was asked for.
fn load(state: &State) -> Result<Plan> {
    let plan =
        fs::read(state.plan()).context("there is no cluster: cargo xtask cluster up --binaries DIR")?;
    Ok(serde_json::from_slice(&plan)?)
}

fn up(workspace: &Workspace, state: &State, arguments: &ClusterArgs) -> Result<()> {
    let binaries = binaries::find(arguments.binaries.as_deref())?;
    let archives = deploy::find_archives(arguments.images.as_deref(), &arguments.sandbox_image)?;
    let traces = teardown::find_traces(state)?;
    if !traces.is_empty() {
        bail!(
            "there is a cluster already, or what is left of one: cargo xtask cluster down\n{}",
            traces.join("\n")
        );
    }
    let image = deploy::ensure_image(workspace, arguments.image.as_deref())?;
    let plan = Plan { binaries, network: arguments.network, sandbox_image: arguments.sandbox_image.clone() };
    let kubectl = start(state, &plan)?;
    deploy::import(state, &plan, &image, &archives)?;
    deploy::apply(workspace, state, &kubectl)?;
    deploy::apply_more(&kubectl, &arguments.apply)?;
    println!("{}", state.kubeconfig().display());
    Ok(())
}

/// The cluster, without Weir.
fn start(state: &State, plan: &Plan) -> Result<Kubectl> {
    let root = state.root();
    announce(&format!("a cluster of {NODES} nodes, in {}", root.display()));
    fs::create_dir_all(root).with_context(|| root.display().to_string())?;
    fs::write(state.plan(), serde_json::to_vec_pretty(plan)?)?;
    let authority = pki::Authority::new()?;
    authority.write_admin(&state.kubeconfig())?;
    Room::all().try_for_each(|room| room::prepare(state, plan, &authority, room))?;
    network::create(plan.network)?;
    let kubectl = Kubectl::new(state, plan);
    room::start(Room::Control)?;
    wait_for_room(state, Room::Control, API_TIMEOUT, || kubectl.raw("/readyz"))?;
    Room::nodes().try_for_each(|room| kubectl.apply(&node::object(room)))?;
    Room::nodes().try_for_each(room::start)?;
    for room in Room::nodes() {
        wait_for_room(state, room, NODES_TIMEOUT, || ensure_ready(&kubectl, room))?;
    }
    Ok(kubectl)
}

fn ensure_ready(kubectl: &Kubectl, room: Room) -> Result<()> {
    let node = kubectl.get(&["node", &room.to_string()])?;
    let conditions = node["status"]["conditions"].as_array().context("no conditions yet")?;
    match conditions.iter().find(|condition| condition["type"] == "Ready") {
        Some(ready) if ready["status"] == "True" => Ok(()),
        Some(ready) => bail!("{}", ready["message"]),
        None => bail!("not heard of yet"),
    }
}
