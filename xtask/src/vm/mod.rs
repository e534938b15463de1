//! `cargo xtask vm`: the tests that load programs, on other kernels than this machine's, and on the other processor.
//!
//! * [`archive`]: Debian's packages, without installing them.
//! * [`kernel`]: a kernel and its modules.
//! * [`tests`]: which tests there are for it, and building them.
//! * [`guest`]: what is in the machine: init, programs, modules, tests.
//! * [`machine`]: the machine in software, and what its tests said.
//!
//! Nothing of it needs root, nor changes this machine. The layer `kernels` of `cargo xtask test` is one such machine.

mod archive;
mod guest;
mod kernel;
mod machine;
mod tests;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure as check};
use clap::{Args, ValueEnum};

use self::archive::{Archive, Part};
use self::guest::{Guest, Userland};
use self::kernel::Kernel;
pub(crate) use self::kernel::Series;
use self::machine::{Clock, Ended};
use self::tests::{Job, Suite};
use crate::cross::Cross;
use crate::setup::{Need, ensure};
use crate::shell::{Style, announce};
use crate::suite::{Count, LayerReport, Outcome, Report};
use crate::workspace::Workspace;

pub(crate) use self::archive::KEYRING;

/// The oldest kernel that Weir is made for.
pub(crate) const FLOOR: Series = Series::new(6, 1);

/// For machines that take a minute or two where nothing else runs.
const LAYER_PATIENCE: Duration = Duration::from_secs(900);

/// What may be asked for.
#[derive(Args)]
pub(crate) struct Options {
    /// Kernels, by their series; each is a machine of its own
    #[arg(long, value_name = "SERIES", value_delimiter = ',', default_values_t = [FLOOR])]
    kernel: Vec<Series>,
    /// The processor; this machine's without it
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// After so many seconds a machine is ended
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    timeout: u64,
    /// What to run; `packets` and `programs` without any
    #[arg(value_enum)]
    suites: Vec<Suite>,
}

/// A processor that Weir is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Arch {
    /// amd64, as Debian says
    #[value(name = "x86-64")]
    X86_64,
    /// aarch64, as compilers say
    Arm64,
}

impl Arch {
    /// This machine's.
    ///
    /// # Errors
    /// It is none of them.
    pub(crate) fn here() -> Result<Self> {
        match env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Arm64),
            other => bail!("Weir is not made for {other}"),
        }
    }

    /// As Debian calls it.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As rustc calls it, with Linux and glibc.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// Runs what was asked for, and prints a summary.
///
/// # Errors
/// A machine cannot be made; what its tests find is in the exit code.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let arch = options.arch.map_or_else(Arch::here, Ok)?;
    let suites =
        if options.suites.is_empty() { &[Suite::Packets, Suite::Programs] } else { &options.suites[..] };
    let lab = Lab::new(workspace, arch, suites, Duration::from_secs(options.timeout))?;
    let mut report = Report::new(env::var_os("CI").is_some_and(|value| value == "true"));
    for series in &options.kernel {
        for ended in lab.run(*series)? {
            let name = format!("{series} {}", ended.name);
            report.add(LayerReport { name, outcome: ended.outcome, count: ended.count, took: ended.took });
        }
    }
    print!("{}", report.render(Style::of(&io::stdout())));
    Ok(report.exit_code())
}

/// The layer `kernels`: packets on the oldest kernel, and what they cost there under policies. Whether all of it passed.
///
/// # Errors
/// A machine cannot be made, or something in it did not end.
pub(crate) fn run_layer(workspace: &Workspace, count: &mut Count) -> Result<bool> {
    let mut good = true;
    for suite in [Suite::Packets, Suite::Instructions] {
        let lab = Lab::new(workspace, Arch::here()?, &[suite], LAYER_PATIENCE)?;
        for ended in lab.run(FLOOR)? {
            match ended.outcome {
                Outcome::Passed => {}
                Outcome::Failed(reason) | Outcome::NotRun(reason) => {
                    good = false;
                    if !reason.is_empty() {
                        count.failures.push(format!("{FLOOR} {}: {reason}", ended.name));
                    }
                }
            }
            count.add(ended.count);
        }
    }
    Ok(good)
}

/// What the machines of one processor have in common.
struct Lab<'a> {
    workspace: &'a Workspace,
    arch: Arch,
    folder: PathBuf,
    userland: Userland,
    jobs: Vec<Job>,
    strip: String,
    patience: Duration,
    clock: Clock,
    /// What is not run on any kernel, and why.
    not_run: Vec<String>,
}

