//! Ahead of the first hook: the same translation and the same traces, or none of either.

use super::*;
use crate::abi::{Flow, Tuple};
use crate::datapath::Moment as _;
use crate::datapath::PacketTables as _;
use crate::datapath::packet::{look_ahead, note_ahead};
use crate::wire::{Fragment, Kind, Packet, TCP_ACK, TCP_FIN, TCP_SYN};

/// What a segment becomes ahead of the hooks, and whatever it leaves behind.
fn ahead(world: &World, flags: u8, src: Peer, dst: Peer) -> Option<Translation> {
    let frame = frame::tcp(src.into(), dst.into(), flags, b"");
    let packet = parse(&frame[..], 14, frame::ether_type(&frame)).expect("a packet");
    let found = look_ahead(&world.tables, world.moment.now(), &packet)?;
    note_ahead(&world.tables, world.moment.now(), &packet, &found);
    Some(found.translation)
}

/// Everything that packets change.
fn traces(world: &World) -> (Vec<(Tuple, Flow)>, Vec<u64>) {
    let mut flows: Vec<_> = world.tables.flows.borrow().iter().map(|(key, row)| (*key, *row)).collect();
    flows.sort_by_key(|(key, _)| format!("{key:?}"));
    (flows, Counter::ALL.iter().map(|counter| world.tables.counted(*counter)).collect())
}

#[test]
fn known_flows_to_other_nodes_become_what_the_first_hook_makes_of_them() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let (client, dialled) = (world.client(4000), world.node());
        assert_eq!(ahead(&world, TCP_SYN, client, dialled), None);
        let there = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, client, dialled));
        let begun = traces(&world);
        for (second, flags) in (1001..).zip([TCP_ACK, TCP_ACK, TCP_FIN | TCP_ACK]) {
            world.moment.seconds.set(second);
            for (src, dst) in [(client, dialled), (there.dst, there.src)] {
                let before = world.tables.clone();
                let early = ahead(&world, flags, src, dst).expect("a known flow");
                let traces_early = traces(&world);
                world.tables = before;
                let late = translated(world.send(Hook::FromNet, Protocol::Tcp, flags, src, dst));
                assert_eq!((early, traces_early), (late, traces(&world)));
            }
        }
        assert_ne!(traces(&world), begun);
        assert!(world.tables.lookup_flow(&Tuple::new(client, dialled, Protocol::Tcp).0).is_some());
    }
}

#[test]
fn what_is_not_certain_is_left_to_the_first_hook_without_a_trace() {
    for mut world in World::both() {
        let (client, dialled) = (world.client(4000), world.node());
        // Not known; then to a pod of this node; then opened again.
        assert_eq!(ahead(&world, TCP_ACK, client, dialled), None);
        world.set_backends(0..1);
        let there = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, client, dialled));
        let begun = traces(&world);
        assert_eq!(ahead(&world, TCP_ACK, client, dialled), None);
        // Out to the client it may go on at once, wherever it comes from.
        assert!(look_back(&world, there));
        assert_eq!(ahead(&world, TCP_SYN, client, dialled), None);
        assert_eq!(traces(&world), begun);

        world.tables.flows.borrow_mut().clear();
        world.set_backends(2..3);
        let config = world.tables.config.unwrap();
        world.tables.config = Some(Config { flags: Config::NO_REDIRECT, ..config });
        let there = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, client, dialled));
        let begun = traces(&world);
        assert_eq!(there.onward, Onward::Stack);
        assert_eq!(ahead(&world, TCP_ACK, client, dialled), None, "the stack has to see it");
        assert_eq!(traces(&world), begun);
    }
}

#[test]
fn pieces_and_packets_at_the_end_of_their_life_are_the_first_hooks() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let (client, dialled) = (world.client(4000), world.node());
        translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, client, dialled));
        let frame = frame::tcp(client.into(), dialled.into(), TCP_ACK, b"");
        let packet = parse(&frame[..], 14, frame::ether_type(&frame)).expect("a packet");
        assert!(look_ahead(&world.tables, world.moment.now(), &packet).is_some());
        for other in [
            Packet { ttl: 1, ..packet },
            Packet { ttl: 0, ..packet },
            Packet { fragment: Fragment::First(7), ..packet },
            Packet { fragment: Fragment::Later(7), ..packet },
            Packet { kind: Kind::IcmpError, ..packet },
            Packet { kind: Kind::EchoRequest, ..packet },
        ] {
            assert!(look_ahead(&world.tables, world.moment.now(), &other).is_none(), "{other:?}");
        }
    }
}

/// Whether the reply would go on ahead; nothing is noted.
fn look_back(world: &World, there: Translation) -> bool {
    let frame = frame::tcp(there.dst.into(), there.src.into(), TCP_ACK, b"");
    let packet = parse(&frame[..], 14, frame::ether_type(&frame)).expect("a packet");
    look_ahead(&world.tables, world.moment.now(), &packet).is_some()
}
