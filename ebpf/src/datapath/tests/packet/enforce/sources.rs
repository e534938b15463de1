//! Which addresses a pod may bear, and pods that nobody knows yet.

use super::*;
use crate::abi::{AddressUses, Config, Frontend, FrontendKey, Prefix};

const SPOOFED: Verdict = Verdict::Drop(DropReason::SpoofedSource);
const UNKNOWN: Verdict = Verdict::Drop(DropReason::UnknownPod);

fn unknown_pods_are_let_pass(world: &mut World) {
    world.tables.enforcement.flags &= !Enforcement::HOLD_UNKNOWN;
}

fn arp(sender: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1]);
    frame.extend(sender);
    frame.extend([0, 0, 0, 0, 0, 0, 10, 244, 0, 9]);
    frame
}

pub(super) fn link_local(world: &World, host: u8) -> Peer {
    let v4 = world.pod(0).addr.is_v4();
    let text = if v4 { format!("169.254.3.{host}:80") } else { format!("[fe80::{host}]:80") };
    text.parse::<SocketAddr>().unwrap().into()
}

#[test]
fn a_pods_packets_bear_its_own_address() {
    for mut world in World::guarded() {
        world.isolate(1, Allows::Nothing, Allows::Nothing);
        let (own, vip, backend) = (world.pod(0), world.vip(), world.pod(3));
        assert_eq!(world.sends(0, &tcp(own, backend, SYN)), Verdict::Pass);
        for other in [world.pod(1), world.node(), world.client(1), vip] {
            assert_eq!(world.sends(0, &tcp(other, backend, SYN)), SPOOFED);
            assert_eq!(world.sends(0, &tcp(other, vip, SYN)), SPOOFED);
        }
        assert_eq!((world.rows(), world.counted(Counter::SpoofedSource)), (0, 8), "no flow is made of it");
        // Unless it is listed as one that forwards for others.
        world.tables.pods.get_mut(&FIRST_POD).unwrap().flags = BoundPod::ANY_SOURCE;
        assert_eq!(world.sends(0, &tcp(world.client(1), backend, SYN)), Verdict::Pass);
    }
}

#[test]
fn addresses_of_the_link_are_the_pods_and_judged_as_such() {
    for mut world in World::guarded() {
        let (local, friend) = (link_local(&world, 4), link_local(&world, 5));
        assert_eq!(world.sends(0, &udp(local, friend)), Verdict::Pass);
        world.isolate(0, Allows::Nothing, Allows::Friends);
        assert_eq!(world.sends(0, &udp(local, link_local(&world, 6))), EGRESS);
        world.befriend(friend);
        assert_eq!(world.sends(0, &udp(local, friend)), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &udp(local, world.pod(0))), INGRESS);
    }
}

#[test]
fn addresses_of_the_link_stay_on_it() {
    for mut world in World::guarded() {
        let (local, group) = (
            link_local(&world, 4),
            if world.pod(0).addr.is_v4() { "224.0.0.251:5353" } else { "[ff02::fb]:5353" },
        );
        for there in [group.parse::<SocketAddr>().unwrap().into(), link_local(&world, 5)] {
            assert_eq!(world.sends(0, &udp(local, there)), Verdict::Pass, "{there:?}");
        }
        // There they would pass for the rest of the world.
        for farther in [world.pod(1), world.pod(3), world.client(1), world.vip(), world.node()] {
            assert_eq!(world.sends(0, &udp(local, farther)), SPOOFED, "{farther:?}");
        }
        world.tables.pods.get_mut(&FIRST_POD).unwrap().flags = BoundPod::ANY_SOURCE;
        assert_eq!(world.sends(0, &udp(local, world.pod(3))), Verdict::Pass);
    }
}

#[test]
fn unknown_pods_are_held_or_let_pass() {
    for mut world in World::guarded() {
        world.tables.pods.remove(&FIRST_POD);
        let (pod, peer) = (world.pod(0), world.pod(3));
        assert_eq!(world.sends(0, &tcp(pod, peer, SYN)), UNKNOWN);
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, SYN)), UNKNOWN);
        assert_eq!(world.gets(0, 0, &tcp(world.node(), pod, SYN)), Verdict::Pass, "from its node");
        assert_eq!(world.sends(0, &arp([10, 244, 0, 1])), UNKNOWN);
        assert_eq!(world.counted(Counter::UnknownPod), 3);
        unknown_pods_are_let_pass(&mut world);
        assert_eq!(world.sends(0, &tcp(pod, peer, SYN)), Verdict::Pass);
        assert_eq!(world.sends(0, &tcp(world.pod(1), peer, SYN)), SPOOFED, "but not as somebody else");
        assert_eq!(world.gets(0, UPLINK, &tcp(peer, pod, SYN)), Verdict::Pass);
    }
}

