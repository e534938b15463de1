//! `Service` (core/v1).

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;

use super::addr::{never_remote, parse_addr};
use super::external::{External, parse_external};
use super::problems::{Problems, quote};
use super::{Parsed, has_foreign_label, parse_port, parse_protocol};
use crate::source::{
    Affinity, Family, Protocol, Service, ServicePort, ServiceType, TrafficDistribution, TrafficPolicy,
};

/// `ClientIPConfig.timeoutSeconds` where it is missing: three hours.
const AFFINITY_DEFAULT_S: u32 = 10_800;
/// The longest `ClientIPConfig.timeoutSeconds`: a day.
const AFFINITY_MAX_S: u32 = 86_400;

/// A Service. Not ours (no object, no problem): headless, `ExternalName`, without a ClusterIP yet, labelled as
/// headless or as another proxy's. Unusable (no object, problems): no valid ClusterIP.
///
/// A Service all of whose ports are bad is still ours: its addresses are known, and refuse.
#[must_use]
pub fn parse_service(api: &api::Service) -> Parsed<Service> {
    let Some(spec) = &api.spec else { return Parsed::not_ours() };
    if has_foreign_label(&api.metadata) || spec.type_.as_deref() == Some("ExternalName") {
        return Parsed::not_ours();
    }
    let Some(addresses) = cluster_ip_fields(spec) else { return Parsed::not_ours() };

    let mut problems = Problems::default();
    let cluster_ips = parse_cluster_ips(&addresses, &mut problems);
    if cluster_ips.is_empty() {
        return Parsed { object: None, problems: problems.finish() };
    }
    let External { external_ips, load_balancer_ips, source_ranges, health_check_node_port } =
        parse_external(api, &cluster_ips, &mut problems);
    let service = Service {
        created_s: api.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
        kind: parse_kind(spec.type_.as_deref(), &mut problems),
        cluster_ips,
        ports: parse_ports(spec.ports.as_deref().unwrap_or_default(), &mut problems),
        internal_policy: parse_policy(
            spec.internal_traffic_policy.as_deref(),
            "spec.internalTrafficPolicy",
            &mut problems,
        ),
        external_policy: parse_policy(
            spec.external_traffic_policy.as_deref(),
            "spec.externalTrafficPolicy",
            &mut problems,
        ),
        affinity: parse_affinity(spec, &mut problems),
        distribution: parse_distribution(spec.traffic_distribution.as_deref(), &mut problems),
        external_ips,
        load_balancer_ips,
        source_ranges,
        health_check_node_port,
    };
    Parsed { object: Some(service), problems: problems.finish() }
}

/// The ClusterIPs with the paths of their fields; `None` where there is none, or the Service is headless.
/// `clusterIP` counts only where there are no `clusterIPs`: the API server keeps it equal to the first of them.
fn cluster_ip_fields(spec: &api::ServiceSpec) -> Option<Vec<(String, &str)>> {
    let fields: Vec<(String, &str)> = match spec.cluster_ips.as_deref() {
        Some(ips @ [_, ..]) => {
            ips.iter().enumerate().map(|(n, ip)| (format!("spec.clusterIPs[{n}]"), ip.as_str())).collect()
        }
        _ => spec.cluster_ip.iter().map(|ip| ("spec.clusterIP".into(), ip.as_str())).collect(),
    };
    match fields.first() {
        None | Some((_, "" | "None")) => None,
        Some(_) => Some(fields),
    }
}

fn parse_cluster_ips(fields: &[(String, &str)], problems: &mut Problems) -> Vec<IpAddr> {
    const LOSS: &str = "this address is not served";
    let mut ips: Vec<IpAddr> = Vec::new();
    for (field, text) in fields {
        let addr = match parse_addr(text) {
            Ok(addr) => addr,
            Err(why) => {
                problems.add(field, format!("{} is {why}: {LOSS}", quote(text)));
                continue;
            }
        };
        let family = Family::of(addr);
        if let Some(why) = never_remote(addr) {
            problems.add(field, format!("{addr} is {why}: {LOSS}"));
        } else if ips.iter().any(|ip| Family::of(*ip) == family) {
            problems.add(field, format!("{addr} is a second {family} address, where one is allowed: {LOSS}"));
        } else {
            ips.push(addr);
        }
    }
    ips
}

