//! Which objects of one kind were told, by their keys alone: so that a list after a disconnect ends those that
//! vanished meanwhile, and nothing else. Pure.

use std::collections::HashMap;

use super::decode::{Content, Decoded};
use super::kind::Kind;
use crate::source::{Event, Interner, ObjectKey, ObjectRef, Problem};

/// See the module.
#[derive(Debug)]
pub(super) struct Known {
    kind: Kind,
    objects: HashMap<ObjectKey, Told>,
    /// Counts lists; an object that the current one did not mention has an older number.
    round: u32,
    namespaces: Interner,
}

/// What was last told of an object.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    round: u32,
    object: bool,
    problems: bool,
}

impl Known {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, objects: HashMap::new(), round: 0, namespaces: Interner::default() }
    }

    /// A full list begins.
    pub(super) fn begin_list(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// The full list is complete: what it did not mention is gone.
    pub(super) fn end_list(&mut self, events: &mut Vec<Event>) {
        let round = self.round;
        let gone: Vec<_> = self.objects.extract_if(|_, told| told.round != round).collect();
        for (key, told) in gone {
            self.tell_gone(key, told, events);
        }
    }

    /// An object is there, or has changed.
    pub(super) fn upsert(&mut self, decoded: Decoded, events: &mut Vec<Event>) {
        let mut key = decoded.key;
        self.namespaces.share(&mut key.namespace);
        let before = self.objects.get(&key).copied().unwrap_or_default();
        let (event, mut problems) = match decoded.content {
            Content::Service(parsed) => {
                (parsed.object.map(|service| Event::Service(key.clone(), Some(service))), parsed.problems)
            }
            Content::EndpointSlice(parsed) => {
                (parsed.object.map(|slice| Event::EndpointSlice(key.clone(), Some(slice))), parsed.problems)
            }
            Content::Node(parsed) => {
                (parsed.object.map(|node| Event::Node(key.name.clone(), Some(node))), parsed.problems)
            }
            Content::Malformed(problem) => (None, vec![problem]),
        };
        let unusable = event.is_none() && !problems.is_empty();
        if unusable {
            problems.push(unusable_problem(before.object));
        }
        let object = event.is_some() || (unusable && before.object);
        if before.object && !object {
            events.push(self.gone(key.clone()));
        }
        events.extend(event);
        let told = Told { round: self.round, object, problems: !problems.is_empty() };
        if before.problems || told.problems {
            events.push(Event::Problems(self.reference(&key), problems));
        }
        if told.object || told.problems {
            self.objects.insert(key, told);
        } else {
            self.objects.remove(&key);
        }
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, key: &ObjectKey, events: &mut Vec<Event>) {
        if let Some((key, told)) = self.objects.remove_entry(key) {
            self.tell_gone(key, told, events);
        }
    }

    fn tell_gone(&self, key: ObjectKey, told: Told, events: &mut Vec<Event>) {
        if told.problems {
            events.push(Event::Problems(self.reference(&key), Vec::new()));
        }
        if told.object {
            events.push(self.gone(key));
        }
    }

    fn gone(&self, key: ObjectKey) -> Event {
        match self.kind {
            Kind::Service => Event::Service(key, None),
            Kind::EndpointSlice => Event::EndpointSlice(key, None),
            Kind::Node => Event::Node(key.name, None),
        }
    }

    fn reference(&self, key: &ObjectKey) -> ObjectRef {
        ObjectRef { kind: self.kind.name(), namespace: key.namespace.clone(), name: key.name.clone() }
    }
}

fn unusable_problem(has_before: bool) -> Problem {
    let message = if has_before {
        "nothing of this version can be used: the version before it stays in force"
    } else {
        "nothing of this object can be used"
    };
    Problem { field: "metadata.name".into(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::decode::decode_object;
    use super::*;

    fn service(name: &str, spec: &serde_json::Value) -> Decoded {
        let text = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec}).to_string();
        decode_object(Kind::Service, &text).unwrap()
    }

    fn good(name: &str) -> Decoded {
        service(name, &json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}))
    }

    /// The events, as `+name`, `-name` and `name!problems`.
    fn brief(events: &mut Vec<Event>) -> Vec<String> {
        let brief = |event| match event {
            Event::Service(key, Some(_)) => format!("+{}", key.name),
            Event::Service(key, None) => format!("-{}", key.name),
            Event::Problems(object, problems) => format!("{}!{}", object.name, problems.len()),
            other => panic!("{other:?}"),
        };
        let mut brief: Vec<String> = events.drain(..).map(brief).collect();
        brief.sort();
        brief
    }

    #[test]
    fn what_a_list_does_not_mention_is_gone() {
        let (mut known, mut events) = (Known::new(Kind::Service), Vec::new());
        known.begin_list();
        for name in ["a", "b", "c"] {
            known.upsert(good(name), &mut events);
        }
        known.end_list(&mut events);
        assert_eq!(brief(&mut events), ["+a", "+b", "+c"]);

        known.begin_list();
        known.upsert(good("b"), &mut events);
        // A list that breaks off says nothing of what it did not come to.
        known.begin_list();
        known.upsert(good("a"), &mut events);
        known.upsert(good("d"), &mut events);
        assert_eq!(brief(&mut events), ["+a", "+b", "+d"]);
        known.end_list(&mut events);
        assert_eq!(brief(&mut events), ["-b", "-c"]);
    }

    #[test]
    fn a_malformed_version_keeps_the_one_before() {
        let (mut known, mut events) = (Known::new(Kind::Service), Vec::new());
        let bad = || service("a", &json!({"ports": 7}));
        known.upsert(good("a"), &mut events);
        known.upsert(bad(), &mut events);
        assert_eq!(brief(&mut events), ["+a", "a!2"]);
        // Also where a list brings it.
        known.begin_list();
        known.upsert(bad(), &mut events);
        known.end_list(&mut events);
        assert_eq!(brief(&mut events), ["a!2"]);
        known.upsert(good("a"), &mut events);
        assert_eq!(brief(&mut events), ["+a", "a!0"]);
        known.upsert(bad(), &mut events);
        known.remove(&ObjectKey::new("ns", "a"), &mut events);
        assert_eq!(brief(&mut events), ["-a", "a!0", "a!2"]);
    }

    #[test]
    fn what_stops_being_ours_is_gone_and_forgotten() {
        let (mut known, mut events) = (Known::new(Kind::Service), Vec::new());
        known.upsert(good("a"), &mut events);
        known.upsert(service("a", &json!({"clusterIP": "None"})), &mut events);
        known.upsert(service("b", &json!({"type": "ExternalName"})), &mut events);
        assert_eq!(brief(&mut events), ["+a", "-a"]);
        assert!(known.objects.is_empty());
    }
}
