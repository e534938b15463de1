//! Random histories of Services, of the node's addresses and of restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use weir_ebpf::abi::{AddressUses, Frontend};

use super::outside::{CLUSTER_IP, EXTERNAL, NODE, NODE_PORTS, frontend, node_port, outer, sizes, uses, with};
use super::*;

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// Service `0` is from now on as the rest says: its external address, node port and source ranges; or gone.
    Service(u8, Option<(Option<u8>, Option<u16>, Vec<&'static str>)>),
    /// The node has these addresses, the odd ones with node ports.
    Node(BTreeSet<u8>),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ranges = prop::sample::subsequence(vec!["10.0.0.0/8", "203.0.113.0/24", "0.0.0.0/0"], 0..=3);
    let service = (prop::option::of(10..13_u8), prop::option::of(30_000..30_003_u16), ranges);
    let step = prop_oneof![
        6 => (0..4_u8, prop::option::weighted(0.8, service)).prop_map(|(at, service)| Step::Service(at, service)),
        2 => prop::collection::btree_set(10..13_u8, 0..3).prop_map(Step::Node),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

fn service(at: u8, outside: &(Option<u8>, Option<u16>, Vec<&'static str>)) -> ServicePlan {
    let (external, port, ranges) = outside;
    // Numbers for which nobody else is older.
    let mut plan = ServicePlan { created_s: Some(at.into()), ..plan(&format!("s{at}"), at, [at]) };
    if let Some(last) = external {
        plan = with(plan, FrontendKind::LoadBalancer, outer(*last), Frontend::SOURCE_RANGES);
        plan.ports[0].source_ranges = ranges.iter().map(|range| range.parse::<IpNet>().unwrap()).collect();
    }
    match port {
        Some(port) => with(plan, FrontendKind::NodePort, node_port(*port), 0),
        None => plan,
    }
}

/// The addresses that a plan uses, and for what.
fn addresses_of(plan: &ServicePlan) -> impl Iterator<Item = (IpAddr, AddressUses)> {
    plan.ports[0].frontends.iter().filter_map(|frontend| match frontend.kind {
        FrontendKind::ClusterIp => Some((frontend.addr.ip(), CLUSTER_IP)),
        FrontendKind::NodePort => None,
        _ => Some((frontend.addr.ip(), EXTERNAL)),
    })
}

proptest! {
    /// However it came about, the rows are what the last word on each Service and on the node makes them.
    #[test]
    fn history_does_not_show(steps in steps()) {
        let sizes = Sizes { backends: 64, frontends: 64, services: 8, source_ranges: 64, ..sizes() };
        let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes));
        let (mut services, mut own) = (BTreeMap::new(), BTreeMap::new());
        for step in steps {
            match step {
                Step::Service(at, outside) => {
                    let plan = outside.map(|outside| service(at, &outside));
                    tables.apply(&ObjectKey::new("ns", format!("s{at}")), plan.as_ref(), &mut store);
                    services.insert(at, plan);
                }
                Step::Node(addresses) => {
                    let of = |last| if last % 2 == 1 { NODE.and(NODE_PORTS) } else { NODE };
                    own = addresses.into_iter().map(|last| (outer(last).ip(), of(last))).collect();
                    tables.apply_addresses(&own, &mut store);
                }
                Step::Restart => {
                    tables = store.adopt(sizes).unwrap();
                    // Ages are not in the tables: they are told again, as after every start.
                    for plan in services.values().flatten() {
                        apply(&mut tables, &mut store, plan);
                    }
                }
            }
            tables.settle(&mut store).unwrap();
        }
        let live: Vec<&ServicePlan> = services.values().flatten().collect();
        let (mut wanted, mut ranges) = (BTreeMap::new(), 0);
        for plan in &live {
            ranges += plan.ports[0].source_ranges.len();
            for frontend in &plan.ports[0].frontends {
                // In the order of their ages.
                wanted.entry(frontend.addr).or_insert((plan, frontend));
            }
        }
        let mut addresses: BTreeMap<IpAddr, AddressUses> = own.clone();
        for (addr, more) in live.iter().flat_map(|plan| addresses_of(plan)) {
            let uses = addresses.entry(addr).or_default();
            *uses = uses.and(more);
        }
        prop_assert_eq!(store.tables.frontends.len(), wanted.len() + addresses.len());
        prop_assert_eq!(store.tables.source_ranges.len(), ranges);
        for (addr, uses_wanted) in addresses {
            prop_assert_eq!(uses(&store, addr), Some(uses_wanted));
        }
        for (addr, (plan, wanted)) in wanted {
            let id = frontend(&store, plan.ports[0].frontends[0].addr).unwrap().service;
            let more = if own.contains_key(&addr.ip()) { Frontend::NODE_ADDRESS } else { 0 };
            let row = Frontend::new(id, 0, wanted.kind, wanted.flags | more);
            prop_assert_eq!(frontend(&store, addr), Some(row));
        }
    }
}
