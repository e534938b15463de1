//! Which backend a new flow gets.

use core::ops::ControlFlow;

use crate::abi::{
    AffinityKey, AffinityRow, Backend, Client, Counter, DropReason, Frontend, Origin, Run, mix,
};
use crate::datapath::{Moment, Tables};
use crate::repeat::repeat;

/// A run holds fewer than 2^20 backends: one step of the search for each bit.
const SEARCH_STEPS: u32 = 20;

/// Backends of one run that may stand at one place of the ring and still be found. Among a million there are a hundred
/// pairs, and hardly three of them together.
const SAME_PLACE: u32 = 4;

/// Points on the ring that are tried for one client (multi-probe consistent hashing, Appleton and O'Reilly 2015). Of 10 to
/// 100 backends the busiest then has about an eighth more than its share.
const PROBES: u32 = 16;

/// What decides where nothing was decided before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// Chance: each as likely as the others.
    Any,
    /// A hash of the client: the same on every node, and of all clients only those of a backend that goes are moved.
    Consistent(u32),
}

/// Chooses a backend of the frontend's Service for a new flow: the one that the client had before if the Service
/// has session affinity and it is still usable; otherwise by `choice`.
///
/// # Errors
/// Why there is none.
#[inline(always)]
pub(super) fn select_backend(
    tables: &impl Tables,
    moment: &impl Moment,
    frontend: &Frontend,
    origin: Origin,
    choice: Choice,
    client: impl FnOnce() -> Client,
) -> Result<Backend, DropReason> {
    let run = tables.lookup_set(frontend.service.set(frontend.scope(origin))).run()?;
    if frontend.affinity_s == 0 {
        return select_new(tables, moment, run, choice);
    }
    let key = AffinityKey::new(client(), frontend.service);
    let now_s = moment.seconds();
    let kept = match tables.lookup_affinity(&key) {
        // Saturating: another CPU may have read the clock a moment later and have come here first. And up to the
        // timeout itself: between two seconds as they are counted lies up to one less, and a timeout is a promise.
        Some(row) if now_s.saturating_sub(row.last_seen_s) <= frontend.affinity_s => {
            lookup_in_run(tables, run, &Backend::new(row.peer(), 0))
        }
        _ => None,
    };
    let backend = match kept {
        Some(backend) => backend,
        None => select_new(tables, moment, run, choice)?,
    };
    if tables.put_affinity(&key, &AffinityRow::new(backend.peer(), now_s)).is_err() {
        tables.count(Counter::AffinityLost);
    }
    Ok(backend)
}

#[inline(always)]
fn select_new(
    tables: &impl Tables,
    moment: &impl Moment,
    run: Run,
    choice: Choice,
) -> Result<Backend, DropReason> {
    let found = match choice {
        Choice::Any => select_any(tables, moment, run),
        Choice::Consistent(seed) => {
            tables.lookup_backend(run.offset.wrapping_add(select_consistent(tables, run, seed)))
        }
    };
    found.ok_or(DropReason::NoEndpoint)
}

/// Any backend of the run, each as likely as the others.
#[inline(always)]
fn select_any(tables: &impl Tables, moment: &impl Moment, run: Run) -> Option<Backend> {
    // The high half of the product is uniform below len (Lemire): no division, which BPF would do in software.
    let at = ((moment.random() as u64 * run.len as u64) >> 32) as u32;
    tables.lookup_backend(run.offset.wrapping_add(at))
}

/// Of several points on the ring that follow from the seed, the backend that comes soonest after its point: its place in
/// the run.
#[inline(never)]
pub(super) fn select_consistent(tables: &impl Tables, run: Run, seed: u32) -> u32 {
    if run.len == 1 {
        return 0;
    }
    let (mut best, mut nearest) = (0, u32::MAX);
    repeat(PROBES, |probe| {
        let point = mix(seed, probe);
        let at = lookup_next(tables, run, point);
        let Some(next) = tables.lookup_backend(run.offset.wrapping_add(at)) else {
            return ControlFlow::Break(());
        };
        let distance = next.place().wrapping_sub(point);
        if distance < nearest {
            nearest = distance;
            best = at;
        }
        ControlFlow::Continue(())
    });
    best
}

/// The place in the run of the first backend at or after a point on the ring: after the last comes the first.
#[inline(always)]
fn lookup_next(tables: &impl Tables, run: Run, point: u32) -> u32 {
    let at = lower_bound(tables, run, point);
    if at < run.len { at } else { 0 }
}

/// How many backends of the run, which is sorted by [`Backend::order`], stand before a point on the ring.
#[inline(always)]
fn lower_bound(tables: &impl Tables, run: Run, point: u32) -> u32 {
    let mut search = Search { offset: run.offset, point, low: 0, high: run.len };
    repeat(SEARCH_STEPS, |_| search.halve(tables));
    search.low
}

/// A search under way. In one piece, so that a step of the loop needs one pointer: the kernel has 512 bytes of stack for
/// all functions that are called from one another.
struct Search {
    /// Of the run.
    offset: u32,
    point: u32,
    /// The answer is at least this.
    low: u32,
    /// And at most this.
    high: u32,
}

impl Search {
    #[inline(always)]
    fn halve(&mut self, tables: &impl Tables) -> ControlFlow<()> {
        if self.low >= self.high {
            return ControlFlow::Break(());
        }
        let middle = self.low + (self.high - self.low) / 2;
        match tables.lookup_backend(self.offset.wrapping_add(middle)) {
            Some(backend) if backend.place() < self.point => self.low = middle + 1,
            _ => self.high = middle,
        }
        ControlFlow::Continue(())
    }
}

/// This backend as the run has it.
#[inline(always)]
pub(super) fn lookup_in_run(tables: &impl Tables, run: Run, wanted: &Backend) -> Option<Backend> {
    let first = lower_bound(tables, run, wanted.place());
    // Counted from 0, so that the verifier sees an end.
    for step in 0..SAME_PLACE {
        let at = first.wrapping_add(step);
        if at >= run.len {
            return None;
        }
        let backend = tables.lookup_backend(run.offset.wrapping_add(at))?;
        if backend.peer() == wanted.peer() {
            return Some(backend);
        }
    }
    None
}
