//! What annotations say of a policy, or of all policies of a namespace.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::problems::{Problems, quote};
use crate::source::PolicyModes;

/// Whether what the policy would deny passes instead, and is told: `audit`, or `enforce`. Of a Namespace: all its policies.
pub(in crate::source) const POLICY_MODE: &str = "weir.dev/policy-mode";
/// What becomes of what was allowed when the policy comes to deny it: `keep`, or `cut`.
pub(in crate::source) const ESTABLISHED: &str = "weir.dev/established";

/// Of a policy. A value that nobody knows means the stricter one.
pub(super) fn parse_modes(meta: &ObjectMeta, problems: &mut Problems) -> PolicyModes {
    PolicyModes {
        audit: parse_audit(meta, "this policy is enforced", problems),
        keep: choose(meta, ESTABLISHED, ["cut", "keep"], "what this policy denies is cut", problems),
    }
}

/// Of a policy or a namespace.
pub(super) fn parse_audit(meta: &ObjectMeta, loss: &str, problems: &mut Problems) -> bool {
    choose(meta, POLICY_MODE, ["enforce", "audit"], loss, problems)
}

/// Whether it is the second of two values; the first where there is none.
fn choose(meta: &ObjectMeta, key: &str, values: [&str; 2], loss: &str, problems: &mut Problems) -> bool {
    let Some(value) = meta.annotations.as_ref().and_then(|all| all.get(key)) else { return false };
    if !values.contains(&value.as_str()) {
        let [first, second] = values;
        let message = format!("{} is none of {first}, {second}: {loss}", quote(value));
        problems.add(format!("metadata.annotations[{key}]"), message);
    }
    value == values[1]
}
