//! The mirror of what is in the store: what others ask of it. How a port is changed is in `ports`, how a set is in
//! `sets`.
//!
//! The order of writing: what is pointed to before what points to it (backends, set, name, frontends), deletions
//! in the opposite order, and no place is used again before a grace period has passed.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use weir_ebpf::abi::{AddressUses, FrontendKey, FrontendKind, Peer, Protocol, Run, Scope, ServiceId};

use super::addresses::Addresses;
use super::claims::Claims;
use super::entry::Entry;
use super::rows::{Frontends, Rows, SourceRanges};
use super::runs::Runs;
use super::store::{Sizes, Store, StoreError};
use crate::compile::{PortName, ServicePlan};
use crate::source::{ObjectKey, Problem};

/// Both sets of a Service port.
pub(super) const SCOPES: [Scope; 2] = [Scope::Cluster, Scope::Local];

/// Rows in use, for `weir status` and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Frontends, those that stand for whole addresses included.
    pub frontends: usize,
    /// Service ports.
    pub services: usize,
    /// Places for backends.
    pub backends: u32,
    /// Networks from where load balancers' addresses may be dialled.
    pub source_ranges: usize,
}

/// Places and numbers that were given up and that a program may still be reading.
#[derive(Debug, Default)]
#[must_use]
pub struct Retired {
    pub(super) runs: Vec<Run>,
    pub(super) ids: Vec<ServiceId>,
}

impl Retired {
    /// Both together.
    pub fn and(mut self, other: Self) -> Self {
        self.runs.extend(other.runs);
        self.ids.extend(other.ids);
        self
    }
}

/// A Service that has something in the store.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) ports: Vec<PortName>,
    /// Every address that stands in one of its slices.
    present: BTreeSet<IpAddr>,
}

/// What is in the store, and what of it may be used again.
#[derive(Debug)]
pub struct Tables {
    pub(super) sizes: Sizes,
    pub(super) entries: HashMap<PortName, Entry>,
    pub(super) by_id: HashMap<ServiceId, PortName>,
    pub(super) services: HashMap<ObjectKey, Known>,
    pub(super) claims: Claims,
    pub(super) frontends: Rows<Frontends>,
    pub(super) source_ranges: Rows<SourceRanges>,
    pub(super) addresses: Addresses,
    pub(super) runs: Runs,
    /// Numbers that were used before, the longest unused first.
    pub(super) free_ids: VecDeque<ServiceId>,
    pub(super) next_id: u32,
    pub(super) retired: Retired,
    /// What could not be written, by Service.
    refused: BTreeMap<ObjectKey, Vec<Problem>>,
    /// Rows for addresses of this node that could not be written, and why.
    refused_of_node: Vec<(FrontendKey, String)>,
    /// Whether one of the two changed since [`Tables::take_problems_changed`].
    refused_changed: bool,
    /// A backend or a port went away since [`Tables::take_stale`].
    pub(super) stale: bool,
}

