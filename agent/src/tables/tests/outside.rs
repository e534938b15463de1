//! External addresses, node ports, source ranges, and what the node says of its own addresses.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use weir_ebpf::abi::{AddressUses, Frontend, ServiceId, SourceRangeKey};

use super::trouble::Difficult;
use super::*;

pub(super) const CLUSTER_IP: AddressUses = AddressUses::CLUSTER_IP;
pub(super) const EXTERNAL: AddressUses = AddressUses::EXTERNAL;
pub(super) const NODE: AddressUses = AddressUses::NODE;
pub(super) const NODE_PORTS: AddressUses = AddressUses::NODE_PORTS;

/// An address that a load balancer or somebody else leads here.
pub(super) fn outer(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 80))
}

pub(super) fn node_port(port: u16) -> SocketAddr {
    SocketAddr::from(([0; 4], port))
}

/// The same Service with one more frontend.
pub(super) fn with(mut plan: ServicePlan, kind: FrontendKind, addr: SocketAddr, flags: u8) -> ServicePlan {
    plan.ports[0].frontends.push(FrontendPlan { addr, kind, flags });
    plan
}

/// A Service whose load balancer's address serves clients in these ranges alone.
fn restricted(name: &str, vip: u8, ranges: &[&str]) -> ServicePlan {
    let mut plan =
        with(plan(name, vip, [vip]), FrontendKind::LoadBalancer, outer(vip), Frontend::SOURCE_RANGES);
    plan.ports[0].source_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    plan
}

pub(super) fn sizes() -> Sizes {
    Sizes { frontends: 32, ..super::sizes() }
}

pub(super) fn frontend(store: &MemoryStore, addr: SocketAddr) -> Option<Frontend> {
    store.tables.lookup_frontend(&FrontendKey::new(addr.into(), Protocol::Tcp))
}

pub(super) fn uses(store: &MemoryStore, addr: IpAddr) -> Option<AddressUses> {
    store.tables.lookup_frontend(&FrontendKey::whole_address(addr.into())).map(|row| row.uses())
}

/// Whether a client may dial the load balancer's address of a Service; without a restriction anybody may.
fn admits(store: &MemoryStore, vip: u8, client: [u8; 4]) -> bool {
    let Some(row) = frontend(store, outer(vip)) else { return false };
    let client = SourceRangeKey::client(row.service, IpAddr::from(client).into());
    !row.has(Frontend::SOURCE_RANGES) || store.tables.lookup_source_range(&client)
}

fn node<const N: usize>(addresses: [(SocketAddr, AddressUses); N]) -> BTreeMap<IpAddr, AddressUses> {
    addresses.map(|(addr, uses)| (addr.ip(), uses)).into()
}

#[test]
fn a_frontend_of_each_kind_has_its_row() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    let flags = Frontend::OUTSIDE_LOCAL | Frontend::CONSISTENT;
    let plan = with(plan("a", 1, [1]), FrontendKind::ExternalIp, outer(1), flags);
    let plan = with(plan, FrontendKind::NodePort, node_port(30080), flags);
    apply(&mut tables, &mut store, &plan);
    let rows = [
        (vip_addr(1), FrontendKind::ClusterIp, 0),
        (outer(1), FrontendKind::ExternalIp, flags),
        (node_port(30080), FrontendKind::NodePort, flags),
    ];
    for (addr, kind, flags) in rows {
        assert_eq!(frontend(&store, addr), Some(Frontend::new(ServiceId(0), 0, kind, flags)), "{addr}");
    }
    assert_eq!(uses(&store, vip_addr(1).ip()), Some(CLUSTER_IP));
    assert_eq!(uses(&store, outer(1).ip()), Some(EXTERNAL));
    assert_eq!(uses(&store, node_port(0).ip()), None, "nobody has the unspecified address");
}

#[test]
fn both_sets_of_a_port_are_written_and_change_alone() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    let mut plan = plan("a", 1, [1, 2]);
    let here = BTreeMap::from([(backend(1), true)]);
    plan.ports[0].local = Some(SetPlan { backends: here, when_empty: DropReason::NoLocalEndpoint });
    apply(&mut tables, &mut store, &plan);
    let word = |store: &MemoryStore, scope| store.tables.lookup_set(ServiceId(0).set(scope)).run();
    let local = word(&store, Scope::Local).unwrap();
    assert_eq!((word(&store, Scope::Cluster).unwrap().len, local.len), (2, 1));
    assert_eq!(
        store.tables.lookup_backend(local.offset),
        Some(Backend::new(backend(1).into(), Backend::LOCAL))
    );
    let cluster = word(&store, Scope::Cluster);
    plan.ports[0].local.as_mut().unwrap().backends.clear();
    apply(&mut tables, &mut store, &plan);
    assert_eq!(word(&store, Scope::Local), Err(DropReason::NoLocalEndpoint));
    assert_eq!(word(&store, Scope::Cluster), cluster);
    plan.ports[0].local = None;
    apply(&mut tables, &mut store, &plan);
    assert_eq!(word(&store, Scope::Local), Err(DropReason::NoEndpoint));
}

