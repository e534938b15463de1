//! Which backend a new flow gets.

use core::cmp::Ordering;

use crate::abi::{
    AffinityKey, AffinityRow, Backend, Client, Counter, DropReason, Frontend, Origin, Run, mix,
};
use crate::datapath::{Moment, Tables};

/// A run holds fewer than 2^20 backends: one step of the search for each bit.
const SEARCH_STEPS: u32 = 20;

/// Points on the ring that are tried for one client. The busiest of many backends then has about 1/16 more than its
/// share (multi-probe consistent hashing, Appleton and O'Reilly 2015).
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
    let key = AffinityKey { client: client(), service: frontend.service };
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
    for probe in 0..PROBES {
        let point = mix(seed, probe);
        let at = lookup_next(tables, run, point);
        let Some(next) = tables.lookup_backend(run.offset.wrapping_add(at)) else { break };
        let distance = next.place().wrapping_sub(point);
        if distance < nearest {
            nearest = distance;
            best = at;
        }
    }
    best
}

/// The place in the run of the first backend at or after a point on the ring. A binary search without branches: the
/// verifier would follow both ways at each of its steps, for each of the probes.
#[inline(always)]
fn lookup_next(tables: &impl Tables, run: Run, point: u32) -> u32 {
    let (mut low, mut high) = (0, run.len);
    for _ in 0..SEARCH_STEPS {
        let middle = low + (high - low) / 2;
        let is_open = is_less(low, high);
        // Where the search is over, `middle` may be the end of the run; what stands there does not count.
        let Some(backend) = tables.lookup_backend(run.offset.wrapping_add(middle)) else { break };
        let is_before = is_less(backend.place(), point) & is_open;
        low = (low & !is_before) | ((middle + 1) & is_before);
        let is_after = !is_before & is_open;
        high = (high & !is_after) | (middle & is_after);
    }
    // After the last comes the first.
    low & is_less(low, run.len)
}

/// All bits where `a` is less than `b`, none otherwise.
#[inline(always)]
const fn is_less(a: u32, b: u32) -> u32 {
    // The borrow of the subtraction.
    0_u32.wrapping_sub(((a as u64).wrapping_sub(b as u64) >> 63) as u32)
}

/// This backend as the run, which is sorted by [`Backend::order`], has it.
#[inline(always)]
pub(super) fn lookup_in_run(tables: &impl Tables, run: Run, wanted: &Backend) -> Option<Backend> {
    let (mut low, mut high) = (0, run.len);
    for _ in 0..SEARCH_STEPS {
        if low >= high {
            return None;
        }
        let middle = low + (high - low) / 2;
        let backend = tables.lookup_backend(run.offset.wrapping_add(middle))?;
        match backend.order(wanted) {
            Ordering::Equal => return Some(backend),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    None
}
