//! Many questions, each on a new socket. Only what was delivered and verified counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::exchange::{ask, micros};
use super::protocol::{BulkReport, BulkSpec, Failure, Failures};

/// What one worker saw.
#[derive(Default)]
struct Tally {
    servers: BTreeMap<String, u64>,
    failures: BTreeMap<Failure, (u64, u64)>,
}

/// Asks until all is asked, time is up or `stop` is set.
pub(super) fn run(spec: &BulkSpec, stop: &AtomicBool) -> BulkReport {
    let start = Instant::now();
    let asked = AtomicU64::new(0);
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..spec.workers.max(1)).map(|_| scope.spawn(|| work(spec, stop, &asked, start))).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    report(tallies, micros(start.elapsed()))
}

fn work(spec: &BulkSpec, stop: &AtomicBool, asked: &AtomicU64, start: Instant) -> Tally {
    let limit = Duration::from_millis(spec.limit_ms);
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed)
        && start.elapsed() < limit
        && spec.count.is_none_or(|count| asked.fetch_add(1, Ordering::Relaxed) < count)
    {
        let began_us = micros(start.elapsed());
        match ask(spec.how, spec.to) {
            Ok(answer) => *tally.servers.entry(answer.server).or_default() += 1,
            Err(failure) => tally.failures.entry(failure).or_insert((0, began_us)).0 += 1,
        }
        if spec.pause_us > 0 {
            thread::sleep(Duration::from_micros(spec.pause_us));
        }
    }
    tally
}

fn report(tallies: Vec<Tally>, elapsed_us: u64) -> BulkReport {
    let mut servers = BTreeMap::new();
    let mut failures: BTreeMap<Failure, (u64, u64)> = BTreeMap::new();
    for tally in tallies {
        for (server, count) in tally.servers {
            *servers.entry(server).or_default() += count;
        }
        for (failure, (count, first_us)) in tally.failures {
            let sum = failures.entry(failure).or_insert((0, first_us));
            *sum = (sum.0 + count, sum.1.min(first_us));
        }
    }
    let failures = failures
        .into_iter()
        .map(|(failure, (count, first_us))| Failures { failure, count, first_us })
        .collect();
    BulkReport { delivered: servers.values().sum(), servers, failures, elapsed_us }
}
