//! Connections that policies no longer allow: kept, or ended on both sides.

use super::*;
use crate::abi::Standing;
use crate::datapath::packet::Cut;
use crate::testing::{Outcome, apply, cut_entering};
use crate::wire::Packet;

/// A segment with its numbers.
fn segment(src: Peer, dst: Peer, flags: u8, [sequence, acknowledgment]: [u32; 2], data: usize) -> Vec<u8> {
    let mut frame = frame::tcp(SocketAddr::from(src), SocketAddr::from(dst), flags, &vec![7; data]);
    let l4 = read(&frame).l4 as usize;
    frame[l4 + 4..l4 + 8].copy_from_slice(&sequence.to_be_bytes());
    frame[l4 + 8..l4 + 12].copy_from_slice(&acknowledgment.to_be_bytes());
    frame
}

fn read(frame: &[u8]) -> Packet {
    parse(frame, 14, frame::ether_type(frame)).expect("a packet")
}

/// From, to, flags, sequence number.
fn reset(frame: &[u8]) -> (Peer, Peer, u8, u32) {
    let packet = read(frame);
    let l4 = packet.l4 as usize;
    assert_eq!((packet.length, frame.len()), (packet.l4 + 20 - 14, l4 + 20), "{packet:?}");
    let sequence = u32::from_be_bytes(*frame[l4 + 4..].first_chunk().unwrap());
    (packet.src, packet.dst, packet.tcp_flags, sequence)
}

/// The two resets that a frame becomes: what enters at the device of the hook, and what leaves by it.
fn resets(frame: &[u8], verdict: Verdict) -> [Vec<u8>; 2] {
    let Verdict::Cut(_, what) = verdict else { panic!("{verdict:?}") };
    let packet = read(frame);
    let entering = cut_entering(frame, &packet, &what).expect("long enough");
    let mut leaving = frame.to_vec();
    assert_eq!(apply(&mut leaving, &packet, &verdict), Outcome::Cut);
    [entering, leaving]
}

/// A world in which the first pod began a connection with a friend, whom it then may not reach any more.
fn revoked() -> [(World, Peer, Peer); 2] {
    World::guarded().map(|mut world| {
        world.isolate(0, Allows::Nothing, Allows::Friends);
        let (pod, friend) = (with_port(world.pod(0), 4000), world.pod(3));
        world.befriend(friend);
        assert_eq!(world.sends(0, &tcp(pod, friend, SYN)), Verdict::Pass);
        world.isolate(0, Allows::Nothing, Allows::Nothing);
        (world, pod, friend)
    })
}

#[test]
fn both_ends_get_a_reset_that_they_believe() {
    for (world, pod, friend) in revoked() {
        let sent = segment(pod, friend, ACK, [1000, 5000], 30);
        let [onward, back] = resets(&sent, world.sends(0, &sent));
        assert_eq!(reset(&onward), (pod, friend, RST | ACK, 1000), "what it expects next");
        assert_eq!(reset(&back), (friend, pod, RST, 5000), "likewise");
        assert_eq!(&back[..12], [&sent[6..12], &sent[..6]].concat());
        assert_eq!(&onward[..12], &sent[..12]);
        // What entered is a packet of the connection, and passes; what left is the node's own.
        assert_eq!(world.sends(0, &onward), Verdict::Pass);
        assert_eq!(world.gets(0, FIRST_POD, &back), Verdict::Pass);
        // The other hook: what enters is the pod's, and what leaves is for it.
        let got = segment(friend, pod, ACK, [5000, 1030], 0);
        let [back, onward] = resets(&got, world.gets(0, UPLINK, &got));
        assert_eq!(reset(&back), (pod, friend, RST, 1030));
        assert_eq!(reset(&onward), (friend, pod, RST | ACK, 5000));
        assert_eq!((&back[..12], &onward[..12]), (&[&got[6..12], &got[..6]].concat()[..], &got[..12]));
        assert_eq!(world.sends(0, &back), Verdict::Pass);
        assert_eq!((world.counted(Counter::Reset), world.counted(Counter::PolicyEgress)), (2, 2));
        assert_eq!(world.judged(), 1);
    }
}

