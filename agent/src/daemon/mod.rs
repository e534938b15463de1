//! The running agent: drives the one-way flow from events to tables, and its life from start to end.
//!
//! Start: lock, load, adopt, wait for the first full lists, reconcile, attach; only then remove what is old. Stop:
//! leave everything in place.

mod background;
mod drops;
mod node;
mod places;
mod policies;
mod reconcile;
mod start;
mod sweeper;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::kernel::{PinRoot, View};
use crate::network::{self, RowOptions};
use crate::observe::{
    Health, InKernel, Metrics, SharedDrops, SharedReport, serve_drops, serve_health, serve_health_checks,
    serve_metrics, serve_report,
};
use crate::source::{Announcer, Event, Kubernetes, KubernetesOptions, Manifests, PolicyDemand};
use crate::state::NodePortAddresses;
use crate::tables::Sizes;
use background::Background;
use drops::Drops;
use start::Started;

/// Events that may wait: a source that is faster than the tables is slowed down, not buffered without bound.
const EVENTS: usize = 1024;

/// Where the cluster's objects come from.
#[derive(Clone, Debug)]
pub enum SourceKind {
    /// A directory of manifests.
    Manifests(PathBuf),
    /// An API server.
    Kubernetes(KubernetesOptions),
}

impl std::fmt::Display for SourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Manifests(dir) => write!(f, "manifests:{}", dir.display()),
            Self::Kubernetes(_) => f.write_str("kubernetes"),
        }
    }
}

/// A source that is ready to run.
enum Source {
    Manifests(Manifests),
    Kubernetes(Kubernetes),
}

impl Source {
    fn open(kind: &SourceKind, report: &SharedReport) -> anyhow::Result<Self> {
        Ok(match kind {
            SourceKind::Manifests(dir) => Self::Manifests(Manifests::open(dir)?),
            SourceKind::Kubernetes(options) => {
                let source = Kubernetes::open(options.clone())?;
                report.follow(source.health());
                Self::Kubernetes(source)
            }
        })
    }

    /// Where problems are handed over, beside the log; files have no such place.
    fn announcer(&self) -> Announcer {
        match self {
            Self::Manifests(_) => Announcer::default(),
            Self::Kubernetes(source) => source.announcer(),
        }
    }

    /// `demand`: what policies ask for; a directory is read as a whole.
    async fn run(self, events: Sender<Event>, demand: watch::Receiver<PolicyDemand>) -> anyhow::Result<()> {
        match self {
            Self::Manifests(source) => source.run(events).await,
            Self::Kubernetes(source) => {
                source.run(events, demand).await;
                Ok(())
            }
        }
    }
}

/// What the agent was asked to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the cluster's objects come from.
    pub source: SourceKind,
    /// This node's name, as in `Endpoint.nodeName`.
    pub node_name: String,
    /// The cgroup (v2) whose sockets are translated.
    pub cgroup_root: PathBuf,
    /// Where programs and maps are pinned.
    pub pin_root: PinRoot,
    /// Where the agent's lock and socket are.
    pub run_dir: PathBuf,
    /// Where metrics and readiness are served.
    pub metrics: SocketAddr,
    /// Where `/healthz` and `/livez` are served.
    pub healthz: SocketAddr,
    /// Rows that the tables have room for.
    pub sizes: Sizes,
    /// How this node's network is found out.
    pub network: network::Options,
    /// What holds for the whole node.
    pub rows: RowOptions,
    /// Whether pods that nobody knows yet are held while there are policies.
    pub holds_unknown_pods: bool,
    /// At which addresses node ports are served.
    pub node_ports: NodePortAddresses,
    /// How many drops are kept for whoever asks.
    pub keep_drops: usize,
}

