//! The text of one document into Kubernetes API objects, in one pass. Called by [`super::load`].
//!
//! YAML goes through `serde-saphyr`: it deserializes into the API types without a tree in between, and its
//! errors have a line; `serde_path_to_error` adds the field. JSON goes through `serde_json`, which is 20 times as
//! fast on the same object. Both hand over to the same visitor, which picks the API type as soon as it has
//! read `apiVersion` and `kind`.

use std::fmt;
use std::vec;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::source::ApiClusterNetworkPolicy;

/// An API object of a kind that manifests may hold.
#[derive(Debug)]
pub(super) enum ApiObject {
    Service(Box<core::Service>),
    EndpointSlice(Box<EndpointSlice>),
    Node(Box<core::Node>),
    NetworkPolicy(Box<NetworkPolicy>),
    Pod(Box<core::Pod>),
    Namespace(Box<core::Namespace>),
    ClusterNetworkPolicy(Box<ApiClusterNetworkPolicy>),
    /// The items of a `List`, still to be decoded one by one.
    List(Vec<Value>),
    /// A kind that means nothing here: `apiVersion`, `kind`.
    Unknown(String, String),
}

/// Where a document was written.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// A YAML document and the line of the file that it begins on, from 1.
    Yaml(&'a str, usize),
    /// A file of JSON.
    Json(&'a str),
    /// An item of a list.
    Item(&'a Value),
}

/// Why a document, or an item of a list, is no object.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    /// The path of the field, as far as it is known; empty at the top.
    pub(super) field: String,
    /// The line of the file, from 1.
    pub(super) line: Option<usize>,
    /// What is wrong.
    pub(super) message: String,
}

/// `apiVersion`, `kind` and what names the object: for messages about one that does not decode.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    pub(super) kind: Option<String>,
    pub(super) metadata: Option<HeaderMeta>,
}

/// See [`Header`].
#[derive(Debug, Default, Deserialize)]
pub(super) struct HeaderMeta {
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}

impl<'a> Input<'a> {
    /// Decodes the object.
    pub(super) fn decode<T: DeserializeOwned>(self) -> Result<T, Fault> {
        match self {
            Self::Yaml(text, first_line) => decode_yaml(text, first_line),
            Self::Json(text) => decode_json(text),
            Self::Item(value) => decode_item(value),
        }
    }
}

fn decode_yaml<T: DeserializeOwned>(text: &str, first_line: usize) -> Result<T, Fault> {
    let mut field = String::new();
    let result = serde_saphyr::with_deserializer_from_str_with_options(text, yaml_options(), |yaml| {
        let mut track = serde_path_to_error::Track::new();
        let result = T::deserialize(serde_path_to_error::Deserializer::new(yaml, &mut track));
        if result.is_err() {
            field = path_text(&track.path());
        }
        result
    });
    result.map_err(|error| {
        let place = error.location().map(|location| (location.line(), location.column()));
        let mut message = error.without_snippet().to_string();
        if let Some((line, column)) = place {
            // The line counts from the document's own beginning; ours, beside it, from the file's.
            let at = format!(" at line {line}, column {column}");
            message = message.strip_suffix(&at).unwrap_or(&message).to_owned();
        }
        let line = place.and_then(|(line, _)| usize::try_from(line).ok()).filter(|line| *line > 0);
        Fault { field, line: line.map(|line| first_line + line - 1), message }
    })
}

/// How many nodes the aliases of a document may stand for, together.
const MAX_REPLAYED: usize = 100_000;

/// YAML as Kubernetes reads it: an unquoted `1` or `true` is no string. The limits on aliases stay (a few lines
/// could unfold into gigabytes); those on the number of nodes would refuse a large list, and the size of a file
/// has a limit already.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: usize::MAX, max_nodes: usize::MAX },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        no_schema: true,
        with_snippet: false,
        emit_comments: false,
    }
}

fn decode_json<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    let mut json = serde_json::Deserializer::from_str(text);
    let fault = |field: String, error: &serde_json::Error| {
        let at = format!(" at line {} column {}", error.line(), error.column());
        let message = error.to_string();
        let message = message.strip_suffix(&at).unwrap_or(&message).to_owned();
        Fault { field, line: Some(error.line()).filter(|line| *line > 0), message }
    };
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| fault(path_text(error.path()), error.inner()))?;
    json.end().map_err(|error| fault(String::new(), &error))?;
    Ok(value)
}

fn decode_item<T: DeserializeOwned>(value: &Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value).map_err(|error| Fault {
        field: path_text(error.path()),
        line: None,
        message: error.inner().to_string(),
    })
}

/// A path without what it says where it does not know: `.` at the top, `?` for a key.
fn path_text(path: &serde_path_to_error::Path) -> String {
    let text = path.to_string();
    text.trim_end_matches(['.', '?']).to_owned()
}

