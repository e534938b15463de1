//! What a request asks for: the path taken apart, the query read and checked as Kubernetes checks it.

use percent_encoding::percent_decode_str;

use super::fault::StreamingLists;
use super::resource::Resource;
use super::selector::{Fields, Labels};
use super::status::{Cause, Failure};

/// Where a request goes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    /// Index into the store's resources.
    pub(super) resource: usize,
    /// Empty for all namespaces.
    pub(super) namespace: String,
    /// Empty for the collection.
    pub(super) name: String,
}

/// The resource that `path` leads to.
pub(super) fn parse_path(path: &str, resources: &[Resource]) -> Option<Target> {
    resources.iter().enumerate().filter(|(_, described)| described.served).find_map(
        |(resource, described)| {
            let rest = path.strip_prefix(&described.root())?.strip_prefix('/')?;
            let steps: Vec<&str> = rest.split('/').collect();
            let target = |namespace: &str, name: &str| Target {
                resource,
                namespace: decode(namespace),
                name: decode(name),
            };
            let is_ours = |plural: &str| plural == described.plural;
            match steps[..] {
                [plural] if is_ours(plural) => Some(target("", "")),
                [plural, name] if is_ours(plural) && !described.namespaced => Some(target("", name)),
                ["namespaces", namespace, plural] if is_ours(plural) && described.namespaced => {
                    Some(target(namespace, ""))
                }
                ["namespaces", namespace, plural, name] if is_ours(plural) && described.namespaced => {
                    Some(target(namespace, name))
                }
                _ => None,
            }
        },
    )
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Exact,
    NotOlderThan,
}

/// The query of a list or watch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Options {
    pub(super) watch: bool,
    pub(super) labels: Labels,
    pub(super) fields: Fields,
    /// None where unset or empty, which is not the same as 0.
    pub(super) version: Option<u64>,
    pub(super) version_match: Option<Match>,
    /// 0 for all.
    pub(super) limit: usize,
    pub(super) token: Option<String>,
    pub(super) bookmarks: bool,
    pub(super) initial_events: Option<bool>,
    /// Seconds.
    pub(super) timeout: Option<u64>,
}

impl Options {
    /// Reads a query. Parameters that nobody knows are ignored, as Kubernetes does.
    pub(super) fn parse(
        query: &str,
        resource: &Resource,
        streaming: StreamingLists,
    ) -> Result<Self, Failure> {
        let mut raw = Raw::read(query);
        if streaming == StreamingLists::Unknown {
            raw.initial_events = None;
        }
        let mut options = Self {
            watch: raw.watch,
            labels: Labels::parse(&raw.labels).map_err(|text| Failure::bad_request(&text))?,
            fields: Fields::parse(&raw.fields, resource).map_err(|text| Failure::bad_request(&text))?,
            version: parse_version(&raw.version)?,
            version_match: None,
            limit: parse_number("limit", &raw.limit)?
                .and_then(|limit| usize::try_from(limit).ok())
                .unwrap_or(0),
            token: Some(raw.token).filter(|token| !token.is_empty()),
            bookmarks: raw.bookmarks,
            initial_events: raw.initial_events,
            timeout: parse_number("timeoutSeconds", &raw.timeout)?.filter(|seconds| *seconds > 0),
        };
        options.judge(&raw.version_match, streaming)?;
        options.version_match = match &*raw.version_match {
            "Exact" => Some(Match::Exact),
            "NotOlderThan" => Some(Match::NotOlderThan),
            _ => None,
        };
        // A legacy watch from the state of now is a streaming list where those are known.
        let is_legacy = options.watch && options.version.unwrap_or(0) == 0;
        if is_legacy
            && streaming == StreamingLists::Supported
            && options.initial_events.is_none()
            && options.version_match.is_none()
        {
            options.initial_events = Some(true);
            options.version_match = Some(Match::NotOlderThan);
        }
        Ok(options)
    }

    /// apimachinery's `ValidateListOptions`; for servers up to 1.26 as it was there.
    fn judge(&self, version_match: &str, streaming: StreamingLists) -> Result<(), Failure> {
        let mut causes = Vec::new();
        let mut forbid = |field, text: &str| {
            causes.push(Cause { kind: "FieldValueForbidden", field, text: format!("Forbidden: {text}") });
        };
        const MATCH: &str = "resourceVersionMatch";
        const INITIAL: &str = "sendInitialEvents";
        let has_match = !version_match.is_empty();
        if self.watch {
            if self.initial_events.is_some() && version_match != "NotOlderThan" {
                forbid(MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
            }
            if self.initial_events.is_some() && streaming == StreamingLists::Off {
                forbid(
                    INITIAL,
                    "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
                );
            }
            if has_match && streaming == StreamingLists::Unknown {
                forbid(MATCH, "resourceVersionMatch is forbidden for watch");
            } else if has_match && self.initial_events.is_none() {
                forbid(
                    MATCH,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
        } else {
            if has_match && self.version.is_none() {
                forbid(MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if version_match == "Exact" && self.version == Some(0) {
                forbid(MATCH, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
            if self.initial_events.is_some() {
                forbid(INITIAL, "sendInitialEvents is forbidden for list");
            }
        }
        if has_match && self.token.is_some() {
            forbid(MATCH, "resourceVersionMatch is forbidden when continue is provided");
        }
        let supported = if self.watch { &["NotOlderThan"][..] } else { &["Exact", "NotOlderThan", ""] };
        if has_match && !supported.contains(&version_match) {
            let names: Vec<String> = supported.iter().map(|name| format!("{name:?}")).collect();
            let text =
                format!("Unsupported value: {version_match:?}: supported values: {}", names.join(", "));
            causes.push(Cause { kind: "FieldValueNotSupported", field: MATCH, text });
        }
        if causes.is_empty() { Ok(()) } else { Err(Failure::invalid_options(&causes)) }
    }
}

/// A query's parameters as text.
#[derive(Default)]
struct Raw {
    watch: bool,
    labels: String,
    fields: String,
    version: String,
    version_match: String,
    limit: String,
    token: String,
    bookmarks: bool,
    initial_events: Option<bool>,
    timeout: String,
}

impl Raw {
    fn read(query: &str) -> Self {
        let mut raw = Self::default();
        for (key, value) in pairs(query) {
            match &*key {
                "watch" => raw.watch = is_true(&value),
                "labelSelector" => raw.labels = value,
                "fieldSelector" => raw.fields = value,
                "resourceVersion" => raw.version = value,
                "resourceVersionMatch" => raw.version_match = value,
                "limit" => raw.limit = value,
                "continue" => raw.token = value,
                "allowWatchBookmarks" => raw.bookmarks = is_true(&value),
                "sendInitialEvents" => raw.initial_events = Some(is_true(&value)),
                "timeoutSeconds" => raw.timeout = value,
                _ => {}
            }
        }
        raw
    }
}

/// The pairs of a query, decoded.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(&key.replace('+', " ")), decode(&value.replace('+', " ")))
    })
}

/// As apimachinery reads a bool: everything but `false` and `0` is true, also nothing.
fn is_true(value: &str) -> bool {
    !value.eq_ignore_ascii_case("false") && value != "0"
}

fn parse_version(text: &str) -> Result<Option<u64>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = |_| {
        Failure::bad_request(&format!("invalid resource version: Invalid value: {text:?}: must be a number"))
    };
    text.parse().map(Some).map_err(bad)
}

fn parse_number(name: &str, text: &str) -> Result<Option<u64>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Failure::bad_request(&format!("{name}: {text:?} is not a number")))
}
