//! Which objects of one kind were told, by their keys alone: so that a list after a disconnect ends those that
//! vanished meanwhile, and nothing else. Pure.
//!
//! Each watch holds what it told. Pods may be held by several: while one watch takes over from another, and where a pod
//! is made anew under its old name on another node, of which the two watches hear in any order. The newest version is what
//! counts, and an object is gone when nobody holds it any more.

use std::collections::HashMap;

use super::decode::{Content, Decoded};
use super::kind::Kind;
use super::scope::Scope;
use crate::source::{Event, Interner, ObjectKey, ObjectRef, Problem};

/// See the module.
#[derive(Debug)]
pub(super) struct Known {
    kind: Kind,
    /// By watch; hardly ever more than one, or a few for pods.
    held: HashMap<Scope, Held>,
    namespaces: Interner,
}

/// What one watch told.
#[derive(Debug, Default)]
struct Held {
    objects: HashMap<ObjectKey, Told>,
    /// Counts lists; an object that the current one did not mention has an older number.
    round: u32,
}

/// What was last told of an object.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// `metadata.resourceVersion`; 0 where it is no number.
    version: u64,
    round: u32,
    object: bool,
    problems: bool,
}

impl Known {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, held: HashMap::new(), namespaces: Interner::default() }
    }

    /// A full list begins.
    pub(super) fn begin_list(&mut self, scope: &Scope) {
        let held = self.held.entry(scope.clone()).or_default();
        held.round = held.round.wrapping_add(1);
    }

    /// The full list is complete: what it did not mention is gone.
    pub(super) fn end_list(&mut self, scope: &Scope, events: &mut Vec<Event>) {
        let Some(held) = self.held.get_mut(scope) else { return };
        let round = held.round;
        let gone: Vec<_> = held.objects.extract_if(|_, told| told.round != round).collect();
        self.tell_unheld(gone, events);
    }

    /// The watch has ended: what it alone told is gone.
    pub(super) fn end(&mut self, scope: &Scope, events: &mut Vec<Event>) {
        let held = self.held.remove(scope).unwrap_or_default();
        self.tell_unheld(held.objects, events);
    }

    /// The server went back in time: versions from before say nothing about those that come.
    pub(super) fn forget_versions(&mut self) {
        let held = self.held.values_mut().flat_map(|held| held.objects.values_mut());
        held.for_each(|told| told.version = 0);
    }

    /// An object is there, or has changed.
    pub(super) fn upsert(&mut self, scope: &Scope, decoded: Decoded, events: &mut Vec<Event>) {
        let mut key = decoded.key;
        self.namespaces.share(&mut key.namespace);
        let round = self.held.get(scope).map_or(0, |held| held.round);
        let mut told = Told { round, version: number(decoded.version.as_deref()), ..Told::default() };
        let own = self.held.get(scope).and_then(|held| held.objects.get(&key)).copied();
        let other = self.newest_elsewhere(scope, &key);
        let before = Told {
            object: own.or(other).is_some_and(|told| told.object),
            problems: own.or(other).is_some_and(|told| told.problems),
            ..Told::default()
        };
        let (event, mut problems) = into_event(&key, decoded.content, before.object);
        let unusable = event.is_none() && !problems.is_empty();
        if unusable {
            problems.push(unusable_problem(before.object));
        }
        told.object = event.is_some() || (unusable && before.object);
        told.problems = !problems.is_empty();
        // Another watch is ahead of this one.
        let overtaken = other.is_some_and(|other| other.version > told.version);
        if !overtaken {
            if before.object && !told.object {
                events.push(self.gone(key.clone()));
            }
            events.extend(event);
            if before.problems || told.problems {
                events.push(Event::Problems(self.reference(&key), problems));
            }
        }
        let held = self.held.entry(scope.clone()).or_default();
        if told.object || told.problems {
            held.objects.insert(key, told);
        } else {
            held.objects.remove(&key);
        }
    }

    /// An object is gone, as of this version.
    pub(super) fn remove(
        &mut self,
        scope: &Scope,
        key: &ObjectKey,
        version: Option<&str>,
        events: &mut Vec<Event>,
    ) {
        let held = self.held.get_mut(scope).and_then(|held| held.objects.remove_entry(key));
        let Some((key, told)) = held else { return };
        // Whoever knows only what was before will hear of it, too.
        if self.newest_elsewhere(scope, &key).is_none_or(|other| other.version < number(version)) {
            self.tell_gone(key, told, events);
        }
    }

    /// What another watch told of an object; of several, the newest.
    fn newest_elsewhere(&self, scope: &Scope, key: &ObjectKey) -> Option<Told> {
        let others = self.held.iter().filter(|(other, _)| *other != scope);
        others.filter_map(|(_, held)| held.objects.get(key).copied()).max_by_key(|told| told.version)
    }

    /// Those that a watch no longer holds are gone, where no other holds them.
    fn tell_unheld(&self, keys: impl IntoIterator<Item = (ObjectKey, Told)>, events: &mut Vec<Event>) {
        for (key, told) in keys {
            if !self.held.values().any(|held| held.objects.contains_key(&key)) {
                self.tell_gone(key, told, events);
            }
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
            Kind::NetworkPolicy => Event::NetworkPolicy(key, None),
            Kind::ClusterNetworkPolicy => Event::ClusterNetworkPolicy(key.name, None),
            Kind::Namespace => Event::Namespace(key.name, None),
            Kind::Pod => Event::Pod(key, None),
        }
    }

    fn reference(&self, key: &ObjectKey) -> ObjectRef {
        ObjectRef { kind: self.kind.name(), namespace: key.namespace.clone(), name: key.name.clone() }
    }
}

