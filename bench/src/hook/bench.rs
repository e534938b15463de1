//! Rounds of batches: no program, a program and no Service, a Service; among few Services and among many.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use weir_tests::lab::manifests::Manifests;
use weir_tests::lab::topology::Settings;
use weir_tests::lab::{Agent, Lab, Node, cgroup};

use super::calls::{Batch, Sockets, Took};
use crate::manifests::{self, Others, cluster_ip};
use crate::peer::Peer;
use crate::programs;
use crate::report::Figure;
use crate::stage::{Variant, cpus};
use crate::stats::{Estimate, estimate};

/// What is measured, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    /// Each subject is measured once in a round.
    pub rounds: u32,
    /// Calls of one measurement.
    pub calls: u32,
    /// What the orders are drawn from.
    pub seed: u64,
}

/// What is dialled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialled {
    /// A pod, and no program is attached.
    Bare,
    /// A pod, past the program.
    Pod,
    /// One Service.
    Service,
    /// Every Service in turn: each call meets rows that no cache holds any more if they are many.
    EveryService,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// Its round.
    pub round: u32,
    /// The variant's label; empty without a program.
    pub variant: String,
    /// What was dialled.
    pub dialled: Dialled,
    /// On which sockets.
    pub sockets: Sockets,
    /// What the calls took.
    #[serde(flatten)]
    pub took: Took,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// In the order in which they were made.
    pub measurements: Vec<Measurement>,
}

struct Subject {
    variant: String,
    dialled: Dialled,
    batch: Batch,
}

/// Measures. Every variant is in force all the time, each in a cgroup of its own; the client goes from one to the
/// other. `progress` is told how many rounds of how many are done.
///
/// # Errors
/// A variant does not come into force, or a call fails.
pub fn run(options: &Options, variants: &[Variant], progress: impl Fn(u32, u32)) -> Result<Outcome> {
    let mut lab = Lab::create(Settings::default())?;
    let client = lab.add_pod(1, "client")?;
    let server = lab.add_pod(1, "server")?.addresses.v4;
    let node = lab.nodes().iter().find(|node| node.number() == 1).context("no node")?;
    // no agent runs while this is measured: what it pinned is in force without it
    let mut agents = Vec::new();
    let bare = Batch {
        cgroup: ensure_cgroup(node, "hook-bare")?,
        sockets: Sockets::New,
        first: server,
        addresses: 1,
        calls: options.calls,
    };
    let mut subjects = both_sockets("", Dialled::Bare, &bare);
    let most = variants.iter().map(|variant| variant.services).max().unwrap_or(1);
    for (number, variant) in variants.iter().enumerate() {
        progress(0, options.rounds);
        let cgroup = ensure_cgroup(node, &format!("hook-{number}"))?;
        agents.push(load(&lab, node, number, variant, most, cgroup.clone(), server.into())?);
        let label = variant.label();
        let at = |first, addresses| Batch { cgroup: cgroup.clone(), first, addresses, ..bare.clone() };
        subjects.extend(both_sockets(&label, Dialled::Pod, &at(server, 1)));
        subjects.extend(both_sockets(&label, Dialled::Service, &at(cluster_ip(0), 1)));
        if variant.services > 1 {
            let every = at(cluster_ip(0), variant.services);
            subjects.extend(both_sockets(&label, Dialled::EveryService, &every));
        }
    }
    let peer = Peer::start(&client.place, cpus()[0])?;
    let measurements = measure(options, &subjects, peer, progress)?;
    for agent in &agents {
        agent.cleanup()?;
    }
    Ok(Outcome { measurements })
}

fn both_sockets(variant: &str, dialled: Dialled, batch: &Batch) -> Vec<Subject> {
    let subject =
        |sockets| Subject { variant: variant.to_owned(), dialled, batch: Batch { sockets, ..batch.clone() } };
    vec![subject(Sockets::New), subject(Sockets::Same)]
}

fn ensure_cgroup(node: &Node, name: &str) -> Result<PathBuf> {
    let path = node.cgroup().join(name);
    cgroup::ensure(&path)?;
    Ok(path)
}

/// Loads a variant into tables of the same size as everybody's, so that they differ in what they hold only.
fn load(
    lab: &Lab,
    node: &Node,
    number: usize,
    variant: &Variant,
    most: u32,
    cgroup: PathBuf,
    backend: std::net::IpAddr,
) -> Result<Agent> {
    let directory = lab.directory().join(format!("hook-{number}"));
    let manifests = Manifests::ensure(&directory)?;
    manifests::write(&manifests, variant.services, Others::Alike, backend)?;
    let pins = lab.id().name(&format!("hook-{number}"));
    // two frontends for each Service, its address and its port; a few more for the first one's ports
    let sizes = [("frontends", most * 2 + 64), ("services", most + 64), ("backends", most + 1024)];
    let sizes = sizes.iter().flat_map(|(table, rows)| [format!("--max-{table}"), rows.to_string()]);
    let agent = Agent::new(variant.binary.clone(), node, &pins, &directory, manifests.directory())?;
    let mut agent = agent.confined(cgroup.clone(), sizes.collect());
    agent.start()?;
    agent.wait_ready()?;
    let loaded = agent.status()?["tables"]["rows"]["services"].as_u64().unwrap_or(0);
    ensure!(loaded >= u64::from(variant.services), "{loaded} Services of {} are loaded", variant.services);
    ensure!(programs::effective(&cgroup)?.contains(&"connect4"), "no program at connect4");
    agent.kill()?;
    Ok(agent)
}

