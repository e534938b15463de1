//! Random clusters, policies and changes: what was compiled step by step is what is compiled from nothing, and both say what
//! the API says; also between any two writes.

mod scale;
mod tiers;

use std::env;
use std::hash::{BuildHasher as _, RandomState};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::history::{self, Batch, Choices, Op, Tally, live_through};

/// Another one than chance's, to see a failure again.
const SEED_VAR: &str = "WEIR_POLICY_SEED";

/// Questions that a run asks at least.
const LEAST: usize = 200_000;

/// Ports for each pair of addresses in one state.
const PORTS: usize = 3;

/// A cluster that has some of everything comes into being by one batch; then single changes, and some together. Each change has
/// bytes of its own, so that a failure shrinks change by change.
fn history() -> impl Strategy<Value = Vec<Batch>> {
    let first = (
        vec(by_bytes(history::put_namespace), 3..6),
        vec(by_bytes(history::put_pod), 6..12),
        vec(by_bytes(history::put_policy), 3..8),
        vec(by_bytes(history::put_cluster_policy), 0..4),
    );
    let op = || by_bytes(history::op);
    let rest = vec(prop_oneof![9 => vec(op(), 1), 1 => vec(op(), 2..5)], 4..16);
    (first, rest).prop_map(|((namespaces, pods, policies, of_cluster), rest)| {
        let first = [namespaces, pods, policies, of_cluster].concat();
        std::iter::once(first).chain(rest).collect()
    })
}

fn by_bytes(make: fn(&mut Choices<'_>) -> Op) -> impl Strategy<Value = Op> {
    vec(any::<u64>(), 4..32).prop_map(move |words| {
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        make(&mut Choices::new(&bytes))
    })
}

#[test]
fn step_by_step_is_from_nothing_is_what_the_api_says() {
    let seed = match env::var(SEED_VAR) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => RandomState::new().hash_one(0),
    };
    println!("{SEED_VAR}={seed}");
    let mut tally = Tally::default();
    let mut run = 0;
    while tally.settled < LEAST {
        let bytes = [seed, run, 0, 0].map(u64::to_le_bytes).concat();
        let config =
            Config { cases: 8, failure_persistence: None, max_shrink_iters: 4_000, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let counted = std::cell::RefCell::new(&mut tally);
        let result = runner.run(&history(), |history| {
            live_through(&history, PORTS, &mut counted.borrow_mut()).map_err(TestCaseError::fail)
        });
        match result {
            Ok(()) => run += 1,
            Err(TestError::Fail(why, history)) => {
                panic!("{SEED_VAR}={seed}: {why}\nby the shortest history found:\n{history:#?}")
            }
            Err(error) => panic!("{SEED_VAR}={seed}: {error}"),
        }
    }
    println!(
        "figure policy.random {} pairs in {} states, {} between writes; {} denied, {} audited",
        tally.settled, tally.states, tally.between, tally.denied, tally.audited
    );
    assert!(tally.denied * 20 > tally.settled && tally.allowed * 20 > tally.settled, "one-sided: {tally:?}");
    assert!(
        tally.audited * 50 > tally.settled && tally.kept > 0,
        "hardly anything is audited or kept: {tally:?}"
    );
    assert!(tally.kept_beside > 0 && tally.watched_beside > 0, "nobody is silent: {tally:?}");
    assert!(tally.between > LEAST / 10, "hardly anything was asked between writes: {tally:?}");
}
