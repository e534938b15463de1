//! Which backend a new flow gets.

use core::cmp::Ordering;

use crate::abi::{AffinityKey, AffinityRow, Backend, Client, Counter, DropReason, Frontend, Peer, Run, Side};
use crate::datapath::{Moment, Tables};

/// A run holds fewer than 2^20 backends: one step of the search for each bit.
const SEARCH_STEPS: u32 = 20;

/// Chooses a backend of the frontend's Service for a new flow: the one that the client had before if the Service
/// has session affinity and it is still usable, any otherwise.
///
/// # Errors
/// Why there is none.
#[inline(always)]
pub(super) fn select_backend(
    tables: &impl Tables,
    moment: &impl Moment,
    frontend: &Frontend,
    side: Side,
    client: impl FnOnce() -> Client,
) -> Result<Peer, DropReason> {
    let run = tables.lookup_set(frontend.service.set(side)).run()?;
    if frontend.affinity_s == 0 {
        return select_any(tables, moment, run);
    }
    let key = AffinityKey { client: client(), service: frontend.service };
    let now_s = moment.seconds();
    let peer = match tables.lookup_affinity(&key) {
        // Saturating: another CPU may have read the clock a moment later and have come here first. And up to the
        // timeout itself: between two seconds as they are counted lies up to one less, and a timeout is a promise.
        Some(row)
            if now_s.saturating_sub(row.last_seen_s) <= frontend.affinity_s
                && contains(tables, run, &row.peer()) =>
        {
            row.peer()
        }
        _ => select_any(tables, moment, run)?,
    };
    if tables.put_affinity(&key, &AffinityRow::new(peer, now_s)).is_err() {
        tables.count(Counter::AffinityLost);
    }
    Ok(peer)
}

/// Any backend of the run, each as likely as the others.
#[inline(always)]
fn select_any(tables: &impl Tables, moment: &impl Moment, run: Run) -> Result<Peer, DropReason> {
    // The high half of the product is uniform below len (Lemire): no division, which BPF would do in software.
    let at = ((moment.random() as u64 * run.len as u64) >> 32) as u32;
    match tables.lookup_backend(run.offset.wrapping_add(at)) {
        Some(backend) => Ok(Backend::peer(&backend)),
        None => Err(DropReason::NoEndpoint),
    }
}

/// Whether the run, which is sorted by [`Peer::order`], has this backend.
#[inline(always)]
pub(super) fn contains(tables: &impl Tables, run: Run, peer: &Peer) -> bool {
    let (mut low, mut high) = (0, run.len);
    for _ in 0..SEARCH_STEPS {
        if low >= high {
            return false;
        }
        let middle = low + (high - low) / 2;
        let Some(backend) = tables.lookup_backend(run.offset.wrapping_add(middle)) else { return false };
        match backend.peer().order(peer) {
            Ordering::Equal => return true,
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    false
}
