//! Which frontends a port has, whom each of them leads where, and what clients outside get.

use std::net::SocketAddr;

use weir_ebpf::abi::{DropReason, Frontend, FrontendKind, Origin, Protocol, Scope, ServiceId};

use super::build::{Change, at, compile, node, ready, service, service_port, slice, slice_port, vip};
use crate::compile::{FrontendPlan, PortPlan, SetPlan};
use crate::source::{Endpoint, Family, Service, ServiceType, SourceRanges, TrafficPolicy};

const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// A LoadBalancer Service with one address of each kind.
fn outer(family: Family) -> Service {
    let mut service = service(family, vec![service_port("web", Protocol::Tcp, 80)]);
    service.kind = ServiceType::LoadBalancer;
    service.ports[0].node_port = Some(30080);
    service.load_balancer_ips = [outer_addr(family, 1).ip()].into();
    service.external_ips = [outer_addr(family, 2).ip()].into();
    service
}

/// The nth address outside, port 80.
fn outer_addr(family: Family, n: u8) -> SocketAddr {
    match family {
        Family::V4 => ([192, 0, 2, n], 80).into(),
        Family::V6 => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)], 80).into(),
    }
}

fn node_port(family: Family) -> SocketAddr {
    match family {
        Family::V4 => ([0; 4], 30080).into(),
        Family::V6 => ([0_u16; 8], 30080).into(),
    }
}

fn compile_port(service: &Service, family: Family, endpoints: Vec<Endpoint>) -> PortPlan {
    let slices = [slice(family, vec![slice_port("web", Protocol::Tcp, 8080)], endpoints)];
    compile(service, &slices, &node(None)).ports.remove(0)
}

/// What a client of this frontend gets.
fn set(plan: &PortPlan, frontend: &FrontendPlan, origin: Origin) -> SetPlan {
    let row = Frontend::new(ServiceId(0), 0, frontend.kind, frontend.flags);
    match row.scope(origin) {
        Scope::Cluster => plan.cluster.clone(),
        Scope::Local => plan.local.clone(),
    }
    .expect("every frontend leads to a set")
}

fn kinds(plan: &PortPlan) -> Vec<(FrontendKind, SocketAddr)> {
    plan.frontends.iter().map(|frontend| (frontend.kind, frontend.addr)).collect()
}

#[test]
fn a_port_has_a_frontend_of_each_kind() {
    for family in BOTH {
        let plan = compile_port(&outer(family), family, vec![]);
        assert_eq!(
            kinds(&plan),
            [
                (FrontendKind::ClusterIp, SocketAddr::new(vip(family), 80)),
                (FrontendKind::LoadBalancer, outer_addr(family, 1)),
                (FrontendKind::ExternalIp, outer_addr(family, 2)),
                (FrontendKind::NodePort, node_port(family)),
            ]
        );
        for frontend in &plan.frontends {
            let consistent = frontend.flags & Frontend::CONSISTENT != 0;
            assert_eq!(consistent, frontend.kind != FrontendKind::ClusterIp, "{frontend:?}");
        }
    }
}

#[test]
fn each_family_has_its_own_addresses() {
    let mut service = outer(Family::V4);
    service.cluster_ips = BOTH.map(vip).to_vec();
    service.external_ips = BOTH.map(|family| outer_addr(family, 2).ip()).into();
    let plan = compile(&service, &[], &node(None));
    let [v4, v6] = &plan.ports[..] else { panic!("{plan:?}") };
    assert_eq!(v4.frontends.len(), 4);
    assert_eq!(
        kinds(v6),
        [
            (FrontendKind::ClusterIp, SocketAddr::new(vip(Family::V6), 80)),
            (FrontendKind::ExternalIp, outer_addr(Family::V6, 2)),
            (FrontendKind::NodePort, node_port(Family::V6)),
        ]
    );
}

#[test]
fn an_address_that_is_several_things_is_one_frontend_and_source_ranges_hold() {
    for family in BOTH {
        let mut service = outer(family);
        service.external_ips = [outer_addr(family, 1).ip(), vip(family)].into();
        service.source_ranges = Some(Box::new(SourceRanges { networks: Box::default(), incomplete: true }));
        let plan = compile_port(&service, family, vec![]);
        assert_eq!(
            kinds(&plan),
            [
                (FrontendKind::ClusterIp, SocketAddr::new(vip(family), 80)),
                (FrontendKind::LoadBalancer, outer_addr(family, 1)),
                (FrontendKind::NodePort, node_port(family)),
            ]
        );
        assert_ne!(plan.frontends[1].flags & Frontend::SOURCE_RANGES, 0);
    }
}

