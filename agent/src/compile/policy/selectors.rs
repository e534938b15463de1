//! Which atoms match a pod: found by what they ask for, not by trying each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::rule::{Atom, AtomId, Mark, Scope};
use crate::source::{Labels, Pod, Protocol, Selector};
use crate::state::PolicyState;

/// So few are tried one after the other.
const FEW: usize = 8;

/// Selectors and port names.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    atoms: BTreeMap<AtomId, Arc<Atom>>,
    by_anchor: HashMap<Anchor, Vec<AtomId>>,
    /// Those that are found by labels of a namespace.
    by_namespace: BTreeSet<AtomId>,
    names: HashMap<(Arc<str>, Protocol), AtomId>,
}

type Label = (Arc<str>, Arc<str>);

/// Something that every pod which a selector matches has.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Anchor {
    /// Its namespace, and in it a label or nothing else that is sure.
    Namespace(Arc<str>, Option<Label>),
    /// A label of the pod.
    PodLabel(Label),
    /// A label of its namespace.
    NamespaceLabel(Label),
    /// Nothing.
    None,
}

impl Selectors {
    /// Takes in an atom; blocks mean nothing here.
    pub(super) fn insert(&mut self, id: AtomId, atom: &Arc<Atom>) {
        match &**atom {
            Atom::Pods { namespaces, pods } => {
                self.atoms.insert(id, atom.clone());
                for anchor in anchors(namespaces, pods) {
                    if matches!(anchor, Anchor::NamespaceLabel(_)) {
                        self.by_namespace.insert(id);
                    }
                    self.by_anchor.entry(anchor).or_default().push(id);
                }
            }
            Atom::Name(name, protocol) => drop(self.names.insert((name.clone(), *protocol), id)),
            Atom::Block(_) => {}
        }
    }

    /// Takes out an atom.
    pub(super) fn remove(&mut self, id: AtomId, atom: &Atom) {
        match atom {
            Atom::Pods { namespaces, pods } => {
                self.atoms.remove(&id);
                self.by_namespace.remove(&id);
                for anchor in anchors(namespaces, pods) {
                    if let Some(ids) = self.by_anchor.get_mut(&anchor) {
                        ids.retain(|other| *other != id);
                        if ids.is_empty() {
                            self.by_anchor.remove(&anchor);
                        }
                    }
                }
            }
            Atom::Name(name, protocol) => drop(self.names.remove(&(name.clone(), *protocol))),
            Atom::Block(_) => {}
        }
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.atoms.is_empty() && self.names.is_empty()
    }

    /// The selectors that match a pod, and the names that its ports have. In no order.
    pub(super) fn marks(&self, state: &PolicyState, namespace: &Arc<str>, pod: &Pod) -> Vec<Mark> {
        let in_namespace = state.namespace(namespace).map(|namespace| &namespace.labels);
        let mut marks = Vec::new();
        let mut look_at = |id: &AtomId| {
            let Some(Atom::Pods { namespaces, pods }) = self.atoms.get(id).map(|atom| &**atom) else {
                return;
            };
            let Some(perhaps) = is_in_scope(namespaces, namespace, in_namespace) else { return };
            if pods.matches(&pod.labels) {
                marks.push(Mark { perhaps, ..Mark::new(*id) });
            }
        };
        if self.atoms.len() <= FEW {
            self.atoms.keys().for_each(look_at);
        } else {
            // Any of them may match in a namespace that is not known.
            let perhaps = in_namespace.is_none().then_some(&self.by_namespace);
            perhaps.into_iter().flatten().for_each(&mut look_at);
            let anchors = possible_anchors(namespace, in_namespace, &pod.labels);
            anchors.filter_map(|anchor| self.by_anchor.get(&anchor)).flatten().for_each(&mut look_at);
        }
        let named = pod.ports.iter().filter_map(|port| {
            let atom = *self.names.get(&(port.name.clone(), port.protocol))?;
            let again = pod.port(&port.name, port.protocol) != Some(port.port);
            Some(Mark { port: port.port, again, ..Mark::new(atom) })
        });
        marks.extend(named);
        marks
    }
}

/// `None`: the pod is not in scope; else whether that depends on what is not known. Of a namespace that is not known nobody can
/// say what its labels are; a selector that asks for none needs nobody to.
fn is_in_scope(scope: &Scope, namespace: &str, labels: Option<&Labels>) -> Option<bool> {
    match (scope, labels) {
        (Scope::One(name), _) => (**name == *namespace).then_some(false),
        (Scope::Selected(selector), Some(labels)) => selector.matches(labels).then_some(false),
        (Scope::Selected(selector), None) => Some(!selector.selects_all()),
    }
}

/// Where a selector is found: a pod has at most one of them.
fn anchors(scope: &Scope, pods: &Selector) -> Vec<Anchor> {
    let labels = pods.needed_labels();
    match scope {
        Scope::One(name) if labels.is_empty() => vec![Anchor::Namespace(name.clone(), None)],
        Scope::One(name) => {
            labels.into_iter().map(|label| Anchor::Namespace(name.clone(), Some(label))).collect()
        }
        Scope::Selected(_) if !labels.is_empty() => labels.into_iter().map(Anchor::PodLabel).collect(),
        Scope::Selected(namespaces) => match namespaces.needed_labels() {
            labels if labels.is_empty() => vec![Anchor::None],
            labels => labels.into_iter().map(Anchor::NamespaceLabel).collect(),
        },
    }
}

