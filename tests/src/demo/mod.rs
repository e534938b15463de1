//! `weir-lab demo`: what Weir does, shown in a minute on one machine.
//!
//! A lab with two nodes, an agent on each, the manifests of `deploy/examples/demo` as they are there; then
//! traffic, and a table of what was tried and what happened. Called by `cargo xtask demo`.

mod attempt;
mod attempts;
mod manifests;
mod progress;
mod report;

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use crate::lab::cluster::PodSpec;
use crate::lab::topology::Settings;
use crate::lab::{Cluster, Form, teardown};
use crate::prober::{BulkSpec, Command, How, Pending};
use attempt::{Attempt, Attempted};
use manifests::Examples;
use progress::Progress;

/// The pods of `pods.yaml`, in its order: their addresses follow from it.
const PODS: [PodSpec<'static>; 4] = [(1, "shop"), (1, "web-1"), (2, "web-2"), (2, "dns-1")];

/// Runs the demo.
///
/// # Errors
/// The lab or an agent could not be made or failed. That traffic did not do what it should is no error: it is
/// shown, and the returned value is false.
pub fn run() -> Result<bool> {
    let mut progress = Progress::default();
    let examples = Examples::parse()?;
    progress.step("making two nodes, four pods and the network between them");
    let mut cluster = Cluster::create(Settings::default(), &PODS)?;
    let id = cluster.lab().id();
    progress.step("applying the manifests of deploy/examples/demo, starting an agent on each node");
    examples.write(&cluster.manifests)?;
    cluster.start_agents()?;
    cluster.settle()?;
    let shown = show(&mut cluster, &examples, &mut progress)?;
    progress.step("removing the lab");
    drop(cluster);
    let traces = teardown::find_traces(id);
    progress.done();
    for trace in &traces {
        println!("left behind: {trace}");
    }
    let as_expected = shown && traces.is_empty();
    report::conclude(as_expected);
    Ok(as_expected)
}

fn show(cluster: &mut Cluster, examples: &Examples, progress: &mut Progress) -> Result<bool> {
    let mut all = true;
    let mut chapter = |title: &str, rows: Vec<Attempted>, progress: &mut Progress| {
        all &= rows.iter().all(Attempted::is_as_expected);
        progress.pause(|| report::print(title, &rows));
    };
    let rows = try_all(attempts::SERVICES, cluster, examples, progress)?;
    chapter("Services, from pods and from the nodes themselves", rows, progress);
    let services = cluster.agent(1)?.services(&[])?;
    progress.pause(|| println!("\n`weir services` on n1\n{}", services.trim_end()));

    let rows = try_all(attempts::OUTSIDE, cluster, examples, progress)?;
    chapter("Node ports and a load balancer's address, from outside the cluster", rows, progress);

    progress.step("web-1 is no longer ready");
    examples.write_without(&cluster.manifests, "web-1")?;
    cluster.settle()?;
    let rows = try_all(attempts::AFTER_CHANGE, cluster, examples, progress)?;
    chapter("web-1 is no longer ready", rows, progress);

    progress.step("killing both agents (-9) and starting them again, under load");
    let loads = begin_loads(cluster, examples)?;
    sleep(Duration::from_millis(300));
    for node in [1, 2] {
        cluster.agent(node)?.kill()?;
    }
    let rows = try_all(attempts::WITHOUT_AGENTS, cluster, examples, progress)?;
    chapter("both agents are killed (-9)", rows, progress);
    for node in [1, 2] {
        cluster.agent(node)?.start()?;
        cluster.agent(node)?.wait_ready()?;
    }
    sleep(Duration::from_millis(300));
    let rows = end_loads(cluster, loads)?;
    chapter("traffic while the agents were killed and started again", rows, progress);
    Ok(all)
}

fn try_all(
    attempts: &[Attempt],
    cluster: &Cluster,
    examples: &Examples,
    progress: &mut Progress,
) -> Result<Vec<Attempted>> {
    let mut done = Vec::new();
    for attempt in attempts {
        progress.step(&format!("{} asks {}", attempt.from, attempt.to));
        done.push(attempt.run(cluster, examples)?);
    }
    Ok(done)
}

type Load = (&'static str, &'static str, How, BTreeMap<Form, Pending>);

fn begin_loads(cluster: &Cluster, examples: &Examples) -> Result<Vec<Load>> {
    let loads = [("shop", "web", How::Tcp, 80), ("n2", "dns", How::UdpUnconnected, 53)];
    let begin = |(from, service, how, port)| {
        let mut pending = BTreeMap::new();
        for form in attempt::FORMS {
            let to = examples.cluster_ips(service)?.dial(form, port);
            let spec = BulkSpec { how, to, count: None, workers: 2, limit_ms: 60_000, pause_us: 1_000 };
            pending.insert(form, cluster.prober(from)?.begin(Command::Bulk(spec))?);
        }
        Ok((from, service, how, pending))
    };
    loads.into_iter().map(begin).collect()
}

fn end_loads(cluster: &Cluster, loads: Vec<Load>) -> Result<Vec<Attempted>> {
    let mut rows = Vec::new();
    for (from, service, how, pending) in loads {
        let mut row = Attempted::new(from, service, how, "none fails");
        for (form, bulk) in pending {
            let report = cluster.prober(from)?.stop(bulk)?;
            let what = format!("{} answered, {} failed", report.delivered, report.failed());
            row.saw(form, what, report.failed() == 0 && report.delivered > 0);
        }
        rows.push(row);
    }
    Ok(rows)
}
