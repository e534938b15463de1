//! ICMP, neighbour discovery, and datagrams in pieces.

use std::net::IpAddr;

use super::*;

/// An ICMP packet of another kind; of ICMPv6 with this hop limit, and about this target.
pub(super) fn icmp(src: Peer, dst: Peer, kind: u8, hops: u8, target: Addr) -> Vec<u8> {
    let mut frame = frame::echo_request(ip(src), ip(dst), &[0; 24]);
    let is_v4 = src.addr.is_v4();
    let l4 = 14 + if is_v4 { 20 } else { 40 };
    frame[l4] = kind;
    if !is_v4 {
        frame[14 + 7] = hops;
        let target: [u8; 16] = zerocopy::transmute!(target.words());
        frame[l4 + 8..l4 + 24].copy_from_slice(&target);
    }
    frame
}

fn kinds(world: &World, v4: u8, v6: u8) -> u8 {
    if world.pod(0).addr.is_v4() { v4 } else { v6 }
}

#[test]
fn echo_is_isolated_and_its_replies_pass() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::Nothing, Allows::Friends);
        let (pod, friend, stranger) = (world.pod(0), world.pod(3), world.client(1));
        world.befriend(friend);
        let none = Addr::default();
        let (asks, answers) = (kinds(&world, 8, 128), kinds(&world, 0, 129));
        assert_eq!(world.sends(0, &icmp(pod, stranger, asks, 64, none)), EGRESS);
        assert_eq!(world.gets(0, UPLINK, &icmp(friend, pod, answers, 64, none)), INGRESS, "nobody has asked");
        assert_eq!(world.sends(0, &icmp(pod, friend, asks, 64, none)), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &icmp(friend, pod, answers, 64, none)), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &icmp(friend, pod, asks, 64, none)), INGRESS, "it is no answer");
        // Ports do not allow what has none.
        world.isolate(0, Allows::Nothing, Allows::FriendsPort);
        assert_eq!(world.sends(0, &icmp(pod, friend, asks, 64, none)), EGRESS);
    }
}

#[test]
fn errors_pass_that_quote_an_allowed_flow() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::FriendsPort, Allows::FriendsPort);
        let (pod, friend, router) = (with_port(world.pod(0), 4000), world.pod(3), world.client(1));
        world.befriend(friend);
        let about = |port| frame::icmp_error(ip(router), &tcp(with_port(pod, port), friend, ACK), true);
        assert_eq!(world.gets(0, UPLINK, &about(4000)), INGRESS);
        assert_eq!(world.sends(0, &tcp(pod, friend, SYN)), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &about(4000)), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &about(4001)), INGRESS, "it never sent that");
        // And what the pod says about what it got.
        let said = |port| frame::icmp_error(ip(pod), &udp(friend, with_port(pod, port)), false);
        assert_eq!(world.gets(0, UPLINK, &udp(friend, with_port(pod, PORT))), Verdict::Pass);
        assert_eq!(world.sends(0, &said(PORT)), Verdict::Pass);
        assert_eq!(world.sends(0, &said(81)), EGRESS);
        // Of one that was cut nothing is to be learned any more, and of one whose peer is another it is to be seen first.
        world.next_generation();
        assert_eq!(world.gets(0, UPLINK, &about(4000)), INGRESS);
        assert_eq!(world.sends(0, &tcp(pod, friend, ACK)), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &about(4000)), Verdict::Pass);
        world.tables.policy.addresses.clear();
        world.next_generation();
        assert!(cut(world.sends(0, &tcp(pod, friend, ACK))).is_some());
        assert_eq!(world.gets(0, UPLINK, &about(4000)), INGRESS);
        // Redirects never do.
        let redirect = icmp(router, pod, kinds(&world, 5, 137), 255, Addr::default());
        assert_eq!(world.gets(0, UPLINK, &redirect), INGRESS);
        world.isolate(0, Allows::Nothing, Allows::Nothing);
        assert_eq!(world.gets(0, UPLINK, &about(4000)), INGRESS, "of what is revoked neither");
    }
}