/// Where the selectors are found that may match a pod.
fn possible_anchors(
    namespace: &Arc<str>,
    in_namespace: Option<&Labels>,
    pod: &Labels,
) -> impl Iterator<Item = Anchor> {
    let of_pod = pod.iter().flat_map(|label| {
        [Anchor::Namespace(namespace.clone(), Some(label.clone())), Anchor::PodLabel(label.clone())]
    });
    let of_namespace = in_namespace.into_iter().flat_map(Labels::iter).cloned().map(Anchor::NamespaceLabel);
    of_pod.chain(of_namespace).chain([Anchor::Namespace(namespace.clone(), None), Anchor::None])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Event, NamedPort, Namespace, ObjectKey, Requirement, Test};
    use crate::state::State;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
    }

    fn selector(tests: &[(&str, Test)]) -> Selector {
        tests.iter().map(|(key, test)| Requirement { key: Arc::from(*key), test: test.clone() }).collect()
    }

    fn is(values: &[&str]) -> Test {
        Test::In(values.iter().map(|value| Arc::from(*value)).collect())
    }

    /// Every scope with every selector of pods.
    fn atoms() -> Vec<Arc<Atom>> {
        let selectors = [
            selector(&[]),
            selector(&[("k", is(&["x"]))]),
            selector(&[("k", is(&["x", "y"])), ("l", Test::Exists)]),
            selector(&[("k", is(&["y"])), ("l", is(&["x", "y"]))]),
            selector(&[("k", Test::DoesNotExist)]),
        ];
        let mut scopes: Vec<_> = ["a", "b"].map(|name| Scope::One(name.into())).into();
        scopes.extend(selectors.iter().cloned().map(Scope::Selected));
        let pairs = scopes.iter().flat_map(|scope| selectors.iter().map(move |pods| (scope, pods)));
        let pods = pairs.map(|(scope, pods)| Atom::Pods { namespaces: scope.clone(), pods: pods.clone() });
        pods.chain([Atom::Name("web".into(), Protocol::Tcp)]).map(Arc::new).collect()
    }

    #[test]
    fn what_is_found_is_what_matches_when_each_is_tried() {
        let atoms = atoms();
        let mut all = Selectors::default();
        for (id, atom) in (0..).zip(&atoms) {
            all.insert(id, atom);
        }
        assert!(all.atoms.len() > FEW);
        let mut state = State::new("here");
        let in_namespace =
            [("a", labels(&[("k", "x")])), ("b", labels(&[("k", "y"), ("l", "x")])), ("c", labels(&[]))];
        for (name, labels) in &in_namespace {
            state.apply(Event::Namespace(
                (*name).into(),
                Some(Namespace { labels: labels.clone(), ..Namespace::default() }),
            ));
        }
        let mut found_any = 0;
        for namespace in ["a", "b", "c", "unknown"].map(Arc::from) {
            for labels in
                [labels(&[]), labels(&[("k", "x")]), labels(&[("k", "y"), ("l", "y")]), labels(&[("l", "")])]
            {
                let ports = [NamedPort { name: "web".into(), protocol: Protocol::Tcp, port: 8080 }];
                let pod = Pod { labels, ports: ports.into(), ..Pod::default() };
                let mut found = all.marks(state.policy(), &namespace, &pod);
                found.sort_unstable();
                let alone = (0..).zip(&atoms).flat_map(|(id, atom)| {
                    let mut one = Selectors::default();
                    one.insert(id, atom);
                    one.marks(state.policy(), &namespace, &pod)
                });
                assert_eq!(found, alone.collect::<Vec<_>>(), "{namespace} {pod:?}");
                assert!(found.contains(&Mark { port: 8080, ..Mark::new(35) }));
                found_any += found.len();
            }
        }
        assert!(found_any > 50, "{found_any}");
        for (id, atom) in (0..).zip(&atoms) {
            all.remove(id, atom);
        }
        assert!(all.is_empty() && all.by_anchor.is_empty());
    }

    #[test]
    fn of_a_namespace_that_is_not_known_it_is_sure_that_it_is_one() {
        let state = State::new("here");
        let pod = Pod { labels: labels(&[("k", "x")]), ..Pod::default() };
        for (namespaces, perhaps) in [(selector(&[]), false), (selector(&[("n", Test::DoesNotExist)]), true)]
        {
            let mut selectors = Selectors::default();
            let atom = Atom::Pods { namespaces: Scope::Selected(namespaces), pods: Selector::default() };
            assert_eq!(atom.is_sure(), !perhaps);
            selectors.insert(7, &Arc::new(atom));
            let found = selectors.marks(state.policy(), &"unknown".into(), &pod);
            assert_eq!(found, [Mark { perhaps, ..Mark::new(7) }]);
        }
    }

    #[test]
    fn one_that_comes_and_goes_is_looked_at_while_it_is_there() {
        let mut state = State::new("here");
        let pod = Pod { labels: labels(&[("k", "x")]), ..Pod::default() };
        state.apply(Event::Pod(ObjectKey::new("a", "p"), Some(pod.clone())));
        let mut selectors = Selectors::default();
        let atom =
            Arc::new(Atom::Pods { namespaces: Scope::One("a".into()), pods: selector(&[("k", is(&["x"]))]) });
        selectors.insert(7, &atom);
        assert_eq!(selectors.marks(state.policy(), &"a".into(), &pod), [Mark::new(7)]);
        selectors.remove(7, &atom);
        assert_eq!(selectors.marks(state.policy(), &"a".into(), &pod), []);
    }
}
