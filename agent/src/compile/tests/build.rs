//! Small objects for tests, the same in both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weir_ebpf::abi::Frontend;

use crate::compile::{PortPlan, ServicePlan, SetPlan, compile_service};
use crate::source::{
    Endpoint, EndpointPort, EndpointSlice, Family, ObjectKey, Protocol, Service, ServicePort, ServiceType,
    TrafficPolicy,
};
use crate::state::{NodeView, ServiceView};

/// This node; every other name is another one.
pub(super) const HERE: &str = "here";

/// This node, in this zone.
pub(super) fn node(zone: Option<&str>) -> NodeView {
    NodeView { name: HERE.into(), zone: zone.map(Into::into) }
}

/// The plan of this Service with these slices. Their order must not show: both ways round are compiled.
pub(super) fn compile(service: &Service, slices: &[EndpointSlice], node: &NodeView) -> ServicePlan {
    let key = ObjectKey::new("shop", "cart");
    let view = ServiceView { key: &key, service, slices: slices.iter().collect() };
    let plan = compile_service(&view, node);
    let backwards = ServiceView { slices: slices.iter().rev().collect(), ..view };
    assert_eq!(plan, compile_service(&backwards, node), "the order of slices shows");
    plan
}

/// The set that clients of the port's ClusterIP get, wherever they are.
pub(super) fn internal(port: &PortPlan) -> &SetPlan {
    let local = port.frontends[0].flags & Frontend::INSIDE_LOCAL != 0;
    if local { port.local.as_ref() } else { port.cluster.as_ref() }.expect("a set that a frontend leads to")
}

/// The nth pod's address.
pub(super) fn pod(family: Family, n: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, 0, n).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)).into(),
    }
}

/// The Service's ClusterIP.
pub(super) fn vip(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(172, 30, 0, 1).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// A single-stack Service with these ports.
pub(super) fn service(family: Family, ports: Vec<ServicePort>) -> Service {
    Service {
        created_s: None,
        kind: ServiceType::ClusterIp,
        cluster_ips: vec![vip(family)],
        ports,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        distribution: None,
        external_ips: Box::default(),
        load_balancer_ips: Box::default(),
        source_ranges: None,
        health_check_node_port: None,
    }
}

pub(super) fn service_port(name: &str, protocol: Protocol, port: u16) -> ServicePort {
    ServicePort { name: name.into(), protocol, port, node_port: None }
}

pub(super) fn slice_port(name: &str, protocol: Protocol, port: u16) -> EndpointPort {
    EndpointPort { name: name.into(), protocol, port }
}

pub(super) fn slice(family: Family, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice { service: "cart".into(), family, ports, endpoints }
}

/// A ready endpoint on another node: the nth pod.
pub(super) fn ready(family: Family, n: u8) -> Endpoint {
    Endpoint {
        addr: pod(family, n),
        ready: true,
        serving: true,
        terminating: false,
        node: Some("there".into()),
        zone_hints: Vec::new(),
        node_hints: Vec::new(),
    }
}

/// What distinguishes an endpoint from [`ready`].
pub(super) trait Change: Sized {
    fn local(self) -> Self;
    fn conditions(self, ready: bool, serving: bool, terminating: bool) -> Self;
    fn zones(self, zones: &[&str]) -> Self;
    fn nodes(self, nodes: &[&str]) -> Self;
    fn unready(self) -> Self {
        self.conditions(false, false, false)
    }
    fn draining(self) -> Self {
        self.conditions(false, true, true)
    }
}

impl Change for Endpoint {
    fn local(self) -> Self {
        Self { node: Some(HERE.into()), ..self }
    }

    fn conditions(self, ready: bool, serving: bool, terminating: bool) -> Self {
        Self { ready, serving, terminating, ..self }
    }

    fn zones(self, zones: &[&str]) -> Self {
        Self { zone_hints: zones.iter().map(|&zone| zone.into()).collect(), ..self }
    }

    fn nodes(self, nodes: &[&str]) -> Self {
        Self { node_hints: nodes.iter().map(|&node| node.into()).collect(), ..self }
    }
}

pub(super) fn at(family: Family, n: u8, port: u16) -> SocketAddr {
    SocketAddr::new(pod(family, n), port)
}
