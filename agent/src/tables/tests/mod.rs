//! The mirror against its store: what the datapath sees is what the plans say, whatever the order.

mod affinity;
mod history;
mod outside;
mod trouble;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use proptest::prelude::*;
use weir_ebpf::abi::{Backend, Counter, DropReason, FrontendKey, FrontendKind, Protocol, Scope};
use weir_ebpf::datapath::Tables as _;
use weir_ebpf::datapath::socket::{self, Verdict};
use weir_ebpf::testing::{FakeMoment, FakeSocket};

use super::memory::MemoryStore;
use super::{Sizes, Tables};
use crate::compile::{FrontendPlan, PortName, PortPlan, ServicePlan, SetPlan};
use crate::source::{Family, ObjectKey};

fn sizes() -> Sizes {
    Sizes {
        frontends: 8,
        services: 4,
        backends: 16,
        connections: 16,
        datagrams: 16,
        affinity: 16,
        source_ranges: 8,
        flows: 64,
        address_classes: 64,
        network_classes: 64,
        verdicts: 64,
        port_rules: 64,
        judged: 64,
        drop_events: 64,
    }
}

fn backend(index: u8) -> SocketAddr {
    SocketAddr::from(([10, 1, 0, index], 8080))
}

/// A Service of one port at 10.96.0.`vip`:80 with these backends.
fn plan(name: &str, vip: u8, backends: impl IntoIterator<Item = u8>) -> ServicePlan {
    let service = ObjectKey::new("ns", name);
    let backends: BTreeMap<SocketAddr, bool> = backends.into_iter().map(|at| (backend(at), false)).collect();
    ServicePlan {
        service: service.clone(),
        created_s: None,
        present: backends.keys().map(SocketAddr::ip).collect(),
        ports: vec![PortPlan {
            name: PortName { service, port: "".into(), protocol: Protocol::Tcp, family: Family::V4 },
            frontends: vec![FrontendPlan { addr: vip_addr(vip), kind: FrontendKind::ClusterIp, flags: 0 }],
            cluster: Some(SetPlan { backends, when_empty: DropReason::NoEndpoint }),
            local: None,
            source_ranges: Vec::new(),
            affinity_s: 0,
        }],
    }
}

/// The backends of its only port, wherever they are.
fn cluster(plan: &ServicePlan) -> &BTreeMap<SocketAddr, bool> {
    &plan.ports[0].cluster.as_ref().unwrap().backends
}

fn vip_addr(vip: u8) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, vip], 80))
}

fn connect(store: &MemoryStore, to: SocketAddr) -> Verdict {
    let client =
        FakeSocket { protocol: Some(Protocol::Tcp), cookie: 1, netns: 1, listener: false, in_pod: false };
    socket::connect(&store.tables, &FakeMoment::default(), &client, to.into())
}

/// The backends that a client may get, in the order of their addresses.
fn reached(store: &MemoryStore, vip: u8) -> Vec<SocketAddr> {
    let key = FrontendKey::new(vip_addr(vip).into(), Protocol::Tcp);
    let Some(frontend) = store.tables.lookup_frontend(&key) else { return Vec::new() };
    let Ok(run) = store.tables.lookup_set(frontend.service.set(Scope::Cluster)).run() else {
        return Vec::new();
    };
    let rows = (run.offset..run.offset + run.len).map(|at| store.tables.lookup_backend(at).unwrap());
    let mut reached: Vec<SocketAddr> = rows.map(|row: Backend| row.peer().into()).collect();
    reached.sort();
    reached
}

fn apply(tables: &mut Tables, store: &mut MemoryStore, plan: &ServicePlan) {
    tables.apply(&plan.service, Some(plan), store);
}

#[test]
fn an_unchanged_plan_writes_nothing() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    apply(&mut tables, &mut store, &plan("a", 1, [1, 2]));
    let before = store.writes;
    apply(&mut tables, &mut store, &plan("a", 1, [1, 2]));
    assert_eq!(store.writes, before);
    assert_eq!(reached(&store, 1), [backend(1), backend(2)]);
}

#[test]
fn a_restart_writes_only_what_differs_and_keeps_ids() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    for (name, vip) in [("a", 1), ("b", 2)] {
        apply(&mut tables, &mut store, &plan(name, vip, [vip]));
    }
    let names = store.names.clone();
    let before = store.writes;
    let mut tables = store.adopt(sizes()).unwrap();
    for (name, vip) in [("b", 2), ("a", 1)] {
        apply(&mut tables, &mut store, &plan(name, vip, [vip]));
    }
    assert_eq!(store.writes, before, "nothing differs");
    apply(&mut tables, &mut store, &plan("a", 1, [3]));
    assert_eq!(store.writes, before + 2, "one backend, one word");
    assert_eq!(store.names, names);
    assert_eq!(reached(&store, 1), [backend(3)]);
}

