//! What an API server sends into our model, object by object: one that does not decode costs only itself. [`super::fields`]
//! has what is read of each.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::fields::{
    ClusterPolicyFields, Header, Meta, NodeFields, PodFields, PolicyFields, ServiceFields, SliceFields,
};
use super::kind::Kind;
use crate::source::parse::PolicySelector;
use crate::source::{
    ClusterNetworkPolicy, EndpointSlice, Namespace, NetworkPolicy, Node, ObjectKey, Parsed, Pod, Problem,
    Service, closed_policy, parse_cluster_network_policy, parse_namespace, parse_network_policy, parse_node,
    parse_pod, parse_service, parse_slice,
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
    NetworkPolicy(Parsed<NetworkPolicy>),
    ClusterNetworkPolicy(Parsed<ClusterNetworkPolicy>),
    Namespace(Parsed<Namespace>),
    Pod(Parsed<Pod>),
    /// It does not decode. What may stand for it, if it is a policy of which no version is known.
    Malformed(Problem, Option<NetworkPolicy>),
}

/// Decodes an object.
///
/// # Errors
/// It has no name that can be read.
pub(super) fn decode_object(kind: Kind, text: &str) -> Result<Decoded, Problem> {
    match decode_kind(kind, text) {
        Ok((meta, content)) => Decoded::new(meta, content),
        Err(problem) => match serde_json::from_str::<Header>(text) {
            Ok(header) => Decoded::new(header.metadata, Content::Malformed(problem, stand_in(kind, text))),
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
            let (meta, api) = decode::<ServiceFields>(text)?.split();
            (meta, Content::Service(parse_service(&api)))
        }
        Kind::EndpointSlice => {
            let (meta, api) = decode::<SliceFields>(text)?.split();
            (meta, Content::EndpointSlice(parse_slice(&api)))
        }
        Kind::Node => {
            let (meta, api) = decode::<NodeFields>(text)?.split();
            (meta, Content::Node(parse_node(&api)))
        }
        Kind::NetworkPolicy => {
            let (meta, api) = decode::<PolicyFields>(text)?.split();
            (meta, Content::NetworkPolicy(parse_network_policy(&api)))
        }
        Kind::ClusterNetworkPolicy => {
            let (meta, api) = decode::<ClusterPolicyFields>(text)?.split();
            (meta, Content::ClusterNetworkPolicy(parse_cluster_network_policy(&api)))
        }
        Kind::Namespace => {
            let (meta, api) = decode::<Header>(text)?.split();
            (meta, Content::Namespace(parse_namespace(&api)))
        }
        Kind::Pod => {
            let (meta, api) = decode::<PodFields>(text)?.split();
            (meta, Content::Pod(parse_pod(&api)))
        }
    })
}

