//! Which namespaces and which other nodes' pods the policies ask for that select a pod of this node: [`PolicyDemand`],
//! kept up to date change by change.
//!
//! What a change costs: a pod of this node, a look at each policy of its namespace and each that has none; a policy, a look at
//! each pod of this node in its namespace, or at all of them, and at all namespaces where it brings a namespaceSelector that
//! none had before; a namespace, a look at each different namespaceSelector. Pods of other nodes cost nothing. To ask costs
//! [`NARROW`] at most.
//!
//! What is asked for and not told yet makes policies allow less (ARCHITECTURE.md has the exception). So nothing has to wait
//! for it but a start, where less would be allowed than before ([`super::State::take_policy_update`]).

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::source::{Labels, Namespace, NamespaceDemand, ObjectKey, PodDemand, PolicyDemand, Selector};

mod needs;
#[cfg(test)]
mod tests;

pub(super) use needs::Asker;
use needs::Need;

/// Pods of more namespaces than this are watched all at once. Each namespace is one more watch, which costs the API
/// server a connection, from each node; all pods of a cluster cost this node less than 1 KiB each.
pub const NARROW: usize = 16;

/// At so few it is namespace by namespace again: not at each step over one border.
const NARROW_AGAIN: usize = NARROW / 2;

/// The same of Namespaces, of which all are little.
const NARROW_NAMESPACES: usize = 4;

const NARROW_NAMESPACES_AGAIN: usize = NARROW_NAMESPACES / 2;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// How many pods of this node each policy selects, if any. Those that have no namespace have none here.
    selected: HashMap<ObjectKey, usize>,
    /// How many policies select by what namespaces are like.
    whose: usize,
    /// The namespaces of the pods of this node.
    here: BTreeSet<Arc<str>>,
    /// The namespaces with a policy that selects a pod of this node, and how many.
    annotated: HashMap<Arc<str>, usize>,
    /// All Namespaces are asked for because they were so many.
    wide_namespaces: bool,
    /// The namespaceSelectors that ask, and how often.
    selectors: HashMap<Selector, usize>,
    /// How often somebody asks for all pods, whatever their namespace is like.
    everywhere: usize,
    /// The namespaces that somebody asks for, and how often: each different selector once.
    namespaces: HashMap<Arc<str>, usize>,
    /// All pods are asked for because there were so many namespaces.
    wide: bool,
}

/// The namespaces that are known.
pub(super) type Namespaces = HashMap<Arc<str>, Namespace>;

impl Demand {
    /// What is to be told.
    pub(super) fn demand(&self) -> PolicyDemand {
        let pods = if self.everywhere > 0 || self.wide {
            PodDemand::All
        } else {
            PodDemand::Of(self.namespaces.keys().cloned().collect())
        };
        let namespaces = if !self.selectors.is_empty() || self.wide_namespaces {
            NamespaceDemand::All
        } else if self.whose > 0 {
            NamespaceDemand::Of(self.here.clone())
        } else {
            NamespaceDemand::Of(self.annotated.keys().cloned().collect())
        };
        PolicyDemand { namespaces, pods }
    }

    /// Whether pods of this node are in this namespace.
    pub(super) fn set_here(&mut self, namespace: &Arc<str>, is_here: bool) {
        if is_here {
            self.here.insert(namespace.clone());
        } else {
            self.here.remove(namespace);
        }
        self.judge();
    }

    /// A policy selects so many pods of this node, now that it is this one.
    pub(super) fn set_policy(
        &mut self,
        key: &ObjectKey,
        (before, after): (Option<Asker<'_>>, Option<Asker<'_>>),
        selects: usize,
        known: &Namespaces,
    ) {
        self.whose -= usize::from(before.is_some_and(Asker::asks_whose));
        self.whose += usize::from(after.is_some_and(Asker::asks_whose));
        if self.selected.remove(key).is_some() {
            before.into_iter().for_each(|policy| self.forget(policy, known));
        }
        if let Some(policy) = after
            && selects > 0
        {
            self.selected.insert(key.clone(), selects);
            self.ask(policy, known);
        }
        self.judge();
    }

