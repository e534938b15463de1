//! Kubernetes API objects into our own: the only place that validates them. Called by every source, and by the
//! tests that run the vectors.
//!
//! Nothing here panics or fails as a whole. What is wrong costs the smallest part that contains it (a port, an
//! endpoint, an address), is said as a [`Problem`] that names the field, and leaves the rest in force. The API
//! server refuses most of this itself; manifests, aggregated API servers and older versions do not.

mod addr;
mod cluster_policy;
mod external;
mod modes;
mod node;
mod pod;
mod policy;
mod problems;
mod selector;
mod service;
mod slice;

#[cfg(test)]
mod tests;

pub use cluster_policy::{ApiClusterNetworkPolicy, parse_cluster_network_policy};
pub(in crate::source) use modes::{ESTABLISHED, POLICY_MODE};
pub use node::parse_node;
pub(crate) use pod::ANNOTATION_MIRROR;
pub use pod::{parse_namespace, parse_pod};
pub(in crate::source) use policy::PolicySelector;
pub use policy::{closed_policy, parse_network_policy};
pub use problems::MAX_PROBLEMS;
pub use service::parse_service;
pub use slice::{MAX_ENDPOINTS, MAX_PORTS, parse_slice};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Problem, Protocol};
pub(super) use problems::Problems;
use problems::quote;

/// What became of an API object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parsed<T> {
    /// `None` without a problem: not ours to serve. `None` with problems: nothing of it can be used. The parse
    /// functions say when.
    pub object: Option<T>,
    /// All that is wrong with it: the first [`MAX_PROBLEMS`], and how many more there are.
    pub problems: Vec<Problem>,
}

impl<T> Parsed<T> {
    /// An object that other software serves.
    fn not_ours() -> Self {
        Self { object: None, problems: Vec::new() }
    }
}

/// Set (to any value): another proxy serves this Service (KEP-2447).
const LABEL_SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Set (to any value): no proxy serves this Service.
const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";

/// Whether a label of a Service or a slice takes it away from us; kube-proxy's informers select by the same two.
fn has_foreign_label(meta: &ObjectMeta) -> bool {
    let set = |label| meta.labels.as_ref().is_some_and(|labels| labels.contains_key(label));
    set(LABEL_SERVICE_PROXY_NAME) || set(LABEL_HEADLESS)
}

/// `ServicePort.protocol`, `EndpointPort.protocol`; missing means TCP. `None` after a problem was said.
fn parse_protocol(value: Option<&str>, field: &str, loss: &str, problems: &mut Problems) -> Option<Protocol> {
    match value {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(other) => {
            problems.add(
                format!("{field}.protocol"),
                format!("{} is no protocol (TCP, UDP, SCTP): {loss}", quote(other)),
            );
            None
        }
    }
}

/// A port number from 1 to 65535. `None` after a problem was said.
fn parse_port(value: i32, field: String, loss: &str, problems: &mut Problems) -> Option<u16> {
    let port = u16::try_from(value).ok().filter(|port| *port != 0);
    if port.is_none() {
        problems.add(field, format!("{value} is no port (1 to 65535): {loss}"));
    }
    port
}
