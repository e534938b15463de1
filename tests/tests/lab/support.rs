//! What several trials need.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use weir_tests::cases::{CAST, ServiceSpec, objects};
use weir_tests::lab::{Cluster, DualStack, address};
use weir_tests::prober::{Answer, BulkReport, BulkSpec, Command, How, Outcome};

use crate::SETTINGS;

/// How long something that is not instant may take.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// The ClusterIPs of the Service that most trials use.
pub(crate) const WEB: DualStack = address::service(10);

/// A cluster with the cast of the cases and running agents.
pub(crate) fn cluster() -> Result<Cluster> {
    let mut cluster = Cluster::create(SETTINGS, &CAST)?;
    cluster.start_agents()?;
    Ok(cluster)
}

/// The objects of a Service at [`WEB`].
pub(crate) fn web(spec: &ServiceSpec) -> Vec<Value> {
    objects::of_service(spec, "lab", WEB)
}

/// One question on a new socket that must be answered.
pub(crate) fn ask(cluster: &Cluster, from: &str, how: How, to: SocketAddr) -> Result<Answer> {
    answered(cluster.prober(from)?.call(Command::Ask { how, to })?)
}

/// One question on an open socket that must be answered.
pub(crate) fn exchange(cluster: &Cluster, from: &str, socket: u64, to: SocketAddr) -> Result<Answer> {
    answered(cluster.prober(from)?.call(Command::Exchange { socket, to })?)
}

fn answered(outcome: Outcome) -> Result<Answer> {
    match outcome {
        Outcome::Answered(answer) => Ok(answer),
        other => bail!("no answer but {other:?}"),
    }
}

/// Questions without end, a few hundred in a second; ended by [`weir_tests::prober::Prober::stop`].
pub(crate) fn load(how: How, to: SocketAddr) -> Command {
    Command::Bulk(BulkSpec { how, to, count: None, workers: 2, limit_ms: 60_000, pause_us: 2_000 })
}

/// Every question was answered, and there were some.
pub(crate) fn ensure_all_delivered(what: &str, report: &BulkReport) -> Result<()> {
    println!("figure lab.{what}.delivered {}", report.delivered);
    println!("figure lab.{what}.failed {}", report.failed());
    ensure!(report.failed() == 0, "{what}: {:?}", report.failures);
    ensure!(report.delivered > 0, "{what}: nothing was asked");
    Ok(())
}

/// Waits until `attempt` gives something.
pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = attempt()? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "{what}: not within {SOON:?}");
        sleep(Duration::from_millis(5));
    }
}
