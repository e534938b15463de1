//! The decisions, on tables in memory.
#![cfg(feature = "testing")]

use crate::abi::{
    Addr, AffinityKey, AffinityRow, Backend, Client, Counter, DatagramKey, Direction, DropReason, Frontend,
    FrontendKey, Peer, Port, Protocol, Run, ServiceId, SetWord, Side,
};
use crate::datapath::select::contains;
use crate::datapath::socket::{Errno, Verdict, connect, release, reverse, sendmsg};
use crate::testing::{FakeMoment, FakeSocket, MemoryTables};

const SERVICE: ServiceId = ServiceId(7);
const OTHER: ServiceId = ServiceId(8);

/// The same addresses in both families.
#[derive(Clone, Copy)]
struct Family {
    prefix: [u32; 3],
}

fn families() -> [Family; 2] {
    let v4 = Addr::from_v4(0).words();
    [Family { prefix: [v4[0], v4[1], v4[2]] }, Family { prefix: [0xfd00_u32.to_be(), 0, 0] }]
}

impl Family {
    fn peer(self, host: u32, port: u16) -> Peer {
        let [a, b, c] = self.prefix;
        Peer { addr: Addr::from_words([a, b, c, host.to_be()]), port: Port::new(port) }
    }

    fn vip(self) -> Peer {
        self.peer(0x0a60_0001, 80)
    }

    fn backend(self, index: u32) -> Peer {
        self.peer(0x0af4_0000 + index, 8080)
    }

    /// A Service at [`Family::vip`] for both protocols, with these backends.
    fn world(self, backends: u32, affinity_s: u32) -> MemoryTables {
        let mut tables = MemoryTables::default();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let row = Frontend { service: SERVICE, affinity_s };
            tables.frontends.insert(FrontendKey::new(self.vip(), protocol), row);
        }
        let whole = Frontend { service: ServiceId(0), affinity_s: 0 };
        tables.frontends.insert(FrontendKey::whole_address(self.vip().addr), whole);
        let peers: Vec<Peer> = (0..backends).map(|index| self.backend(index)).collect();
        fill(&mut tables, SERVICE, 100, &peers);
        tables
    }
}

/// Gives a Service port these backends, from that index on.
fn fill(tables: &mut MemoryTables, service: ServiceId, offset: u32, peers: &[Peer]) {
    let mut peers = peers.to_vec();
    peers.sort_by(Peer::order);
    let len = u32::try_from(peers.len()).unwrap();
    let word =
        if len == 0 { SetWord::empty(DropReason::NoEndpoint) } else { SetWord::of(Run { offset, len }) };
    tables.sets.insert(service.set(Side::Internal), word);
    tables.backends.extend((offset..).zip(peers.into_iter().map(|peer| Backend::new(peer, 0))));
}

fn socket(protocol: Protocol, cookie: u64) -> FakeSocket {
    FakeSocket { protocol: Some(protocol), cookie, netns: 1 }
}

fn translated(verdict: Verdict) -> Peer {
    match verdict {
        Verdict::Translate(peer) => peer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_service_is_translated_and_its_backend_shows_as_the_service() {
    for family in families() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let (tables, moment) = (family.world(3, 0), FakeMoment::default());
            let client = socket(protocol, 1);
            let backend = translated(connect(&tables, &moment, &client, family.vip()));
            assert!((0..3).any(|index| backend == family.backend(index)));
            assert_eq!(reverse(&tables, &client, backend), Some(family.vip()));
            assert_eq!(
                reverse(&tables, &socket(protocol, 2), backend),
                None,
                "another socket dialled the pod"
            );
        }
    }
}

#[test]
fn what_is_no_service_passes_and_is_not_remembered() {
    for family in families() {
        let (tables, moment) = (family.world(1, 0), FakeMoment::default());
        let direct = family.backend(0);
        assert_eq!(connect(&tables, &moment, &socket(Protocol::Tcp, 1), direct), Verdict::Pass);
        assert_eq!(sendmsg(&tables, &moment, &socket(Protocol::Udp, 1), direct), Verdict::Pass);
        let raw = FakeSocket { protocol: None, cookie: 1, netns: 1 };
        assert_eq!(connect(&tables, &moment, &raw, family.vip()), Verdict::Pass, "neither TCP nor UDP");
        assert!(tables.connections.borrow().is_empty() && tables.datagrams.borrow().is_empty());
    }
}

