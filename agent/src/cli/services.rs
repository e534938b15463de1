//! `weir services`

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;
use weir_ebpf::abi::{Backend, Scope, ServiceId};

use super::PinArgs;
use crate::kernel::View;
use crate::tables::Snapshot;

/// Backends that one line shows.
const SHOWN: usize = 6;

#[derive(Args, Debug)]
pub(super) struct ServicesArgs {
    #[command(flatten)]
    pins: PinArgs,
    /// Only Services whose namespace/name contains this.
    #[arg(value_name = "TEXT")]
    filter: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print every backend.
    #[arg(long)]
    all: bool,
}

/// A Service port of one family, as the kernel has it.
#[derive(Serialize)]
struct Line {
    service: String,
    port: String,
    protocol: &'static str,
    frontends: Vec<String>,
    affinity_s: u32,
    backends: Vec<LineBackend>,
    when_empty: Option<&'static str>,
}

#[derive(Serialize)]
struct LineBackend {
    address: String,
    local: bool,
}

pub(super) fn run(args: &ServicesArgs) -> anyhow::Result<ExitCode> {
    let Some(view) = View::open(&args.pins.root())? else {
        bail!("no tables are pinned under {}: no agent has run yet", args.pins.pin_root.display())
    };
    let mut lines = lines(&view.snapshot()?);
    if let Some(filter) = &args.filter {
        lines.retain(|line| line.service.contains(filter));
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&lines)?);
    } else {
        print(&lines, if args.all { usize::MAX } else { SHOWN });
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(snapshot: &Snapshot) -> Vec<Line> {
    let mut frontends: HashMap<ServiceId, (Vec<String>, u32)> = HashMap::new();
    for (key, row) in &snapshot.frontends {
        if key.protocol().is_some() {
            let known = frontends.entry(row.service).or_default();
            known.0.push(key.peer().to_string());
            known.1 = row.affinity_s;
        }
    }
    let mut lines = BTreeMap::new();
    for (id, name) in &snapshot.names {
        let (Some([namespace, service, port]), Some(protocol)) = (name.parts(), name.protocol()) else {
            continue;
        };
        let word = snapshot.sets.get(&id.set(Scope::Cluster)).copied().unwrap_or_default();
        let rows = word.run().map(|run| run.offset..run.offset.saturating_add(run.len));
        let backends = rows.clone().unwrap_or_default().filter_map(|at| snapshot.backends.get(&at));
        let (mut frontends, affinity_s) = frontends.remove(id).unwrap_or_default();
        frontends.sort();
        let line = Line {
            service: format!("{namespace}/{service}"),
            port: port.to_owned(),
            protocol: protocol.name(),
            frontends,
            affinity_s,
            backends: backends.map(backend).collect(),
            when_empty: rows.err().map(weir_ebpf::abi::DropReason::label),
        };
        lines.insert((line.service.clone(), line.port.clone(), line.protocol, name.family()), line);
    }
    lines.into_values().collect()
}

fn backend(row: &Backend) -> LineBackend {
    LineBackend { address: row.peer().to_string(), local: row.flags() & Backend::LOCAL != 0 }
}

fn print(lines: &[Line], shown: usize) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header([
        "SERVICE",
        "PORT",
        "FRONTENDS",
        "AFFINITY",
        "BACKENDS (* on this node)",
    ]);
    for line in lines {
        let backends = line.backends.iter().take(shown);
        let mut backends: Vec<String> =
            backends.map(|it| format!("{}{}", it.address, if it.local { "*" } else { "" })).collect();
        if line.backends.len() > shown {
            backends.push(format!("and {} more", line.backends.len() - shown));
        }
        backends.extend(line.when_empty.map(|reason| format!("none: {reason}")));
        let affinity = if line.affinity_s == 0 { "-".into() } else { format!("{} s", line.affinity_s) };
        let port = format!("{}/{}", line.port, line.protocol);
        table.add_row([line.service.clone(), port, line.frontends.join(" "), affinity, backends.join(" ")]);
    }
    println!("{}", table.trim_fmt());
}