#[test]
fn a_pod_that_is_held_may_say_where_it_is() {
    let [mut world, _] = World::guarded();
    world.tables.pods.remove(&FIRST_POD);
    assert_eq!(world.sends(0, &arp([10, 244, 0, 0])), Verdict::Pass);
    assert_eq!(world.sends(0, &arp([0, 0, 0, 0])), Verdict::Pass, "a probe (RFC 5227)");
    for anothers in [[10, 244, 0, 1], [10, 244, 0, 200], [192, 0, 2, 1]] {
        assert_eq!(world.sends(0, &arp(anothers)), UNKNOWN);
    }
    let [_, mut world] = World::guarded();
    world.tables.pods.remove(&FIRST_POD);
    // A report of the groups that it is in (RFC 3810 section 5.2).
    let group = Addr::from("ff02::16".parse::<std::net::IpAddr>().unwrap());
    let group = Peer { addr: group, port: Port::default() };
    let report = |src, hops| super::messages::icmp(src, group, 143, hops, Addr::default());
    assert_eq!(world.sends(0, &report(link_local(&world, 7), 1)), Verdict::Pass);
    assert_eq!(world.sends(0, &report(link_local(&world, 7), 2)), UNKNOWN, "beyond the link");
    assert_eq!(world.sends(0, &report(world.pod(1), 1)), UNKNOWN, "as another");
}

#[test]
fn what_is_no_pod_passes_but_not_as_one() {
    for mut world in World::guarded() {
        let none = Addr::from_words([0; 4]);
        let row = BoundPod::new(none, none, PodPolicy::OPEN, BoundPod::NO_POD);
        world.tables.pods.insert(FIRST_POD, row);
        let peer = world.pod(3);
        for own in [world.pod(0), world.client(1)] {
            assert_eq!(world.sends(0, &tcp(own, peer, SYN)), Verdict::Pass);
            assert_eq!(world.gets(0, UPLINK, &tcp(peer, own, SYN)), Verdict::Pass);
        }
        assert_eq!(world.sends(0, &tcp(world.pod(1), peer, SYN)), SPOOFED);
        // Nor as one of another node's that a policy knows.
        world.befriend(world.pod(2));
        assert_eq!(world.sends(0, &tcp(world.pod(2), peer, SYN)), SPOOFED);
        let about = frame::icmp_error(ip(world.client(1)), &udp(peer, world.pod(1)), true);
        assert_eq!(world.sends(0, &about), SPOOFED, "another pod got it");
    }
}

#[test]
fn an_address_of_the_link_is_the_pods_that_sends_under_it() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::FriendsPort, Allows::Nothing);
        let (sender, pod) = (link_local(&world, 7), world.pod(0));
        let (other, frame) = (FIRST_POD + 1, tcp(sender, pod, SYN));
        assert_eq!(world.gets(0, other, &frame), INGRESS);
        world.befriend(world.pod(1));
        assert_eq!(world.gets(0, UPLINK, &frame), INGRESS, "on another device it is nobody's");
        assert_eq!(world.gets(0, other, &frame), Verdict::Pass);
        assert_eq!(world.sends(0, &tcp(pod, sender, SYN | ACK)), Verdict::Pass);
    }
}

