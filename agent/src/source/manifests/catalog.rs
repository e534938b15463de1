//! What all files together say, and what was said about it: turns changed files into the fewest events.
//!
//! Pure: no files, no clock. Every object has a list of claims, one for each place in a file that holds it, in
//! the order of the files' names; the first one counts. An event is made only where it differs from the last one
//! about that object.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::load::{Content, FileContent, Object};
use crate::source::parse::Problems;
use crate::source::{Event, Interner, ObjectKey, ObjectRef, Problem};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    slots: BTreeMap<ObjectRef, Slot>,
    /// The objects that each file claims.
    files: HashMap<Arc<str>, Vec<ObjectRef>>,
    /// What is wrong with files, and with the directory: as it is now, as it was sent.
    faults: BTreeMap<Arc<str>, (Vec<Problem>, Vec<Problem>)>,
    /// Objects and files that may have to be told about.
    dirty: BTreeSet<ObjectRef>,
    dirty_faults: BTreeSet<Arc<str>>,
    interner: Interner,
}

/// One object.
#[derive(Debug, Default)]
struct Slot {
    /// Ordered by file, then by place in the file.
    claims: Vec<Claim>,
    sent: Arc<Content>,
    sent_problems: Vec<Problem>,
}

#[derive(Debug)]
struct Claim {
    file: Arc<str>,
    content: Arc<Content>,
    problems: Vec<Problem>,
}

impl Catalog {
    /// Takes what a file holds now in place of what it held. Where a part of it could not be decoded, nothing that
    /// it held before is taken away: there is no telling what that part was to hold.
    pub(super) fn replace(&mut self, file: &Arc<str>, content: FileContent) {
        let mut before: BTreeMap<ObjectRef, VecDeque<Claim>> = BTreeMap::new();
        for (id, claim) in self.take_claims(file) {
            before.entry(id).or_default().push_back(claim);
        }
        let mut ids = Vec::with_capacity(content.objects.len());
        for object in content.objects {
            let known = before.get_mut(&object.id).and_then(VecDeque::pop_front);
            ids.push(self.claim(file, object, known));
        }
        for (id, claims) in before.into_iter().filter(|_| content.broken) {
            for claim in claims {
                self.insert(id.clone(), claim);
                ids.push(id.clone());
            }
        }
        if !ids.is_empty() {
            self.files.insert(file.clone(), ids);
        }
        self.set_faults(file, content.problems.finish());
    }

    /// The file is gone, and all that it held with it.
    pub(super) fn remove(&mut self, file: &Arc<str>) {
        self.take_claims(file);
        self.set_faults(file, Vec::new());
    }

    /// Says what is wrong with a file or the directory as a whole, without touching its objects.
    pub(super) fn set_faults(&mut self, file: &Arc<str>, problems: Vec<Problem>) {
        if let Some(faults) = self.faults.get_mut(file) {
            faults.0 = problems;
        } else if problems.is_empty() {
            return;
        } else {
            self.faults.insert(file.clone(), (problems, Vec::new()));
        }
        self.dirty_faults.insert(file.clone());
    }

