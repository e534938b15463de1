//! Rows over a store in memory that may be full.

mod carried;
mod exact;

use std::collections::HashSet;
use std::net::IpAddr;

use weir_ebpf::abi::{
    ClassId, NetworkKey, PodPolicy, PolicySetId, Port, PortRule, PortRuleKey, PortRulesId, VerdictKey,
};

use super::*;
use crate::compile::policy::{Fingerprint, Named};

const SET: PolicySetId = PolicySetId(5);
const DEVICE: u32 = 100;
const OPTIONS: PolicyOptions = PolicyOptions { judged: 64, holds_unknown: true };

/// What is written, and the tables that take nothing new.
#[derive(Default)]
struct Store {
    snapshot: PolicySnapshot,
    full: HashSet<&'static str>,
    writes: Vec<PolicyWrite>,
}

impl PolicyStore for Store {
    fn write_policy(&mut self, write: &PolicyWrite) -> Result<(), StoreError> {
        let found = &mut self.snapshot;
        let refuse = |table: &'static str| match self.full.contains(table) {
            true => Err(StoreError::Full { table, capacity: 1 }),
            false => Ok(()),
        };
        match *write {
            PolicyWrite::PortRule(key, row) => put(&mut found.port_rules, key, row, refuse("port_rules"))?,
            PolicyWrite::Verdict(key, row) => put(&mut found.verdicts, key, row, refuse("verdicts"))?,
            PolicyWrite::Network(key, row) => {
                put_network(&mut found.networks, key, row, refuse("network_classes"))?;
            }
            PolicyWrite::Address(key, row) => put(&mut found.addresses, key, row, refuse("address_classes"))?,
            PolicyWrite::Name(key, row) => put(&mut found.names, key, row, refuse("policy_names"))?,
            PolicyWrite::Pod(key, row) => put(&mut found.pods, key, row, refuse("pod_policies"))?,
            PolicyWrite::Enforcement(row) => found.enforcement = row,
        }
        self.writes.push(*write);
        Ok(())
    }
}

/// An LPM trie that is full takes no other value for a row that it has, either (the kernel makes a new node first).
fn put_network(
    rows: &mut HashMap<NetworkKey, ClassId>,
    key: NetworkKey,
    row: Option<ClassId>,
    room: Result<(), StoreError>,
) -> Result<(), StoreError> {
    if row.is_some() {
        room?;
    }
    put(rows, key, row, Ok(()))
}

/// A row that is there may be removed, or another take its place, also where there is no room.
fn put<K: Eq + std::hash::Hash, R>(
    rows: &mut HashMap<K, R>,
    key: K,
    row: Option<R>,
    room: Result<(), StoreError>,
) -> Result<(), StoreError> {
    match row {
        Some(row) => {
            if !rows.contains_key(&key) {
                room?;
            }
            rows.insert(key, row);
        }
        None => {
            rows.remove(&key);
        }
    }
    Ok(())
}

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn closed_to_all() -> PodPolicy {
    PodPolicy::new(PolicySetId::CLOSED, PolicySetId::OPEN)
}

fn guarded() -> PodPolicy {
    PodPolicy::new(SET, PolicySetId::OPEN)
}

/// A set with one class, by a network with an except; and a pod that has it.
fn update() -> Update {
    let (ports, class) = (PortRulesId(3), ClassId(4));
    let network = |text, bits, class| Change::Network(NetworkKey::new(addr(text), bits), Some(class));
    let changes = vec![
        Change::PortRule(PortRuleKey::new(ports, 6, Port::new(80), 16), Some(PortRule::ALLOW)),
        Change::Verdict(VerdictKey { set: SET, class }, Some(ports)),
        Change::Name(Named::Set(SET), Some(Fingerprint([5; 16]))),
        network("0.0.0.0", 96, ClassId::EVERYBODY),
        network("192.0.2.0", 120, class),
        network("192.0.2.8", 125, ClassId::EVERYBODY),
        Change::Pod(addr("10.0.0.1"), Some(guarded())),
    ];
    Update { changes, garbage: Vec::new() }
}

fn rows() -> PolicyRows {
    PolicyRows::new(OPTIONS, PolicySnapshot::default())
}

fn here() -> impl Iterator<Item = (Addr, u32)> {
    [(addr("10.0.0.1"), DEVICE)].into_iter()
}