#[test]
fn a_handshake_that_is_revoked_ends_as_well() {
    for (world, pod, friend) in revoked() {
        let answer = segment(friend, pod, SYN | ACK, [9000, 1001], 0);
        let [back, onward] = resets(&answer, world.gets(0, UPLINK, &answer));
        assert_eq!(reset(&back), (pod, friend, RST, 1001));
        // Who has sent a SYN looks at the acknowledgment (RFC 9293 section 3.10.7.3).
        let (_, _, flags, _) = reset(&onward);
        let l4 = read(&onward).l4 as usize;
        assert_eq!((flags, &onward[l4 + 8..l4 + 12]), (RST | ACK, &1001_u32.to_be_bytes()[..]));
    }
}

#[test]
fn whoever_opens_a_connection_is_told_nothing() {
    for (world, pod, friend) in revoked() {
        assert_eq!(world.sends(0, &tcp(pod, friend, SYN)), EGRESS, "the one that is revoked");
        assert_eq!(world.sends(0, &tcp(with_port(pod, 4001), friend, SYN)), EGRESS);
        assert_eq!(world.gets(0, UPLINK, &tcp(friend, pod, SYN)), INGRESS);
        assert_eq!(world.sends(0, &tcp(with_port(pod, 4002), friend, ACK)), EGRESS, "of what nobody knows");
        assert_eq!(world.counted(Counter::Reset), 0);
    }
}

#[test]
fn datagrams_and_pieces_are_told_nothing() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::Nothing, Allows::Friends);
        let (pod, friend) = (world.pod(0), world.pod(3));
        world.befriend(friend);
        assert_eq!(world.sends(0, &udp(pod, friend)), Verdict::Pass);
        assert_eq!(world.sends(0, &tcp(pod, friend, SYN)), Verdict::Pass);
        world.isolate(0, Allows::Nothing, Allows::Nothing);
        assert_eq!(world.sends(0, &udp(pod, friend)), EGRESS);
        let whole = frame::tcp(pod.into(), friend.into(), ACK, &[7; 3000]);
        let pieces = frame::fragments(&whole, 1000, 5);
        assert_eq!(world.sends(0, &pieces[0]), EGRESS);
        assert_eq!(world.counted(Counter::Reset), 0);
    }
}

#[test]
fn resets_pass_a_few_times_and_carry_nothing() {
    for (world, pod, friend) in revoked() {
        let said = frame::tcp(pod.into(), friend.into(), RST, b"and still I speak");
        assert_eq!(world.sends(0, &said), EGRESS, "nor is it answered");
        let passed = (0..100).filter(|_| world.sends(0, &tcp(pod, friend, RST)) == Verdict::Pass).count();
        assert!((8..=16).contains(&passed), "{passed}");
        assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), EGRESS, "it was told often enough");
        assert_eq!(world.gets(0, UPLINK, &tcp(friend, pod, RST)), EGRESS);
    }
}

#[test]
fn a_connection_that_was_cut_begins_anew_where_it_may() {
    for (mut world, pod, friend) in revoked() {
        assert!(cut(world.sends(0, &tcp(pod, friend, ACK))).is_some());
        world.isolate(0, Allows::Nothing, Allows::Friends);
        assert_eq!(world.sends(0, &tcp(pod, friend, SYN)), Verdict::Pass);
        let row = *world.tables.judged.borrow().values().next().unwrap();
        assert_eq!((row.standing, row.set()), (Standing::ALLOWED, Allows::Friends.set()));
    }
}

#[test]
fn through_a_service_the_client_hears_of_it_from_whom_it_dialled() {
    for mut world in World::guarded() {
        world.set_backends(2..3);
        world.isolate(0, Allows::Nothing, Allows::Friends);
        let (pod, vip, backend) = (with_port(world.pod(0), 4000), world.vip(), world.pod(2));
        world.befriend(backend);
        let sent = translated(world.sends(0, &tcp(pod, vip, SYN)));
        world.isolate(0, Allows::Nothing, Allows::Nothing);
        let said = segment(pod, vip, ACK, [1, 2], 10);
        let [onward, back] = resets(&said, world.sends(0, &said));
        assert_eq!(reset(&back), (vip, pod, RST, 2));
        // What entered is translated as what it is of.
        let told = translated(world.sends(0, &onward));
        assert_eq!((told.src, told.dst), (sent.src, backend));
        // And from the other side: the pod sees the Service.
        let heard = segment(backend, sent.src, ACK, [2, 11], 0);
        let [back, onward] = resets(&heard, world.gets(0, UPLINK, &heard));
        assert_eq!(reset(&onward), (vip, pod, RST | ACK, 2));
        assert_eq!(reset(&back), (pod, vip, RST, 11));
        let told = translated(world.sends(0, &back));
        assert_eq!((told.src, told.dst), (sent.src, backend));
    }
}

