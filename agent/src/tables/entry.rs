//! One Service port as it stands in the tables.

use std::collections::BTreeSet;

use weir_ebpf::abi::{Backend, DropReason, Frontend, FrontendKey, Peer, Run, ServiceId, SetWord, Side};

use crate::compile::{FrontendPlan, PortName, PortPlan, SetPlan};

/// What is written for a Service port.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: ServiceId,
    /// What it claims; another Service may have it.
    pub(super) claims: Vec<FrontendKey>,
    /// Addresses of which it refuses the other ports.
    pub(super) owned: BTreeSet<std::net::IpAddr>,
    pub(super) affinity_s: u32,
    pub(super) internal: Set,
    pub(super) external: Set,
}

impl Entry {
    /// A port that claims nothing and refuses.
    pub(super) fn new(id: ServiceId) -> Self {
        Self {
            id,
            claims: Vec::new(),
            owned: BTreeSet::new(),
            affinity_s: 0,
            internal: Set::default(),
            external: Set::default(),
        }
    }

    pub(super) fn set(&mut self, side: Side) -> &mut Set {
        match side {
            Side::Internal => &mut self.internal,
            Side::External => &mut self.external,
        }
    }

    pub(super) fn frontend(&self) -> Frontend {
        Frontend { service: self.id, affinity_s: self.affinity_s }
    }

    /// Whether a new flow may get this backend.
    pub(super) fn is_usable(&self, peer: Peer) -> bool {
        [&self.internal, &self.external]
            .iter()
            .any(|set| set.rows.binary_search_by(|row| row.peer().order(&peer)).is_ok())
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
    rows.sort_by(|a, b| a.peer().order(&b.peer()));
    rows
}

/// The keys of a port's frontends.
pub(super) fn keys(plan: &PortPlan) -> Vec<FrontendKey> {
    plan.frontends.iter().map(|frontend| key(frontend, &plan.name)).collect()
}

fn key(frontend: &FrontendPlan, port: &PortName) -> FrontendKey {
    FrontendKey::new(frontend.addr.into(), port.protocol)
}
