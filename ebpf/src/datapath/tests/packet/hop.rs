//! The way on is remembered for a moment, each direction its own.

use super::*;
use crate::abi::{Hop, Window};
use crate::datapath::Moment as _;
use crate::datapath::packet::remember_hop;
use crate::wire::{Packet, TCP_ACK, TCP_FIN, TCP_SYN};

const THERE: Hop = Hop { ifindex: 7, mtu: 1500, dst: [2, 0, 0, 0, 0, 7], src: [2, 0, 0, 0, 0, 8] };
const BACK: Hop = Hop { ifindex: 9, ..THERE };

/// A segment as the first hook reads it.
fn packet(src: Peer, dst: Peer) -> Packet {
    let frame = frame::tcp(src.into(), dst.into(), TCP_ACK, b"");
    parse(&frame[..], 14, frame::ether_type(&frame)).expect("a packet")
}

fn window(world: &World) -> Window {
    world.moment.now().window()
}

#[test]
fn each_direction_has_a_hop_for_its_window() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let (client, dialled) = (world.client(4000), world.node());
        let send = |world: &World, flags, src, dst| {
            translated(world.send(Hook::FromNet, Protocol::Tcp, flags, src, dst))
        };
        let there = send(&world, TCP_SYN, client, dialled);
        assert_eq!((there.onward, there.hop), (Onward::Route, Hop::UNKNOWN));
        remember_hop(&world.tables, &packet(client, dialled), &THERE, window(&world));
        assert_eq!(send(&world, TCP_ACK, client, dialled).hop, THERE);
        assert_eq!(send(&world, TCP_ACK, there.dst, there.src).hop, Hop::UNKNOWN, "the other direction");
        remember_hop(&world.tables, &packet(there.dst, there.src), &BACK, window(&world));
        for flags in [TCP_ACK, TCP_FIN | TCP_ACK] {
            assert_eq!(send(&world, flags, there.dst, there.src).hop, BACK);
            assert_eq!(send(&world, flags, client, dialled).hop, THERE);
        }
        world.moment.seconds.set(world.moment.seconds.get() + 1);
        for (src, dst) in [(client, dialled), (there.dst, there.src)] {
            assert_eq!(send(&world, TCP_ACK, src, dst).hop.ifindex, 0, "it may have changed since");
        }
    }
}

#[test]
fn nothing_is_remembered_where_it_would_not_be_asked_for() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let (client, dialled) = (world.client(4000), world.node());
        remember_hop(&world.tables, &packet(client, dialled), &THERE, window(&world));
        assert_eq!(world.rows(), 0, "it is nobody's");
        let there = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, client, dialled));
        let begun = world.tables.flows.borrow().clone();
        // What nobody answers, nobody sends like that: the row of the other direction is not this one's to write to.
        for (src, dst) in [(dialled, client), (there.src, there.dst)] {
            remember_hop(&world.tables, &packet(src, dst), &THERE, window(&world));
        }
        assert_eq!(*world.tables.flows.borrow(), begun);

        world.tables.flows.borrow_mut().clear();
        let config = world.tables.config.unwrap();
        world.tables.config = Some(Config { flags: Config::NO_REDIRECT, ..config });
        translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, client, dialled));
        let begun = world.tables.flows.borrow().clone();
        remember_hop(&world.tables, &packet(client, dialled), &THERE, window(&world));
        assert_eq!(*world.tables.flows.borrow(), begun, "the stack asks for itself");
    }
}
