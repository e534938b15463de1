//! The commands that a person types.

mod agent;
mod cleanup;
mod drops;
mod network;
mod services;
mod status;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::kernel::PinRoot;

/// Kubernetes Services in eBPF: replaces kube-proxy beside any CNI plugin.
#[derive(Parser, Debug)]
#[command(name = "weir", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve this node: watch the cluster, keep the tables true. Ends with SIGTERM and leaves everything in place.
    Agent(Box<agent::AgentArgs>),
    /// What is loaded and attached, how full the tables are, what is wrong. Exit code 0: ready; 1: not.
    Status(status::StatusArgs),
    /// What each Service resolves to on this node, read from the kernel.
    Services(services::ServicesArgs),
    /// What was dropped or refused lately, by name, and why; from the agent that runs.
    Drops(drops::DropsArgs),
    /// Remove every program and table from the kernel.
    Cleanup(cleanup::CleanupArgs),
}

/// Where everything is pinned.
#[derive(Args, Clone, Debug)]
struct PinArgs {
    /// Directory for pinned programs and tables, on a BPF file system.
    #[arg(long, env = "WEIR_PIN_ROOT", default_value = "/sys/fs/bpf/weir", value_name = "DIR")]
    pin_root: PathBuf,
}

impl PinArgs {
    fn root(&self) -> PinRoot {
        PinRoot::new(&self.pin_root)
    }
}

/// Where the agent answers.
#[derive(Args, Clone, Debug)]
struct RunArgs {
    /// Directory for the agent's lock and socket.
    #[arg(long, env = "WEIR_RUN_DIR", default_value = "/run/weir", value_name = "DIR")]
    run_dir: PathBuf,
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let result = match cli.command {
        Command::Agent(args) => agent::run(*args),
        Command::Status(args) => status::run(&args),
        Command::Services(args) => services::run(&args),
        Command::Drops(args) => drops::run(&args),
        Command::Cleanup(args) => cleanup::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::FAILURE
        }
    }
}
