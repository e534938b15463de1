//! `Pod` and `Namespace` (core/v1), as far as policies ask.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::addr::{never_remote, parse_addr};
use super::modes::parse_audit;
use super::problems::{Problems, quote};
use super::selector::parse_labels;
use super::{Parsed, parse_port, parse_protocol};
use crate::source::{Labels, NamedPort, Namespace, Pod, PodIdentity, PodUid};

/// What the API server labels each namespace with, whatever its owner writes.
const LABEL_NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Where a mirror pod says which static pod it stands for: the kubelet's own UID of that one.
pub(crate) const ANNOTATION_MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod. Not ours (no object, no problem): it has ended, and its address may be another pod's. One that is being deleted still
/// runs. Of one that has its node's network, which no policy selects (semantics of hostNetwork pods: kubernetes.io, Network
/// Policies), by what its node knows it: what it makes is no pod.
#[must_use]
pub fn parse_pod(api: &api::Pod) -> Parsed<Pod> {
    let spec = api.spec.as_ref();
    let phase = api.status.as_ref().and_then(|status| status.phase.as_deref());
    let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Parsed::not_ours();
    }
    let mut problems = Problems::default();
    let node = spec.and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty());
    if host_network {
        let (node, identity) = (node.map(Arc::from), parse_identity(&api.metadata));
        let object = identity.is_some().then(|| Pod { node, identity, host_network, ..Pod::default() });
        return Parsed { object, problems: Vec::new() };
    }
    let pod = Pod {
        created_s: api.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
        labels: parse_labels(api.metadata.labels.as_ref()),
        addresses: api
            .status
            .as_ref()
            .map(|status| parse_addresses(status, &mut problems))
            .unwrap_or_default(),
        ports: spec.map(|spec| parse_ports(spec, &mut problems)).unwrap_or_default(),
        node: node.map(Arc::from),
        identity: parse_identity(&api.metadata),
        host_network,
    };
    Parsed { object: Some(pod), problems: problems.finish() }
}

/// A mirror pod stands for one that the kubelet has from its own disk, and says which (`IsMirrorPod` and `GetPodSource` in
/// pkg/kubelet/types/pod_update.go). Anything else is no digest, and nothing of ours.
fn parse_identity(metadata: &ObjectMeta) -> Option<Box<PodIdentity>> {
    let uid = PodUid::parse(metadata.uid.as_deref()?)?;
    let mirrored = metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION_MIRROR));
    Some(Box::new(PodIdentity { uid, mirrors: mirrored.and_then(|hash| PodUid::parse(hash)) }))
}

/// A namespace. Always an object.
#[must_use]
pub fn parse_namespace(api: &api::Namespace) -> Parsed<Namespace> {
    let labels = parse_labels(api.metadata.labels.as_ref());
    // In manifests nobody writes it.
    let own = api.metadata.name.as_deref().map(|name| (Arc::from(LABEL_NAMESPACE_NAME), Arc::from(name)));
    let labels: Labels = own.into_iter().chain(labels).collect();
    let mut problems = Problems::default();
    let audit = parse_audit(&api.metadata, "its policies are enforced", &mut problems);
    Parsed { object: Some(Namespace { labels, audit }), problems: problems.finish() }
}

/// `podIP` counts only where there are no `podIPs`: the API server keeps it equal to the first of them.
fn parse_addresses(status: &api::PodStatus, problems: &mut Problems) -> Box<[IpAddr]> {
    const LOSS: &str = "no policy knows this pod by it";
    let fields: Vec<(String, &str)> = match status.pod_ips.as_deref() {
        Some(ips @ [_, ..]) => {
            ips.iter().enumerate().map(|(n, ip)| (format!("status.podIPs[{n}].ip"), ip.ip.as_str())).collect()
        }
        _ => status.pod_ip.iter().map(|ip| ("status.podIP".into(), ip.as_str())).collect(),
    };
    let mut addresses = Vec::with_capacity(fields.len());
    for (field, text) in fields.iter().filter(|(_, text)| !text.is_empty()) {
        let wrong = match parse_addr(text) {
            Err(why) => format!("{} is {why}", quote(text)),
            Ok(addr) => match never_remote(addr) {
                Some(why) => format!("{addr} is {why}"),
                None if addresses.contains(&addr) => continue,
                None => {
                    addresses.push(addr);
                    continue;
                }
            },
        };
        problems.add(field, format!("{wrong}: {LOSS}"));
    }
    addresses.into()
}

/// The named ports of the containers, then those of the init containers that keep running (sidecars). A name is one port of a
/// container, and may be another one of the next.
fn parse_ports(spec: &api::PodSpec, problems: &mut Problems) -> Box<[NamedPort]> {
    let containers =
        spec.containers.iter().enumerate().map(|(n, one)| (format!("spec.containers[{n}]"), one));
    let init = spec.init_containers.iter().flatten().enumerate();
    let sidecars = init.filter(|(_, one)| one.restart_policy.as_deref() == Some("Always"));
    let sidecars = sidecars.map(|(n, one)| (format!("spec.initContainers[{n}]"), one));
    let mut ports: Vec<NamedPort> = Vec::new();
    for (field, container) in containers.chain(sidecars) {
        for (n, api) in container.ports.iter().flatten().enumerate() {
            let port = parse_named_port(api, &format!("{field}.ports[{n}]"), problems);
            ports.extend(port.filter(|port| !ports.contains(port)));
        }
    }
    ports.into()
}

/// `None` where it has no name, and after a problem was said.
fn parse_named_port(api: &api::ContainerPort, field: &str, problems: &mut Problems) -> Option<NamedPort> {
    const LOSS: &str = "no policy finds this port by its name";
    let name = api.name.as_deref().filter(|name| !name.is_empty())?;
    let protocol = parse_protocol(api.protocol.as_deref(), field, LOSS, problems)?;
    let port = parse_port(api.container_port, format!("{field}.containerPort"), LOSS, problems)?;
    Some(NamedPort { name: Arc::from(name), protocol, port })
}
