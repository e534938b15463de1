//! Pairs of measurements: the same traffic to the pod's address and through a Service, one right after the other,
//! in an order that is drawn anew for each pair.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::programs;
use crate::report::Figure;
use crate::stage::{Stage, Variant};
use crate::stats::estimate;
use crate::workload::{Sample, Spec, Workload};

/// The subject that everything is compared with.
pub const DIRECT: &str = "direct";

/// What is measured, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which traffic.
    pub workloads: Vec<Workload>,
    /// How many pairs.
    pub pairs: u32,
    /// The node of the server pod; the client's is 1.
    pub server_node: u8,
    /// Milliseconds of a measurement.
    pub limit_ms: u64,
    /// Milliseconds before it that do not count.
    pub warm_up_ms: u64,
    /// Replies at which a measurement ends early.
    pub limit_count: u64,
    /// What the orders are drawn from.
    pub seed: u64,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// Its pair.
    pub pair: u32,
    /// Whether it was the pair's first (0), second (1), and so on.
    pub position: usize,
    /// Of what.
    pub workload: Workload,
    /// [`DIRECT`], or the label of a variant.
    pub subject: String,
    /// Links of BPF programs in the whole kernel, everybody's.
    pub kernel_links: usize,
    /// What was measured.
    #[serde(flatten)]
    pub sample: Sample,
    /// Deliveries in a second.
    pub rate: f64,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The node of the server pod.
    pub server_node: u8,
    /// In the order in which they were made.
    pub measurements: Vec<Measurement>,
}

/// Measures. `progress` is told how many rounds of how many are done.
///
/// # Errors
/// A subject does not come into force, stays in force, or delivers nothing.
pub fn run(options: &Options, variants: &[Variant], progress: impl Fn(u32, u32)) -> Result<Outcome> {
    let mut stage = Stage::create(options.server_node, variants)?;
    let mut random = fastrand::Rng::with_seed(options.seed);
    let mut measurements = Vec::new();
    for pair in 0..options.pairs {
        progress(pair, options.pairs);
        for workload in &options.workloads {
            let mut order = subjects(*workload, variants);
            random.shuffle(&mut order);
            for (position, variant) in order.into_iter().enumerate() {
                let sample = measure(&mut stage, options, variant, *workload)?;
                let subject = variant.map_or_else(|| DIRECT.to_owned(), |number| variants[number].label());
                ensure!(
                    sample.delivered > 0,
                    "{workload}: {subject} delivered nothing: {}",
                    sample.failure.as_deref().unwrap_or("no answer")
                );
                let (kernel_links, rate) = (programs::links()?, sample.rate());
                let workload = *workload;
                measurements.push(Measurement {
                    pair,
                    position,
                    workload,
                    subject,
                    kernel_links,
                    sample,
                    rate,
                });
            }
        }
    }
    progress(options.pairs, options.pairs);
    Ok(Outcome { server_node: options.server_node, measurements })
}

/// Direct traffic, and each variant; of a program with several numbers of Services only the first where the
/// number cannot matter.
fn subjects(workload: Workload, variants: &[Variant]) -> Vec<Option<usize>> {
    let first_of_its_name =
        |number: usize| variants.iter().position(|it| it.name == variants[number].name) == Some(number);
    let counted = (0..variants.len()).filter(|number| workload.sets_up() || first_of_its_name(*number));
    std::iter::once(None).chain(counted.map(Some)).collect()
}

fn measure(
    stage: &mut Stage,
    options: &Options,
    variant: Option<usize>,
    workload: Workload,
) -> Result<Sample> {
    stage.enter(variant)?;
    let spec = Spec {
        workload,
        to: stage.dial(variant, workload),
        workers: workload.workers(),
        warm_up_ms: options.warm_up_ms,
        limit_ms: options.limit_ms,
        limit_count: options.limit_count,
        server_pid: stage.server_pid(),
    };
    stage.client().measure(&spec)
}