#[test]
fn a_pod_is_bound_when_both_its_device_and_its_sets_are_known() {
    let bound = |store: &Store| store.snapshot.pods.get(&DEVICE).map(|row| (row.v4, row.policy));
    for device_first in [false, true] {
        let (mut rows, mut store) = (rows(), Store::default());
        if device_first {
            rows.set_workloads(here(), BTreeSet::new(), &mut store);
        }
        rows.apply(update(), true, &mut store);
        assert_eq!(bound(&store).is_some(), device_first);
        rows.set_workloads(here(), BTreeSet::new(), &mut store);
        assert_eq!(bound(&store), Some((addr("10.0.0.1"), guarded())));
        assert_eq!(rows.bound(), 1);
        rows.set_workloads([].into_iter(), BTreeSet::new(), &mut store);
        assert_eq!((bound(&store), rows.bound()), (None, 0), "its device is gone");
        rows.set_workloads(here(), BTreeSet::new(), &mut store);
        let gone = vec![Change::Pod(addr("10.0.0.1"), None)];
        rows.apply(Update { changes: gone, garbage: Vec::new() }, true, &mut store);
        assert_eq!(bound(&store), None, "its Pod is gone");
    }
}

#[test]
fn both_addresses_of_a_pod_are_one_row_and_two_pods_behind_one_device_are_closed() {
    let (mut rows, mut store) = (rows(), Store::default());
    rows.set_workloads(
        [(addr("10.0.0.1"), DEVICE), (addr("fd00::1"), DEVICE)].into_iter(),
        BTreeSet::new(),
        &mut store,
    );
    let mut update = update();
    update.changes.push(Change::Pod(addr("fd00::1"), Some(guarded())));
    rows.apply(update, true, &mut store);
    let row = store.snapshot.pods[&DEVICE];
    assert_eq!((row.v4, row.v6, row.policy), (addr("10.0.0.1"), addr("fd00::1"), guarded()));
    let writes = store.writes.iter().filter(|write| matches!(write, PolicyWrite::Pod(..))).count();
    assert_eq!(writes, 1, "the two move together");
    let open = vec![Change::Pod(addr("fd00::1"), Some(PodPolicy::OPEN))];
    rows.apply(Update { changes: open, garbage: Vec::new() }, true, &mut store);
    assert_eq!(store.snapshot.pods[&DEVICE].policy, closed_to_all());
}

#[test]
fn a_trusted_device_is_said_to_be_one() {
    let (mut rows, mut store) = (rows(), Store::default());
    rows.set_workloads(here(), BTreeSet::from([DEVICE]), &mut store);
    rows.apply(update(), true, &mut store);
    assert_eq!(store.snapshot.pods[&DEVICE].flags, BoundPod::ANY_SOURCE);
    rows.set_workloads(here(), BTreeSet::new(), &mut store);
    assert_eq!(store.snapshot.pods[&DEVICE].flags, 0);
}

#[test]
fn pods_move_before_what_they_left_is_taken_away() {
    let (mut rows, mut store) = (rows(), Store::default());
    rows.set_workloads(here(), BTreeSet::new(), &mut store);
    rows.apply(update(), true, &mut store);
    store.writes.clear();
    let network = NetworkKey::new(addr("192.0.2.8"), 125);
    let changes = vec![Change::Pod(addr("10.0.0.1"), Some(PodPolicy::OPEN)), Change::Network(network, None)];
    let garbage = vec![Change::Name(Named::Set(SET), None)];
    rows.apply(Update { changes, garbage }, true, &mut store);
    let is_pod = |write: &PolicyWrite| matches!(write, PolicyWrite::Pod(..));
    assert!(is_pod(&store.writes[0]), "{:?}", store.writes);
    assert_eq!(store.writes[1], PolicyWrite::Network(network, None));
    assert_eq!(store.snapshot.names.len(), 1, "not before a grace period has passed");
    let retired = rows.take_retired().expect("there is garbage");
    rows.release(retired, &mut store);
    assert_eq!(store.snapshot.names.len(), 0);
    assert!(rows.take_retired().is_none());
}

#[test]
fn a_generation_begins_when_classes_have_moved_and_another_a_grace_period_later() {
    let (mut rows, mut store) = (rows(), Store::default());
    rows.apply(update(), true, &mut store);
    let first = store.snapshot.enforcement;
    assert_eq!((first.flags, first.most_per_pod), (Enforcement::ON | Enforcement::HOLD_UNKNOWN, 16));
    assert_ne!(first.generation, 0);
    let retired = rows.take_retired().expect("classes have moved");
    rows.release(retired, &mut store);
    let second = store.snapshot.enforcement.generation;
    assert_ne!(second, first.generation);
    // A pod that moves to other sets is no class.
    let open = vec![Change::Pod(addr("10.0.0.1"), Some(PodPolicy::OPEN))];
    rows.apply(Update { changes: open, garbage: Vec::new() }, true, &mut store);
    assert_eq!(store.snapshot.enforcement.generation, second);
    assert!(rows.take_retired().is_none());
    rows.apply(Update::default(), false, &mut store);
    assert!(!store.snapshot.enforcement.is_on());
}

