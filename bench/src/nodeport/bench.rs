//! Rounds: every subject once for each kind of traffic, one right after the other, in an order that is drawn anew.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::flood::{Arrivals, CollectSpec, FloodSpec};
use super::plan::{Family, MOST_SERVICES};
use super::program::{self, Took};
use super::site::{Site, Subject};
use crate::report::Figure;
use crate::stage::{Variant, cpus};
use crate::stats::estimate;
use crate::workload::{Spec, Workload};

/// What is measured, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which traffic.
    pub traffic: Vec<Traffic>,
    /// How many rounds.
    pub rounds: u32,
    /// Milliseconds of a measurement.
    pub limit_ms: u64,
    /// Milliseconds before it that do not count.
    pub warm_up_ms: u64,
    /// Runs of the program alone, for each packet in each round.
    pub runs: u32,
    /// What the orders are drawn from.
    pub seed: u64,
}

/// A kind of traffic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    /// As many datagrams of 64 bytes as arrive, all of one flow.
    Known,
    /// The same, each the first of a flow, to one frontend after the other.
    New,
    /// TCP: 64 bytes there and back, on connections that were made before.
    Reply,
    /// TCP: connect, a request, the reply, close.
    Connect,
}

impl Traffic {
    /// All of it.
    pub const ALL: [Self; 4] = [Self::Known, Self::New, Self::Reply, Self::Connect];

    /// The name in figures.
    fn name(self) -> &'static str {
        match self {
            Self::Known => "nodeport",
            Self::New => "nodeport-new",
            Self::Reply => "nodeport-reply",
            Self::Connect => "nodeport-connect",
        }
    }

    /// The packet rate in both families; what TCP's clients do is the same in both.
    fn has(self, family: Family) -> bool {
        family == Family::V4 || matches!(self, Self::Known | Self::New)
    }

    /// What Weir's rate divided by another's is to be at least.
    fn target(self, other: &Subject, services: u32) -> Option<f64> {
        match (self, other) {
            (Self::Known, Subject::Forward) => Some(0.95),
            (Self::New, Subject::Iptables(_)) if services >= 1_000 => Some(5.0),
            _ => None,
        }
    }
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// Its round.
    pub round: u32,
    /// Of what.
    pub traffic: Traffic,
    /// In which family.
    pub family: Family,
    /// What was in force on the node.
    pub subject: String,
    /// Datagrams or replies that arrived.
    pub delivered: u64,
    /// Nanoseconds in which they did.
    pub elapsed_ns: u64,
    /// Nanoseconds of them in which the node's CPU had nothing to do, of datagrams only.
    pub idle_ns: u64,
    /// Deliveries in a second.
    pub rate: f64,
}

/// What a run of the program alone took.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Its round.
    pub round: u32,
    /// In which family.
    pub family: Family,
    /// The variant's label.
    pub subject: String,
    /// Which packets.
    #[serde(flatten)]
    pub took: Took,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// In the order in which they were made.
    pub measurements: Vec<Measurement>,
    /// Likewise.
    pub runs: Vec<Run>,
    #[serde(skip)]
    subjects: Vec<Subject>,
}

/// Measures. `progress` is told how many rounds of how many are done.
///
/// # Errors
/// A subject does not come into force, or delivers nothing.
pub fn run(options: &Options, variants: &[Variant], progress: impl Fn(u32, u32)) -> Result<Outcome> {
    let subjects = subjects(variants)?;
    progress(0, options.rounds);
    let mut sites: Vec<Site> = subjects.iter().cloned().map(Site::create).collect::<Result<_>>()?;
    let most = variants.iter().map(|variant| variant.services).max().unwrap_or(1);
    let mut random = fastrand::Rng::with_seed(options.seed);
    let mut outcome = Outcome { measurements: Vec::new(), runs: Vec::new(), subjects };
    for round in 0..options.rounds {
        progress(round, options.rounds);
        for (traffic, family) in kinds().filter(|(traffic, _)| options.traffic.contains(traffic)) {
            random.shuffle(&mut sites);
            for site in sites.iter_mut().filter(|site| site.subject.has(family)) {
                outcome.measurements.push(measure(site, options, round, traffic, family, most)?);
            }
        }
        for site in &sites {
            outcome.runs.extend(run_programs(site, options, round)?);
        }
    }
    progress(options.rounds, options.rounds);
    Ok(outcome)
}

