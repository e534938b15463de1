//! Lists: which version they show, in which pages.
//!
//! The rules are those of "Resource versions" in Kubernetes' API concepts, as apiserver's `pkg/storage/cacher` keeps
//! them: unset means now; 0 means anything, here also now; another version is a minimum, or exactly that with
//! `resourceVersionMatch=Exact` and in the old form with a limit.

use std::ops::Bound;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::options::{Match, Options, Target};
use super::resource::Resource;
use super::status::Failure;
use super::store::{Key, Objects, Store};

/// Seconds after which a client may ask again for a version that is still to come.
pub(super) const RETRY_TOO_LARGE: u32 = 1;

/// The lowest version with which a list may be answered; 0 for any.
pub(super) fn select_minimum(options: &Options) -> u64 {
    match (options.version, options.version_match) {
        (_, Some(Match::Exact)) | (None, _) => 0,
        (Some(_), None) if options.limit > 0 || options.token.is_some() => 0,
        (Some(version), _) => version,
    }
}

/// The list object.
pub(super) fn list(
    store: &Store,
    target: &Target,
    options: &Options,
    malformed: Option<&Value>,
) -> Result<Value, Failure> {
    let page = select_page(store, options)?;
    // What may be arbitrarily old comes from a cache, which does not page.
    let is_any = options.version == Some(0) && options.token.is_none();
    let limit = if options.limit == 0 || is_any { usize::MAX } else { options.limit };
    let past;
    let objects = if page.version == store.version() {
        store.objects(target.resource)
    } else {
        past = store.objects_at(target.resource, page.version).ok_or_else(|| page.expired())?;
        &past
    };
    let mut matching = matching(objects, page.after.clone(), target, options);
    let mut items: Vec<Value> = Vec::new();
    let mut last = None;
    for (key, object) in matching.by_ref().take(limit) {
        items.push(without_type(object));
        last = Some(key.clone());
    }
    let remaining = matching.count();
    let mut metadata = json!({"resourceVersion": page.version.to_string()});
    if let (Some(last), true) = (last, remaining > 0) {
        metadata["continue"] = encode_token(&last, i64::try_from(page.version).unwrap_or(i64::MAX)).into();
        if options.labels.is_empty() && options.fields.is_empty() {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    if let Some(malformed) = malformed {
        items.insert(items.len() / 2, malformed.clone());
    }
    let resource = &store.resources()[target.resource];
    Ok(json!({
        "kind": format!("{}List", resource.kind),
        "apiVersion": resource.api_version(),
        "metadata": metadata,
        "items": items,
    }))
}

/// Whether a request that goes to `target` is about this object.
pub(super) fn is_meant(key: &Key, object: &Value, target: &Target, options: &Options) -> bool {
    (target.namespace.is_empty() || target.namespace == key.0)
        && (target.name.is_empty() || target.name == key.1)
        && options.labels.matches(object)
        && options.fields.matches(object)
}

fn matching<'a>(
    objects: &'a Objects,
    after: Option<Key>,
    target: &'a Target,
    options: &'a Options,
) -> impl Iterator<Item = (&'a Key, &'a Value)> {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    objects
        .range((start, Bound::Unbounded))
        .map(|(key, object)| (key, &**object))
        .filter(move |(key, object)| is_meant(key, object, target, options))
}

/// Items of a typed list do not repeat what they are.
fn without_type(object: &Value) -> Value {
    let fields = object.as_object().into_iter().flatten();
    let kept = fields.filter(|(field, _)| !["kind", "apiVersion"].contains(&field.as_str()));
    Value::Object(kept.map(|(field, value)| (field.clone(), value.clone())).collect())
}

/// Where a list begins, and what it shows.
struct Page {
    version: u64,
    after: Option<Key>,
}

impl Page {
    /// The page is no longer to be had at its version. A token in the answer goes on at the newest.
    fn expired(&self) -> Failure {
        match &self.after {
            Some(after) => Failure::expired_continue(encode_token(after, NEWEST)),
            None => Failure::expired_list(),
        }
    }
}

/// In a token: whatever version is newest when it is used.
const NEWEST: i64 = -1;

fn select_page(store: &Store, options: &Options) -> Result<Page, Failure> {
    let current = store.version();
    if let Some(token) = &options.token {
        if options.version.is_some_and(|version| version != 0) {
            return Err(Failure::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let (after, version) = decode_token(token)?;
        let version = if version == NEWEST { current } else { u64::try_from(version).unwrap_or(0) };
        return Ok(Page { version, after: Some(after) });
    }
    let is_exact = options.version_match == Some(Match::Exact)
        || (options.version_match.is_none()
            && options.limit > 0
            && options.version.is_some_and(|asked| asked != 0));
    let version = options.version.filter(|_| is_exact).unwrap_or(current);
    if version > current {
        return Err(Failure::too_large(version, current, 0));
    }
    Ok(Page { version, after: None })
}

/// The form is Kubernetes' own, so that tests can look into it; clients must not.
fn encode_token((namespace, name): &Key, version: i64) -> String {
    let start = if namespace.is_empty() { format!("{name}\0") } else { format!("{namespace}/{name}\0") };
    let token = json!({"v": "meta.k8s.io/v1", "rv": version, "start": start});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn decode_token(token: &str) -> Result<(Key, i64), Failure> {
    let read = || -> Option<(Key, i64)> {
        let token: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let start = token["start"].as_str()?.trim_end_matches('\0');
        let (namespace, name) = start.split_once('/').unwrap_or(("", start));
        let version = token["rv"].as_i64().filter(|version| *version != 0)?;
        Some(((namespace.into(), name.into()), version))
    };
    read().ok_or_else(|| Failure::bad_request("continue key is not valid"))
}

/// A bookmark's object: the type's empty object with a version.
pub(super) fn bookmark(resource: &Resource, version: u64, ends_initial_events: bool) -> Value {
    let mut object = resource.blank.clone();
    object["kind"] = resource.kind.clone().into();
    object["apiVersion"] = resource.api_version().into();
    object["metadata"] = json!({"resourceVersion": version.to_string()});
    if ends_initial_events {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    object
}
