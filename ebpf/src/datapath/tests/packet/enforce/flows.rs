//! Which packets of a flow pass.

use super::*;

#[test]
fn nobody_asks_while_there_are_no_policies() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::Nothing, Allows::Nothing);
        world.tables.enforcement = Enforcement::default();
        let (pod, stranger) = (world.pod(0), world.client(9));
        assert_eq!(world.sends(0, &tcp(pod, stranger, SYN)), Verdict::Pass);
        assert_eq!(world.sends(0, &tcp(stranger, world.pod(1), SYN)), Verdict::Pass, "no binding either");
        assert_eq!(world.gets(0, UPLINK, &tcp(stranger, pod, SYN)), Verdict::Pass);
        world.tables.pods.clear();
        assert_eq!(world.gets(0, UPLINK, &tcp(stranger, pod, SYN)), Verdict::Pass);
        assert_eq!(world.judged(), 0);
    }
}

#[test]
fn a_pod_that_nothing_isolates_has_no_rows() {
    for world in World::guarded() {
        let (pod, stranger) = (world.pod(0), world.client(9));
        for flags in [SYN, ACK] {
            assert_eq!(world.sends(0, &tcp(pod, stranger, flags)), Verdict::Pass);
            assert_eq!(world.gets(0, UPLINK, &tcp(stranger, pod, flags)), Verdict::Pass);
        }
        assert_eq!(world.judged(), 0);
    }
}

#[test]
fn egress_and_its_replies() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::Nothing, Allows::FriendsPort);
        let (pod, friend, stranger) = (with_port(world.pod(0), 4000), world.pod(3), world.client(PORT));
        world.befriend(friend);
        assert_eq!(world.sends(0, &tcp(pod, stranger, SYN)), EGRESS);
        assert_eq!(world.sends(0, &tcp(pod, with_port(friend, 81), SYN)), EGRESS);
        assert_eq!(world.judged(), 0, "nothing is remembered of what is denied");
        assert_eq!(world.sends(0, &tcp(pod, friend, SYN)), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &tcp(friend, pod, SYN | ACK)), Verdict::Pass);
        assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &tcp(friend, pod, ACK)), Verdict::Pass);
        assert_eq!(world.judged(), 1);
        assert_eq!(world.gets(0, UPLINK, &tcp(friend, with_port(pod, 4001), SYN)), INGRESS);
        assert_eq!(world.counted(Counter::PolicyEgress), 2);
        assert_eq!(world.counted(Counter::PolicyIngress), 1);
    }
}

#[test]
fn datagrams_have_replies_as_well() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::Nothing, Allows::FriendsPort);
        let (pod, friend) = (with_port(world.pod(0), 4000), world.pod(3));
        world.befriend(friend);
        assert_eq!(world.gets(0, UPLINK, &udp(friend, pod)), INGRESS, "nobody has asked");
        assert_eq!(world.sends(0, &udp(pod, friend)), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &udp(friend, pod)), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &udp(friend, with_port(pod, 4001))), INGRESS);
        assert_eq!(world.gets(0, UPLINK, &udp(world.client(PORT), pod)), INGRESS);
        assert_eq!(world.judged(), 1);
    }
}

#[test]
fn ingress_and_its_replies() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::FriendsPort, Allows::Nothing);
        let (pod, friend, stranger) = (world.pod(0), world.client(4000), world.pod(3));
        world.befriend(friend);
        assert_eq!(world.gets(0, UPLINK, &tcp(stranger, pod, SYN)), INGRESS);
        assert_eq!(world.gets(0, UPLINK, &tcp(friend, with_port(pod, 81), SYN)), INGRESS);
        assert_eq!(world.gets(0, UPLINK, &tcp(friend, pod, SYN)), Verdict::Pass);
        assert_eq!(world.sends(0, &tcp(pod, friend, SYN | ACK)), Verdict::Pass);
        assert_eq!(world.sends(0, &tcp(pod, stranger, ACK)), EGRESS);
        assert_eq!(world.judged(), 1);
    }
}

#[test]
fn whoever_opens_a_connection_is_no_reply() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::Nothing, Allows::Friends);
        let (pod, friend) = (with_port(world.pod(0), 4000), world.pod(3));
        world.befriend(friend);
        assert_eq!(world.sends(0, &tcp(pod, friend, SYN)), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &tcp(friend, pod, SYN)), INGRESS, "from the port that it dialled");
        assert_eq!(
            world.gets(0, UPLINK, &tcp(friend, pod, SYN | ACK)),
            Verdict::Pass,
            "it takes nothing away"
        );
        // Allowed, it is the peer's flow from there on.
        world.isolate(0, Allows::Friends, Allows::Nothing);
        assert_eq!(world.gets(0, UPLINK, &tcp(friend, pod, SYN)), Verdict::Pass);
        assert_eq!(world.sends(0, &tcp(pod, friend, SYN | ACK)), Verdict::Pass);
        assert_eq!(world.judged(), 1);
    }
}

