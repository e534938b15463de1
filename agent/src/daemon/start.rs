//! From a cold start, or from what an earlier agent left, to tables that are true.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;

use super::Config;
use super::node::Node;
use super::places::{PlaceOptions, Places};
use super::policies::Policies;
use super::reconcile::Reconciler;
use crate::kernel::{Generation, Grace, Hooks, KernelStore, migrate_clients, migrate_judged};
use crate::observe::{Health, SharedReport};
use crate::source::Event;
use crate::state::State;
use crate::tables::{PolicyOptions, Tables};

/// After this long without the first full lists, somebody is told; the old tables stay in force meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same for what policies ask for, where the tables of an agent of another layout are in force: of its policies nothing
/// can be carried over, so that it is the longer wait, during which Services stay as they were.
const PATIENCE_OF_UPGRADES: Duration = Duration::from_secs(60);

/// Loaded, adopted, not yet attached.
pub(super) struct Started {
    pub(super) reconciler: Reconciler,
    pub(super) generation: Generation,
    pub(super) grace: Grace,
    pub(super) node: Node,
    earlier: Option<Generation>,
    /// How long policies are waited for once Services are known.
    patience: Duration,
    config: Config,
}

/// Only one agent answers in a run directory.
pub(super) fn lock(run_dir: &Path) -> anyhow::Result<Flock<File>> {
    fs::create_dir_all(run_dir).with_context(|| format!("making {}", run_dir.display()))?;
    let path = run_dir.join("weir.lock");
    let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err(_) => {
            bail!("another agent runs with --run-dir {}: it holds {}", run_dir.display(), path.display())
        }
    }
}

/// Loads the programs on the maps that are there, or on new ones.
pub(super) fn start(
    config: &Config,
    report: SharedReport,
    health: watch::Sender<Health>,
) -> anyhow::Result<Started> {
    let generation = Generation::wanted(&config.pin_root, config.sizes);
    let adopt = generation.exists();
    let earlier = Generation::readable(&config.pin_root)?
        .into_iter()
        .find(|other| other.exists() && other.sizes() != generation.sizes());
    let hooks = Hooks::load(generation.load()?)?.with_xdp(config.rows.xdp)?;
    if !adopt && earlier.is_some() {
        tracing::info!("the tables have another size than before: building new ones beside the old");
    }
    let is_upgrade = !adopt && earlier.is_none() && Generation::has_unreadable(&config.pin_root)?;
    if is_upgrade {
        tracing::warn!(
            "the tables are another version's, and nothing is carried over from them: connections that are translated \
             per packet begin anew, as does session affinity"
        );
    }
    let grace = Grace::new().context("making the map that waits for grace periods")?;
    let mut store = KernelStore::open(&generation, grace.clone())?;
    let found = store.snapshot()?;
    let tables = Tables::adopt(config.sizes, &found, &mut store)?;
    let usage = tables.usage();
    if adopt {
        tracing::info!(services = usage.services, backends = usage.backends, "adopted the pinned tables");
    }
    let options = PolicyOptions { judged: config.sizes.judged, holds_unknown: config.holds_unknown_pods };
    let policies = Policies::adopt(options, &generation, earlier.as_ref())?;
    let node = Node::start(config, &generation, hooks, report.clone())?;
    let places = PlaceOptions {
        holds: config.holds_unknown_pods,
        pod_networks: config.rows.pod_networks.clone(),
        trusted: config.network.trusted.clone(),
        trusted_pods: config.network.trusted_pods.clone(),
    };
    let places = Places::new(places, node.holders());
    let state = State::new(config.node_name.as_str()).with_node_ports(config.node_ports.clone());
    Ok(Started {
        reconciler: Reconciler::new(state, tables, store, (policies, places), report, health),
        generation,
        grace,
        node,
        earlier,
        patience: if is_upgrade { PATIENCE_OF_UPGRADES } else { PATIENCE },
        config: config.clone(),
    })
}

impl Started {
    /// Takes events until all that existed was told. Services do not wait for ever for what policies ask for: of these,
    /// what is pinned stays in force until it is known.
    async fn first_lists(&mut self, events: &mut Receiver<Event>) -> anyhow::Result<()> {
        let asked = Instant::now();
        let mut synced = None;
        while !self.reconciler.is_complete() {
            if self.reconciler.is_synced()
                && synced.get_or_insert_with(Instant::now).elapsed() > self.patience
            {
                tracing::warn!(
                    "what NetworkPolicies ask for is still to come: Services are served without it"
                );
                return Ok(());
            }
            match tokio::time::timeout(PATIENCE, events.recv()).await {
                Ok(Some(event)) => self.reconciler.take(event),
                Ok(None) => bail!("the source ended before its first full lists"),
                Err(_) if self.reconciler.is_synced() => {}
                Err(_) => tracing::warn!(
                    waited_s = asked.elapsed().as_secs(),
                    "still waiting for the first full lists; what is pinned stays in force"
                ),
            }
        }
        Ok(())
    }

    /// Waits for the first full lists, writes what differs, attaches the programs, and removes what is stale.
    pub(super) async fn first_reconcile(&mut self, events: &mut Receiver<Event>) -> anyhow::Result<()> {
        self.first_lists(events).await?;
        let listed = Instant::now();
        self.node.refresh();
        self.reconciler.take(self.node.event());
        self.reconciler.set_network(self.node.facts().clone());
        self.reconciler.reconcile_all();
        if let Some((told, seeks)) = self.reconciler.take_told() {
            self.node.set_told(told, seeks);
        }
        if let Some(earlier) = &self.earlier {
            migrate_clients(earlier, &self.generation)?;
            migrate_judged(earlier, &self.generation)?;
        }
        // The rows of devices and pods before what reads them.
        self.node.sync();
        self.node.hooks().attach(&self.config.pin_root, &self.config.cgroup_root)?;
        if let Some(earlier) = &self.earlier {
            migrate_judged(earlier, &self.generation)?;
            let cut = migrate_clients(earlier, &self.generation)?.cut;
            if cut > 0 {
                tracing::warn!("{cut} flows did not fit into --max-flows and are cut");
            }
        }
        self.generation.remove_others()?;
        self.reconciler.ready(listed.elapsed());
        Ok(())
    }
}
