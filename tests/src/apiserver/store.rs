//! The objects, and their history since the last compaction: what etcd and the watch cache are to a real server.
//!
//! One version counts for all resources. Every version since the compaction can be listed as it was, and watched from.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::resource::{Resource, builtin};

/// Namespace and name: the order in which objects are listed.
pub(super) type Key = (String, String);

/// The objects of one resource.
pub(super) type Objects = BTreeMap<Key, Arc<Value>>;

/// Events below the compacted version that watches which are behind can still read, before they are closed as a real
/// server closes those that are too slow.
const BACKLOG: usize = 10_000;

/// One write.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    /// Index into [`Store::resources`].
    pub(super) resource: usize,
    pub(super) key: Key,
    pub(super) old: Option<Arc<Value>>,
    pub(super) new: Option<Arc<Value>>,
}

/// What an optimistic write expects to find.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// Anything or nothing.
    Any,
    /// No object of this name.
    Absent,
    /// An object, at the version that the new one carries, if it carries one.
    SameVersion,
}

/// Why a write was not done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Exists,
    Missing,
    Changed,
}

/// Everything that a server holds.
#[derive(Debug)]
pub(super) struct Store {
    resources: Vec<Resource>,
    objects: Vec<Objects>,
    changes: VecDeque<Arc<Change>>,
    /// The version of the last write.
    version: u64,
    /// Versions below this one are gone.
    compacted: u64,
    /// Counts restarts with other contents: uids differ, and a watch does not go on in another history.
    incarnation: u64,
}

impl Store {
    pub(super) fn new() -> Self {
        let resources = builtin();
        let objects = resources.iter().map(|_| Objects::new()).collect();
        // A server's own objects precede the first that a user writes.
        Self { resources, objects, changes: VecDeque::new(), version: 100, compacted: 100, incarnation: 1 }
    }

    pub(super) fn register(&mut self, resource: Resource) {
        match self
            .resources
            .iter_mut()
            .find(|known| known.root() == resource.root() && known.kind == resource.kind)
        {
            Some(known) => *known = resource,
            None => {
                self.resources.push(resource);
                self.objects.push(Objects::new());
            }
        }
    }