/// Whoever wrote a policy meant to isolate somebody.
fn stand_in(kind: Kind, text: &str) -> Option<NetworkPolicy> {
    let selector = || decode::<PolicySelector>(text).ok().and_then(PolicySelector::split);
    (kind == Kind::NetworkPolicy).then(|| closed_policy(selector().as_ref()))
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
    use crate::source::Protocol;

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
        let Content::Malformed(problem, None) = decoded.content else { panic!("{:?}", decoded.content) };
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
        assert_eq!(decode_node(labels, ""), Node { zone: Some("a".into()), ..Node::default() });
        assert!(!decode_node("", r#","spec":{"podCIDR":"10.1.0.0/24"},"status":"nonsense""#).leaving);
        let taint = |key| format!(r#","spec":{{"taints":[{{"key":"{key}","effect":"NoSchedule"}}]}}"#);
        assert!(!decode_node("", &taint("node.kubernetes.io/unreachable")).leaving);
        assert!(decode_node("", &taint("ToBeDeletedByClusterAutoscaler")).leaving);
        assert!(decode_node(r#","deletionTimestamp":"2026-01-01T00:00:00Z""#, "").leaving);
    }

    #[test]
    fn a_node_says_of_which_networks_its_pods_are() {
        let networks = |spec: &str| {
            let found = decode_node("", &format!(r#","spec":{spec}"#)).pod_networks;
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let both = r#"{"podCIDR":"10.1.0.0/24","podCIDRs":["10.1.0.0/24","fd00:1::/64"]}"#;
        assert_eq!(networks(both), ["10.1.0.0/24", "fd00:1::/64"]);
        assert_eq!(networks(r#"{"podCIDR":"10.1.0.7/24"}"#), ["10.1.0.0/24"]);
        assert!(networks(r#"{"podCIDRs":["nonsense"]}"#).is_empty() && networks("{}").is_empty());
    }

    #[test]
    fn a_pod_says_by_what_its_node_knows_it() {
        let identity = |metadata: &str| {
            let text = format!(r#"{{"metadata":{{"name":"p","namespace":"n",{metadata}}}}}"#);
            match decode_object(Kind::Pod, &text).unwrap().content {
                Content::Pod(parsed) => parsed.object.unwrap().identity,
                other => panic!("{other:?}"),
            }
        };
        let uid = r#""uid":"0b6fcf3e-7a0c-4a4e-9d7d-1f0a6e2b3c4d""#;
        let found = identity(&format!(r#"{uid},"annotations":{{"a":"b"}}"#)).unwrap();
        assert_eq!(found.uid.to_string(), "0b6fcf3e-7a0c-4a4e-9d7d-1f0a6e2b3c4d");
        assert_eq!(found.mirrors, None);
        let mirror = r#""annotations":{"kubernetes.io/config.mirror":"d41d8cd98f00b204e9800998ecf8427e"}"#;
        let found = identity(&format!("{uid},{mirror}")).unwrap();
        assert_eq!(
            found.mirrors.map(|hash| hash.to_string()).as_deref(),
            Some("d41d8cd9-8f00-b204-e980-0998ecf8427e")
        );
        assert_eq!(identity(mirror), None);
        assert_eq!(identity(r#""uid":"1""#), None);
    }

    #[test]
    fn a_pod_is_what_policies_ask_of_it() {
        let text = r#"{"metadata":{"name":"web-0","namespace":"shop","resourceVersion":"8","labels":{"app":"web"}},
            "spec":{"nodeName":"node-a","volumes":"nonsense","containers":[{"name":"c","image":7,
            "ports":[{"name":"http","containerPort":8080}]}],"initContainers":[{"restartPolicy":"Always",
            "ports":[{"name":"side","containerPort":9}]},{"ports":[{"name":"once","containerPort":8}]}]},
            "status":{"phase":"Running","podIP":"10.1.0.5","podIPs":[{"ip":"10.1.0.5"},{"ip":"fd00::5"}],
            "containerStatuses":"nonsense"}}"#;
        let pod = |text: &str| match decode_object(Kind::Pod, text).unwrap().content {
            Content::Pod(parsed) => parsed.object,
            other => panic!("{other:?}"),
        };
        let found = pod(text).unwrap();
        assert_eq!(found.addresses.len(), 2);
        assert_eq!(
            (found.port("http", Protocol::Tcp), found.port("side", Protocol::Tcp)),
            (Some(8080), Some(9))
        );
        assert_eq!((found.port("once", Protocol::Tcp), found.node.as_deref()), (None, Some("node-a")));
        assert_eq!(found.labels.value("app"), Some("web"));
        assert_eq!(pod(&text.replace("Running", "Succeeded")), None);
        assert_eq!(pod(&text.replace("\"volumes\"", "\"hostNetwork\":true,\"v\"")), None);
    }

    #[test]
    fn a_namespace_has_its_name_as_a_label() {
        let decoded =
            decode_object(Kind::Namespace, r#"{"metadata":{"name":"shop","labels":{"a":"b"}}}"#).unwrap();
        assert_eq!(decoded.key, ObjectKey::new("", "shop"));
        let Content::Namespace(parsed) = decoded.content else { panic!("{:?}", decoded.content) };
        let labels = parsed.object.unwrap().labels;
        assert_eq!(
            (labels.value("kubernetes.io/metadata.name"), labels.value("a")),
            (Some("shop"), Some("b"))
        );
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
