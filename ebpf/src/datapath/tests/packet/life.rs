//! How flows live and end, and what happens when there is no room for more.

use super::*;
use crate::abi::{Flow, Form, Signs, Tuple};
use crate::datapath::lifetime::{lifetime_in_need_s, lifetime_s};
use crate::wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

fn row(world: &World, a: Peer, b: Peer, protocol: Protocol) -> Flow {
    world.tables.flows.borrow()[&Tuple::new(a, b, protocol).0]
}

#[test]
fn each_direction_notes_what_it_saw_in_its_own_row() {
    for mut world in World::both() {
        world.set_backends(0..1);
        let src = world.client(4000);
        let there = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, world.vip()));
        let client = |world: &World| row(world, src, world.vip(), Protocol::Tcp);
        let backend = |world: &World| row(world, there.src, there.dst, Protocol::Tcp);
        assert_eq!((client(&world).seen_s, client(&world).signs), (1000, Signs::SEEN));
        assert_eq!((backend(&world).seen_s, backend(&world).signs), (0, Signs(0)), "not heard of yet");
        world.moment.seconds.set(1007);
        translated(world.send(Hook::FromPod, Protocol::Tcp, TCP_SYN | TCP_ACK, there.dst, there.src));
        assert_eq!((backend(&world).seen_s, backend(&world).signs), (1007, Signs::SEEN));
        assert_eq!(client(&world).seen_s, 1000);
        translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_FIN | TCP_ACK, src, world.vip()));
        assert_eq!(
            (client(&world).seen_s, client(&world).signs),
            (1007, Signs::SEEN.and(Signs::ACK).and(Signs::FIN))
        );
        assert_eq!(client(&world).form(), Form::Dialled);
    }
}

#[test]
fn a_flow_keeps_its_backend_when_the_set_changes() {
    for mut world in World::both() {
        world.set_backends(0..1);
        let (src, vip) = (world.client(4000), world.vip());
        let there = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, vip));
        world.set_backends(1..ALL);
        for flags in [TCP_SYN, TCP_ACK, TCP_FIN | TCP_ACK] {
            assert_eq!(translated(world.send(Hook::FromNet, Protocol::Tcp, flags, src, vip)).dst, there.dst);
        }
    }
}

#[test]
fn the_port_of_a_connection_that_is_over_may_be_used_again_at_once() {
    for mut world in World::both() {
        world.set_backends(0..1);
        let (src, vip) = (world.client(4000), world.vip());
        for end in [TCP_RST, TCP_FIN | TCP_ACK] {
            let there = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, vip));
            translated(world.send(Hook::FromNet, Protocol::Tcp, end, src, vip));
            if end != TCP_RST {
                let verdict = world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, vip);
                assert_eq!(translated(verdict).dst, there.dst, "one side alone does not end it");
            }
            translated(world.send(Hook::FromPod, Protocol::Tcp, end, there.dst, there.src));
            world.set_backends(1..2);
            assert_eq!(
                translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, vip)).dst,
                world.pod(1)
            );
            assert_eq!(world.rows(), 2, "nothing of the old one is left");
            world.tables.flows.borrow_mut().clear();
            world.set_backends(0..1);
        }
    }
}

#[test]
fn a_connection_that_is_over_takes_no_other_with_it() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let (src, node) = (world.client(4000), world.node());
        let there = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, node));
        assert_eq!((there.src.addr, there.onward), (node.addr, Onward::Route));
        // Another connection of the client's to the backend, which sees it; by chance it has the same source port.
        let mut other = Flow::new(world.client(5000), world.vip(), there.dst, SERVICE, 1000);
        other.set_source(Peer { addr: src.addr, port: there.src.port });
        for form in [Form::Received, Form::Dialled] {
            let key = other.set_form(form, Protocol::Tcp);
            world.tables.flows.borrow_mut().insert(key, other);
        }
        translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_RST, src, node));
        translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, node));
        let reply = world.send(Hook::FromNet, Protocol::Tcp, TCP_ACK, other.backend(), other.source());
        assert_eq!(reply, Verdict::Pass, "the last hook's: the other one is still there");
    }
}

