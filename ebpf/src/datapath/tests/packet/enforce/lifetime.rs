//! What changes of policies mean for flows that were allowed, and what a full table means for new ones.

use super::*;
use crate::abi::{Judged, JudgedKey, Signs};

fn only_row(world: &World) -> Judged {
    let judged = world.tables.judged.borrow();
    assert_eq!(judged.len(), 1);
    *judged.values().next().unwrap()
}

/// A world in which the first pod began a connection with a friend.
fn connected() -> [(World, Peer, Peer); 2] {
    World::guarded().map(|mut world| {
        world.isolate(0, Allows::Nothing, Allows::Friends);
        let (pod, friend) = (with_port(world.pod(0), 4000), world.pod(3));
        world.befriend(friend);
        assert_eq!(world.sends(0, &tcp(pod, friend, SYN)), Verdict::Pass);
        (world, pod, friend)
    })
}

#[test]
fn a_revoked_connection_stops_both_ways() {
    for (mut world, pod, friend) in connected() {
        world.isolate(0, Allows::Nothing, Allows::Nothing);
        let because = Some(DropReason::PolicyEgress);
        for flags in [ACK, ACK | FIN] {
            assert_eq!(cut(world.sends(0, &tcp(pod, friend, flags))), because);
            assert_eq!(cut(world.gets(0, UPLINK, &tcp(friend, pod, flags))), because, "its replies, too");
        }
        assert_eq!(world.judged(), 1, "or the way back would look like a flow of the peer's");
        world.isolate(0, Allows::Everything, Allows::Nothing);
        assert_eq!(cut(world.gets(0, UPLINK, &tcp(friend, pod, ACK))), because);
        // Allowed again, it goes on.
        world.isolate(0, Allows::Nothing, Allows::FriendsPort);
        assert_eq!(world.gets(0, UPLINK, &tcp(friend, pod, ACK)), Verdict::Pass);
        assert_eq!(only_row(&world).set(), Allows::FriendsPort.set());
    }
}

#[test]
fn a_peer_of_another_class_is_judged_again_in_the_next_generation() {
    for (mut world, pod, friend) in connected() {
        world.tables.policy.addresses.remove(&friend.addr);
        assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), Verdict::Pass, "nobody has said so yet");
        world.next_generation();
        let because = Some(DropReason::PolicyEgress);
        assert_eq!(cut(world.gets(0, UPLINK, &tcp(friend, pod, ACK))), because);
        assert_eq!(cut(world.sends(0, &tcp(pod, friend, ACK))), because);
        world.befriend(friend);
        world.next_generation();
        assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), Verdict::Pass);
        assert_eq!(only_row(&world).generation, world.tables.enforcement.generation);
    }
}

#[test]
fn what_changes_elsewhere_disturbs_nobody() {
    for (mut world, pod, friend) in connected() {
        let before = only_row(&world);
        world.befriend(world.client(1));
        world.next_generation();
        // The rules themselves are not asked again.
        world.tables.policy.verdicts.clear();
        assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), Verdict::Pass);
        assert_eq!(only_row(&world).basis(), before.basis());
        // A policy on the other side, and none on this one.
        world.isolate(0, Allows::FriendsPort, Allows::Everything);
        assert_eq!(world.gets(0, UPLINK, &tcp(friend, pod, ACK)), Verdict::Pass);
        assert_eq!(only_row(&world).set(), PolicySetId::OPEN);
    }
}

#[test]
fn rows_note_what_was_seen_of_each_direction() {
    for (world, pod, friend) in connected() {
        let seen = |world: &World| {
            let row = only_row(world);
            (row.outward, row.inward, row.seen_s)
        };
        assert_eq!(seen(&world), (Signs::SEEN, Signs(0), 1000));
        world.moment.seconds.set(1005);
        assert_eq!(world.gets(0, UPLINK, &tcp(friend, pod, ACK | FIN)), Verdict::Pass);
        assert_eq!(seen(&world), (Signs::SEEN, Signs::SEEN.and(Signs::ACK).and(Signs::FIN), 1005));
        assert_eq!(world.sends(0, &tcp(pod, friend, RST)), Verdict::Pass);
        assert_eq!(seen(&world).0, Signs::SEEN.and(Signs::RST));
        // Another connection between the same ports begins with a clean row.
        world.moment.seconds.set(1009);
        assert_eq!(world.sends(0, &tcp(pod, friend, SYN)), Verdict::Pass);
        assert_eq!(seen(&world), (Signs::SEEN, Signs(0), 1009));
        assert_eq!(only_row(&world).begun_s, 1009);
    }
}

