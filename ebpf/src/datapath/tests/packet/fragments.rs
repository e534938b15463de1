//! Datagrams in pieces.

use super::*;

#[test]
fn later_pieces_follow_the_first() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let whole = frame::udp(world.client(4000).into(), world.node().into(), &[7; 8192]);
        let pieces = frame::fragments(&whole, 1480, 77);
        assert_eq!(pieces.len(), 6);
        let there: Vec<Translation> =
            pieces.iter().map(|piece| translated(world.ask(Hook::FromNet, piece))).collect();
        let first = Translation { begins: false, ..there[0] };
        assert!(there[0].begins && there[1..].iter().all(|piece| *piece == first), "{there:?}");
        let reply = frame::udp(there[0].dst.into(), there[0].src.into(), &[8; 8192]);
        for piece in frame::fragments(&reply, 1480, 78) {
            let back = translated(world.ask(Hook::FromNet, &piece));
            assert_eq!((back.src, back.dst), (world.node(), world.client(4000)));
        }
        assert_eq!(world.rows(), 2);
    }
}

#[test]
fn a_piece_of_another_datagram_is_not_taken_for_one_of_this() {
    for mut world in World::both() {
        world.set_backends(2..3);
        let whole = frame::udp(world.client(4000).into(), world.node().into(), &[7; 3000]);
        translated(world.ask(Hook::FromNet, &frame::fragments(&whole, 1480, 1)[0]));
        let other = &frame::fragments(&whole, 1480, 2)[1];
        assert_eq!(world.ask(Hook::FromNet, other), Verdict::Pass, "the node may want it");
        let lost = frame::udp(world.client(4000).into(), world.vip().into(), &[7; 3000]);
        let lost = &frame::fragments(&lost, 1480, 3)[1];
        assert_eq!(world.ask(Hook::FromNet, lost), Verdict::Drop(DropReason::FragmentWithoutFirst));
    }
}

#[test]
fn pieces_of_what_is_none_of_ours_are_not_remembered() {
    for world in World::both() {
        let whole = frame::udp(world.client(4000).into(), world.pod(0).into(), &[7; 3000]);
        for piece in frame::fragments(&whole, 1480, 1) {
            assert_eq!(world.ask(Hook::FromNet, &piece), Verdict::Pass);
        }
        assert!(world.tables.fragments.borrow().is_empty());
    }
}

#[test]
fn through_the_stack_both_hooks_know_the_pieces() {
    for mut world in World::both() {
        let config = world.tables.config.unwrap();
        world.tables.config = Some(Config { flags: Config::NO_REDIRECT, ..config });
        world.set_backends(2..3);
        let whole = frame::udp(world.client(4000).into(), world.node().into(), &[7; 3000]);
        let first: Vec<Translation> = frame::fragments(&whole, 1480, 5)
            .iter()
            .map(|piece| translated(world.ask(Hook::FromNet, piece)))
            .collect();
        let middle = frame::udp(first[0].src.into(), first[0].dst.into(), &[7; 3000]);
        for piece in frame::fragments(&middle, 1480, 5) {
            let last = translated(world.ask(Hook::Last, &piece));
            assert_eq!((last.src.addr, last.dst), (world.node().addr, world.pod(2)));
        }
    }
}
