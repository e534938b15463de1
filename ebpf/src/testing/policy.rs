//! [`PolicyTables`] as maps.

use std::collections::{BTreeMap, HashMap};

use crate::abi::{
    Addr, ClassId, NetworkKey, PodPolicy, Port, PortRule, PortRuleKey, PortRulesId, Prefix, VerdictKey,
};
use crate::datapath::policy::{PodPolicies, PolicyTables};

/// The tables of policies in memory.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct MemoryPolicy {
    /// How the pods with these addresses are isolated.
    pub pods: HashMap<Addr, PodPolicy>,
    /// `address_classes`
    pub addresses: HashMap<Addr, ClassId>,
    /// `network_classes`
    pub networks: BTreeMap<NetworkKey, ClassId>,
    /// `verdicts`
    pub verdicts: BTreeMap<VerdictKey, PortRulesId>,
    /// `port_rules`
    pub port_rules: BTreeMap<PortRuleKey, PortRule>,
}

impl PodPolicies for MemoryPolicy {
    fn lookup_pod_policy(&self, addr: Addr) -> Option<PodPolicy> {
        self.pods.get(&addr).copied()
    }
}

impl PolicyTables for MemoryPolicy {
    fn lookup_address_class(&self, addr: Addr) -> Option<ClassId> {
        self.addresses.get(&addr).copied()
    }

    fn lookup_network_class(&self, key: &NetworkKey) -> Option<ClassId> {
        let contains = |network: &NetworkKey| {
            network.prefix_len <= key.prefix_len
                && Prefix::new(network.addr(), network.prefix_len).contains(key.addr())
        };
        // The order of keys begins with their length.
        self.networks.iter().rev().find(|(network, _)| contains(network)).map(|(_, class)| *class)
    }

    fn lookup_verdict(&self, key: &VerdictKey) -> Option<PortRulesId> {
        self.verdicts.get(key).copied()
    }

    fn lookup_port_rule(&self, key: &PortRuleKey) -> Option<PortRule> {
        let mut bits = key.prefix_len.checked_sub(PortRuleKey::PROTOCOL_BITS)?;
        loop {
            let mask = u16::MAX.checked_shl(16 - bits).unwrap_or(0);
            let port = Port::new(key.port().host() & mask);
            let found = self.port_rules.get(&PortRuleKey::new(key.rules, key.protocol, port, bits));
            if let Some(rule) = found {
                return Some(*rule);
            }
            let Some(fewer) = bits.checked_sub(1) else { break };
            bits = fewer;
        }
        self.port_rules.get(&PortRuleKey::otherwise(key.rules)).copied()
    }
}
