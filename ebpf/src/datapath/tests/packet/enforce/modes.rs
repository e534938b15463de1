//! Policies that only watch, and connections that are kept.

use super::*;

fn would_drop(world: &World) -> (u64, u64) {
    (world.counted(Counter::WouldDropIngress), world.counted(Counter::WouldDropEgress))
}

#[test]
fn what_would_be_denied_passes_and_is_counted_once() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::Watched, Allows::Watched);
        let (pod, friend, stranger) = (world.pod(0), world.pod(3), world.client(4000));
        world.befriend(friend);
        for _ in 0..3 {
            assert_eq!(world.gets(0, UPLINK, &tcp(stranger, pod, SYN)), Verdict::Pass);
            assert_eq!(world.sends(0, &tcp(pod, stranger, SYN | ACK)), Verdict::Pass);
            assert_eq!(world.sends(0, &udp(pod, stranger)), Verdict::Pass);
            assert_eq!(world.gets(0, UPLINK, &udp(friend, pod)), Verdict::Pass);
            assert_eq!(world.sends(0, &tcp(pod, friend, SYN)), Verdict::Pass);
        }
        assert_eq!((would_drop(&world), world.judged()), ((1, 1), 4));
        // A connection that nobody knows is one as well.
        assert_eq!(world.sends(0, &tcp(with_port(pod, 9), stranger, ACK)), Verdict::Pass);
        assert_eq!(would_drop(&world), (2, 1));
    }
}

#[test]
fn what_would_be_denied_now_is_counted_again() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::Everything, Allows::Friends);
        let (pod, friend) = (with_port(world.pod(0), 4000), world.pod(3));
        world.befriend(friend);
        assert_eq!(world.sends(0, &tcp(pod, friend, SYN)), Verdict::Pass);
        world.isolate(0, Allows::Everything, Allows::Watched);
        assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), Verdict::Pass);
        assert_eq!(would_drop(&world), (0, 0), "a friend may");
        world.tables.policy.addresses.clear();
        for _ in 0..2 {
            world.next_generation();
            assert_eq!(world.gets(0, UPLINK, &tcp(friend, pod, ACK)), Verdict::Pass);
            assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), Verdict::Pass);
        }
        assert_eq!(would_drop(&world), (0, 1));
        world.isolate(0, Allows::Everything, Allows::Everything);
        assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), Verdict::Pass);
        assert_eq!(would_drop(&world), (0, 1));
    }
}

#[test]
fn whoever_only_watches_drops_nothing_for_want_of_room_or_of_a_reading() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::Watched, Allows::Watched);
        world.tables.enforcement.most_per_pod = 0;
        let (pod, stranger) = (world.pod(0), world.client(4000));
        for frame in [tcp(stranger, pod, SYN), udp(stranger, pod)] {
            assert_eq!(world.gets(0, UPLINK, &frame), Verdict::Pass);
        }
        for frame in [tcp(pod, stranger, SYN), udp(pod, stranger), tcp(pod, stranger, ACK)] {
            assert_eq!(world.sends(0, &frame), Verdict::Pass);
        }
        let pieces = frame::fragments(&frame::udp(stranger.into(), pod.into(), &[7; 3000]), 1000, 1);
        assert_eq!(world.gets(0, UPLINK, &pieces[1]), Verdict::Pass);
        let mut strange = tcp(stranger, pod, SYN);
        (strange[12], strange[13]) = (0x88, 0xcc);
        assert_eq!(world.gets(0, UPLINK, &strange), Verdict::Pass);
        assert_eq!((world.judged(), would_drop(&world)), (0, (0, 0)), "nor is it counted for each packet");
    }
}

#[test]
fn a_pod_that_is_watched_on_one_side_is_isolated_on_the_other() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::Watched, Allows::Nothing);
        let (pod, stranger) = (world.pod(0), world.client(4000));
        assert_eq!(world.sends(0, &tcp(pod, stranger, SYN)), EGRESS);
        assert_eq!(world.gets(0, UPLINK, &tcp(stranger, pod, SYN)), Verdict::Pass);
        assert_eq!(world.sends(0, &tcp(pod, stranger, SYN | ACK)), Verdict::Pass);
        assert_eq!(would_drop(&world), (1, 0));
    }
}

#[test]
fn the_node_would_not_be_denied() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::Watched, Allows::Watched);
        let (pod, node) = (world.pod(0), with_port(world.node(), 4000));
        assert_eq!(world.sends(0, &tcp(pod, node, SYN)), Verdict::Pass);
        assert_eq!(world.gets(0, 0, &tcp(node, pod, SYN)), Verdict::Pass);
        assert_eq!(would_drop(&world), (0, 0));
    }
}

#[test]
fn where_rows_are_missing_whoever_only_watches_denies_nothing() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::Watched, Allows::Watched);
        world.tables.policy.verdicts.clear();
        let (pod, stranger) = (world.pod(0), world.client(4000));
        assert_eq!(world.gets(0, UPLINK, &tcp(stranger, pod, SYN)), Verdict::Pass);
        let set = world.tables.pods[&FIRST_POD].policy;
        world.isolate(0, Allows::Friends, Allows::Watched);
        world.tables.pods.get_mut(&FIRST_POD).unwrap().policy.flags = set.flags;
        assert_eq!(world.gets(0, UPLINK, &tcp(stranger, pod, ACK)), Verdict::Pass);
        assert_eq!(would_drop(&world), (2, 0));
    }
}