impl Tables {
    /// Over an empty store.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        Self {
            sizes,
            entries: HashMap::new(),
            by_id: HashMap::new(),
            services: HashMap::new(),
            claims: Claims::default(),
            frontends: Rows::new(sizes.frontends),
            source_ranges: Rows::new(sizes.source_ranges),
            addresses: Addresses::default(),
            runs: Runs::new(sizes.backends),
            free_ids: VecDeque::new(),
            next_id: 0,
            retired: Retired::default(),
            refused: BTreeMap::new(),
            refused_of_node: Vec::new(),
            refused_changed: false,
            stale: false,
        }
    }

    /// Makes the store say about a Service what the plan says; nothing for a Service without a plan. What cannot
    /// be written stays as it was and is said by [`Tables::problems`].
    pub fn apply(&mut self, service: &ObjectKey, plan: Option<&ServicePlan>, store: &mut impl Store) {
        let mut problems = Vec::new();
        let ports = plan.map(|plan| plan.ports.as_slice()).unwrap_or_default();
        let wanted: BTreeSet<&PortName> = ports.iter().map(|port| &port.name).collect();
        let before = self.services.remove(service).unwrap_or_default();
        let present = plan.map(|plan| plan.present.clone()).unwrap_or_default();
        self.stale |= !before.present.is_subset(&present);
        for port in ports {
            let created_s = plan.and_then(|plan| plan.created_s);
            if let Err(error) = self.apply_port(port, created_s, store) {
                problems.push(problem(&port.name, &error));
            }
        }
        // Last: a port that was renamed takes its frontends over in one step each.
        for name in before.ports.iter().filter(|name| !wanted.contains(name)) {
            self.remove_port(name, store, &mut problems);
        }
        let ports: Vec<PortName> = ports
            .iter()
            .map(|port| &port.name)
            .filter(|name| self.entries.contains_key(name))
            .cloned()
            .collect();
        if !ports.is_empty() {
            self.services.insert(service.clone(), Known { ports, present });
        }
        let before = self.refused.remove(service);
        self.refused_changed |= before.is_some() || !problems.is_empty();
        if !problems.is_empty() {
            self.refused.insert(service.clone(), problems);
        }
    }

    /// What the addresses of this node are used for from now on: touches their rows, and those of frontends at addresses
    /// that became or ceased to be the node's. What cannot be written is said by [`Tables::node_problems`].
    pub fn apply_addresses(&mut self, node: &BTreeMap<IpAddr, AddressUses>, store: &mut impl Store) {
        let changed: BTreeSet<IpAddr> = self.addresses.set_node(node.clone()).into_iter().collect();
        if changed.is_empty() {
            return;
        }
        let of_services = self.claims.keys_at(&changed);
        let whole = changed.into_iter().map(|addr| FrontendKey::whole_address(addr.into()));
        for key in of_services.into_iter().chain(whole) {
            if let Err(error) = self.write_frontend(&key, store) {
                self.refused_of_node.retain(|(refused, _)| *refused != key);
                self.refused_of_node.push((key, error.to_string()));
                self.refused_changed = true;
            }
        }
    }

    /// Takes note that this row is what it should be.
    pub(super) fn is_as_wanted(&mut self, key: &FrontendKey) {
        let before = self.refused_of_node.len();
        self.refused_of_node.retain(|(refused, _)| refused != key);
        self.refused_changed |= self.refused_of_node.len() != before;
    }

    /// Waits for a grace period if anything was replaced, and makes it usable again. Returns the Services that
    /// found a table full and may have room now.
    ///
    /// # Errors
    /// Those of [`Store::wait_grace`]: then what was replaced is not used again before a restart.
    pub fn settle(&mut self, store: &mut impl Store) -> Result<Vec<ObjectKey>, StoreError> {
        let Some(retired) = self.take_retired() else { return Ok(Vec::new()) };
        store.wait_grace()?;
        Ok(self.release(retired))
    }

    /// What was replaced and is not yet usable again. For who waits for the grace period elsewhere, and calls
    /// [`Tables::release`] when it is over.
    pub fn take_retired(&mut self) -> Option<Retired> {
        let retired = std::mem::take(&mut self.retired);
        // A number that a frontend still leads to must not become another Service's.
        let leads =
            |id: &ServiceId| self.frontends.still_leads_to(*id) || self.source_ranges.still_leads_to(*id);
        let (held, ids) = retired.ids.into_iter().partition(leads);
        self.retired.ids = held;
        let retired = Retired { ids, ..retired };
        (!retired.runs.is_empty() || !retired.ids.is_empty()).then_some(retired)
    }

    /// Makes usable what [`Tables::take_retired`] gave, a grace period after that. Returns the Services that found
    /// a table full and may have room now.
    pub fn release(&mut self, retired: Retired) -> Vec<ObjectKey> {
        for run in retired.runs {
            self.runs.give(run);
        }
        self.free_ids.extend(retired.ids);
        self.refused.keys().cloned().collect()
    }

    /// Whether the store refused something that is to be tried again.
    #[must_use]
    pub fn has_refused(&self) -> bool {
        !self.refused.is_empty() || !self.frontends.is_written() || !self.source_ranges.is_written()
    }

    /// Tries again to write frontends and source ranges that the store refused. Returns the Services to be applied again: what of
    /// theirs was refused may be accepted now.
    pub fn retry(&mut self, store: &mut impl Store) -> Vec<ObjectKey> {
        for key in self.frontends.unwritten() {
            if let Err(error) = self.write_frontend(&key, store) {
                tracing::debug!("{}: still: {error}", key.peer());
            }
        }
        for range in self.source_ranges.unwritten() {
            if let Err(error) = self.write_ranges(&[range], store) {
                tracing::debug!("{range:?}: still: {error}");
            }
        }
        self.refused.keys().cloned().collect()
    }

    /// Services that have something in the store.
    pub fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.services.keys()
    }

    /// The Service that has this frontend; node ports are under the unspecified address.
    #[must_use]
    pub fn service_at(&self, frontend: Peer, protocol: Protocol) -> Option<&ObjectKey> {
        self.claims.owner(&FrontendKey::new(frontend, protocol)).map(|port| &port.service)
    }

    /// Whether sockets may have lost their backend since this was last asked.
    pub fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.stale)
    }

    /// Has [`Tables::take_stale`] say that sockets may have lost their backend.
    pub fn suspect_sockets(&mut self) {
        self.stale = true;
    }

    /// Whether a socket that was translated for that Service port to this backend is to be closed: when the port is
    /// gone; for UDP when no new flow would get the backend; for TCP only when its address left every slice of the
    /// Service, so that connections drain (KEP-1669).
    #[must_use]
    pub fn is_stale(&self, id: ServiceId, backend: Peer, protocol: Protocol) -> bool {
        let Some(name) = self.by_id.get(&id) else { return true };
        match protocol {
            Protocol::Udp => !self.entries.get(name).is_some_and(|entry| entry.is_usable(backend)),
            Protocol::Tcp | Protocol::Sctp => {
                let present = self.services.get(&name.service).map(|known| &known.present);
                !present.is_some_and(|present| present.contains(&backend.addr.into()))
            }
        }
    }

    /// Whether [`Tables::problems`] or [`Tables::node_problems`] may say something else than when this was last asked.
    pub fn take_problems_changed(&mut self) -> bool {
        std::mem::take(&mut self.refused_changed) | self.claims.take_changed()
    }

    /// What could not be written, and the frontends that two Services claim.
    pub fn problems(&self) -> impl Iterator<Item = (ObjectKey, Problem)> {
        let refused = self.refused.iter().flat_map(|(service, problems)| {
            problems.iter().map(|problem| (service.clone(), problem.clone()))
        });
        let waiting = self.claims.waiting();
        refused.chain(waiting.map(|(port, key)| (port.service.clone(), self.conflict(port, key))))
    }

    /// The node's addresses that could not be written.
    pub fn node_problems(&self) -> impl Iterator<Item = Problem> {
        self.refused_of_node.iter().map(|(key, error)| Problem {
            field: "addresses".into(),
            message: format!("{}: {error}: tried again when there is room", key.peer().addr),
        })
    }

    /// A frontend that this port claims, and another has.
    fn conflict(&self, port: &PortName, key: &FrontendKey) -> Problem {
        let kind = self.entries.get(port).and_then(|entry| entry.claimed(key)).map(|claimed| claimed.kind);
        let owner = self.claims.owner(key).map(ToString::to_string).unwrap_or_default();
        let (field, what) = match kind {
            Some(FrontendKind::NodePort) => (
                format!("spec.ports[{}].nodePort", port.port),
                format!("node port {}", key.peer().port.host()),
            ),
            Some(FrontendKind::LoadBalancer) => {
                ("status.loadBalancer.ingress".into(), key.peer().to_string())
            }
            Some(FrontendKind::ExternalIp) => ("spec.externalIPs".into(), key.peer().to_string()),
            Some(FrontendKind::ClusterIp) | None => ("spec.clusterIPs".into(), key.peer().to_string()),
        };
        let protocol = port.protocol;
        let message = format!(
            "{what} {protocol} is already served for {owner}: the older Service keeps it, {port} is not served there"
        );
        Problem { field, message }
    }

    /// Rows in use.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            frontends: self.frontends.len(),
            services: self.entries.len(),
            backends: self.runs.used(),
            source_ranges: self.source_ranges.len(),
        }
    }
}

pub(super) fn problem(port: &PortName, error: &StoreError) -> Problem {
    Problem {
        field: format!("spec.ports[{}] {} {}", port.port, port.protocol, port.family),
        message: format!("{error}: tried again when there is room"),
    }
}
