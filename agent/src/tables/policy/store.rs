//! What the rows of policies are written to.

use weir_ebpf::abi::{
    Addr, BoundPod, ClassId, Enforcement, NetworkKey, PolicyName, PolicyNameKey, PortRule, PortRuleKey,
    PortRulesId, VerdictKey,
};

use crate::compile::policy::{Change, Fingerprint, Named};
use crate::tables::StoreError;

/// One row that is to be written; `None`: removed, where it is no error if there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicyWrite {
    /// `port_rules`
    PortRule(PortRuleKey, Option<PortRule>),
    /// `verdicts`
    Verdict(VerdictKey, Option<PortRulesId>),
    /// `network_classes`
    Network(NetworkKey, Option<ClassId>),
    /// `address_classes`
    Address(Addr, Option<ClassId>),
    /// `policy_names`
    Name(PolicyNameKey, Option<PolicyName>),
    /// `pod_policies`
    Pod(u32, Option<BoundPod>),
    /// `enforcement`
    Enforcement(Enforcement),
}

impl PolicyWrite {
    /// What a change of the compiler's writes; pods are put together with their devices first.
    pub(super) fn of(change: &Change) -> Option<Self> {
        Some(match *change {
            Change::PortRule(key, row) => Self::PortRule(key, row),
            Change::Verdict(key, row) => Self::Verdict(key, row),
            Change::Network(key, row) => Self::Network(key, row),
            Change::Address(key, row) => Self::Address(key, row),
            Change::Name(named, row) => Self::Name(name_key(named), row.map(name_row)),
            Change::Pod(..) | Change::Exact(..) => return None,
        })
    }
}

pub(super) fn name_key(named: Named) -> PolicyNameKey {
    match named {
        Named::Set(set) => PolicyNameKey { kind: PolicyNameKey::SET, id: set.0 },
        Named::Class(class) => PolicyNameKey { kind: PolicyNameKey::CLASS, id: class.0 },
        Named::Ports(ports) => PolicyNameKey { kind: PolicyNameKey::PORTS, id: ports.0 },
    }
}

pub(super) const fn name_row(name: Fingerprint) -> PolicyName {
    PolicyName(name.0)
}

/// What a row of the tables is about, in the order in which rows are tried again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Row {
    /// `policy_names`
    Name(u32, u32),
    /// `port_rules`
    PortRule(PortRuleKey),
    /// `verdicts`
    Verdict(VerdictKey),
    /// `network_classes`
    Network(NetworkKey),
    /// `address_classes`
    Address([u64; 2]),
}

impl Row {
    pub(super) fn of(change: &Change) -> Option<Self> {
        Some(match *change {
            Change::PortRule(key, _) => Self::PortRule(key),
            Change::Verdict(key, _) => Self::Verdict(key),
            Change::Network(key, _) => Self::Network(key),
            Change::Address(addr, _) => Self::Address(addr.halves()),
            Change::Name(named, _) => {
                let PolicyNameKey { kind, id } = name_key(named);
                Self::Name(kind, id)
            }
            Change::Pod(..) | Change::Exact(..) => return None,
        })
    }

    /// Its table's name.
    pub(super) const fn table(&self) -> &'static str {
        match self {
            Self::Name(..) => "policy_names",
            Self::PortRule(_) => "port_rules",
            Self::Verdict(_) => "verdicts",
            Self::Network(_) => "network_classes",
            Self::Address(_) => "address_classes",
        }
    }
}

/// Where rows are written. Nothing here reads.
pub trait PolicyStore {
    /// Writes one row.
    ///
    /// # Errors
    /// [`StoreError`]
    fn write_policy(&mut self, write: &PolicyWrite) -> Result<(), StoreError>;
}
