//! `weir-bench`: what `cargo xtask bench` runs.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use weir_bench::record::{Machine, Record, now};
use weir_bench::report::Figure;
use weir_bench::stage::Variant;
use weir_bench::workload::Workload;
use weir_bench::{hook, nodeport, peer, policies, traffic};
use weir_tests::lab::{binary, teardown};

/// Traffic through a Service against the same traffic without any program, in pairs; and the cost of a connect.
/// Needs root and two CPUs that have little else to do.
#[derive(Parser, Debug)]
#[command(version, args_conflicts_with_subcommands = true, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// How many Services are loaded while traffic is measured
    #[arg(long, value_delimiter = ',', default_value = "10", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    services: Vec<u32>,
    /// How many Services are loaded while connect is measured
    #[arg(long, value_delimiter = ',', default_value = "1,1000,100000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    hook_services: Vec<u32>,
    /// How many Services have a node port while packets through a node are measured
    #[arg(long, value_delimiter = ',', default_value = "10,2700", value_parser = clap::value_parser!(u32).range(1..=2_760))]
    node_ports: Vec<u32>,
    /// Pairs of measurements of traffic
    #[arg(long, default_value_t = 40)]
    pairs: u32,
    /// Which packets through a node; all unless given
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = nodeport::Traffic::ALL)]
    nodeport_traffic: Vec<nodeport::Traffic>,
    /// Rounds of measurements of packets through a node
    #[arg(long, default_value_t = 40)]
    nodeport_rounds: u32,
    /// Rounds of measurements of connect
    #[arg(long, default_value_t = 60)]
    rounds: u32,
    /// How often policies are compiled from nothing; changes are measured ten times as often
    #[arg(long, default_value_t = 20)]
    compilations: u32,
    /// Milliseconds of a measurement of traffic
    #[arg(long, default_value_t = 500)]
    limit_ms: u64,
    /// What to measure; everything unless given
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Part>,
    /// The server pod on the other node instead of the client's
    #[arg(long)]
    across: bool,
    /// Another build of `weir` to be measured beside this one
    #[arg(long, value_name = "NAME=PATH", value_parser = parse_compare)]
    compare: Vec<(String, PathBuf)>,
    /// What orders and resamples are drawn from; another one each time unless given
    #[arg(long)]
    seed: Option<u64>,
    /// Few and short measurements: shows that it works, and no more
    #[arg(long)]
    quick: bool,
    /// Where the record goes; bench/results/<time>.json unless given
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Does in a pod what standard input says
    #[command(hide = true)]
    Peer {
        #[arg(long)]
        cpu: usize,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    Connect,
    Established,
    Stream,
    UdpConnect,
    Hook,
    Nodeport,
    Policies,
}

impl Part {
    fn workload(self) -> Option<Workload> {
        match self {
            Self::Connect => Some(Workload::Connect),
            Self::Established => Some(Workload::Established),
            Self::Stream => Some(Workload::Stream),
            Self::UdpConnect => Some(Workload::UdpConnect),
            Self::Hook | Self::Nodeport | Self::Policies => None,
        }
    }
}

