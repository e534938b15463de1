//! Policies that are in no namespace: which pods of this node they are for follows from labels of pods and of namespaces.

use std::sync::Arc;

use super::super::demand::Asker;
use super::{PodView, PolicyState};
use crate::source::{ClusterNetworkPolicy, Labels, ObjectKey, Pod};

/// Whether a policy is for a pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selected {
    /// It is not.
    No,
    /// It asks for labels of the pod's namespace, and that is not known (yet). Until it is, what the policy denies is denied,
    /// and what it accepts is not accepted.
    Perhaps,
    /// It is.
    Yes,
}

/// A policy without a namespace that is, or may be, for a pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterPolicyView<'a> {
    /// `metadata.name`
    pub name: &'a Arc<str>,
    /// The policy.
    pub policy: &'a ClusterNetworkPolicy,
    /// Never [`Selected::No`].
    pub selected: Selected,
}

/// For each pod of this node in a namespace, for each policy.
pub(super) type SelectedHere = Vec<Vec<Selected>>;

impl PolicyState {
    /// The policies without a namespace that are, or may be, for a pod, in the order in which they are asked: by tier, then by
    /// priority. Of two with the same the name decides: any order is right (API comment on `priority`), and every node is to
    /// have the same.
    #[must_use]
    pub fn cluster_policies(&self, view: &PodView<'_>) -> Vec<ClusterPolicyView<'_>> {
        let all = self.cluster.iter().map(|(name, policy)| {
            let selected = self.selects(policy, view.namespace, &view.pod.labels);
            ClusterPolicyView { name, policy, selected }
        });
        let mut found: Vec<_> = all.filter(|one| one.selected != Selected::No).collect();
        found.sort_by_key(|one| (one.policy.tier, one.policy.priority));
        found
    }

    pub(super) fn selects(
        &self,
        policy: &ClusterNetworkPolicy,
        namespace: &str,
        labels: &Labels,
    ) -> Selected {
        let subject = &policy.subject;
        if !subject.pods.matches(labels) {
            return Selected::No;
        }
        if subject.namespaces.selects_all() {
            return Selected::Yes;
        }
        match self.namespaces.get(namespace) {
            None => Selected::Perhaps,
            Some(namespace) if subject.namespaces.matches(&namespace.labels) => Selected::Yes,
            Some(_) => Selected::No,
        }
    }

    /// The pods here that it selects or selected.
    pub(in crate::state) fn apply_cluster_policy(
        &mut self,
        name: &Arc<str>,
        policy: Option<ClusterNetworkPolicy>,
    ) {
        let before = self.cluster.get(name);
        if before == policy.as_ref() {
            return;
        }
        let is_for = |policy: Option<&ClusterNetworkPolicy>, namespace: &str, pod: &Pod| {
            policy.is_some_and(|policy| self.selects(policy, namespace, &pod.labels) != Selected::No)
        };
        let (mut touched, mut selects) = (Vec::<std::net::IpAddr>::new(), 0);
        for (namespace, pod) in self.all_pods_here() {
            let (was, is) = (is_for(before, namespace, pod), is_for(policy.as_ref(), namespace, pod));
            selects += usize::from(is);
            if was || is {
                touched.extend(&pod.addresses);
            }
        }
        let askers = (before.map(Asker::Cluster), policy.as_ref().map(Asker::Cluster));
        self.demand.set_policy(&asker_key(name), askers, selects, &self.namespaces);
        let is_audited =
            |policy: Option<&ClusterNetworkPolicy>| policy.is_some_and(|policy| policy.modes.audit);
        self.audited += usize::from(is_audited(policy.as_ref()));
        self.audited -= usize::from(is_audited(self.cluster.get(name)));
        self.changes.workloads.extend(touched);
        match policy {
            Some(policy) => drop(self.cluster.insert(name.clone(), policy)),
            None => drop(self.cluster.remove(name)),
        }
    }

    /// A pod of this node in this namespace has other labels, or came, or went.
    pub(super) fn count_for_cluster(
        &mut self,
        namespace: &str,
        before: Option<&Labels>,
        after: Option<&Labels>,
    ) {
        for (name, policy) in &self.cluster {
            let is_for = |labels: Option<&Labels>| {
                labels.is_some_and(|labels| self.selects(policy, namespace, labels) != Selected::No)
            };
            let (before, after) = (is_for(before), is_for(after));
            if before != after {
                let asker = Asker::Cluster(policy);
                self.demand.count_pod(&asker_key(name), asker, after, &self.namespaces);
            }
        }
    }

    /// How the pods of this node in a namespace are selected.
    pub(super) fn selected_here(&self, namespace: &str) -> SelectedHere {
        let of_pod = |pod: &Pod| {
            self.cluster.values().map(|policy| self.selects(policy, namespace, &pod.labels)).collect()
        };
        self.pods_here(namespace).map(of_pod).collect()
    }

    /// A namespace has changed. `before`: how its pods here were selected. `audit`: its policies came to be audited, or ceased.
    pub(super) fn move_namespace_here(&mut self, name: &Arc<str>, before: &SelectedHere, audit: bool) {
        let after = self.selected_here(name);
        let pods = self.pods_here(name).zip(before.iter().zip(&after));
        let touched = pods.filter(|(_, (before, after))| audit || before != after);
        let touched: Vec<_> = touched.flat_map(|(pod, _)| &pod.addresses).copied().collect();
        self.changes.workloads.extend(touched);
        for (before, after) in before.iter().zip(after) {
            for ((policy_name, policy), (before, after)) in self.cluster.iter().zip(before.iter().zip(after))
            {
                let is_for = |selected: Selected| selected != Selected::No;
                if is_for(*before) != is_for(after) {
                    let asker = Asker::Cluster(policy);
                    self.demand.count_pod(&asker_key(policy_name), asker, is_for(after), &self.namespaces);
                }
            }
        }
    }

    fn all_pods_here(&self) -> impl Iterator<Item = (&str, &Pod)> {
        self.here.keys().flat_map(|namespace| self.pods_here(namespace).map(move |pod| (&**namespace, pod)))
    }
}

/// Under what the demand knows it.
fn asker_key(name: &Arc<str>) -> ObjectKey {
    ObjectKey::new("", name.clone())
}
