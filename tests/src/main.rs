//! `weir-lab`: the lab from the command line.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use weir_tests::lab::topology::Settings;
use weir_tests::lab::{Cluster, teardown};
use weir_tests::{demo, prober};

/// A cluster of network namespaces on this machine.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what Weir does, in a lab that is gone afterwards. Fails if anything is not as it should be.
    Demo,
    /// Make a lab with a pod on each node and keep it until interrupted.
    Up {
        /// Run an agent on each node.
        #[arg(long)]
        agents: bool,
        /// Let the bridges send a frame back to the pod that it came from.
        #[arg(long)]
        hairpin: bool,
    },
    /// Remove what is left of labs whose process was killed.
    Sweep,
    /// Serve and connect at the command of standard input.
    #[command(hide = true)]
    Prober,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weir-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo => {
            teardown::watch_signals()?;
            Ok(if demo::run()? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Up { agents, hairpin } => up(agents, Settings { hairpin, ..Settings::default() }),
        Command::Sweep => teardown::sweep().map(|()| ExitCode::SUCCESS),
        Command::Prober => prober::run().map(|()| ExitCode::SUCCESS),
    }
}

fn up(agents: bool, settings: Settings) -> Result<ExitCode> {
    teardown::watch_signals()?;
    let mut cluster = Cluster::create(settings, &[(1, "n1-a"), (2, "n2-a")])?;
    if agents {
        cluster.start_agents()?;
    }
    println!("lab {}; manifests in {}", cluster.lab().id(), cluster.manifests.directory().display());
    for node in cluster.lab().nodes() {
        for place in std::iter::once(node.place()).chain(node.pods().iter().map(|pod| &pod.place)) {
            println!("  {:8} nsenter --net={}", place.name(), place.netns().path().display());
        }
    }
    println!("Ctrl-C removes it");
    loop {
        std::thread::park();
    }
}
