//! Which backend, and whether a set has one.

use std::collections::HashMap;

use super::{SERVICE, families, fill};
use crate::abi::{Backend, Peer, Port, Run, Scope, mix};
use crate::datapath::Tables;
use crate::datapath::select::{lookup_in_run, select_consistent};
use crate::testing::MemoryTables;

fn contains(tables: &MemoryTables, run: Run, peer: Peer) -> bool {
    lookup_in_run(tables, run, &Backend::new(peer, 0)).is_some()
}

fn run(tables: &MemoryTables) -> Run {
    tables.sets[&SERVICE.set(Scope::Cluster)].run().unwrap()
}

#[test]
fn the_search_finds_every_member_and_nothing_else() {
    for family in families() {
        for len in [1, 2, 3, 7, 8, 1000] {
            let tables = family.world(len, 0);
            let run = tables.sets[&SERVICE.set(Scope::Cluster)].run().unwrap();
            for index in 0..len + 3 {
                assert_eq!(contains(&tables, run, family.backend(index)), index < len, "{index} of {len}");
            }
            let other_port = Peer { port: Port::new(1), ..family.backend(0) };
            assert!(!contains(&tables, run, other_port));
        }
    }
}

#[test]
fn the_longest_run_can_be_searched_to_its_end() {
    let family = families()[0];
    let mut tables = MemoryTables::default();
    let peers: Vec<Peer> = (0..Run::MAX_LEN).map(|index| family.backend(index)).collect();
    fill(&mut tables, SERVICE, 0, &peers);
    let run = tables.sets[&SERVICE.set(Scope::Cluster)].run().unwrap();
    for index in (0..peers.len()).step_by(4099).chain([peers.len() - 1]) {
        assert!(contains(&tables, run, peers[index]), "{index}");
    }
}

/// The backend that follows from a seed.
fn chosen(tables: &MemoryTables, seed: u32) -> Peer {
    let run = run(tables);
    tables.lookup_backend(run.offset + select_consistent(tables, run, seed)).unwrap().peer()
}

/// How many clients of 20,000 get each backend.
fn shares(tables: &MemoryTables) -> HashMap<Peer, u32> {
    let mut shares = HashMap::new();
    for client in 0..20_000 {
        *shares.entry(chosen(tables, mix(7, client))).or_default() += 1;
    }
    shares
}

#[test]
fn a_consistent_choice_spreads_clients_evenly() {
    for family in families() {
        for backends in [2, 3, 10, 100] {
            let shares = shares(&family.world(backends, 0));
            let fair = f64::from(20_000 / backends);
            let most = shares.values().map(|share| f64::from(*share) / fair).fold(0.0, f64::max);
            assert!(most < 1.6, "of {backends}, one has {most} times its share");
            assert_eq!(shares.len(), backends as usize, "every backend has clients");
        }
    }
}

#[test]
fn a_backend_that_goes_moves_its_own_clients_only() {
    for family in families() {
        let mut tables = family.world(100, 0);
        let before: Vec<Peer> = (0..5000).map(|client| choose(&tables, client)).collect();
        let gone = family.backend(37);
        let left: Vec<Peer> =
            (0..100).map(|index| family.backend(index)).filter(|peer| *peer != gone).collect();
        fill(&mut tables, SERVICE, 1000, &left);
        let after: Vec<Peer> = (0..5000).map(|client| choose(&tables, client)).collect();
        assert!(before.contains(&gone), "there are clients to move");
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || *before == gone, "{before} became {after}");
        }
        assert!(!after.contains(&gone));
    }
}

fn choose(tables: &MemoryTables, client: u32) -> Peer {
    chosen(tables, mix(3, client))
}
