//! `cargo xtask fuzz`: looks for inputs under which something does not hold of what `ebpf/fuzz` tries, and says how
//! much of it they reach. What is found stays under `target/fuzz`, so that the next run begins where this one ended.

mod coverage;
mod tools;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::shell::{Style, announce, describe, run_quietly};
use crate::workspace::Workspace;
pub(crate) use tools::Tools;

/// What is fuzzed; the names are those of `weir_fuzz::Target`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Target {
    /// From objects to the tables of policies
    Compiler,
    /// Policies at the hooks of pods
    Guarded,
    /// From text to objects
    Manifests,
    /// Translation per packet, from the bytes of a frame to those of what becomes of it
    Packet,
    /// Translation at the socket
    Socket,
    /// The parser, beside another one
    Wire,
}

impl Target {
    const ALL: [Self; 6] =
        [Self::Compiler, Self::Guarded, Self::Manifests, Self::Packet, Self::Socket, Self::Wire];

    const fn name(self) -> &'static str {
        match self {
            Self::Compiler => "compiler",
            Self::Guarded => "guarded",
            Self::Manifests => "manifests",
            Self::Packet => "packet",
            Self::Socket => "socket",
            Self::Wire => "wire",
        }
    }
}

/// The longest input, in bytes: a world of everything and a dozen steps.
const MAX_LEN: u32 = 1024;

/// Where the targets and what they find are.
struct Places {
    /// The package of the targets.
    package: PathBuf,
    /// Every input that once broke something.
    regressions: PathBuf,
    /// What there is to begin with, for targets that would be long in coming to it.
    seeds: PathBuf,
    /// What is kept between runs.
    root: PathBuf,
}

impl Places {
    fn of(workspace: &Workspace) -> Self {
        let fuzz = workspace.root.join("ebpf/fuzz");
        Self {
            package: fuzz.join("targets"),
            regressions: fuzz.join("regressions"),
            seeds: fuzz.join("seeds"),
            root: workspace.root.join("target/fuzz"),
        }
    }

    fn corpus(&self, target: Target) -> PathBuf {
        self.root.join("corpus").join(target.name())
    }

    /// Where the inputs of a target are; what is found is put into the first.
    fn inputs(&self, target: Target) -> Vec<PathBuf> {
        let name = target.name();
        let mut folders = vec![self.corpus(target), self.regressions.join(name)];
        folders.extend(Some(self.seeds.join(name)).filter(|seeds| seeds.is_dir()));
        folders
    }
}

/// Fuzzes one target, or all in turn, for so many seconds altogether.
pub(crate) fn run(workspace: &Workspace, target: Option<Target>, seconds: u32) -> Result<ExitCode> {
    let tools = match Tools::ensure(workspace) {
        Ok(tools) => tools,
        Err(reason) => {
            println!("{} {reason:#}", Style::of(&std::io::stdout()).open("not run:"));
            return Ok(ExitCode::from(2));
        }
    };
    let places = Places::of(workspace);
    let targets = target.map_or(Target::ALL.to_vec(), |target| vec![target]);
    announce("building the fuzz targets");
    build(&tools, &places)?;
    let share = seconds / u32::try_from(targets.len()).context("a few targets")?;
    let mut executions = 0;
    for target in &targets {
        announce(&format!("{}: {share} s", target.name()));
        executions += fuzz(&tools, &places, *target, share.max(1))?;
    }
    println!("figure fuzz.executions {executions}");
    announce("what the corpus reaches");
    coverage::report(workspace, &tools, &places, &targets)
}

/// Builds the targets, with the compiler's counters that guide them. Without a sanitizer: what is fuzzed has no unsafe code.
fn build(tools: &Tools, places: &Places) -> Result<()> {
    let mut build = tools.nightly(&tools.cargo_fuzz);
    build.args(["build", "--sanitizer=none", "--fuzz-dir"]).arg(&places.package);
    run_quietly(build.arg("--target-dir").arg(&places.root).current_dir(&places.package))
}

