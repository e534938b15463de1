//! `weir status`

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;
use weir_ebpf::abi::{Counter, DropReason};

use super::{PinArgs, RunArgs};
use crate::kernel::{Attached, AttachedDevice, View, attached, attached_devices, expected};
use crate::observe::{self, Hold, PlaceReport, Report, ReportedProblem};
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
    /// Those that can be chosen.
    sizes: Sizes,
    /// Of every table.
    capacity: BTreeMap<String, u32>,
    rows: BTreeMap<String, usize>,
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
    let mut rows = BTreeMap::from([
        ("frontends".into(), snapshot.frontends.len()),
        ("services".into(), snapshot.names.len()),
        ("backends".into(), snapshot.backends.len()),
        ("source_ranges".into(), snapshot.source_ranges.len()),
    ]);
    let sizes = view.generation().sizes();
    let mut capacity: BTreeMap<String, u32> =
        sizes.rows().into_iter().map(|(table, rows)| (table.into(), rows)).collect();
    for fill in view.fills()?.into_iter().chain(view.fills_of_flows()?) {
        rows.insert(fill.table.clone(), fill.rows);
        capacity.insert(fill.table, fill.capacity);
    }
    Ok(TableStatus { sizes, capacity, rows })
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
            println!("closed    {} sockets, for their backend is gone", agent.closed_sockets);
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
    print_policies(agent);
    println!("told of   {} drops, one by one (`weir drops` has the last of them)", agent.drops_read);
}

fn print_policies(agent: &Report) {
    let (policies, objects) = (agent.policies, agent.objects);
    if !policies.is_on {
        return println!("policies  none");
    }
    println!(
        "policies  {} NetworkPolicies and {} ClusterNetworkPolicies, {} of them audited",
        objects.policies, objects.cluster_policies, objects.audited
    );
    println!(
        "          {} of {} known pods are isolated; {} flows of theirs, {} swept",
        policies.isolated, policies.pods, policies.judged, policies.swept
    );
    print_where_held(agent);
    print_places(&agent.places);
}

/// Where pods that nobody knows are not held, and why.
fn print_where_held(agent: &Report) {
    for Hold { at, off } in observe::holds(agent) {
        if let Some(off) = off {
            println!("          pods that nobody knows are not held at their {at}: {}", off.describe());
        }
    }
    if !agent.places.hold.untold.is_empty() {
        println!("          these are at {}", agent.places.hold.untold.join(", "));
    }
}

/// Who is held, who passes that no policy is about, and what is wrong with addresses.
fn print_places(places: &PlaceReport) {
    if places.holds > 0 {
        println!(
            "held      {} pods until they were known, {:.3} s each on average, {:.3} s at most",
            places.holds,
            places.hold_seconds / places.holds as f64,
            places.longest_hold_seconds
        );
    }
    for held in &places.held {
        println!("  {} is HELD for {} s: {}", held.name, held.for_s, held.why);
    }
    let list = |title: &str, names: &[String]| {
        if !names.is_empty() {
            println!("{title:<9} {}", names.join(", "));
        }
    };
    list("no pods", &places.others);
    list("not held", &places.unenforced);
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
    print_device_hooks(status);
    let Some(tables) = &status.tables else {
        println!("tables    none");
        return;
    };
    let room = |table: &str| tables.capacity.get(table).copied().unwrap_or_default();
    let rows: Vec<String> =
        tables.rows.iter().map(|(table, rows)| format!("{table} {rows}/{}", room(table))).collect();
    println!("tables    {}", rows.join(", "));
    let drops = DropReason::ALL.iter().map(|reason| (reason.label(), reason.help()));
    print_counters("drops", &status.drops, drops);
    let events = Counter::ALL.iter().map(|counter| (counter.label(), counter.help()));
    print_counters("events", &status.events, events);
}

/// Device by device: those of pods are many, and all alike.
fn print_device_hooks(status: &Status) {
    let mut devices: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for hook in &status.device_hooks {
        devices.entry(hook.device).or_default().push(&hook.hook);
    }
    let is_pods = |hooks: &[&str]| hooks.iter().all(|hook| hook.ends_with("_pod"));
    let pods = devices.values().filter(|hooks| is_pods(hooks)).count();
    println!("          {} on {} devices, {pods} of them pods'", status.device_hooks.len(), devices.len());
    let known = status.agent.iter().flat_map(|agent| &agent.network.devices);
    let names: BTreeMap<u32, &str> = known.map(|device| (device.index, device.name.as_str())).collect();
    for (device, hooks) in devices.iter().filter(|(_, hooks)| !is_pods(hooks)) {
        let name = names.get(device).map_or_else(|| format!("device {device}"), |name| (*name).to_owned());
        println!("  {name}: {}", hooks.join(", "));
    }
}

/// What was counted at all, and what it means.
fn print_counters<'a>(
    title: &str,
    counted: &BTreeMap<&'static str, u64>,
    meanings: impl Iterator<Item = (&'a str, &'a str)>,
) {
    let meanings = meanings.filter_map(|(label, help)| Some((label, counted.get(label)?, help)));
    let seen: Vec<_> = meanings.filter(|(_, count, _)| **count > 0).collect();
    match seen.len() {
        0 => println!("{title:<9} none"),
        kinds => println!("{title:<9} of {kinds} kinds"),
    }
    for (label, count, help) in seen {
        println!("  {label} {count}: {help}");
    }
}