fn parse_kind(value: Option<&str>, problems: &mut Problems) -> ServiceType {
    match value {
        None | Some("" | "ClusterIP") => ServiceType::ClusterIp,
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        Some(other) => {
            let known = "ClusterIP, NodePort, LoadBalancer, ExternalName";
            problems.add("spec.type", format!("{} is no type ({known}): taken as ClusterIP", quote(other)));
            ServiceType::ClusterIp
        }
    }
}

fn parse_policy(value: Option<&str>, field: &str, problems: &mut Problems) -> TrafficPolicy {
    match value {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            problems.add(
                field,
                format!("{} is no traffic policy (Cluster, Local): taken as Cluster", quote(other)),
            );
            TrafficPolicy::Cluster
        }
    }
}

fn parse_affinity(spec: &api::ServiceSpec, problems: &mut Problems) -> Option<Affinity> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            let message = format!("{} is no affinity (None, ClientIP): taken as None", quote(other));
            problems.add("spec.sessionAffinity", message);
            return None;
        }
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let Some(seconds) = config.and_then(|config| config.timeout_seconds) else {
        return Some(Affinity { timeout_s: AFFINITY_DEFAULT_S });
    };
    let valid = u32::try_from(seconds).ok().filter(|seconds| (1..=AFFINITY_MAX_S).contains(seconds));
    if valid.is_none() {
        problems.add(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            format!(
                "{seconds} is not from 1 to {AFFINITY_MAX_S}: the default, {AFFINITY_DEFAULT_S}, is used"
            ),
        );
    }
    Some(Affinity { timeout_s: valid.unwrap_or(AFFINITY_DEFAULT_S) })
}

fn parse_distribution(value: Option<&str>, problems: &mut Problems) -> Option<TrafficDistribution> {
    match value {
        None | Some("") => None,
        Some("PreferClose" | "PreferSameZone") => Some(TrafficDistribution::PreferSameZone),
        Some("PreferSameNode") => Some(TrafficDistribution::PreferSameNode),
        Some(other) => {
            let known = "PreferClose, PreferSameZone, PreferSameNode";
            let message = format!("{} is no distribution ({known}): taken as unset", quote(other));
            problems.add("spec.trafficDistribution", message);
            None
        }
    }
}

/// What may occur only once among the ports of a Service.
#[derive(Default)]
struct Seen<'a> {
    names: HashSet<&'a str>,
    ports: HashSet<(Protocol, u16)>,
    node_ports: HashSet<(Protocol, u16)>,
}

fn parse_ports(api: &[api::ServicePort], problems: &mut Problems) -> Vec<ServicePort> {
    let mut seen = Seen::default();
    let parse = |(n, port)| parse_service_port(port, &format!("spec.ports[{n}]"), &mut seen, problems);
    api.iter().enumerate().filter_map(parse).collect()
}

fn parse_service_port<'a>(
    api: &'a api::ServicePort,
    field: &str,
    seen: &mut Seen<'a>,
    problems: &mut Problems,
) -> Option<ServicePort> {
    const LOSS: &str = "this port is not served";
    let protocol = parse_protocol(api.protocol.as_deref(), field, LOSS, problems)?;
    let port = parse_port(api.port, format!("{field}.port"), LOSS, problems)?;
    let name = api.name.as_deref().unwrap_or_default();
    if seen.ports.contains(&(protocol, port)) {
        problems.add(format!("{field}.port"), format!("an earlier port is {port}/{protocol} too: {LOSS}"));
        return None;
    }
    if !seen.names.insert(name) {
        problems
            .add(format!("{field}.name"), format!("an earlier port is named {} too: {LOSS}", quote(name)));
        return None;
    }
    seen.ports.insert((protocol, port));
    let node_port = parse_node_port(api, protocol, field, seen, problems);
    Some(ServicePort { name: Arc::from(name), protocol, port, node_port })
}

/// `nodePort`; 0 and missing mean none. Read whatever the type, as kube-proxy does.
fn parse_node_port(
    api: &api::ServicePort,
    protocol: Protocol,
    field: &str,
    seen: &mut Seen<'_>,
    problems: &mut Problems,
) -> Option<u16> {
    const LOSS: &str = "there is no node port for this port";
    let value = api.node_port.filter(|value| *value != 0)?;
    let field = format!("{field}.nodePort");
    let port = parse_port(value, field.clone(), LOSS, problems)?;
    if seen.node_ports.insert((protocol, port)) {
        return Some(port);
    }
    problems.add(field, format!("an earlier port has {port}/{protocol} too: {LOSS}"));
    None
}
