//! Who may begin a flow, and with whom.

use std::collections::HashSet;

use super::*;
use crate::abi::SourceRangeKey;
use crate::wire::{TCP_ACK, TCP_RST, TCP_SYN};

#[test]
fn whoever_is_not_a_service_is_left_alone_and_leaves_no_trace() {
    for world in World::both() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for (src, dst) in [
                (world.pod(0), world.pod(2)),
                (world.client(4000), Peer { port: Port::new(22), ..world.node() }),
                (world.client(4000), Peer { port: Port::new(80), ..world.balancer() }),
            ] {
                assert_eq!(world.send(Hook::FromNet, protocol, TCP_SYN, src, dst), Verdict::Pass);
                assert_eq!(world.send(Hook::FromPod, protocol, TCP_SYN, src, dst), Verdict::Pass);
                assert_eq!(world.send(Hook::Last, protocol, TCP_SYN, src, dst), Verdict::Pass);
            }
        }
        assert_eq!(world.rows(), 0);
        assert!(world.tables.counters.borrow().is_empty());
    }
}

#[test]
fn every_kind_of_frontend_is_served_from_inside_and_from_outside() {
    for world in World::both() {
        let backends: HashSet<Peer> = (0..ALL).map(|pod| world.pod(pod)).collect();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for dialled in [world.vip(), world.balancer(), world.node()] {
                for (hook, src) in [
                    (Hook::FromPod, world.family.peer(0x0af4_0101, 4000)),
                    (Hook::FromNet, world.client(4000)),
                ] {
                    let found = translated(world.send(hook, protocol, TCP_SYN, src, dialled));
                    assert!(backends.contains(&found.dst), "{dialled} became {}", found.dst);
                }
            }
        }
    }
}

#[test]
fn refusals_and_drops_have_their_reason() {
    for mut world in World::both() {
        let unallocated = world.family.peer(0x0a60_0063, 80);
        let mut config = world.tables.config.unwrap();
        config.service_networks[0] = Prefix::new(world.vip().addr, 120);
        world.tables.config = Some(config);
        let other_port = Peer { port: Port::new(81), ..world.vip() };
        let refused = |reason| Verdict::Answer(Answer::Refusal(reason));
        let client = world.client(4000);
        let ask = |world: &World, dst| world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, client, dst);
        assert_eq!(ask(&world, other_port), refused(DropReason::UnknownPort));
        assert_eq!(ask(&world, unallocated), Verdict::Drop(DropReason::UnknownAddress));
        world.set_backends(0..0);
        assert_eq!(ask(&world, world.vip()), refused(DropReason::NoEndpoint));
        assert_eq!(ask(&world, world.node()), refused(DropReason::NoEndpoint));
        let echo = frame::echo_request(ip(client), ip(unallocated), b"");
        assert_eq!(world.ask(Hook::FromNet, &echo), Verdict::Drop(DropReason::UnknownAddress));
        for counter in [Counter::UnknownPort, Counter::UnknownAddress, Counter::NoEndpoint] {
            assert!(world.tables.counted(counter) > 0, "{counter:?}");
        }
        assert_eq!(world.rows(), 0);
    }
}

#[test]
fn policy_local_is_for_clients_outside_and_drops_where_nothing_is_here() {
    for mut world in World::both() {
        let wildcard = Peer { addr: world.node().addr.unspecified(), ..world.node() };
        let flags = Frontend::OUTSIDE_LOCAL | Frontend::CONSISTENT;
        world.set_frontend(wildcard, Protocol::Tcp, FrontendKind::NodePort, flags);
        let mut outside = HashSet::new();
        for port in 4000..4200 {
            let found = translated(world.send(
                Hook::FromNet,
                Protocol::Tcp,
                TCP_SYN,
                world.client(port),
                world.node(),
            ));
            assert_eq!(found.src.addr, world.client(port).addr, "the client stays visible");
            outside.insert(found.dst);
        }
        assert_eq!(outside, (0..LOCAL).map(|pod| world.pod(pod)).collect());
        world.set_backends(LOCAL..ALL);
        let src = world.client(9);
        let verdict = world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, world.node());
        assert_eq!(verdict, Verdict::Drop(DropReason::NoLocalEndpoint));
        let inside = world.send(Hook::FromPod, Protocol::Tcp, TCP_SYN, world.pod(0), world.node());
        assert!(
            (LOCAL..ALL).any(|pod| translated(inside).dst == world.pod(pod)),
            "a pod is served from anywhere"
        );
    }
}

#[test]
fn source_ranges_drop_whoever_is_in_none() {
    for mut world in World::both() {
        world.set_frontend(
            world.balancer(),
            Protocol::Udp,
            FrontendKind::LoadBalancer,
            Frontend::SOURCE_RANGES,
        );
        let ask =
            |world: &World| world.send(Hook::FromNet, Protocol::Udp, 0, world.client(4000), world.balancer());
        assert_eq!(ask(&world), Verdict::Drop(DropReason::SourceRange));
        let other = SourceRangeKey::range(ServiceId(SERVICE.0 + 1), world.client(0).addr, 120);
        world.tables.source_ranges.insert(other);
        assert_eq!(ask(&world), Verdict::Drop(DropReason::SourceRange), "another Service's range");
        world.tables.source_ranges.insert(SourceRangeKey::range(SERVICE, world.client(0).addr, 120));
        translated(ask(&world));
    }
}

#[test]
fn of_tcp_only_a_syn_begins_a_flow() {
    for world in World::both() {
        for flags in [TCP_ACK, TCP_SYN | TCP_ACK, TCP_RST, 0] {
            let verdict = world.send(Hook::FromNet, Protocol::Tcp, flags, world.client(4000), world.vip());
            assert_eq!(verdict, Verdict::Pass, "{flags:#x}: kube-proxy's, in mid-stream");
        }
        assert_eq!(world.rows(), 0);
    }
}

#[test]
fn what_listens_on_the_node_comes_before_a_service_at_its_address() {
    for mut world in World::both() {
        world.set_frontend(world.vip(), Protocol::Udp, FrontendKind::ClusterIp, Frontend::NODE_ADDRESS);
        let ask = |world: &World| world.send(Hook::FromPod, Protocol::Udp, 0, world.pod(0), world.vip());
        translated(ask(&world));
        world.tables.flows.borrow_mut().clear();
        world.network.sockets.insert((Protocol::Udp, world.vip()));
        assert_eq!(ask(&world), Verdict::Pass);
    }
}

#[test]
fn the_same_client_gets_the_same_backend_from_two_nodes() {
    for world in World::both() {
        let mut second = World::new(world.family);
        second.moment.seed.set(99);
        // The same pods, seen from the other side.
        second.tables.workloads.clear();
        for port in 4000..4100 {
            let ask = |world: &World| {
                translated(world.send(
                    Hook::FromNet,
                    Protocol::Tcp,
                    TCP_SYN,
                    world.client(port),
                    world.balancer(),
                ))
                .dst
            };
            assert_eq!(ask(&world), ask(&second));
        }
    }
}
