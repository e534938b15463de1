//! One copy of each string that many objects repeat: node names, zones, namespaces, port names.
//!
//! 100,000 endpoints name a few thousand nodes and a handful of zones; without sharing, the names would weigh
//! more than the endpoints. Used by [`super::parse`] within one object and by `state` and the sources for all.

use std::collections::HashSet;
use std::sync::Arc;

use super::{EndpointSlice, Namespace, Node, ObjectKey, Pod, Service};

/// Where each string is kept once. Forgets those that nobody else holds any more.
#[derive(Debug, Default)]
pub struct Interner {
    strings: HashSet<Arc<str>>,
    /// How many strings trigger the next [`Self::sweep`].
    sweep_at: usize,
}

/// Below this many strings a sweep is not worth its time.
const SWEEP_AT_LEAST: usize = 1024;

impl Interner {
    /// The one copy of `text`.
    pub fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.strings.get(text) {
            return known.clone();
        }
        self.insert(Arc::from(text))
    }

    /// Exchanges `text` for the one copy.
    pub fn share(&mut self, text: &mut Arc<str>) {
        *text = match self.strings.get(&**text) {
            Some(known) => known.clone(),
            None => self.insert(text.clone()),
        };
    }

    /// Shares both parts of a key.
    pub fn share_key(&mut self, key: &mut ObjectKey) {
        self.share(&mut key.namespace);
        self.share(&mut key.name);
    }

    /// Shares every string of a Service.
    pub fn share_service(&mut self, service: &mut Service) {
        for port in &mut service.ports {
            self.share(&mut port.name);
        }
    }

    /// Shares every string of a slice.
    pub fn share_slice(&mut self, slice: &mut EndpointSlice) {
        self.share(&mut slice.service);
        for port in &mut slice.ports {
            self.share(&mut port.name);
        }
        for endpoint in &mut slice.endpoints {
            let hints = endpoint.zone_hints.iter_mut().chain(&mut endpoint.node_hints);
            for name in endpoint.node.iter_mut().chain(hints) {
                self.share(name);
            }
        }
    }

    /// Shares every string of a node.
    pub fn share_node(&mut self, node: &mut Node) {
        if let Some(zone) = &mut node.zone {
            self.share(zone);
        }
    }

    /// Shares every string of a pod.
    pub fn share_pod(&mut self, pod: &mut Pod) {
        let ports = pod.ports.iter_mut().map(|port| &mut port.name);
        for text in pod.labels.strings().chain(ports).chain(&mut pod.node) {
            self.share(text);
        }
    }

    /// Shares every string of a namespace.
    pub fn share_namespace(&mut self, namespace: &mut Namespace) {
        for text in namespace.labels.strings() {
            self.share(text);
        }
    }

    /// How many strings are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.strings.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.strings.is_empty()
    }

    fn insert(&mut self, text: Arc<str>) -> Arc<str> {
        if self.strings.len() >= self.sweep_at.max(SWEEP_AT_LEAST) {
            self.sweep();
        }
        self.strings.insert(text.clone());
        text
    }

    /// Forgets what nobody else holds. The next sweep waits until as much again has come in, so that the cost
    /// of each insertion stays constant on average.
    fn sweep(&mut self) {
        self.strings.retain(|text| Arc::strong_count(text) > 1);
        self.sweep_at = self.strings.len() * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_become_one() {
        let mut interner = Interner::default();
        let first = interner.intern("node-1");
        let mut second: Arc<str> = Arc::from("node-1");
        assert!(!Arc::ptr_eq(&first, &second));
        interner.share(&mut second);
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(interner.len(), 1);
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let mut interner = Interner::default();
        let kept = interner.intern("kept");
        for n in 0..100_000 {
            interner.intern(&format!("pod-{n}"));
        }
        assert!(interner.len() <= SWEEP_AT_LEAST + 1, "{} strings are left", interner.len());
        assert!(Arc::ptr_eq(&kept, &interner.intern("kept")));
    }
}
