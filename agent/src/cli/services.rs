//! `weir services`

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;
use weir_ebpf::abi::{Backend, Frontend, FrontendKey, FrontendKind, Scope, ServiceId, SourceRangeKey};

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
    frontends: Vec<LineFrontend>,
    affinity_s: u32,
    /// Who may dial its load balancer's addresses, where not everybody may.
    source_ranges: Vec<String>,
    /// For whoever is served from the whole cluster.
    cluster: LineSet,
    /// For whoever is served from this node alone.
    local: LineSet,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct LineFrontend {
    kind: &'static str,
    address: String,
    /// Clients in the cluster are served from this node alone.
    inside_local: bool,
    /// Clients outside are served from this node alone.
    outside_local: bool,
    /// Clients have to be in the source ranges.
    restricted: bool,
    /// The address is the node's too.
    node_address: bool,
}

#[derive(Serialize)]
struct LineSet {
    backends: Vec<LineBackend>,
    when_empty: Option<&'static str>,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
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
    let mut frontends: HashMap<ServiceId, (Vec<LineFrontend>, u32)> = HashMap::new();
    for (key, row) in &snapshot.frontends {
        let Some(kind) = row.kind().filter(|_| key.protocol().is_some()) else { continue };
        let known = frontends.entry(row.service).or_default();
        known.0.push(frontend(key, row, kind));
        known.1 = row.affinity_s;
    }
    let mut ranges: HashMap<ServiceId, Vec<String>> = HashMap::new();
    for range in &snapshot.source_ranges {
        ranges.entry(range.parts().0).or_default().push(source_range(range));
    }
    let mut lines = BTreeMap::new();
    for (id, name) in &snapshot.names {
        let (Some([namespace, service, port]), Some(protocol)) = (name.parts(), name.protocol()) else {
            continue;
        };
        let (mut frontends, affinity_s) = frontends.remove(id).unwrap_or_default();
        frontends.sort();
        let mut source_ranges = ranges.remove(id).unwrap_or_default();
        source_ranges.sort();
        let line = Line {
            service: format!("{namespace}/{service}"),
            port: port.to_owned(),
            protocol: protocol.name(),
            frontends,
            affinity_s,
            source_ranges,
            cluster: set(snapshot, *id, Scope::Cluster),
            local: set(snapshot, *id, Scope::Local),
        };
        lines.insert((line.service.clone(), line.port.clone(), line.protocol, name.family()), line);
    }
    lines.into_values().collect()
}

fn frontend(key: &FrontendKey, row: &Frontend, kind: FrontendKind) -> LineFrontend {
    let (kind, address) = match kind {
        FrontendKind::ClusterIp => ("ClusterIP", key.peer().to_string()),
        // Under whatever address of the node.
        FrontendKind::NodePort => ("NodePort", format!("*:{}", key.peer().port.host())),
        FrontendKind::LoadBalancer => ("LoadBalancer", key.peer().to_string()),
        FrontendKind::ExternalIp => ("ExternalIP", key.peer().to_string()),
    };
    LineFrontend {
        kind,
        address,
        inside_local: row.has(Frontend::INSIDE_LOCAL),
        outside_local: row.has(Frontend::OUTSIDE_LOCAL),
        restricted: row.has(Frontend::SOURCE_RANGES),
        node_address: row.has(Frontend::NODE_ADDRESS),
    }
}

/// As it was written: address/bits of its family.
fn source_range(range: &SourceRangeKey) -> String {
    let (_, addr, bits) = range.parts();
    format!("{addr}/{}", if addr.is_v4() { bits.saturating_sub(96) } else { bits })
}

fn set(snapshot: &Snapshot, id: ServiceId, scope: Scope) -> LineSet {
    let word = snapshot.sets.get(&id.set(scope)).copied().unwrap_or_default();
    let rows = word.run().map(|run| run.offset..run.offset.saturating_add(run.len));
    let backends = rows.clone().unwrap_or_default().filter_map(|at| snapshot.backends.get(&at));
    let mut backends: Vec<LineBackend> = backends.map(backend).collect();
    backends.sort();
    LineSet { backends, when_empty: rows.err().map(weir_ebpf::abi::DropReason::label) }
}

fn backend(row: &Backend) -> LineBackend {
    LineBackend { address: row.peer().to_string(), local: row.flags() & Backend::LOCAL != 0 }
}

