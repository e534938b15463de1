//! How ports, families and slices come together.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use weir_ebpf::abi::{DropReason, FrontendKind, Protocol};

use super::build::{
    self, Change, HERE, at, internal, node, ready, service, service_port, slice, slice_port, vip,
};
use crate::compile::{FrontendPlan, PortPlan, ServicePlan};
use crate::source::{Affinity, EndpointSlice, Family, Service};

const BOTH: [Family; 2] = [Family::V4, Family::V6];

fn compile(service: &Service, slices: &[EndpointSlice]) -> ServicePlan {
    build::compile(service, slices, &node(Some("a")))
}

fn backends(port: &PortPlan) -> Vec<SocketAddr> {
    internal(port).backends.keys().copied().collect()
}

#[test]
fn a_port_has_its_cluster_ip_as_frontend_and_owns_the_address() {
    for family in BOTH {
        let plan = compile(&service(family, vec![service_port("", Protocol::Tcp, 80)]), &[]);
        assert_eq!(plan.ports.len(), 1);
        let addr = SocketAddr::new(vip(family), 80);
        assert_eq!(plan.ports[0].frontends, [FrontendPlan { addr, kind: FrontendKind::ClusterIp, flags: 0 }]);
        assert_eq!(plan.ports[0].local, None);
    }
}

#[test]
fn ports_join_by_name_and_protocol() {
    for family in BOTH {
        let ports = vec![
            service_port("dns", Protocol::Udp, 53),
            service_port("dns-tcp", Protocol::Tcp, 53),
            service_port("metrics", Protocol::Tcp, 9153),
        ];
        let slice = slice(
            family,
            vec![
                slice_port("dns", Protocol::Udp, 5353),
                slice_port("dns-tcp", Protocol::Tcp, 5354),
                slice_port("metrics", Protocol::Udp, 9153),
            ],
            vec![ready(family, 1)],
        );
        let plan = compile(&service(family, ports), &[slice]);
        let [dns, dns_tcp, metrics] = &plan.ports[..] else { panic!("{plan:?}") };
        assert_eq!(backends(dns), [at(family, 1, 5353)]);
        assert_eq!(backends(dns_tcp), [at(family, 1, 5354)]);
        assert_eq!(backends(metrics), [], "another protocol is another port");
        assert_eq!(internal(metrics).when_empty, DropReason::NoEndpoint);
    }
}

#[test]
fn one_number_for_three_protocols_is_three_ports() {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    for family in BOTH {
        let ports = all.map(|protocol| service_port(protocol.name(), protocol, 53)).to_vec();
        let slices = all.map(|protocol| {
            let number = 5300 + u16::from(protocol as u8);
            slice(family, vec![slice_port(protocol.name(), protocol, number)], vec![ready(family, 1)])
        });
        let plan = compile(&service(family, ports), &slices);
        for (port, protocol) in plan.ports.iter().zip(all) {
            assert_eq!(port.name.protocol, protocol);
            assert_eq!(backends(port), [at(family, 1, 5300 + u16::from(protocol as u8))]);
        }
    }
}

#[test]
fn a_named_target_port_may_differ_from_slice_to_slice() {
    for family in BOTH {
        let old = slice(family, vec![slice_port("web", Protocol::Tcp, 8080)], vec![ready(family, 1)]);
        let new = slice(family, vec![slice_port("web", Protocol::Tcp, 9090)], vec![ready(family, 2)]);
        let plan = compile(&service(family, vec![service_port("web", Protocol::Tcp, 80)]), &[old, new]);
        assert_eq!(backends(&plan.ports[0]), [at(family, 1, 8080), at(family, 2, 9090)]);
    }
}

#[test]
fn each_family_has_its_own_slices() {
    let mut dual = service(Family::V4, vec![service_port("", Protocol::Tcp, 80)]);
    dual.cluster_ips.push(vip(Family::V6));
    let port = || vec![slice_port("", Protocol::Tcp, 8080)];
    let v4 = slice(Family::V4, port(), vec![ready(Family::V4, 1)]);
    let v6 = slice(Family::V6, port(), vec![ready(Family::V6, 2)]);

    let plan = compile(&dual, &[v4.clone(), v6.clone()]);
    assert_eq!(plan.ports.iter().map(|port| port.name.family).collect::<Vec<_>>(), BOTH);
    assert_eq!(backends(&plan.ports[0]), [at(Family::V4, 1, 8080)]);
    assert_eq!(backends(&plan.ports[1]), [at(Family::V6, 2, 8080)]);

    let plan = compile(&dual, std::slice::from_ref(&v4));
    assert_eq!(backends(&plan.ports[1]), [], "an IPv4 slice feeds no IPv6 address");

    for (family, expected) in [(Family::V4, at(Family::V4, 1, 8080)), (Family::V6, at(Family::V6, 2, 8080))] {
        let single = service(family, vec![service_port("", Protocol::Tcp, 80)]);
        let plan = compile(&single, &[v4.clone(), v6.clone()]);
        assert_eq!(plan.ports.len(), 1, "a family without a ClusterIP has no port");
        assert_eq!(backends(&plan.ports[0]), [expected]);
    }
}