/// The kinds of `apiVersion`, `kind`.
#[derive(Clone, Copy)]
enum Kind {
    Service,
    EndpointSlice,
    Node,
    NetworkPolicy,
    Pod,
    Namespace,
    ClusterNetworkPolicy,
    List,
    Unknown,
}

fn select_kind(api_version: &str, kind: &str) -> Kind {
    match (api_version, kind) {
        ("v1", "Service") => Kind::Service,
        ("discovery.k8s.io/v1", "EndpointSlice") => Kind::EndpointSlice,
        ("v1", "Node") => Kind::Node,
        ("networking.k8s.io/v1", "NetworkPolicy") => Kind::NetworkPolicy,
        ("v1", "Pod") => Kind::Pod,
        ("v1", "Namespace") => Kind::Namespace,
        ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy") => Kind::ClusterNetworkPolicy,
        ("v1", "List") => Kind::List,
        _ => Kind::Unknown,
    }
}

impl<'de> Deserialize<'de> for ApiObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = ApiObject;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ApiObject, A::Error> {
        let (mut api_version, mut kind) = (None::<String>, None::<String>);
        let mut early = Vec::new();
        let (api_version, kind) = loop {
            if let (Some(api_version), Some(kind)) = (&mut api_version, &mut kind) {
                break (std::mem::take(api_version), std::mem::take(kind));
            }
            match map.next_key::<String>()? {
                Some(key) if key == "apiVersion" => api_version = Some(map.next_value()?),
                Some(key) if key == "kind" => kind = Some(map.next_value()?),
                // What stands before them waits until the type is known; by habit they stand first.
                Some(key) => early.push((key, map.next_value()?)),
                None if api_version.is_none() => return Err(A::Error::missing_field("apiVersion")),
                None => return Err(A::Error::missing_field("kind")),
            }
        };
        decode_kind(api_version, kind, WithEarly { early: early.into_iter(), value: None, rest: map })
    }
}

fn decode_kind<'de, A: MapAccess<'de>>(
    api_version: String,
    kind: String,
    map: A,
) -> Result<ApiObject, A::Error> {
    /// `List`, which has no type of its own in the API.
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        items: Vec<Value>,
    }
    let map = MapAccessDeserializer::new(map);
    Ok(match select_kind(&api_version, &kind) {
        Kind::Service => ApiObject::Service(Box::deserialize(map)?),
        Kind::EndpointSlice => ApiObject::EndpointSlice(Box::deserialize(map)?),
        Kind::Node => ApiObject::Node(Box::deserialize(map)?),
        Kind::NetworkPolicy => ApiObject::NetworkPolicy(Box::deserialize(map)?),
        Kind::Pod => ApiObject::Pod(Box::deserialize(map)?),
        Kind::Namespace => ApiObject::Namespace(Box::deserialize(map)?),
        Kind::ClusterNetworkPolicy => ApiObject::ClusterNetworkPolicy(Box::deserialize(map)?),
        Kind::List => ApiObject::List(List::deserialize(map)?.items),
        Kind::Unknown => {
            IgnoredAny::deserialize(map)?;
            ApiObject::Unknown(api_version, kind)
        }
    })
}

/// The entries that were read too early, then the rest of the map.
struct WithEarly<A> {
    early: vec::IntoIter<(String, Value)>,
    value: Option<Value>,
    rest: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for WithEarly<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        match self.early.next() {
            Some((key, value)) => {
                self.value = Some(value);
                seed.deserialize(key.into_deserializer()).map(Some)
            }
            None => self.rest.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(value).map_err(A::Error::custom),
            None => self.rest.next_value_seed(seed),
        }
    }
}

/// The metadata of each kind.
impl ApiObject {
    /// The kind as [`crate::source::ObjectRef`] names it, the metadata, and whether the object lives in a
    /// namespace; `None` for what is no single object.
    pub(super) fn identity(&self) -> Option<(&'static str, &ObjectMeta, bool)> {
        match self {
            Self::Service(object) => Some(("Service", &object.metadata, true)),
            Self::EndpointSlice(object) => Some(("EndpointSlice", &object.metadata, true)),
            Self::Node(object) => Some(("Node", &object.metadata, false)),
            Self::NetworkPolicy(object) => Some(("NetworkPolicy", &object.metadata, true)),
            Self::Pod(object) => Some(("Pod", &object.metadata, true)),
            Self::Namespace(object) => Some(("Namespace", &object.metadata, false)),
            Self::ClusterNetworkPolicy(object) => Some(("ClusterNetworkPolicy", &object.metadata, false)),
            Self::List(_) | Self::Unknown(..) => None,
        }
    }
}
