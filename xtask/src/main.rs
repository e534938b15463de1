//! `cargo xtask`: what a person or the CI does with this repository. Each command first installs what it misses
//! ([`setup`]) and ends with a useful exit code: 0 done, 1 something failed, 2 not everything could run (CI only).

mod check;
mod cluster;
mod cross;
mod fuzz;
mod image;
mod setup;
mod shell;
mod suite;
mod vm;
mod workspace;

use std::path::PathBuf;
use std::process::{self, ExitCode};

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::cross::Cross;
use crate::setup::Need;
use crate::shell::{Style, cargo, replace_process, run};
use crate::suite::Layer;
use crate::vm::Arch;
use crate::workspace::{Profile, Workspace};

/// Builds, checks and tests Weir.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Make this machine able to build and test; says what it does, and nothing where nothing is missing
    Setup,
    /// Build the binary `weir` with the eBPF programs in it
    Build {
        /// As it is shipped
        #[arg(long)]
        release: bool,
        /// For that processor, if it is not this machine's; linked statically
        #[arg(long, value_enum)]
        arch: Option<Arch>,
    },
    /// Format, lints, licences, layers, ABI, and whether two builds of the eBPF programs are the same
    Check {
        /// Record the layout of the rows in ebpf/abi.lock; refused where it changed and ABI_VERSION did not rise
        #[arg(long)]
        bless_abi: bool,
    },
    /// Test everything, or the layers that are named; kernel layers need root
    Test {
        /// Which layers; all without any
        #[arg(value_enum)]
        layers: Vec<Layer>,
    },
    /// Test the programs on other kernels, on machines in software
    Vm(vm::Options),
    /// Look for inputs that break the datapath; says how many were tried and which lines they reach
    Fuzz {
        /// What to fuzz; all in turn without it
        #[arg(value_enum)]
        target: Option<fuzz::Target>,
        /// For how long, altogether
        #[arg(long, default_value_t = 600)]
        seconds: u32,
    },
    /// Build the container image as one file, for `docker load`, `ctr images import` and `kind load image-archive`
    Image {
        /// Where to; below target/ without it
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// Two nodes in network namespaces, an agent on each, and real connections through a Service
    Demo,
    /// A real Kubernetes cluster of three nodes on this machine, with Weir on it and without kube-proxy
    Cluster(cluster::ClusterArgs),
    /// Measure traffic through a Service against traffic without Weir
    Bench {
        /// For the benchmark itself
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let Some(command) = Arguments::parse().command else {
        // To standard output: somebody who asks without words asks for help.
        return match Arguments::command().print_long_help() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    };
    match dispatch(command) {
        Ok(code) => code,
        Err(error) => {
            let style = Style::of(&std::io::stderr());
            eprintln!("{} {error:#}", style.bad("error:"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    let workspace = Workspace::here()?;
    match command {
        Command::Setup => setup::ensure(&workspace, &[Need::Toolchain, Need::Lab, Need::Style])?,
        Command::Build { release, arch } => {
            let profile = if release { Profile::Release } else { Profile::Dev };
            println!("{}", build_agent_for(&workspace, profile, arch)?.display());
        }
        Command::Check { bless_abi: true } => check::bless_abi(&workspace)?,
        Command::Check { bless_abi: false } => {
            let outcome = check::run_all(&workspace)?;
            return Ok(if outcome.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Test { layers } => return suite::run_layers(&workspace, &layers),
        Command::Vm(options) => return vm::run(&workspace, &options),
        Command::Fuzz { target, seconds } => return fuzz::run(&workspace, target, seconds),
        Command::Cluster(arguments) => return cluster::run(&workspace, &arguments),
        Command::Image { output } => {
            setup::ensure(&workspace, &[Need::Toolchain])?;
            let made = image::make(&workspace, Profile::Release, output.as_deref())?;
            made.figures.iter().for_each(|figure| println!("{figure}"));
            println!("{}", made.path.display());
        }
        Command::Demo => {
            setup::ensure(&workspace, &[Need::Toolchain, Need::Lab])?;
            build_agent(&workspace, Profile::Dev)?;
            let mut demo = cargo(&workspace);
            demo.args(["run", "--quiet", "--package=weir-tests", "--bin=weir-lab", "--", "demo"]);
            demo.env("WEIR_BIN", workspace.agent(Profile::Dev));
            return Err(replace_process(demo));
        }
        Command::Bench { arguments } => {
            setup::ensure(&workspace, &[Need::Toolchain, Need::Lab])?;
            build_agent(&workspace, Profile::Release)?;
            let mut bench = cargo(&workspace);
            bench.args(["run", "--quiet", "--release", "--package=weir-bench", "--"]).args(arguments);
            bench.env("WEIR_BIN", workspace.agent(Profile::Release));
            return Err(replace_process(bench));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the binary `weir` for that processor, or this machine, and says where it is.
fn build_agent_for(workspace: &Workspace, profile: Profile, arch: Option<Arch>) -> Result<PathBuf> {
    setup::ensure(workspace, &[Need::Toolchain])?;
    let Some(arch) = arch.filter(|arch| Arch::here().ok() != Some(*arch)) else {
        build_agent(workspace, profile)?;
        return Ok(workspace.agent(profile));
    };
    let mut build = agent_command(workspace, profile);
    Cross::ensure(workspace, arch)?.prepare(&mut build);
    run(&mut build)?;
    Ok(workspace.agent_for(arch.triple(), profile))
}

/// Builds the binary `weir`.
fn build_agent(workspace: &Workspace, profile: Profile) -> Result<()> {
    run(&mut agent_command(workspace, profile))
}

fn agent_command(workspace: &Workspace, profile: Profile) -> process::Command {
    let mut build = cargo(workspace);
    build.args(["build", "--package=weir-agent"]);
    if profile == Profile::Release {
        build.arg("--release");
    }
    build
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn layers_are_named_as_in_the_summary() {
        let Some(Command::Test { layers }) = Arguments::parse_from(["xtask", "test", "unit", "lab"]).command
        else {
            panic!("not the command that was asked for");
        };
        assert_eq!(layers, [Layer::Unit, Layer::Lab]);
    }
}