#[test]
fn an_address_is_all_that_somebody_uses_it_for() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    let shared = outer(9);
    let other_port = SocketAddr::new(shared.ip(), 81);
    let a = with(plan("a", 1, [1]), FrontendKind::ExternalIp, shared, 0);
    let b = with(plan("b", 2, [2]), FrontendKind::LoadBalancer, other_port, 0);
    let mut c = plan("c", 3, [3]);
    c.ports[0].frontends[0].addr = SocketAddr::new(shared.ip(), 82);
    let seen = |store: &MemoryStore| uses(store, shared.ip());
    apply(&mut tables, &mut store, &a);
    assert_eq!(seen(&store), Some(EXTERNAL));
    apply(&mut tables, &mut store, &c);
    assert_eq!(seen(&store), Some(EXTERNAL.and(CLUSTER_IP)));
    tables.apply_addresses(&node([(shared, NODE.and(NODE_PORTS))]), &mut store);
    assert_eq!(seen(&store), Some(EXTERNAL.and(CLUSTER_IP).and(NODE).and(NODE_PORTS)));
    apply(&mut tables, &mut store, &b);
    tables.apply(&a.service, None, &mut store);
    assert_eq!(seen(&store), Some(EXTERNAL.and(CLUSTER_IP).and(NODE).and(NODE_PORTS)), "it is still b's");
    tables.apply(&b.service, None, &mut store);
    assert_eq!(seen(&store), Some(CLUSTER_IP.and(NODE).and(NODE_PORTS)));
    tables.apply_addresses(&BTreeMap::new(), &mut store);
    assert_eq!(seen(&store), Some(CLUSTER_IP));
    tables.apply(&c.service, None, &mut store);
    assert_eq!(seen(&store), None);
    assert_eq!(store.tables.frontends.len(), 0);
}

#[test]
fn a_change_of_the_nodes_addresses_writes_what_depends_on_it_alone() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    apply(&mut tables, &mut store, &with(plan("a", 1, [1]), FrontendKind::LoadBalancer, outer(1), 0));
    apply(&mut tables, &mut store, &with(plan("b", 2, [2]), FrontendKind::LoadBalancer, outer(2), 0));
    let is_shared =
        |store: &MemoryStore, last| frontend(store, outer(last)).unwrap().has(Frontend::NODE_ADDRESS);
    let mut writes = store.writes;
    let mut written = |store: &MemoryStore| store.writes - std::mem::replace(&mut writes, store.writes);
    tables.apply_addresses(&node([(outer(1), NODE), (outer(7), NODE)]), &mut store);
    assert_eq!((is_shared(&store, 1), is_shared(&store, 2)), (true, false));
    assert_eq!(written(&store), 3, "a frontend and two addresses");
    tables.apply_addresses(&node([(outer(1), NODE), (outer(7), NODE)]), &mut store);
    assert_eq!(written(&store), 0);
    tables.apply_addresses(&node([(outer(1), NODE), (outer(7), NODE.and(NODE_PORTS))]), &mut store);
    assert_eq!((written(&store), uses(&store, outer(7).ip())), (1, Some(NODE.and(NODE_PORTS))));
    tables.apply_addresses(&node([(outer(2), NODE)]), &mut store);
    assert_eq!((is_shared(&store, 1), is_shared(&store, 2)), (false, true));
    assert_eq!(uses(&store, outer(7).ip()), None);
    // A Service that comes later finds out as well.
    tables.apply_addresses(&node([(outer(3), NODE)]), &mut store);
    apply(&mut tables, &mut store, &with(plan("c", 3, [3]), FrontendKind::ExternalIp, outer(3), 0));
    assert!(is_shared(&store, 3));
}

