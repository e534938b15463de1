//! `cargo xtask test`: the layers, what each consists of, and what it takes to run it.

mod count;
mod job;
mod summary;

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;

use crate::setup::{Need, ensure, has_apt};
use crate::shell::{Style, announce, cargo, describe, is_root};
use crate::workspace::{Profile, Workspace};
use crate::{build_agent, check, image, vm};
pub(crate) use count::{Count, Reader};
use job::run_job;
pub(crate) use summary::{LayerReport, Outcome, Report};

/// A layer of the tests. Each trusts those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Layer {
    /// What `cargo xtask check` checks
    Check,
    /// The pure libraries and this tool; no BPF toolchain, no root
    Unit,
    /// The conformance vectors against the pure libraries
    Vectors,
    /// The test API server, as a client sees it
    Apiserver,
    /// The Kubernetes source and an agent on it, against the test API server
    Kubernetes,
    /// The programs in this kernel, one at a time
    Programs,
    /// Single packets through the programs in this kernel: the table of cases, and the conformance vectors
    Packets,
    /// Agents, pods and nodes in network namespaces
    Lab,
    /// Single packets through the programs in the oldest kernel, and what they cost there, on machines in software
    Kernels,
    /// The container image, run by containerd as the manifests describe it
    Image,
}

impl Layer {
    fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Unit => "unit",
            Self::Vectors => "vectors",
            Self::Apiserver => "apiserver",
            Self::Kubernetes => "kubernetes",
            Self::Programs => "programs",
            Self::Packets => "packets",
            Self::Lab => "lab",
            Self::Kernels => "kernels",
            Self::Image => "image",
        }
    }

    /// What must be on the machine; a check of [`Layer::Check`] brings its own.
    fn needs(self) -> &'static [Need] {
        match self {
            Self::Check => &[],
            Self::Unit => &[Need::Style],
            // A machine says itself what it needs.
            Self::Vectors | Self::Apiserver | Self::Kernels => &[],
            Self::Kubernetes | Self::Programs | Self::Packets | Self::Lab => &[Need::Toolchain, Need::Lab],
            Self::Image => &[Need::Toolchain, Need::Lab, Need::Containers],
        }
    }

    /// The arguments of each cargo that makes up the layer.
    fn jobs(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Check | Self::Kernels => &[],
            Self::Unit => &[
                &["test", "--package=weir-ebpf", "--features=testing"],
                &["test", "--package=weir-fuzz"],
                &["test", "--package=weir-agent", "--no-default-features", "--features=live", "--lib"],
                &["test", "--package=weir-toolchain", "--package=xtask"],
                &["test", "--package=weir-policy"],
                &["test", "--package=weir-tests", "--package=weir-bench", "--lib", "--bins"],
                &["test", "--package=weir-tests", "--test=deploy"],
            ],
            Self::Vectors => &[&["test", "--package=weir-tests", "--test=vectors", "--", "--nocapture"]],
            Self::Apiserver => &[&["test", "--package=weir-tests", "--test=apiserver"]],
            Self::Kubernetes => &[
                &["test", "--package=weir-tests", "--test=kubernetes"],
                // With KUBEBUILDER_ASSETS; else it says that it did not run.
                &["test", "--package=weir-tests", "--test=real_apiserver"],
                &["test", "--package=weir-tests", "--test=cluster", "--", "--nocapture", "--test-threads=1"],
            ],
            Self::Programs => &[
                // The modules of the agent that its feature `kernel` adds.
                &[
                    "test",
                    "--package=weir-agent",
                    "--lib",
                    "--",
                    "kernel::",
                    "observe::",
                    "daemon::",
                    "cli::",
                ],
                PROGRAMS,
                &["test", "--package=weir-tests", "--features=kernel", "--test=network"],
            ],
            Self::Packets => &[
                &["test", "--package=weir-tests", "--features=kernel", "--test=packets"],
                &["test", "--package=weir-tests", "--features=kernel", "--test=vectors", "--", "--nocapture"],
            ],
            Self::Lab => &[LAB, &["test", "--package=weir-bench", "--test=quick"]],
            Self::Image => {
                &[&["test", "--package=weir-tests", "--features=kernel", "--test=image", "--", "--nocapture"]]
            }
        }
    }

    /// Why the layer cannot run here, if it cannot.
    fn obstacle(self, machine: &Machine) -> Option<Obstacle> {
        match self {
            Self::Check | Self::Unit | Self::Apiserver => None,
            Self::Kernels => (!machine.has_apt).then_some(Obstacle::Apt),
            Self::Vectors => (!machine.has_vectors).then_some(Obstacle::Vectors),
            Self::Kubernetes | Self::Programs | Self::Packets | Self::Lab | Self::Image => {
                (!machine.is_root).then_some(Obstacle::Root)
            }
        }
    }
}