#[test]
fn what_a_dead_agent_left_half_done_is_mended() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    apply(&mut tables, &mut store, &plan("a", 1, [1]));
    apply(&mut tables, &mut store, &plan("b", 2, [2]));
    // Died after it had removed the name but not the frontends of `a`, and while writing the run of `b`.
    store.names.pop_first();
    store.tables.backends.clear();
    let mut tables = store.adopt(sizes()).unwrap();
    assert_eq!(connect(&store, vip_addr(1)), Verdict::Pass);
    apply(&mut tables, &mut store, &plan("b", 2, [2]));
    assert_eq!(reached(&store, 2), [backend(2)]);
}

#[test]
fn places_are_used_again_only_after_a_grace_period() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    apply(&mut tables, &mut store, &plan("a", 1, 0..8));
    let first = store.tables.backends.clone();
    apply(&mut tables, &mut store, &plan("a", 1, 10..18));
    assert_eq!(store.graces, 0);
    for (at, row) in &first {
        assert_eq!(store.tables.backends[at], *row, "somebody may still be reading this row");
    }
    apply(&mut tables, &mut store, &plan("a", 1, 20..28));
    assert_eq!(store.graces, 1, "no room without the places that were given up");
    assert_eq!(reached(&store, 1), (20..28).map(backend).collect::<Vec<_>>());
}

#[test]
fn a_full_table_refuses_the_newcomer_by_name_and_serves_it_later() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    apply(&mut tables, &mut store, &plan("a", 1, 0..12));
    apply(&mut tables, &mut store, &plan("b", 2, 0..12));
    assert_eq!(reached(&store, 1).len(), 12);
    let said: Vec<String> = tables.problems().map(|(key, problem)| format!("{key} {problem}")).collect();
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("ns/b") && said[0].contains("backends table is full (16 rows)"), "{said:?}");
    tables.apply(&ObjectKey::new("ns", "a"), None, &mut store);
    assert_eq!(tables.settle(&mut store).unwrap(), [ObjectKey::new("ns", "b")]);
    apply(&mut tables, &mut store, &plan("b", 2, 0..12));
    assert_eq!(reached(&store, 2).len(), 12);
    assert_eq!(tables.problems().count(), 0);
}

#[test]
fn a_full_table_never_keeps_a_backend_that_is_gone() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    apply(&mut tables, &mut store, &plan("a", 1, 0..10));
    apply(&mut tables, &mut store, &plan("b", 2, 20..24));
    apply(&mut tables, &mut store, &plan("a", 1, 0..11));
    assert_eq!(reached(&store, 1).len(), 10, "it grows when there is room");
    assert_eq!(tables.problems().count(), 1);
    apply(&mut tables, &mut store, &plan("a", 1, 1..10));
    assert_eq!(reached(&store, 1), (1..10).map(backend).collect::<Vec<_>>());
    apply(&mut tables, &mut store, &plan("a", 1, 2..15));
    assert_eq!(reached(&store, 1), [], "13 do not fit, and one of the 9 is gone");
    assert_eq!(connect(&store, vip_addr(1)), Verdict::Deny(DropReason::NoEndpoint));
    assert_eq!(reached(&store, 2).len(), 4);
}

#[test]
fn more_services_than_ids_and_more_frontends_than_rows() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    for at in 0..6 {
        apply(&mut tables, &mut store, &plan(&format!("s{at}"), at, [at]));
    }
    for at in 0..6 {
        assert_eq!(reached(&store, at), if at < 4 { vec![backend(at)] } else { vec![] });
    }
    assert_eq!(tables.problems().count(), 2);
    assert!(tables.usage().frontends <= sizes().frontends as usize);
}