fn kinds() -> impl Iterator<Item = (Traffic, Family)> {
    let kinds = Traffic::ALL.into_iter().flat_map(|traffic| Family::BOTH.map(|family| (traffic, family)));
    kinds.filter(|(traffic, family)| traffic.has(*family))
}

/// Each number of Services through the rules as well.
fn subjects(variants: &[Variant]) -> Result<Vec<Subject>> {
    let mut subjects = vec![Subject::Forward, Subject::Conntrack];
    for variant in variants {
        ensure!(variant.services <= MOST_SERVICES, "{} node ports of {MOST_SERVICES}", variant.services);
        let rules = Subject::Iptables(variant.services);
        if !subjects.contains(&rules) {
            subjects.push(rules);
        }
    }
    subjects.extend(variants.iter().cloned().map(Subject::Weir));
    Ok(subjects)
}

fn measure(
    site: &mut Site,
    options: &Options,
    round: u32,
    traffic: Traffic,
    family: Family,
    most: u32,
) -> Result<Measurement> {
    let arrivals = match traffic {
        Traffic::Known | Traffic::New => {
            site.flush()?;
            let frontends = if traffic == Traffic::New { site.subject.services(most) } else { 0 };
            pour(site, options, family, frontends)?
        }
        Traffic::Reply => exchange(site, options, family, Workload::Established)?,
        Traffic::Connect => exchange(site, options, family, Workload::Connect)?,
    };
    let subject = site.subject.label();
    let Arrivals { delivered, wrong, elapsed_ns, idle_ns } = arrivals;
    let name = traffic.name();
    ensure!(delivered > 0, "{name}: {subject} delivered nothing");
    ensure!(wrong == 0, "{name}: {subject} delivered {wrong} datagrams that nobody sent");
    let rate = rate(delivered, elapsed_ns);
    Ok(Measurement { round, traffic, family, subject, delivered, elapsed_ns, idle_ns, rate })
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn rate(delivered: u64, elapsed_ns: u64) -> f64 {
    delivered as f64 * 1e9 / elapsed_ns.max(1) as f64
}

fn pour(site: &mut Site, options: &Options, family: Family, frontends: u32) -> Result<Arrivals> {
    let (warm_up_ms, limit_ms) = (options.warm_up_ms, options.limit_ms);
    site.server.begin_collect(CollectSpec { warm_up_ms, limit_ms, node_cpu: cpus()[1] })?;
    // a little longer than the receiver counts, which begins with the first that arrives
    let limit_ms = warm_up_ms + limit_ms + 20;
    let through_node_port = site.subject.has_node_ports();
    site.client.flood(&FloodSpec { family, through_node_port, frontends, limit_ms })?;
    site.server.end_collect()
}

fn exchange(site: &mut Site, options: &Options, family: Family, workload: Workload) -> Result<Arrivals> {
    let spec = Spec {
        workload,
        to: site.dial(family, workload),
        workers: workload.workers(),
        warm_up_ms: options.warm_up_ms,
        limit_ms: options.limit_ms,
        limit_count: 1_000_000,
        server_pid: site.server.pid(),
    };
    let sample = site.client.measure(&spec)?;
    Ok(Arrivals { delivered: sample.delivered, elapsed_ns: sample.elapsed_ns, ..Arrivals::default() })
}

fn run_programs(site: &Site, options: &Options, round: u32) -> Result<Vec<Run>> {
    let Some(pins) = site.pin_root() else { return Ok(Vec::new()) };
    let mut runs = Vec::new();
    for family in Family::BOTH {
        site.flush()?;
        for took in program::measure(site.row.node.netns(), pins, family, options.runs)? {
            runs.push(Run { round, family, subject: site.subject.label(), took });
        }
    }
    Ok(runs)
}

impl Outcome {
    /// Weir's rate divided by each other subject's, over the rounds, and the nanoseconds of its program.
    #[must_use]
    pub fn figures(&self, seed: u64) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (traffic, family) in kinds() {
            for own in &self.subjects {
                let Subject::Weir(variant) = own else { continue };
                for other in &self.subjects {
                    let comparable = match other {
                        Subject::Iptables(services) => *services == variant.services,
                        Subject::Forward | Subject::Conntrack => true,
                        Subject::Weir(_) => false,
                    };
                    if !comparable || !other.has(family) {
                        continue;
                    }
                    let ratios = self.ratios(traffic, family, &own.label(), &other.label());
                    let Some(estimate) = estimate(&ratios, seed) else { continue };
                    let word = other.label();
                    let word = word.split('@').next().unwrap_or_default();
                    let name = format!("{}{}/{word}{}", traffic.name(), family.suffix(), variant.label());
                    figures.push(Figure::ratio(name, estimate, traffic.target(other, variant.services)));
                }
            }
        }
        figures.extend(self.run_figures(seed));
        figures
    }

    fn ratios(&self, traffic: Traffic, family: Family, own: &str, other: &str) -> Vec<f64> {
        let of = |subject: &str| -> BTreeMap<u32, f64> {
            let chosen = self.measurements.iter();
            let chosen =
                chosen.filter(|it| it.traffic == traffic && it.family == family && it.subject == subject);
            chosen.map(|it| (it.round, it.rate)).collect()
        };
        let other = of(other);
        of(own).iter().filter_map(|(round, rate)| Some(rate / other.get(round)?)).collect()
    }

    fn run_figures(&self, seed: u64) -> Vec<Figure> {
        let mut by_name: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for run in &self.runs {
            let label = run.subject.trim_start_matches("weir");
            let name = format!("nodeport.hook{}.{}-ns{label}", run.family.suffix(), run.took.packet.name());
            by_name.entry(name).or_default().push(run.took.median_ns);
        }
        by_name
            .into_iter()
            .filter_map(|(name, values)| Some(Figure::nanoseconds(name, estimate(&values, seed)?)))
            .collect()
    }

    /// Median rates, for a person: traffic, subject, deliveries in a second.
    #[must_use]
    pub fn rates(&self) -> Vec<(String, String, f64)> {
        let mut rates: BTreeMap<(Traffic, Family, String), Vec<f64>> = BTreeMap::new();
        for it in &self.measurements {
            rates.entry((it.traffic, it.family, it.subject.clone())).or_default().push(it.rate);
        }
        let medians = rates.into_iter().map(|((traffic, family, subject), rates)| {
            let median = estimate(&rates, 0).map_or(0.0, |estimate| estimate.median);
            (format!("{}{}", traffic.name(), family.suffix()), subject, median)
        });
        medians.collect()
    }

    /// What a reader should know before believing the rest.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut parts: BTreeMap<(Traffic, &str), (u64, u64)> = BTreeMap::new();
        for it in self.measurements.iter().filter(|it| matches!(it.traffic, Traffic::Known | Traffic::New)) {
            let part = parts.entry((it.traffic, &it.subject)).or_default();
            *part = (part.0 + it.idle_ns, part.1 + it.elapsed_ns);
        }
        let idle = parts.into_iter().map(|(of, (idle, all))| (of, idle * 100 / all.max(1)));
        idle.filter(|(_, percent)| *percent >= 5)
            .map(|((traffic, subject), percent)| {
                format!(
                    "{}, {subject}: the node's CPU had nothing to do in {percent} % of the time; it is not the node \
                     alone that was measured",
                    traffic.name()
                )
            })
            .collect()
    }
}