#[test]
fn refusals_have_their_reason_their_errno_and_their_counter() {
    for family in families() {
        let (mut tables, moment) = (family.world(0, 0), FakeMoment::default());
        let client = socket(Protocol::Udp, 1);
        let other_port = Peer { port: Port::new(81), ..family.vip() };
        let local = SetWord::empty(DropReason::NoLocalEndpoint);
        for (word, dialled, reason, errno) in [
            (SetWord::default(), family.vip(), DropReason::NoEndpoint, Errno::ConnectionRefused),
            (local, family.vip(), DropReason::NoLocalEndpoint, Errno::HostUnreachable),
            (local, other_port, DropReason::UnknownPort, Errno::ConnectionRefused),
        ] {
            tables.sets.insert(SERVICE.set(Side::Internal), word);
            assert_eq!(connect(&tables, &moment, &client, dialled), Verdict::Deny(reason));
            assert_eq!(sendmsg(&tables, &moment, &client, dialled), Verdict::Deny(reason));
            assert_eq!(Errno::from(reason), errno);
            assert_eq!(tables.counted(reason.into()), 2);
        }
    }
}

#[test]
fn each_backend_gets_its_share() {
    let family = families()[0];
    let (tables, moment) = (family.world(10, 0), FakeMoment::default());
    let mut shares = [0_i32; 10];
    for cookie in 0..10_000 {
        let backend = translated(connect(&tables, &moment, &socket(Protocol::Tcp, cookie), family.vip()));
        shares[(0..10).position(|index| backend == family.backend(index)).unwrap()] += 1;
    }
    // Five standard deviations of a fair choice: 5 * sqrt(10,000 * 0.1 * 0.9).
    assert!(shares.iter().all(|share| (share - 1000).abs() < 150), "{shares:?}");
}

#[test]
fn affinity_lasts_until_its_timeout_after_the_last_connection() {
    for family in families() {
        let (tables, moment) = (family.world(50, 100), FakeMoment::default());
        let ask =
            |cookie| translated(connect(&tables, &moment, &socket(Protocol::Tcp, cookie), family.vip()));
        let first = ask(0);
        for cookie in 1..50 {
            // Seconds as they are counted: a hundred apart may be nearly a second less.
            moment.seconds.set(moment.seconds.get() + 100);
            assert_eq!(ask(cookie), first);
        }
        let key = AffinityKey { client: Client::from_netns(1), service: SERVICE };
        let last_seen_s = moment.seconds.get();
        assert_eq!(tables.affinity.borrow()[&key], AffinityRow::new(first, last_seen_s));
        moment.seconds.set(last_seen_s + 101);
        let moved = (50..70).any(|cookie| {
            tables.affinity.borrow_mut().insert(key, AffinityRow::new(first, last_seen_s));
            ask(cookie) != first
        });
        assert!(moved, "the timeout has passed: any backend may be chosen");
    }
}

#[test]
fn affinity_ends_with_the_backend_and_is_each_clients_own() {
    for family in families() {
        let (mut tables, moment) = (family.world(50, 100), FakeMoment::default());
        let at = |tables: &MemoryTables, netns| {
            let client = FakeSocket { protocol: Some(Protocol::Udp), cookie: 1, netns };
            translated(connect(tables, &moment, &client, family.vip()))
        };
        let first = at(&tables, 1);
        let clients: std::collections::HashSet<Peer> = (1..50).map(|netns| at(&tables, netns)).collect();
        assert!(clients.len() > 10, "every client has a backend of its own");
        let rest: Vec<Peer> =
            (0..50).map(|index| family.backend(index)).filter(|peer| *peer != first).collect();
        fill(&mut tables, SERVICE, 200, &rest);
        let second = at(&tables, 1);
        assert_ne!(second, first);
        assert!((0..20).all(|_| at(&tables, 1) == second));
    }
}

#[test]
fn an_unconnected_socket_keeps_its_backend_while_it_is_usable() {
    for family in families() {
        let (mut tables, moment) = (family.world(50, 0), FakeMoment::default());
        let client = socket(Protocol::Udp, 1);
        let first = translated(sendmsg(&tables, &moment, &client, family.vip()));
        for _ in 0..20 {
            assert_eq!(translated(sendmsg(&tables, &moment, &client, family.vip())), first);
        }
        // The reverse row may be forgotten before the forward row is.
        let reverse_key = DatagramKey::new(1, first, Direction::Reverse);
        tables.datagrams.borrow_mut().remove(&reverse_key);
        assert_eq!(translated(sendmsg(&tables, &moment, &client, family.vip())), first);
        assert_eq!(reverse(&tables, &client, first), Some(family.vip()));

        let rest: Vec<Peer> =
            (0..50).map(|index| family.backend(index)).filter(|peer| *peer != first).collect();
        fill(&mut tables, SERVICE, 200, &rest);
        let second = translated(sendmsg(&tables, &moment, &client, family.vip()));
        assert!(rest.contains(&second));
        assert_eq!(reverse(&tables, &client, second), Some(family.vip()));
        assert_eq!(reverse(&tables, &client, first), Some(family.vip()), "a late reply is still a reply");
    }
}

