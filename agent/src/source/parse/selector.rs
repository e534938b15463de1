//! `LabelSelector` (meta/v1).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as api;

use super::problems::{Problems, quote};
use crate::source::{Labels, Requirement, Selector, Test};

/// `metadata.labels`
pub(super) fn parse_labels(labels: Option<&BTreeMap<String, String>>) -> Labels {
    let labels = labels.into_iter().flatten();
    labels.map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str()))).collect()
}

/// A selector that was read.
pub(super) struct ParsedSelector {
    /// Without the requirements that are wrong: it may select more than was meant.
    pub(super) selector: Selector,
    /// Whether it has all of them.
    pub(super) complete: bool,
}

/// A selector, with the checks of the API server's `ValidateLabelSelector`. `loss`: what follows from one that is wrong.
pub(super) fn parse_selector(
    api: &api::LabelSelector,
    field: &str,
    loss: &str,
    problems: &mut Problems,
) -> ParsedSelector {
    let labels = api.match_labels.iter().flatten().map(|(key, value)| Requirement {
        key: Arc::from(key.as_str()),
        test: Test::In([Arc::from(value.as_str())].into()),
    });
    let mut requirements: Vec<_> = labels.collect();
    let mut complete = true;
    for (n, expression) in api.match_expressions.iter().flatten().enumerate() {
        let field = format!("{field}.matchExpressions[{n}]");
        match parse_expression(expression, &field, loss, problems) {
            Some(requirement) => requirements.push(requirement),
            None => complete = false,
        }
    }
    ParsedSelector { selector: requirements.into_iter().collect(), complete }
}

/// `None` after a problem was said.
fn parse_expression(
    api: &api::LabelSelectorRequirement,
    field: &str,
    loss: &str,
    problems: &mut Problems,
) -> Option<Requirement> {
    let mut values: Vec<Arc<str>> =
        api.values.iter().flatten().map(|value| Arc::from(value.as_str())).collect();
    values.sort_unstable();
    values.dedup();
    let (is_list, has_values) = (matches!(&*api.operator, "In" | "NotIn"), !values.is_empty());
    let test = match &*api.operator {
        "In" if has_values => Test::In(values.into()),
        "NotIn" if has_values => Test::NotIn(values.into()),
        "Exists" if !has_values => Test::Exists,
        "DoesNotExist" if !has_values => Test::DoesNotExist,
        operator @ ("In" | "NotIn" | "Exists" | "DoesNotExist") => {
            let what = if is_list { "needs values" } else { "takes no values" };
            problems.add(format!("{field}.values"), format!("{operator} {what}: {loss}"));
            return None;
        }
        other => {
            let known = "In, NotIn, Exists, DoesNotExist";
            problems.add(
                format!("{field}.operator"),
                format!("{} is no operator ({known}): {loss}", quote(other)),
            );
            return None;
        }
    };
    Some(Requirement { key: Arc::from(api.key.as_str()), test })
}