#[test]
fn of_two_services_with_one_address_the_first_has_it_and_the_other_follows() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    apply(&mut tables, &mut store, &plan("b", 1, [1]));
    apply(&mut tables, &mut store, &plan("a", 1, [2]));
    assert_eq!(reached(&store, 1), [backend(1)]);
    let said: Vec<String> = tables.problems().map(|(key, problem)| format!("{key} {problem}")).collect();
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("ns/a ") && said[0].contains("10.96.0.1:80 TCP"), "{said:?}");

    let mut after_restart = store.adopt(sizes()).unwrap();
    apply(&mut after_restart, &mut store, &plan("a", 1, [2]));
    apply(&mut after_restart, &mut store, &plan("b", 1, [1]));
    assert_eq!(reached(&store, 1), [backend(1)], "a restart does not turn it round");

    after_restart.apply(&ObjectKey::new("ns", "b"), None, &mut store);
    assert_eq!(reached(&store, 1), [backend(2)]);
    assert_eq!(after_restart.problems().count(), 0);
}

#[test]
fn the_older_service_has_the_address_whoever_came_first() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    let (mut young, mut old) = (plan("a", 1, [1]), plan("b", 1, [2]));
    (young.created_s, old.created_s) = (Some(20), Some(10));
    apply(&mut tables, &mut store, &young);
    apply(&mut tables, &mut store, &old);
    assert_eq!(reached(&store, 1), [backend(2)]);
}

#[test]
fn other_ports_of_an_address_are_refused_while_a_service_has_it() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    apply(&mut tables, &mut store, &plan("a", 1, [1]));
    let other = SocketAddr::new(vip_addr(1).ip(), 81);
    assert_eq!(connect(&store, other), Verdict::Deny(DropReason::UnknownPort));
    assert_eq!(store.tables.counted(Counter::UnknownPort), 1);
    tables.apply(&ObjectKey::new("ns", "a"), None, &mut store);
    assert_eq!(connect(&store, other), Verdict::Pass);
    assert_eq!(connect(&store, vip_addr(1)), Verdict::Pass);
}

#[test]
fn sockets_are_stale_by_the_rule_of_their_protocol() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    apply(&mut tables, &mut store, &plan("a", 1, [1, 2]));
    let id = *store.names.first_key_value().unwrap().0;
    assert!(!tables.take_stale());
    let mut draining = plan("a", 1, [2]);
    draining.present.insert(backend(1).ip());
    apply(&mut tables, &mut store, &draining);
    assert!(!tables.is_stale(id, backend(1).into(), Protocol::Tcp), "it drains");
    assert!(tables.is_stale(id, backend(1).into(), Protocol::Udp));
    apply(&mut tables, &mut store, &plan("a", 1, [2]));
    assert!(tables.take_stale());
    assert!(tables.is_stale(id, backend(1).into(), Protocol::Tcp));
    assert!(!tables.is_stale(id, backend(2).into(), Protocol::Tcp));
    tables.apply(&ObjectKey::new("ns", "a"), None, &mut store);
    assert!(tables.take_stale());
    assert!(tables.is_stale(id, backend(2).into(), Protocol::Tcp), "the Service is gone");
}

proptest! {
    /// Any sequence of changes, with restarts in between, ends as if only the last of each had been.
    #[test]
    fn the_store_says_what_the_last_plans_say(
        steps in prop::collection::vec((0u8..4, prop::option::of(prop::collection::btree_set(0u8..5, 0..4)), any::<bool>()), 1..60)
    ) {
        let (mut store, mut tables) = (MemoryStore::default(), Tables::new(Sizes { backends: 64, ..sizes() }));
        let mut last: BTreeMap<u8, Option<ServicePlan>> = BTreeMap::new();
        for (at, backends, restart) in steps {
            let plan = backends.map(|backends| plan(&format!("s{at}"), at, backends));
            tables.apply(&ObjectKey::new("ns", format!("s{at}")), plan.as_ref(), &mut store);
            if restart {
                tables = store.adopt(Sizes { backends: 64, ..sizes() }).unwrap();
            }
            tables.settle(&mut store).unwrap();
            last.insert(at, plan);
        }
        for (at, plan) in &last {
            let expected: Vec<SocketAddr> = plan.iter().flat_map(|plan| cluster(plan).keys().copied()).collect();
            prop_assert_eq!(reached(&store, *at), expected);
            let known = store.tables.lookup_frontend(&FrontendKey::new(vip_addr(*at).into(), Protocol::Tcp));
            prop_assert_eq!(known.is_some(), plan.is_some());
        }
        let live = last.values().flatten().count();
        prop_assert_eq!(store.names.len(), live);
        prop_assert_eq!(store.tables.frontends.len(), 2 * live);
        let rows: usize = last.values().flatten().map(|plan| cluster(plan).len()).sum();
        prop_assert_eq!(tables.usage().backends as usize, rows);
    }
}
