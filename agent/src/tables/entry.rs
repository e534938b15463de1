//! One Service port as it stands in the tables.

use std::net::IpAddr;

use weir_ebpf::abi::{
    Backend, DropReason, Frontend, FrontendKey, FrontendKind, Peer, Run, Scope, ServiceId, SetWord,
    SourceRangeKey,
};

use crate::compile::{FrontendPlan, PortPlan, SetPlan};

/// What is written for a Service port.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: ServiceId,
    /// What it claims; another Service may have it.
    pub(super) claims: Vec<Claimed>,
    /// From where the load balancer's among them may be dialled.
    pub(super) ranges: Vec<SourceRangeKey>,
    pub(super) affinity_s: u32,
    pub(super) cluster: Set,
    pub(super) local: Set,
}

/// A frontend that a Service port claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Claimed {
    pub(super) key: FrontendKey,
    pub(super) kind: FrontendKind,
    /// Without [`Frontend::NODE_ADDRESS`], which the node says.
    pub(super) flags: u8,
}

impl Claimed {
    /// The address that clients dial.
    pub(super) fn addr(&self) -> IpAddr {
        self.key.peer().addr.into()
    }
}

impl Entry {
    /// A port that claims nothing and refuses.
    pub(super) fn new(id: ServiceId) -> Self {
        Self {
            id,
            claims: Vec::new(),
            ranges: Vec::new(),
            affinity_s: 0,
            cluster: Set::default(),
            local: Set::default(),
        }
    }

    pub(super) fn set(&mut self, scope: Scope) -> &mut Set {
        match scope {
            Scope::Cluster => &mut self.cluster,
            Scope::Local => &mut self.local,
        }
    }

    /// What it claims this frontend as.
    pub(super) fn claimed(&self, key: &FrontendKey) -> Option<&Claimed> {
        self.claims.iter().find(|claimed| claimed.key == *key)
    }

    /// The row of a frontend that it claims, with `more` flags.
    pub(super) fn frontend(&self, key: &FrontendKey, more: u8) -> Option<Frontend> {
        let Claimed { kind, flags, .. } = *self.claimed(key)?;
        Some(Frontend::new(self.id, self.affinity_s, kind, flags | more))
    }

    /// Whether a new flow may get this backend.
    pub(super) fn is_usable(&self, peer: Peer) -> bool {
        let wanted = Backend::new(peer, 0);
        [&self.cluster, &self.local]
            .iter()
            .any(|set| set.rows.binary_search_by(|row| row.order(&wanted)).is_ok())
    }
}

/// A set as it stands in the tables.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) run: Option<Run>,
    pub(super) rows: Vec<Backend>,
    pub(super) word: SetWord,
}

impl Default for Set {
    fn default() -> Self {
        Self { run: None, rows: Vec::new(), word: SetWord::empty(DropReason::NoEndpoint) }
    }
}

/// The rows of a set, sorted as the programs search them.
pub(super) fn rows(plan: &SetPlan) -> Vec<Backend> {
    let mut rows: Vec<Backend> = plan
        .backends
        .iter()
        .map(|(&addr, &local)| Backend::new(addr.into(), if local { Backend::LOCAL } else { 0 }))
        .collect();
    rows.sort_by(Backend::order);
    rows
}

/// What a port claims.
pub(super) fn claims(plan: &PortPlan) -> Vec<Claimed> {
    let claimed = |&FrontendPlan { addr, kind, flags }: &FrontendPlan| Claimed {
        key: FrontendKey::new(addr.into(), plan.name.protocol),
        kind,
        flags,
    };
    plan.frontends.iter().map(claimed).collect()
}

/// The rows of a port's source ranges.
pub(super) fn ranges(plan: &PortPlan, id: ServiceId) -> Vec<SourceRangeKey> {
    let row = |network: &ipnet::IpNet| {
        let mapped = if network.addr().is_ipv4() { V4_BITS } else { 0 };
        SourceRangeKey::range(id, network.addr().into(), mapped + u32::from(network.prefix_len()))
    };
    plan.source_ranges.iter().map(row).collect()
}

/// Bits before the IPv4 address in a v4-mapped one.
const V4_BITS: u32 = 96;
