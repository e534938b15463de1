//! Session affinity at the edges of its timeout.

use weir_ebpf::datapath::socket::{self, Verdict};
use weir_ebpf::testing::{FakeMoment, FakeSocket};

use super::*;

/// Where a client that comes again and again, at these seconds since boot, is sent.
fn visits(timeout_s: u32, seconds: &[u32]) -> Vec<Verdict> {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(Sizes { backends: 64, ..sizes() }));
    let mut sticky = plan("a", 1, 0..50);
    sticky.ports[0].affinity_s = timeout_s;
    apply(&mut tables, &mut store, &sticky);
    let moment = FakeMoment::default();
    let client =
        FakeSocket { protocol: Some(Protocol::Tcp), cookie: 1, netns: 1, listener: false, in_pod: false };
    let visit = |&seconds: &u32| {
        moment.seconds.set(seconds);
        socket::connect(&store.tables, &moment, &client, vip_addr(1).into())
    };
    seconds.iter().map(visit).collect()
}

#[test]
fn a_clock_that_another_cpu_reads_a_moment_earlier_does_not_end_it() {
    let seen = visits(10, &[100, 99, 100, 99]);
    assert!(seen.iter().all(|verdict| *verdict == seen[0]), "{seen:?}");
}

#[test]
fn it_lasts_at_least_as_long_as_it_says() {
    // From the end of one second to the beginning of another it may be less than it seems.
    let seen = visits(1, &[100, 101, 102, 103]);
    assert!(seen.iter().all(|verdict| *verdict == seen[0]), "{seen:?}");
    let seen = visits(1, &[100, 102, 104, 106]);
    assert!(seen.iter().any(|verdict| *verdict != seen[0]), "it ends: {seen:?}");
}