impl Line {
    /// Whether some client of this policy exists.
    fn uses(&self, scope: Scope) -> bool {
        self.frontends.iter().any(|frontend| match scope {
            Scope::Cluster => !frontend.inside_local || !frontend.outside_local,
            Scope::Local => frontend.inside_local || frontend.outside_local,
        })
    }
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
        let mut frontends: Vec<String> = line.frontends.iter().map(frontend_text).collect();
        if line.frontends.iter().any(|frontend| frontend.restricted) {
            let ranges = line.source_ranges.join(" ");
            frontends.push(format!("(from {})", if ranges.is_empty() { "nowhere" } else { ranges.as_str() }));
        }
        let both = line.uses(Scope::Cluster) && line.uses(Scope::Local);
        let local = line.uses(Scope::Local).then(|| set_text(&line.local, shown));
        let cluster = line.uses(Scope::Cluster) || local.is_none();
        let backends = match (cluster.then(|| set_text(&line.cluster, shown)), local) {
            (Some(cluster), Some(local)) if both => format!("{cluster}\nlocal: {local}"),
            (cluster, local) => cluster.or(local).unwrap_or_default(),
        };
        let affinity = if line.affinity_s == 0 { "-".into() } else { format!("{} s", line.affinity_s) };
        let port = format!("{}/{}", line.port, line.protocol);
        table.add_row([line.service.clone(), port, frontends.join("\n"), affinity, backends]);
    }
    println!("{}", table.trim_fmt());
}

/// Its address, and in brackets what is not plain about it.
fn frontend_text(frontend: &LineFrontend) -> String {
    let local = match (frontend.inside_local, frontend.outside_local) {
        (true, _) => Some("Local"),
        (false, true) => Some("Local outside"),
        (false, false) => None,
    };
    let kind = Some(frontend.kind).filter(|kind| *kind != "ClusterIP");
    let node = frontend.node_address.then_some("this node's");
    let notes: Vec<&str> = [kind, local, node].into_iter().flatten().collect();
    if notes.is_empty() {
        frontend.address.clone()
    } else {
        format!("{} ({})", frontend.address, notes.join(", "))
    }
}

fn set_text(set: &LineSet, shown: usize) -> String {
    let backends = set.backends.iter().take(shown);
    let mut texts: Vec<String> =
        backends.map(|it| format!("{}{}", it.address, if it.local { "*" } else { "" })).collect();
    if set.backends.len() > shown {
        texts.push(format!("and {} more", set.backends.len() - shown));
    }
    texts.extend(set.when_empty.map(|reason| format!("none: {reason}")));
    texts.join(" ")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use weir_ebpf::abi::{Protocol, Run, ServiceName, SetWord};

    use super::*;

    fn row(addr: &str, kind: FrontendKind, flags: u8) -> (FrontendKey, Frontend) {
        let addr: SocketAddr = addr.parse().unwrap();
        (FrontendKey::new(addr.into(), Protocol::Tcp), Frontend::new(ServiceId(0), 0, kind, flags))
    }

    #[test]
    fn a_line_has_every_frontend_and_both_sets() {
        let backend: SocketAddr = "10.0.0.1:8080".parse().unwrap();
        let local = Frontend::OUTSIDE_LOCAL;
        let name = ServiceName::new("shop", "web", "http", Protocol::Tcp, 4).unwrap();
        let range: std::net::IpAddr = "203.0.113.0".parse().unwrap();
        let snapshot = Snapshot {
            names: vec![(ServiceId(0), name)],
            frontends: vec![
                row("0.0.0.0:30080", FrontendKind::NodePort, local),
                row("192.0.2.1:80", FrontendKind::LoadBalancer, local | Frontend::SOURCE_RANGES),
                row("10.96.0.1:80", FrontendKind::ClusterIp, 0),
            ],
            sets: [
                (ServiceId(0).set(Scope::Cluster), SetWord::of(Run { offset: 0, len: 1 })),
                (ServiceId(0).set(Scope::Local), SetWord::empty(weir_ebpf::abi::DropReason::NoLocalEndpoint)),
            ]
            .into(),
            backends: [(0, Backend::new(backend.into(), 0))].into(),
            source_ranges: vec![SourceRangeKey::range(ServiceId(0), range.into(), 96 + 24)],
        };
        let lines = lines(&snapshot);
        let [line] = &lines[..] else { panic!("one line") };
        let texts: Vec<String> = line.frontends.iter().map(frontend_text).collect();
        assert_eq!(
            texts,
            [
                "10.96.0.1:80",
                "192.0.2.1:80 (LoadBalancer, Local outside)",
                "*:30080 (NodePort, Local outside)"
            ]
        );
        assert_eq!(line.source_ranges, ["203.0.113.0/24"]);
        assert_eq!(set_text(&line.cluster, 6), "10.0.0.1:8080");
        assert_eq!(set_text(&line.local, 6), "none: no-local-endpoint");
        assert!(line.uses(Scope::Cluster) && line.uses(Scope::Local));
    }
}
