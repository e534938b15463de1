//! What the API server wants of Events under events.k8s.io/v1, and the one kind of patch that there is: a merge patch.
//!
//! The rules and their texts follow Kubernetes' `pkg/apis/core/validation/events.go`, which names fields as core/v1
//! does: `regarding` is `involvedObject` there, `note` is `message`.

use serde_json::Value;

use super::status::{Cause, Failure};

/// Strings that must be there, with the most bytes that they may have.
const REQUIRED: [(&str, usize); 4] =
    [("reportingController", 128), ("reportingInstance", 128), ("action", 128), ("reason", 128)];

/// The most bytes of a note.
const LONGEST_NOTE: usize = 1024;

/// Only a series may be added to an Event that is there.
const IMMUTABLE: [&str; 9] = [
    "regarding",
    "reason",
    "note",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingController",
    "reportingInstance",
];

/// Judges an Event that is created, or (`old`) changed.
pub(super) fn judge(event: &Value, old: Option<&Value>) -> Result<(), Failure> {
    let mut causes = Vec::new();
    let mut invalid =
        |field, text: &str| causes.push(Cause { kind: "FieldValueInvalid", field, text: text.into() });
    for (field, limit) in REQUIRED {
        match text(&event[field]).len() {
            0 => invalid(field, "Required value"),
            length if length > limit => {
                invalid(field, &format!("Invalid value: \"\": can have at most {limit} characters"));
            }
            _ => {}
        }
    }
    if text(&event["note"]).len() > LONGEST_NOTE {
        invalid("message", &format!("Invalid value: \"\": can have at most {LONGEST_NOTE} characters"));
    }
    if !is_micro_time(&event["eventTime"]) {
        invalid("eventTime", "Required value");
    }
    if !matches!(text(&event["type"]), "Normal" | "Warning") {
        let value = text(&event["type"]);
        invalid("type", &format!("Invalid value: \"\": has invalid value: {value}"));
    }
    let namespace = Some(text(&event["regarding"]["namespace"])).filter(|namespace| !namespace.is_empty());
    if text(&event["metadata"]["namespace"]) != namespace.unwrap_or("default") {
        invalid("involvedObject.namespace", "Invalid value: \"\": does not match event.namespace");
    }
    let series = &event["series"];
    if !series.is_null() {
        if series["count"].as_u64().unwrap_or(0) < 2 {
            invalid("series.count", "Invalid value: \"\": should be at least 2");
        }
        if !is_micro_time(&series["lastObservedTime"]) {
            invalid("series.lastObservedTime", "Required value");
        }
    }
    for field in IMMUTABLE {
        if old.is_some_and(|old| old[field] != event[field]) {
            invalid(field, "Invalid value: \"\": field is immutable");
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid("Event", "events.k8s.io", text(&event["metadata"]["name"]), &causes))
}

/// `2026-01-01T00:00:00.000000Z`: a real server parses it by this layout.
fn is_micro_time(value: &Value) -> bool {
    const LAYOUT: &str = "0000-00-00T00:00:00.000000Z";
    let fits = |(is, of): (char, char)| if of == '0' { is.is_ascii_digit() } else { is == of };
    let value = text(value);
    value.len() == LAYOUT.len() && value.chars().zip(LAYOUT.chars()).all(fits)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// RFC 7386.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::default());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patches() {
        let mut target = json!({"a": "b", "c": {"d": "e", "f": "g"}, "list": [1, 2]});
        merge(&mut target, &json!({"a": "z", "c": {"f": null}, "list": [3], "new": {"x": null, "y": 1}}));
        assert_eq!(target, json!({"a": "z", "c": {"d": "e"}, "list": [3], "new": {"y": 1}}));
    }
}