impl Outcome {
    /// Each variant's rate divided by direct traffic's, over the pairs.
    #[must_use]
    pub fn figures(&self, variants: &[Variant], seed: u64) -> Vec<Figure> {
        let mut figures = Vec::new();
        for workload in Workload::ALL {
            for variant in variants {
                let ratios = self.ratios(workload, &variant.label(), |it| it.rate);
                let Some(estimate) = estimate(&ratios, seed) else { continue };
                let name = self.name(workload, variant);
                figures.push(Figure::ratio(name, estimate, Some(workload.target())));
            }
        }
        figures
    }

    /// As [`Outcome::figures`], of what a delivery costs the CPUs of both processes: what else runs on the machine
    /// disturbs it less than it does the rate. Direct traffic's divided by the variant's, so that more is better.
    #[must_use]
    pub fn cpu_figures(&self, variants: &[Variant], seed: u64) -> Vec<Figure> {
        let mut figures = Vec::new();
        for workload in Workload::ALL {
            for variant in variants {
                let ratios = self.ratios(workload, &variant.label(), Measurement::deliveries_per_cpu);
                let Some(estimate) = estimate(&ratios, seed) else { continue };
                figures.push(Figure::ratio(format!("{}.cpu", self.name(workload, variant)), estimate, None));
            }
        }
        figures
    }

    fn name(&self, workload: Workload, variant: &Variant) -> String {
        let path = if self.server_node == 1 { "" } else { ".across" };
        let label = variant.label();
        let label = if workload.sets_up() { label.as_str() } else { label.split('@').next().unwrap_or("") };
        format!("{workload}{path}/{DIRECT}{label}")
    }

    fn ratios(&self, workload: Workload, subject: &str, value: impl Fn(&Measurement) -> f64) -> Vec<f64> {
        let of = |subject: &str| -> BTreeMap<u32, f64> {
            let chosen =
                self.measurements.iter().filter(|it| it.workload == workload && it.subject == subject);
            chosen.map(|it| (it.pair, value(it))).collect()
        };
        let direct = of(DIRECT);
        of(subject).iter().filter_map(|(pair, value)| Some(value / direct.get(pair)?)).collect()
    }

    /// Median rates, for a person: workload, subject, deliveries in a second.
    #[must_use]
    pub fn rates(&self) -> Vec<(Workload, String, f64)> {
        let mut rates: BTreeMap<(Workload, String), Vec<f64>> = BTreeMap::new();
        for it in &self.measurements {
            rates.entry((it.workload, it.subject.clone())).or_default().push(it.rate);
        }
        let medians = rates.into_iter().map(|((workload, subject), rates)| {
            (workload, subject, estimate(&rates, 0).map_or(0.0, |estimate| estimate.median))
        });
        medians.collect()
    }

    /// What a reader should know before believing the rest.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let failed: u64 = self.measurements.iter().map(|it| it.sample.failed).sum();
        if failed > 0 {
            let failure = self.measurements.iter().find_map(|it| it.sample.failure.clone());
            warnings.push(format!("{failed} exchanges failed: {}", failure.unwrap_or_default()));
        }
        let direct = || self.measurements.iter().filter(|it| it.subject == DIRECT);
        let watched = direct().filter(|it| it.kernel_links > 0).count();
        if watched > 0 {
            warnings.push(format!(
                "in {watched} of {} direct measurements other programs were attached somewhere in the kernel, \
                 though not to this traffic",
                direct().count()
            ));
        }
        let other: u64 = self.measurements.iter().map(|it| it.sample.other_cpu_ns).sum();
        let elapsed: u64 = self.measurements.iter().map(|it| it.sample.elapsed_ns).sum();
        let percent = other * 100 / elapsed.max(1);
        if percent >= 5 {
            warnings.push(format!("other work used {percent} % of a CPU during the measurements"));
        }
        warnings
    }
}

impl Measurement {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn deliveries_per_cpu(&self) -> f64 {
        self.sample.delivered as f64 / (self.sample.client_cpu_ns + self.sample.server_cpu_ns) as f64
    }
}
