//! Errors and echo.

use super::*;
use crate::wire::{TCP_ACK, TCP_SYN};

/// Who reports the error, from which side it comes, what of the flow it quotes.
struct Error {
    hook: Hook,
    reporter: Peer,
    quoted: (Peer, Peer),
}

fn ask(world: &World, error: &Error) -> Translation {
    let (src, dst) = error.quoted;
    let about = frame::tcp(src.into(), dst.into(), TCP_ACK, &[1; 100]);
    translated(world.ask(error.hook, &frame::icmp_error(ip(error.reporter), &about, true)))
}

fn ends(found: &Translation) -> (Peer, Peer) {
    let quoted = found.quoted.unwrap();
    (quoted.src, quoted.dst)
}

#[test]
fn a_router_towards_the_backend_is_heard_by_the_client() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let (src, router) = (world.client(4000), world.family.peer(0x0c00_0001, 0));
        let there = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, world.node()));
        let error = Error { hook: Hook::FromNet, reporter: router, quoted: (there.src, there.dst) };
        let found = ask(&world, &error);
        assert_eq!((found.src.addr, found.dst.addr), (router.addr, src.addr));
        assert_eq!(ends(&found), (src, world.node()), "it recognises what it sent");
        assert_eq!(found.onward, Onward::Route);
        let found = ask(&world, &Error { reporter: there.dst, ..error });
        assert_eq!(found.src.addr, world.node().addr, "the backend is what it dialled");
    }
}

#[test]
fn a_router_towards_the_client_is_heard_by_the_backend() {
    for mut world in World::both() {
        for (backend, hidden) in [(0, false), (2, true)] {
            world.set_backends(backend..backend + 1);
            let (src, router) = (world.client(4000), world.family.peer(0x0c00_0001, 0));
            let there = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, world.node()));
            let found =
                ask(&world, &Error { hook: Hook::FromNet, reporter: router, quoted: (world.node(), src) });
            let sender = if hidden { world.node().addr } else { router.addr };
            assert_eq!((found.src.addr, found.dst.addr), (sender, there.dst.addr));
            assert_eq!(ends(&found), (there.dst, there.src));
            world.tables.flows.borrow_mut().clear();
        }
    }
}

#[test]
fn through_the_stack_errors_take_the_same_two_steps() {
    for mut world in World::both() {
        let config = world.tables.config.unwrap();
        world.tables.config = Some(Config { flags: Config::NO_REDIRECT, ..config });
        world.set_backends(2..3);
        let (src, router) = (world.client(4000), world.family.peer(0x0c00_0001, 0));
        let first = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, world.node()));
        let last = translated(world.send(Hook::Last, Protocol::Tcp, TCP_SYN, first.src, first.dst));
        let half =
            ask(&world, &Error { hook: Hook::FromNet, reporter: router, quoted: (last.src, last.dst) });
        assert_eq!(
            (half.dst.addr, ends(&half)),
            (src.addr, (first.src, first.dst)),
            "as netfilter knows the flow"
        );
        let done = ask(&world, &Error { hook: Hook::Last, reporter: router, quoted: ends(&half) });
        assert_eq!((done.dst.addr, ends(&done)), (src.addr, (src, world.node())));

        let half = ask(&world, &Error { hook: Hook::FromNet, reporter: router, quoted: (world.node(), src) });
        assert_eq!((half.dst.addr, ends(&half)), (last.dst.addr, (first.dst, first.src)));
        let done = ask(&world, &Error { hook: Hook::Last, reporter: router, quoted: ends(&half) });
        assert_eq!((done.src.addr, ends(&done)), (world.node().addr, (last.dst, last.src)));
    }
}

#[test]
fn the_nodes_own_errors_about_a_packet_in_the_stack_reach_the_client() {
    for mut world in World::both() {
        let config = world.tables.config.unwrap();
        world.tables.config = Some(Config { flags: Config::NO_REDIRECT, ..config });
        for backend in [0, 2] {
            world.set_backends(backend..backend + 1);
            let src = world.client(4000);
            let first = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, world.node()));
            let error = Error { hook: Hook::Last, reporter: world.node(), quoted: (first.src, first.dst) };
            let found = ask(&world, &error);
            assert_eq!((found.src.addr, found.dst.addr), (world.node().addr, src.addr));
            assert_eq!(ends(&found), (src, world.node()));
            world.tables.flows.borrow_mut().clear();
        }
    }
}

#[test]
fn errors_about_what_is_none_of_ours_pass() {
    for world in World::both() {
        let about = frame::tcp(world.pod(0).into(), world.client(4000).into(), TCP_ACK, &[1; 100]);
        let error = frame::icmp_error(ip(world.client(4000)), &about, false);
        for hook in [Hook::FromNet, Hook::FromPod, Hook::Last] {
            assert_eq!(world.ask(hook, &error), Verdict::Pass);
        }
    }
}

#[test]
fn service_addresses_answer_echo_and_the_node_answers_for_itself() {
    for world in World::both() {
        let ask = |hook, dst| world.ask(hook, &frame::echo_request(ip(world.client(1)), ip(dst), b"abc"));
        for hook in [Hook::FromNet, Hook::FromPod, Hook::Last] {
            assert_eq!(ask(hook, world.vip()), Verdict::Answer(Answer::EchoReply));
            assert_eq!(ask(hook, world.balancer()), Verdict::Answer(Answer::EchoReply));
            assert_eq!(ask(hook, world.node()), Verdict::Pass);
            assert_eq!(ask(hook, world.pod(0)), Verdict::Pass);
        }
    }
}
