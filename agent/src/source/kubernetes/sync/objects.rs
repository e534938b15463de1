//! What a list or a watch says, object by object: taken in, and told on.

use tokio::time::Instant;

use super::{Stop, Sync};
use crate::source::kubernetes::decode::{Decoded, decode_object};
use crate::source::kubernetes::kind::{API_SERVICE, Kind};
use crate::source::{Event, ObjectKey, ObjectRef, Problem};

impl Sync {
    /// An object that is there. `live`: it has come just now, and is not part of a list.
    pub(super) async fn take(&mut self, text: &str, live: bool) -> Result<(), Stop> {
        let decoded = match decode_object(self.kind, text) {
            Ok(decoded) => decoded,
            Err(problem) => return self.tell_nameless(problem).await,
        };
        if let Some(version) = &decoded.version {
            self.set_version(version, live);
        }
        self.follow_cluster(&decoded.key, decoded.uid.as_ref(), live);
        let known = self.tools.known.clone();
        let (mut known, mut events) = (known.lock().await, Vec::new());
        known.upsert(&self.scope, decoded, &mut events);
        self.send(events).await
    }

    pub(super) async fn take_deleted(&mut self, text: &str, live: bool) -> Result<(), Stop> {
        let Decoded { key, version, .. } = match decode_object(self.kind, text) {
            Ok(decoded) => decoded,
            Err(problem) => return self.tell_nameless(problem).await,
        };
        if let Some(version) = &version {
            self.set_version(version, live);
        }
        // Also amid a streaming list: it went, and the next one, whatever its UID, is the same cluster's.
        self.follow_cluster(&key, None, true);
        let known = self.tools.known.clone();
        let (mut known, mut events) = (known.lock().await, Vec::new());
        known.remove(&self.scope, &key, version.as_deref(), &mut events);
        self.send(events).await
    }

    pub(super) fn set_version(&mut self, version: &str, live: bool) {
        // Up to the end of a list there is nothing to go on from.
        if live && !version.is_empty() {
            self.version = Some(version.into());
            self.advanced = Instant::now();
        }
    }

    /// Takes note of what becomes of the Service by which clusters are told apart. That it is in a list says something
    /// only where nobody knows which cluster this is: because it went while the list came, for example.
    fn follow_cluster(&self, key: &ObjectKey, uid: Option<&String>, news: bool) {
        let is_it = self.kind == Kind::Service && (&*key.namespace, &*key.name) == API_SERVICE;
        if is_it && (news || !self.tools.link.knows_cluster()) {
            self.tools.link.follow_cluster(uid);
        }
    }

    /// An object that cannot even be named.
    async fn tell_nameless(&self, problem: Problem) -> Result<(), Stop> {
        let object = ObjectRef { kind: self.kind.name(), namespace: "".into(), name: "(no name)".into() };
        self.send(vec![Event::Problems(object, vec![problem])]).await
    }

    pub(super) async fn send(&self, events: Vec<Event>) -> Result<(), Stop> {
        for event in events {
            match &event {
                Event::EndpointSlice(key, slice) if *key.namespace == *API_SERVICE.0 => {
                    let of_api = slice.as_ref().is_none_or(|slice| *slice.service == *API_SERVICE.1);
                    if of_api {
                        self.tools.link.remember_servers(&key.name, slice.as_ref());
                    }
                }
                _ => {}
            }
            self.tools.events.send(event).await.map_err(|_| Stop::Closed)?;
        }
        Ok(())
    }
}
