//! Forgetting flows that policies had allowed, and counting whose the others are; `daemon` calls this with the sweeping of
//! translated flows.

use std::collections::HashMap as Counts;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::maps::{Array, HashMap, Map, MapData};
use weir_ebpf::abi::{BoundPod, Enforcement, Judged, JudgedKey, Protocol, Share, Side, Signs};
use weir_ebpf::datapath::lifetime::{lifetime_in_need_s, lifetime_s};

use super::batch;
use super::flows::seconds;
use super::generation::Generation;
use super::row::Row;
use super::store::{is_full, is_there};

/// `BPF_NOEXIST`: only where there is no such row.
const NOEXIST: u64 = 1;

/// What [`sweep_judged`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SweptJudged {
    /// Rows in the table.
    pub rows: usize,
    /// Whether it is nearly full.
    pub in_need: bool,
    /// Flows that were forgotten.
    pub flows: usize,
    /// Whether policies are in force: then rows come, and what each pod has is to be counted.
    pub is_on: bool,
}

/// Forgets the rows whose lifetime is over and those of pods that are gone, and says how many each pod has. `before` is what
/// was found the last time: while the table is nearly full, what nobody answered is forgotten sooner.
///
/// # Errors
/// The kernel's.
pub fn sweep_judged(generation: &Generation, before: SweptJudged) -> anyhow::Result<SweptJudged> {
    let data = generation.open("JUDGED")?;
    let capacity: usize = data.info()?.max_entries().try_into()?;
    let pods: Vec<(u32, BoundPod)> =
        batch::read_all(generation.open("POD_POLICIES")?.fd().as_fd()).context("reading pod_policies")?;
    let mut shares: Counts<u32, u32> = pods.iter().map(|(device, _)| (*device, 0)).collect();
    let (now_s, lifetime) = (seconds()?, if before.in_need { lifetime_in_need_s } else { lifetime_s });
    let enforcement: Array<MapData, Row<Enforcement>> =
        Map::Array(generation.open("ENFORCEMENT")?).try_into()?;
    let is_on = enforcement.get(&0, 0).context("reading the enforcement table")?.0.is_on();
    let mut swept = SweptJudged { is_on, ..SweptJudged::default() };
    let mut over = Vec::new();
    batch::read_each(data.fd().as_fd(), |rows: &mut dyn Iterator<Item = (JudgedKey, Judged)>| {
        for (key, row) in rows {
            swept.rows += 1;
            match shares.get_mut(&key.device()) {
                Some(share) if !is_over(&key, &row, now_s, lifetime) => *share += 1,
                _ => over.push(key),
            }
        }
    })
    .context("reading the judged table")?;
    let mut map: HashMap<MapData, Row<JudgedKey>, Row<Judged>> = Map::HashMap(data).try_into()?;
    for key in over {
        // Once more: a packet may have come since. One that comes now is of a flow that its pod's sets allow, or is judged
        // again as any that is not known.
        let lives =
            |row: &Row<Judged>| shares.contains_key(&key.device()) && !is_over(&key, &row.0, now_s, lifetime);
        if !map.get(&Row(key), 0).is_ok_and(|row| lives(&row)) {
            let _gone_already = map.remove(&Row(key));
            swept.flows += 1;
        }
    }
    let isolates = |pod: &BoundPod| is_on && !pod.policy.is_open();
    for (device, _) in pods.iter().filter(|(_, pod)| !isolates(pod)) {
        shares.remove(device);
    }
    write_shares(generation, &shares)?;
    swept.in_need = swept.rows - swept.flows > capacity / 4 * 3;
    Ok(swept)
}

