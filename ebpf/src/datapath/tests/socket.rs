//! Translation at the socket, on tables in memory.

use super::{OTHER, SERVICE, families, fill};
use crate::abi::{
    Addr, AddressUses, AffinityKey, AffinityRow, Client, Config, Counter, DatagramKey, Direction, DropReason,
    Frontend, FrontendKey, FrontendKind, Netns, Peer, Port, Prefix, Protocol, Scope, SetWord, SourceRangeKey,
};
use crate::datapath::socket::{Errno, Verdict, connect, release, reverse, sendmsg};
use crate::testing::{FakeMoment, FakeSocket, MemoryTables};

fn socket(protocol: Protocol, cookie: u64) -> FakeSocket {
    FakeSocket { protocol: Some(protocol), cookie, netns: 1, listener: false, in_pod: false }
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
        let raw = FakeSocket { protocol: None, cookie: 1, netns: 1, listener: false, in_pod: false };
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
            tables.sets.insert(SERVICE.set(Scope::Cluster), word);
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
        let key = AffinityKey::new(Client::from_netns(1), SERVICE);
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
            let client = FakeSocket {
                protocol: Some(Protocol::Udp),
                cookie: 1,
                netns,
                listener: false,
                in_pod: false,
            };
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
        let row = Frontend::new(OTHER, 0, FrontendKind::ClusterIp, 0);
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
        let row = Frontend::new(OTHER, 0, FrontendKind::ClusterIp, 0);
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

/// The cookie of the node's own network namespace, and a pod's.
const HOST: u64 = 1;
const POD: u64 = 2;

/// A socket of the node, or of a pod.
fn socket_of(netns: u64, listener: bool) -> FakeSocket {
    FakeSocket { protocol: Some(Protocol::Tcp), cookie: 9, netns, listener, in_pod: false }
}

/// Adds the two namespaces, and a node port 30080 of the Service at the node's address 99 and on loopback.
fn with_node_port(tables: &mut MemoryTables, family: super::Family) -> (Peer, Peer) {
    let at = |host| family.peer(host, 30080);
    for (cookie, flags) in [(HOST, Netns::HOST), (POD, 0)] {
        let addr = at(100 + u32::try_from(cookie).unwrap()).addr;
        tables.netns.insert(cookie, Netns { v4: addr, v6: addr, flags });
    }
    let (node, loopback) = (at(99), at(127));
    let uses = AddressUses::NODE.and(AddressUses::NODE_PORTS);
    tables.frontends.insert(FrontendKey::whole_address(node.addr), Frontend::whole_address(uses));
    let uses = uses.and(AddressUses::LOOPBACK);
    tables.frontends.insert(FrontendKey::whole_address(loopback.addr), Frontend::whole_address(uses));
    let wildcard = Peer { addr: node.addr.unspecified(), ..node };
    let row = Frontend::new(SERVICE, 0, FrontendKind::NodePort, Frontend::OUTSIDE_LOCAL);
    tables.frontends.insert(FrontendKey::new(wildcard, Protocol::Tcp), row);
    (node, loopback)
}

#[test]
fn node_ports_are_for_everybody_here_and_those_of_loopback_for_the_node() {
    for family in families() {
        let (mut tables, moment) = (family.world(1, 0), FakeMoment::default());
        let (node, loopback) = with_node_port(&mut tables, family);
        let ask = |netns, dialled| connect(&tables, &moment, &socket_of(netns, false), dialled);
        let backend = Verdict::Translate(family.backend(0));
        assert_eq!(ask(HOST, node), backend);
        assert_eq!(ask(POD, node), backend);
        assert_eq!(ask(HOST, loopback), backend);
        assert_eq!(ask(POD, loopback), Verdict::Pass, "a pod's loopback is its own");
        let unspecified = Peer { addr: node.addr.unspecified(), ..node };
        assert_eq!(ask(HOST, unspecified), backend, "it means this host");
        assert_eq!(ask(POD, unspecified), Verdict::Pass);
        assert_eq!(ask(HOST, Peer { port: Port::new(22), ..node }), Verdict::Pass, "the node's own business");
    }
}

#[test]
fn what_listens_at_an_address_of_the_node_comes_before_a_service_there() {
    for family in families() {
        let (mut tables, moment) = (family.world(1, 0), FakeMoment::default());
        with_node_port(&mut tables, family);
        let row = Frontend::new(SERVICE, 0, FrontendKind::ClusterIp, Frontend::NODE_ADDRESS);
        tables.frontends.insert(FrontendKey::new(family.vip(), Protocol::Tcp), row);
        let ask = |netns, listener| connect(&tables, &moment, &socket_of(netns, listener), family.vip());
        assert_eq!(ask(HOST, true), Verdict::Pass);
        assert_eq!(ask(HOST, false), Verdict::Translate(family.backend(0)));
        assert_eq!(ask(POD, false), Verdict::Pass, "its packets are asked about instead");
    }
}

#[test]
fn source_ranges_know_the_client_by_its_namespace() {
    for family in families() {
        let (mut tables, moment) = (family.world(1, 0), FakeMoment::default());
        with_node_port(&mut tables, family);
        let row = Frontend::new(SERVICE, 0, FrontendKind::LoadBalancer, Frontend::SOURCE_RANGES);
        tables.frontends.insert(FrontendKey::new(family.vip(), Protocol::Tcp), row);
        let pod = family.peer(102, 0).addr;
        tables.source_ranges.insert(SourceRangeKey::range(SERVICE, pod, 128));
        let ask = |netns| connect(&tables, &moment, &socket_of(netns, false), family.vip());
        assert_eq!(ask(POD), Verdict::Translate(family.backend(0)));
        assert_eq!(ask(HOST), Verdict::Deny(DropReason::SourceRange));
        assert_eq!(ask(77), Verdict::Pass, "nobody knows whose it is: its packets say");
        assert_eq!(tables.counted(Counter::SourceRange), 1);
    }
}

#[test]
fn sockets_are_left_alone_where_somebody_asked_for_it() {
    for family in families() {
        let (mut tables, moment) = (family.world(1, 0), FakeMoment::default());
        with_node_port(&mut tables, family);
        tables.netns.get_mut(&POD).unwrap().flags = Netns::NO_SOCKET_TRANSLATION;
        let ask =
            |tables: &MemoryTables, netns| connect(tables, &moment, &socket_of(netns, false), family.vip());
        assert_eq!(
            ask(&tables, POD),
            Verdict::Translate(family.backend(0)),
            "nobody looks before there is one"
        );
        tables.config = Some(Config { flags: Config::SOME_WITHOUT_SOCKETS, ..Config::EMPTY });
        assert_eq!(ask(&tables, POD), Verdict::Pass);
        assert_eq!(ask(&tables, HOST), Verdict::Translate(family.backend(0)));
    }
}

#[test]
fn an_address_of_the_service_network_that_no_service_has_is_refused() {
    for family in families() {
        let (mut tables, moment) = (family.world(1, 0), FakeMoment::default());
        let mut config = Config::EMPTY;
        config.service_networks[2] = Prefix::new(family.vip().addr, 112);
        tables.config = Some(config);
        let unallocated = family.peer(0x0a60_0002, 80);
        let ask = |dialled| connect(&tables, &moment, &socket_of(POD, false), dialled);
        assert_eq!(ask(unallocated), Verdict::Deny(DropReason::UnknownAddress));
        assert_eq!(ask(family.backend(0)), Verdict::Pass);
        let elsewhere = Peer { addr: Addr::from_words([1, 2, 3, 4]), ..unallocated };
        assert_eq!(ask(elsewhere), Verdict::Pass);
    }
}

#[test]
fn a_pod_that_nobody_knows_is_held_at_its_sockets() {
    const STRANGER: u64 = 77;
    for family in families() {
        let (mut tables, moment) = (family.world(1, 0), FakeMoment::default());
        let of = |in_pod, netns| FakeSocket { in_pod, netns, ..socket(Protocol::Udp, 5) };
        let ask = |tables: &MemoryTables, socket: &FakeSocket, dialled| {
            let verdict = connect(tables, &moment, socket, dialled);
            assert_eq!(sendmsg(tables, &moment, socket, dialled), verdict);
            verdict
        };
        tables.netns.insert(POD, Netns { v4: Addr::default(), v6: Addr::default(), flags: 0 });
        let held = Verdict::Deny(DropReason::UnknownPod);
        assert_eq!(ask(&tables, &of(true, STRANGER), family.backend(0)), Verdict::Pass, "without policies");
        tables.config = Some(Config { flags: Config::HOLD_STRANGERS, ..Config::EMPTY });
        for dialled in [family.vip(), family.backend(0)] {
            assert_eq!(ask(&tables, &of(true, STRANGER), dialled), held);
            assert_ne!(ask(&tables, &of(true, POD), dialled), held, "it is known");
            assert_ne!(ask(&tables, &of(false, STRANGER), dialled), held, "it is in no pod");
        }
        let own = if family.vip().addr.is_v4() { "127.0.0.1" } else { "::1" };
        let own = Peer { addr: own.parse::<core::net::IpAddr>().unwrap().into(), port: Port::new(80) };
        assert_eq!(ask(&tables, &of(true, STRANGER), own), Verdict::Pass, "within itself");
    }
}
