//! A Service and its EndpointSlices, compiled into what this node's tables are to hold.
//!
//! Called for each Service that changed, or whose slices or node did; nothing here looks at a second Service.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};

use weir_ebpf::abi::{DropReason, FrontendKind};

use super::frontends::{asked_ranges, compile_frontends};
use super::topology::{Candidate, Policies, Selection, select_backends};
use super::{PortName, PortPlan, ServicePlan, SetPlan};
use crate::source::{Endpoint, EndpointPort, EndpointSlice, Family, ServicePort};
use crate::state::{NodeView, ServiceView};

/// Compiles one Service. The order of its slices does not matter.
#[must_use]
pub fn compile_service(view: &ServiceView<'_>, node: &NodeView) -> ServicePlan {
    let ServiceView { key, service, .. } = view;
    let mut ports = Vec::with_capacity(service.ports.len() * service.cluster_ips.len());
    for port in &service.ports {
        for cluster_ip in &service.cluster_ips {
            ports.push(compile_port(view, port, *cluster_ip, node));
        }
    }
    let endpoints = view.slices.iter().flat_map(|slice| &slice.endpoints);
    let present = endpoints.map(|endpoint| endpoint.addr).collect();
    ServicePlan { service: (*key).clone(), created_s: service.created_s, ports, present }
}

/// One port in the family of one of the Service's ClusterIPs, of which there is at most one in each family.
fn compile_port(view: &ServiceView<'_>, port: &ServicePort, cluster_ip: IpAddr, node: &NodeView) -> PortPlan {
    let ServiceView { key, service, slices } = view;
    let family = Family::of(cluster_ip);
    let candidates = join_endpoints(port, family, slices, node);
    let frontends = compile_frontends(service, port, cluster_ip);
    let is_external = frontends.iter().any(|frontend| frontend.kind != FrontendKind::ClusterIp);
    let policies = Policies {
        internal: service.internal_policy,
        external: is_external.then_some(service.external_policy),
    };
    let Selection { cluster, local, has_any } = select_backends(&candidates, policies, node);
    // Nothing anywhere is refused, so that clients learn at once; something elsewhere is dropped, because another
    // node would have answered and this one may in a moment (kube-proxy: reject and drop).
    let not_here = if has_any { DropReason::NoLocalEndpoint } else { DropReason::NoEndpoint };
    let set = |when_empty| move |backends| SetPlan { backends, when_empty };
    PortPlan {
        name: PortName { service: (*key).clone(), port: port.name.clone(), protocol: port.protocol, family },
        source_ranges: asked_ranges(service, family, &frontends),
        frontends,
        cluster: cluster.map(set(DropReason::NoEndpoint)),
        local: local.map(set(not_here)),
        affinity_s: service.affinity.map_or(0, |affinity| affinity.timeout_s),
    }
}

/// Every endpoint of this port in this family, each address and port number once.
///
/// A Service's port and a slice's are the same if name and protocol are; the number is the slice's own, and two
/// slices may differ in it (a named target port means what each pod calls so).
fn join_endpoints<'a>(
    port: &ServicePort,
    family: Family,
    slices: &[&'a EndpointSlice],
    node: &NodeView,
) -> Vec<Candidate<'a>> {
    let mut joined = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.family == family) {
        let same = |other: &&_| is_same_port(port, other);
        for number in slice.ports.iter().filter(same).map(|found| found.port) {
            for endpoint in &slice.endpoints {
                let addr = SocketAddr::new(endpoint.addr, number);
                let local = endpoint.node.as_deref() == Some(&*node.name);
                add_candidate(&mut joined, Candidate { addr, endpoint, local });
            }
        }
    }
    joined.into_values().collect()
}

fn is_same_port(port: &ServicePort, other: &EndpointPort) -> bool {
    port.name == other.name && port.protocol == other.protocol
}

/// While an endpoint moves between slices both may hold it, and a new pod may have the address of one that is
/// still terminating: the better of the two stands, whichever comes first.
fn add_candidate<'a>(joined: &mut BTreeMap<SocketAddr, Candidate<'a>>, candidate: Candidate<'a>) {
    match joined.entry(candidate.addr) {
        Entry::Vacant(entry) => {
            entry.insert(candidate);
        }
        Entry::Occupied(mut entry) => {
            if rank(&candidate) > rank(entry.get()) {
                entry.insert(candidate);
            }
        }
    }
}

/// How good an endpoint is beside another at the same address. Ends in a total order over all that selection
/// looks at, so that the order of slices never shows.
fn rank<'a>(candidate: &Candidate<'a>) -> impl Ord + use<'a> {
    let Endpoint { ready, serving, terminating, zone_hints, node_hints, .. } = candidate.endpoint;
    (*ready, !terminating, *serving, candidate.local, node_hints, zone_hints)
}
