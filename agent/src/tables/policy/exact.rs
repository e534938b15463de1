//! Sets by which somebody may be allowed more for want of a row: those that deny by rows, where whoever has none is allowed
//! more. While a row that they need is missing, they are closed to their pods.
//!
//! A verdict or a port matters to the sets that ask for it, an address or a network to all of them: which of them tell it apart
//! is not known here. Of a network that was in the table, the class before stays in its row (a full LPM trie refuses another
//! value as well, in kernels of before December 2024), and nothing is said of that one any more once its verdicts are gone: whom it denied
//! has the answer for everybody. For sets that only allow networks have a rule of their own ([`super::pods`]).

use std::collections::{BTreeMap, BTreeSet};

use weir_ebpf::abi::{ClassId, PolicySetId, PortRulesId};

use super::store::Row;
use crate::compile::policy::Change;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Exact {
    /// What each class may use by each of them.
    sets: BTreeMap<PolicySetId, BTreeMap<ClassId, PortRulesId>>,
}

impl Exact {
    /// Takes note of what is about to be written.
    pub(super) fn note(&mut self, change: &Change) {
        match *change {
            Change::Exact(set, true) => drop(self.sets.insert(set, BTreeMap::new())),
            Change::Exact(set, false) => drop(self.sets.remove(&set)),
            Change::Verdict(key, rules) => {
                if let Some(classes) = self.sets.get_mut(&key.set) {
                    match rules {
                        Some(rules) => classes.insert(key.class, rules),
                        None => classes.remove(&key.class),
                    };
                }
            }
            _ => {}
        }
    }

    /// Those that are to be closed while these rows are missing.
    pub(super) fn closed<'a>(&self, missing: impl Iterator<Item = &'a Row>) -> BTreeSet<PolicySetId> {
        let mut closed = BTreeSet::new();
        for row in missing {
            match row {
                Row::Address(_) | Row::Network(_) => return self.sets.keys().copied().collect(),
                Row::Verdict(key) => closed.extend(self.sets.contains_key(&key.set).then_some(key.set)),
                Row::PortRule(key) => {
                    let uses = |(_, classes): &(_, &BTreeMap<_, PortRulesId>)| {
                        classes.values().any(|rules| *rules == key.rules)
                    };
                    closed.extend(self.sets.iter().filter(uses).map(|(set, _)| *set));
                }
                Row::Name(..) => {}
            }
        }
        closed
    }
}