#[test]
fn hints_are_judged_over_all_slices() {
    for family in BOTH {
        let port = || vec![slice_port("", Protocol::Tcp, 80)];
        let near = slice(family, port(), vec![ready(family, 1).zones(&["a"])]);
        let far = slice(family, port(), vec![ready(family, 2).zones(&["b"])]);
        let unhinted = slice(family, port(), vec![ready(family, 3)]);
        let service = service(family, vec![service_port("", Protocol::Tcp, 80)]);
        let plan = compile(&service, &[near.clone(), far.clone()]);
        assert_eq!(backends(&plan.ports[0]), [at(family, 1, 80)]);
        let plan = compile(&service, &[near, far, unhinted]);
        assert_eq!(backends(&plan.ports[0]).len(), 3);
    }
}

#[test]
fn an_address_in_two_slices_counts_once_and_the_better_entry_stands() {
    for family in BOTH {
        let port = || vec![slice_port("", Protocol::Tcp, 80)];
        let service = service(family, vec![service_port("", Protocol::Tcp, 80)]);
        // A new pod has the address of one that is still terminating.
        for worse in [ready(family, 1).draining(), ready(family, 1).unready()] {
            let slices = [
                slice(family, port(), vec![worse]),
                slice(family, port(), vec![ready(family, 1).local(), ready(family, 2)]),
            ];
            let set = internal(&compile(&service, &slices).ports[0]).clone();
            assert_eq!(set.backends, [(at(family, 1, 80), true), (at(family, 2, 80), false)].into());
        }
        // Nobody writes such slices; the answer still must not hang on their order.
        let slices = [
            slice(family, port(), vec![ready(family, 1).local()]),
            slice(family, port(), vec![ready(family, 1)]),
        ];
        let set = internal(&compile(&service, &slices).ports[0]).clone();
        assert_eq!(set.backends, [(at(family, 1, 80), true)].into());
        // An endpoint in the middle of a move, with its hint already in one of them.
        let slices = [
            slice(family, port(), vec![ready(family, 1)]),
            slice(family, port(), vec![ready(family, 1).zones(&["a"]), ready(family, 2).zones(&["b"])]),
        ];
        assert_eq!(backends(&compile(&service, &slices).ports[0]), [at(family, 1, 80)]);
    }
}

#[test]
fn backends_know_whether_they_are_here() {
    for family in BOTH {
        let endpoints = vec![ready(family, 1).local(), ready(family, 2)];
        assert_eq!(endpoints[0].node.as_deref(), Some(HERE));
        let slices = [slice(family, vec![slice_port("", Protocol::Tcp, 80)], endpoints)];
        let plan = compile(&service(family, vec![service_port("", Protocol::Tcp, 80)]), &slices);
        let expected = [(at(family, 1, 80), true), (at(family, 2, 80), false)].into();
        assert_eq!(internal(&plan.ports[0]).backends, expected);
    }
}

/// What keeps a TCP connection alive: an endpoint that is not ready, or on its way out, drains (KEP-1669).
#[test]
fn present_is_whatever_stands_in_a_slice() {
    for family in BOTH {
        let port = || vec![slice_port("", Protocol::Tcp, 80)];
        let slices = [
            slice(family, port(), vec![ready(family, 1), ready(family, 2).unready()]),
            slice(
                family,
                port(),
                vec![ready(family, 3).draining(), ready(family, 4).conditions(false, false, true)],
            ),
            slice(family, vec![slice_port("other", Protocol::Tcp, 80)], vec![ready(family, 5)]),
        ];
        let plan = compile(&service(family, vec![service_port("", Protocol::Tcp, 80)]), &slices);
        assert_eq!(backends(&plan.ports[0]), [at(family, 1, 80)]);
        let expected: BTreeSet<_> = (1..=5).map(|n| at(family, n, 80).ip()).collect();
        assert_eq!(plan.present, expected, "whatever the port");
    }
}

/// `spec.sessionAffinityConfig.clientIP`
#[test]
fn affinity_is_each_ports() {
    for family in BOTH {
        let ports = vec![service_port("a", Protocol::Tcp, 80), service_port("b", Protocol::Udp, 80)];
        let mut service = service(family, ports);
        assert!(compile(&service, &[]).ports.iter().all(|port| port.affinity_s == 0));
        service.affinity = Some(Affinity { timeout_s: 10_800 });
        assert!(compile(&service, &[]).ports.iter().all(|port| port.affinity_s == 10_800));
    }
}

/// Headless, or of type ExternalName: the source sends no Service that is not ours; one without an address has nothing.
#[test]
fn a_service_without_an_address_has_no_port() {
    let mut headless = service(Family::V4, vec![service_port("", Protocol::Tcp, 80)]);
    headless.cluster_ips.clear();
    assert_eq!(compile(&headless, &[]).ports, []);
}
