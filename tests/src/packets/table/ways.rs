//! How packets go on, and how their replies come back.

use weir_ebpf::abi::Config;
use weir_ebpf::wire::{TCP_ACK, TCP_SYN};

use crate::packets::case::Becomes::{Delivered, Routed, Stack, TooLong, Untouched};
use crate::packets::case::Ends::{Hidden, Of, Shown};
use crate::packets::case::Hook::{FromL3, FromNet, FromPod, ToL3, ToNet, ToPod};
use crate::packets::case::What::{Sctp, Tcp, Udp, UdpWithOptions};
use crate::packets::case::Who::{Balancer, Between, Client, Node, Pod, PodPort, Source, Vip};
use crate::packets::case::{Case, at};

const SYN: u8 = TCP_SYN;
const BOTH: u8 = TCP_SYN | TCP_ACK;

pub(super) fn cases() -> Vec<Case> {
    [past_the_stack(), protocols(), lengths(), through_the_stack(), of_pods(), by_other_devices()]
        .into_iter()
        .flatten()
        .collect()
}

fn past_the_stack() -> Vec<Case> {
    vec![
        Case {
            name: "a backend here sees the client and is reached past the stack",
            given: |node| node.set_backends(0, 1),
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(4000), Node, Delivered(Shown(Pod(0)), 0)),
                at(FromPod, Tcp(BOTH, 0), Pod(0), Source, Routed(Of(Node, Client(4000)))),
                at(FromNet, Tcp(TCP_ACK, 333), Client(4000), Node, Delivered(Of(Source, Pod(0)), 0)),
                at(FromPod, Tcp(TCP_ACK, 1001), Pod(0), Source, Routed(Of(Node, Client(4000)))),
            ],
            rows: 2,
        },
        Case {
            name: "a backend elsewhere answers this node",
            given: |node| node.set_backends(2, 3),
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(4000), Balancer, Routed(Hidden(Pod(2)))),
                at(FromNet, Tcp(BOTH, 0), Pod(2), Source, Routed(Of(Balancer, Client(4000)))),
                at(FromNet, Tcp(TCP_ACK, 77), Client(4000), Balancer, Routed(Of(Source, Pod(2)))),
            ],
            rows: 2,
        },
        Case {
            name: "one client reaches one backend by two names and directly at once",
            given: |node| node.set_backends(0, 1),
            steps: vec![
                at(FromNet, Udp(1), Client(4000), Vip, Delivered(Shown(Pod(0)), 0)),
                at(FromPod, Udp(1), Pod(0), Source, Routed(Of(Vip, Client(4000)))),
                at(FromNet, Udp(1), Client(4000), Node, Delivered(Shown(Pod(0)), 0)),
                at(FromPod, Udp(1), Pod(0), Source, Routed(Of(Node, Client(4000)))),
                at(FromNet, Udp(1), Client(4000), Pod(0), Untouched),
                at(FromPod, Udp(1), Pod(0), Client(4000), Untouched),
            ],
            rows: 4,
        },
    ]
}

fn protocols() -> Vec<Case> {
    vec![
        Case {
            name: "datagrams go the same ways",
            given: |node| node.set_backends(2, 3),
            steps: vec![
                at(FromNet, Udp(100), Client(4000), Vip, Routed(Hidden(Pod(2)))),
                at(FromNet, Udp(0), Pod(2), Source, Routed(Of(Vip, Client(4000)))),
            ],
            rows: 2,
        },
        Case {
            name: "the checksum of SCTP follows its ports",
            given: |node| node.set_backends(1, 2),
            steps: vec![
                at(FromNet, Sctp, Client(4000), Node, Delivered(Shown(Pod(1)), 1)),
                at(FromPod, Sctp, Pod(1), Source, Routed(Of(Node, Client(4000)))),
            ],
            rows: 2,
        },
        Case {
            name: "headers of IP between are skipped and kept",
            given: |node| node.set_backends(2, 3),
            steps: vec![
                at(FromNet, UdpWithOptions, Client(4000), Node, Routed(Hidden(Pod(2)))),
                at(FromNet, UdpWithOptions, Pod(2), Source, Routed(Of(Node, Client(4000)))),
            ],
            rows: 2,
        },
    ]
}

fn lengths() -> Vec<Case> {
    vec![
        Case {
            name: "segments that are yet to be cut are as long as one of them",
            given: |node| node.set_backends(2, 3),
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(4000), Node, Routed(Hidden(Pod(2)))),
                at(FromNet, Tcp(TCP_ACK, 3000), Client(4000), Node, Routed(Of(Source, Pod(2))))
                    .in_segments(1000),
            ],
            rows: 2,
        },
        Case {
            name: "a segment that is too long for the way on is reported to its sender",
            given: |node| node.set_backends(2, 3),
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(4000), Node, Routed(Hidden(Pod(2)))),
                at(FromNet, Tcp(TCP_ACK, 2000), Client(4000), Node, TooLong),
            ],
            rows: 2,
        },
    ]
}