#[test]
fn an_address_of_the_nodes_pods_that_nobody_has_is_held() {
    for mut world in World::guarded() {
        let (known, stranger, client) = (world.pod(0), world.pod(1), world.client(1));
        let config = world.tables.config.as_mut().unwrap();
        config.flags |= Config::HOLD_STRANGERS;
        config.pod_networks[1] = Prefix::new(known.addr, 127);
        world.tables.workloads.remove(&stranger.addr);
        assert_eq!(world.arrives(&tcp(client, stranger, SYN)), Verdict::Pass, "a pod of another node's");
        assert_eq!(world.leaves(UPLINK, &tcp(stranger, client, SYN)), Verdict::Pass);
        const BRIDGE: u32 = 77;
        world.network.routes.insert(0, (Prefix::new(known.addr, 127), Some(BRIDGE)));
        assert_eq!(world.arrives(&tcp(client, stranger, SYN)), UNKNOWN);
        assert_eq!(world.leaves(UPLINK, &tcp(stranger, client, SYN)), UNKNOWN);
        assert_eq!(world.sends(0, &tcp(known, stranger, SYN)), UNKNOWN);
        assert_eq!(world.counted(Counter::UnknownPod), 3);
        assert_eq!(world.leaves(0, &tcp(stranger, client, SYN)), Verdict::Pass, "the node made it");
        for other in [known, world.pod(3), client] {
            assert_eq!(world.arrives(&tcp(client, other, SYN)), Verdict::Pass);
            assert_eq!(world.leaves(UPLINK, &tcp(other, client, SYN)), Verdict::Pass);
        }
        // One of the node's own, such as a bridge's; and where nobody is held.
        let key = FrontendKey::whole_address(stranger.addr);
        world.tables.frontends.insert(key, Frontend::whole_address(AddressUses::NODE));
        assert_eq!(world.arrives(&tcp(client, stranger, SYN)), Verdict::Pass);
        world.tables.frontends.remove(&key);
        assert_eq!(world.arrives(&tcp(client, stranger, SYN)), UNKNOWN);
        world.tables.config.as_mut().unwrap().flags = 0;
        assert_eq!(world.arrives(&tcp(client, stranger, SYN)), Verdict::Pass);
    }
}

#[test]
fn an_address_of_the_other_family_is_not_known_yet() {
    let [mut v4, mut v6] = World::guarded();
    for (world, other) in [(&v4, &v6), (&v6, &v4)] {
        assert_eq!(world.sends(0, &tcp(other.pod(0), other.pod(3), SYN)), UNKNOWN);
    }
    unknown_pods_are_let_pass(&mut v4);
    unknown_pods_are_let_pass(&mut v6);
    for (world, other) in [(&v4, &v6), (&v6, &v4)] {
        assert_eq!(world.sends(0, &tcp(other.pod(0), other.pod(3), SYN)), Verdict::Pass);
    }
}

#[test]
fn arp_senders_are_checked_like_sources() {
    let [mut world, _] = World::guarded();
    world.isolate(0, Allows::Nothing, Allows::Nothing);
    assert_eq!(world.sends(0, &arp([10, 244, 0, 0])), Verdict::Pass);
    assert_eq!(world.sends(0, &arp([0, 0, 0, 0])), Verdict::Pass, "a probe (RFC 5227)");
    assert_eq!(world.sends(0, &arp([10, 244, 0, 1])), SPOOFED);
    assert_eq!(world.sends(0, &arp([10, 1, 0, 1])), SPOOFED, "nor is it the gateway");
    assert_eq!(world.gets(0, UPLINK, &arp([10, 244, 0, 1])), Verdict::Pass);
    let unreadable = Verdict::Drop(DropReason::Unreadable);
    assert_eq!(world.sends(0, &arp([10, 244, 0, 0])[..30]), unreadable);
}

#[test]
fn what_cannot_be_read_does_not_pass() {
    for mut world in World::guarded() {
        let unreadable = Verdict::Drop(DropReason::Unreadable);
        let cut = tcp(world.pod(0), world.pod(3), SYN);
        let cut = &cut[..cut.len() - 8];
        let mut strange = tcp(world.pod(0), world.pod(3), SYN);
        (strange[12], strange[13]) = (0x88, 0xcc);
        let is_v4 = world.pod(0).addr.is_v4();
        for frame in [cut, &strange] {
            // Behind headers of IPv6 that nobody follows there may be anything.
            let passes = is_v4 || frame == strange;
            assert_eq!(world.sends(0, frame), if passes { Verdict::Pass } else { unreadable });
            assert_eq!(world.gets(0, UPLINK, frame), Verdict::Pass, "nothing isolates it");
        }
        let others = tcp(world.pod(1), world.pod(3), SYN);
        let others = world.sends(0, &others[..others.len() - 8]);
        assert_eq!(others, if is_v4 { SPOOFED } else { unreadable });
        let mut twice = strange.clone();
        (twice[12], twice[13]) = (0x81, 0);
        assert_eq!(world.sends(0, &twice), unreadable, "a tag behind one that the kernel took off");
        world.isolate(0, Allows::Everything, Allows::Nothing);
        for frame in [cut, &strange] {
            assert_eq!(world.sends(0, frame), unreadable);
            assert_eq!(world.gets(0, UPLINK, frame), unreadable);
            assert_eq!(world.gets(0, 0, frame), Verdict::Pass, "the node's own");
        }
    }
}