#[test]
fn what_is_sent_into_a_pod_past_the_stack_is_told_where_it_came_from() {
    for mut world in World::guarded() {
        world.set_backends(0..1);
        world.isolate(0, Allows::FriendsPort, Allows::Nothing);
        let (client, node) = (world.client(4000), world.node());
        world.befriend(client);
        let (source, backend) = delivered(world.arrives(&tcp(client, node, SYN)));
        world.isolate(0, Allows::Nothing, Allows::Nothing);
        let said = segment(client, node, ACK, [1, 2], 10);
        let [onward, back] = resets(&said, world.arrives(&said));
        assert_eq!(reset(&back), (node, client, RST, 2));
        assert_eq!(delivered(world.arrives(&onward)), (source, backend));
        // From the pod.
        let said = segment(backend, source, ACK, [2, 11], 10);
        let [onward, back] = resets(&said, world.sends(0, &said));
        assert_eq!(reset(&back), (source, backend, RST, 11));
        let told = translated(world.sends(0, &onward));
        assert_eq!((told.src, told.dst), (node, client));
    }
}

#[test]
fn what_is_kept_goes_on_and_nothing_else_begins() {
    for (mut world, pod, friend) in revoked() {
        world.keep(0, PodPolicy::KEEP_EGRESS);
        for _ in 0..2 {
            assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), Verdict::Pass);
            assert_eq!(world.gets(0, UPLINK, &tcp(friend, pod, ACK)), Verdict::Pass);
            world.next_generation();
        }
        assert_eq!(world.sends(0, &tcp(with_port(pod, 4001), friend, SYN)), EGRESS);
        assert_eq!(world.sends(0, &tcp(pod, friend, SYN)), EGRESS, "under the same ports");
        assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), Verdict::Pass, "which takes nothing away");
        assert_eq!(world.sends(0, &tcp(pod, friend, RST)), Verdict::Pass);
        assert_eq!(world.sends(0, &tcp(pod, friend, SYN)), EGRESS);
        assert_eq!(world.counted(Counter::Reset), 0);
    }
}

#[test]
fn what_is_kept_ends_with_the_word_and_stays_where_it_is_allowed_again() {
    for (mut world, pod, friend) in revoked() {
        let standing = |world: &World| world.tables.judged.borrow().values().next().unwrap().standing;
        world.keep(0, PodPolicy::KEEP_EGRESS);
        assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), Verdict::Pass);
        assert_eq!(standing(&world), Standing::KEPT);
        world.isolate(0, Allows::Nothing, Allows::Friends);
        assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), Verdict::Pass);
        assert_eq!(standing(&world), Standing::ALLOWED);
        world.isolate(0, Allows::Nothing, Allows::Nothing);
        world.keep(0, PodPolicy::KEEP_EGRESS);
        assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), Verdict::Pass);
        world.isolate(0, Allows::Nothing, Allows::Nothing);
        assert_eq!(cut(world.sends(0, &tcp(pod, friend, ACK))), Some(DropReason::PolicyEgress));
    }
}

#[test]
fn it_is_kept_on_the_side_on_which_it_began() {
    for (mut world, pod, friend) in revoked() {
        world.keep(0, PodPolicy::KEEP_INGRESS);
        assert_eq!(cut(world.sends(0, &tcp(pod, friend, ACK))), Some(DropReason::PolicyEgress));
        world.isolate(0, Allows::Friends, Allows::Nothing);
        assert_eq!(world.gets(0, UPLINK, &tcp(friend, with_port(pod, 80), SYN)), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &udp(friend, pod)), Verdict::Pass);
        world.isolate(0, Allows::Nothing, Allows::Nothing);
        world.keep(0, PodPolicy::KEEP_INGRESS);
        assert_eq!(world.sends(0, &tcp(with_port(pod, 80), friend, ACK)), Verdict::Pass);
        assert_eq!(world.sends(0, &udp(pod, friend)), Verdict::Pass);
    }
}

#[test]
fn what_the_hooks_say_of_a_cut_names_the_hook() {
    for (world, pod, friend) in revoked() {
        let Verdict::Cut(_, Cut { stage, src, dst }) = world.sends(0, &tcp(pod, friend, ACK)) else {
            panic!()
        };
        assert_eq!((stage, src, dst), (crate::datapath::packet::Stage::Arrive, pod, friend));
    }
}