/// Copies what flows were allowed to maps of another size, without touching those that are there. The numbers of sets and
/// classes are other ones there, so each flow is judged again at its next packet; who began it is not forgotten. What does not
/// fit is as if it were not known.
///
/// # Errors
/// The kernel's.
pub fn migrate_judged(from: &Generation, to: &Generation) -> anyhow::Result<usize> {
    let rows: Vec<(JudgedKey, Judged)> =
        batch::read_all(from.open("JUDGED")?.fd().as_fd()).context("reading the judged table")?;
    let mut map: HashMap<MapData, Row<JudgedKey>, Row<Judged>> =
        Map::HashMap(to.open("JUDGED")?).try_into()?;
    let mut copied = 0;
    for (key, mut row) in rows {
        row.set_basis(u64::MAX);
        match map.insert(Row(key), Row(row), NOEXIST) {
            Ok(()) => copied += 1,
            Err(error) if is_there(&error) => {}
            Err(error) if is_full(&error) => break,
            Err(error) => return Err(error).context("copying the judged table"),
        }
    }
    Ok(copied)
}

/// What was counted takes the place of what the programs counted up to; what they added meanwhile comes in with the next
/// sweep. A pod that nothing isolates has no share: what it begins has no row, so it is another beginning when something does.
fn write_shares(generation: &Generation, shares: &Counts<u32, u32>) -> anyhow::Result<()> {
    let data = generation.open("JUDGED_SHARES")?;
    let held: Vec<(u32, Share)> = batch::read_all(data.fd().as_fd()).context("reading judged_shares")?;
    let mut map: HashMap<MapData, u32, Row<Share>> = Map::HashMap(data).try_into()?;
    for (device, held) in held {
        match shares.get(&device) {
            Some(rows) if *rows == held.rows => {}
            Some(rows) => {
                map.insert(device, Row(Share { rows: *rows, ..held }), 0).context("writing judged_shares")?;
            }
            None => {
                let _gone_already = map.remove(&device);
            }
        }
    }
    Ok(())
}

type Lifetime = fn(Protocol, Signs, Signs, u32) -> u32;

/// What has no ports lives as datagrams do.
fn is_over(key: &JudgedKey, row: &Judged, now_s: u32, lifetime: Lifetime) -> bool {
    let protocol = Protocol::from_number(key.protocol().into()).unwrap_or(Protocol::Udp);
    let (first, other) = match row.began() {
        Side::Egress => (row.outward, row.inward),
        Side::Ingress => (row.inward, row.outward),
    };
    let lasted_s = row.seen_s.saturating_sub(row.begun_s);
    now_s.saturating_sub(row.seen_s) >= lifetime(protocol, first, other, lasted_s)
}

#[cfg(test)]
mod tests {
    use weir_ebpf::abi::{Addr, ClassId, Peer, PolicySetId, Port};

    use super::*;

    #[test]
    fn a_segment_that_anybody_can_send_is_not_remembered_for_a_day() {
        let peer = Peer { addr: Addr::from_v4(0xc000_0201), port: Port::new(4000) };
        let key = JudgedKey::new(7, Port::new(80), peer, Protocol::Tcp as u8);
        let mut row = Judged::new(Side::Egress, PolicySetId::OPEN, ClassId::EVERYBODY, 1, 1000);
        row.seen_s = 1000;
        // In mid-stream, from the peer: the pod is taken for who began it, and has said nothing.
        row.inward = Signs::SEEN.and(Signs::ACK);
        assert!(!is_over(&key, &row, 1060, lifetime_s) && is_over(&key, &row, 1130, lifetime_s));
        assert!(is_over(&key, &row, 1015, lifetime_in_need_s));
        // A SYN and its answer are no connection either, if nobody heard the answer.
        (row.outward, row.inward) = (Signs::SEEN, Signs::SEEN);
        assert!(is_over(&key, &row, 1130, lifetime_s) && is_over(&key, &row, 1015, lifetime_in_need_s));
        row.outward = Signs::SEEN.and(Signs::ACK);
        assert!(!is_over(&key, &row, 40_000, lifetime_s));
        assert!(!is_over(&key, &row, 40_000, lifetime_in_need_s));
    }
}