    /// Serves a resource no longer, and forgets its objects.
    pub(super) fn withdraw(&mut self, resource: usize) {
        self.resources[resource].served = false;
        let keys: Vec<Key> = self.objects[resource].keys().cloned().collect();
        keys.iter().for_each(|key| drop(self.delete(resource, key)));
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub(super) fn resources(&self) -> &[Resource] {
        &self.resources
    }

    pub(super) fn lookup_kind(&self, kind: &str) -> Option<usize> {
        self.resources.iter().position(|resource| resource.kind == kind)
    }

    pub(super) fn objects(&self, resource: usize) -> &Objects {
        &self.objects[resource]
    }

    /// The objects as they were at `version`; none if that is compacted or still to come.
    pub(super) fn objects_at(&self, resource: usize, version: u64) -> Option<Objects> {
        if version < self.compacted || version > self.version {
            return None;
        }
        let mut objects = self.objects[resource].clone();
        for change in self.changes.iter().rev().take_while(|change| change.version > version) {
            if change.resource == resource {
                match &change.old {
                    Some(old) => objects.insert(change.key.clone(), old.clone()),
                    None => objects.remove(&change.key),
                };
            }
        }
        Some(objects)
    }

    /// The changes after `version`, at most `limit`; none if the first of them is no longer held.
    pub(super) fn changes_after(&self, version: u64, limit: usize) -> Option<Vec<Arc<Change>>> {
        let oldest = self.changes.front().map_or(self.version + 1, |change| change.version);
        if version + 1 < oldest && version < self.compacted {
            return None;
        }
        let start = self.changes.partition_point(|change| change.version <= version);
        Some(self.changes.iter().skip(start).take(limit).cloned().collect())
    }

    /// The resource and key of an object.
    pub(super) fn locate(&self, object: &Value) -> Result<(usize, Key)> {
        let kind = object["kind"].as_str().context("an object without kind")?;
        let version = object["apiVersion"].as_str().context("an object without apiVersion")?;
        let resource = self
            .resources
            .iter()
            .position(|resource| resource.kind == kind && resource.api_version() == version)
            .with_context(|| format!("{version} {kind} is not registered"))?;
        let name = object["metadata"]["name"].as_str().context("an object without metadata.name")?;
        let namespace = match object["metadata"]["namespace"].as_str() {
            _ if !self.resources[resource].namespaced => "",
            Some(namespace) => namespace,
            None => "default",
        };
        Ok((resource, (namespace.into(), name.into())))
    }

    /// Writes an object, and answers it as stored. What changes nothing gets no new version, as in Kubernetes.
    pub(super) fn put(
        &mut self,
        resource: usize,
        key: Key,
        mut object: Value,
        expect: Expect,
    ) -> Result<Arc<Value>, Refused> {
        let old = self.objects[resource].get(&key).cloned();
        match (expect, &old) {
            (Expect::Absent, Some(_)) => return Err(Refused::Exists),
            (Expect::SameVersion, None) => return Err(Refused::Missing),
            (Expect::SameVersion, Some(old)) => {
                let asked = &object["metadata"]["resourceVersion"];
                if asked.as_str().is_some_and(|asked| !asked.is_empty())
                    && *asked != old["metadata"]["resourceVersion"]
                {
                    return Err(Refused::Changed);
                }
            }
            _ => {}
        }
        self.complete(resource, &key, &mut object, old.as_deref());
        if let Some(old) = &old
            && **old == object
        {
            return Ok(old.clone());
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let new = Arc::new(object);
        self.objects[resource].insert(key.clone(), new.clone());
        self.record(resource, key, old, Some(new.clone()));
        Ok(new)
    }

    /// Sets what the server and not the writer decides; the version is still that of the old object.
    fn complete(&self, resource: usize, key: &Key, object: &mut Value, old: Option<&Value>) {
        let Resource { kind, namespaced, .. } = &self.resources[resource];
        let api_version = self.resources[resource].api_version();
        object["apiVersion"] = api_version.into();
        object["kind"] = kind.clone().into();
        let metadata = &mut object["metadata"];
        metadata["name"] = key.1.clone().into();
        if *namespaced {
            metadata["namespace"] = key.0.clone().into();
        }
        if kind == "Namespace" {
            metadata["labels"]["kubernetes.io/metadata.name"] = key.1.clone().into();
        }
        let created = json!({
            "uid": format!("00000000-0000-4000-{:04x}-{:012x}", 0x8000 + self.incarnation % 0x1000, self.version + 1),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "resourceVersion": null,
        });
        for field in ["uid", "creationTimestamp", "resourceVersion"] {
            metadata[field] = old.map_or(&created[field], |old| &old["metadata"][field]).clone();
        }
    }

    /// Whether there was such an object.
    pub(super) fn delete(&mut self, resource: usize, key: &Key) -> Option<Arc<Value>> {
        let old = self.objects[resource].remove(key)?;
        self.version += 1;
        self.record(resource, key.clone(), Some(old.clone()), None);
        Some(old)
    }

    fn record(&mut self, resource: usize, key: Key, old: Option<Arc<Value>>, new: Option<Arc<Value>>) {
        self.changes.push_back(Arc::new(Change { version: self.version, resource, key, old, new }));
    }

    /// Forgets every version before `version`; watches that run go on.
    pub(super) fn compact(&mut self, version: u64) {
        self.compacted = self.compacted.max(version.min(self.version));
        let behind = self.changes.partition_point(|change| change.version <= self.compacted);
        self.changes.drain(..behind.saturating_sub(BACKLOG));
    }

    /// An empty cluster whose versions begin anew.
    pub(super) fn empty(&mut self) {
        let mut new = Self::new();
        new.objects = self.resources.iter().map(|_| Objects::new()).collect();
        new.resources = std::mem::take(&mut self.resources);
        new.incarnation = self.incarnation + 1;
        *self = new;
    }

    /// Goes back to `version`, as etcd does that is restored from a backup: what came later never was, and its
    /// versions will be given out again, or jump by `bump`. False if that version is gone.
    pub(super) fn restore(&mut self, version: u64, bump: u64) -> bool {
        let all: Option<Vec<Objects>> =
            (0..self.resources.len()).map(|resource| self.objects_at(resource, version)).collect();
        let Some(objects) = all else { return false };
        self.objects = objects;
        self.changes.clear();
        self.version = version + bump;
        self.compacted = self.version;
        self.incarnation += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(store: &mut Store, name: &str, value: usize) -> u64 {
        let object =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"x": value}});
        let (resource, key) = store.locate(&object).unwrap();
        store.put(resource, key, object, Expect::Any).unwrap();
        store.version()
    }

    fn pods(store: &Store, version: u64) -> Vec<(String, u64)> {
        let resource = store.lookup_kind("Pod").unwrap();
        let objects = store.objects_at(resource, version).unwrap();
        objects.iter().map(|(key, object)| (key.1.clone(), object["spec"]["x"].as_u64().unwrap())).collect()
    }

    #[test]
    fn the_past_is_as_it_was() {
        let mut store = Store::new();
        let first = write(&mut store, "a", 1);
        let second = write(&mut store, "b", 1);
        let third = write(&mut store, "a", 2);
        let key = ("default".to_string(), "b".to_string());
        store.delete(store.lookup_kind("Pod").unwrap(), &key).unwrap();
        assert_eq!(pods(&store, first), [("a".into(), 1)]);
        assert_eq!(pods(&store, second), [("a".into(), 1), ("b".into(), 1)]);
        assert_eq!(pods(&store, third), [("a".into(), 2), ("b".into(), 1)]);
        assert_eq!(pods(&store, third + 1), [("a".into(), 2)]);
        assert_eq!(store.objects_at(0, third + 2), None);
        store.compact(third);
        assert_eq!(store.objects_at(0, second), None);
        assert_eq!(pods(&store, third), [("a".into(), 2), ("b".into(), 1)]);
        assert!(store.restore(third, 0));
        assert_eq!((store.version(), pods(&store, third)), (third, vec![("a".into(), 2), ("b".into(), 1)]));
    }

    #[test]
    fn who_is_too_far_behind_a_compaction_is_told() {
        let mut store = Store::new();
        let start = store.version();
        for value in 0..=BACKLOG {
            write(&mut store, "a", value);
        }
        store.compact(u64::MAX);
        assert!(store.changes_after(start, 1).is_none());
        assert_eq!(store.changes_after(start + 1, 1).unwrap()[0].version, start + 2);
        assert!(store.changes_after(store.version(), 1).unwrap().is_empty());
    }
}
