//! Datagrams in pieces.

use weir_ebpf::abi::DropReason;

use crate::packets::case::Becomes::{Delivered, Dropped, Routed, Stack, Untouched};
use crate::packets::case::Ends::{Hidden, Of, Shown};
use crate::packets::case::Hook::{FromNet, FromPod, ToNet};
use crate::packets::case::What::{Piece, Udp};
use crate::packets::case::Who::{Between, Client, Node, Pod, Source, Vip};
use crate::packets::case::{Case, at};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case {
            name: "later pieces follow the first",
            given: |node| node.set_backends(0, 1),
            steps: vec![
                at(FromNet, Piece(77, 0), Client(4000), Node, Delivered(Shown(Pod(0)), 0)),
                at(FromNet, Piece(77, 1), Client(4000), Node, Delivered(Of(Source, Pod(0)), 0)),
                at(FromNet, Piece(77, 2), Client(4000), Node, Delivered(Of(Source, Pod(0)), 0)),
                at(FromNet, Piece(77, 3), Client(4000), Node, Delivered(Of(Source, Pod(0)), 0)),
            ],
            rows: 2,
        },
        Case {
            name: "a piece of another datagram is not taken for one of this",
            given: |node| node.set_backends(0, 1),
            steps: vec![
                at(FromNet, Piece(2, 1), Client(4000), Node, Untouched),
                at(FromPod, Piece(3, 1), Client(4000), Vip, Dropped(DropReason::FragmentWithoutFirst)),
                at(FromNet, Piece(4, 0), Pod(2), Pod(0), Untouched),
                at(FromNet, Piece(4, 1), Pod(2), Pod(0), Untouched),
            ],
            rows: 0,
        },
    ];
    cases.extend(hidden());
    cases
}

fn hidden() -> [Case; 2] {
    let replies =
        (0..4).map(|piece| at(FromNet, Piece(78, piece), Pod(2), Source, Routed(Of(Node, Client(4000)))));
    let first = at(FromNet, Udp(10), Client(4000), Node, Routed(Hidden(Pod(2))));
    [
        Case {
            name: "pieces of a reply come back as the first does",
            given: |node| node.set_backends(2, 3),
            steps: std::iter::once(first).chain(replies).collect(),
            rows: 2,
        },
        Case {
            name: "through the stack both hooks know the pieces",
            given: |node| {
                node.use_stack();
                node.set_backends(2, 3);
            },
            steps: vec![
                at(FromNet, Piece(5, 0), Client(4000), Node, Stack(Shown(Pod(2)))),
                at(FromNet, Piece(5, 1), Client(4000), Node, Stack(Of(Between(4000), Pod(2)))),
                at(FromNet, Piece(5, 2), Client(4000), Node, Stack(Of(Between(4000), Pod(2)))),
                at(FromNet, Piece(5, 3), Client(4000), Node, Stack(Of(Between(4000), Pod(2)))),
                at(ToNet, Piece(5, 0), Between(4000), Pod(2), Stack(Hidden(Pod(2)))),
                at(ToNet, Piece(5, 1), Client(4000), Pod(2), Stack(Of(Source, Pod(2)))),
                at(ToNet, Piece(5, 2), Client(4000), Pod(2), Stack(Of(Source, Pod(2)))),
                at(ToNet, Piece(5, 3), Client(4000), Pod(2), Stack(Of(Source, Pod(2)))),
            ],
            rows: 3,
        },
    ]
}
