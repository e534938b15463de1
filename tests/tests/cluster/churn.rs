//! An API server that misbehaves in every way it can, while the cluster changes: then the tables are true, soon.

use std::time::{Duration, Instant};

use weir_tests::apiserver::{ApiServer, Faults};

use super::node::{Node, Table, put, put_api_service};

/// How long each fault lasts, unless `WEIR_FAULT_SECONDS` says so.
const FAULT: Duration = Duration::from_millis(700);
/// How long the tables may then take, on a machine that has nothing else to do.
const SOON: Duration = Duration::from_secs(2);

/// By how much the agent's heap may have grown from the first fault to the last, in KiB: it keeps room for the largest
/// burst so far.
const GROWTH_KIB: u64 = 8 * 1024;

const SERVICES: usize = 200;

/// How long each fault lasts, and the pause after ten changes: at most 2,000 a second in a short one, 25 in a long one, each
/// of a Service and a slice, as a large cluster has them. All that changed meanwhile has to be heard of afterwards.
fn pace() -> (Duration, Duration) {
    let Ok(seconds) = std::env::var("WEIR_FAULT_SECONDS") else { return (FAULT, Duration::from_millis(5)) };
    let seconds = seconds.parse().expect("WEIR_FAULT_SECONDS is a number");
    (Duration::from_secs(seconds), Duration::from_millis(400))
}

/// Whether `WEIR_FAULTS`, a list of their names, has this one; all if it is not set.
fn is_wanted(fault: &str) -> bool {
    let Ok(wanted) = std::env::var("WEIR_FAULTS") else { return true };
    wanted.split(',').any(|name| name == fault.trim_matches('"'))
}

/// One change, from a number that counts up: Services and slices come, grow, shrink and go.
fn change(server: &ApiServer, table: &mut Table, turn: usize) {
    // A prime: it comes past every Service, and past each in every state.
    let number = turn * 61 % SERVICES;
    if turn.is_multiple_of(3) && table.remove(&format!("ns-{}/service-{number}", number % 100)).is_some() {
        let (namespace, name) = (format!("ns-{}", number % 100), format!("service-{number}"));
        server.delete("Service", &namespace, &name).unwrap();
        server.delete("EndpointSlice", &namespace, &format!("{name}-abcde")).unwrap();
    } else {
        put(server, table, number, turn % 7);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_in_turn_then_true_tables() {
    let server = ApiServer::start().await.unwrap();
    let (mut node, mut table, mut turn) = (Node::new(), Table::new(), 0);
    put_api_service(&server, &mut table);
    node.set_kubeconfig(&server.kubeconfig());
    node.start();
    node.until_ready().await;
    let (lasts, pause) = pace();
    let (mut heap_kib, mut healed_ms) = (Vec::new(), Vec::new());
    for (name, fault) in Faults::each().into_iter().filter(|(name, _)| is_wanted(name)) {
        server.faults(|faults| *faults = fault);
        server.drop_connections();
        let begun = Instant::now();
        while begun.elapsed() < lasts {
            for _ in 0..10 {
                change(&server, &mut table, turn);
                turn += 1;
            }
            tokio::time::sleep(pause).await;
        }
        server.heal().await.unwrap();
        let healed = Instant::now();
        node.until_table(&table).await;
        // What takes its time on a busy machine is for who runs it on a quiet one to judge.
        assert!(lasts == FAULT || healed.elapsed() < SOON, "{name}: {:?}\n{}", healed.elapsed(), node.log());
        healed_ms.push(healed.elapsed().as_millis());
        heap_kib.push(node.memory_kib("RssAnon"));
    }
    println!("figure agent-healed-ms@faults {}", list(&healed_ms));
    println!("figure agent-heap-kib@faults {}", list(&heap_kib));
    let (first, last) = (heap_kib.first().copied(), heap_kib.last().copied());
    assert!(last <= first.map(|first| first + GROWTH_KIB), "its heap grows: {heap_kib:?}");
    assert!(turn > SERVICES, "{turn} changes are none");
}

fn list<T: ToString>(numbers: &[T]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
