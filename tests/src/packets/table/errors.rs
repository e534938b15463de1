//! ICMP errors and echo.

use weir_ebpf::wire::TCP_SYN;

use crate::packets::case::Becomes::{Delivered, Dropped, Echoed, Routed, Stack, Untouched};
use crate::packets::case::Ends::{Hidden, Quoting, Shown};
use crate::packets::case::Hook::{FromL3, FromNet, FromPod, ToNet};
use crate::packets::case::What::{Echo, Tcp, TooBig, Udp, Unreachable};
use crate::packets::case::Who::{
    Balancer, Between, Client, Node, Pod, PodPort, Router, Source, Unallocated, Vip,
};
use crate::packets::case::{Case, at};
use weir_ebpf::abi::DropReason;

const SYN: u8 = TCP_SYN;

pub(super) fn cases() -> Vec<Case> {
    [past_the_stack(), through_the_stack(), of_the_node_and_of_others(), echo()]
        .into_iter()
        .flatten()
        .collect()
}

fn past_the_stack() -> Vec<Case> {
    let told = |from, quoted| Routed(Quoting([from, Client(4000)], quoted));
    let sent = [Client(4000), Node];
    vec![
        Case {
            name: "a router towards the backend is heard by the client",
            given: |node| node.set_backends(2, 3),
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(4000), Node, Routed(Hidden(Pod(2)))),
                at(FromNet, TooBig(Source, Pod(2)), Router, Source, told(Router, sent)),
                at(FromNet, TooBig(Source, Pod(2)), Pod(2), Source, told(Node, sent)),
            ],
            rows: 2,
        },
        Case {
            name: "a backend here that has no port tells the client, in the name of what it dialled",
            given: |node| node.set_backends(0, 1),
            steps: vec![
                at(FromNet, Udp(9), Client(4000), Node, Delivered(Shown(Pod(0)), 0)),
                at(FromPod, Unreachable(Source, Pod(0)), Pod(0), Source, told(Node, sent)),
            ],
            rows: 2,
        },
        Case {
            name: "a router towards the client is heard by a backend that sees the client",
            given: |node| node.set_backends(0, 1),
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(4000), Node, Delivered(Shown(Pod(0)), 0)),
                at(
                    FromNet,
                    TooBig(Node, Client(4000)),
                    Router,
                    Node,
                    Delivered(Quoting([Router, Pod(0)], [Pod(0), Source]), 0),
                ),
            ],
            rows: 2,
        },
        Case {
            name: "a backend that does not see the client hears of no stranger",
            given: |node| node.set_backends(2, 3),
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(4000), Node, Routed(Hidden(Pod(2)))),
                at(
                    FromNet,
                    TooBig(Node, Client(4000)),
                    Router,
                    Node,
                    Routed(Quoting([Node, Pod(2)], [Pod(2), Source])),
                ),
            ],
            rows: 2,
        },
    ]
}

fn through_the_stack() -> Vec<Case> {
    let (given, between) =
        (Quoting([Router, Client(4000)], [Between(4000), Pod(2)]), [Between(4000), Pod(2)]);
    vec![Case {
        name: "through the stack errors take the same two steps",
        given: |node| {
            node.use_stack();
            node.set_backends(2, 3);
        },
        steps: vec![
            at(FromNet, Tcp(SYN, 0), Client(4000), Node, Stack(Shown(Pod(2)))),
            at(ToNet, Tcp(SYN, 0), Source, Pod(2), Stack(Hidden(Pod(2)))),
            at(FromNet, TooBig(Source, Pod(2)), Router, Source, Stack(given)),
            at(
                ToNet,
                TooBig(between[0], between[1]),
                Router,
                Client(4000),
                Stack(Quoting([Router, Client(4000)], [Client(4000), Node])),
            ),
            at(
                FromNet,
                TooBig(Node, Client(4000)),
                Router,
                Node,
                Stack(Quoting([Router, Pod(2)], [Pod(2), Between(4000)])),
            ),
            at(
                ToNet,
                TooBig(Pod(2), Between(4000)),
                Router,
                Pod(2),
                Stack(Quoting([Node, Pod(2)], [Pod(2), Source])),
            ),
        ],
        rows: 3,
    }]
}

fn of_the_node_and_of_others() -> Vec<Case> {
    vec![
        Case {
            name: "the node's own errors about a packet in the stack reach the client",
            given: |node| {
                node.use_stack();
                node.set_backends(2, 3);
            },
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(4000), Node, Stack(Shown(Pod(2)))),
                at(
                    ToNet,
                    TooBig(Source, Pod(2)),
                    Node,
                    Client(4000),
                    Stack(Quoting([Node, Client(4000)], [Client(4000), Node])),
                ),
            ],
            rows: 3,
        },
        Case {
            name: "errors about what is none of ours pass",
            given: |_| {},
            steps: vec![
                at(FromNet, TooBig(Pod(0), Client(4000)), Router, Pod(0), Untouched),
                at(FromPod, Unreachable(Client(4000), Pod(0)), Pod(0), Client(4000), Untouched),
                at(ToNet, Unreachable(Client(4000), Pod(0)), Pod(0), Client(4000), Untouched),
            ],
            rows: 0,
        },
    ]
}

fn echo() -> Vec<Case> {
    vec![Case {
        name: "Service addresses answer echo and the node answers for itself",
        given: |_| {},
        steps: vec![
            at(FromNet, Echo, Client(1), Vip, Echoed),
            at(FromPod, Echo, PodPort(0, 1), Vip, Echoed),
            at(FromNet, Echo, Client(1), Balancer, Echoed),
            at(FromL3, Echo, Client(1), Balancer, Echoed),
            at(ToNet, Echo, Client(1), Vip, Echoed),
            at(FromNet, Echo, Client(1), Node, Untouched),
            at(FromNet, Echo, Client(1), Pod(0), Untouched),
            at(FromNet, Echo, Client(1), Unallocated, Dropped(DropReason::UnknownAddress)),
        ],
        rows: 0,
    }]
}