#[test]
fn a_backend_that_opens_a_connection_of_its_own_is_no_reply() {
    for mut world in World::both() {
        world.set_backends(0..1);
        let there =
            translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, world.client(4000), world.vip()));
        let verdict = world.send(Hook::FromPod, Protocol::Tcp, TCP_SYN, there.dst, there.src);
        assert_eq!(verdict, Verdict::Pass);
    }
}

#[test]
fn a_full_table_refuses_and_leaves_nothing_half_done() {
    for mut world in World::both() {
        world.set_backends(0..1);
        let (src, vip) = (world.client(4000), world.vip());
        translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, vip));
        world.tables.full.set(true);
        let refused = Verdict::Answer(Answer::Refusal(DropReason::FlowsFull));
        assert_eq!(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, world.client(4001), vip), refused);
        assert_eq!(world.rows(), 2);
        translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_ACK, src, vip));
        assert_eq!(world.tables.counted(Counter::FlowsFull), 1);
    }
}

#[test]
fn without_a_source_port_a_client_is_refused_and_never_mistaken_for_another() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let config = world.tables.config.unwrap();
        // Half of them are for clients whom the backend sees.
        world.tables.config = Some(Config { ports: 8, ..config });
        let mut sources = std::collections::HashSet::new();
        let mut refused = 0;
        for port in 4000..4010 {
            match world.send(Hook::FromNet, Protocol::Udp, 0, world.client(port), world.node()) {
                Verdict::Translate(there) => assert!(sources.insert(there.src), "{} twice", there.src),
                verdict => {
                    assert_eq!(verdict, Verdict::Answer(Answer::Refusal(DropReason::NoSourcePort)));
                    refused += 1;
                }
            }
        }
        assert_eq!((sources.len(), refused), (4, 6));
        assert_eq!(world.tables.counted(Counter::NoSourcePort), 6);
    }
}

#[test]
fn ports_that_a_process_of_the_node_has_are_not_given_away() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let config = world.tables.config.unwrap();
        world.tables.config = Some(Config { ports: 4, ..config });
        let taken = Peer { port: Port::new(20_001), ..world.node() };
        world.network.sockets.insert((Protocol::Udp, taken));
        let there = translated(world.send(Hook::FromNet, Protocol::Udp, 0, world.client(4000), world.node()));
        assert_eq!(there.src.port.host(), 20_000);
    }
}

/// One node hides a client behind its own address; that same node dials the other as a client, which the backend sees.
#[test]
fn two_nodes_never_give_one_tuple_to_two_flows() {
    for mut world in World::both() {
        let ports = |world: &World, hook, clients: &[Peer]| -> std::collections::HashSet<u16> {
            let send = |client: &Peer| {
                let (src, dst) = (Peer { port: client.port, ..*client }, world.node());
                translated(world.send(hook, Protocol::Udp, 0, src, dst)).src.port.host()
            };
            clients.iter().map(send).collect()
        };
        let many = |peer: Peer| -> Vec<Peer> {
            (40_000..40_300).map(|port| Peer { port: Port::new(port), ..peer }).collect()
        };
        world.set_backends(2..3);
        let hidden = ports(&world, Hook::FromNet, &many(world.client(0)));
        let of_pods = ports(&world, Hook::FromPod, &many(world.pod(0)));
        world.tables.flows.borrow_mut().clear();
        world.set_backends(0..1);
        let seen = ports(&world, Hook::FromNet, &many(world.client(0)));
        assert!(seen.len() > 250 && hidden.len() > 250, "{} {}", seen.len(), hidden.len());
        assert!(seen.is_disjoint(&hidden) && seen.is_disjoint(&of_pods));
    }
}

#[test]
fn a_privileged_port_is_kept_where_the_client_is_seen() {
    for mut world in World::both() {
        world.set_backends(0..1);
        let src = world.client(700);
        let there = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, world.vip()));
        assert_eq!(there.src, src);
        let second = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, src, world.node()));
        assert_ne!(second.src, src, "it is taken");
    }
}