#[test]
fn a_connected_socket_that_names_the_service_again_keeps_its_backend() {
    for family in families() {
        let (tables, moment) = (family.world(50, 0), FakeMoment::default());
        let client = socket(Protocol::Udp, 1);
        let backend = translated(connect(&tables, &moment, &client, family.vip()));
        for _ in 0..20 {
            assert_eq!(translated(sendmsg(&tables, &moment, &client, family.vip())), backend);
        }
        let elsewhere = family.backend(99);
        assert_eq!(connect(&tables, &moment, &client, elsewhere), Verdict::Pass);
        assert_eq!(reverse(&tables, &client, elsewhere), None, "connected to somebody else since");
    }
}

#[test]
fn what_is_remembered_of_a_connection_goes_with_its_socket() {
    let family = families()[0];
    let (tables, moment) = (family.world(1, 0), FakeMoment::default());
    for cookie in [1, 2] {
        translated(connect(&tables, &moment, &socket(Protocol::Tcp, cookie), family.vip()));
    }
    release(&tables, 1);
    release(&tables, 3);
    assert_eq!(tables.connections.borrow().keys().collect::<Vec<_>>(), [&2]);
}

#[test]
fn one_socket_may_speak_to_two_services() {
    for family in families() {
        let (mut tables, moment) = (family.world(1, 0), FakeMoment::default());
        let second_vip = family.peer(0x0a60_0002, 80);
        let row = Frontend { service: OTHER, affinity_s: 0 };
        tables.frontends.insert(FrontendKey::new(second_vip, Protocol::Udp), row);
        fill(&mut tables, OTHER, 300, &[family.backend(9)]);
        let client = socket(Protocol::Udp, 1);
        let first = translated(sendmsg(&tables, &moment, &client, family.vip()));
        let second = translated(sendmsg(&tables, &moment, &client, second_vip));
        assert_eq!(reverse(&tables, &client, first), Some(family.vip()));
        assert_eq!(reverse(&tables, &client, second), Some(second_vip));
    }
}

#[test]
fn a_frontend_that_changed_hands_does_not_keep_the_old_services_backend() {
    for family in families() {
        let (mut tables, moment) = (family.world(1, 0), FakeMoment::default());
        let client = socket(Protocol::Udp, 1);
        let first = translated(sendmsg(&tables, &moment, &client, family.vip()));
        let row = Frontend { service: OTHER, affinity_s: 0 };
        tables.frontends.insert(FrontendKey::new(family.vip(), Protocol::Udp), row);
        fill(&mut tables, OTHER, 300, &[family.backend(9)]);
        let second = translated(sendmsg(&tables, &moment, &client, family.vip()));
        assert_ne!(second, first);
    }
}

#[test]
fn full_tables_are_counted_and_nothing_else_suffers() {
    for family in families() {
        let (tables, moment) = (family.world(3, 100), FakeMoment::default());
        tables.full.set(true);
        let backend = translated(connect(&tables, &moment, &socket(Protocol::Tcp, 1), family.vip()));
        translated(sendmsg(&tables, &moment, &socket(Protocol::Udp, 2), family.vip()));
        assert_eq!(tables.counted(Counter::AffinityLost), 2);
        assert_eq!(tables.counted(Counter::ConnectionLost), 1);
        assert_eq!(tables.counted(Counter::DatagramLost), 2, "there and back");
        assert_eq!(reverse(&tables, &socket(Protocol::Tcp, 1), backend), None, "it sees the backend instead");
    }
}

#[test]
fn the_search_finds_every_member_and_nothing_else() {
    for family in families() {
        for len in [1, 2, 3, 7, 8, 1000] {
            let tables = family.world(len, 0);
            let run = tables.sets[&SERVICE.set(Side::Internal)].run().unwrap();
            for index in 0..len + 3 {
                assert_eq!(contains(&tables, run, &family.backend(index)), index < len, "{index} of {len}");
            }
            let other_port = Peer { port: Port::new(1), ..family.backend(0) };
            assert!(!contains(&tables, run, &other_port));
        }
    }
}

#[test]
fn the_longest_run_can_be_searched_to_its_end() {
    let family = families()[0];
    let mut tables = MemoryTables::default();
    let mut peers: Vec<Peer> = (0..Run::MAX_LEN).map(|index| family.backend(index)).collect();
    peers.sort_by(Peer::order);
    fill(&mut tables, SERVICE, 0, &peers);
    let run = tables.sets[&SERVICE.set(Side::Internal)].run().unwrap();
    for index in (0..peers.len()).step_by(4099).chain([peers.len() - 1]) {
        assert!(contains(&tables, run, &peers[index]), "{index}");
    }
}