    /// A policy selects a pod more, or (`false`) one less.
    pub(super) fn count_pod(&mut self, key: &ObjectKey, policy: Asker<'_>, more: bool, known: &Namespaces) {
        let before = self.selected.get(key).copied().unwrap_or_default();
        match (more, before) {
            (true, 0) => {
                self.selected.insert(key.clone(), 1);
                self.ask(policy, known);
                self.judge();
            }
            (false, 0 | 1) => {
                self.selected.remove(key);
                self.forget(policy, known);
                self.judge();
            }
            (more, before) => {
                self.selected.insert(key.clone(), if more { before + 1 } else { before - 1 });
            }
        }
    }

    /// A namespace has other labels, or came, or went.
    pub(super) fn set_namespace(&mut self, name: &Arc<str>, before: Option<&Labels>, after: Option<&Labels>) {
        for selector in self.selectors.keys() {
            let matches = |labels: Option<&Labels>| labels.is_some_and(|labels| selector.matches(labels));
            match (matches(before), matches(after)) {
                (false, true) => add(&mut self.namespaces, name),
                (true, false) => subtract(&mut self.namespaces, name),
                _ => 0,
            };
        }
        self.judge();
    }

    fn judge(&mut self) {
        let limit = if self.wide { NARROW_AGAIN } else { NARROW };
        self.wide = self.namespaces.len() > limit;
        let limit = if self.wide_namespaces { NARROW_NAMESPACES_AGAIN } else { NARROW_NAMESPACES };
        let namespaces = if self.whose > 0 { self.here.len() } else { self.annotated.len() };
        self.wide_namespaces = namespaces > limit;
    }

    fn ask(&mut self, policy: Asker<'_>, known: &Namespaces) {
        for need in policy.needs() {
            match need {
                Need::Annotations(own) => {
                    add(&mut self.annotated, own);
                }
                Need::Own(own) => {
                    add(&mut self.namespaces, own);
                }
                Need::Everywhere => self.everywhere += 1,
                Need::Selected(selector) => {
                    if add(&mut self.selectors, selector) == 1 {
                        matching(known, selector).for_each(|name| {
                            add(&mut self.namespaces, name);
                        });
                    }
                }
            }
        }
    }

    fn forget(&mut self, policy: Asker<'_>, known: &Namespaces) {
        for need in policy.needs() {
            match need {
                Need::Annotations(own) => {
                    subtract(&mut self.annotated, own);
                }
                Need::Own(own) => {
                    subtract(&mut self.namespaces, own);
                }
                Need::Everywhere => self.everywhere -= 1,
                Need::Selected(selector) => {
                    if subtract(&mut self.selectors, selector) == 0 {
                        matching(known, selector).for_each(|name| {
                            subtract(&mut self.namespaces, name);
                        });
                    }
                }
            }
        }
    }
}

fn matching<'a>(known: &'a Namespaces, selector: &'a Selector) -> impl Iterator<Item = &'a Arc<str>> {
    let found = known.iter().filter(|(_, namespace)| selector.matches(&namespace.labels));
    found.map(|(name, _)| name)
}

/// One more; how often now.
fn add<K: Hash + Eq + Clone>(counts: &mut HashMap<K, usize>, key: &K) -> usize {
    // Most are there already, and their key need not be copied.
    if !counts.contains_key(key) {
        counts.insert(key.clone(), 0);
    }
    counts.get_mut(key).map_or(0, |count| {
        *count += 1;
        *count
    })
}

/// One less; how often still.
fn subtract<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) -> usize {
    let Some(count) = counts.get_mut(key) else { return 0 };
    *count -= 1;
    let left = *count;
    if left == 0 {
        counts.remove(key);
    }
    left
}