fn measure(
    options: &Options,
    subjects: &[Subject],
    mut peer: Peer,
    progress: impl Fn(u32, u32),
) -> Result<Vec<Measurement>> {
    let mut random = fastrand::Rng::with_seed(options.seed);
    let mut order: Vec<&Subject> = subjects.iter().collect();
    let mut measurements = Vec::new();
    // one round more, which fills caches and the tables of sockets
    for round in 0..=options.rounds {
        progress(round.saturating_sub(1), options.rounds);
        random.shuffle(&mut order);
        for subject in &order {
            let took = peer.connect(&subject.batch)?;
            let (variant, dialled, sockets) =
                (subject.variant.clone(), subject.dialled, subject.batch.sockets);
            if let Some(round) = round.checked_sub(1) {
                measurements.push(Measurement { round, variant, dialled, sockets, took });
            }
        }
    }
    progress(options.rounds, options.rounds);
    Ok(measurements)
}

impl Outcome {
    /// What the programs add to a `connect`, and whether the number of Services matters. Names without `@` are
    /// among the fewest Services.
    #[must_use]
    pub fn figures(&self, variants: &[Variant], seed: u64) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (sockets, prefix) in [(Sockets::New, "hook"), (Sockets::Same, "hook.same-socket")] {
            let bare = self.rounds("", Dialled::Bare, sockets);
            figures.extend(
                estimate(&values(&bare), seed)
                    .map(|estimate| Figure::nanoseconds(format!("{prefix}.bare-ns"), estimate)),
            );
            for variant in variants {
                let shown = if fewest(variants) == Some(variant) { String::new() } else { variant.label() };
                self.variant_figures(variant, &shown, sockets, prefix, seed, &mut figures);
            }
            self.flatness(variants, sockets, prefix, seed, &mut figures);
        }
        figures
    }

    fn variant_figures(
        &self,
        variant: &Variant,
        shown: &str,
        sockets: Sockets,
        prefix: &str,
        seed: u64,
        figures: &mut Vec<Figure>,
    ) {
        let label = variant.label();
        let bare = self.rounds("", Dialled::Bare, sockets);
        for (dialled, word) in
            [(Dialled::Pod, "pod"), (Dialled::Service, "service"), (Dialled::EveryService, "every-service")]
        {
            let rounds = self.rounds(&label, dialled, sockets);
            if let Some(added) = paired(&rounds, &bare, |it, bare| it - bare, seed) {
                figures.push(Figure::nanoseconds(format!("{prefix}.{word}-ns{shown}"), added));
            }
            if let Some(ratio) = paired(&rounds, &bare, |it, bare| it / bare, seed) {
                figures.push(Figure::ratio(format!("{prefix}.{word}/bare{shown}"), ratio, None));
            }
        }
    }

    /// What the program adds among the most Services, divided by what it adds among the fewest.
    fn flatness(
        &self,
        variants: &[Variant],
        sockets: Sockets,
        prefix: &str,
        seed: u64,
        figures: &mut Vec<Figure>,
    ) {
        let Some(few) = fewest(variants) else { return };
        let own = || variants.iter().filter(|variant| variant.name.is_empty());
        let bare = self.rounds("", Dialled::Bare, sockets);
        let added = |label: &str, dialled| -> BTreeMap<u32, f64> {
            let rounds = self.rounds(label, dialled, sockets);
            rounds.iter().filter_map(|(round, ns)| Some((*round, ns - bare.get(round)?))).collect()
        };
        let base = added(&few.label(), Dialled::Service);
        for many in own().filter(|variant| variant.services > few.services) {
            for (dialled, word) in [(Dialled::Service, "service"), (Dialled::EveryService, "every-service")] {
                let rounds = added(&many.label(), dialled);
                if let Some(ratio) = paired(&rounds, &base, |many, few| many / few, seed) {
                    let name = format!("{prefix}.{word}{}/{}", many.label(), few.label());
                    figures.push(Figure::ratio(name, ratio, None));
                }
            }
        }
    }

    fn rounds(&self, variant: &str, dialled: Dialled, sockets: Sockets) -> BTreeMap<u32, f64> {
        let chosen = self.measurements.iter();
        let chosen =
            chosen.filter(|it| it.variant == variant && it.dialled == dialled && it.sockets == sockets);
        chosen.map(|it| (it.round, it.took.median_ns)).collect()
    }
}

/// The variant of the build at hand with the fewest Services.
fn fewest(variants: &[Variant]) -> Option<&Variant> {
    variants.iter().filter(|variant| variant.name.is_empty()).min_by_key(|variant| variant.services)
}

fn values(rounds: &BTreeMap<u32, f64>) -> Vec<f64> {
    rounds.values().copied().collect()
}

fn paired(
    these: &BTreeMap<u32, f64>,
    those: &BTreeMap<u32, f64>,
    compare: impl Fn(f64, f64) -> f64,
    seed: u64,
) -> Option<Estimate> {
    let pairs = these.iter().filter_map(|(round, this)| Some(compare(*this, *those.get(round)?)));
    estimate(&pairs.collect::<Vec<_>>(), seed)
}
