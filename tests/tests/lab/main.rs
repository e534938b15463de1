//! What must hold with real sockets: the table of cases, and what happens to traffic when the agent changes
//! its mind, dies, comes back or is told nonsense.
//!
//! Each trial is listed and filtered like any test. They run one after the other: each measures something.

mod attacks;
mod bad_input;
mod churn;
mod drops;
mod exposed;
mod hold;
mod http;
mod lifecycle;
mod load;
mod node;
mod outside;
mod policies;
mod reach;
mod refusals;
mod sizes;
mod stale;
mod support;
mod traces;
mod tuples;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use libtest_mimic::{Arguments, Failed, Trial};
use weir_tests::cases::{self, Row, live};
use weir_tests::lab::{Cluster, Network, Settings, teardown};

/// The cluster that all rows of the table share. Made by the first, and anew after one that failed.
type Shared = Arc<Mutex<Option<Cluster>>>;

/// A trial with clusters of its own.
type Single = fn() -> Result<()>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("not run: the lab needs root, for network namespaces and eBPF");
    }
    if let Err(error) = teardown::watch_signals() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let shared = Shared::default();
    let trials = trials(&shared).into_iter().map(|trial| trial.with_ignored_flag(!root)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}

/// Those about policies.
const POLICIES: [(&str, Single); 16] = [
    ("policies/everybody", policies::everybody_by_policies),
    ("policies/connections", policies::connections_end_with_what_allowed_them),
    ("policies/changes", load::changes_cut_nothing_that_is_allowed),
    ("policies/full-share", load::a_full_share_cuts_no_reply),
    ("policies/flood", load::a_flood_evicts_nobody_elses_flows),
    ("attacks/frames", attacks::nothing_gets_through),
    ("attacks/backwards", attacks::a_connection_is_not_opened_backwards),
    ("attacks/own-address", attacks::a_pod_that_changes_its_address_is_not_heard),
    ("attacks/masquerade", attacks::a_port_of_the_host_does_not_make_a_pod_the_node),
    ("attacks/neighbours-address", attacks::a_pod_that_takes_a_neighbours_address_is_not_heard),
    ("policies/drops-by-name", drops::by_name),
    ("hold/while-no-agent-runs", hold::while_no_agent_runs),
    ("hold/until-it-is-known", hold::until_it_is_known),
    ("hold/second-networks-and-others", hold::second_networks_and_others),
    ("hold/out-of-reach", hold::beside_a_namespace_out_of_reach),
    ("hold/host-network", hold::what_a_pod_with_the_nodes_network_makes),
];

fn trials(shared: &Shared) -> Vec<Trial> {
    let single: [(&str, Single); 27] = [
        ("traces/direct-traffic-then-nothing-left", traces::direct_traffic_then_nothing_left),
        ("traces/interrupted", traces::interrupted),
        ("traces/killed-and-swept", traces::killed_and_swept),
        ("traces/demo", traces::demo),
        ("churn/tcp", churn::tcp),
        ("churn/udp", churn::udp),
        ("churn/udp-connected", churn::udp_connected),
        ("lifecycle/killed-agent", lifecycle::killed_agent),
        ("lifecycle/restart-under-load", lifecycle::restart_under_load),
        ("lifecycle/cleanup", lifecycle::cleanup),
        ("stale/tcp", stale::tcp),
        ("stale/udp-connected", stale::udp_connected),
        ("stale/service-port-gone", stale::service_port_gone),
        ("bad-input", bad_input::each_is_named_and_nothing_else_affected),
        ("outside/restart-under-load", outside::restart_under_load),
        ("outside/udp-backend-goes", outside::udp_backend_goes),
        ("outside/tcp-backend-terminates", outside::tcp_backend_terminates),
        ("outside/no-tracked-flow-moves", outside::no_tracked_flow_moves),
        ("outside/refusals", refusals::from_outside),
        ("tuples/one-client-by-several-ways", tuples::one_client_by_several_ways),
        ("tuples/echoes", tuples::echoes),
        ("sizes/narrow-towards-client", sizes::narrow_towards_client),
        ("sizes/narrow-towards-backend", sizes::narrow_towards_backend),
        ("node/node-ports-are-protected", node::node_ports_are_protected),
        ("node/node-ports-at-loopback", node::node_ports_at_loopback),
        ("node/health", node::health),
        ("node/service-address-of-the-node", node::service_address_of_the_node),
    ];
    let rows = cases::rows().into_iter().map(|row| {
        let shared = Arc::clone(shared);
        Trial::test(format!("case/{row}"), move || run_row(&row, &shared).map_err(failed))
    });
    let single = single
        .into_iter()
        .chain(POLICIES)
        .map(|(name, run)| Trial::test(name, move || run().map_err(failed)));
    let reach = reach::SCENES.map(|scene| {
        let name = format!("reach/{}", scene.name);
        Trial::test(name, move || reach::everybody_reaches_everything(&scene).map_err(failed))
    });
    let sizes = sizes::SCENES.map(|scene| {
        let name = format!("sizes/{}", scene.name);
        Trial::test(name, move || sizes::long_ones_arrive(&scene).map_err(failed))
    });
    single.chain(reach).chain(sizes).chain(rows).collect()
}

fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}

fn run_row(row: &Row, shared: &Shared) -> Result<()> {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let mut cluster = match shared.take() {
        Some(cluster) => cluster,
        None => support::cluster()?,
    };
    live::run(row, &mut cluster).with_context(|| format!("{}\n{}", row.case.rule, cluster.logs()))?;
    *shared = Some(cluster);
    Ok(())
}

/// The settings that most trials use: what the bridge plugin does unless it is told otherwise.
const SETTINGS: Settings = Settings { hairpin: false, network: Network::Routed };