const LAB: &[&str] = &[
    "test",
    "--package=weir-tests",
    "--features=kernel",
    "--test=lab",
    "--",
    "--nocapture",
    "--test-threads=1",
];

const PROGRAMS: &[&str] = &[
    "test",
    "--package=weir-tests",
    "--features=kernel",
    "--test=programs",
    "--",
    "--nocapture",
    "--test-threads=1",
];

/// What a layer's running depends on.
struct Machine {
    is_root: bool,
    has_vectors: bool,
    has_apt: bool,
}

/// What a layer misses, and does not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Obstacle {
    Root,
    Vectors,
    Apt,
}

impl Obstacle {
    fn text(self) -> &'static str {
        match self {
            Self::Root => "needs root",
            Self::Vectors => "no vectors: neither ../shared/vectors nor WEIR_VECTORS",
            Self::Apt => "other kernels come as Debian's packages, and apt is not here",
        }
    }
}

/// Ctrl-C was pressed. The tests get it too and clean up; we wait for them and print what there is.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Runs the layers, all of them without any, and prints the summary.
///
/// # Errors
/// None of the tests'; they are in the exit code.
pub(crate) fn run_layers(workspace: &Workspace, layers: &[Layer]) -> Result<ExitCode> {
    let mut layers = if layers.is_empty() { Layer::value_variants().to_vec() } else { layers.to_vec() };
    layers.sort();
    layers.dedup();
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))?;
    let ci = env::var_os("CI").is_some_and(|value| value == "true");
    let machine =
        Machine { is_root: is_root(), has_vectors: workspace.lookup_vectors().is_some(), has_apt: has_apt() };
    let mut report = Report::new(ci);
    for layer in layers {
        let start = Instant::now();
        let (outcome, count) = run_layer(workspace, layer, &machine, ci);
        report.add(LayerReport { name: layer.name().into(), outcome, count, took: start.elapsed() });
        if INTERRUPTED.load(Ordering::Relaxed) {
            break;
        }
    }
    print!("{}", report.render(Style::of(&io::stdout())));
    // As a shell says of a program that was interrupted.
    Ok(if INTERRUPTED.load(Ordering::Relaxed) { ExitCode::from(130) } else { report.exit_code() })
}

fn run_layer(workspace: &Workspace, layer: Layer, machine: &Machine, ci: bool) -> (Outcome, Count) {
    match layer.obstacle(machine) {
        // They are part of what the CI has to have.
        Some(Obstacle::Vectors) if ci => {
            return (Outcome::Failed(Obstacle::Vectors.text().into()), Count::default());
        }
        Some(obstacle) => return (Outcome::NotRun(obstacle.text().into()), Count::default()),
        None => {}
    }
    let mut count = Count::default();
    let result = match layer {
        Layer::Check => run_checks(workspace, &mut count),
        Layer::Kernels => vm::run_layer(workspace, &mut count),
        _ => run_jobs(workspace, layer, &mut count),
    };
    let outcome = match result {
        Err(error) => Outcome::Failed(format!("{error:#}")),
        Ok(false) => Outcome::Failed(String::new()),
        Ok(true) if count.passed == 0 => Outcome::Failed("not a single test ran".into()),
        Ok(true) => Outcome::Passed,
    };
    (outcome, count)
}