fn through_the_stack() -> Vec<Case> {
    vec![
        Case {
            name: "through the stack the last hook finishes what the first began",
            given: |node| {
                node.use_stack();
                node.set_backends(2, 3);
            },
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(4000), Node, Stack(Shown(Pod(2)))),
                at(ToNet, Tcp(SYN, 0), Source, Pod(2), Stack(Hidden(Pod(2)))),
                at(FromNet, Tcp(BOTH, 0), Pod(2), Source, Stack(Of(Pod(2), Between(4000)))),
                at(ToNet, Tcp(BOTH, 0), Pod(2), Between(4000), Stack(Of(Node, Client(4000)))),
            ],
            rows: 3,
        },
        Case {
            name: "through the stack to a backend here only the reply waits",
            given: |node| {
                node.use_stack();
                node.set_backends(0, 1);
            },
            steps: vec![
                at(FromNet, Udp(8), Client(4000), Node, Stack(Shown(Pod(0)))),
                at(ToPod, Udp(8), Source, Pod(0), Untouched),
                at(FromPod, Udp(8), Pod(0), Source, Untouched),
                at(ToNet, Udp(8), Pod(0), Source, Stack(Of(Node, Client(4000)))),
            ],
            rows: 2,
        },
        Case {
            name: "what the stack forwards for somebody outside is marked, if neighbours are to know it",
            given: |node| {
                node.set_config(|config| config.flags |= Config::NO_REDIRECT | Config::MARK_FORWARDED);
                node.set_backends(2, 3);
            },
            steps: vec![
                at(FromNet, Udp(8), Client(4000), Node, Stack(Shown(Pod(2)))),
                at(ToNet, Udp(8), Source, Pod(2), Stack(Hidden(Pod(2)))),
                at(FromPod, Udp(8), PodPort(0, 700), Vip, Stack(Of(PodPort(0, 700), Pod(2)))),
            ],
            rows: 5,
        },
        Case {
            name: "what may have to be cut to pieces goes through the stack",
            given: |node| {
                node.set_backends(0, 1);
                node.set_mtu(0, 1450);
            },
            steps: vec![
                at(FromNet, Udp(8), Client(4000), Node, Stack(Shown(Pod(0)))),
                at(FromNet, Tcp(SYN, 0), Client(4000), Node, Delivered(Shown(Pod(0)), 0)),
            ],
            rows: 4,
        },
    ]
}

fn of_pods() -> Vec<Case> {
    vec![
        Case {
            name: "a pod keeps its address towards another pod of this node",
            given: |node| node.set_backends(1, 2),
            steps: vec![
                at(FromPod, Tcp(SYN, 0), PodPort(0, 700), Vip, Delivered(Of(PodPort(0, 700), Pod(1)), 1)),
                at(FromPod, Tcp(BOTH, 0), Pod(1), PodPort(0, 700), Delivered(Of(Vip, PodPort(0, 700)), 0)),
            ],
            rows: 2,
        },
        Case {
            name: "a pod's packets leave the node by way of the stack",
            given: |node| node.set_backends(2, 3),
            steps: vec![
                at(FromPod, Tcp(SYN, 0), PodPort(0, 700), Vip, Stack(Of(PodPort(0, 700), Pod(2)))),
                at(ToNet, Tcp(SYN, 0), PodPort(0, 700), Pod(2), Untouched),
                at(FromNet, Tcp(BOTH, 0), Pod(2), PodPort(0, 700), Untouched),
                at(ToPod, Tcp(BOTH, 0), Pod(2), PodPort(0, 700), Stack(Of(Vip, PodPort(0, 700)))),
            ],
            rows: 2,
        },
        Case {
            name: "a pod that reaches itself through its Service does not see itself",
            given: |node| node.set_backends(0, 1),
            steps: vec![
                at(FromPod, Tcp(SYN, 0), PodPort(0, 4000), Vip, Delivered(Hidden(Pod(0)), 0)),
                at(FromPod, Tcp(BOTH, 0), Pod(0), Source, Delivered(Of(Vip, PodPort(0, 4000)), 0)),
            ],
            rows: 2,
        },
    ]
}

fn by_other_devices() -> Vec<Case> {
    vec![
        Case {
            name: "from a device without Ethernet into a pod",
            given: |node| node.set_backends(0, 1),
            steps: vec![
                at(FromL3, Tcp(SYN, 0), Client(4000), Node, Delivered(Shown(Pod(0)), 0)),
                at(FromL3, Udp(50), Client(4000), Node, Delivered(Shown(Pod(0)), 0)),
            ],
            rows: 4,
        },
        Case {
            name: "from a device without Ethernet to another node, and out by such a device",
            given: |node| {
                node.use_stack();
                node.set_backends(2, 3);
            },
            steps: vec![
                at(FromL3, Tcp(SYN, 0), Client(4000), Balancer, Stack(Shown(Pod(2)))),
                at(ToL3, Tcp(SYN, 0), Source, Pod(2), Stack(Hidden(Pod(2)))),
                at(ToL3, Udp(60), Client(4000), Pod(2), Untouched),
            ],
            rows: 3,
        },
        Case {
            name: "towards a device that has none of our programs there is only the stack",
            given: |node| {
                node.set_backends(2, 3);
                node.forget_uplink();
            },
            steps: vec![at(FromNet, Tcp(SYN, 0), Client(4000), Node, Stack(Shown(Pod(2))))],
            rows: 3,
        },
    ]
}
