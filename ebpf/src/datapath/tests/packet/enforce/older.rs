//! Flows that have no row, and what the pod's sockets say of them.

use super::sources::link_local;
use super::*;
use crate::abi::{Protocol, Side};
use crate::datapath::PodSocket;

/// The number of the first pod's network namespace.
const NETNS: u64 = 4;

/// Worlds in which the sockets of the first pod can be seen. Nothing is known of its flows, and it had none for a long time.
fn seen() -> [World; 2] {
    World::guarded().map(|mut world| {
        world.tables.devices.get_mut(&FIRST_POD).unwrap().netns = NETNS + 1;
        world
    })
}

impl World {
    /// The pod has a socket that is connected; whose part it is.
    fn connect(&mut self, protocol: Protocol, pod: Peer, peer: Peer, began: Side) {
        self.network.pod_sockets.insert((NETNS, protocol, pod, peer), PodSocket::Connected(began));
    }
}

#[test]
fn nobody_passes_for_a_reply_without_a_connection() {
    for mut world in seen() {
        let (pod, peer) = (with_port(world.pod(0), 4000), world.client(4001));
        world.isolate(0, Allows::FriendsPort, Allows::Everything);
        for flags in [ACK, SYN | ACK, ACK | FIN, RST] {
            assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, flags)), INGRESS);
        }
        world.isolate(0, Allows::Everything, Allows::FriendsPort);
        assert_eq!(world.sends(0, &tcp(pod, peer, ACK)), EGRESS);
        assert_eq!(world.judged(), 0);
        // A connection with somebody else, from another port, or of another pod is another one.
        world.isolate(0, Allows::Nothing, Allows::Everything);
        world.connect(Protocol::Tcp, with_port(pod, 4002), peer, Side::Egress);
        world.connect(Protocol::Udp, pod, peer, Side::Egress);
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), INGRESS);
        // Nor is anybody believed for an address of the link.
        let (near, far) = (link_local(&world, 1), link_local(&world, 2));
        assert_eq!(world.gets(0, FIRST_POD + 1, &tcp(far, near, ACK)), INGRESS);
        // What is allowed needs no connection.
        world.befriend(peer);
        world.isolate(0, Allows::Friends, Allows::Nothing);
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), Verdict::Pass);
    }
}

#[test]
fn nobody_prepares_a_reply() {
    for mut world in seen() {
        let (pod, peer) = (with_port(world.pod(0), 4000), world.client(4001));
        world.befriend(peer);
        world.isolate(0, Allows::Everything, Allows::Friends);
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), Verdict::Pass);
        // It was no reply then, and is none when only replies may come.
        world.isolate(0, Allows::Nothing, Allows::Everything);
        assert!(cut(world.gets(0, UPLINK, &tcp(peer, pod, ACK))).is_some());
    }
}

#[test]
fn the_first_policy_cuts_no_reply() {
    for mut world in seen() {
        let (pod, peer) = (with_port(world.pod(0), 4000), world.client(4001));
        world.connect(Protocol::Tcp, pod, peer, Side::Egress);
        world.isolate(0, Allows::Nothing, Allows::Everything);
        // Whichever is the first to speak, and however late.
        world.moment.seconds.set(100_000);
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), Verdict::Pass);
        world.tables.judged.borrow_mut().clear();
        assert_eq!(world.sends(0, &tcp(pod, peer, ACK)), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), Verdict::Pass);
        assert_eq!(world.judged(), 1);
        // Nor does a table that is full, or a pod that has its share.
        world.tables.judged.borrow_mut().clear();
        world.tables.full.set(true);
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), Verdict::Pass);
        world.tables.full.set(false);
        world.tables.enforcement.most_per_pod = 0;
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), Verdict::Pass);
        assert_eq!(world.judged(), 0);
    }
}