#[test]
fn an_address_of_the_node_without_room_is_a_problem_until_there_is_some() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(Sizes { frontends: 3, ..sizes() }));
    // A ClusterIP takes two rows: its port, and the whole address.
    apply(&mut tables, &mut store, &plan("a", 1, [1]));
    assert!(!tables.take_problems_changed());
    tables.apply_addresses(&node([(outer(1), NODE), (outer(2), NODE)]), &mut store);
    let said =
        |tables: &Tables| tables.node_problems().map(|problem| problem.to_string()).collect::<Vec<_>>();
    let full = format!(
        "addresses: {}: the frontends table is full (3 rows): tried again when there is room",
        outer(2).ip()
    );
    assert_eq!(said(&tables), [full]);
    assert!(tables.take_problems_changed() && tables.has_refused());
    assert_eq!(tables.retry(&mut store), []);
    assert!(!tables.take_problems_changed() && said(&tables).len() == 1, "still no room");
    tables.apply(&ObjectKey::new("ns", "a"), None, &mut store);
    tables.retry(&mut store);
    assert_eq!((said(&tables).len(), uses(&store, outer(2).ip())), (0, Some(NODE)));
    assert!(tables.take_problems_changed() && !tables.has_refused());
}

#[test]
fn source_ranges_are_there_for_as_long_as_a_frontend_asks() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    apply(&mut tables, &mut store, &restricted("a", 1, &["10.0.0.0/8", "203.0.113.0/24"]));
    assert!(admits(&store, 1, [10, 1, 1, 1]) && admits(&store, 1, [203, 0, 113, 9]));
    assert!(!admits(&store, 1, [198, 51, 100, 1]));
    let writes = store.writes;
    apply(&mut tables, &mut store, &restricted("a", 1, &["203.0.113.0/24", "198.51.100.1/32"]));
    assert_eq!(store.writes - writes, 2, "one comes, one goes");
    assert!(admits(&store, 1, [198, 51, 100, 1]) && !admits(&store, 1, [10, 1, 1, 1]));
    assert_eq!(tables.usage().source_ranges, 2);
    let open = with(plan("a", 1, [1]), FrontendKind::LoadBalancer, outer(1), 0);
    apply(&mut tables, &mut store, &open);
    assert!(admits(&store, 1, [10, 1, 1, 1]) && store.tables.source_ranges.is_empty());
    apply(&mut tables, &mut store, &restricted("a", 1, &[]));
    assert!(!admits(&store, 1, [10, 1, 1, 1]), "nobody");
    apply(&mut tables, &mut store, &restricted("a", 1, &["::/0", "10.0.0.0/8"]));
    tables.apply(&ObjectKey::new("ns", "a"), None, &mut store);
    assert!(store.tables.source_ranges.is_empty());
}

/// From open to restricted and back, a client in the ranges is served at each moment.
#[test]
fn source_ranges_come_before_and_go_after_who_asks_for_them() {
    let inside = Cell::new(true);
    let mut store = Difficult::new(|| false);
    let mut tables = Tables::new(sizes());
    let open = with(plan("a", 1, [1]), FrontendKind::LoadBalancer, outer(1), 0);
    apply_difficult(&mut tables, &mut store, &open);
    store.watch(|store| inside.set(inside.get() && admits(store, 1, [10, 1, 1, 1])));
    for plan in [restricted("a", 1, &["10.0.0.0/8", "::/0"]), restricted("a", 1, &["10.0.0.0/8"]), open] {
        apply_difficult(&mut tables, &mut store, &plan);
        assert!(inside.get(), "{plan:?}");
    }
}

fn apply_difficult(tables: &mut Tables, store: &mut Difficult<'_>, plan: &ServicePlan) {
    tables.apply(&plan.service, Some(plan), store);
}

#[test]
fn a_source_range_that_finds_no_room_keeps_its_clients_out_and_is_named() {
    let sizes = Sizes { source_ranges: 2, ..sizes() };
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes));
    apply(&mut tables, &mut store, &restricted("a", 1, &["10.0.0.0/8"]));
    let b = restricted("b", 2, &["10.0.0.0/8", "203.0.113.0/24"]);
    apply(&mut tables, &mut store, &b);
    assert!(admits(&store, 2, [10, 1, 1, 1]) && !admits(&store, 2, [203, 0, 113, 9]));
    let said: Vec<String> = tables.problems().map(|(key, problem)| format!("{key} {problem}")).collect();
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("ns/b") && said[0].contains("source_ranges table is full (2 rows)"), "{said:?}");
    tables.apply(&ObjectKey::new("ns", "a"), None, &mut store);
    for key in tables.retry(&mut store) {
        assert_eq!(key, b.service);
        apply(&mut tables, &mut store, &b);
    }
    assert!(admits(&store, 2, [203, 0, 113, 9]) && !tables.has_refused());
}