    /// Everything that changed since it was last told, ordered by kind and name.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for id in std::mem::take(&mut self.dirty) {
            self.settle(id, &mut events);
        }
        for file in std::mem::take(&mut self.dirty_faults) {
            let Some((now, sent)) = self.faults.get_mut(&file) else { continue };
            if now != sent {
                sent.clone_from(now);
                let id = ObjectRef { kind: "File", namespace: Arc::from(""), name: file.clone() };
                events.push(Event::Problems(id, now.clone()));
            }
            if now.is_empty() {
                self.faults.remove(&file);
            }
        }
        events
    }

    fn take_claims(&mut self, file: &Arc<str>) -> Vec<(ObjectRef, Claim)> {
        let mut taken = Vec::new();
        for id in self.files.remove(file).unwrap_or_default() {
            if let Some(slot) = self.slots.get_mut(&id)
                && let Some(at) = slot.claims.iter().position(|claim| claim.file == *file)
            {
                taken.push((id.clone(), slot.claims.remove(at)));
            }
            self.dirty.insert(id);
        }
        taken
    }

    /// Adds an object of a file. `before`: what the file said of it until now. If nothing of the new version can
    /// be used, the one before stays.
    fn claim(&mut self, file: &Arc<str>, object: Object, before: Option<Claim>) -> ObjectRef {
        let Object { mut id, mut content, mut problems } = object;
        self.interner.share(&mut id.namespace);
        self.interner.share(&mut id.name);
        content.share(&mut self.interner);
        let before = before.filter(|before| *before.content != Content::Nothing);
        let unusable = match &content {
            Content::Nothing => !problems.is_empty(),
            Content::Closed(_) => true,
            _ => false,
        };
        let mut say = |message: &str| {
            problems.push(Problem { field: "metadata.name".into(), message: message.into() });
        };
        let content = match (content, before) {
            (_, Some(before)) if unusable => {
                say("nothing of this version can be used: the version before it stays in force");
                before.content
            }
            (Content::Closed(policy), _) => {
                say("its pods are isolated in both directions, and nothing is allowed to them");
                Arc::new(Content::NetworkPolicy(policy))
            }
            (content, _) => Arc::new(content),
        };
        self.insert(id.clone(), Claim { file: file.clone(), content, problems });
        id
    }

    fn insert(&mut self, id: ObjectRef, claim: Claim) {
        self.dirty.insert(id.clone());
        let claims = &mut self.slots.entry(id).or_default().claims;
        let at = claims.partition_point(|other| other.file <= claim.file);
        claims.insert(at, claim);
    }

    fn settle(&mut self, id: ObjectRef, events: &mut Vec<Event>) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let content = slot.claims.first().map(|claim| claim.content.clone()).unwrap_or_default();
        if content != slot.sent {
            events.extend(content.event(&slot.sent, &id));
            slot.sent = content;
        }
        let problems = slot.problems();
        if problems != slot.sent_problems {
            slot.sent_problems.clone_from(&problems);
            events.push(Event::Problems(id.clone(), problems));
        }
        if slot.claims.is_empty() {
            self.slots.remove(&id);
        }
    }
}

impl Slot {
    /// What is wrong with the claim that counts, and that there are others.
    fn problems(&self) -> Vec<Problem> {
        let Some((first, others)) = self.claims.split_first() else { return Vec::new() };
        let mut problems = first.problems.clone();
        let mut repeated = Problems::default();
        for other in others {
            let message = if other.file == first.file {
                format!("{} holds this object more than once: the first one is used", first.file)
            } else {
                format!("{} and {} both hold this object: {} is used", first.file, other.file, first.file)
            };
            repeated.add("metadata.name", message);
        }
        problems.extend(repeated.finish());
        problems
    }
}

impl Content {
    fn share(&mut self, interner: &mut Interner) {
        match self {
            Self::Service(service) => interner.share_service(service),
            Self::EndpointSlice(slice) => interner.share_slice(slice),
            Self::Node(node) => interner.share_node(node),
            Self::Pod(pod) => interner.share_pod(pod),
            Self::Namespace(namespace) => interner.share_namespace(namespace),
            // It stands there once.
            Self::NetworkPolicy(_) | Self::Closed(_) | Self::ClusterNetworkPolicy(_) => {}
            Self::Nothing => {}
        }
    }

    /// What tells that `id` is now this, after it was `sent`.
    fn event(&self, sent: &Self, id: &ObjectRef) -> Option<Event> {
        let key = ObjectKey::new(id.namespace.clone(), id.name.clone());
        Some(match (self, sent) {
            (Self::Service(service), _) => Event::Service(key, Some(service.clone())),
            (Self::EndpointSlice(slice), _) => Event::EndpointSlice(key, Some(slice.clone())),
            (Self::Node(node), _) => Event::Node(key.name, Some(node.clone())),
            (Self::Pod(pod), _) => Event::Pod(key, Some(pod.clone())),
            (Self::Namespace(namespace), _) => Event::Namespace(key.name, Some(namespace.clone())),
            (Self::NetworkPolicy(policy) | Self::Closed(policy), _) => {
                Event::NetworkPolicy(key, Some(policy.clone()))
            }
            (Self::ClusterNetworkPolicy(policy), _) => {
                Event::ClusterNetworkPolicy(key.name, Some(policy.clone()))
            }
            (Self::Nothing, Self::Service(_)) => Event::Service(key, None),
            (Self::Nothing, Self::EndpointSlice(_)) => Event::EndpointSlice(key, None),
            (Self::Nothing, Self::Node(_)) => Event::Node(key.name, None),
            (Self::Nothing, Self::Pod(_)) => Event::Pod(key, None),
            (Self::Nothing, Self::Namespace(_)) => Event::Namespace(key.name, None),
            (Self::Nothing, Self::NetworkPolicy(_) | Self::Closed(_)) => Event::NetworkPolicy(key, None),
            (Self::Nothing, Self::ClusterNetworkPolicy(_)) => Event::ClusterNetworkPolicy(key.name, None),
            (Self::Nothing, Self::Nothing) => return None,
        })
    }
}
