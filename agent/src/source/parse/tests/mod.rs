//! One row for each rule, on objects written as the API's JSON.

mod cluster_policy;
mod external;
mod pod;
mod policy;
mod service;
mod slice;

use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use super::{Parsed, parse_node, parse_service, parse_slice};
use crate::source::{EndpointSlice, Service};

/// `base` with `patch` laid over it: objects merge, everything else replaces.
fn merge(base: &mut Value, patch: Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, patch) => *base = patch,
    }
}

/// A plain Service with one port, and `patch`.
fn service(patch: Value) -> Parsed<Service> {
    let mut object = json!({
        "metadata": {"namespace": "ns", "name": "svc"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    });
    merge(&mut object, patch);
    parse_service(&serde_json::from_value(object).unwrap())
}

/// A plain slice with one port and one endpoint, and `patch`.
fn slice(patch: Value) -> Parsed<EndpointSlice> {
    let mut object = json!({
        "metadata": {"namespace": "ns", "name": "svc-1", "labels": {"kubernetes.io/service-name": "svc"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": ["10.0.0.1"]}],
    });
    merge(&mut object, patch);
    parse_slice(&serde_json::from_value(object).unwrap())
}

/// The problems as a person reads them.
fn said<T>(parsed: &Parsed<T>) -> Vec<String> {
    parsed.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn nodes() {
    let zone = |labels: Value| {
        let node: core::Node = serde_json::from_value(json!({"metadata": {"labels": labels}})).unwrap();
        let parsed = parse_node(&node);
        assert_eq!(parsed.problems, []);
        parsed.object.unwrap().zone
    };
    assert_eq!(zone(json!({"topology.kubernetes.io/zone": "a"})).as_deref(), Some("a"));
    assert_eq!(zone(json!({"topology.kubernetes.io/zone": ""})), None);
    assert_eq!(zone(json!({"failure-domain.beta.kubernetes.io/zone": "a"})), None);
    assert_eq!(zone(Value::Null), None);
}
