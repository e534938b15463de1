//! Changes without pause, under every fault in turn: then the truth, soon.

use std::time::{Duration, Instant};

use serde_json::json;
use weir_tests::apiserver::Faults;

use super::world::{NODE, Watcher, World, namespace, pod, policy, service, slice};

/// Numbers from a seed, as tests want them.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

fn change(world: &World, numbers: &mut Numbers) {
    let number = numbers.below(200);
    match numbers.below(8) {
        5 => change_pod(world, numbers),
        6 => {
            let team = ["red", "green", "blue"][numbers.below(3)];
            world.server.put(&namespace(NAMESPACES[numbers.below(3)], team)).unwrap();
        }
        7 => change_policy(world, numbers),
        0 => drop(world.server.delete("Service", "shop", &format!("svc-{number}"))),
        1 => drop(world.server.delete("EndpointSlice", "shop", &format!("svc-{number}-1"))),
        2 => drop(world.server.put(&service(number, 80 + u16::try_from(numbers.below(9)).unwrap())).unwrap()),
        _ => drop(world.server.put(&slice(number, numbers.below(10))).unwrap()),
    }
}

const NAMESPACES: [&str; 3] = ["shop", "bank", "mail"];

/// Here or there, under a name that may be another node's pod already.
fn change_pod(world: &World, numbers: &mut Numbers) {
    let (at, number) = (NAMESPACES[numbers.below(3)], numbers.below(30));
    let name = format!("pod-{number}");
    drop(world.server.delete("Pod", at, &name));
    if numbers.below(4) > 0 {
        let node = [NODE, "node-b", "node-c"][numbers.below(3)];
        world.server.put(&pod(at, &name, node, ["web", "db"][numbers.below(2)], number)).unwrap();
    }
}

fn change_policy(world: &World, numbers: &mut Numbers) {
    let (at, name) = (NAMESPACES[numbers.below(3)], format!("policy-{}", numbers.below(3)));
    let peers = [
        json!({"podSelector": {"matchLabels": {"app": "db"}}}),
        json!({"namespaceSelector": {"matchLabels": {"team": "red"}}}),
        json!({"namespaceSelector": {}}),
        json!({"ipBlock": {"cidr": "10.0.0.0/8"}}),
    ];
    match numbers.below(5) {
        4 => drop(world.server.delete("NetworkPolicy", at, &name)),
        peer => {
            let app = ["web", "db", "none"][numbers.below(3)];
            world.server.put(&policy(at, &name, app, &[peers[peer].clone()])).unwrap();
        }
    }
}

/// Changes for some time, while the source is read.
async fn churn(world: &World, watcher: &mut Watcher, numbers: &mut Numbers, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        for _ in 0..20 {
            change(world, numbers);
        }
        if numbers.below(20) == 0 {
            world.server.compact();
        }
        watcher.drain().await;
    }
}

/// How long it takes is a figure: on a busy machine it says little. Two seconds are what the tables of an agent may take, where
/// `WEIR_FAULT_SECONDS` is set (`tests/cluster/churn.rs`).
async fn until_true(world: &World, watcher: &mut Watcher, name: &str) {
    let begun = Instant::now();
    watcher.until_true(&world.server).await;
    println!("figure kubernetes.healed-ms@{name} {}", begun.elapsed().as_millis());
}

#[tokio::test]
async fn five_seconds_of_churn_then_the_truth() {
    let world = World::new().await;
    let mut watcher = world.watch().await;
    let mut numbers = Numbers(1);
    churn(&world, &mut watcher, &mut numbers, Duration::from_secs(5)).await;
    until_true(&world, &mut watcher, "churn").await;
    assert_eq!(watcher.connection().errors, 0, "{:?}", watcher.connection());
}

#[tokio::test]
async fn every_fault_in_turn_then_the_truth() {
    let world = World::new().await;
    let mut watcher = world.watch().await;
    let mut numbers = Numbers(2);
    for (name, fault) in Faults::each() {
        world.server.faults(|faults| *faults = fault);
        world.server.drop_connections();
        churn(&world, &mut watcher, &mut numbers, Duration::from_millis(700)).await;
        if world.server.current_faults().no_initial_end {
            // A list that was begun so never ends: found out in 30 s, which is another test's.
            world.server.drop_connections();
        }
        world.server.heal().await.unwrap();
        until_true(&world, &mut watcher, &name).await;
    }
    world.server.refuse_connections().await;
    world.server.drop_connections();
    churn(&world, &mut watcher, &mut numbers, Duration::from_secs(3)).await;
    world.server.heal().await.unwrap();
    until_true(&world, &mut watcher, "refused").await;
}