fn run_checks(workspace: &Workspace, count: &mut Count) -> Result<bool> {
    let outcome = check::run_all(workspace)?;
    count.passed = outcome.passed;
    count.failed = outcome.failed.len();
    count.ignored = outcome.not_run.len();
    count.failures = outcome.failed;
    count.notes = outcome.not_run;
    Ok(count.failed == 0)
}

/// Whether all of the layer's jobs succeeded; the others run also after one failed.
fn run_jobs(workspace: &Workspace, layer: Layer, count: &mut Count) -> Result<bool> {
    ensure(workspace, layer.needs())?;
    if matches!(layer, Layer::Kubernetes | Layer::Programs | Layer::Lab) {
        announce(&format!("{}: building the agent", layer.name()));
        build_agent(workspace, Profile::Dev)?;
    }
    let mut image = None;
    if layer == Layer::Image {
        image = Some(make_image(workspace, count)?);
    }
    let mut good = true;
    for arguments in layer.jobs() {
        if INTERRUPTED.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let mut job = job_command(workspace, arguments);
        job.envs(image.iter().map(|path| ("WEIR_IMAGE", path)));
        announce(&format!("{}: {}", layer.name(), describe(&job)));
        good &= run_job(&mut job, count, &mut io::stdout())?;
    }
    Ok(good)
}

/// An image of the agent that the other layers test.
fn make_image(workspace: &Workspace, count: &mut Count) -> Result<PathBuf> {
    let made = image::make(workspace, Profile::Dev, None)?;
    count.figures.extend(made.figures);
    Ok(made.path)
}

fn job_command(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut job = cargo(workspace);
    job.args(arguments).env("WEIR_BIN", workspace.agent(Profile::Dev));
    if let Some(vectors) = workspace.lookup_vectors() {
        job.env("WEIR_VECTORS", vectors);
    }
    job
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_layer_lacks_is_said() {
        let poor = Machine { is_root: false, has_vectors: false, has_apt: false };
        assert_eq!(Layer::Unit.obstacle(&poor), None);
        assert_eq!(Layer::Vectors.obstacle(&poor), Some(Obstacle::Vectors));
        assert_eq!(Layer::Kubernetes.obstacle(&poor), Some(Obstacle::Root));
        assert_eq!(Layer::Programs.obstacle(&poor), Some(Obstacle::Root));
        assert_eq!(Layer::Packets.obstacle(&poor), Some(Obstacle::Root));
        assert_eq!(Layer::Lab.obstacle(&poor), Some(Obstacle::Root));
        assert_eq!(Layer::Kernels.obstacle(&poor), Some(Obstacle::Apt));
        let rich = Machine { is_root: true, has_vectors: true, has_apt: true };
        assert!(Layer::value_variants().iter().all(|layer| layer.obstacle(&rich).is_none()));
    }

    #[test]
    fn an_obstacle_is_never_a_pass() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::fixture(folder.path());
        let poor = Machine { is_root: false, has_vectors: false, has_apt: false };
        for ci in [false, true] {
            assert!(matches!(run_layer(&workspace, Layer::Lab, &poor, ci).0, Outcome::NotRun(_)));
        }
        assert!(matches!(run_layer(&workspace, Layer::Vectors, &poor, false).0, Outcome::NotRun(_)));
        assert!(matches!(run_layer(&workspace, Layer::Vectors, &poor, true).0, Outcome::Failed(_)));
    }

    #[test]
    fn every_layer_that_runs_cargo_has_jobs() {
        for layer in Layer::value_variants() {
            assert_eq!(layer.jobs().is_empty(), matches!(layer, Layer::Check | Layer::Kernels));
            assert_eq!(layer.to_possible_value().unwrap().get_name(), layer.name());
        }
    }
}
