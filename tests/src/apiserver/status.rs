//! What a server answers when it does not do what was asked: a `Status` object, worded as Kubernetes words it, since
//! clients and people read it.
//!
//! The constructors follow apimachinery's `pkg/api/errors`, the texts apiserver's `pkg/storage` and `pkg/endpoints`.

use serde_json::{Value, json};

use super::resource::Resource;

/// An answer other than success.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    /// The HTTP status.
    pub(super) code: u16,
    /// `Status` fields beside kind, apiVersion, metadata, status and code; or plain text if this is a string.
    body: Value,
    /// `metadata.continue` of the Status.
    token: Option<String>,
    /// Seconds in the header `Retry-After`.
    pub(super) retry_after: Option<u32>,
}

/// One field's fault, for [`Failure::invalid_options`].
pub(super) struct Cause {
    pub(super) kind: &'static str,
    pub(super) field: &'static str,
    pub(super) text: String,
}

impl Failure {
    fn status(code: u16, reason: &str, message: &str) -> Self {
        let body = json!({"reason": reason, "message": message});
        Self { code, body, token: None, retry_after: None }
    }

    fn with_details(mut self, details: Value) -> Self {
        if let Some(seconds) = details["retryAfterSeconds"].as_u64().filter(|seconds| *seconds > 0) {
            self.retry_after = u32::try_from(seconds).ok();
        }
        self.body["details"] = details;
        self
    }

    fn plain(code: u16, text: &str) -> Self {
        Self { code, body: text.into(), token: None, retry_after: None }
    }

    /// What no group serves of its resources.
    pub(super) fn no_such_resource() -> Self {
        let message = "the server could not find the requested resource";
        Self::status(404, "NotFound", message).with_details(json!({}))
    }

    /// What is at no path, and a group that is not served: not a Status, unlike what is missing in a group.
    pub(super) fn no_such_path() -> Self {
        Self::plain(404, "404 page not found\n")
    }

