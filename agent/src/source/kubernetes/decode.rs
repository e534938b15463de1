//! What an API server sends into our model, object by object: one that does not decode costs only itself.
//!
//! Only the fields that mean something here are decoded. The rest (managedFields, annotations, conditions) is skipped
//! where it stands: it is most of the text, and none of it can then be wrong.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::kind::Kind;
use crate::source::{
    EndpointSlice, Node, ObjectKey, Parsed, Problem, Service, parse_node, parse_service, parse_slice,
};

/// Marks the bookmark that ends the list at the beginning of a watch (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// An object of a list or a watch.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) key: ObjectKey,
    pub(super) uid: Option<String>,
    /// `metadata.resourceVersion`
    pub(super) version: Option<String>,
    pub(super) content: Content,
}

/// What it says.
#[derive(Debug)]
pub(super) enum Content {
    Service(Parsed<Service>),
    EndpointSlice(Parsed<EndpointSlice>),
    Node(Parsed<Node>),
    /// It does not decode.
    Malformed(Problem),
}

/// Decodes an object.
///
/// # Errors
/// It has no name that can be read.
pub(super) fn decode_object(kind: Kind, text: &str) -> Result<Decoded, Problem> {
    match decode_kind(kind, text) {
        Ok((meta, content)) => Decoded::new(meta, content),
        Err(problem) => match serde_json::from_str::<Header>(text) {
            Ok(header) => Decoded::new(header.metadata, Content::Malformed(problem)),
            Err(_) => Err(problem),
        },
    }
}

impl Decoded {
    fn new(meta: Meta, content: Content) -> Result<Self, Problem> {
        let Some(name) = meta.name.filter(|name| !name.is_empty()) else {
            return Err(Problem { field: "metadata.name".into(), message: "missing".into() });
        };
        let key = ObjectKey::new(meta.namespace.unwrap_or_default(), name);
        Ok(Self { key, uid: meta.uid, version: meta.resource_version, content })
    }
}

fn decode_kind(kind: Kind, text: &str) -> Result<(Meta, Content), Problem> {
    Ok(match kind {
        Kind::Service => {
            let ServiceObject { mut metadata, spec, status } = decode(text)?;
            let status = status.map(|status| core::ServiceStatus {
                load_balancer: status.load_balancer,
                ..core::ServiceStatus::default()
            });
            let api = core::Service { metadata: metadata.take(), spec, status };
            (metadata, Content::Service(parse_service(&api)))
        }
        Kind::EndpointSlice => {
            let mut object: SliceObject = decode(text)?;
            let api = discovery::EndpointSlice {
                metadata: object.metadata.take(),
                address_type: object.address_type,
                endpoints: object.endpoints.unwrap_or_default(),
                ports: object.ports,
            };
            (object.metadata, Content::EndpointSlice(parse_slice(&api)))
        }
        Kind::Node => {
            let NodeObject { mut metadata, spec } = decode(text)?;
            let taints = spec.and_then(|spec| spec.taints).unwrap_or_default();
            let taints =
                taints.into_iter().map(|taint| core::Taint { key: taint.key, ..core::Taint::default() });
            let spec = core::NodeSpec { taints: Some(taints.collect()), ..core::NodeSpec::default() };
            let api = core::Node { metadata: metadata.take(), spec: Some(spec), status: None };
            (metadata, Content::Node(parse_node(&api)))
        }
    })
}

fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let message = error.inner().to_string();
        // The position is within a text that nobody will see.
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        Problem { field: field.trim_end_matches(['.', '?']).to_owned(), message }
    })
}

/// Any object, as far as it is named.
#[derive(Deserialize)]
struct Header {
    metadata: Meta,
}

#[derive(Deserialize)]
struct ServiceObject {
    metadata: Meta,
    spec: Option<core::ServiceSpec>,
    status: Option<ServiceStatus>,
}

/// The addresses of load balancers; conditions mean nothing here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceStatus {
    load_balancer: Option<core::LoadBalancerStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceObject {
    metadata: Meta,
    address_type: String,
    endpoints: Option<Vec<discovery::Endpoint>>,
    ports: Option<Vec<discovery::EndpointPort>>,
}

#[derive(Deserialize)]
struct NodeObject {
    metadata: Meta,
    spec: Option<NodeSpec>,
}

#[derive(Deserialize)]
struct NodeSpec {
    taints: Option<Vec<Taint>>,
}

/// Which taint it is; whom it keeps away means nothing here.
#[derive(Deserialize)]
struct Taint {
    key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
}

impl Meta {
    /// What `source::parse` looks at.
    fn take(&mut self) -> ObjectMeta {
        ObjectMeta {
            labels: self.labels.take(),
            creation_timestamp: self.creation_timestamp.take(),
            deletion_timestamp: self.deletion_timestamp.take(),
            ..ObjectMeta::default()
        }
    }
}