#[test]
fn the_first_policy_cuts_what_it_denies() {
    for mut world in seen() {
        let (pod, peer) = (world.pod(0), world.client(4001));
        world.connect(Protocol::Tcp, pod, peer, Side::Ingress);
        world.isolate(0, Allows::Nothing, Allows::Everything);
        let because = Some(DropReason::PolicyIngress);
        assert_eq!(cut(world.gets(0, UPLINK, &tcp(peer, pod, ACK))), because);
        assert_eq!(cut(world.sends(0, &tcp(pod, peer, ACK))), because, "the pod's sending does not save it");
        world.tables.judged.borrow_mut().clear();
        assert_eq!(cut(world.sends(0, &tcp(pod, peer, ACK))), because);
        // What it began itself, to where it may not any more.
        world.tables.judged.borrow_mut().clear();
        world.connect(Protocol::Tcp, pod, peer, Side::Egress);
        world.isolate(0, Allows::Everything, Allows::Nothing);
        assert_eq!(cut(world.gets(0, UPLINK, &tcp(peer, pod, ACK))), Some(DropReason::PolicyEgress));
        // Unless it is to be kept.
        world.tables.judged.borrow_mut().clear();
        world.keep(0, PodPolicy::KEEP_EGRESS);
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), Verdict::Pass);
        assert_eq!(world.sends(0, &tcp(pod, peer, ACK)), Verdict::Pass);
    }
}

#[test]
fn what_was_there_is_watched_as_well() {
    for mut world in seen() {
        let (pod, peer) = (world.pod(0), world.client(4001));
        world.connect(Protocol::Tcp, pod, peer, Side::Ingress);
        world.isolate(0, Allows::Watched, Allows::Everything);
        for _ in 0..2 {
            assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), Verdict::Pass);
        }
        assert_eq!(world.counted(Counter::WouldDropIngress), 1);
    }
}

#[test]
fn a_pods_sockets_are_no_reason_to_let_it_out() {
    for ingress in [Allows::Everything, Allows::Friends] {
        for mut world in seen() {
            let (pod, peer) = (world.pod(0), world.client(4001));
            world.befriend(peer);
            world.isolate(0, ingress, Allows::Nothing);
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                world.connect(protocol, pod, peer, Side::Ingress);
            }
            assert_eq!(world.sends(0, &udp(pod, peer)), EGRESS);
            // As long as there may be flows without rows, it may be a reply.
            assert_eq!(world.sends(0, &tcp(pod, peer, ACK)), Verdict::Pass);
            world.tables.judged.borrow_mut().clear();
            let later = world.moment.seconds.get() + 600;
            world.moment.seconds.set(later);
            assert_eq!(world.sends(0, &tcp(pod, peer, ACK)), EGRESS);
            // What the peer is allowed to send makes it one.
            assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), Verdict::Pass);
            assert_eq!(world.sends(0, &tcp(pod, peer, ACK)), Verdict::Pass);
        }
    }
}

#[test]
fn what_only_begins_is_asked_for_as_all_that_is_new() {
    for mut world in seen() {
        let (pod, peer) = (world.pod(0), world.client(4001));
        // Whoever asks for a connection gets nothing past what denies it by that: no row, no reset, nothing that is kept.
        world.network.pod_sockets.insert((NETNS, Protocol::Tcp, pod, peer), PodSocket::Opens(Side::Egress));
        world.isolate(0, Allows::Everything, Allows::Nothing);
        world.keep(0, PodPolicy::KEEP_EGRESS);
        for flags in [ACK, RST, RST | ACK] {
            assert_eq!(world.sends(0, &tcp(pod, peer, flags)), EGRESS);
        }
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), INGRESS);
        assert_eq!(world.judged(), 0);
        // Where it may begin, its answer comes in.
        world.isolate(0, Allows::Nothing, Allows::Everything);
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, SYN | ACK)), Verdict::Pass);
    }
}

#[test]
fn what_is_to_be_kept_is_believed_for_a_while() {
    for mut world in seen() {
        let (pod, peer) = (world.pod(0), world.client(4001));
        world.connect(Protocol::Tcp, pod, peer, Side::Egress);
        world.isolate(0, Allows::Everything, Allows::Nothing);
        world.keep(0, PodPolicy::KEEP_EGRESS);
        assert_eq!(world.sends(0, &tcp(pod, peer, ACK)), Verdict::Pass);
        world.tables.judged.borrow_mut().clear();
        world.moment.seconds.set(1000 + 600);
        assert_eq!(world.sends(0, &tcp(pod, peer, ACK)), EGRESS, "it could make one up");
    }
}