#[test]
fn errors_pass_that_quote_an_allowed_echo() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::Friends, Allows::Friends);
        let (pod, friend, router) = (world.pod(0), world.pod(3), world.client(1));
        world.befriend(friend);
        let (asks, answers) = (kinds(&world, 8, 128), kinds(&world, 0, 129));
        let echo = |src, dst, kind| icmp(src, dst, kind, 64, Addr::default());
        let about = |quoted: &[u8]| frame::icmp_error(ip(router), quoted, false);
        assert_eq!(world.gets(0, UPLINK, &about(&echo(pod, friend, asks))), INGRESS);
        assert_eq!(world.sends(0, &echo(pod, friend, asks)), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &about(&echo(pod, friend, asks))), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &about(&echo(pod, router, asks))), INGRESS, "it never sent that");
        let other = kinds(&world, 42, 160);
        assert_eq!(world.gets(0, UPLINK, &about(&echo(pod, friend, other))), INGRESS);
        // What the pod says of an answer that it got.
        let said = frame::icmp_error(ip(pod), &echo(friend, pod, answers), false);
        assert_eq!(world.sends(0, &said), Verdict::Pass);
        world.isolate(0, Allows::Nothing, Allows::Nothing);
        assert_eq!(
            world.gets(0, UPLINK, &about(&echo(pod, friend, asks))),
            INGRESS,
            "of what is revoked neither"
        );
    }
}

#[test]
fn members_of_groups_say_so() {
    let [mut world, _] = World::guarded();
    world.isolate(0, Allows::Nothing, Allows::Nothing);
    let (pod, router) = (world.pod(0), world.pod(3));
    let [group, everybody] = ["224.0.0.22", "239.1.2.3"].map(|text| Peer {
        addr: Addr::from(text.parse::<std::net::IpAddr>().unwrap()),
        port: Port::default(),
    });
    let igmp = |src: Peer, dst: Peer, kind: u8, ttl: u8| {
        let mut frame = icmp(src, dst, kind, ttl, Addr::default());
        (frame[14 + 8], frame[14 + 9]) = (ttl, 2);
        frame
    };
    for kind in [0x11, 0x12, 0x16, 0x17, 0x22] {
        for to in [group, everybody] {
            assert_eq!(world.sends(0, &igmp(pod, to, kind, 1)), Verdict::Pass, "{kind:#x}");
            assert_eq!(world.gets(0, UPLINK, &igmp(router, to, kind, 1)), Verdict::Pass, "{kind:#x}");
        }
        assert_eq!(world.sends(0, &igmp(pod, router, kind, 1)), EGRESS, "to no group");
        assert_eq!(world.sends(0, &igmp(pod, group, kind, 2)), EGRESS, "beyond the link");
    }
    assert_eq!(world.sends(0, &igmp(pod, group, 0x13, 1)), EGRESS, "another protocol, of routers");
    let spoofed = Verdict::Drop(DropReason::SpoofedSource);
    assert_eq!(world.sends(0, &igmp(router, group, 0x16, 1)), spoofed);
}

#[test]
fn errors_about_translated_flows_reach_the_pod() {
    for mut world in World::guarded() {
        world.set_backends(2..3);
        world.isolate(0, Allows::Nothing, Allows::Friends);
        let (pod, backend, router) = (with_port(world.pod(0), 4000), world.pod(2), world.client(1));
        world.befriend(backend);
        let sent = translated(world.sends(0, &tcp(pod, world.vip(), SYN)));
        let about = frame::icmp_error(ip(router), &tcp(sent.src, sent.dst, ACK), true);
        let told = translated(world.gets(0, UPLINK, &about));
        assert_eq!(told.quoted.map(|quoted| (quoted.src, quoted.dst)), Some((pod, world.vip())));
    }
}

#[test]
fn pods_are_no_routers() {
    for world in World::guarded() {
        let (pod, peer) = (world.pod(0), world.client(1));
        let forbidden = Verdict::Drop(DropReason::RouterMessage);
        let kinds: &[u8] = if pod.addr.is_v4() { &[5, 9] } else { &[134, 137] };
        for kind in kinds {
            assert_eq!(world.sends(0, &icmp(pod, peer, *kind, 255, Addr::default())), forbidden);
        }
        assert_eq!(world.counted(Counter::RouterMessage), 2);
    }
}

