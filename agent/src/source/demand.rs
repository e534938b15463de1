//! What policies ask of a source: by far not all pods of a cluster matter on each node.
//!
//! `state` works it out, the daemon hands it over, the sources that can choose follow it. Policies and the pods of this
//! node are always told; these are the others.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Which namespaces and which other nodes' pods the policies ask for that select a pod of this node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PolicyDemand {
    /// All Namespaces, with their labels.
    pub namespaces: bool,
    /// Pods of other nodes.
    pub pods: PodDemand,
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
    pub const ALL: Self = Self { namespaces: true, pods: PodDemand::All };

    /// Whether all that it asks for is in what this asked for.
    #[must_use]
    pub fn is_met_by(&self, told: &Self) -> bool {
        let pods = match (&self.pods, &told.pods) {
            (_, PodDemand::All) => true,
            (PodDemand::All, PodDemand::Of(_)) => false,
            (PodDemand::Of(asked), PodDemand::Of(told)) => asked.is_subset(told),
        };
        pods && (told.namespaces || !self.namespaces)
    }
}

/// How far what policies are about has been told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PolicySync {
    /// The server tells nothing of policies, or of the pods of this node. What is in force must stay as it is: that no
    /// policy is known does not mean that there is none.
    Refused,
    /// All policies, all pods of this node, and what this asks for. What the server refuses of the latter is missing;
    /// policies then allow less.
    Told(PolicyDemand),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_meets_what() {
        let of = |names: &[&str]| PodDemand::Of(names.iter().map(|name| Arc::from(*name)).collect());
        let demand = |namespaces, pods| PolicyDemand { namespaces, pods };
        let nothing = PolicyDemand::default();
        assert!(nothing.is_met_by(&nothing) && nothing.is_met_by(&PolicyDemand::ALL));
        assert!(demand(false, of(&["a"])).is_met_by(&demand(false, of(&["a", "b"]))));
        assert!(!demand(false, of(&["a", "c"])).is_met_by(&demand(false, of(&["a", "b"]))));
        assert!(!demand(true, of(&[])).is_met_by(&demand(false, PodDemand::All)));
        assert!(!PolicyDemand::ALL.is_met_by(&demand(true, of(&["a"]))));
    }
}
