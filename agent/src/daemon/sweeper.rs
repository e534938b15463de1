//! When flows are swept: as long as there are some, and at most so much of a CPU.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::kernel::{Generation, Swept, SweptJudged, sweep_flows, sweep_judged};
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
    let (mut before, mut judged_before) = (Swept::default(), SweptJudged::default());
    loop {
        let begun = Instant::now();
        let generation = generation.clone();
        let swept = tokio::task::spawn_blocking(move || {
            anyhow::Ok((sweep_flows(&generation, before)?, sweep_judged(&generation, judged_before)?))
        });
        let pause = match swept.await.context("sweeping panicked")? {
            Ok((swept, judged)) => {
                report.update(|report| {
                    report.flows.rows = swept.rows;
                    report.flows.oldest_s = swept.oldest_s;
                    report.flows.swept += swept.flows as u64;
                    report.policies.judged = judged.rows - judged.flows;
                    report.policies.swept += judged.flows as u64;
                });
                (before, judged_before) = (swept, judged);
                if swept.in_need || judged.in_need {
                    PAUSE_IN_NEED
                } else if swept.rows == 0 && !judged.is_on {
                    IDLE
                } else {
                    PAUSE
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