#[test]
fn neighbour_discovery_is_for_everybody_about_themselves() {
    let [_, mut world] = World::guarded();
    world.isolate(0, Allows::Nothing, Allows::Nothing);
    let (pod, other, nobody) = (world.pod(0), world.pod(1), Peer::default());
    let [asks, says] = [135, 136];
    for src in [pod, nobody] {
        assert_eq!(world.sends(0, &icmp(src, other, asks, 255, other.addr)), Verdict::Pass, "also DAD");
    }
    assert_eq!(world.sends(0, &icmp(pod, other, says, 255, pod.addr)), Verdict::Pass);
    let spoofed = Verdict::Drop(DropReason::SpoofedSource);
    assert_eq!(world.sends(0, &icmp(pod, other, says, 255, other.addr)), spoofed);
    assert_eq!(world.sends(0, &icmp(other, pod, asks, 255, other.addr)), spoofed);
    for kind in [asks, says] {
        assert_eq!(world.gets(0, UPLINK, &icmp(other, pod, kind, 255, pod.addr)), Verdict::Pass);
        assert_eq!(world.gets(0, UPLINK, &icmp(other, pod, kind, 64, pod.addr)), INGRESS, "from afar");
        assert_eq!(world.sends(0, &icmp(pod, other, kind, 64, pod.addr)), EGRESS);
    }
    let group = Peer { addr: IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 0x16]).into(), port: Port::default() };
    for kind in [131, 143] {
        assert_eq!(world.sends(0, &icmp(pod, group, kind, 1, pod.addr)), Verdict::Pass);
        assert_eq!(world.sends(0, &icmp(pod, group, kind, 64, pod.addr)), EGRESS);
        assert_eq!(world.sends(0, &icmp(pod, other, kind, 1, pod.addr)), EGRESS, "it is for groups");
    }
    // Pods of another node may be on this link, if they have its prefix; beyond it a stack forwards it as anything else.
    let address = IpAddr::from([0x2001, 0xdb8, 9, 9, 0, 0, 0, 9]);
    let beyond = Peer { addr: address.into(), port: Port::default() };
    for kind in [asks, says] {
        assert_eq!(world.sends(0, &icmp(pod, world.pod(3), kind, 255, pod.addr)), Verdict::Pass);
        assert_eq!(world.sends(0, &icmp(pod, beyond, kind, 255, pod.addr)), EGRESS);
    }
}

#[test]
fn errors_are_told_by_who_got_the_packet_to_who_sent_it() {
    for mut world in World::guarded() {
        let (pod, friend, stranger) = (with_port(world.pod(0), PORT), world.pod(3), world.client(1));
        let about = |src, dst| frame::icmp_error(ip(pod), &udp(src, dst), false);
        let spoofed = Verdict::Drop(DropReason::SpoofedSource);
        assert_eq!(world.sends(0, &about(friend, world.pod(1))), spoofed, "another pod got it");
        assert_eq!(world.sends(0, &about(friend, pod)), Verdict::Pass);
        world.isolate(0, Allows::FriendsPort, Allows::Nothing);
        world.befriend(friend);
        assert_eq!(world.gets(0, UPLINK, &udp(friend, pod)), Verdict::Pass);
        assert_eq!(world.sends(0, &about(friend, pod)), Verdict::Pass);
        let mut elsewhere = about(friend, pod);
        let destination = frame::icmp_error(ip(pod), &udp(stranger, pod), false);
        let (at, long) = if pod.addr.is_v4() { (14 + 16, 4) } else { (14 + 24, 16) };
        elsewhere[at..at + long].copy_from_slice(&destination[at..at + long]);
        assert_eq!(world.sends(0, &elsewhere), EGRESS, "it is no answer to whom it goes");
    }
}

