//! `EndpointSlice` (discovery.k8s.io/v1).

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1 as api;

use super::addr::{is_link_local, never_remote, parse_addr};
use super::problems::{Problems, quote};
use super::{Parsed, has_foreign_label, parse_port, parse_protocol};
use crate::source::intern::Interner;
use crate::source::{Endpoint, EndpointPort, EndpointSlice, Family};

/// The API's limit on `endpoints`. A slice beyond it is refused whole: it did not pass an API server, and half
/// of it is no better an answer than none.
pub const MAX_ENDPOINTS: usize = 1000;
/// The API's limit on `ports`.
pub const MAX_PORTS: usize = 100;
/// The API's limit on `hints.forZones` and on `hints.forNodes`.
const MAX_HINTS: usize = 8;

/// Names the Service, in the slice's own namespace.
const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A slice. Not ours (no object, no problem): of no Service (without the label that names it), of address type
/// `FQDN`, labelled as headless or as another proxy's. Unusable (no object, problems): of an unknown address
/// type, or larger than the API allows.
#[must_use]
pub fn parse_slice(api: &api::EndpointSlice) -> Parsed<EndpointSlice> {
    let label = api.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_SERVICE_NAME));
    let Some(service) = label.filter(|name| !name.is_empty()) else { return Parsed::not_ours() };
    if has_foreign_label(&api.metadata) || api.address_type == "FQDN" {
        return Parsed::not_ours();
    }
    let mut problems = Problems::default();
    let ports = api.ports.as_deref().unwrap_or_default();
    let family = parse_family(&api.address_type, &mut problems);
    let fits = fits("endpoints", api.endpoints.len(), MAX_ENDPOINTS, &mut problems)
        & fits("ports", ports.len(), MAX_PORTS, &mut problems);
    let Some(family) = family.filter(|_| fits) else {
        return Parsed { object: None, problems: problems.finish() };
    };
    let mut names = Interner::default();
    let slice = EndpointSlice {
        service: Arc::from(service.as_str()),
        family,
        ports: parse_ports(ports, &mut problems),
        endpoints: parse_endpoints(&api.endpoints, family, &mut names, &mut problems),
    };
    Parsed { object: Some(slice), problems: problems.finish() }
}

fn parse_family(value: &str, problems: &mut Problems) -> Option<Family> {
    match value {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        other => {
            let message =
                format!("{} is no address type (IPv4, IPv6, FQDN): this slice is not used", quote(other));
            problems.add("addressType", message);
            None
        }
    }
}

fn fits(field: &str, count: usize, limit: usize, problems: &mut Problems) -> bool {
    if count > limit {
        let message = format!("{count} items, where the API allows {limit}: this slice is not used");
        problems.add(field, message);
    }
    count <= limit
}

fn parse_ports(api: &[api::EndpointPort], problems: &mut Problems) -> Vec<EndpointPort> {
    let mut names = HashSet::new();
    let parse = |(n, port)| parse_endpoint_port(port, &format!("ports[{n}]"), &mut names, problems);
    api.iter().enumerate().filter_map(parse).collect()
}

fn parse_endpoint_port<'a>(
    api: &'a api::EndpointPort,
    field: &str,
    names: &mut HashSet<&'a str>,
    problems: &mut Problems,
) -> Option<EndpointPort> {
    const LOSS: &str = "this port has no endpoints here";
    let protocol = parse_protocol(api.protocol.as_deref(), field, LOSS, problems)?;
    let Some(port) = api.port else {
        problems.add(format!("{field}.port"), format!("missing: {LOSS}"));
        return None;
    };
    let port = parse_port(port, format!("{field}.port"), LOSS, problems)?;
    let name = api.name.as_deref().unwrap_or_default();
    if !names.insert(name) {
        problems.add(
            format!("{field}.name"),
            format!("an earlier port is named {} too: this one is not used", quote(name)),
        );
        return None;
    }
    Some(EndpointPort { name: Arc::from(name), protocol, port })
}

fn parse_endpoints(
    api: &[api::Endpoint],
    family: Family,
    names: &mut Interner,
    problems: &mut Problems,
) -> Vec<Endpoint> {
    let mut endpoints = Vec::with_capacity(api.len());
    for (n, api) in api.iter().enumerate() {
        if let Some(addr) = parse_address(api, n, family, problems) {
            endpoints.push(parse_endpoint(api, n, addr, names, problems));
        }
    }
    endpoints
}

/// The endpoint's one address that counts, with the checks of the API server's `ValidateEndpointIP`.
fn parse_address(api: &api::Endpoint, n: usize, family: Family, problems: &mut Problems) -> Option<IpAddr> {
    const LOSS: &str = "this endpoint is not used";
    let Some(text) = api.addresses.first() else {
        problems.add(format!("endpoints[{n}].addresses"), format!("empty: {LOSS}"));
        return None;
    };
    let wrong = match parse_addr(text) {
        Err(why) => format!("{} is {why}", quote(text)),
        Ok(addr) if Family::of(addr) != family => {
            format!("{addr} is no {family} address, as addressType says")
        }
        Ok(addr) => match never_remote(addr) {
            Some(why) => format!("{addr} is {why}"),
            None if is_link_local(addr) => format!("{addr} is a link-local address"),
            None => return Some(addr),
        },
    };
    problems.add(format!("endpoints[{n}].addresses[0]"), format!("{wrong}: {LOSS}"));
    None
}

fn parse_endpoint(
    api: &api::Endpoint,
    n: usize,
    addr: IpAddr,
    names: &mut Interner,
    problems: &mut Problems,
) -> Endpoint {
    let conditions = api.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let hints = api.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
    let nodes = hints.and_then(|hints| hints.for_nodes.as_deref()).unwrap_or_default();
    let zones = zones.iter().map(|zone| zone.name.as_str());
    let nodes = nodes.iter().map(|node| node.name.as_str());
    let node = api.node_name.as_deref().filter(|name| !name.is_empty());
    Endpoint {
        addr,
        ready,
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        node: node.map(|name| names.intern(name)),
        zone_hints: parse_hints(zones, || format!("endpoints[{n}].hints.forZones"), names, problems),
        node_hints: parse_hints(nodes, || format!("endpoints[{n}].hints.forNodes"), names, problems),
    }
}

/// The names that hints give: sorted, each once, without empty ones.
fn parse_hints<'a>(
    hints: impl ExactSizeIterator<Item = &'a str>,
    field: impl Fn() -> String,
    names: &mut Interner,
    problems: &mut Problems,
) -> Vec<Arc<str>> {
    if hints.len() > MAX_HINTS {
        let message = format!("{} items, where the API allows {MAX_HINTS}: the rest is ignored", hints.len());
        problems.add(field(), message);
    }
    let mut kept: Vec<Arc<str>> =
        hints.take(MAX_HINTS).filter(|name| !name.is_empty()).map(|name| names.intern(name)).collect();
    kept.sort_unstable();
    kept.dedup();
    kept
}