#[test]
fn a_source_range_that_cannot_be_removed_never_opens_another_service() {
    let refuses = Cell::new(false);
    let mut store = Difficult::new(|| refuses.get());
    let mut tables = Tables::new(sizes());
    apply_difficult(&mut tables, &mut store, &restricted("a", 1, &["0.0.0.0/0"]));
    // Everything but the range goes.
    refuses.set(true);
    tables.apply(&ObjectKey::new("ns", "a"), None, &mut store);
    refuses.set(false);
    store.refuse_ranges(true);
    for _ in 0..2 {
        tables.retry(&mut store);
        tables.apply(&ObjectKey::new("ns", "a"), None, &mut store);
        tables.settle(&mut store).unwrap();
    }
    apply_difficult(&mut tables, &mut store, &restricted("b", 2, &["10.0.0.0/8"]));
    assert!(!admits(store.inner(), 2, [203, 0, 113, 9]), "the number is still taken");
    assert!(tables.has_refused());
    store.refuse_ranges(false);
    tables.retry(&mut store);
    assert!(!tables.has_refused());
    assert_eq!(store.inner().tables.source_ranges.len(), 1);
}

/// What two Services claim, and how it is said to the one that does not get it.
#[test]
fn of_two_services_with_one_outer_frontend_the_first_has_it_and_the_field_is_named() {
    let rows = [
        (FrontendKind::NodePort, node_port(30080), "spec.ports[].nodePort: node port 30080 TCP"),
        (FrontendKind::LoadBalancer, outer(9), "status.loadBalancer.ingress: 192.0.2.9:80 TCP"),
        (FrontendKind::ExternalIp, outer(9), "spec.externalIPs: 192.0.2.9:80 TCP"),
    ];
    for (kind, addr, field) in rows {
        let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
        apply(&mut tables, &mut store, &with(plan("a", 1, [1]), kind, addr, 0));
        apply(&mut tables, &mut store, &with(plan("b", 2, [2]), kind, addr, 0));
        let id = |store: &MemoryStore, vip| frontend(store, vip_addr(vip)).unwrap().service;
        assert_eq!(frontend(&store, addr).unwrap().service, id(&store, 1));
        let said: Vec<String> = tables.problems().map(|(key, problem)| format!("{key} {problem}")).collect();
        let want = format!("ns/b {field} is already served for ns/a:/TCP IPv4: ");
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with(&want), "{said:?}");
        assert_eq!(reached(&store, 2), [backend(2)], "its other frontends work");
        tables.apply(&ObjectKey::new("ns", "a"), None, &mut store);
        assert_eq!(frontend(&store, addr).unwrap().service, id(&store, 2));
        assert_eq!(tables.problems().count(), 0);
    }
}

#[test]
fn a_restart_finds_everything_and_writes_nothing() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    let addresses = node([(outer(1), NODE), (outer(7), NODE.and(NODE_PORTS))]);
    let a = with(restricted("a", 1, &["10.0.0.0/8"]), FrontendKind::NodePort, node_port(30080), 0);
    tables.apply_addresses(&addresses, &mut store);
    apply(&mut tables, &mut store, &a);
    let (before, usage) = (store.tables.clone(), tables.usage());
    let writes = store.writes;
    let mut tables = store.adopt(sizes()).unwrap();
    assert_eq!((store.writes, tables.usage()), (writes, usage), "before anybody said anything");
    apply(&mut tables, &mut store, &a);
    tables.apply_addresses(&addresses, &mut store);
    assert_eq!(store.writes, writes, "nothing differs");
    assert_eq!(store.tables.frontends, before.frontends);
    tables.apply_addresses(&BTreeMap::new(), &mut store);
    tables.apply(&a.service, None, &mut store);
    assert!(store.tables.frontends.is_empty() && store.tables.source_ranges.is_empty());
}

#[test]
fn what_a_dead_agent_left_of_addresses_and_ranges_is_mended() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    apply(&mut tables, &mut store, &restricted("a", 1, &["10.0.0.0/8"]));
    let addr = IpAddr::from([192, 0, 2, 200]);
    let nobodys = Frontend::whole_address(EXTERNAL.and(CLUSTER_IP));
    store.tables.frontends.insert(FrontendKey::whole_address(addr.into()), nobodys);
    let more = Frontend::whole_address(EXTERNAL.and(CLUSTER_IP));
    store.tables.frontends.insert(FrontendKey::whole_address(outer(1).ip().into()), more);
    store.tables.source_ranges.insert(SourceRangeKey::range(ServiceId(3), addr.into(), 0));
    store.adopt(sizes()).unwrap();
    assert_eq!((uses(&store, addr), uses(&store, outer(1).ip())), (None, Some(EXTERNAL)));
    assert_eq!(store.tables.source_ranges.len(), 1);
    assert!(admits(&store, 1, [10, 1, 1, 1]));
}