    pub(super) fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} not found", resource.qualified());
        Self::status(404, "NotFound", &message).with_details(about(resource, name))
    }

    pub(super) fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.qualified());
        Self::status(409, "AlreadyExists", &message).with_details(about(resource, name))
    }

    pub(super) fn conflict(resource: &Resource, name: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: the object has been modified; please apply your changes to \
             the latest version and try again",
            resource.qualified()
        );
        Self::status(409, "Conflict", &message).with_details(about(resource, name))
    }

    pub(super) fn method_not_allowed(resource: &Resource, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind {:?}", resource.qualified());
        Self::status(405, "MethodNotAllowed", &message)
            .with_details(json!({"group": resource.group, "kind": resource.plural}))
    }

    pub(super) fn unauthorized() -> Self {
        Self::status(401, "Unauthorized", "Unauthorized")
    }

    /// `what` begins with `User "…" cannot`.
    pub(super) fn forbidden(resource: Option<&Resource>, name: &str, what: &str) -> Self {
        let Some(resource) = resource else {
            return Self::status(403, "Forbidden", &format!("forbidden: {what}")).with_details(json!({}));
        };
        let about_whom =
            if name.is_empty() { resource.qualified() } else { format!("{} {name:?}", resource.qualified()) };
        Self::status(403, "Forbidden", &format!("{about_whom} is forbidden: {what}"))
            .with_details(about(resource, name))
    }

    pub(super) fn bad_request(message: &str) -> Self {
        Self::status(400, "BadRequest", message)
    }

    /// List options that contradict each other.
    pub(super) fn invalid_options(causes: &[Cause]) -> Self {
        let texts: Vec<String> =
            causes.iter().map(|cause| format!("{}: {}", cause.field, cause.text)).collect();
        let list = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
        let causes: Vec<Value> = causes
            .iter()
            .map(|cause| json!({"reason": cause.kind, "message": cause.text, "field": cause.field}))
            .collect();
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {list}");
        Self::status(422, "Invalid", &message)
            .with_details(json!({"group": "meta.k8s.io", "kind": "ListOptions", "causes": causes}))
    }

    /// An object whose fields are not in order.
    pub(super) fn invalid(kind: &str, group: &str, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<String> =
            causes.iter().map(|cause| format!("{}: {}", cause.field, cause.text)).collect();
        let list = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
        let causes: Vec<Value> = causes
            .iter()
            .map(|cause| json!({"reason": cause.kind, "message": cause.text, "field": cause.field}))
            .collect();
        let message = format!("{kind}.{group} {name:?} is invalid: {list}");
        Self::status(422, "Invalid", &message)
            .with_details(json!({"name": name, "group": group, "kind": kind, "causes": causes}))
    }

    /// A patch in a form that the resource does not take.
    pub(super) fn unsupported_media_type() -> Self {
        let message = "the body of the request was in an unknown format - accepted media types include: \
                       application/merge-patch+json";
        Self::status(415, "UnsupportedMediaType", message)
    }

    pub(super) fn expired_list() -> Self {
        Self::status(410, "Expired", "The resourceVersion for the provided list is too old.")
    }

    /// The token goes on at the version that is newest when it is used: the rest of the list does not fit what was
    /// listed before.
    pub(super) fn expired_continue(token: String) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. You can start \
                       a new list without the continue parameter, or use the continue token in this response to \
                       retrieve the remainder of the results. Continuing with the provided token results in an \
                       inconsistent list - objects that were created, modified, or deleted between the time the first \
                       chunk was returned and now may show up in the list.";
        Self { token: Some(token), ..Self::status(410, "Expired", message) }
    }

    /// `oldest`: the version from which events are still there.
    pub(super) fn expired_watch(asked: u64, oldest: u64) -> Self {
        Self::status(410, "Expired", &format!("too old resource version: {asked} ({oldest})"))
    }

    /// The server has not reached the version that was asked for.
    pub(super) fn too_large(asked: u64, current: u64, retry_after: u32) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut details = json!({"causes": [
            {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"},
        ]});
        if retry_after > 0 {
            details["retryAfterSeconds"] = retry_after.into();
        }
        Self::status(504, "Timeout", &message).with_details(details)
    }

    /// What priority and fairness answers: plain text, no Status.
    pub(super) fn too_many_requests(retry_after: u32) -> Self {
        let text = "Too many requests, please try again later.\n";
        Self { retry_after: Some(retry_after), ..Self::plain(429, text) }
    }

    /// What a server answers whose watch cache is not filled yet.
    pub(super) fn cache_not_ready(retry_after: u32) -> Self {
        Self::status(429, "TooManyRequests", "storage is (re)initializing")
            .with_details(json!({"retryAfterSeconds": retry_after}))
    }

    pub(super) fn internal(what: &str) -> Self {
        Self::status(500, "InternalError", &format!("Internal error occurred: {what}"))
            .with_details(json!({"causes": [{"message": what}]}))
    }

    pub(super) fn unavailable() -> Self {
        Self::status(503, "ServiceUnavailable", "apiserver not ready")
    }

    /// The `Status` object; none for the answers that are plain text.
    pub(super) fn object(&self) -> Option<Value> {
        let fields = self.body.as_object()?;
        let mut object = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": self.code,
        });
        for (key, value) in fields {
            object[key] = value.clone();
        }
        if let Some(token) = &self.token {
            object["metadata"]["continue"] = token.clone().into();
        }
        Some(object)
    }

    /// Content type and body.
    pub(super) fn body(&self) -> (&'static str, String) {
        match self.object() {
            Some(object) => ("application/json", format!("{object}\n")),
            None => ("text/plain; charset=utf-8", self.body.as_str().unwrap_or_default().into()),
        }
    }
}

fn about(resource: &Resource, name: &str) -> Value {
    let mut details = json!({"kind": resource.plural});
    for (key, value) in [("group", &*resource.group), ("name", name)] {
        if !value.is_empty() {
            details[key] = value.into();
        }
    }
    details
}