#[test]
fn in_mid_stream_either_direction_is_enough() {
    for mut world in World::guarded() {
        let (pod, friend, stranger) = (world.pod(0), world.client(4000), world.client(4001));
        world.tables.policy.networks.clear();
        world.befriend(world.client(0));
        let other = with_port(world.pod(3), 4001);
        for (ingress, egress, peer, passes) in [
            (Allows::FriendsPort, Allows::Nothing, friend, true),
            (Allows::FriendsPort, Allows::Nothing, other, false),
            (Allows::FriendsPort, Allows::Everything, other, true),
            (Allows::Nothing, Allows::Friends, stranger, true),
            (Allows::Nothing, Allows::Nothing, friend, false),
        ] {
            world.isolate(0, ingress, egress);
            let (out, back) = if passes { (Verdict::Pass, Verdict::Pass) } else { (EGRESS, INGRESS) };
            for flags in [ACK, SYN | ACK, ACK | FIN] {
                world.tables.judged.borrow_mut().clear();
                assert_eq!(world.sends(0, &tcp(pod, peer, flags)), out);
                assert_eq!(world.judged(), usize::from(passes));
                world.tables.judged.borrow_mut().clear();
                assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, flags)), back);
                assert_eq!(world.judged(), usize::from(passes));
            }
        }
        assert_eq!(world.sends(0, &udp(pod, friend)), EGRESS, "a datagram is nobody's reply");
    }
}

#[test]
fn what_the_isolated_direction_allows_ends_with_it() {
    for mut world in World::guarded() {
        let (pod, friend) = (world.pod(0), world.client(4000));
        world.befriend(friend);
        // The connection is the peer's, though the pod's packet comes first.
        world.isolate(0, Allows::FriendsPort, Allows::Everything);
        assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), Verdict::Pass);
        world.isolate(0, Allows::Nothing, Allows::Everything);
        let because = Some(DropReason::PolicyIngress);
        assert_eq!(cut(world.sends(0, &tcp(pod, friend, ACK))), because);
        assert_eq!(cut(world.gets(0, UPLINK, &tcp(friend, pod, ACK))), because);
    }
}

#[test]
fn a_reset_in_mid_stream_is_not_remembered() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::Friends, Allows::Nothing);
        let friend = world.client(4000);
        world.befriend(friend);
        assert_eq!(world.sends(0, &tcp(world.pod(0), friend, RST)), Verdict::Pass);
        assert_eq!(world.judged(), 0);
    }
}

/// A world in which the first pod is isolated on one side since long ago; whether packets go out on that side.
fn isolated_for_long() -> impl Iterator<Item = (World, bool)> {
    [true, false].into_iter().flat_map(|outward| {
        World::guarded().map(|mut world| {
            let (ingress, egress) = if outward {
                (Allows::Everything, Allows::FriendsPort)
            } else {
                (Allows::FriendsPort, Allows::Everything)
            };
            world.isolate(0, ingress, egress);
            // Something that makes a row.
            let frame = tcp(world.pod(0), with_port(world.pod(3), 9), ACK);
            let frame = if outward { tcp(with_port(world.pod(3), 9), world.pod(0), ACK) } else { frame };
            assert_eq!(pass(&world, !outward, &frame), Verdict::Pass);
            world.moment.seconds.set(1000 + 600);
            (world, outward)
        })
    })
}

fn pass(world: &World, outward: bool, frame: &[u8]) -> Verdict {
    if outward { world.sends(0, frame) } else { world.gets(0, UPLINK, frame) }
}

#[test]
fn whoever_leaves_out_the_syn_gets_no_farther_on_the_isolated_side() {
    for (world, outward) in isolated_for_long() {
        let (pod, stranger) = (with_port(world.pod(0), 4000), world.client(4001));
        let (there, back) = (tcp(pod, stranger, ACK), tcp(stranger, pod, ACK));
        let (isolated, open) = if outward { (there, back) } else { (back, there) };
        let denied = if outward { EGRESS } else { INGRESS };
        assert_eq!(pass(&world, outward, &isolated), denied);
        // On the other side it is as if it had begun there, and this is its reply.
        assert_eq!(pass(&world, !outward, &open), Verdict::Pass);
        assert_eq!(pass(&world, outward, &isolated), Verdict::Pass);
        // What the rules allow begins as before.
        let mut world = world;
        let friend = world.pod(3);
        world.befriend(friend);
        let own = if outward { pod } else { world.pod(0) };
        let friend = if outward { friend } else { with_port(friend, 4000) };
        let frame = if outward { tcp(own, friend, ACK) } else { tcp(friend, own, ACK) };
        assert_eq!(pass(&world, outward, &frame), Verdict::Pass);
    }
}

#[test]
fn a_reply_passes_where_its_flow_may_have_found_no_room() {
    for (mut world, outward) in isolated_for_long() {
        let (pod, stranger) = (with_port(world.pod(0), 4000), world.client(4001));
        let (there, back) = (tcp(pod, stranger, SYN), tcp(stranger, pod, SYN));
        let (open, reply) = if outward {
            (back, tcp(pod, stranger, SYN | ACK))
        } else {
            (there, tcp(stranger, pod, SYN | ACK))
        };
        world.tables.full.set(true);
        assert_eq!(pass(&world, !outward, &open), Verdict::Pass);
        world.tables.full.set(false);
        assert_eq!(pass(&world, outward, &reply), Verdict::Pass);
        world.tables.judged.borrow_mut().clear();
        world.moment.seconds.set(1000 + 1200);
        assert_eq!(pass(&world, outward, &reply), if outward { EGRESS } else { INGRESS });
        world.tables.enforcement.most_per_pod = 1;
        assert_eq!(pass(&world, outward, &reply), Verdict::Pass, "it has its share, and now as well");
    }
}
