//! One table: endpoints and policy in, what a client of the ClusterIP gets out. Both families, the same rows.

use TrafficPolicy::{Cluster, Local};
use weir_ebpf::abi::{DropReason, Protocol};

use super::build::{Change, at, compile, internal, node, ready, service, service_port, slice, slice_port};
use crate::source::{Endpoint, Family, TrafficPolicy};
use crate::state::NodeView;

/// What a client gets.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Gets {
    /// One of these pods.
    Pods(Vec<u8>),
    /// A refusal.
    Refused,
    /// Silence.
    Dropped,
}

struct Row {
    rule: &'static str,
    policy: TrafficPolicy,
    endpoints: Vec<Endpoint>,
    gets: Gets,
}

fn row(rule: &'static str, policy: TrafficPolicy, endpoints: Vec<Endpoint>, gets: Gets) -> Row {
    Row { rule, policy, endpoints, gets }
}

fn pods(list: &[u8]) -> Gets {
    Gets::Pods(list.to_vec())
}

/// Refused without any endpoint, dropped without one for the policy: `spec.externalTrafficPolicy` and
/// `spec.internalTrafficPolicy`, and kube-proxy's map `no-endpoint-services`.
fn rows_policy(family: Family) -> Vec<Row> {
    let pod = |n| ready(family, n);
    vec![
        row("no endpoint at all: refused", Cluster, vec![], Gets::Refused),
        row("no endpoint at all is refused under Local too", Local, vec![], Gets::Refused),
        row("Cluster: every ready endpoint", Cluster, vec![pod(1), pod(2).local()], pods(&[1, 2])),
        row("Local: those on this node", Local, vec![pod(1), pod(2).local()], pods(&[2])),
        row("Local: all elsewhere: dropped", Local, vec![pod(1), pod(2)], Gets::Dropped),
        row("Local: only unready ones elsewhere: refused", Local, vec![pod(1).unready()], Gets::Refused),
        row(
            "Local: unready here, ready elsewhere: dropped",
            Local,
            vec![pod(1), pod(2).local().unready()],
            Gets::Dropped,
        ),
        row(
            "an endpoint without a node is on no node",
            Local,
            vec![Endpoint { node: None, ..pod(1) }, pod(2).local()],
            pods(&[2]),
        ),
    ]
}

/// KEP-1669, decided for each set separately (kube-proxy's `CategorizeEndpoints`)
fn rows_terminating(family: Family) -> Vec<Row> {
    let pod = |n| ready(family, n);
    vec![
        row("a ready one is left: no fallback", Cluster, vec![pod(1), pod(2).draining()], pods(&[1])),
        row(
            "none ready: all that serve and terminate",
            Cluster,
            vec![pod(1).draining(), pod(2).draining().local(), pod(3).unready()],
            pods(&[1, 2]),
        ),
        row(
            "Local decides for itself: drains here while others are ready elsewhere",
            Local,
            vec![pod(1), pod(2).draining().local()],
            pods(&[2]),
        ),
        row(
            "Cluster decides for itself: ready elsewhere beats draining here",
            Cluster,
            vec![pod(1), pod(2).draining().local()],
            pods(&[1]),
        ),
        row(
            "Local: ready here beats draining here",
            Local,
            vec![pod(1).local(), pod(2).draining().local()],
            pods(&[1]),
        ),
        row("Local: only draining, elsewhere: dropped", Local, vec![pod(1).draining()], Gets::Dropped),
    ]
}

/// Every combination of conditions, alone and beside a ready endpoint.
fn rows_conditions(family: Family) -> Vec<Row> {
    let mut rows = Vec::new();
    for bits in 0..8_u8 {
        let [is_ready, serving, terminating] = [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0];
        let it = ready(family, 1).local().conditions(is_ready, serving, terminating);
        // ready counts whatever the others say (publishNotReadyAddresses sets it on terminating pods)
        let alone = match (is_ready, serving, terminating) {
            (true, ..) | (false, true, true) => pods(&[1]),
            (false, false, _) | (false, true, false) => Gets::Refused,
        };
        let beside = if is_ready { pods(&[1, 2]) } else { pods(&[2]) };
        for policy in [Cluster, Local] {
            rows.push(row("conditions, alone", policy, vec![it.clone()], alone.clone()));
            let other = ready(family, 2).local();
            rows.push(row("conditions, beside a ready one", policy, vec![it.clone(), other], beside.clone()));
        }
    }
    rows
}

