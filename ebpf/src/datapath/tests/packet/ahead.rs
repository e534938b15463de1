//! Ahead of everything else: the same translation as at the first hook, of packets that leave no trace there.

use super::*;
use crate::abi::{Flow, Hop, Tuple};
use crate::datapath::Moment as _;
use crate::datapath::packet::{Ahead, look_ahead, remember_hop};
use crate::wire::{Fragment, Kind, Packet, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

const HOP: Hop = Hop { ifindex: 7, mtu: 1500, dst: [2, 0, 0, 0, 0, 7], src: [2, 0, 0, 0, 0, 8] };

fn packet(flags: u8, src: Peer, dst: Peer) -> Packet {
    let frame = frame::tcp(src.into(), dst.into(), flags, b"");
    parse(&frame[..], 14, frame::ether_type(&frame)).expect("a packet")
}

fn look(world: &World, packet: &Packet) -> Ahead {
    look_ahead(&world.tables, world.moment.window(), packet)
}

/// What a segment becomes ahead of the hooks.
fn ahead(world: &World, flags: u8, src: Peer, dst: Peer) -> Ahead {
    look(world, &packet(flags, src, dst))
}

/// A segment that finds its hop, at the first hook.
fn send_and_remember(world: &World, flags: u8, src: Peer, dst: Peer) -> Translation {
    let translation = translated(world.send(Hook::FromNet, Protocol::Tcp, flags, src, dst));
    remember_hop(&world.tables, &packet(flags, src, dst), &HOP, world.moment.window());
    translation
}

/// Everything that packets change, but for what they are counted as.
fn rows(world: &World) -> Vec<(Tuple, Flow)> {
    let mut flows: Vec<_> = world.tables.flows.borrow().iter().map(|(key, row)| (*key, *row)).collect();
    flows.sort_by_key(|(key, _)| format!("{key:?}"));
    flows
}

#[test]
fn known_flows_to_other_nodes_become_what_the_first_hook_makes_of_them() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let (client, dialled) = (world.client(4000), world.node());
        assert_eq!(ahead(&world, TCP_SYN, client, dialled), Ahead::New);
        let there = send_and_remember(&world, TCP_SYN, client, dialled);
        send_and_remember(&world, TCP_SYN | TCP_ACK, there.dst, there.src);
        let ways = [(client, dialled, Counter::PacketForward), (there.dst, there.src, Counter::PacketReply)];
        for (src, dst, counter) in ways {
            // The first that acknowledges is news.
            assert_eq!(ahead(&world, TCP_ACK, src, dst), Ahead::Wait);
            send_and_remember(&world, TCP_ACK, src, dst);
            let begun = rows(&world);
            let counted = world.tables.counted(counter);
            let early = ahead(&world, TCP_ACK, src, dst);
            let late = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_ACK, src, dst));
            assert_eq!(early, Ahead::Translate(late, counter));
            assert_eq!(late.hop, HOP);
            assert_eq!(rows(&world), begun, "neither leaves a trace");
            assert_eq!(world.tables.counted(counter), counted + 1, "the first hook counts by itself");
        }
    }
}

#[test]
fn news_are_the_first_hooks() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let (client, dialled) = (world.client(4000), world.node());
        let there = send_and_remember(&world, TCP_SYN, client, dialled);
        assert_eq!(ahead(&world, TCP_ACK, there.dst, there.src), Ahead::Wait, "its hop is not known");
        for (src, dst) in [(client, dialled), (there.dst, there.src)] {
            send_and_remember(&world, TCP_ACK, src, dst);
            for flags in [TCP_SYN, TCP_FIN | TCP_ACK, TCP_RST, TCP_RST | TCP_ACK] {
                assert_eq!(ahead(&world, flags, src, dst), Ahead::Wait, "{flags:#x}");
            }
            // What was noted is no news; a direction that goes on after a reset is.
            send_and_remember(&world, TCP_FIN | TCP_ACK, src, dst);
            assert!(matches!(ahead(&world, TCP_FIN | TCP_ACK, src, dst), Ahead::Translate(..)));
            send_and_remember(&world, TCP_RST, src, dst);
            assert_eq!(ahead(&world, TCP_ACK, src, dst), Ahead::Wait);
        }
        send_and_remember(&world, TCP_ACK, client, dialled);
        assert!(matches!(ahead(&world, TCP_ACK, client, dialled), Ahead::Translate(..)));
        world.moment.seconds.set(world.moment.seconds.get() + 1);
        assert_eq!(ahead(&world, TCP_ACK, client, dialled), Ahead::Wait, "its hop may have changed");
    }
}

#[test]
fn what_is_not_certain_is_left_to_the_first_hook() {
    for mut world in World::both() {
        let (client, dialled) = (world.client(4000), world.node());
        // To a pod of this node; then opened again.
        world.set_backends(0..1);
        let there = send_and_remember(&world, TCP_SYN, client, dialled);
        assert_eq!(ahead(&world, TCP_ACK, client, dialled), Ahead::Wait);
        // Out to the client it may go on at once, wherever it comes from.
        send_and_remember(&world, TCP_ACK, there.dst, there.src);
        assert!(matches!(ahead(&world, TCP_ACK, there.dst, there.src), Ahead::Translate(..)));

        world.tables.flows.borrow_mut().clear();
        world.set_backends(2..3);
        let config = world.tables.config.unwrap();
        world.tables.config = Some(Config { flags: Config::NO_REDIRECT, ..config });
        let there = send_and_remember(&world, TCP_SYN, client, dialled);
        assert_eq!(there.onward, Onward::Stack);
        assert_eq!(ahead(&world, TCP_ACK, client, dialled), Ahead::Wait, "the stack has to see it");
    }
}

#[test]
fn pieces_and_packets_at_the_end_of_their_life_are_the_first_hooks() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let (client, dialled) = (world.client(4000), world.node());
        send_and_remember(&world, TCP_SYN, client, dialled);
        send_and_remember(&world, TCP_ACK, client, dialled);
        let packet = packet(TCP_ACK, client, dialled);
        assert!(matches!(look(&world, &packet), Ahead::Translate(..)));
        for other in [
            Packet { ttl: 1, ..packet },
            Packet { ttl: 0, ..packet },
            Packet { fragment: Fragment::First(7), ..packet },
            Packet { fragment: Fragment::Later(7), ..packet },
            Packet { kind: Kind::IcmpError, ..packet },
            Packet { kind: Kind::EchoRequest, ..packet },
        ] {
            assert_eq!(look(&world, &other), Ahead::Wait, "{other:?}");
        }
    }
}
