//! Traffic while EndpointSlices change fifty times a second.
//!
//! Two slices are there all the time, of different lengths and with different target ports, and now this, now
//! that endpoint is ready. Every endpoint that is in any version serves, on its own slice's port only:
//! whoever saw half of a change (an address with another's port, the length of one set with the place of
//! another) would be refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;
use weir_tests::cases::spec::{Endpoint, not_ready, ready, service};
use weir_tests::cases::{ServiceSpec, objects};
use weir_tests::lab::manifests::Manifests;
use weir_tests::lab::{Cluster, Form};
use weir_tests::prober::{BulkReport, BulkSpec, How};

use crate::support::{self, WEB, ensure_all_delivered};

const QUESTIONS: u64 = 10_000;
const CHANGES_PER_SECOND: u32 = 50;
/// Where the endpoints of the first and of the second slice serve.
const TARGETS: [u16; 2] = [9001, 9002];
const SLICES: [&[&str]; 2] = [&["n1-b", "n1-c", "n2-a"], &["n2-b"]];

/// 10,000 TCP connections.
pub(crate) fn tcp() -> Result<()> {
    run("churn.tcp", How::Tcp).and_then(|report| ensure_all_delivered("churn.tcp", &report))
}

/// 10,000 UDP queries.
pub(crate) fn udp() -> Result<()> {
    run("churn.udp", How::UdpUnconnected).and_then(|report| ensure_all_delivered("churn.udp", &report))
}

/// Connected UDP sockets are told when their backend is no longer usable, as kube-proxy's `CleanStaleEntries` drops their flows, so a query
/// in flight at that moment may end with ECONNABORTED at once. Nothing else may happen to one.
pub(crate) fn udp_connected() -> Result<()> {
    let mut report = run("churn.udp-connected", How::UdpConnected)?;
    let told = report.failures.extract_if(.., |kind| kind.failure.error == "ECONNABORTED");
    println!("figure lab.churn.udp-connected.told {}", told.map(|kind| kind.count).sum::<u64>());
    ensure_all_delivered("churn.udp-connected", &report)
}

fn run(name: &str, how: How) -> Result<BulkReport> {
    let mut cluster = support::cluster()?;
    for (places, port) in SLICES.iter().zip(TARGETS) {
        for place in *places {
            let own = cluster.addresses(place)?;
            let at = [Form::V4, Form::V6].map(|form| own.dial(form, port));
            cluster.prober(place)?.serve(place, &at)?;
        }
    }
    cluster.apply("web.yaml", &version(0))?;
    let started = Instant::now();
    let (reports, changes, changing) = ask_while_changing(&cluster, how)?;
    let elapsed = started.elapsed();
    println!("figure lab.{name}.changes {changes}");
    println!("figure lab.{name}.seconds {:.2}", elapsed.as_secs_f64());
    let rate = f64::from(changes) / changing.as_secs_f64();
    ensure!(rate > f64::from(CHANGES_PER_SECOND) * 0.9, "only {rate:.0} changes in a second");
    cluster.settle().context("the agents do not keep up with the changes")?;
    let report = sum(reports);
    let servers: Vec<&String> = report.servers.keys().collect();
    ensure!(servers.len() == 4, "the changes did not arrive: only {servers:?} answered");
    Ok(report)
}

/// Half of the questions in each family, from a pod and from the other node, paced so that they last for
/// seconds. And how often what changed, in which time.
fn ask_while_changing(cluster: &Cluster, how: How) -> Result<(Vec<BulkReport>, u32, Duration)> {
    let over = AtomicBool::new(false);
    scope(|scope| {
        let writer = scope.spawn(|| keep_changing(&cluster.manifests, &over));
        let reports = (|| {
            let clients = [("n1-a", Form::V4), ("n2-b", Form::V6), ("n1", Form::V6), ("n2", Form::V4)];
            let share = QUESTIONS / u64::try_from(clients.len())?;
            let begun = clients.map(|(place, form)| {
                let (to, count) = (WEB.dial(form, 80), Some(share));
                let spec = BulkSpec { how, to, count, workers: 2, limit_ms: 60_000, pause_us: 1_000 };
                Ok((place, cluster.prober(place)?.begin(weir_tests::prober::Command::Bulk(spec))?))
            });
            let wait = |begun: Result<(&str, weir_tests::prober::Pending)>| {
                let (place, pending) = begun?;
                let report = pending.wait_report()?;
                let asked = report.delivered + report.failed();
                ensure!(asked == share, "{place} asked {asked} of {share} questions");
                Ok(report)
            };
            begun.into_iter().map(wait).collect::<Result<Vec<_>>>()
        })();
        over.store(true, Ordering::Relaxed);
        let (changes, changing) = writer.join().map_err(|_| anyhow!("the writer panicked"))??;
        Ok((reports?, changes, changing))
    })
}

/// How often it changed, and how long that took up to the last time: what keeps it from the next is made up for then.
fn keep_changing(manifests: &Manifests, over: &AtomicBool) -> Result<(u32, Duration)> {
    let start = Instant::now();
    let (mut number, mut changing) = (0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        number += 1;
        manifests.replace_objects("web.yaml", &version(number))?;
        changing = start.elapsed();
        let next = start + Duration::from_secs(1) / CHANGES_PER_SECOND * number;
        sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok((number, changing))
}

/// The Service with both slices; which endpoints are ready are the bits of a number that is never 0.
fn version(number: u32) -> Vec<Value> {
    let bits = number * 7 % 15 + 1;
    let mut objects: Vec<Value> = Vec::new();
    let mut first_bit = 0;
    for (index, (places, target)) in SLICES.iter().zip(TARGETS).enumerate() {
        let endpoints: Vec<Endpoint> = (first_bit..)
            .zip(*places)
            .map(|(bit, place)| if bits >> bit & 1 == 1 { ready(place) } else { not_ready(place) })
            .collect();
        first_bit += u32::try_from(places.len()).unwrap_or_default();
        let mut spec: ServiceSpec = service("web").slice(endpoints);
        spec.ports = vec![("main", 80, target)];
        let made = objects::of_service(&spec, "lab", WEB);
        // the Service once, the slices under names of their own
        objects.extend(made.into_iter().skip(usize::from(index > 0)).map(|mut object| {
            if object["kind"] == "EndpointSlice" {
                let name =
                    format!("{}-target-{target}", object["metadata"]["name"].as_str().unwrap_or_default());
                object["metadata"]["name"] = name.into();
            }
            object
        }));
    }
    objects
}

fn sum(reports: Vec<BulkReport>) -> BulkReport {
    let mut sum = BulkReport::default();
    for report in reports {
        sum.delivered += report.delivered;
        sum.failures.extend(report.failures);
        for (server, count) in report.servers {
            *sum.servers.entry(server).or_default() += count;
        }
    }
    sum
}
