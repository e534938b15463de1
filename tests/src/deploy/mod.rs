//! The manifests of `deploy/`, read more strictly than an API server does: a field that the API does not have, or a
//! kind that we do not use, is a fault. Called by the tests of the manifests, and by those that run a container as
//! they describe it.

pub mod kustomize;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, PodSpec, ServiceAccount, Volume};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What a cluster is given.
#[derive(Clone, PartialEq, Debug)]
pub enum Object {
    /// Who the agent is.
    ServiceAccount(ServiceAccount),
    /// What it may ask for.
    ClusterRole(ClusterRole),
    /// That it is that who may.
    ClusterRoleBinding(ClusterRoleBinding),
    /// The agent on every node; also a part of one, that is merged into it.
    DaemonSet(Box<DaemonSet>),
}

/// Where the manifests are.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// The objects of an overlay, as `kubectl apply -k` would send them.
///
/// # Errors
/// What the overlay's files lack, or what an object has and the API does not.
pub fn read_overlay(name: &str) -> Result<Vec<Object>> {
    parse_objects(kustomize::render(&folder().join("overlays").join(name))?)
}

/// Reads objects.
///
/// # Errors
/// Of which object: that it is not of a kind that we use, or which field the API does not have.
pub fn parse_objects(documents: Vec<Value>) -> Result<Vec<Object>> {
    ensure!(!documents.is_empty(), "there is no object");
    documents.into_iter().map(parse_object).collect()
}

fn parse_object(value: Value) -> Result<Object> {
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let object = match kind.as_str() {
        "ServiceAccount" => parse_strictly(value).map(Object::ServiceAccount),
        "ClusterRole" => parse_strictly(value).map(Object::ClusterRole),
        "ClusterRoleBinding" => parse_strictly(value).map(Object::ClusterRoleBinding),
        "DaemonSet" => parse_strictly(value).map(Box::new).map(Object::DaemonSet),
        _ => bail!("a kind that we do not use"),
    };
    object.with_context(|| format!("{kind} {name}"))
}

fn parse_strictly<T: DeserializeOwned>(value: Value) -> Result<T> {
    let mut unknown = Vec::new();
    let object = serde_ignored::deserialize(value, |path| unknown.push(path.to_string()))?;
    ensure!(unknown.is_empty(), "the API has no such field: {}", unknown.join(", "));
    Ok(object)
}

/// The pod of the DaemonSet among these objects.
///
/// # Errors
/// There is none, or more than one.
pub fn select_pod(objects: &[Object]) -> Result<&PodSpec> {
    let pods = objects.iter().filter_map(|object| match object {
        Object::DaemonSet(set) => set.spec.as_ref()?.template.spec.as_ref(),
        _ => None,
    });
    let pods: Vec<_> = pods.collect();
    match pods.as_slice() {
        [pod] => Ok(pod),
        _ => bail!("{} DaemonSets with a pod instead of one", pods.len()),
    }
}

/// The only container of a pod.
///
/// # Errors
/// It has none, or more than one.
pub fn select_container(pod: &PodSpec) -> Result<&Container> {
    match pod.containers.as_slice() {
        [container] if pod.init_containers.is_none() => Ok(container),
        _ => bail!("the pod has another number of containers than one"),
    }
}

/// What the objects allow to the agent's user.
pub fn rules(objects: &[Object]) -> impl Iterator<Item = &PolicyRule> {
    let roles = objects.iter().filter_map(|object| match object {
        Object::ClusterRole(role) => role.rules.as_deref(),
        _ => None,
    });
    roles.flatten()
}

/// A directory or file of the node in a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostMount {
    /// Where it is on the node.
    pub host: String,
    /// Where it is in the container.
    pub container: String,
    /// Whether the container may not change it.
    pub read_only: bool,
    /// Whether what the node mounts below it later on shows in the container.
    pub propagates: bool,
    /// Whether it is made, as a directory, where the node has none.
    pub is_made: bool,
}

/// The mounts of a container. Each volume is one of the node's, and is used.
///
/// # Errors
/// Anything else.
pub fn host_mounts(pod: &PodSpec) -> Result<Vec<HostMount>> {
    let container = select_container(pod)?;
    let volumes = pod.volumes.as_deref().unwrap_or_default();
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    ensure!(volumes.len() == mounts.len(), "{} mounts of {} volumes", mounts.len(), volumes.len());
    let mount = |volume: &Volume| {
        let host = volume.host_path.as_ref().with_context(|| format!("{} is not the node's", volume.name))?;
        let mount = mounts.iter().find(|mount| mount.name == volume.name);
        let mount = mount.with_context(|| format!("the volume {} is not mounted", volume.name))?;
        let propagates = match mount.mount_propagation.as_deref() {
            None | Some("None") => false,
            Some("HostToContainer") => true,
            Some(other) => bail!("{other} needs a privileged pod"),
        };
        let is_made = match host.type_.as_deref() {
            Some("DirectoryOrCreate") => true,
            Some("Directory" | "File") => false,
            other => bail!("the volume {} does not say what it expects: {other:?}", volume.name),
        };
        let (host, container) = (host.path.clone(), mount.mount_path.clone());
        Ok(HostMount { host, container, read_only: mount.read_only.unwrap_or_default(), propagates, is_made })
    };
    volumes.iter().map(mount).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unknown_field_is_a_fault_wherever_it_is() {
        let parse = |security: Value| {
            let pod = json!({ "containers": [{ "name": "c", "securityContext": security }] });
            let spec = json!({ "selector": {}, "template": { "spec": pod } });
            parse_objects(vec![
                json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "a" }, "spec": spec }),
            ])
        };
        assert!(parse(json!({ "readOnlyRootFilesystem": true })).is_ok());
        let error = format!("{:#}", parse(json!({ "readOnlyRootFileSystem": true })).unwrap_err());
        assert!(error.starts_with("DaemonSet a: ") && error.contains("readOnlyRootFileSystem"), "{error}");
        assert!(parse(json!({ "readOnlyRootFilesystem": "yes" })).is_err());
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" } });
        assert!(parse_objects(vec![pod]).is_err());
        assert!(parse_objects(Vec::new()).is_err());
    }
}
