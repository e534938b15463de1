//! Drops in the running agent: from the ring buffer to names, the log and whoever asks.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use weir_ebpf::abi::DropEvent;

use super::node::Node;
use super::reconcile::Reconciler;
use crate::kernel::{DropEvents, Generation};
use crate::observe::{Clocks, Explainer, Known, Say, SharedDrops, SharedReport, Talker};

/// Events that are read at once, and the pause after them: so the agent has time for what is more important, whatever is dropped.
/// The ring buffer keeps those that come meanwhile.
const BATCH: usize = 256;
const PAUSE: Duration = Duration::from_millis(250);

/// Reads the ring buffer.
pub(super) struct Drops {
    /// `None`: it cannot be read, and somebody was told.
    events: Option<DropEvents>,
    rested: Instant,
    shared: SharedDrops,
    talker: Talker,
    report: SharedReport,
}

impl Drops {
    /// Without drops the agent serves all the same.
    pub(super) fn start(generation: &Generation, shared: SharedDrops, report: SharedReport) -> Self {
        let events = DropEvents::open(generation);
        let events = events.inspect_err(|error| tracing::error!("{error:#}: drops are only counted")).ok();
        Self { events, rested: Instant::now(), shared, talker: Talker::default(), report }
    }

    /// The next events; never ready where none can be read. Nothing is lost if it is not waited for.
    pub(super) async fn next(&mut self) -> Vec<DropEvent> {
        tokio::time::sleep_until(self.rested.into()).await;
        let Some(events) = &mut self.events else { return std::future::pending().await };
        match events.read(BATCH).await {
            Ok(events) => {
                self.rested = Instant::now() + PAUSE;
                events
            }
            Err(error) => {
                tracing::error!("{error:#}: drops are only counted from now on");
                self.events = None;
                std::future::pending().await
            }
        }
    }

    /// Tells of these events, in the names of this moment.
    pub(super) fn tell(&mut self, events: &[DropEvent], reconciler: &Reconciler, node: &Node) {
        let known = Known {
            state: reconciler.state(),
            tables: reconciler.tables(),
            network: node.facts(),
            rows: reconciler.policy_rows(),
        };
        let mut explainer = Explainer::new(known, clocks());
        for event in events {
            let Some(record) = explainer.explain(event) else { continue };
            match self.talker.hear(event, Instant::now()) {
                Say::It => tracing::info!("{}", record.timeless()),
                Say::ThatThereAreMore => {
                    tracing::info!("more is dropped than is said here: `weir drops` has it");
                }
                Say::Nothing => {}
            }
            self.shared.push(&record);
        }
        self.report.update(|report| report.drops_read += events.len() as u64);
    }
}

fn clocks() -> Clocks {
    let boot = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    Clocks { boot_ns: u64::try_from(boot.as_nanos()).unwrap_or(u64::MAX), now: jiff::Timestamp::now() }
}
