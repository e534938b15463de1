//! Which namespaces and which other nodes' pods the policies ask for that select a pod of this node: [`PolicyDemand`],
//! kept up to date change by change.
//!
//! What a change costs: a pod of this node, a look at each policy of its namespace; a policy, a look at each pod of this
//! node in its namespace, and at all namespaces where it brings a namespaceSelector that none had before; a namespace, a
//! look at each different namespaceSelector. Pods of other nodes cost nothing. To ask costs [`NARROW`] at most.
//!
//! What is asked for and not told yet only makes policies allow less: a peer is found by what is known of it. So nothing
//! has to wait for it but a start, where less would be allowed than before ([`super::State::take_policy_update`]).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::source::{
    Labels, Namespace, NetworkPolicy, ObjectKey, PodDemand, PolicyDemand, PolicyPeer, PolicyPort, PolicyRule,
    Selector,
};

#[cfg(test)]
mod tests;

/// Pods of more namespaces than this are watched all at once. Each namespace is one more watch, which costs the API
/// server a connection, from each node; all pods of a cluster cost this node less than 1 KiB each.
pub const NARROW: usize = 16;

/// At so few it is namespace by namespace again: not at each step over one border.
const NARROW_AGAIN: usize = NARROW / 2;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// How many pods of this node each policy selects, if any.
    selected: HashMap<ObjectKey, usize>,
    /// The namespaceSelectors that ask, and how often.
    selectors: HashMap<Selector, usize>,
    /// How often somebody asks for all pods, whatever their namespace is like.
    everywhere: usize,
    /// The namespaces that somebody asks for, and how often: each different selector once.
    namespaces: HashMap<Arc<str>, usize>,
    /// All pods are asked for because there were so many namespaces.
    wide: bool,
}

/// What a peer asks for.
#[derive(Clone, Copy)]
enum Need<'a> {
    /// The pods of the policy's own namespace.
    Own,
    /// Those of namespaces by their labels.
    Selected(&'a Selector),
    /// What everybody calls a port.
    Everywhere,
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
        PolicyDemand { namespaces: !self.selectors.is_empty(), pods }
    }

    /// A policy selects so many pods of this node, now that it is this one.
    pub(super) fn set_policy(
        &mut self,
        key: &ObjectKey,
        (before, after): (Option<&NetworkPolicy>, Option<&NetworkPolicy>),
        selects: usize,
        known: &Namespaces,
    ) {
        if self.selected.remove(key).is_some() {
            before.into_iter().for_each(|policy| self.forget(&key.namespace, policy, known));
        }
        if let Some(policy) = after
            && selects > 0
        {
            self.selected.insert(key.clone(), selects);
            self.ask(&key.namespace, policy, known);
        }
        self.judge();
    }

    /// A policy selects a pod more, or (`false`) one less.
    pub(super) fn count_pod(
        &mut self,
        key: &ObjectKey,
        policy: &NetworkPolicy,
        more: bool,
        known: &Namespaces,
    ) {
        let before = self.selected.get(key).copied().unwrap_or_default();
        match (more, before) {
            (true, 0) => {
                self.selected.insert(key.clone(), 1);
                self.ask(&key.namespace, policy, known);
                self.judge();
            }
            (false, 0 | 1) => {
                self.selected.remove(key);
                self.forget(&key.namespace, policy, known);
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
    }

    fn ask(&mut self, own: &Arc<str>, policy: &NetworkPolicy, known: &Namespaces) {
        for need in needs(policy) {
            match need {
                Need::Own => {
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

    fn forget(&mut self, own: &Arc<str>, policy: &NetworkPolicy, known: &Namespaces) {
        for need in needs(policy) {
            match need {
                Need::Own => {
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

/// What a policy asks for, each thing as often as it asks.
fn needs(policy: &NetworkPolicy) -> impl Iterator<Item = Need<'_>> {
    let ingress = policy.ingress.iter().flatten().flat_map(|rule| peers(rule).flat_map(needs_of_peer));
    let egress = policy.egress.iter().flatten().flat_map(|rule| {
        // A name is what each destination calls so: of whomever the rule lets in.
        let named = rule.ports.iter().flatten().any(|port| matches!(port, PolicyPort::Named { .. }));
        let open = rule.peers.is_none() || peers(rule).any(|peer| matches!(peer, PolicyPeer::Block(_)));
        let everywhere = (named && open).then_some(Need::Everywhere);
        everywhere.into_iter().chain(peers(rule).flat_map(needs_of_peer))
    });
    ingress.chain(egress)
}

fn peers(rule: &PolicyRule) -> impl Iterator<Item = &PolicyPeer> {
    rule.peers.iter().flatten()
}

fn needs_of_peer(peer: &PolicyPeer) -> impl Iterator<Item = Need<'_>> {
    let (one, other) = match peer {
        PolicyPeer::Block(_) => (None, None),
        PolicyPeer::Pods { namespaces: None, .. } => (Some(Need::Own), None),
        PolicyPeer::Pods { namespaces: Some(selector), .. } => {
            // There is no use in waiting for all their names.
            let all = *selector == Selector::default();
            (Some(Need::Selected(selector)), all.then_some(Need::Everywhere))
        }
    };
    one.into_iter().chain(other)
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