#[test]
fn a_listener_answers_without_another_socket() {
    for mut world in seen() {
        let (pod, peer) = (world.pod(0), world.client(4001));
        world.network.pod_sockets.insert((NETNS, Protocol::Tcp, pod, peer), PodSocket::Waits);
        // SYN cookies, of a pod that has its share of rows.
        world.isolate(0, Allows::Everything, Allows::Nothing);
        world.tables.enforcement.most_per_pod = 0;
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, SYN)), Verdict::Pass);
        for flags in [SYN | ACK, ACK] {
            assert_eq!(world.sends(0, &tcp(pod, peer, flags)), Verdict::Pass);
        }
        world.isolate(0, Allows::Nothing, Allows::Everything);
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), INGRESS, "nobody is connected to it");
    }
}

#[test]
fn answers_to_a_connected_socket_pass() {
    for mut world in seen() {
        let (pod, peer) = (with_port(world.pod(0), 4000), world.client(53));
        world.isolate(0, Allows::Nothing, Allows::Everything);
        let answer = udp(peer, pod);
        assert_eq!(world.gets(0, UPLINK, &answer), INGRESS);
        world.connect(Protocol::Udp, pod, peer, Side::Ingress);
        assert_eq!(world.gets(0, UPLINK, &answer), INGRESS, "it was made for whoever comes");
        world.connect(Protocol::Udp, pod, peer, Side::Egress);
        assert_eq!(world.gets(0, UPLINK, &answer), Verdict::Pass);
        assert_eq!(world.judged(), 1);
        assert_eq!(world.sends(0, &udp(pod, peer)), Verdict::Pass);
        world.tables.judged.borrow_mut().clear();
        world.tables.full.set(true);
        assert_eq!(world.gets(0, UPLINK, &answer), Verdict::Pass);
        world.isolate(0, Allows::Nothing, Allows::FriendsPort);
        assert_eq!(world.gets(0, UPLINK, &answer), INGRESS, "the question was not allowed");
    }
}

#[test]
fn without_room_handshakes_go_on_where_one_side_is_open() {
    for mut world in seen() {
        let (pod, peer) = (world.pod(0), world.client(4001));
        world.befriend(peer);
        world.tables.enforcement.most_per_pod = 0;
        for (ingress, egress) in
            [(Allows::Friends, Allows::Everything), (Allows::Everything, Allows::Nothing)]
        {
            world.isolate(0, ingress, egress);
            assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, SYN)), Verdict::Pass);
            world.connect(Protocol::Tcp, pod, peer, Side::Ingress);
            for flags in [SYN | ACK, ACK] {
                assert_eq!(world.sends(0, &tcp(pod, peer, flags)), Verdict::Pass);
                assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), Verdict::Pass);
            }
            // Of a connection that is half over, or that no socket has any more, what is allowed itself passes.
            world.network.pod_sockets.clear();
            assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), Verdict::Pass);
        }
        assert_eq!(world.judged(), 0);
    }
}

#[test]
fn where_sockets_are_not_the_pods_nobody_asks_them() {
    for mut world in seen() {
        let (pod, peer) = (with_port(world.pod(0), 4000), world.client(4001));
        world.isolate(0, Allows::Nothing, Allows::Everything);
        // One that forwards for others.
        world.tables.pods.get_mut(&FIRST_POD).unwrap().flags = BoundPod::ANY_SOURCE;
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), Verdict::Pass);
        world.tables.pods.get_mut(&FIRST_POD).unwrap().flags = 0;
        world.tables.judged.borrow_mut().clear();
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), INGRESS);
        // A sandbox that keeps its own.
        world.tables.devices.get_mut(&FIRST_POD).unwrap().netns = 0;
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, ACK)), Verdict::Pass);
    }
}