/// What tells of an object, and what is wrong with it.
fn into_event(key: &ObjectKey, content: Content, has_before: bool) -> (Option<Event>, Vec<Problem>) {
    match content {
        Content::Service(parsed) => {
            (parsed.object.map(|object| Event::Service(key.clone(), Some(object))), parsed.problems)
        }
        Content::EndpointSlice(parsed) => {
            (parsed.object.map(|object| Event::EndpointSlice(key.clone(), Some(object))), parsed.problems)
        }
        Content::Node(parsed) => {
            (parsed.object.map(|object| Event::Node(key.name.clone(), Some(object))), parsed.problems)
        }
        Content::NetworkPolicy(parsed) => {
            (parsed.object.map(|object| Event::NetworkPolicy(key.clone(), Some(object))), parsed.problems)
        }
        Content::ClusterNetworkPolicy(parsed) => {
            let event = |policy| Event::ClusterNetworkPolicy(key.name.clone(), Some(policy));
            (parsed.object.map(event), parsed.problems)
        }
        Content::Namespace(parsed) => {
            (parsed.object.map(|object| Event::Namespace(key.name.clone(), Some(object))), parsed.problems)
        }
        Content::Pod(parsed) => {
            (parsed.object.map(|object| Event::Pod(key.clone(), Some(object))), parsed.problems)
        }
        Content::Malformed(problem, Some(closed)) if !has_before => {
            (Some(Event::NetworkPolicy(key.clone(), Some(closed))), vec![problem, closed_problem()])
        }
        Content::Malformed(problem, _) => (None, vec![problem]),
    }
}

fn number(version: Option<&str>) -> u64 {
    version.and_then(|version| version.parse().ok()).unwrap_or_default()
}