/// How long until what the kernel refused (a full table, no memory) is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps the agent from starting, or ended it. The tables and programs stay as they are.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let _lock = start::lock(&config.run_dir)?;
    config.pin_root.ensure()?;
    let _pins = config.pin_root.lock()?;
    let report = SharedReport::default();
    report.update(|report| {
        report.version = env!("CARGO_PKG_VERSION").into();
        report.pid = std::process::id();
        report.node.clone_from(&config.node_name);
        report.source = config.source.to_string();
        report.sizes = config.sizes;
    });
    let listener = TcpListener::bind(config.metrics)
        .await
        .with_context(|| format!("--metrics-address {}: listening", config.metrics))?;
    let source = Source::open(&config.source, &report)?;
    let (health, _) = watch::channel(Health::default());
    let mut started = start::start(&config, report.clone(), health.clone())?;
    started.reconciler.announce_to(source.announcer());
    let metrics = Metrics::new(report.clone(), read_kernel(&config.pin_root));
    let (sender, events) = tokio::sync::mpsc::channel(EVENTS);
    let demand = started.reconciler.demand();

    let drops = SharedDrops::new(config.keep_drops);
    let generation = started.generation.clone();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        result = source.run(sender, demand) => result.context("the source ended"),
        result = serve_metrics(listener, metrics, report.clone()) => result,
        result = serve_health(config.healthz, health.subscribe()) => result,
        result = serve_health_checks(health.subscribe()) => result,
        result = serve_report(&config.run_dir, report.clone()) => result,
        result = serve_drops(&config.run_dir, drops.clone()) => result,
        result = sync(started, events, drops, report.clone()) => result,
        result = sweeper::sweep(generation, report.clone()) => result,
        _ = terminate.recv() => stopped(),
        _ = interrupt.recv() => stopped(),
    }
}

fn stopped() -> anyhow::Result<()> {
    tracing::info!("stopping; what is pinned stays in force (`weir cleanup` removes it)");
    Ok(())
}

/// Brings the tables up to date with every event, as it comes; what waits together is written together.
async fn sync(
    mut started: Started,
    mut events: Receiver<Event>,
    drops: SharedDrops,
    report: SharedReport,
) -> anyhow::Result<()> {
    started.first_reconcile(&mut events).await?;
    let Started { mut reconciler, mut node, generation, grace, .. } = started;
    let mut drops = Drops::start(&generation, drops, report);
    let mut background = Background::new(generation, grace);
    // Sockets may have lost their backend while no agent ran.
    reconciler.suspect_sockets();
    let mut retry = tokio::time::interval(RETRY);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        background.start(&mut reconciler);
        reconciler.tell_health(background.has_failed());
        let mut is_another = false;
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return Ok(()) };
                reconciler.reconcile(event, &mut events);
            }
            changed = node.changed() => {
                changed?;
                node.refresh();
                reconciler.set_network(node.facts().clone());
                reconciler.reconcile(node.event(), &mut events);
                is_another = true;
            }
            dropped = drops.next() => drops.tell(&dropped, &reconciler, &node),
            outcome = background.outcome() => background.finish(outcome, &mut reconciler),
            // Not asked, and no wake-up, while all is well.
            _ = retry.tick(), if reconciler.has_refused() || background.has_more() || node.is_unfinished()
                || reconciler.is_waiting() =>
            {
                if node.is_unfinished() {
                    node.sync();
                }
                background.retry(&mut reconciler);
                reconciler.retry();
                reconciler.look_at_places();
            }
        }
        // What is told of the pods follows from both; rows of pods come before their programs.
        if let Some((told, seeks)) = reconciler.take_told() {
            node.set_told(told, seeks);
            is_another = true;
        }
        if is_another {
            node.sync();
        }
    }
}

fn read_kernel(root: &PinRoot) -> Box<dyn Fn() -> InKernel + Send + Sync> {
    let root = root.clone();
    Box::new(move || {
        let read = || -> anyhow::Result<InKernel> {
            let Some(view) = View::open(&root)? else { return Ok(InKernel::default()) };
            Ok(InKernel { counters: view.counters()?, fills: view.fills()? })
        };
        read().unwrap_or_else(|error| {
            tracing::warn!("{error:#}");
            InKernel::default()
        })
    })
}
