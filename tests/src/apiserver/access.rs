//! Who may do what: bearer tokens, and for each the verbs it is allowed on resources.

use std::collections::BTreeMap;

use super::options::Target;
use super::resource::Resource;
use super::status::Failure;

/// What one user may do. There is nothing to forbid, as in RBAC.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Plural names, or `*`.
    pub resources: Vec<String>,
    /// `get`, `list`, `watch`, `create`, `update`, `delete`, or `*`.
    pub verbs: Vec<String>,
    /// Only there; none for everywhere.
    pub namespace: Option<String>,
}

impl Rule {
    /// Everywhere.
    #[must_use]
    pub fn new(resources: &[&str], verbs: &[&str]) -> Self {
        let own = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Self { resources: own(resources), verbs: own(verbs), namespace: None }
    }

    fn allows(&self, verb: &str, resource: &Resource, namespace: &str) -> bool {
        let has = |names: &[String], name: &str| names.iter().any(|one| one == "*" || one == name);
        has(&self.resources, &resource.plural)
            && has(&self.verbs, verb)
            && self.namespace.as_deref().is_none_or(|only| only == namespace)
    }
}

/// Tokens, users, rules.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    users: BTreeMap<String, String>,
    rules: BTreeMap<String, Vec<Rule>>,
}

/// Who comes without a token.
const ANONYMOUS: &str = "system:anonymous";

impl Access {
    /// Makes `token` that of `user`, who may do what `rules` say.
    pub(super) fn grant(&mut self, token: &str, user: &str, rules: Vec<Rule>) {
        self.users.insert(token.into(), user.into());
        self.rules.insert(user.into(), rules);
    }

    pub(super) fn revoke(&mut self, token: &str) {
        self.users.remove(token);
    }

    /// The user that `header` (of name Authorization) stands for.
    pub(super) fn identify(&self, header: Option<&str>) -> Result<String, Failure> {
        let Some(header) = header else { return Ok(ANONYMOUS.into()) };
        let token = header.strip_prefix("Bearer ").map(str::trim);
        token.and_then(|token| self.users.get(token)).cloned().ok_or_else(Failure::unauthorized)
    }

    /// `name`: the object's, also if a field selector says it.
    pub(super) fn judge(
        &self,
        user: &str,
        verb: &str,
        resource: &Resource,
        target: &Target,
        name: &str,
    ) -> Result<(), Failure> {
        let rules = self.rules.get(user).map(Vec::as_slice).unwrap_or_default();
        // A namespace is in itself for RBAC.
        let namespace = if resource.plural == "namespaces" { name } else { &target.namespace };
        if rules.iter().any(|rule| rule.allows(verb, resource, namespace)) {
            return Ok(());
        }
        let place = if namespace.is_empty() {
            "at the cluster scope".into()
        } else {
            format!("in the namespace {namespace:?}")
        };
        let Resource { plural, group, .. } = resource;
        let what = format!("User {user:?} cannot {verb} resource {plural:?} in API group {group:?} {place}");
        Err(Failure::forbidden(Some(resource), name, &what))
    }

    /// A path that is no resource's; all may read the version and the health.
    pub(super) fn judge_path(&self, user: &str, verb: &str, path: &str) -> Result<(), Failure> {
        if verb == "get" && ["/version", "/healthz", "/livez", "/readyz"].contains(&path) {
            return Ok(());
        }
        if self.users.values().any(|known| known == user) {
            return Ok(());
        }
        Err(Failure::forbidden(None, "", &format!("User {user:?} cannot {verb} path {path:?}")))
    }
}
