//! Random Services against the reference.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use weir_ebpf::abi::Protocol;

use super::build::{HERE, compile, internal, node, pod, service, service_port, slice, slice_port, vip};
use super::reference::internal_set;
use crate::source::{
    Affinity, Endpoint, EndpointPort, EndpointSlice, Family, Service, ServicePort, TrafficPolicy,
};

/// The ports that a Service or a slice may have: names and protocols collide in part.
const PORTS: [(&str, Protocol); 4] =
    [("", Protocol::Tcp), ("dns", Protocol::Udp), ("dns", Protocol::Tcp), ("sig", Protocol::Sctp)];

fn services() -> impl Strategy<Value = Service> {
    let families = prop_oneof![
        Just(vec![Family::V4]),
        Just(vec![Family::V6]),
        Just(vec![Family::V4, Family::V6]),
        Just(vec![Family::V6, Family::V4]),
    ];
    let ports = subsequence(PORTS.to_vec(), 1..=PORTS.len());
    (families, ports, any::<bool>(), option::of(1..=86_400_u32)).prop_map(
        |(families, ports, local, affinity)| {
            let number =
                |(n, (name, protocol)): (u16, &(&str, Protocol))| service_port(name, *protocol, 80 + n);
            let ports: Vec<ServicePort> = (0..).zip(&ports).map(number).collect();
            let mut service = service(families[0], ports);
            service.cluster_ips = families.into_iter().map(vip).collect();
            service.internal_policy = if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
            service.affinity = affinity.map(|timeout_s| Affinity { timeout_s });
            service
        },
    )
}

fn hints(of: &'static [&'static str]) -> impl Strategy<Value = Vec<Arc<str>>> {
    subsequence(of.to_vec(), 0..=of.len()).prop_map(|names| names.into_iter().map(Into::into).collect())
}

/// Few addresses, so that slices overlap; hints on nearly all, so that they are followed at times.
fn endpoints(family: Family) -> impl Strategy<Value = Endpoint> {
    let conditions = (prop::bool::weighted(0.6), any::<bool>(), any::<bool>());
    let node = option::of(select(vec![HERE, "there", "yonder"]));
    (1..=6_u8, conditions, node, hints(&["a", "b"]), hints(&[HERE, "there"])).prop_map(
        move |(n, (ready, serving, terminating), node, zone_hints, node_hints)| Endpoint {
            addr: pod(family, n),
            ready,
            serving,
            terminating,
            node: node.map(Into::into),
            zone_hints,
            node_hints,
        },
    )
}

fn slice_ports() -> impl Strategy<Value = Vec<EndpointPort>> {
    let port = (select(PORTS.to_vec()), 8080..=8081_u16);
    vec(port.prop_map(|((name, protocol), number)| slice_port(name, protocol, number)), 0..=3)
}

fn slices() -> impl Strategy<Value = EndpointSlice> {
    select(vec![Family::V4, Family::V6]).prop_flat_map(|family| {
        (slice_ports(), vec(endpoints(family), 0..=5))
            .prop_map(move |(ports, endpoints)| slice(family, ports, endpoints))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn compilation_is_what_the_reference_says(
        service in services(),
        slices in vec(slices(), 0..=4),
        zone in option::of(select(vec!["a", "b", "c"])),
    ) {
        let node = node(zone);
        let plan = compile(&service, &slices, &node);
        prop_assert_eq!(plan.ports.len(), service.ports.len() * service.cluster_ips.len());
        for port in &plan.ports {
            let cluster_ip = port.frontends[0].addr.ip();
            let wanted = |wanted: &&ServicePort| {
                wanted.name == port.name.port && wanted.protocol == port.name.protocol
            };
            let wanted = service.ports.iter().find(wanted).unwrap();
            prop_assert_eq!(port.frontends[0].addr.port(), wanted.port);
            prop_assert_eq!(port.name.family, Family::of(cluster_ip));
            prop_assert_eq!(internal(port), &internal_set(&service, wanted, cluster_ip, &slices, &node));
            prop_assert_eq!(port.affinity_s, service.affinity.map_or(0, |affinity| affinity.timeout_s));
        }
    }
}
