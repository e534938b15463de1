//! Label and field selectors, in the form that they have in a query.

use serde_json::Value;

use super::resource::Resource;

/// What `labelSelector` asks of an object; all of it must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Labels(Vec<(String, Demand)>);

#[derive(Clone, Debug, PartialEq)]
enum Demand {
    Exists,
    Absent,
    In(Vec<String>),
    /// Also true of an object without the key.
    NotIn(Vec<String>),
}

impl Labels {
    /// # Errors
    /// What cannot be read, as text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut demands = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            demands.push(parse_demand(part).ok_or_else(|| format!("unable to parse requirement: {part:?}"))?);
        }
        Ok(Self(demands))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|(key, demand)| {
            let value = labels.get(key).and_then(Value::as_str);
            match demand {
                Demand::Exists => value.is_some(),
                Demand::Absent => value.is_none(),
                Demand::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
                Demand::NotIn(values) => value.is_none_or(|value| !values.iter().any(|one| one == value)),
            }
        })
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    text.split(move |letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    })
    .collect()
}

fn parse_demand(part: &str) -> Option<(String, Demand)> {
    if let Some(key) = part.strip_prefix('!') {
        return is_key(key.trim()).then(|| (key.trim().to_string(), Demand::Absent));
    }
    if let Some((head, values)) = part.strip_suffix(')').and_then(|part| part.split_once('(')) {
        let values = values.split(',').map(|value| value.trim().to_string()).collect();
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace)?;
        let demand = match operator {
            "in" => Demand::In(values),
            "notin" => Demand::NotIn(values),
            _ => return None,
        };
        return is_key(key.trim()).then(|| (key.trim().to_string(), demand));
    }
    // The longer operators first: each contains the shorter one.
    for (operator, is_equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, value)) = part.split_once(operator) {
            let values = vec![value.trim().to_string()];
            let demand = if is_equal { Demand::In(values) } else { Demand::NotIn(values) };
            return is_key(key.trim()).then(|| (key.trim().to_string(), demand));
        }
    }
    is_key(part).then(|| (part.to_string(), Demand::Exists))
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./".contains(letter))
}

/// What `fieldSelector` asks of an object: path, value, and whether it must be that or must not.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields(Vec<(String, String, bool)>);

impl Fields {
    /// # Errors
    /// What cannot be read, or which field this resource is not selected by, as text.
    pub(super) fn parse(text: &str, resource: &Resource) -> Result<Self, String> {
        let mut demands = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let split = [("!=", false), ("==", true), ("=", true)]
                .into_iter()
                .find_map(|(operator, is_equal)| Some((part.split_once(operator)?, is_equal)));
            let ((path, value), is_equal) = split.ok_or_else(|| {
                format!("invalid selector: '{part}'; can't understand '{part}': no operator is present")
            })?;
            let known = path == "metadata.name"
                || (path == "metadata.namespace" && resource.namespaced)
                || resource.fields.iter().any(|field| field == path);
            if !known {
                // Kinds with fields of their own say it otherwise than all others.
                return Err(if resource.fields.is_empty() {
                    format!(
                        "\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                } else {
                    format!("field label not supported: {path}")
                });
            }
            demands.push((path.into(), value.into(), is_equal));
        }
        Ok(Self(demands))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one name that can match, if that is said.
    pub(super) fn name(&self) -> Option<&str> {
        self.0
            .iter()
            .find(|(path, _, is_equal)| path == "metadata.name" && *is_equal)
            .map(|(_, value, _)| &**value)
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, value, is_equal)| {
            let found = path.split('.').try_fold(object, |object, step| object.get(step));
            let text = match found {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            (text == *value) == *is_equal
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front", "k8s.io/x": ""}}});
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app!=web", false),
            ("none!=web", true),
            ("app", true),
            ("!app", false),
            ("!none", true),
            ("k8s.io/x=", true),
            ("app in (web, db)", true),
            ("app in (db)", false),
            ("app notin (db)", true),
            ("none notin (db)", true),
            ("app in (web,db),tier=front,!none", true),
            ("app in (web,db),tier=back", false),
        ] {
            assert_eq!(Labels::parse(selector).unwrap().matches(&object), expected, "{selector}");
        }
        assert!(!Labels::parse("app").unwrap().matches(&json!({"metadata": {}})));
        for bad in ["a b", "=x", "app of (x)", "a$"] {
            assert!(Labels::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fields() {
        let pods = super::super::resource::builtin().into_iter().find(|one| one.plural == "pods").unwrap();
        let pod = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"nodeName": "one"}});
        for (selector, expected) in [
            ("metadata.name=a", true),
            ("metadata.name!=a", false),
            ("metadata.namespace=n,metadata.name==a", true),
            ("spec.nodeName=two", false),
            ("status.phase=", true),
        ] {
            assert_eq!(Fields::parse(selector, &pods).unwrap().matches(&pod), expected, "{selector}");
        }
        assert_eq!(Fields::parse("metadata.name=a", &pods).unwrap().name(), Some("a"));
        assert_eq!(Fields::parse("spec.x=a", &pods).unwrap_err(), "field label not supported: spec.x");
        assert!(Fields::parse("metadata.name", &pods).is_err());
        let slices = super::super::resource::builtin().into_iter().find(|one| one.plural == "endpointslices");
        let error = Fields::parse("spec.x=a", &slices.unwrap()).unwrap_err();
        assert!(error.starts_with("\"spec.x\" is not a known field selector: only "), "{error}");
    }
}