/// KEP-2433, KEP-4444; this node is `here` in zone `a`
fn rows_zone_hints(family: Family) -> Vec<Row> {
    let near = |n| ready(family, n).zones(&["a"]);
    let far = |n| ready(family, n).zones(&["b"]);
    let none = |n| ready(family, n);
    vec![
        row("zone hints are followed", Cluster, vec![near(1), far(2)], pods(&[1])),
        row(
            "one hint of several is enough",
            Cluster,
            vec![near(1), far(2).zones(&["b", "a"])],
            pods(&[1, 2]),
        ),
        row(
            "an endpoint without a hint: all are ignored",
            Cluster,
            vec![near(1), far(2), none(3)],
            pods(&[1, 2, 3]),
        ),
        row("an unready one needs no hint", Cluster, vec![near(1), far(2), none(3).unready()], pods(&[1])),
        row("nothing for this zone: ignored", Cluster, vec![far(1), far(2)], pods(&[1, 2])),
        row(
            "only an unready one for this zone: ignored",
            Cluster,
            vec![near(1).unready(), far(2)],
            pods(&[2]),
        ),
        row(
            "only draining ones: hints mean nothing",
            Cluster,
            vec![near(1).draining(), far(2).draining()],
            pods(&[1, 2]),
        ),
        row("Local ignores hints", Local, vec![near(1), far(2).local()], pods(&[2])),
    ]
}

/// KEP-3015
fn rows_node_hints(family: Family) -> Vec<Row> {
    let near = |n| ready(family, n).zones(&["a"]);
    let far = |n| ready(family, n).zones(&["b"]);
    let none = |n| ready(family, n);
    vec![
        row(
            "node hints before zone hints",
            Cluster,
            vec![near(1).nodes(&["here"]), near(2).nodes(&["there"])],
            pods(&[1]),
        ),
        row(
            "node hints that one endpoint lacks: zone hints",
            Cluster,
            vec![near(1).nodes(&["here"]), near(2), far(3)],
            pods(&[1, 2]),
        ),
        row(
            "node hints with nothing for this node: zone hints",
            Cluster,
            vec![near(1).nodes(&["there"]), far(2).nodes(&["there"])],
            pods(&[1]),
        ),
        row(
            "node hints alone",
            Cluster,
            vec![none(1).nodes(&["here", "there"]), none(2).nodes(&["there"])],
            pods(&[1]),
        ),
        row(
            "node hints alone, nothing for this node: everything",
            Cluster,
            vec![none(1).nodes(&["there"]), none(2).nodes(&["there"])],
            pods(&[1, 2]),
        ),
    ]
}

fn all_rows(family: Family) -> Vec<Row> {
    [rows_policy, rows_terminating, rows_conditions, rows_zone_hints, rows_node_hints]
        .into_iter()
        .flat_map(|rows| rows(family))
        .collect()
}

fn compile_row(family: Family, row: &Row, node: &NodeView) -> Gets {
    let mut service = service(family, vec![service_port("", Protocol::Tcp, 80)]);
    service.internal_policy = row.policy;
    let slices = [slice(family, vec![slice_port("", Protocol::Tcp, 8080)], row.endpoints.clone())];
    let plan = compile(&service, &slices, node);
    let set = internal(&plan.ports[0]);
    if set.backends.is_empty() {
        return match set.when_empty {
            DropReason::NoEndpoint => Gets::Refused,
            DropReason::NoLocalEndpoint => Gets::Dropped,
            other => panic!("compilation never yields {other}"),
        };
    }
    let number = |n: &u8| set.backends.contains_key(&at(family, *n, 8080));
    let found: Vec<u8> = (1..=9).filter(number).collect();
    assert_eq!(found.len(), set.backends.len(), "{}: a backend from nowhere: {:?}", row.rule, set.backends);
    Gets::Pods(found)
}

#[test]
fn each_row_in_both_families() {
    let node = node(Some("a"));
    for family in [Family::V4, Family::V6] {
        for row in all_rows(family) {
            assert_eq!(
                compile_row(family, &row, &node),
                row.gets,
                "{family}: {}: {:?}",
                row.rule,
                row.endpoints
            );
        }
    }
}

#[test]
fn a_node_without_a_zone_ignores_zone_hints() {
    let node = node(None);
    for family in [Family::V4, Family::V6] {
        let endpoints = vec![ready(family, 1).zones(&["a"]), ready(family, 2).zones(&["b"])];
        let row = row("no zone", Cluster, endpoints, pods(&[1, 2]));
        assert_eq!(compile_row(family, &row, &node), row.gets);
    }
}
