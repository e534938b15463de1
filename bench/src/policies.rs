//! What it takes to compile NetworkPolicies: 10,000 of them with 1,000 selectors, 10,000 pods, 100 of these on this node. In
//! memory alone: from the events that a source sends to the rows that are to be written.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use weir_agent::compile::policy::{PolicyCompiler, Update};
use weir_agent::source::{Event, ObjectKey, parse_namespace, parse_network_policy, parse_pod};
use weir_agent::state::State;
use weir_policy::scale::{PODS_HERE, SELECTORS, Sides, cluster, pod, policy};

use crate::stats::estimate;

const PODS: usize = 10_000;
const POLICIES: usize = 10_000;
/// Changes for each compilation from nothing.
const CHANGES: u32 = 10;

/// A node that knows everything.
struct Compiled {
    state: State,
    compiler: PolicyCompiler,
}

impl Compiled {
    fn from_nothing(events: Vec<Event>) -> (Self, Update) {
        let mut state = State::new("here");
        events.into_iter().for_each(|event| state.apply(event));
        let changes = state.take_policy_changes();
        let mut compiler = PolicyCompiler::new();
        let update = compiler.update(state.policy(), &changes);
        (Self { state, compiler }, update)
    }

    fn change(&mut self, event: Event) -> Update {
        self.state.apply(event);
        let changes = self.state.take_policy_changes();
        self.compiler.update(self.state.policy(), &changes)
    }
}

/// Milliseconds, with their name.
#[derive(Default)]
struct Sample {
    name: &'static str,
    values: Vec<f64>,
    /// Writes to the tables, of the last.
    writes: usize,
}

impl Sample {
    fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    fn time<T>(&mut self, work: impl FnOnce() -> T, writes: impl FnOnce(&T) -> usize) -> T {
        let start = Instant::now();
        let done = work();
        self.values.push(start.elapsed().as_secs_f64() * 1e3);
        self.writes = writes(&done);
        done
    }

    fn figure(&self, seed: u64) -> Result<String> {
        let found = estimate(&self.values, seed).context("nothing was measured")?;
        let ([low, high], [q1, q3]) = (found.interval, found.quartiles);
        let most = self.values.iter().fold(0.0, |most: f64, value| most.max(*value));
        Ok(format!(
            "figure policies.{}-ms {:.3}\n    95 % interval {low:.3} to {high:.3}, half of {} between {q1:.3} and {q3:.3}, \
             at most {most:.3}; {} writes",
            self.name, found.median, found.count, self.writes
        ))
    }
}

/// Measures so many compilations from nothing, and more changes.
///
/// # Errors
/// An object that is not as it should be.
pub fn measure(rounds: u32, seed: u64) -> Result<Vec<String>> {
    let events = events()?;
    let writes = |update: &Update| update.changes.len() + update.garbage.len();
    let mut nothing = Sample::new("from-nothing");
    for _ in 0..rounds {
        let events = events.clone();
        // What was compiled before ends outside of the measurement.
        drop(nothing.time(|| Compiled::from_nothing(events), |(_, update)| writes(update)));
    }
    let before = heap_bytes();
    let (mut node, update) = Compiled::from_nothing(events);
    drop(update);
    let bytes = heap_bytes().saturating_sub(before);
    let (mut labels, mut here) = (Sample::new("label-elsewhere"), Sample::new("label-here"));
    let (mut same, mut other) = (Sample::new("policy-without-meaning"), Sample::new("policy"));
    for n in 0..rounds * CHANGES {
        let (n, app) = (n as usize, n as usize + 7);
        let elsewhere = PODS_HERE + n % (PODS - PODS_HERE);
        let event = pod_event(elsewhere, app % SELECTORS)?;
        labels.time(|| node.change(event), writes);
        let event = pod_event(n % PODS_HERE, app % SELECTORS)?;
        here.time(|| node.change(event), writes);
        // Nine others of the namespace allow that app as well.
        let event = policy_event(n % POLICIES, (n + 100) % SELECTORS)?;
        same.time(|| node.change(event), writes);
        let event = policy_event(n % POLICIES, app % SELECTORS)?;
        other.time(|| node.change(event), writes);
    }
    let mut figures = [nothing, labels, here, same, other]
        .iter()
        .map(|sample| sample.figure(seed))
        .collect::<Result<Vec<_>>>()?;
    figures.push(format!("figure policies.heap-mib {:.1}", bytes as f64 / f64::from(1 << 20)));
    Ok(figures)
}

/// All objects, as a source tells of them.
fn events() -> Result<Vec<Event>> {
    let cluster = cluster(PODS, POLICIES, Sides::Both);
    let mut events = Vec::new();
    for (name, namespace) in &cluster.namespaces {
        events.push(Event::Namespace(name.as_str().into(), parse_namespace(namespace).object));
    }
    for n in 0..PODS {
        events.push(pod_event(n, n % SELECTORS)?);
    }
    for n in 0..POLICIES {
        events.push(policy_event(n, n % SELECTORS)?);
    }
    Ok(events)
}

fn pod_event(n: usize, app: usize) -> Result<Event> {
    let (key, object) = read(pod(n, app))?;
    Ok(Event::Pod(key, parse_pod(&object).object))
}

fn policy_event(n: usize, app: usize) -> Result<Event> {
    let (key, object) = read(policy(n, app, Sides::Both))?;
    Ok(Event::NetworkPolicy(key, parse_network_policy(&object).object))
}

fn read<T: DeserializeOwned>(object: Value) -> Result<(ObjectKey, T)> {
    let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned).context("a name");
    let key = ObjectKey::new(text("namespace")?, text("name")?);
    Ok((key, serde_json::from_value(object)?))
}

/// What this process has from its allocator.
fn heap_bytes() -> usize {
    // SAFETY: it only reads the allocator's own counts.
    let counts = unsafe { libc::mallinfo2() };
    counts.uordblks + counts.hblkhd
}
