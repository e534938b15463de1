//! What clients dial to reach a Service port in one family, and which of its two sets they get.
//!
//! Called by [`super::compile_service`]. A flag of a frontend says that clients inside (pods of this node, and the node
//! itself) or outside (whatever comes in from elsewhere) get the set of policy Local; without it, that of Cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use weir_ebpf::abi::{Frontend, FrontendKind};

use super::FrontendPlan;
use crate::source::{Family, Service, ServicePort, TrafficPolicy};

/// Every frontend of a port in the family of this ClusterIP, each address once.
pub(super) fn compile_frontends(
    service: &Service,
    port: &ServicePort,
    cluster_ip: IpAddr,
) -> Vec<FrontendPlan> {
    let family = Family::of(cluster_ip);
    let (external, restricted) = (external_flags(service), source_range_flag(service, family));
    let mut frontends = vec![FrontendPlan {
        addr: SocketAddr::new(cluster_ip, port.port),
        kind: FrontendKind::ClusterIp,
        flags: cluster_ip_flags(service),
    }];
    // The load balancer's first: of an address that is both, source ranges hold.
    let outer = service.load_balancer_ips.iter().map(|ip| (*ip, FrontendKind::LoadBalancer, restricted));
    let outer = outer.chain(service.external_ips.iter().map(|ip| (*ip, FrontendKind::ExternalIp, 0)));
    for (ip, kind, more) in outer.filter(|(ip, ..)| Family::of(*ip) == family) {
        let addr = SocketAddr::new(ip, port.port);
        if !frontends.iter().any(|frontend| frontend.addr == addr) {
            frontends.push(FrontendPlan { addr, kind, flags: external | more });
        }
    }
    frontends.extend(port.node_port.map(|number| FrontendPlan {
        addr: SocketAddr::new(unspecified(family), number),
        kind: FrontendKind::NodePort,
        flags: external,
    }));
    frontends
}

/// The source ranges that some of these frontends ask for.
pub(super) fn asked_ranges(service: &Service, family: Family, frontends: &[FrontendPlan]) -> Vec<IpNet> {
    let ask = frontends.iter().any(|frontend| frontend.flags & Frontend::SOURCE_RANGES != 0);
    let ranges = service.source_ranges.iter().filter(|_| ask);
    ranges.flat_map(|ranges| ranges.of(family)).collect()
}

/// `internalTrafficPolicy` holds for whoever dials a ClusterIP, wherever it is (KEP-2086).
fn cluster_ip_flags(service: &Service) -> u8 {
    match service.internal_policy {
        TrafficPolicy::Cluster => 0,
        TrafficPolicy::Local => Frontend::INSIDE_LOCAL | Frontend::OUTSIDE_LOCAL,
    }
}

/// `externalTrafficPolicy` holds for clients outside. Those inside would only leave the node and come back, and are served
/// from everywhere, as by the rules in which kube-proxy sends pods and the node itself from a Service's external chain to all
/// of its endpoints.
fn external_flags(service: &Service) -> u8 {
    match service.external_policy {
        TrafficPolicy::Cluster => Frontend::CONSISTENT,
        TrafficPolicy::Local => Frontend::CONSISTENT | Frontend::OUTSIDE_LOCAL,
    }
}

/// `spec.loadBalancerSourceRanges`: restricts clients at the load balancer's addresses, inside the cluster too.
fn source_range_flag(service: &Service, family: Family) -> u8 {
    match &service.source_ranges {
        Some(ranges) if ranges.restrict(family) => Frontend::SOURCE_RANGES,
        _ => 0,
    }
}

/// Under which node ports stand, whatever the addresses of the node.
fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}