fn closed_problem() -> Problem {
    let message = "its pods are isolated in both directions, and nothing is allowed to them";
    Problem { field: "spec".into(), message: message.into() }
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
    use crate::source::Selector;

    fn service(name: &str, spec: &serde_json::Value) -> Decoded {
        let text = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec}).to_string();
        decode_object(Kind::Service, &text).unwrap()
    }

    fn good(name: &str) -> Decoded {
        service(name, &json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}))
    }

    /// The events, as `+name`, `-name` and `name!problems`.
    fn brief_in_order(events: &mut Vec<Event>) -> Vec<String> {
        let brief = |event| match event {
            Event::Service(key, Some(_)) => format!("+{}", key.name),
            Event::Service(key, None) | Event::Pod(key, None) => format!("-{}", key.name),
            Event::Pod(key, Some(pod)) => format!("+{}@{}", key.name, pod.node.unwrap_or_default()),
            Event::Problems(object, problems) => format!("{}!{}", object.name, problems.len()),
            other => panic!("{other:?}"),
        };
        events.drain(..).map(brief).collect()
    }

    /// The same, sorted.
    fn brief(events: &mut Vec<Event>) -> Vec<String> {
        let mut brief = brief_in_order(events);
        brief.sort();
        brief
    }

    #[test]
    fn what_a_list_does_not_mention_is_gone() {
        let (mut known, mut events) = (Known::new(Kind::Service), Vec::new());
        known.begin_list(&Scope::Services);
        for name in ["a", "b", "c"] {
            known.upsert(&Scope::Services, good(name), &mut events);
        }
        known.end_list(&Scope::Services, &mut events);
        assert_eq!(brief(&mut events), ["+a", "+b", "+c"]);

        known.begin_list(&Scope::Services);
        known.upsert(&Scope::Services, good("b"), &mut events);
        // A list that breaks off says nothing of what it did not come to.
        known.begin_list(&Scope::Services);
        known.upsert(&Scope::Services, good("a"), &mut events);
        known.upsert(&Scope::Services, good("d"), &mut events);
        assert_eq!(brief(&mut events), ["+a", "+b", "+d"]);
        known.end_list(&Scope::Services, &mut events);
        assert_eq!(brief(&mut events), ["-b", "-c"]);
    }

    #[test]
    fn a_malformed_version_keeps_the_one_before() {
        let (mut known, mut events) = (Known::new(Kind::Service), Vec::new());
        let bad = || service("a", &json!({"ports": 7}));
        known.upsert(&Scope::Services, good("a"), &mut events);
        known.upsert(&Scope::Services, bad(), &mut events);
        assert_eq!(brief(&mut events), ["+a", "a!2"]);
        // Also where a list brings it.
        known.begin_list(&Scope::Services);
        known.upsert(&Scope::Services, bad(), &mut events);
        known.end_list(&Scope::Services, &mut events);
        assert_eq!(brief(&mut events), ["a!2"]);
        known.upsert(&Scope::Services, good("a"), &mut events);
        assert_eq!(brief(&mut events), ["+a", "a!0"]);
        known.upsert(&Scope::Services, bad(), &mut events);
        known.remove(&Scope::Services, &ObjectKey::new("ns", "a"), None, &mut events);
        assert_eq!(brief(&mut events), ["-a", "a!0", "a!2"]);
    }

    #[test]
    fn a_policy_that_does_not_decode_isolates_its_pods() {
        let scope = &Scope::NetworkPolicies;
        let policy = |name: &str, selector: &serde_json::Value, ingress: &serde_json::Value| {
            let text = json!({"metadata": {"name": name, "namespace": "ns"},
                "spec": {"podSelector": selector, "ingress": ingress}});
            decode_object(Kind::NetworkPolicy, &text.to_string()).unwrap()
        };
        let (mut known, mut events) = (Known::new(Kind::NetworkPolicy), Vec::new());
        let (web, nonsense, open) = (json!({"matchLabels": {"app": "web"}}), json!("all"), json!([{}]));
        let told = |events: &mut Vec<Event>| {
            let [Event::NetworkPolicy(_, Some(policy)), Event::Problems(_, problems)] = &events[..] else {
                panic!("{events:?}")
            };
            let told = (policy.pods == Selector::default(), policy.ingress.clone(), problems.len());
            events.clear();
            told
        };
        let closed = Some(Box::default());
        known.upsert(scope, policy("a", &web, &nonsense), &mut events);
        assert_eq!(told(&mut events), (false, closed.clone(), 2), "its own pods");
        known.upsert(scope, policy("b", &nonsense, &open), &mut events);
        assert_eq!(told(&mut events), (true, closed, 2), "nobody knows which");
        // Where a version before is known, that one stays.
        known.upsert(scope, policy("c", &web, &open), &mut events);
        events.clear();
        known.upsert(scope, policy("c", &web, &nonsense), &mut events);
        assert!(matches!(&events[..], [Event::Problems(..)]), "{events:?}");
    }

    #[test]
    fn what_stops_being_ours_is_gone_and_forgotten() {
        let (mut known, mut events) = (Known::new(Kind::Service), Vec::new());
        known.upsert(&Scope::Services, good("a"), &mut events);
        known.upsert(&Scope::Services, service("a", &json!({"clusterIP": "None"})), &mut events);
        known.upsert(&Scope::Services, service("b", &json!({"type": "ExternalName"})), &mut events);
        assert_eq!(brief(&mut events), ["+a", "-a"]);
        assert!(known.held[&Scope::Services].objects.is_empty());
    }
    /// A pod of this name on a node, at a version.
    fn pod(name: &str, node: &str, version: u64) -> Decoded {
        let metadata = json!({"metadata": {"name": name, "namespace": "ns", "resourceVersion": version.to_string()},
            "spec": {"nodeName": node}});
        decode_object(Kind::Pod, &metadata.to_string()).unwrap()
    }

    fn name(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    #[test]
    fn a_pod_that_is_made_anew_elsewhere_in_whatever_order() {
        let (here, there) = (&Scope::PodsHere, &Scope::PodsElsewhere);
        let (mut known, mut events) = (Known::new(Kind::Pod), Vec::new());
        known.upsert(here, pod("db-0", "a", 10), &mut events);
        // The other watch is ahead.
        known.upsert(there, pod("db-0", "b", 20), &mut events);
        known.upsert(here, pod("db-0", "a", 12), &mut events);
        known.remove(here, &name("db-0"), Some("15"), &mut events);
        assert_eq!(brief_in_order(&mut events), ["+db-0@a", "+db-0@b"]);
        // And back; this time each hears of it in order.
        known.remove(there, &name("db-0"), Some("25"), &mut events);
        known.upsert(here, pod("db-0", "a", 30), &mut events);
        assert_eq!(brief_in_order(&mut events), ["-db-0", "+db-0@a"]);
        // One that was there and went, before this watch hears of the end of the one here.
        known.upsert(there, pod("db-0", "b", 40), &mut events);
        known.remove(there, &name("db-0"), Some("41"), &mut events);
        known.remove(here, &name("db-0"), Some("35"), &mut events);
        let told = brief_in_order(&mut events);
        assert_eq!((&*told[0], &*told[1], told.last().unwrap().as_str()), ("+db-0@b", "-db-0", "-db-0"));
    }

    #[test]
    fn a_watch_that_takes_over_from_another_loses_nothing() {
        let (narrow, wide) = (&Scope::PodsOf("ns".into()), &Scope::PodsElsewhere);
        let (mut known, mut events) = (Known::new(Kind::Pod), Vec::new());
        for (name, version) in [("a", 1), ("b", 2), ("c", 3)] {
            known.upsert(narrow, pod(name, "n", version), &mut events);
        }
        events.clear();
        known.begin_list(wide);
        for (name, version) in [("a", 1), ("b", 2), ("d", 4)] {
            known.upsert(wide, pod(name, "n", version), &mut events);
        }
        known.end_list(wide, &mut events);
        known.end(narrow, &mut events);
        assert_eq!(brief_in_order(&mut events), ["+a@n", "+b@n", "+d@n", "-c"]);
        known.end(wide, &mut events);
        assert_eq!(brief(&mut events), ["-a", "-b", "-d"]);
        assert!(known.held.is_empty());
    }

    #[test]
    fn versions_from_before_a_restore_do_not_count() {
        let (here, there) = (&Scope::PodsHere, &Scope::PodsElsewhere);
        let (mut known, mut events) = (Known::new(Kind::Pod), Vec::new());
        known.upsert(there, pod("a", "b", 90), &mut events);
        known.forget_versions();
        known.upsert(here, pod("a", "a", 5), &mut events);
        known.begin_list(there);
        known.end_list(there, &mut events);
        assert_eq!(brief_in_order(&mut events), ["+a@b", "+a@a"]);
    }
}
