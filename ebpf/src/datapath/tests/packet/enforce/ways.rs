//! Through Services, past the stack and through it, from the node and from others.

use super::*;
use crate::abi::Config;
use crate::datapath::packet::Answer;

fn use_stack(world: &mut World) {
    world.tables.config.as_mut().unwrap().flags |= Config::NO_REDIRECT;
}

#[test]
fn egress_is_judged_by_the_backend() {
    for mut world in World::guarded() {
        world.set_backends(2..3);
        world.isolate(0, Allows::Nothing, Allows::FriendsPort);
        let (pod, vip, backend) = (with_port(world.pod(0), 4000), world.vip(), world.pod(2));
        assert_eq!(world.sends(0, &tcp(pod, vip, SYN)), EGRESS);
        assert_eq!((world.rows(), world.judged()), (0, 0), "no flow is left of what is denied");
        world.befriend(vip);
        assert_eq!(world.sends(0, &tcp(pod, vip, SYN)), EGRESS, "the Service's address is nobody's");
        world.befriend(backend);
        let sent = translated(world.sends(0, &tcp(pod, vip, SYN)));
        assert_eq!(sent.dst, backend);
        // The reply, as the last hook at the pod sees it.
        let reply = translated(world.gets(0, UPLINK, &tcp(backend, sent.src, SYN | ACK)));
        assert_eq!((reply.src, reply.dst), (vip, pod));
        assert_eq!(world.judged(), 1);
        // Revoked, it stops both ways; what is no TCP segment to tell anybody by, and its flow is forgotten.
        world.isolate(0, Allows::Nothing, Allows::Nothing);
        let because = Some(DropReason::PolicyEgress);
        assert_eq!(cut(world.gets(0, UPLINK, &tcp(backend, sent.src, ACK))), because);
        assert_eq!(cut(world.sends(0, &tcp(pod, vip, ACK))), because);
        assert_eq!(world.rows(), 2);
        assert_eq!(world.sends(0, &tcp(pod, vip, SYN)), EGRESS);
        assert_eq!(world.rows(), 0);
    }
}

#[test]
fn another_backend_is_another_question() {
    for mut world in World::guarded() {
        world.set_backends(2..3);
        world.isolate(0, Allows::Nothing, Allows::FriendsPort);
        world.befriend(world.pod(2));
        let (pod, vip) = (with_port(world.pod(0), 4000), world.vip());
        assert_eq!(translated(world.sends(0, &udp(pod, vip))).dst, world.pod(2));
        // The Service has another, and what was remembered of the way to the first is removed.
        world.set_backends(3..4);
        world.tables.flows.borrow_mut().clear();
        assert_eq!(world.sends(0, &udp(pod, vip)), EGRESS);
        assert_eq!(world.rows(), 0);
        world.befriend(world.pod(3));
        assert_eq!(translated(world.sends(0, &udp(pod, vip))).dst, world.pod(3));
        assert_eq!(world.judged(), 1);
    }
}

#[test]
fn what_goes_past_the_stack_into_a_pod_is_judged_where_it_is_sent() {
    for mut world in World::guarded() {
        world.set_backends(0..1);
        world.isolate(0, Allows::FriendsPort, Allows::Nothing);
        let (client, node) = (world.client(4000), world.node());
        assert_eq!(world.arrives(&tcp(client, node, SYN)), INGRESS);
        assert_eq!((world.rows(), world.judged()), (0, 0));
        world.befriend(client);
        let (source, backend) = delivered(world.arrives(&tcp(client, node, SYN)));
        assert_eq!((source.addr, backend), (client.addr, world.pod(0)));
        let reply = translated(world.sends(0, &tcp(backend, source, SYN | ACK)));
        assert_eq!((reply.src, reply.dst), (node, client));
        delivered(world.arrives(&tcp(client, node, ACK)));
        assert_eq!(world.judged(), 1);
        world.tables.policy.addresses.clear();
        world.next_generation();
        assert_eq!(cut(world.arrives(&tcp(client, node, ACK))), Some(DropReason::PolicyIngress));
        assert_eq!(world.rows(), 2, "for the resets");
    }
}