#[test]
fn a_network_without_room_closes_the_pods_that_ask_for_it() {
    let (mut rows, mut store) = (rows(), Store::default());
    rows.set_workloads(here(), BTreeSet::new(), &mut store);
    store.full.insert("network_classes");
    rows.apply(update(), true, &mut store);
    assert_eq!(store.snapshot.pods[&DEVICE].policy, closed_to_all());
    assert!(rows.has_refused() && rows.take_problems_changed());
    let problems: Vec<String> = rows.problems().iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().any(|problem| problem.contains("10.0.0.1")), "{problems:?}");
    rows.retry(&mut store);
    assert_eq!(store.snapshot.pods[&DEVICE].policy, closed_to_all(), "there is no room yet");
    store.full.clear();
    rows.retry(&mut store);
    assert_eq!(store.snapshot.pods[&DEVICE].policy, guarded());
    assert_eq!(store.snapshot.networks.len(), 3);
    assert!(!rows.has_refused() && rows.take_problems_changed());
    assert!(rows.problems().is_empty());
}

#[test]
fn what_becomes_of_a_pod_without_a_row_depends_on_what_is_done_with_unknown_ones() {
    for (holds_unknown, expected) in [(true, "they are held"), (false, "all passes (--unknown-pods allow)")] {
        let options = PolicyOptions { holds_unknown, ..OPTIONS };
        let (mut rows, mut store) = (PolicyRows::new(options, PolicySnapshot::default()), Store::default());
        rows.set_workloads(here(), BTreeSet::new(), &mut store);
        store.full.insert("pod_policies");
        rows.apply(update(), true, &mut store);
        let problems: Vec<String> = rows.problems().iter().map(ToString::to_string).collect();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}");
        assert!(problems[0].contains("pods behind 1 devices"), "{problems:?}");
    }
}

#[test]
fn other_rows_without_room_allow_less_and_are_tried_again() {
    for table in ["port_rules", "verdicts", "policy_names", "pod_policies"] {
        let (mut rows, mut store) = (rows(), Store::default());
        rows.set_workloads(here(), BTreeSet::new(), &mut store);
        store.full.insert(table);
        rows.apply(update(), true, &mut store);
        assert!(rows.has_refused(), "{table}");
        let problems = rows.problems();
        assert!(problems.len() == 1 && problems[0].message.contains("full"), "{problems:?}");
        let sets_with = |ports| if ports == PortRulesId(3) { [SET].into() } else { BTreeSet::new() };
        let lacking = |rows: &PolicyRows| rows.lacking(sets_with);
        let expected: Vec<IpAddr> =
            if table == "policy_names" { vec![] } else { vec!["10.0.0.1".parse().unwrap()] };
        assert_eq!(lacking(&rows).into_iter().collect::<Vec<_>>(), expected, "{table}");
        store.full.clear();
        rows.retry(&mut store);
        assert!(lacking(&rows).is_empty(), "{table}");
        assert!(!rows.has_refused(), "{table}");
        assert_eq!(store.snapshot.pods[&DEVICE].policy, guarded());
        let written = (store.snapshot.port_rules.len(), store.snapshot.verdicts.len());
        assert_eq!((written, store.snapshot.names.len()), ((1, 1), 1));
    }
}

#[test]
fn what_an_agent_before_left_stays_in_force_until_it_is_known_what_is_true() {
    let (mut first, mut store) = (rows(), Store::default());
    first.set_workloads(here(), BTreeSet::new(), &mut store);
    first.apply(update(), true, &mut store);
    // Something of which nobody will speak again.
    let stale = VerdictKey { set: PolicySetId(9), class: ClassId(9) };
    store.snapshot.verdicts.insert(stale, PortRulesId::ALL);
    store.snapshot.addresses.insert(addr("10.0.0.9"), ClassId(9));
    store.snapshot.pods.insert(7, store.snapshot.pods[&DEVICE]);
    let found = store.snapshot.clone();
    store.writes.clear();
    let mut second = PolicyRows::new(OPTIONS, found.clone());
    second.set_workloads(here(), BTreeSet::new(), &mut store);
    assert!(store.writes.is_empty(), "{:?}", store.writes);
    second.apply(update(), true, &mut store);
    assert_eq!(store.snapshot.pods.keys().collect::<Vec<_>>(), [&DEVICE]);
    assert!(store.snapshot.addresses.is_empty());
    assert_eq!(store.snapshot.verdicts.len(), 2, "not before a grace period has passed");
    let retired = second.take_retired().expect("there is garbage");
    second.release(retired, &mut store);
    assert_eq!(store.snapshot.verdicts.len(), 1);
    // Nothing else was written: no row that was right already.
    let unchanged = store.writes.iter().any(|write| {
        matches!(write, PolicyWrite::PortRule(..) | PolicyWrite::Name(..) | PolicyWrite::Network(..))
    });
    assert!(!unchanged, "{:?}", store.writes);
    assert_eq!(second.bound(), 1);
    let named: Vec<_> = found.named().collect();
    assert_eq!(named, [(Named::Set(SET), Fingerprint([5; 16]))]);
}