#[test]
fn lifetimes_follow_what_was_seen() {
    let (syn, seen) = (Signs::SEEN, Signs::SEEN.and(Signs::ACK));
    let (fin, rst) = (seen.and(Signs::FIN), seen.and(Signs::RST));
    for (protocol, client, backend, seconds) in [
        (Protocol::Tcp, syn, Signs(0), 120),
        (Protocol::Tcp, syn, syn, 120),
        (Protocol::Tcp, syn, seen, 120),
        (Protocol::Tcp, seen, syn, 86_400),
        (Protocol::Tcp, seen, seen, 86_400),
        (Protocol::Tcp, fin, seen, 3_600),
        (Protocol::Tcp, seen, fin, 3_600),
        (Protocol::Tcp, fin, fin, 20),
        (Protocol::Tcp, rst, fin, 10),
        (Protocol::Tcp, syn, rst, 10),
        (Protocol::Tcp, rst, fin, 10),
        (Protocol::Tcp, seen, rst, 10),
        (Protocol::Udp, seen, Signs(0), 30),
        (Protocol::Udp, seen, seen, 180),
        (Protocol::Sctp, seen, seen, 210),
    ] {
        let name = format!("{protocol} {client:?} {backend:?}");
        assert_eq!(lifetime_s(protocol, client, backend, 3), seconds, "{name}");
        let short = if (protocol, seconds) == (Protocol::Udp, 180) { 30 } else { seconds };
        assert_eq!(lifetime_s(protocol, client, backend, 2), short, "{name}: a question and its answer");
        let in_need = if backend == Signs(0) || seconds == 120 { 10 } else { seconds };
        assert_eq!(lifetime_in_need_s(protocol, client, backend, 3), in_need, "{name}");
    }
}

/// Connections of one client to the node port, each from another port, until one is refused.
fn open_all(world: &World, from: u16) -> Vec<(Peer, Peer)> {
    let open =
        |port| match world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, world.client(port), world.node()) {
            Verdict::Translate(there) => Some((world.client(port), there.src)),
            verdict => {
                assert_eq!(verdict, Verdict::Answer(Answer::Refusal(DropReason::NoSourcePort)));
                None
            }
        };
    (from..from + 200).map_while(open).collect()
}

#[test]
fn a_connection_that_is_over_gives_its_port_to_one_that_finds_none() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let config = world.tables.config.unwrap();
        world.tables.config = Some(Config { ports: 8, ..config });
        let (pod, node) = (world.pod(2), world.node());
        let open = open_all(&world, 4000);
        assert_eq!(open.len(), 4);
        for (_, source) in &open {
            translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN | TCP_ACK, pod, *source));
        }
        let (client, source) = open[0];
        translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_FIN | TCP_ACK, client, node));
        assert_eq!(open_all(&world, 5000), [], "one side alone has closed");
        translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_FIN | TCP_ACK, pod, source));
        assert_eq!(open_all(&world, 5000), [], "its last segments may be on their way");
        world.moment.seconds.set(world.moment.seconds.get() + 2);
        // Which ports a newcomer tries is by chance; of four, every one of so many tries.
        assert_eq!(open_all(&world, 5000), [(world.client(5000), source)]);
        for (client, source) in &open[1..] {
            let there = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_ACK, *client, node));
            assert_eq!(there.src, *source, "no other lost its own");
        }
        let reply = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_ACK, pod, source));
        assert_eq!(reply.dst, world.client(5000));
        assert_eq!(world.send(Hook::FromNet, Protocol::Tcp, TCP_ACK, client, node), Verdict::Pass);
        assert_eq!(world.rows(), 8, "nothing of the old one is left");
    }
}

#[test]
fn a_reset_that_its_sender_does_not_keep_to_was_none() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let (client, node, pod) = (world.client(4000), world.node(), world.pod(2));
        let there = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, client, node));
        translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN | TCP_ACK, pod, there.src));
        for (src, dst) in [(client, node), (pod, there.src)] {
            translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_RST, src, dst));
            translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_ACK, src, dst));
        }
        let again = translated(world.send(Hook::FromNet, Protocol::Tcp, TCP_SYN, client, node));
        assert_eq!(again.src, there.src, "it is the same connection still");
        assert_eq!(world.tables.counted(Counter::FlowBegun), 1);
    }
}
