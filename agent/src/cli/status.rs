//! `weir status`

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;
use weir_ebpf::abi::{Counter, DropReason};

use super::{PinArgs, RunArgs};
use crate::kernel::{Attached, AttachedDevice, View, attached, attached_devices, expected};
use crate::observe::{self, Report, ReportedProblem};
use crate::source::Connection;
use crate::tables::Sizes;

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pins: PinArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What the kernel and the agent say, together.
#[derive(Serialize)]
struct Status {
    ready: bool,
    agent: Option<Report>,
    hooks: Vec<Attached>,
    hooks_expected: usize,
    device_hooks: Vec<AttachedDevice>,
    tables: Option<TableStatus>,
    drops: BTreeMap<&'static str, u64>,
    events: BTreeMap<&'static str, u64>,
    problems: Vec<ReportedProblem>,
}

#[derive(Serialize)]
struct TableStatus {
    sizes: Sizes,
    rows: BTreeMap<&'static str, usize>,
}

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let status = read(args)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print(&status);
    }
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(args: &StatusArgs) -> anyhow::Result<Status> {
    let root = args.pins.root();
    let mut agent = observe::ask(&args.run.run_dir)?;
    let (hooks, device_hooks) = (attached(&root)?, attached_devices(&root)?);
    let view = View::open(&root)?;
    let (mut drops, mut events) = (BTreeMap::new(), BTreeMap::new());
    let mut tables = None;
    if let Some(view) = &view {
        for (counter, value) in view.counters()? {
            let is_drop = DropReason::ALL.iter().any(|&reason| Counter::from(reason) == counter);
            let kind = if is_drop { &mut drops } else { &mut events };
            kind.insert(counter.label(), value);
        }
        tables = Some(table_status(view)?);
    }
    let complete = hooks.len() == expected() && hooks.iter().all(|hook| hook.cgroup != 0);
    Ok(Status {
        ready: complete && agent.as_ref().is_some_and(|agent| agent.ready),
        problems: agent.as_mut().map(take_problems).unwrap_or_default(),
        agent,
        hooks,
        hooks_expected: expected(),
        device_hooks,
        tables,
        drops,
        events,
    })
}

/// Those of objects, and those of the node.
fn take_problems(agent: &mut Report) -> Vec<ReportedProblem> {
    let mut problems = std::mem::take(&mut agent.problems);
    problems.append(&mut agent.network.problems);
    problems
}

fn table_status(view: &View) -> anyhow::Result<TableStatus> {
    let snapshot = view.snapshot()?;
    let rows = BTreeMap::from([
        ("frontends", snapshot.frontends.len()),
        ("services", snapshot.names.len()),
        ("backends", snapshot.backends.len()),
        ("connections", view.connections()?.len()),
        ("datagrams", view.datagrams()?.len()),
        ("affinity", view.affinity()?.len()),
        ("flows", view.count_flows()?),
        ("source_ranges", snapshot.source_ranges.len()),
    ]);
    Ok(TableStatus { sizes: view.generation().sizes(), rows })
}

fn print(status: &Status) {
    match &status.agent {
        Some(agent) => {
            let ready = if status.ready { "ready" } else { "not ready" };
            println!(
                "agent     {ready}: version {}, node {}, process {}",
                agent.version, agent.node, agent.pid
            );
            println!("source    {}", agent.source);
            if let Some(connection) = &agent.connection {
                println!("server    {}", describe(connection));
            }
            let objects = agent.objects;
            println!(
                "objects   {} Services, {} endpoints in {} EndpointSlices",
                objects.services, objects.endpoints, objects.slices
            );
            println!(
                "writing   {} batches, the last took {} us, the slowest {} us",
                agent.syncs, agent.last_sync_us, agent.slowest_sync_us
            );
        }
        None => println!("agent     none runs; what is pinned stays in force"),
    }
    if let Some(agent) = &status.agent {
        print_network(agent);
    }
    print_kernel(status);
    if status.agent.is_none() {
        return;
    }
    match status.problems.len() {
        0 => println!("problems  none"),
        count => println!("problems  {count}"),
    }
    for problem in &status.problems {
        println!("  {}: {}: {}", problem.object, problem.field, problem.message);
    }
}

fn print_network(agent: &Report) {
    let network = &agent.network;
    let devices: Vec<String> = network
        .devices
        .iter()
        .map(|device| {
            let addresses: Vec<String> =
                device.v4.iter().chain(&device.v6).map(std::string::ToString::to_string).collect();
            format!("{} ({})", device.name, addresses.join(" "))
        })
        .collect();
    println!("devices   {}", if devices.is_empty() { "none".into() } else { devices.join(", ") });
    println!("pods      {} with {} addresses", network.pods, network.pod_addresses);
    if network.pods_without_namespace > 0 {
        println!(
            "  {} of them in a network namespace that cannot be reached from here",
            network.pods_without_namespace
        );
    }
    let flows = agent.flows;
    println!(
        "flows     {} rows, the oldest began {} s ago, {} swept",
        flows.rows, flows.oldest_s, flows.swept
    );
}

/// Where the source watches, and whether it hears of changes.
fn describe(connection: &Connection) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let for_s = now.saturating_sub(connection.since_s);
    let Connection { server, error, errors, .. } = connection;
    if connection.connected {
        return format!("{server}: connected for {for_s} s ({errors} errors so far)");
    }
    let why = if error.is_empty() { "connecting" } else { error };
    format!("{server}: NOT CONNECTED for {for_s} s, what is known stays in force: {why}")
}

fn print_kernel(status: &Status) {
    let gone = status.hooks.iter().filter(|hook| hook.cgroup == 0).count();
    println!("hooks     {} of {} attached", status.hooks.len() - gone, status.hooks_expected);
    println!("          {} on devices", status.device_hooks.len());
    let Some(tables) = &status.tables else {
        println!("tables    none");
        return;
    };
    let sizes = tables.sizes;
    let room = |table: &str| match table {
        "frontends" => sizes.frontends,
        "services" => sizes.services,
        "backends" => sizes.backends,
        "connections" => sizes.connections,
        "datagrams" => sizes.datagrams,
        "affinity" => sizes.affinity,
        "flows" => sizes.flows,
        _ => sizes.source_ranges,
    };
    let rows: Vec<String> =
        tables.rows.iter().map(|(table, rows)| format!("{table} {rows}/{}", room(table))).collect();
    println!("tables    {}", rows.join(", "));
    for (title, counters) in [("drops", &status.drops), ("events", &status.events)] {
        let counters: Vec<String> = counters.iter().map(|(name, value)| format!("{name} {value}")).collect();
        println!("{title:<9} {}", counters.join(", "));
    }
}
