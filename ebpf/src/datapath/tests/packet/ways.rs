//! How packets go on, and how their replies come back.

use std::collections::HashSet;

use super::*;
use crate::wire::{TCP_ACK, TCP_SYN};

/// A flow from its first packet to its first reply: what the backend saw, and what the client got.
fn both_ways(world: &World, first: Hook, src: Peer, dialled: Peer, back: Hook) -> (Translation, Translation) {
    let there = translated(world.send(first, Protocol::Tcp, TCP_SYN, src, dialled));
    let reply = translated(world.send(back, Protocol::Tcp, TCP_SYN | TCP_ACK, there.dst, there.src));
    (there, reply)
}

fn stack(world: &mut World) {
    let config = world.tables.config.unwrap();
    world.tables.config = Some(Config { flags: Config::NO_REDIRECT, ..config });
}

#[test]
fn a_backend_here_sees_the_client_and_is_reached_past_the_stack() {
    for mut world in World::both() {
        world.set_backends(0..1);
        let (there, back) = both_ways(&world, Hook::FromNet, world.client(4000), world.node(), Hook::FromPod);
        let workload = world.tables.workloads[&world.pod(0).addr];
        assert_eq!((there.dst, there.onward), (world.pod(0), Onward::Workload(workload)));
        assert_eq!(there.src.addr, world.client(4000).addr);
        assert_eq!((back.src, back.dst, back.onward), (world.node(), world.client(4000), Onward::Route));
        assert_eq!(world.rows(), 2);
    }
}

#[test]
fn a_backend_elsewhere_answers_this_node() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let (there, back) = both_ways(&world, Hook::FromNet, world.client(4000), world.node(), Hook::FromNet);
        assert_eq!((there.dst, there.onward), (world.pod(2), Onward::Route));
        assert_eq!(there.src.addr, world.node().addr);
        assert!((20_000..21_000).contains(&there.src.port.host()));
        assert_eq!((back.src, back.dst, back.onward), (world.node(), world.client(4000), Onward::Route));
    }
}

#[test]
fn a_pod_keeps_its_address_wherever_the_backend_is() {
    for mut world in World::both() {
        for (backend, back) in [(1, Hook::FromPod), (2, Hook::FromNet)] {
            world.set_backends(backend..backend + 1);
            let src = Peer { port: Port::new(4000), ..world.pod(0) };
            let there = translated(world.send(Hook::FromPod, Protocol::Tcp, TCP_SYN, src, world.vip()));
            assert_eq!((there.src.addr, there.dst), (src.addr, world.pod(backend)));
            let flags = TCP_SYN | TCP_ACK;
            let first = world.send(back, Protocol::Tcp, flags, there.dst, there.src);
            let reply = if backend == 1 {
                assert!(
                    matches!(there.onward, Onward::Workload(_)),
                    "the bridge between them would see half of it"
                );
                translated(first)
            } else {
                assert_eq!((there.onward, first), (Onward::Stack, Verdict::Pass), "as its other packets do");
                translated(world.send(Hook::Last, Protocol::Tcp, flags, there.dst, there.src))
            };
            assert_eq!((reply.src, reply.dst), (world.vip(), src));
            world.tables.flows.borrow_mut().clear();
        }
    }
}

#[test]
fn a_pod_that_reaches_itself_through_its_service_does_not_see_itself() {
    for mut world in World::both() {
        world.set_backends(0..1);
        let src = Peer { port: Port::new(4000), ..world.pod(0) };
        let (there, back) = both_ways(&world, Hook::FromPod, src, world.vip(), Hook::FromPod);
        assert_eq!((there.src.addr, there.dst), (world.node().addr, world.pod(0)));
        assert_eq!((back.src, back.dst), (world.vip(), src));
    }
}

#[test]
fn through_the_stack_the_last_hook_finishes_what_the_first_began() {
    for mut world in World::both() {
        stack(&mut world);
        world.set_backends(2..3);
        let src = world.client(4000);
        let first = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, world.node()));
        assert_eq!((first.src.addr, first.dst, first.onward), (src.addr, world.pod(2), Onward::Stack));
        let last = translated(world.send(Hook::Last, Protocol::Tcp, TCP_SYN, first.src, first.dst));
        assert_eq!((last.src.addr, last.dst), (world.node().addr, world.pod(2)));

        let flags = TCP_SYN | TCP_ACK;
        let back = translated(world.send(Hook::FromNet, Protocol::Tcp, flags, last.dst, last.src));
        assert_eq!(
            (back.src, back.dst, back.onward),
            (first.dst, first.src, Onward::Stack),
            "as netfilter knows it"
        );
        let done = translated(world.send(Hook::Last, Protocol::Tcp, flags, back.src, back.dst));
        assert_eq!((done.src, done.dst), (world.node(), src));
        assert_eq!(world.rows(), 3);
    }
}

