//! What an agent before this one left of policies.

use std::collections::HashMap;

use weir_ebpf::abi::{
    Addr, BoundPod, ClassId, Enforcement, NetworkKey, PolicyName, PolicyNameKey, PolicySetId, PortRule,
    PortRuleKey, PortRulesId, VerdictKey,
};

use super::pods::closed_where_isolated;
use super::store::{PolicyStore, PolicyWrite, name_key, name_row};
use crate::compile::policy::{Change, Fingerprint, Named};
use crate::tables::StoreError;

/// The rows of the tables of policies.
#[derive(Clone, PartialEq, Debug, Default)]
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

    /// Whether an agent ever said what is true, be it that there are no policies.
    #[must_use]
    pub fn is_said(&self) -> bool {
        self.enforcement != Enforcement::default()
    }

    /// Writes all of it into the empty tables that take the place of these. How many rows found no room: where there are any,
    /// nothing is allowed to pods on the sides that are isolated, until the first update says what is true.
    ///
    /// # Errors
    /// Anything else than want of room.
    pub fn carry_to(&self, store: &mut impl PolicyStore) -> Result<usize, StoreError> {
        let mut left_out = 0;
        for write in self.rows() {
            left_out += usize::from(!takes(store, &write)?);
        }
        for (device, pod) in &self.pods {
            let mut pod = *pod;
            if left_out > 0 {
                pod.policy = closed_where_isolated(pod.policy);
            }
            takes(store, &PolicyWrite::Pod(*device, Some(pod)))?;
        }
        store.write_policy(&PolicyWrite::Enforcement(self.enforcement))?;
        Ok(left_out)
    }

    /// What policies mean, apart from whom they are about.
    fn rows(&self) -> impl Iterator<Item = PolicyWrite> {
        let ports = self.port_rules.iter().map(|(key, row)| PolicyWrite::PortRule(*key, Some(*row)));
        let verdicts = self.verdicts.iter().map(|(key, row)| PolicyWrite::Verdict(*key, Some(*row)));
        let names = self.names.iter().map(|(key, row)| PolicyWrite::Name(*key, Some(*row)));
        let networks = self.networks.iter().map(|(key, row)| PolicyWrite::Network(*key, Some(*row)));
        let addresses = self.addresses.iter().map(|(key, row)| PolicyWrite::Address(*key, Some(*row)));
        ports.chain(verdicts).chain(names).chain(networks).chain(addresses)
    }

    /// Whether this row is there already; it is said from now on.
    pub(super) fn take_same(&mut self, change: &Change) -> bool {
        match *change {
            Change::PortRule(key, row) => take(&mut self.port_rules, &key, row),
            Change::Verdict(key, row) => take(&mut self.verdicts, &key, row),
            Change::Network(key, row) => take(&mut self.networks, &key, row),
            Change::Address(key, row) => take(&mut self.addresses, &key, row),
            Change::Name(named, row) => take(&mut self.names, &name_key(named), row.map(name_row)),
            Change::Pod(..) | Change::Exact(..) => false,
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

/// Whether there was room for it.
fn takes(store: &mut impl PolicyStore, write: &PolicyWrite) -> Result<bool, StoreError> {
    match store.write_policy(write) {
        Ok(()) => Ok(true),
        Err(StoreError::Full { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn take<K: Eq + std::hash::Hash, R: PartialEq>(rows: &mut HashMap<K, R>, key: &K, row: Option<R>) -> bool {
    rows.remove(key) == row
}