/// Which policy is Local; for each kind whether clients inside, and outside, are served from this node alone.
#[test]
fn policies_by_kind_and_origin() {
    use TrafficPolicy::{Cluster, Local};
    let rows = [
        (Cluster, Cluster, [false, false], [false, false]),
        (Local, Cluster, [true, true], [false, false]),
        (Cluster, Local, [false, false], [false, true]),
        (Local, Local, [true, true], [false, true]),
    ];
    for family in BOTH {
        for (internal, external, cluster_ip, outside) in rows {
            let mut service = outer(family);
            (service.internal_policy, service.external_policy) = (internal, external);
            let plan = compile_port(&service, family, vec![ready(family, 1), ready(family, 2).local()]);
            for frontend in &plan.frontends {
                let local = if frontend.kind == FrontendKind::ClusterIp { cluster_ip } else { outside };
                for (origin, local) in [Origin::Inside, Origin::Outside].into_iter().zip(local) {
                    let backends: Vec<_> = set(&plan, frontend, origin).backends.into_keys().collect();
                    let [there, here] = [at(family, 1, 8080), at(family, 2, 8080)];
                    let want = if local { vec![here] } else { vec![there, here] };
                    assert_eq!(backends, want, "{internal:?} {external:?} {frontend:?} {origin:?}");
                }
            }
            assert!(plan.cluster.is_some(), "clients inside use it");
            assert_eq!(plan.local.is_some(), internal == Local || external == Local);
        }
    }
}

#[test]
fn without_a_local_endpoint_clients_outside_get_silence_and_without_any_a_refusal() {
    for family in BOTH {
        let mut service = outer(family);
        service.external_policy = TrafficPolicy::Local;
        let rows = [
            (vec![ready(family, 1)], DropReason::NoLocalEndpoint),
            (vec![ready(family, 1).draining()], DropReason::NoLocalEndpoint),
            (vec![ready(family, 1).unready()], DropReason::NoEndpoint),
            (vec![], DropReason::NoEndpoint),
        ];
        for (endpoints, when_empty) in rows {
            let plan = compile_port(&service, family, endpoints.clone());
            for frontend in &plan.frontends[1..] {
                let outside = set(&plan, frontend, Origin::Outside);
                assert_eq!((outside.backends.len(), outside.when_empty), (0, when_empty), "{endpoints:?}");
                assert_eq!(set(&plan, frontend, Origin::Inside).when_empty, DropReason::NoEndpoint);
            }
        }
        let drains =
            compile_port(&service, family, vec![ready(family, 1), ready(family, 2).local().draining()]);
        let outside = set(&drains, &drains.frontends[1], Origin::Outside);
        assert_eq!(outside.backends.into_keys().collect::<Vec<_>>(), [at(family, 2, 8080)], "it drains here");
    }
}

#[test]
fn a_service_of_policy_local_that_nobody_reaches_from_outside_has_one_set() {
    for family in BOTH {
        let mut service = service(family, vec![service_port("web", Protocol::Tcp, 80)]);
        service.internal_policy = TrafficPolicy::Local;
        let plan = compile_port(&service, family, vec![ready(family, 1)]);
        assert_eq!((plan.cluster, plan.local.unwrap().when_empty), (None, DropReason::NoLocalEndpoint));
        service.internal_policy = TrafficPolicy::Cluster;
        service.external_policy = TrafficPolicy::Local;
        let plan = compile_port(&service, family, vec![ready(family, 1)]);
        assert_eq!((plan.cluster.unwrap().backends.len(), plan.local), (1, None));
    }
}

/// The ranges; whether they cannot all be read; those that IPv4 and IPv6 clients have to be in, if any.
#[test]
fn source_ranges_hold_for_load_balancers_of_their_family() {
    let (v4, v6) = ("192.0.2.0/24", "2001:db8::/32");
    type Row<'a> = (&'a [&'a str], bool, [Option<&'a [&'a str]>; 2]);
    let rows: [Row<'_>; 5] = [
        (&[], false, [None, None]),
        (&[v4], false, [Some(&[v4]), None]),
        (&[v4, v6], false, [Some(&[v4]), Some(&[v6])]),
        (&[v6], true, [Some(&[]), Some(&[v6])]),
        (&[], true, [Some(&[]), Some(&[])]),
    ];
    for (networks, incomplete, wanted) in rows {
        for (family, wanted) in BOTH.into_iter().zip(wanted) {
            let mut service = outer(family);
            let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
            let ranges = SourceRanges { networks, incomplete };
            service.source_ranges =
                (ranges.incomplete || !ranges.networks.is_empty()).then(|| Box::new(ranges));
            let plan = compile_port(&service, family, vec![]);
            for frontend in &plan.frontends {
                let asks = frontend.flags & Frontend::SOURCE_RANGES != 0;
                assert_eq!(
                    asks,
                    frontend.kind == FrontendKind::LoadBalancer && wanted.is_some(),
                    "{frontend:?}"
                );
            }
            let found: Vec<String> = plan.source_ranges.iter().map(ToString::to_string).collect();
            assert_eq!(found, wanted.unwrap_or_default(), "{family}");
            service.load_balancer_ips = Box::default();
            let plan = compile_port(&service, family, vec![]);
            assert_eq!(plan.source_ranges, [], "nobody asks for them");
        }
    }
}