#[test]
fn errors_in_pieces_are_nobodys() {
    for world in World::guarded() {
        let (pod, friend) = (with_port(world.pod(0), PORT), world.pod(3));
        let whole = frame::icmp_error(ip(pod), &frame::udp(friend.into(), pod.into(), &[7; 400]), true);
        assert_eq!(world.sends(0, &whole), Verdict::Pass);
        let pieces = frame::fragments(&whole, 24, 5);
        assert!(pieces.len() > 1);
        assert_eq!(world.sends(0, &pieces[0]), Verdict::Drop(DropReason::Unreadable));
        let echo = icmp(pod, friend, kinds(&world, 8, 128), 64, Addr::default());
        let long = [&echo[..], &[0; 200]].concat();
        assert_eq!(world.sends(0, &long), Verdict::Pass, "what is no error");
    }
}

#[test]
fn pieces_follow_the_first() {
    for mut world in World::guarded() {
        world.isolate(0, Allows::FriendsPort, Allows::FriendsPort);
        let (pod, friend, stranger) = (world.pod(0), with_port(world.pod(3), 4000), world.client(4000));
        world.befriend(friend);
        let lost = Verdict::Drop(DropReason::FragmentWithoutFirst);
        let pieces = |src, dst, id| frame::fragments(&frame::udp(src, dst, &[7; 3000]), 1000, id);
        let piece = |pieces: &[Vec<u8>], n: usize| world.gets(0, UPLINK, &pieces[n]);
        let good = pieces(friend.into(), pod.into(), 1);
        assert_eq!(piece(&good, 1), lost);
        for n in 0..4 {
            assert_eq!(piece(&good, n), Verdict::Pass);
        }
        let bad = pieces(stranger.into(), pod.into(), 2);
        assert_eq!(piece(&bad, 0), INGRESS);
        assert_eq!(piece(&bad, 1), lost);
        // On the way out, and as a reply.
        for (n, sent) in pieces(pod.into(), friend.into(), 3).iter().enumerate() {
            assert_eq!(world.sends(0, sent), Verdict::Pass, "{n}");
        }
    }
}

#[test]
fn a_first_piece_without_the_flags_is_not_read() {
    for mut world in World::guarded() {
        let (pod, friend) = (with_port(world.pod(0), PORT), with_port(world.pod(3), 4000));
        // It answers on its port, and begins nothing.
        world.isolate(0, Allows::FriendsPort, Allows::Nothing);
        world.befriend(friend);
        let unreadable = Verdict::Drop(DropReason::Unreadable);
        let lost = Verdict::Drop(DropReason::FragmentWithoutFirst);
        let tiny = tcp_pieces(pod, friend, SYN, 8, 1);
        assert_eq!(world.sends(0, &tiny[0]), unreadable, "behind its end it would say ACK");
        assert_eq!(world.sends(0, &tiny[1]), lost);
        assert_eq!(world.gets(0, UPLINK, &tcp_pieces(friend, pod, SYN, 8, 2)[0]), unreadable);
        let [opens, goes_on] = [SYN, ACK].map(|flags| tcp_pieces(pod, friend, flags, 16, 3));
        assert_eq!(world.sends(0, &opens[0]), EGRESS);
        assert_eq!(world.sends(0, &opens[1]), lost);
        for piece in &goes_on {
            assert_eq!(world.sends(0, piece), Verdict::Pass);
        }
    }
}

/// A TCP segment in pieces of so many bytes, in frames that are filled up with what would say ACK.
fn tcp_pieces(src: Peer, dst: Peer, flags: u8, size: usize, id: u16) -> Vec<Vec<u8>> {
    let segment = tcp(src, dst, flags);
    let (number, l4) = if src.addr.is_v4() { (14 + 9, 14 + 20) } else { (14 + 40, 14 + 40) };
    // A datagram whose content is the segment's but for the first 8 bytes, which are the segment's then.
    let mut pieces = frame::fragments(&frame::udp(src.into(), dst.into(), &segment[l4 + 8..]), size, id);
    for (piece, part) in pieces.iter_mut().zip(segment[l4..].chunks(size)) {
        piece[number] = 6;
        let at = piece.len() - part.len();
        piece[at..].copy_from_slice(part);
        piece.extend([ACK; 18]);
    }
    pieces
}