/// A page of a list; its objects are still text.
#[derive(Debug, Deserialize)]
pub(super) struct Page<'a> {
    pub(super) metadata: PageMeta,
    #[serde(borrow)]
    pub(super) items: Option<Vec<&'a RawValue>>,
}

/// The list's own metadata.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMeta {
    /// Of the whole list; the same on each page.
    pub(super) resource_version: String,
    /// Leads to the next page, if there is one.
    #[serde(default, rename = "continue")]
    pub(super) token: String,
}

/// A line of a watch; its object is still text.
#[derive(Debug, Deserialize)]
pub(super) struct Line<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) change: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) object: &'a RawValue,
}

/// How far a watch has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bookmark {
    pub(super) version: Arc<str>,
    /// All objects that existed at the start have been sent.
    pub(super) listed: bool,
}

/// The object of a line of type `BOOKMARK`.
///
/// # Errors
/// It is none.
pub(super) fn decode_bookmark(text: &str) -> serde_json::Result<Bookmark> {
    #[derive(Deserialize)]
    struct Object {
        metadata: ObjectMeta,
    }
    let Object { metadata } = serde_json::from_str(text)?;
    let listed = metadata
        .annotations
        .is_some_and(|annotations| annotations.get(INITIAL_EVENTS_END).is_some_and(|value| value == "true"));
    Ok(Bookmark { version: metadata.resource_version.unwrap_or_default().into(), listed })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"web","namespace":"shop",
        "uid":"u1","resourceVersion":"7","managedFields":"nonsense"},
        "spec":{"type":"LoadBalancer","clusterIP":"10.96.0.1","ports":[{"port":80}]},"status":{"conditions":"nonsense",
        "loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}"#;

    #[test]
    fn what_means_nothing_here_is_not_looked_at() {
        let decoded = decode_object(Kind::Service, SERVICE).unwrap();
        assert_eq!(decoded.key, ObjectKey::new("shop", "web"));
        assert_eq!((decoded.uid.as_deref(), decoded.version.as_deref()), (Some("u1"), Some("7")));
        let Content::Service(parsed) = decoded.content else { panic!("{:?}", decoded.content) };
        assert_eq!(parsed.problems, []);
        let service = parsed.object.unwrap();
        assert_eq!(service.ports[0].port, 80);
        assert_eq!(*service.load_balancer_ips, ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]);
    }

    #[test]
    fn what_does_not_decode_is_named_by_object_and_field() {
        let decoded = decode_object(Kind::Service, &SERVICE.replace("80", "\"http\"")).unwrap();
        assert_eq!(decoded.key, ObjectKey::new("shop", "web"));
        assert_eq!(decoded.version.as_deref(), Some("7"));
        let Content::Malformed(problem) = decoded.content else { panic!("{:?}", decoded.content) };
        assert_eq!(problem.field, "spec.ports[0].port");
        assert_eq!(problem.message, r#"invalid type: string "http", expected i32"#);
    }

    /// A Node whose text holds these beside its name.
    fn decode_node(metadata: &str, rest: &str) -> Node {
        let text = format!(r#"{{"metadata":{{"name":"node-a"{metadata}}}{rest}}}"#);
        let Content::Node(parsed) = decode_object(Kind::Node, &text).unwrap().content else {
            panic!("{text}: no Node")
        };
        assert_eq!(parsed.problems, []);
        parsed.object.unwrap()
    }

    #[test]
    fn a_node_stays_unless_it_is_deleted_or_about_to_be() {
        let labels = r#","labels":{"topology.kubernetes.io/zone":"a"}"#;
        assert_eq!(decode_node(labels, ""), Node { zone: Some("a".into()), leaving: false });
        assert!(!decode_node("", r#","spec":{"podCIDR":"10.1.0.0/24"},"status":"nonsense""#).leaving);
        let taint = |key| format!(r#","spec":{{"taints":[{{"key":"{key}","effect":"NoSchedule"}}]}}"#);
        assert!(!decode_node("", &taint("node.kubernetes.io/unreachable")).leaving);
        assert!(decode_node("", &taint("ToBeDeletedByClusterAutoscaler")).leaving);
        assert!(decode_node(r#","deletionTimestamp":"2026-01-01T00:00:00Z""#, "").leaving);
    }

    #[test]
    fn an_object_without_a_name_is_no_object() {
        let problem = decode_object(Kind::Node, r#"{"metadata":{}}"#).unwrap_err();
        assert_eq!(problem.to_string(), "metadata.name: missing");
    }

    #[test]
    fn bookmarks() {
        let plain = r#"{"kind":"Service","metadata":{"resourceVersion":"9"}}"#;
        assert_eq!(decode_bookmark(plain).unwrap(), Bookmark { version: "9".into(), listed: false });
        let last =
            r#"{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}"#;
        assert_eq!(decode_bookmark(last).unwrap(), Bookmark { version: "9".into(), listed: true });
    }
}