/// The number of inputs that were tried.
fn fuzz(tools: &Tools, places: &Places, target: Target, seconds: u32) -> Result<u64> {
    let name = target.name();
    let artifacts = places.root.join("artifacts").join(name);
    fs::create_dir_all(places.corpus(target)).context("the corpus")?;
    fs::create_dir_all(&artifacts).context("the artifacts")?;
    let log = places.root.join(format!("{name}.log"));
    let mut fuzz = Command::new(places.root.join(&tools.triple).join("release").join(name));
    fuzz.args([format!("-max_total_time={seconds}"), format!("-max_len={MAX_LEN}")]);
    fuzz.args(["-len_control=0", "-print_final_stats=1"]);
    fuzz.arg(format!("-artifact_prefix={}/", artifacts.display()));
    fuzz.args(places.inputs(target));
    let file = File::create(&log).with_context(|| log.display().to_string())?;
    let status = fuzz.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).status();
    let status = status.with_context(|| format!("cannot run {}", describe(&fuzz)))?;
    let said = fs::read(&log).with_context(|| log.display().to_string())?;
    let said = String::from_utf8_lossy(&said);
    if !status.success() {
        bail!(
            "{name}: {}\n{} has all of it; put the input under a name that says what broke into {}, where `cargo test \
             -p weir-fuzz` tries it again",
            lookup_fault(&said, &artifacts),
            log.display(),
            places.regressions.join(name).display()
        );
    }
    read_executions(&said).with_context(|| format!("{} says nothing of executions", log.display()))
}

/// What libFuzzer counted.
fn read_executions(said: &str) -> Option<u64> {
    let line = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    line.trim().parse().ok()
}

/// The message of the panic, and the file that libFuzzer wrote.
fn lookup_fault(said: &str, artifacts: &Path) -> String {
    let message = said.lines().skip_while(|line| !line.contains("panicked at")).take(4);
    let input = said.lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, path)| path));
    let mut lines: Vec<&str> = message.take_while(|line| !line.starts_with("stack backtrace")).collect();
    if lines.is_empty() {
        lines.push("it ended without a panic");
    }
    let shown = artifacts.display().to_string();
    lines.push(input.unwrap_or(&shown));
    lines.join("\n")
}

/// Whether the targets still fit what they test.
///
/// # Errors
/// What the compiler says.
pub(crate) fn check_targets(workspace: &Workspace, tools: &Tools) -> Result<()> {
    let places = Places::of(workspace);
    let mut check = tools.nightly("cargo".as_ref());
    check.args(["check", "--quiet", "--locked", "--target-dir"]).arg(&places.root);
    run_quietly(check.current_dir(&places.package).env("RUSTFLAGS", "-Dwarnings"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_read_from_the_last_statistics() {
        let said = "#2\tINITED\nstat::number_of_executed_units: 590048\nstat::average_exec_per_sec: 22694\n";
        assert_eq!(read_executions(said), Some(590_048));
        assert_eq!(read_executions("#2\tINITED\n"), None);
    }

    #[test]
    fn a_fault_is_a_message_and_a_file() {
        let said = "#2 INITED\nthread panicked at lib.rs:1:2:\nassertion failed: left\nstack backtrace:\n 0: main\n\
                    artifact_prefix='a/'; Test unit written to a/crash-1\n";
        let fault = lookup_fault(said, Path::new("a"));
        assert_eq!(fault, "thread panicked at lib.rs:1:2:\nassertion failed: left\na/crash-1");
        assert_eq!(lookup_fault("killed", Path::new("a")), "it ended without a panic\na");
    }

    #[test]
    fn every_target_has_its_regressions() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let places = Places::of(&Workspace::fixture(root));
        for target in Target::ALL {
            assert!(places.regressions.join(target.name()).is_dir(), "{target:?}");
            assert!(places.package.join(target.name()).with_extension("rs").is_file(), "{target:?}");
        }
    }
}
