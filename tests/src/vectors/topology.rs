//! `topology.json`: kube-proxy's `CategorizeEndpoints` tests, against [`select_backends`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::Deserialize;
use weir_agent::compile::topology::{Backends, Candidate, Policies, Selection, select_backends};
use weir_agent::source::{Endpoint, TrafficPolicy};
use weir_agent::state::NodeView;

use super::tally::{Outcome, Tally};

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// One case of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Case {
    name: String,
    prefer_same_traffic_distribution_enabled: bool,
    node_name: String,
    node_labels: BTreeMap<String, String>,
    service: ServiceRow,
    endpoints: Vec<EndpointRow>,
    expected: Expected,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceRow {
    external_traffic_policy_local: bool,
    internal_traffic_policy_local: bool,
    node_port: u16,
    uses_cluster_endpoints: bool,
    uses_local_endpoints: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointRow {
    endpoint: SocketAddr,
    is_local: bool,
    ready: bool,
    serving: bool,
    terminating: bool,
    zone_hints: Vec<String>,
    node_hints: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Expected {
    cluster: Option<BTreeSet<SocketAddr>>,
    local: Option<BTreeSet<SocketAddr>>,
    all_reachable: BTreeSet<SocketAddr>,
    has_any_endpoints: bool,
}

/// Judges every case.
#[must_use]
pub fn judge(cases: &[Case]) -> Tally {
    let mut tally = Tally::default();
    for case in cases {
        tally.add(case.name.clone(), judge_case(case));
    }
    tally
}

/// The same cases, each with another expectation; a harness that works fails every one of them.
#[must_use]
pub fn altered(cases: &[Case]) -> Vec<Case> {
    let stranger = SocketAddr::from(([192, 0, 2, 1], 9));
    let mut altered = Vec::new();
    for case in cases {
        let mut alter = |change: &dyn Fn(&mut Expected)| {
            let mut other = case.clone();
            change(&mut other.expected);
            altered.push(other);
        };
        alter(&|expected| expected.has_any_endpoints ^= true);
        alter(&|expected| assert!(expected.all_reachable.insert(stranger)));
        alter(&|expected| assert!(expected.cluster.get_or_insert_default().insert(stranger)));
        alter(&|expected| assert!(expected.local.get_or_insert_default().insert(stranger)));
    }
    altered
}

fn judge_case(case: &Case) -> Outcome {
    let found = select(case);
    let Expected { cluster, local, all_reachable, has_any_endpoints } = &case.expected;
    let checks = [
        check_list("cluster", cluster.as_ref(), case.service.uses_cluster_endpoints, found.cluster.as_ref()),
        check_list("local", local.as_ref(), case.service.uses_local_endpoints, found.local.as_ref()),
        check("allReachable", all_reachable, &addresses(&found.all_reachable())),
        check("hasAnyEndpoints", has_any_endpoints, &found.has_any),
    ];
    match checks.into_iter().collect() {
        Ok(()) => Outcome::Passed,
        Err(how) => Outcome::Failed(how),
    }
}

fn select(case: &Case) -> Selection {
    let endpoints: Vec<Endpoint> = case
        .endpoints
        .iter()
        .map(|row| endpoint(row, case.prefer_same_traffic_distribution_enabled))
        .collect();
    let candidates: Vec<Candidate<'_>> = case
        .endpoints
        .iter()
        .zip(&endpoints)
        .map(|(row, endpoint)| Candidate { addr: row.endpoint, endpoint, local: row.is_local })
        .collect();
    let policy = |local| if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
    let service = &case.service;
    let policies = Policies {
        internal: policy(service.internal_traffic_policy_local),
        external: (service.node_port != 0).then(|| policy(service.external_traffic_policy_local)),
    };
    let zone = case.node_labels.get(ZONE_LABEL).map(|zone| zone.as_str().into());
    let node = NodeView { name: case.node_name.as_str().into(), zone };
    select_backends(&candidates, policies, &node)
}

/// Where the feature gate PreferSameTrafficDistribution is off, the API server drops `hints.forNodes` from what is
/// written (KEP-3015). Weir has no such gate: it follows the node hints that there are.
fn endpoint(row: &EndpointRow, gate: bool) -> Endpoint {
    let names = |hints: &[String]| hints.iter().map(|hint| hint.as_str().into()).collect();
    Endpoint {
        addr: row.endpoint.ip(),
        ready: row.ready,
        serving: row.serving,
        terminating: row.terminating,
        node: None,
        zone_hints: names(&row.zone_hints),
        node_hints: if gate { names(&row.node_hints) } else { Vec::new() },
    }
}

/// A list is there if the Service uses it, and holds what is expected. That it is used is said by the file's own
/// `uses…Endpoints`; its `null` is no more than "nothing in it", as in kube-proxy's test, which has one case with
/// `null` for a list that is used and empty.
fn check_list(
    what: &str,
    expected: Option<&BTreeSet<SocketAddr>>,
    used: bool,
    found: Option<&Backends>,
) -> Result<(), String> {
    check(&format!("whether {what} is used"), &used, &found.is_some())?;
    check(what, &expected.cloned().unwrap_or_default(), &found.map(addresses).unwrap_or_default())
}

fn check<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, found: &T) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{what}: expected {expected:?}, found {found:?}")) }
}

fn addresses(backends: &Backends) -> BTreeSet<SocketAddr> {
    backends.keys().copied().collect()
}
