//! The rules once more, slowly and one at a time, sharing nothing with what they check.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use weir_ebpf::abi::DropReason;

use crate::compile::SetPlan;
use crate::source::{Endpoint, EndpointSlice, Service, ServicePort, TrafficPolicy};
use crate::state::NodeView;

/// An endpoint at the address where this port of it is reached.
type Entry<'a> = (SocketAddr, &'a Endpoint);

/// Whom a client of this ClusterIP and port may get.
pub(super) fn internal_set(
    service: &Service,
    port: &ServicePort,
    cluster_ip: IpAddr,
    slices: &[EndpointSlice],
    node: &NodeView,
) -> SetPlan {
    let entries = without_doubles(all_entries(port, cluster_ip, slices), node);
    let exists_anywhere = entries.iter().any(|(_, e)| e.ready || e.serving && e.terminating);
    let local_policy = service.internal_policy == TrafficPolicy::Local;
    let mut backends = BTreeMap::new();
    for entry in &entries {
        if may_get(entry, &entries, local_policy, node) {
            backends.insert(entry.0, is_here(entry.1, node));
        }
    }
    let when_empty = match local_policy && exists_anywhere {
        true => DropReason::NoLocalEndpoint,
        false => DropReason::NoEndpoint,
    };
    SetPlan { backends, when_empty }
}

/// Every address that any slice has for this port.
pub(super) fn all_entries<'a>(
    port: &ServicePort,
    cluster_ip: IpAddr,
    slices: &'a [EndpointSlice],
) -> Vec<Entry<'a>> {
    let mut entries = Vec::new();
    for slice in slices {
        for slice_port in &slice.ports {
            for endpoint in &slice.endpoints {
                let same_family = endpoint.addr.is_ipv4() == cluster_ip.is_ipv4();
                let same_port = slice_port.name == port.name && slice_port.protocol == port.protocol;
                if same_family && same_port {
                    entries.push((SocketAddr::new(endpoint.addr, slice_port.port), endpoint));
                }
            }
        }
    }
    entries
}

fn is_here(endpoint: &Endpoint, node: &NodeView) -> bool {
    endpoint.node.as_deref().is_some_and(|name| name == &*node.name)
}

/// Of several entries for one address: the ready before the unready, then the staying before the terminating,
/// then the serving, then the one here, then the one with the greater hints.
fn without_doubles<'a>(entries: Vec<Entry<'a>>, node: &NodeView) -> Vec<Entry<'a>> {
    let mut best: Vec<Entry<'a>> = Vec::new();
    for (addr, endpoint) in entries {
        let Some(other) = best.iter_mut().find(|(other, _)| *other == addr) else {
            best.push((addr, endpoint));
            continue;
        };
        let (old, new) = (other.1, endpoint);
        let order = old
            .ready
            .cmp(&new.ready)
            .then(new.terminating.cmp(&old.terminating))
            .then(old.serving.cmp(&new.serving))
            .then(is_here(old, node).cmp(&is_here(new, node)))
            .then_with(|| old.node_hints.cmp(&new.node_hints))
            .then_with(|| old.zone_hints.cmp(&new.zone_hints));
        if order.is_lt() {
            *other = (addr, endpoint);
        }
    }
    best
}

/// Whether a client may get this one, all of them known.
fn may_get(entry: &Entry<'_>, all: &[Entry<'_>], local_policy: bool, node: &NodeView) -> bool {
    let (_, endpoint) = entry;
    if local_policy {
        let ready_here = all.iter().any(|(_, other)| other.ready && is_here(other, node));
        return is_here(endpoint, node) && usable(endpoint, ready_here);
    }
    let ready_anywhere = all.iter().any(|(_, other)| other.ready);
    if !usable(endpoint, ready_anywhere) {
        return false;
    }
    if !ready_anywhere {
        return true;
    }
    let for_node = |e: &Endpoint| e.node_hints.iter().any(|hint| **hint == *node.name);
    let for_zone = |e: &Endpoint| e.zone_hints.iter().any(|hint| Some(&**hint) == node.zone.as_deref());
    let ready: Vec<&Endpoint> = all.iter().map(|(_, other)| *other).filter(|other| other.ready).collect();
    let node_hints = ready.iter().all(|e| !e.node_hints.is_empty()) && ready.iter().any(|e| for_node(e));
    let zone_hints = ready.iter().all(|e| !e.zone_hints.is_empty()) && ready.iter().any(|e| for_zone(e));
    match (node_hints, zone_hints) {
        (true, _) => for_node(endpoint),
        (false, true) => for_zone(endpoint),
        (false, false) => true,
    }
}

/// Ready, or draining where nothing is ready.
fn usable(endpoint: &Endpoint, some_are_ready: bool) -> bool {
    if some_are_ready { endpoint.ready } else { endpoint.serving && endpoint.terminating }
}
