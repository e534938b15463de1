//! What is told of a drop, and how often.

use std::net::SocketAddr;

use crate::abi::{
    Addr, BoundPod, ClassId, DropEvent, DropReason, HookPoint, Peer, PodPolicy, PolicySetId, Port, Side,
};
use crate::datapath::events::{Bucket, EventAllowance, describe_judgement, describe_packet};
use crate::datapath::packet::{Onward, Translation};
use crate::testing::{MemoryTables, frame};
use crate::wire::{TCP_SYN, parse};

const SECOND: u64 = 1_000_000_000;

fn told(allowance: &mut EventAllowance, now_ns: u64, device: u32, reason: DropReason, times: u32) -> u32 {
    (0..times).map(|_| u32::from(allowance.take(now_ns, device, reason as u32))).sum()
}

#[test]
fn a_flood_of_one_kind_leaves_room_for_others() {
    let mut row = EventAllowance::default();
    let (now, burst) = (77 * SECOND, EventAllowance::BURST_OF_KIND);
    assert_eq!(told(&mut row, now, 7, DropReason::PolicyIngress, 1000), burst);
    assert_eq!(told(&mut row, now, 7, DropReason::PolicyEgress, 1000), burst, "another reason");
    assert_eq!(told(&mut row, now, 8, DropReason::PolicyIngress, 1000), burst, "another pod");
    assert_eq!(told(&mut row, now + SECOND, 7, DropReason::PolicyIngress, 1000), 10);
    let later = now + 9 * SECOND;
    assert_eq!(told(&mut row, later, 7, DropReason::PolicyIngress, 1000), burst, "no more than whole");
}

#[test]
fn all_together_are_bounded_too() {
    let mut row = EventAllowance::default();
    let all = |row: &mut EventAllowance, now| -> u32 {
        (0..64).map(|device| told(row, now, device, DropReason::UnknownPod, 100)).sum()
    };
    assert_eq!(all(&mut row, SECOND), EventAllowance::BURST);
    assert_eq!(all(&mut row, SECOND), 0);
    assert_eq!(all(&mut row, 2 * SECOND), 100);
    // For a minute, three every millisecond, of one kind after the other.
    let mut row = EventAllowance::default();
    let in_a_minute: u32 = (0..60_000_u64)
        .map(|at| {
            let device = u32::try_from(at % 64).unwrap();
            told(&mut row, SECOND + at * 1_000_000, device, DropReason::UnknownPod, 3)
        })
        .sum();
    assert!((6_000..=6_000 + EventAllowance::BURST).contains(&in_a_minute), "{in_a_minute}");
}

#[test]
fn time_that_stands_still_or_goes_back_gives_nothing() {
    let mut one = Bucket::default();
    assert!(one.take(100, 2, 50) && one.take(100, 2, 50) && !one.take(100, 2, 50));
    assert!(!one.take(90, 2, 50) && !one.take(149, 2, 50) && one.take(150, 2, 50));
}

#[test]
fn what_is_told_of_a_segment() {
    for family in super::families() {
        let (src, vip, backend) = (family.peer(1, 4000), family.vip(), family.backend(1));
        let bytes = frame::tcp(SocketAddr::from(src), SocketAddr::from(vip), TCP_SYN, b"");
        let packet = parse(bytes.as_slice(), 14, frame::ether_type(&bytes)).unwrap();
        let mut event = DropEvent::new(1, HookPoint::FromPod, DropReason::PolicyEgress);
        describe_packet(&mut event, &packet, None, bytes.as_slice());
        assert_eq!((event.src(), event.dst(), event.new_dst()), (src, vip, None));
        assert_eq!((event.protocol, event.detail, event.flags), (6, TCP_SYN, DropEvent::READ));
        let translation = Translation::new(src, backend, Onward::Stack);
        describe_packet(&mut event, &packet, Some(&translation), bytes.as_slice());
        assert_eq!((event.dst(), event.new_dst()), (vip, Some(backend)));
    }
}

#[test]
fn the_peer_is_who_the_packet_would_have_reached() {
    const DEVICE: u32 = 5;
    let peer = |last| Peer { addr: Addr::from_v4(u32::from_ne_bytes([10, 0, 0, last])), port: Port::new(80) };
    let mut tables = MemoryTables::default();
    let policy = PodPolicy::new(PolicySetId(10), PolicySetId(11));
    let pod = BoundPod::new(peer(1).addr, Addr::from_words([0; 4]), policy, 0);
    tables.pods.insert(DEVICE, pod);
    tables.policy.addresses.extend([(peer(2).addr, ClassId(2)), (peer(3).addr, ClassId(3))]);
    let judged = |reason, side, new_dst: Option<Peer>| {
        let mut event = DropEvent::new(1, HookPoint::FromPod, reason);
        event.device = DEVICE;
        event.set_side(side);
        match side {
            Side::Egress => event.set_ends(peer(1), peer(2)),
            Side::Ingress => event.set_ends(peer(2), peer(1)),
        }
        if let Some(new_dst) = new_dst {
            event.set_translation(new_dst);
        }
        describe_judgement(&tables, &mut event);
        event.has(DropEvent::JUDGED).then_some((event.set.0, event.class.0))
    };
    assert_eq!(judged(DropReason::PolicyEgress, Side::Egress, None), Some((11, 2)));
    assert_eq!(judged(DropReason::PolicyEgress, Side::Egress, Some(peer(3))), Some((11, 3)));
    assert_eq!(judged(DropReason::PolicyIngress, Side::Ingress, None), Some((10, 2)));
    assert_eq!(judged(DropReason::PolicyEgress, Side::Ingress, None), Some((11, 2)), "a reply");
    assert_eq!(judged(DropReason::JudgedFull, Side::Ingress, None), None);
}