fn parse_compare(text: &str) -> Result<(String, PathBuf)> {
    let (name, path) = text.split_once('=').context("expected NAME=PATH")?;
    if name.is_empty() || name.contains(['@', '[', ']', ' ']) {
        bail!("a name without spaces, brackets and @");
    }
    Ok((name.to_owned(), path.into()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Some(Command::Peer { cpu }) => peer::run(cpu),
        None => run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: Arguments) -> Result<()> {
    teardown::watch_signals()?;
    if arguments.quick {
        (arguments.pairs, arguments.rounds, arguments.limit_ms) = (2, 3, 60);
        arguments.hook_services = vec![1, 100];
        (arguments.nodeport_rounds, arguments.node_ports) = (2, vec![10, 100]);
        arguments.compilations = 2;
    }
    if arguments.only == [Part::Policies] {
        // It needs neither a lab nor an agent.
        return measure_policies(&arguments);
    }
    let weir = binary::find_weir()?;
    let seed = arguments.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    let mut record = Record {
        started: now(),
        arguments: std::env::args().skip(1).collect(),
        seed,
        machine: Machine::here(&weir)?,
        traffic: None,
        hook: None,
        nodeport: None,
        figures: Vec::new(),
    };
    let builds: Vec<(String, PathBuf)> =
        std::iter::once((String::new(), weir)).chain(arguments.compare.clone()).collect();
    if let Some(options) = traffic_options(&arguments, seed) {
        let variants = variants(&builds, &arguments.services);
        let outcome = traffic::run(&options, &variants, |done, of| progress("pairs", done, of))?;
        report_traffic(&outcome, &variants, seed, &mut record.figures);
        record.traffic = Some(outcome);
    }
    if arguments.only.is_empty() || arguments.only.contains(&Part::Hook) {
        let variants = variants(&builds, &arguments.hook_services);
        let calls = if arguments.quick { 500 } else { 10_000 };
        let options = hook::Options { rounds: arguments.rounds, calls, seed };
        let outcome = hook::run(&options, &variants, |done, of| progress("rounds", done, of))?;
        print(outcome.figures(&variants, seed), &mut record.figures);
        record.hook = Some(outcome);
    }
    if arguments.only.is_empty() || arguments.only.contains(&Part::Nodeport) {
        let outcome = measure_node_ports(&arguments, &builds, seed)?;
        print(outcome.figures(seed), &mut record.figures);
        record.nodeport = Some(outcome);
    }
    if arguments.only.is_empty() || arguments.only.contains(&Part::Policies) {
        measure_policies(&arguments)?;
    }
    println!("seed {seed}; record in {}", record.write(arguments.output)?.display());
    Ok(())
}

fn measure_policies(arguments: &Arguments) -> Result<()> {
    let seed = arguments.seed.unwrap_or_default();
    for figure in policies::measure(arguments.compilations, seed)? {
        println!("{figure}");
    }
    Ok(())
}

fn measure_node_ports(
    arguments: &Arguments,
    builds: &[(String, PathBuf)],
    seed: u64,
) -> Result<nodeport::Outcome> {
    let options = nodeport::Options {
        traffic: arguments.nodeport_traffic.clone(),
        rounds: arguments.nodeport_rounds,
        limit_ms: arguments.limit_ms.min(300),
        warm_up_ms: arguments.limit_ms.min(50),
        runs: if arguments.quick { 100 } else { 1_000 },
        seed,
    };
    let variants = variants(builds, &arguments.node_ports);
    let outcome = nodeport::run(&options, &variants, |done, of| progress("rounds", done, of))?;
    for (traffic, subject, rate) in outcome.rates() {
        println!("{traffic:16} {subject:14} {rate:14.0} deliveries/s");
    }
    for warning in outcome.warnings() {
        println!("note: {warning}");
    }
    Ok(outcome)
}

fn traffic_options(arguments: &Arguments, seed: u64) -> Option<traffic::Options> {
    let workloads: Vec<Workload> = match arguments.only.as_slice() {
        [] => Workload::ALL.into(),
        only => only.iter().filter_map(|part| part.workload()).collect(),
    };
    (!workloads.is_empty()).then_some(traffic::Options {
        workloads,
        pairs: arguments.pairs,
        server_node: if arguments.across { 2 } else { 1 },
        limit_ms: arguments.limit_ms,
        warm_up_ms: arguments.limit_ms.min(50),
        limit_count: 1_000_000,
        seed,
    })
}

fn variants(builds: &[(String, PathBuf)], services: &[u32]) -> Vec<Variant> {
    let of = |(name, binary): &(String, PathBuf)| -> Vec<Variant> {
        let variant =
            |services: &u32| Variant { name: name.clone(), binary: binary.clone(), services: *services };
        services.iter().map(variant).collect()
    };
    builds.iter().flat_map(of).collect()
}

fn report_traffic(outcome: &traffic::Outcome, variants: &[Variant], seed: u64, figures: &mut Vec<Figure>) {
    for (workload, subject, rate) in outcome.rates() {
        println!("{:13} {subject:12} {rate:14.0} {}", workload.name(), workload.unit());
    }
    print(outcome.figures(variants, seed), figures);
    print(outcome.cpu_figures(variants, seed), figures);
    for warning in outcome.warnings() {
        println!("note: {warning}");
    }
}

fn print(new: Vec<Figure>, figures: &mut Vec<Figure>) {
    for figure in &new {
        println!("{}", figure.lines());
    }
    figures.extend(new);
}

/// A line that is written over and over where somebody watches, and nothing elsewhere.
fn progress(what: &str, done: u32, of: u32) {
    let mut out = std::io::stderr();
    if !out.is_terminal() {
        return;
    }
    let end = if done == of { "\r\x1b[K" } else { "" };
    // nobody is hurt if it is not seen
    let _ = write!(out, "\r{what} {done}/{of}{end}").and_then(|()| out.flush());
}
