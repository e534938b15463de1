//! What policies ask of a source: by far not all pods of a cluster matter on each node.
//!
//! `state` works it out, the daemon hands it over, the sources that can choose follow it. Policies and the pods of this
//! node are always told; these are the others.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Which namespaces and which other nodes' pods the policies ask for that select a pod of this node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PolicyDemand {
    /// Namespaces, with their labels and what their annotations say.
    pub namespaces: NamespaceDemand,
    /// Pods of other nodes.
    pub pods: PodDemand,
}

/// Namespaces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NamespaceDemand {
    /// These.
    Of(BTreeSet<Arc<str>>),
    /// All of them.
    All,
}

impl Default for NamespaceDemand {
    /// None.
    fn default() -> Self {
        Self::Of(BTreeSet::new())
    }
}

/// Pods of other nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PodDemand {
    /// Those of these namespaces.
    Of(BTreeSet<Arc<str>>),
    /// Those of all namespaces.
    All,
}

impl Default for PodDemand {
    /// None.
    fn default() -> Self {
        Self::Of(BTreeSet::new())
    }
}

impl PolicyDemand {
    /// Everything.
    pub const ALL: Self = Self { namespaces: NamespaceDemand::All, pods: PodDemand::All };

    /// Whether all that it asks for is in what this asked for.
    #[must_use]
    pub fn is_met_by(&self, told: &Self) -> bool {
        let pods = match (&self.pods, &told.pods) {
            (_, PodDemand::All) => true,
            (PodDemand::All, PodDemand::Of(_)) => false,
            (PodDemand::Of(asked), PodDemand::Of(told)) => asked.is_subset(told),
        };
        let namespaces = match (&self.namespaces, &told.namespaces) {
            (_, NamespaceDemand::All) => true,
            (NamespaceDemand::All, NamespaceDemand::Of(_)) => false,
            (NamespaceDemand::Of(asked), NamespaceDemand::Of(told)) => asked.is_subset(told),
        };
        pods && namespaces
    }
}

/// How far what policies are about has been told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PolicySync {
    /// The server tells nothing of policies, or of the pods of this node. What is in force must stay as it is: that no
    /// policy is known does not mean that there is none.
    Refused,
    /// All policies, all pods of this node, and what this asks for. What the server refuses of the latter is missing;
    /// policies then allow less. ClusterNetworkPolicies are missing where it does not have them, or refuses them.
    Told(PolicyDemand),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_meets_what() {
        let of = |names: &[&str]| PodDemand::Of(names.iter().map(|name| Arc::from(*name)).collect());
        let none = NamespaceDemand::default;
        let some = |name: &str| NamespaceDemand::Of([name.into()].into());
        let demand = |namespaces, pods| PolicyDemand { namespaces, pods };
        let nothing = PolicyDemand::default();
        assert!(nothing.is_met_by(&nothing) && nothing.is_met_by(&PolicyDemand::ALL));
        assert!(demand(none(), of(&["a"])).is_met_by(&demand(none(), of(&["a", "b"]))));
        assert!(!demand(none(), of(&["a", "c"])).is_met_by(&demand(none(), of(&["a", "b"]))));
        assert!(!demand(NamespaceDemand::All, of(&[])).is_met_by(&demand(some("a"), PodDemand::All)));
        assert!(!demand(some("a"), of(&[])).is_met_by(&demand(some("b"), PodDemand::All)));
        assert!(demand(some("a"), of(&[])).is_met_by(&demand(NamespaceDemand::All, of(&[]))));
        assert!(!PolicyDemand::ALL.is_met_by(&demand(NamespaceDemand::All, of(&["a"]))));
    }
}
