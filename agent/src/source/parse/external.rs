//! How a `Service` (core/v1) is reached from outside: `externalIPs`, `status.loadBalancer`, `loadBalancerSourceRanges`,
//! `healthCheckNodePort`. Called by [`super::parse_service`]; node ports are read with the other ports.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;

use super::addr::{is_link_local, never_remote, parse_addr, parse_network};
use super::parse_port;
use super::problems::{Problems, quote};
use crate::source::{Family, SourceRanges};

const LOSS: &str = "this address is not served";

/// The fields of [`crate::source::Service`] that this module reads.
pub(super) struct External {
    pub(super) external_ips: Box<[IpAddr]>,
    pub(super) load_balancer_ips: Box<[IpAddr]>,
    pub(super) source_ranges: Option<Box<SourceRanges>>,
    pub(super) health_check_node_port: Option<u16>,
}

/// Read whatever the type of the Service, as kube-proxy does: what is not to count is not there.
pub(super) fn parse_external(
    api: &api::Service,
    cluster_ips: &[IpAddr],
    problems: &mut Problems,
) -> External {
    let spec = api.spec.as_ref();
    let external = spec.and_then(|spec| spec.external_ips.as_deref()).unwrap_or_default();
    let balancer = api.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    let ranges = spec.and_then(|spec| spec.load_balancer_source_ranges.as_deref()).unwrap_or_default();
    let health_check = spec.and_then(|spec| spec.health_check_node_port).filter(|port| *port != 0);
    External {
        external_ips: parse_external_ips(external, cluster_ips, problems),
        load_balancer_ips: parse_ingress(ingress, cluster_ips, problems),
        source_ranges: parse_source_ranges(ranges, problems),
        health_check_node_port: health_check.and_then(|port| {
            let loss = "its health checks are not answered";
            parse_port(port, "spec.healthCheckNodePort".into(), loss, problems)
        }),
    }
}

/// Link-local addresses are refused, as the API server does: whoever may write a Service could otherwise take the
/// address of the cloud's metadata server (CVE-2020-8554).
fn parse_external_ips(api: &[String], cluster_ips: &[IpAddr], problems: &mut Problems) -> Box<[IpAddr]> {
    let mut ips = Vec::with_capacity(api.len());
    for (n, text) in api.iter().enumerate() {
        let field = format!("spec.externalIPs[{n}]");
        let Some(addr) = parse_outer_addr(text, &field, cluster_ips, problems) else { continue };
        if is_link_local(addr) {
            problems.add(field, format!("{addr} is a link-local address: {LOSS}"));
        } else if !ips.contains(&addr) {
            ips.push(addr);
        }
    }
    ips.into()
}

/// An item without an address names a host: whoever has it serves it.
fn parse_ingress(
    api: &[api::LoadBalancerIngress],
    cluster_ips: &[IpAddr],
    problems: &mut Problems,
) -> Box<[IpAddr]> {
    let mut ips = Vec::with_capacity(api.len());
    for (n, ingress) in api.iter().enumerate() {
        let Some(text) = ingress.ip.as_deref().filter(|text| !text.is_empty()) else { continue };
        let field = format!("status.loadBalancer.ingress[{n}]");
        match ingress.ip_mode.as_deref() {
            // The balancer wants to see the packets itself: it may be what ends TLS or says who the client is.
            Some("Proxy") => continue,
            None | Some("" | "VIP") => {}
            Some(other) => problems.add(
                format!("{field}.ipMode"),
                format!("{} is no mode (VIP, Proxy): taken as VIP", quote(other)),
            ),
        }
        let addr = parse_outer_addr(text, &format!("{field}.ip"), cluster_ips, problems);
        ips.extend(addr.filter(|addr| !ips.contains(addr)));
    }
    ips.into()
}

/// An address that clients may dial; of a family that the Service has. `None` after a problem was said.
fn parse_outer_addr(
    text: &str,
    field: &str,
    cluster_ips: &[IpAddr],
    problems: &mut Problems,
) -> Option<IpAddr> {
    let addr = match parse_addr(text) {
        Ok(addr) => addr,
        Err(why) => {
            problems.add(field, format!("{} is {why}: {LOSS}", quote(text)));
            return None;
        }
    };
    let family = Family::of(addr);
    if let Some(why) = never_remote(addr) {
        problems.add(field, format!("{addr} is {why}: {LOSS}"));
        return None;
    }
    if !cluster_ips.iter().any(|ip| Family::of(*ip) == family) {
        problems
            .add(field, format!("{addr} is an {family} address, and the Service has no {family}: {LOSS}"));
        return None;
    }
    Some(addr)
}

/// A range that cannot be read closes both families but for the ranges that can: it was written to keep somebody out.
/// Blank ones are nothing, as in kube-proxy.
fn parse_source_ranges(api: &[String], problems: &mut Problems) -> Option<Box<SourceRanges>> {
    let (mut networks, mut bad) = (Vec::with_capacity(api.len()), Vec::new());
    for (n, text) in api.iter().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        match parse_network(text.trim()) {
            Ok(network) if networks.contains(&network) => {}
            Ok(network) => networks.push(network),
            Err(why) => bad.push((n, format!("{} is {why}", quote(text)))),
        }
    }
    let incomplete = !bad.is_empty();
    let then = match networks.is_empty() {
        true => "nobody may use the load balancer's addresses",
        false => "who is in no other range may not use the load balancer's addresses",
    };
    for (n, what) in bad {
        problems.add(format!("spec.loadBalancerSourceRanges[{n}]"), format!("{what}: {then}"));
    }
    let some = incomplete || !networks.is_empty();
    some.then(|| Box::new(SourceRanges { networks: networks.into(), incomplete }))
}
