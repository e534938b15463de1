//! What takes milliseconds, off the path of the events: waiting for grace periods, and looking for sockets and flows
//! whose backend is gone. One thing at a time.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinHandle;
use weir_ebpf::abi::Connection;

use super::reconcile::{Reconciler, Superseded};
use crate::kernel::{
    Closed, FlowBackend, FlowRow, Generation, Grace, backend_of, close_sockets, connected_sockets,
    flow_backends, flows_to, remove_flows,
};

/// By their cookies.
type Sockets = Vec<(u64, Connection)>;

/// What is translated, and whose backend may be gone.
#[derive(Default)]
pub(super) struct Translated {
    /// Connected sockets.
    sockets: Sockets,
    /// Backends of flows.
    flows: HashSet<FlowBackend>,
}

impl Translated {
    fn read(generation: &Generation) -> anyhow::Result<Self> {
        Ok(Self { sockets: connected_sockets(generation)?, flows: flow_backends(generation)? })
    }

    fn is_empty(&self) -> bool {
        self.sockets.is_empty() && self.flows.is_empty()
    }
}

/// What is to be ended.
#[derive(Default)]
pub(super) struct Stale {
    sockets: Sockets,
    flows: Vec<FlowRow>,
}

/// What a job came to.
pub(super) enum Outcome {
    /// A grace period has passed; what was translated before it, if it was asked for, and how long it took to read.
    Quiet(Option<(Translated, Duration)>),
    /// These are translated to backends that were gone when they were looked for.
    Found(Stale),
    /// Sockets were closed, and so many flows forgotten.
    Closed(Closed, usize),
}

/// The job that runs, if any.
pub(super) struct Background {
    generation: Generation,
    grace: Grace,
    job: Option<JoinHandle<anyhow::Result<Outcome>>>,
    retired: Option<Superseded>,
    /// The last job failed, and nobody has said that it is time to try again.
    failed: bool,
    /// What is to be looked for: sockets, and the backends of flows.
    suspects: Translated,
    /// What was found, and is to be ended.
    stale: Stale,
    /// Some network namespace could not be searched for sockets.
    incomplete: bool,
    /// Not before this is the table of sockets read again.
    rested: Instant,
}

/// While Services change all the time, reading the table of sockets takes at most one part of so many of a CPU.
const SHARE: u32 = 10;

impl Background {
    pub(super) fn new(generation: Generation, grace: Grace) -> Self {
        Self {
            generation,
            grace,
            job: None,
            retired: None,
            failed: false,
            suspects: Translated::default(),
            stale: Stale::default(),
            incomplete: false,
            rested: Instant::now(),
        }
    }

    /// Starts the next job, if there is one and none runs.
    pub(super) fn start(&mut self, reconciler: &mut Reconciler) {
        if self.job.is_some() || self.failed {
            return;
        }
        let generation = self.generation.clone();
        if !self.stale.sockets.is_empty() || !self.stale.flows.is_empty() {
            let Stale { sockets, flows } = std::mem::take(&mut self.stale);
            self.job = Some(tokio::task::spawn_blocking(move || {
                remove_flows(&generation, &flows)?;
                Ok(Outcome::Closed(close_sockets(&generation, &sockets)?, flows.len()))
            }));
            return;
        }
        if !self.suspects.is_empty() {
            let Translated { sockets, flows } = std::mem::take(&mut self.suspects);
            self.job = Some(tokio::task::spawn_blocking(move || {
                Ok(Outcome::Found(Stale { sockets, flows: flows_to(&generation, &flows)? }))
            }));
            return;
        }
        let search = reconciler.take_stale();
        // Those of a job that failed wait for the next grace period.
        self.retired = match (self.retired.take(), reconciler.take_retired()) {
            (Some(before), Some(more)) => Some(before.and(more)),
            (before, more) => before.or(more),
        };
        if !search && self.retired.is_none() {
            return;
        }
        let grace = self.grace.clone();
        let rest =
            if search { self.rested.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
        // The grace period comes first for the sockets, too: a hook that chose a backend just before it was removed
        // has written its row by then.
        self.job = Some(tokio::task::spawn_blocking(move || {
            std::thread::sleep(rest);
            grace.wait().context("waiting for a grace period")?;
            if !search {
                return Ok(Outcome::Quiet(None));
            }
            let begun = Instant::now();
            let translated = Translated::read(&generation)?;
            Ok(Outcome::Quiet(Some((translated, begun.elapsed()))))
        }));
    }

    /// What the running job comes to; never ready if none runs.
    pub(super) async fn outcome(&mut self) -> anyhow::Result<Outcome> {
        let Some(job) = &mut self.job else { return std::future::pending().await };
        let outcome = job.await;
        self.job = None;
        outcome.context("a background job panicked")?
    }

    /// Acts on what a job came to.
    pub(super) fn finish(&mut self, outcome: anyhow::Result<Outcome>, reconciler: &mut Reconciler) {
        match outcome {
            Ok(Outcome::Quiet(translated)) => {
                if let Some(retired) = self.retired.take() {
                    reconciler.release(retired);
                }
                if let Some((Translated { sockets, mut flows }, took)) = translated {
                    flows.retain(|(service, backend, protocol)| {
                        reconciler.is_stale(*service, *backend, *protocol)
                    });
                    self.suspects = Translated { sockets: reconciler.select_stale(sockets), flows };
                    if self.suspects.is_empty() {
                        reconciler.tell_unsearched(&[]);
                    }
                    self.rested = Instant::now() + took * (SHARE - 1);
                }
            }
            // A backend may be back since. Then who has it by now may have been given it rightly; whoever gets it from
            // now on is not among these.
            Ok(Outcome::Found(Stale { sockets, mut flows })) => {
                flows.retain(|(tuple, flow)| {
                    backend_of(tuple, flow).is_some_and(|(service, backend, protocol)| {
                        reconciler.is_stale(service, backend, protocol)
                    })
                });
                self.stale = Stale { sockets: reconciler.select_stale(sockets), flows };
                if self.stale.sockets.is_empty() {
                    reconciler.tell_unsearched(&[]);
                }
            }
            Ok(Outcome::Closed(closed, flows)) => {
                self.incomplete = !closed.unreachable.is_empty();
                reconciler.closed(closed.sockets, flows);
                reconciler.tell_unsearched(&closed.unreachable);
            }
            Err(error) => {
                tracing::error!("{error:#}: trying again soon");
                self.failed = true;
                reconciler.suspect_sockets();
            }
        }
    }

    /// Whether the last job failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether something is to be tried again. That a namespace could not be searched is no failure: changes are in
    /// force all the same.
    pub(super) fn has_more(&self) -> bool {
        self.failed || self.incomplete
    }

    /// Lets what failed be tried again, and namespaces be searched that could not be.
    pub(super) fn retry(&mut self, reconciler: &mut Reconciler) {
        self.failed = false;
        if std::mem::take(&mut self.incomplete) {
            reconciler.suspect_sockets();
        }
    }
}