impl<'a> Lab<'a> {
    fn new(workspace: &'a Workspace, arch: Arch, suites: &[Suite], patience: Duration) -> Result<Self> {
        ensure(workspace, &[Need::Toolchain, Need::Machines(arch)])?;
        let folder = workspace.root.join("target/vm").join(arch.debian());
        fs::create_dir_all(&folder)?;
        let cross = (arch != Arch::here()?).then(|| Cross::ensure(workspace, arch)).transpose()?;
        // What has to be fetched comes first: it is what may not be there.
        let (userland, strip) = match &cross {
            None => (Userland::Host, "strip".to_owned()),
            Some(cross) => (Userland::Unpacked(ensure_userland(&folder, arch)?), cross.tool("strip")),
        };
        let jobs = tests::build(workspace, suites, cross.as_ref())?;
        let exact = suites.contains(&Suite::Instructions);
        check!(!exact || suites.len() == 1, "instructions are counted on a machine of their own");
        let clock = if exact { Clock::Instructions } else { Clock::Time };
        let mut lab =
            Self { workspace, arch, folder, userland, jobs, strip, patience, clock, not_run: Vec::new() };
        if workspace.lookup_vectors().is_none() {
            lab.jobs.retain(|job| job.name != tests::VECTORS);
            lab.not_run.push("the conformance vectors: there are none".to_owned());
        }
        Ok(lab)
    }

    /// Boots that kernel and runs everything on it.
    fn run(&self, series: Series) -> Result<Vec<Ended>> {
        let kernel = Kernel::ensure(&self.folder, self.arch, series)?;
        let mut guest = Guest::new(&self.userland)?;
        guest.add_modules(&kernel.modules()?)?;
        if let Some(vectors) = self.workspace.lookup_vectors() {
            guest.add_vectors(&vectors)?;
        }
        let mut notes = self.not_run.clone();
        let mut names = Vec::new();
        for job in &self.jobs {
            let (job, lacking) = job.on(series);
            notes.extend(lacking.iter().map(|what| format!("on {series}: {what}")));
            names.push(job.name.clone());
            guest.add_job(&job, &self.strip)?;
        }
        let initramfs = tempfile::NamedTempFile::new()?;
        guest.pack(initramfs.path())?;
        drop(guest);
        announce(&format!("booting {} ({})", kernel.release, self.arch.debian()));
        let mut command = machine::command(self.arch, self.clock, &kernel.image, initramfs.path());
        let mut ended = machine::run(&mut command, &names, self.patience, &mut io::stdout())?;
        for count in ended.iter_mut().map(|ended| &mut ended.count) {
            count.figures = count.figures.iter().map(|figure| figure_on(figure, series)).collect();
        }
        let first = ended.first_mut().context("nothing is to be run")?;
        first.count.notes.extend(notes);
        Ok(ended)
    }
}

/// A figure of another kernel than this machine's: `figure NAME@6.1 VALUE`.
fn figure_on(figure: &str, series: Series) -> String {
    match figure.rsplit_once(' ') {
        Some((name, value)) => format!("{name}@{series} {value}"),
        None => figure.to_owned(),
    }
}

/// Debian's library for that compiler and processor, unpacked, as a sysroot.
///
/// # Errors
/// It is not there in this version, or what apt said.
pub(crate) fn unpack_library(folder: &Path, arch: Arch, version: &str) -> Result<PathBuf> {
    let root = folder.join(format!("rust-{version}"));
    if !root.is_dir() {
        let unpacked = folder.join("rust.new");
        let _left_by_one_that_was_interrupted = fs::remove_dir_all(&unpacked);
        let archive = Archive::open(folder.join("apt"), arch, &[Part::Stable, Part::Security])?;
        archive.unpack_library(version, &unpacked)?;
        fs::rename(&unpacked, &root)?;
    }
    Ok(root.join("usr"))
}

/// Programs of the other architecture, from Debian's packages.
fn ensure_userland(folder: &Path, arch: Arch) -> Result<PathBuf> {
    let root = folder.join("userland");
    if !root.is_dir() {
        let unpacked = folder.join("userland.new");
        let _left_by_one_that_was_interrupted = fs::remove_dir_all(&unpacked);
        let archive = Archive::open(folder.join("apt-userland"), arch, &[Part::Stable])?;
        archive.unpack_with_dependencies(&["busybox-static", "iproute2"], &unpacked)?;
        fs::rename(&unpacked, &root)?;
    }
    Ok(root)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn figures_say_which_kernel_they_are_about() {
        assert_eq!(figure_on("figure vectors.flows 446/446", FLOOR), "figure vectors.flows@6.1 446/446");
    }

    #[test]
    fn the_floor_is_the_default() {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        let asked =
            |words: &[&str]| Line::try_parse_from(std::iter::once(&"vm").chain(words)).unwrap().options;
        assert_eq!(asked(&[]).kernel, [FLOOR]);
        let several = asked(&["--kernel", "6.1,6.12", "--arch=arm64", "packets"]);
        assert_eq!(several.kernel, [FLOOR, Series::new(6, 12)]);
        assert_eq!((several.arch, several.suites), (Some(Arch::Arm64), vec![Suite::Packets]));
    }
}
