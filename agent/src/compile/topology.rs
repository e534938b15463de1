//! Which endpoints a node's clients may use: traffic policies, hints and the fallback to terminating endpoints.
//!
//! Called by [`compile_service`](super::compile_service) for each port of a Service in each family. The rules
//! are those of kube-proxy's `CategorizeEndpoints`; KEP-2086 (internalTrafficPolicy), KEP-2433, KEP-3015 and
//! KEP-4444 (hints), KEP-1669 (terminating endpoints).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::source::{Endpoint, TrafficPolicy};
use crate::state::NodeView;

/// Backends, each with whether it is on this node.
pub type Backends = BTreeMap<SocketAddr, bool>;

/// An endpoint and the port of it that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate<'a> {
    /// Where it is reached.
    pub addr: SocketAddr,
    /// Its conditions and hints.
    pub endpoint: &'a Endpoint,
    /// Whether it is on this node.
    pub local: bool,
}

impl Candidate<'_> {
    /// It is going away but still answers: good enough where nothing better is left (KEP-1669).
    fn drains(&self) -> bool {
        self.endpoint.serving && self.endpoint.terminating
    }
}

/// The traffic policies of a Service port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policies {
    /// For clients in the cluster.
    pub internal: TrafficPolicy,
    /// For clients outside; `None` where the port cannot be reached from there.
    pub external: Option<TrafficPolicy>,
}

impl Policies {
    /// Whether anybody is served from the whole cluster. What is reachable from outside always is: in-cluster
    /// clients of an external address use every endpoint even where `externalTrafficPolicy` is Local.
    fn use_cluster(self) -> bool {
        self.internal == TrafficPolicy::Cluster || self.external.is_some()
    }

    /// Whether anybody is served from this node alone.
    fn use_local(self) -> bool {
        self.internal == TrafficPolicy::Local || self.external == Some(TrafficPolicy::Local)
    }
}

/// What [`select_backends`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selection {
    /// For clients under policy Cluster; `None` where there are none.
    pub cluster: Option<Backends>,
    /// For clients under policy Local; `None` where there are none.
    pub local: Option<Backends>,
    /// Whether an endpoint is usable on any node: an empty `local` then means "elsewhere", not "nowhere".
    pub has_any: bool,
}

impl Selection {
    /// Every backend that some client of this node may get.
    #[must_use]
    pub fn all_reachable(&self) -> Backends {
        self.cluster.iter().chain(&self.local).flatten().map(|(addr, local)| (*addr, *local)).collect()
    }
}

/// Sorts out a Service port's endpoints. Whether terminating ones have to do is decided for each list by itself.
#[must_use]
pub fn select_backends(candidates: &[Candidate<'_>], policies: Policies, node: &NodeView) -> Selection {
    Selection {
        cluster: policies.use_cluster().then(|| select_cluster(candidates, node)),
        local: policies.use_local().then(|| select_local(candidates)),
        has_any: candidates.iter().any(|candidate| candidate.endpoint.ready || candidate.drains()),
    }
}

fn select_cluster(candidates: &[Candidate<'_>], node: &NodeView) -> Backends {
    select_usable(candidates, select_nearness(candidates, node))
}

/// Policy Local is stricter than any hint, so hints mean nothing here.
fn select_local(candidates: &[Candidate<'_>]) -> Backends {
    let here: Vec<_> = candidates.iter().copied().filter(|candidate| candidate.local).collect();
    select_usable(&here, Nearness::Anywhere)
}

/// The ready ones that are near enough; those that drain if nothing is ready.
fn select_usable(candidates: &[Candidate<'_>], nearness: Nearness<'_>) -> Backends {
    let ready =
        collect(candidates, |candidate| candidate.endpoint.ready && nearness.admits(candidate.endpoint));
    if ready.is_empty() { collect(candidates, |candidate| candidate.drains()) } else { ready }
}

fn collect(candidates: &[Candidate<'_>], take: impl Fn(&Candidate<'_>) -> bool) -> Backends {
    candidates.iter().filter(|candidate| take(candidate)).map(|found| (found.addr, found.local)).collect()
}

/// How near an endpoint has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Nearness<'a> {
    /// Hinted for this node.
    Node(&'a str),
    /// Hinted for this zone.
    Zone(&'a str),
    /// Anywhere.
    Anywhere,
}

impl Nearness<'_> {
    fn admits(self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Node(node) => has(&endpoint.node_hints, node),
            Self::Zone(zone) => has(&endpoint.zone_hints, zone),
            Self::Anywhere => true,
        }
    }
}

/// The nearest kind of hint that can be followed. `trafficDistribution` itself is not asked: it is what made the
/// control plane write the hints.
fn select_nearness<'a>(candidates: &[Candidate<'_>], node: &'a NodeView) -> Nearness<'a> {
    if can_follow(candidates, |endpoint| &endpoint.node_hints, &node.name) {
        return Nearness::Node(&node.name);
    }
    match node.zone.as_deref() {
        Some(zone) if can_follow(candidates, |endpoint| &endpoint.zone_hints, zone) => Nearness::Zone(zone),
        _ => Nearness::Anywhere,
    }
}

/// Hints are followed only if every ready endpoint has one (a missing one means that the control plane has not
/// finished) and one of them is meant for `here` (or nobody would be left).
fn can_follow(candidates: &[Candidate<'_>], hints: impl Fn(&Endpoint) -> &[Arc<str>], here: &str) -> bool {
    let mut found = false;
    for candidate in candidates.iter().filter(|candidate| candidate.endpoint.ready) {
        let hints = hints(candidate.endpoint);
        if hints.is_empty() {
            return false;
        }
        found |= has(hints, here);
    }
    found
}

fn has(hints: &[Arc<str>], here: &str) -> bool {
    hints.iter().any(|hint| &**hint == here)
}
