//! A set is replaced at once: whoever connects gets a backend that was in the set at some moment of its connecting.
//! A store that replaces it in two steps is caught by the same test.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use weir_agent::source::{Family, Protocol};
use weir_agent::tables::{Store, StoreError};
use weir_ebpf::abi::{
    Backend, Frontend, FrontendKey, ServiceId, ServiceName, SetId, SetWord, SourceRangeKey,
};

use crate::world::{World, plan, udp_server, vip};

/// Sets that follow each other, each of this many servers that are in no other.
const VERSIONS: usize = 12;
const SERVERS: usize = 3;
const TIME: Duration = Duration::from_secs(4);
/// So few changes show nothing.
const CHANGES: usize = 50;
/// How much longer they may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn nobody_sees_half_of_a_change() {
    let mut world = World::new("swap");
    let versions = servers();
    let (wrong, right) = hammer(&versions, |servers| {
        world.apply(&plan(Protocol::Udp, servers));
        world.tables.settle(&mut world.store).unwrap();
    });
    assert!(right > 1000, "only {right} queries were answered: this shows nothing");
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_store_that_swaps_in_two_steps_is_caught() {
    let mut world = World::new("torn");
    let versions = servers();
    let (wrong, right) = hammer(&versions, |servers| {
        let plan = plan(Protocol::Udp, servers);
        let mut torn = Torn { store: &mut world.store };
        world.tables.apply(&plan.service, Some(&plan), &mut torn);
        world.tables.settle(&mut world.store).unwrap();
    });
    assert!(!wrong.is_empty(), "{right} queries, and not one of them met half a change");
}

fn servers() -> Vec<Vec<SocketAddr>> {
    (0..VERSIONS).map(|_| (0..SERVERS).map(|_| udp_server()).collect()).collect()
}

/// Replaces the set all the time while two threads connect. Returns what went wrong, and how often it went well.
fn hammer(versions: &[Vec<SocketAddr>], mut replace: impl FnMut(&[SocketAddr])) -> (Vec<String>, usize) {
    // The change that has begun, and the one that is complete.
    let (begun, done, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    replace(&versions[0]);
    std::thread::scope(|scope| {
        let client = || client(versions, &begun, &done, &stop);
        let clients = [scope.spawn(client), scope.spawn(client)];
        let end = Instant::now() + TIME;
        let mut version = 0;
        // On a machine that has much else to do a grace period takes a tenth of a second.
        while Instant::now() < end || (version <= CHANGES && Instant::now() < end + PATIENCE) {
            version += 1;
            begun.store(version, Ordering::SeqCst);
            replace(&versions[version % VERSIONS]);
            done.store(version, Ordering::SeqCst);
        }
        stop.store(true, Ordering::SeqCst);
        assert!(version > CHANGES, "only {version} changes: this shows nothing");
        let results = clients.map(|client| client.join().unwrap());
        results.into_iter().fold((Vec::new(), 0), |(mut wrong, right), (more_wrong, more_right)| {
            wrong.extend(more_wrong);
            (wrong, right + more_right)
        })
    })
}

fn client(
    versions: &[Vec<SocketAddr>],
    begun: &AtomicUsize,
    done: &AtomicUsize,
    stop: &AtomicBool,
) -> (Vec<String>, usize) {
    let (mut wrong, mut right) = (Vec::new(), 0);
    while !stop.load(Ordering::SeqCst) && wrong.len() < 10 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let oldest = done.load(Ordering::SeqCst);
        let connected = socket.connect(vip(Family::V4));
        let newest = begun.load(Ordering::SeqCst);
        let mut answer = [0; 2];
        let answered = connected.and_then(|()| socket.send(b"?")).and_then(|_| socket.recv(&mut answer));
        match answered {
            Ok(2) => {
                let port = u16::from_be_bytes(answer);
                let meant = (oldest..=newest)
                    .any(|version| versions[version % VERSIONS].iter().any(|server| server.port() == port));
                if meant {
                    right += 1;
                } else {
                    wrong.push(format!("got port {port}, which no set from {oldest} to {newest} has"));
                }
            }
            other => wrong.push(format!("sets {oldest} to {newest}: {other:?}")),
        }
    }
    (wrong, right)
}

/// Points to a run before it is written, as an implementation without the order of writing would.
struct Torn<'a, S> {
    store: &'a mut S,
}

impl<S: Store> Store for Torn<'_, S> {
    fn write_backends(&mut self, offset: u32, rows: &[Backend]) {
        let len = u32::try_from(rows.len()).unwrap();
        // The only set of this test: that of policy Cluster of the first Service port.
        self.store.swap_set(SetId(0), SetWord::of(weir_ebpf::abi::Run { offset, len }));
        for (at, row) in (offset..).zip(rows) {
            std::thread::sleep(Duration::from_micros(200));
            self.store.write_backends(at, &[*row]);
        }
    }

    fn swap_set(&mut self, set: SetId, word: SetWord) {
        self.store.swap_set(set, word);
    }

    fn put_frontend(&mut self, key: &FrontendKey, row: &Frontend) -> Result<(), StoreError> {
        self.store.put_frontend(key, row)
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), StoreError> {
        self.store.delete_frontend(key)
    }

    fn put_source_range(&mut self, range: &SourceRangeKey) -> Result<(), StoreError> {
        self.store.put_source_range(range)
    }

    fn delete_source_range(&mut self, range: &SourceRangeKey) -> Result<(), StoreError> {
        self.store.delete_source_range(range)
    }

    fn put_name(&mut self, id: ServiceId, name: &ServiceName) -> Result<(), StoreError> {
        self.store.put_name(id, name)
    }

    fn delete_name(&mut self, id: ServiceId) -> Result<(), StoreError> {
        self.store.delete_name(id)
    }

    fn wait_grace(&mut self) -> Result<(), StoreError> {
        self.store.wait_grace()
    }
}
