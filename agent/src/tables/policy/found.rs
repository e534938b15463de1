//! What an agent before this one left of policies.

use std::collections::HashMap;

use weir_ebpf::abi::{
    Addr, BoundPod, ClassId, Enforcement, NetworkKey, PolicyName, PolicyNameKey, PolicySetId, PortRule,
    PortRuleKey, PortRulesId, VerdictKey,
};

use super::store::{name_key, name_row};
use crate::compile::policy::{Change, Fingerprint, Named};

/// The rows of the tables of policies.
#[derive(Clone, Debug, Default)]
pub struct PolicySnapshot {
    /// `enforcement`
    pub enforcement: Enforcement,
    /// `pod_policies`
    pub pods: HashMap<u32, BoundPod>,
    /// `address_classes`
    pub addresses: HashMap<Addr, ClassId>,
    /// `network_classes`
    pub networks: HashMap<NetworkKey, ClassId>,
    /// `verdicts`
    pub verdicts: HashMap<VerdictKey, PortRulesId>,
    /// `port_rules`
    pub port_rules: HashMap<PortRuleKey, PortRule>,
    /// `policy_names`
    pub names: HashMap<PolicyNameKey, PolicyName>,
}

impl PolicySnapshot {
    /// What the numbers in the tables mean.
    pub fn named(&self) -> impl Iterator<Item = (Named, Fingerprint)> {
        self.names.iter().filter_map(|(key, name)| {
            let named = match key.kind {
                PolicyNameKey::SET => Named::Set(PolicySetId(key.id)),
                PolicyNameKey::CLASS => Named::Class(ClassId(key.id)),
                PolicyNameKey::PORTS => Named::Ports(PortRulesId(key.id)),
                _ => return None,
            };
            Some((named, Fingerprint(name.0)))
        })
    }

    /// Whether this row is there already; it is said from now on.
    pub(super) fn take_same(&mut self, change: &Change) -> bool {
        match *change {
            Change::PortRule(key, row) => take(&mut self.port_rules, &key, row),
            Change::Verdict(key, row) => take(&mut self.verdicts, &key, row),
            Change::Network(key, row) => take(&mut self.networks, &key, row),
            Change::Address(key, row) => take(&mut self.addresses, &key, row),
            Change::Name(named, row) => take(&mut self.names, &name_key(named), row.map(name_row)),
            Change::Pod(..) => false,
        }
    }

    /// Removals of what nobody has said: of classes at once, of the rest after a grace period. Names go with the garbage of
    /// the first update, which knows which of them were not recognized.
    pub(super) fn unsaid(self) -> (Vec<Change>, Vec<Change>) {
        let networks = self.networks.into_keys().map(|key| Change::Network(key, None));
        let addresses = self.addresses.into_keys().map(|key| Change::Address(key, None));
        let verdicts = self.verdicts.into_keys().map(|key| Change::Verdict(key, None));
        let port_rules = self.port_rules.into_keys().map(|key| Change::PortRule(key, None));
        (addresses.chain(networks).collect(), verdicts.chain(port_rules).collect())
    }
}

fn take<K: Eq + std::hash::Hash, R: PartialEq>(rows: &mut HashMap<K, R>, key: &K, row: Option<R>) -> bool {
    rows.remove(key) == row
}