#[test]
fn a_full_table_refuses_what_is_new_and_nothing_else() {
    for (mut world, pod, friend) in connected() {
        world.tables.full.set(true);
        let full = Verdict::Drop(DropReason::JudgedFull);
        assert_eq!(world.sends(0, &tcp(with_port(pod, 4001), friend, SYN)), full);
        assert_eq!(world.sends(0, &udp(pod, friend)), full);
        assert_eq!(world.counted(Counter::JudgedFull), 2);
        assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), Verdict::Pass);
        assert_eq!(world.sends(0, &tcp(with_port(pod, 4002), friend, ACK)), Verdict::Pass, "in mid-stream");
        // Its place is taken already.
        world.isolate(0, Allows::Friends, Allows::Friends);
        assert_eq!(world.gets(0, UPLINK, &tcp(friend, pod, SYN)), Verdict::Pass);
        assert_eq!(world.judged(), 1);
    }
}

#[test]
fn without_room_a_pod_that_is_isolated_in_one_direction_goes_on() {
    let ways = [
        (Allows::Friends, Allows::Everything, INGRESS, Verdict::Pass),
        (Allows::Everything, Allows::Friends, Verdict::Pass, EGRESS),
    ];
    for (ingress, egress, inward, outward) in ways {
        for mut world in World::guarded() {
            world.tables.enforcement.most_per_pod = 0;
            world.isolate(0, ingress, egress);
            let (pod, friend) = (world.pod(0), world.pod(3));
            assert_eq!(world.gets(0, UPLINK, &udp(friend, pod)), inward);
            assert_eq!(world.sends(0, &udp(pod, friend)), outward);
            world.befriend(friend);
            for segment in [udp(friend, pod), tcp(friend, pod, SYN)] {
                assert_eq!(world.gets(0, UPLINK, &segment), Verdict::Pass);
            }
            for segment in [udp(pod, friend), tcp(pod, friend, SYN | ACK), tcp(pod, friend, SYN)] {
                assert_eq!(world.sends(0, &segment), Verdict::Pass);
            }
            assert_eq!((world.judged(), world.counted(Counter::JudgedFull)), (0, 0));
        }
    }
}

#[test]
fn a_pod_has_its_share_and_no_more() {
    for mut world in World::guarded() {
        world.tables.enforcement.most_per_pod = 3;
        world.isolate(0, Allows::Nothing, Allows::Friends);
        world.isolate(1, Allows::Nothing, Allows::Friends);
        let friend = world.pod(3);
        world.befriend(friend);
        let full = Verdict::Drop(DropReason::JudgedFull);
        for (port, becomes) in [(1, Verdict::Pass), (2, Verdict::Pass), (3, Verdict::Pass), (4, full)] {
            assert_eq!(world.sends(0, &udp(with_port(world.pod(0), port), friend)), becomes);
        }
        assert_eq!(world.sends(0, &udp(with_port(world.pod(0), 1), friend)), Verdict::Pass);
        assert_eq!(world.sends(1, &udp(world.pod(1), friend)), Verdict::Pass, "the other has its own");
        assert_eq!((world.judged(), world.tables.shares.borrow()[&FIRST_POD].rows), (4, 3));
    }
}

#[test]
fn keys_tell_devices_protocols_and_ends_apart() {
    let [world, _] = World::guarded();
    let (peer, port) = (world.client(1), Port::new(80));
    let key = JudgedKey::new(7, port, peer, 6);
    for other in [
        JudgedKey::new(8, port, peer, 6),
        JudgedKey::new(7, Port::new(81), peer, 6),
        JudgedKey::new(7, port, world.client(2), 6),
        JudgedKey::new(7, port, world.pod(3), 6),
        JudgedKey::new(7, port, peer, 17),
    ] {
        assert_ne!(key, other);
    }
    assert_eq!((key.device(), key.protocol()), (7, 6));
}
