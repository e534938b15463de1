//! When flows are swept: as long as there are some, and at most so much of a CPU.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::kernel::{Generation, Swept, sweep_flows};
use crate::observe::SharedReport;

/// A reset connection is kept for as long; sooner there is nothing to sweep.
const PAUSE: Duration = Duration::from_secs(10);

/// While the table is nearly full.
const PAUSE_IN_NEED: Duration = Duration::from_secs(1);

/// Where there are no flows, one look a minute: no program tells when the first one begins, and none is over sooner
/// than it matters.
const IDLE: Duration = Duration::from_secs(60);

/// Sweeping takes at most one part of so many of a CPU.
const SHARE: u32 = 50;

/// Sweeps until the process ends.
pub(super) async fn sweep(generation: Generation, report: SharedReport) -> anyhow::Result<()> {
    let mut before = Swept::default();
    loop {
        let begun = Instant::now();
        let generation = generation.clone();
        let swept = tokio::task::spawn_blocking(move || sweep_flows(&generation, before));
        let pause = match swept.await.context("sweeping panicked")? {
            Ok(swept) => {
                report.update(|report| {
                    report.flows.rows = swept.rows;
                    report.flows.oldest_s = swept.oldest_s;
                    report.flows.swept += swept.flows as u64;
                });
                before = swept;
                match swept {
                    Swept { rows: 0, .. } => IDLE,
                    Swept { in_need: true, .. } => PAUSE_IN_NEED,
                    _ => PAUSE,
                }
            }
            Err(error) => {
                tracing::error!("sweeping flows: {error:#}");
                IDLE
            }
        };
        tokio::time::sleep(pause.max(begun.elapsed() * (SHARE - 1))).await;
    }
}