#[test]
fn through_the_stack_to_a_backend_here_only_the_reply_waits() {
    for mut world in World::both() {
        stack(&mut world);
        world.set_backends(0..1);
        let src = world.client(4000);
        let first = translated(world.send(Hook::FromNet, Protocol::Udp, 0, src, world.node()));
        assert_eq!((first.src.addr, first.dst, first.onward), (src.addr, world.pod(0), Onward::Stack));
        assert_eq!(
            world.send(Hook::Last, Protocol::Udp, 0, first.src, first.dst),
            Verdict::Pass,
            "it is finished"
        );
        assert_eq!(world.send(Hook::FromPod, Protocol::Udp, 0, first.dst, first.src), Verdict::Pass);
        let done = translated(world.send(Hook::Last, Protocol::Udp, 0, first.dst, first.src));
        assert_eq!((done.src, done.dst), (world.node(), src));
        assert_eq!(world.rows(), 2);
    }
}

#[test]
fn the_node_itself_as_a_backend_answers_through_the_last_hook() {
    for mut world in World::both() {
        world.set_backends(0..1);
        let own = Peer { port: Port::new(6443), ..world.node() };
        let backend = Backend::new(own, Backend::LOCAL);
        world.tables.backends.insert(1000, backend);
        let src = world.client(4000);
        let there = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, world.vip()));
        assert_eq!((there.src.addr, there.dst, there.onward), (src.addr, own, Onward::Stack));
        let back = translated(world.send(Hook::Last, Protocol::Tcp, TCP_SYN | TCP_ACK, own, there.src));
        assert_eq!((back.src, back.dst), (world.vip(), src));
    }
}

#[test]
fn one_client_reaches_one_backend_by_every_name_and_directly_at_once() {
    for through_stack in [false, true] {
        for mut world in World::both() {
            if through_stack {
                stack(&mut world);
            }
            for backend in [0, 2] {
                world.tables.flows.borrow_mut().clear();
                world.set_backends(backend..backend + 1);
                let src = world.client(4000);
                let mut seen = HashSet::from([src]);
                for dialled in [world.vip(), world.node(), world.balancer()] {
                    let first = translated(world.send(Hook::FromNet, Protocol::Udp, 0, src, dialled));
                    let mut at_backend = first.src;
                    if let Verdict::Translate(last) =
                        world.send(Hook::Last, Protocol::Udp, 0, first.src, first.dst)
                    {
                        at_backend = last.src;
                    }
                    assert!(seen.insert(at_backend), "{at_backend} is taken");
                    let hook = if backend == 0 { Hook::FromPod } else { Hook::FromNet };
                    let mut back = world.send(hook, Protocol::Udp, 0, world.pod(backend), at_backend);
                    if through_stack {
                        let (from, to) = match back {
                            Verdict::Translate(half) => (half.src, half.dst),
                            _ => (world.pod(backend), at_backend),
                        };
                        back = world.send(Hook::Last, Protocol::Udp, 0, from, to);
                    }
                    assert_eq!((translated(back).src, translated(back).dst), (dialled, src));
                }
                let direct = world.send(Hook::FromNet, Protocol::Udp, 0, src, world.pod(backend));
                assert_eq!(direct, Verdict::Pass, "none of ours");
                let reply = world.send(Hook::FromPod, Protocol::Udp, 0, world.pod(backend), src);
                assert_eq!(reply, Verdict::Pass);
            }
        }
    }
}

#[test]
fn what_may_have_to_be_cut_to_pieces_goes_through_the_stack() {
    for mut world in World::both() {
        world.set_backends(0..1);
        world.tables.devices.get_mut(&FIRST_POD).unwrap().mtu = 1450;
        let ask = |protocol| {
            translated(world.send(Hook::FromNet, protocol, TCP_SYN, world.client(4000), world.node())).onward
        };
        assert_eq!(ask(Protocol::Udp), Onward::Stack);
        assert_ne!(ask(Protocol::Tcp), Onward::Stack, "its segments are as long as both ends agree");
    }
}

#[test]
fn a_device_without_ethernet_or_without_our_programs_means_the_stack() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let src = world.client(4000);
        let ask = |world: &World| {
            let verdict = world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, world.node());
            world.tables.flows.borrow_mut().clear();
            translated(verdict).onward
        };
        assert_eq!(ask(&world), Onward::Route);
        world.tables.devices.get_mut(&UPLINK).unwrap().flags |= Device::NO_ETHERNET;
        assert_eq!(ask(&world), Onward::Stack);
        world.tables.devices.remove(&UPLINK);
        assert_eq!(ask(&world), Onward::Stack);
    }
}

#[test]
fn past_the_stack_a_packet_at_the_end_of_its_life_is_answered() {
    for world in World::both() {
        let mut frame = frame::udp(world.client(4000).into(), world.vip().into(), b"");
        let at = if world.vip().addr.is_v4() { 14 + 8 } else { 14 + 7 };
        frame[at] = 1;
        assert_eq!(world.ask(Hook::FromNet, &frame), Verdict::Answer(Answer::TimeExceeded));
    }
}