#[test]
fn between_two_pods_of_this_node_both_are_asked() {
    for mut world in World::guarded() {
        world.set_backends(1..2);
        let (pod, vip, backend) = (with_port(world.pod(0), 4000), world.vip(), world.pod(1));
        world.befriend(backend);
        world.isolate(0, Allows::Nothing, Allows::FriendsPort);
        world.isolate(1, Allows::FriendsPort, Allows::Nothing);
        assert_eq!(world.sends(0, &tcp(pod, vip, SYN)), INGRESS);
        assert_eq!(world.rows(), 0);
        world.befriend(pod);
        let (source, _) = delivered(world.sends(0, &tcp(pod, vip, SYN)));
        let (from, to) = delivered(world.sends(1, &tcp(backend, source, SYN | ACK)));
        assert_eq!((from, to), (vip, pod));
        delivered(world.sends(0, &tcp(pod, vip, ACK)));
        assert_eq!(world.judged(), 2, "one for each");
        // Directly, by way of the stack: each hook asks for its own pod.
        let direct = tcp(pod, backend, SYN);
        assert_eq!(world.sends(0, &direct), Verdict::Pass);
        assert_eq!(world.gets(1, FIRST_POD, &direct), Verdict::Pass);
        let reply = tcp(backend, pod, SYN | ACK);
        assert_eq!(world.sends(1, &reply), Verdict::Pass);
        assert_eq!(world.gets(0, FIRST_POD + 1, &reply), Verdict::Pass);
        assert_eq!(world.judged(), 4);
    }
}

#[test]
fn a_pod_reaches_itself_through_a_service() {
    for stack in [false, true] {
        for mut world in World::guarded() {
            if stack {
                use_stack(&mut world);
            }
            world.set_backends(0..1);
            world.isolate(0, Allows::Nothing, Allows::Nothing);
            let (pod, vip) = (with_port(world.pod(0), 4000), world.vip());
            let sent = translated(world.sends(0, &tcp(pod, vip, SYN)));
            let seen =
                if stack { translated(world.gets(0, 55, &tcp(sent.src, sent.dst, SYN))) } else { sent };
            assert_eq!((seen.src.addr, seen.dst), (world.node().addr, world.pod(0)));
            let reply = translated(world.sends(0, &tcp(seen.dst, seen.src, SYN | ACK)));
            let back = if stack {
                translated(world.gets(0, 55, &tcp(reply.src, reply.dst, SYN | ACK)))
            } else {
                reply
            };
            assert_eq!((back.src, back.dst), (vip, pod));
            assert_eq!(world.judged(), 0);
        }
    }
}

#[test]
fn the_node_reaches_its_pods_and_they_reach_it() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::Nothing, Allows::Nothing);
        let (pod, probe) = (world.pod(0), with_port(world.node(), 4000));
        assert_eq!(world.gets(0, 0, &tcp(probe, pod, SYN)), Verdict::Pass);
        assert_eq!(world.sends(0, &tcp(pod, probe, SYN | ACK)), Verdict::Pass);
        assert_eq!(world.sends(0, &udp(pod, probe)), Verdict::Pass);
        // Whoever bears the node's address, and is not the node.
        assert_eq!(world.gets(0, UPLINK, &tcp(probe, pod, SYN)), INGRESS);
        assert_eq!(world.gets(0, FIRST_POD + 1, &tcp(probe, pod, ACK)), INGRESS);
        assert_eq!(world.judged(), 0);
    }
}

#[test]
fn a_node_port_is_no_way_round_egress() {
    for mut world in World::guarded() {
        world.set_backends(2..3);
        world.isolate(0, Allows::Nothing, Allows::Nothing);
        let pod = with_port(world.pod(0), 4000);
        assert_eq!(world.sends(0, &tcp(pod, world.node(), SYN)), EGRESS);
        assert_eq!(world.rows(), 0);
    }
}

#[test]
fn through_the_stack_the_last_hook_judges() {
    for mut world in World::guarded() {
        use_stack(&mut world);
        world.set_backends(0..1);
        world.isolate(0, Allows::FriendsPort, Allows::Nothing);
        let (client, node) = (world.client(4000), world.node());
        let between = translated(world.arrives(&tcp(client, node, SYN)));
        assert_eq!(between.onward, Onward::Stack);
        let seen = tcp(between.src, between.dst, SYN);
        assert_eq!(world.gets(0, UPLINK, &seen), INGRESS);
        world.befriend(client);
        assert_eq!(world.gets(0, UPLINK, &seen), Verdict::Pass);
    }
}

#[test]
fn what_has_no_hop_left_is_answered_only_if_it_may_leave() {
    for mut world in World::guarded() {
        world.set_backends(1..2);
        let (pod, backend) = (with_port(world.pod(0), 4000), world.pod(1));
        let mut frame = tcp(pod, world.vip(), SYN);
        let ttl = if pod.addr.is_v4() { 14 + 8 } else { 14 + 7 };
        frame[ttl] = 1;
        world.isolate(0, Allows::Nothing, Allows::Nothing);
        assert_eq!(world.sends(0, &frame), EGRESS);
        world.befriend(backend);
        world.isolate(0, Allows::Nothing, Allows::Friends);
        assert_eq!(world.sends(0, &frame), Verdict::Answer(Answer::TimeExceeded));
    }
}
