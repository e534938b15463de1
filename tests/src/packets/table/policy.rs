//! Policies: the first pod is isolated, the other is not.

use weir_ebpf::abi::DropReason;
use weir_ebpf::testing::Allows::{Everything, Friends, FriendsPort, Nothing};
use weir_ebpf::wire::{TCP_ACK, TCP_RST, TCP_SYN};

use crate::packets::case::Becomes::{self, Cut, Delivered, Dropped, Refused, Routed, Stack, Untouched};
use crate::packets::case::Ends::{Hidden, Of, Quoting, Shown, ShownAs};
use crate::packets::case::Hook::{FromNet, FromPod, ToPod};
use crate::packets::case::What::{
    Arp, Echo, Piece, Redirect, Strange, Tcp, TinyPiece, TooBig, Udp, UdpMapped,
};
use crate::packets::case::Who::{Client, Node, NodePort, Pod, PodPort, Router, Source, Vip};
use crate::packets::case::{Case, Step, at};
use crate::packets::node::{FIRST_POD, UPLINK};

const SYN: u8 = TCP_SYN;
const ACK: u8 = TCP_ACK;
const RST: u8 = TCP_RST;
const INGRESS: Becomes = Dropped(DropReason::PolicyIngress);
const EGRESS: Becomes = Dropped(DropReason::PolicyEgress);
const SPOOFED: Becomes = Dropped(DropReason::SpoofedSource);

pub(super) fn cases() -> Vec<Case> {
    [
        flows(),
        in_mid_stream_and_without_room(),
        changes(),
        services(),
        answers(),
        the_node_and_the_pod_itself(),
        what_a_pod_may_send(),
        messages_and_pieces(),
        unknown_pods(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn flows() -> Vec<Case> {
    let (client, friend) = (PodPort(0, 4000), Pod(3));
    vec![
        Case {
            name: "policy: egress to whom it allows, and its replies",
            given: |node| {
                node.guard(Nothing, FriendsPort);
                node.befriend(Pod(3));
            },
            steps: vec![
                at(FromPod, Tcp(SYN, 0), client, Client(8080), EGRESS),
                at(FromPod, Tcp(SYN, 0), client, PodPort(3, 81), EGRESS),
                at(FromPod, Tcp(SYN, 0), client, friend, Untouched),
                at(ToPod, Tcp(SYN | ACK, 0), friend, client, Untouched),
                at(ToPod, Tcp(ACK, 9), friend, client, Untouched),
                at(FromPod, Tcp(ACK, 9), client, friend, Untouched),
                at(ToPod, Tcp(SYN, 0), friend, client, INGRESS),
                at(ToPod, Tcp(SYN, 0), friend, Pod(0), INGRESS),
                at(FromPod, Udp(9), client, friend, Untouched),
                at(ToPod, Udp(9), friend, client, Untouched),
                at(ToPod, Udp(9), friend, PodPort(0, 4001), INGRESS),
            ],
            rows: 0,
        },
        Case {
            name: "policy: ingress from whom it allows, and its replies",
            given: |node| {
                node.guard(FriendsPort, Nothing);
                node.befriend(Client(0));
            },
            steps: vec![
                at(ToPod, Tcp(SYN, 0), friend, Pod(0), INGRESS),
                at(ToPod, Tcp(SYN, 0), Client(4000), PodPort(0, 81), INGRESS),
                at(ToPod, Tcp(SYN, 0), Client(4000), Pod(0), Untouched),
                at(FromPod, Tcp(SYN | ACK, 0), Pod(0), Client(4000), Untouched),
                at(FromPod, Tcp(ACK, 0), Pod(0), friend, EGRESS),
                at(FromPod, Tcp(SYN, 0), Pod(0), Client(4000), EGRESS),
            ],
            rows: 0,
        },
    ]
}

fn in_mid_stream_and_without_room() -> Vec<Case> {
    let friend = Pod(3);
    vec![
        Case {
            name: "policy: in mid-stream either direction is enough",
            given: |node| {
                node.guard(FriendsPort, Nothing);
                node.befriend(Client(0));
            },
            steps: vec![
                at(FromPod, Tcp(ACK, 9), Pod(0), Client(4000), Untouched),
                at(ToPod, Tcp(ACK, 9), Client(4001), Pod(0), Untouched),
                at(ToPod, Tcp(SYN | ACK, 0), friend, Pod(0), INGRESS),
                at(FromPod, Tcp(ACK, 9), PodPort(0, 81), Client(4002), EGRESS),
            ],
            rows: 0,
        },
        Case {
            name: "policy: a pod has its share of what is remembered",
            given: |node| {
                node.guard(Nothing, Friends);
                node.befriend(Pod(3));
                node.set_share(2);
            },
            steps: vec![
                at(FromPod, Udp(1), PodPort(0, 1), friend, Untouched),
                at(FromPod, Udp(1), PodPort(0, 2), friend, Untouched),
                at(FromPod, Udp(1), PodPort(0, 3), friend, Dropped(DropReason::JudgedFull)),
                at(FromPod, Tcp(ACK, 1), PodPort(0, 4), friend, Untouched),
                at(FromPod, Udp(1), PodPort(0, 1), friend, Untouched),
            ],
            rows: 0,
        },
    ]
}

fn changes() -> Vec<Case> {
    let (client, friend) = (PodPort(0, 4000), Pod(3));
    vec![
        Case {
            name: "policy: what is revoked stops both ways, and goes on when it is allowed again",
            given: |node| {
                node.guard(Everything, Friends);
                node.befriend(Pod(3));
            },
            steps: vec![
                at(FromPod, Tcp(SYN, 0), client, friend, Untouched),
                Step::Change(|node| node.isolate(0, Everything, Nothing)),
                at(ToPod, Tcp(SYN | ACK, 0), friend, client, Cut(friend, client)),
                at(FromPod, Tcp(ACK, 9), client, friend, Cut(friend, client)),
                at(FromPod, Tcp(ACK, 2000), client, friend, Cut(friend, client)).in_segments(1000),
                at(FromPod, Tcp(RST, 0), client, friend, Untouched),
                at(FromPod, Tcp(RST, 9), client, friend, EGRESS),
                at(FromPod, Tcp(SYN, 0), client, friend, EGRESS),
                Step::Change(|node| node.isolate(0, Everything, FriendsPort)),
                at(ToPod, Tcp(SYN | ACK, 0), friend, client, Untouched),
            ],
            rows: 0,
        },
        Case {
            name: "policy: a peer that is another's now is judged again",
            given: |node| {
                node.guard(FriendsPort, Nothing);
                node.befriend(Client(0));
            },
            steps: vec![
                at(ToPod, Tcp(SYN, 0), Client(4000), Pod(0), Untouched),
                Step::Change(super::super::node::Node::forget_friends),
                at(FromPod, Tcp(SYN | ACK, 0), Pod(0), Client(4000), Cut(Client(4000), Pod(0))),
                Step::Change(|node| node.befriend(Client(0))),
                at(FromPod, Tcp(SYN | ACK, 0), Pod(0), Client(4000), Untouched),
            ],
            rows: 0,
        },
    ]
}

fn services() -> Vec<Case> {
    let client = PodPort(0, 4000);
    vec![
        Case {
            name: "policy: egress is judged by the backend, and what is denied leaves no flow",
            given: |node| {
                node.guard(Nothing, FriendsPort);
                node.set_backends(2, 3);
                node.befriend(Vip);
            },
            steps: vec![
                at(FromPod, Tcp(SYN, 0), client, Vip, EGRESS),
                at(FromPod, Tcp(SYN, 0), client, Node, EGRESS),
                Step::Change(|node| node.befriend(Pod(2))),
                at(FromPod, Tcp(SYN, 0), client, Vip, Stack(ShownAs(Pod(0), Pod(2)))),
            ],
            rows: 2,
        },
        Case {
            name: "policy: what goes past the stack into a pod is judged where it is sent",
            given: |node| {
                node.guard(FriendsPort, Nothing);
                node.set_backends(0, 1);
            },
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(4000), Node, INGRESS),
                Step::Change(|node| node.befriend(Client(0))),
                at(FromNet, Tcp(SYN, 0), Client(4000), Node, Delivered(Shown(Pod(0)), 0)),
                at(FromPod, Tcp(SYN | ACK, 0), Pod(0), Source, Routed(Of(Node, Client(4000)))),
                Step::Change(super::super::node::Node::forget_friends),
                // Its rows are needed until the resets have gone by.
                at(FromNet, Tcp(ACK, 700), Client(4000), Node, Cut(Node, Client(4000))),
                at(FromNet, Tcp(RST, 0), Client(4000), Node, Delivered(Of(Source, Pod(0)), 0)),
                at(FromPod, Tcp(RST, 0), Pod(0), Source, Routed(Of(Node, Client(4000)))),
            ],
            rows: 2,
        },
    ]
}

fn answers() -> Vec<Case> {
    let client = PodPort(0, 4000);
    vec![
        Case {
            name: "policy: an error about a flow past the stack reaches the pod",
            given: |node| {
                node.guard(FriendsPort, Nothing);
                node.set_backends(0, 1);
                node.befriend(Client(0));
            },
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
            name: "policy: a refusal in the Service's name is no policy's",
            given: |node| {
                node.guard(Nothing, Nothing);
                node.set_backends(0, 0);
            },
            steps: vec![at(FromPod, Tcp(SYN, 0), client, Vip, Refused)],
            rows: 0,
        },
    ]
}

fn the_node_and_the_pod_itself() -> Vec<Case> {
    vec![
        Case {
            name: "policy: the node reaches its pods, whoever bears its address does not",
            given: |node| node.guard(Nothing, Nothing),
            steps: vec![
                at(ToPod, Tcp(SYN, 0), Node, Pod(0), Untouched).that_came_by(0),
                at(FromPod, Tcp(SYN | ACK, 0), Pod(0), Node, Untouched),
                at(FromPod, Udp(9), Pod(0), NodePort(53), Untouched),
                at(ToPod, Tcp(SYN, 0), Node, Pod(0), INGRESS),
                at(ToPod, Tcp(ACK, 0), Node, Pod(0), INGRESS).that_came_by(FIRST_POD + 1),
                at(ToPod, Echo, Node, Pod(0), INGRESS).that_came_by(UPLINK),
            ],
            rows: 0,
        },
        Case {
            name: "policy: a pod reaches itself through a Service",
            given: |node| {
                node.guard(Nothing, Nothing);
                node.set_backends(0, 1);
            },
            steps: vec![
                at(FromPod, Tcp(SYN, 0), PodPort(0, 4000), Vip, Delivered(Hidden(Pod(0)), 0)),
                at(FromPod, Tcp(SYN | ACK, 0), Pod(0), Source, Delivered(Of(Vip, PodPort(0, 4000)), 0)),
            ],
            rows: 2,
        },
    ]
}

fn what_a_pod_may_send() -> Vec<Case> {
    vec![
        Case {
            name: "policy: a pod that nothing isolates bears its own address all the same",
            given: |node| {
                node.guard(Everything, Everything);
                node.set_backends(2, 3);
            },
            steps: vec![
                at(FromPod, Tcp(SYN, 0), Pod(0), Pod(3), Untouched),
                at(FromPod, Tcp(SYN, 0), Pod(1), Pod(3), SPOOFED),
                at(FromPod, Tcp(SYN, 0), Node, Vip, SPOOFED),
                at(FromPod, Redirect, Pod(0), Pod(1), Dropped(DropReason::RouterMessage)),
                at(FromPod, UdpMapped, Pod(0), Pod(1), Dropped(DropReason::MappedAddress)),
            ],
            rows: 0,
        },
        Case {
            name: "policy: what the node would take out of a tunnel is no pod's to send, to whichever node",
            given: |node| {
                node.guard(Everything, Everything);
                node.take_tunnels(8472);
            },
            steps: vec![
                at(FromPod, Udp(9), Pod(0), NodePort(8472), Dropped(DropReason::NodeTunnel)),
                at(FromPod, Udp(9), Pod(0), PodPort(3, 8472), Dropped(DropReason::NodeTunnel)),
                at(FromPod, Udp(9), Pod(0), NodePort(4789), Untouched),
                at(FromPod, Tcp(SYN, 0), Pod(0), NodePort(8472), Untouched),
                at(ToPod, Udp(9), Client(4000), PodPort(0, 8472), Untouched),
            ],
            rows: 0,
        },
        Case {
            name: "policy: what nobody can read does not pass where something is isolated",
            given: |node| node.guard(Nothing, Nothing),
            steps: vec![
                at(FromPod, Strange, Pod(0), Pod(1), Dropped(DropReason::Unreadable)),
                at(ToPod, Strange, Pod(1), Pod(0), Dropped(DropReason::Unreadable)),
                at(ToPod, Strange, Pod(1), Pod(0), Untouched).that_came_by(0),
                at(ToPod, Arp, Pod(1), Pod(0), Untouched),
            ],
            rows: 0,
        },
    ]
}

fn messages_and_pieces() -> Vec<Case> {
    let friend = PodPort(3, 4000);
    let piece = |id, number, src, becomes| at(ToPod, Piece(id, number), src, Pod(0), becomes);
    vec![
        Case {
            name: "policy: echo is isolated, errors pass that quote an allowed flow, redirects never do",
            given: |node| {
                node.guard(Nothing, FriendsPort);
                node.befriend(Pod(3));
            },
            steps: vec![
                at(FromPod, Echo, Pod(0), Pod(3), EGRESS),
                at(ToPod, TooBig(Pod(0), Pod(3)), Router, Pod(0), INGRESS),
                at(FromPod, Tcp(SYN, 0), Pod(0), Pod(3), Untouched),
                at(ToPod, TooBig(Pod(0), Pod(3)), Router, Pod(0), Untouched),
                at(ToPod, Redirect, Router, Pod(0), INGRESS),
            ],
            rows: 0,
        },
        Case {
            name: "policy: pieces follow the first",
            given: |node| {
                node.guard(FriendsPort, Nothing);
                node.befriend(Pod(3));
            },
            steps: vec![
                piece(1, 1, friend, Dropped(DropReason::FragmentWithoutFirst)),
                piece(1, 0, friend, Untouched),
                piece(1, 1, friend, Untouched),
                piece(1, 2, friend, Untouched),
                piece(2, 0, Client(4000), INGRESS),
                piece(2, 1, Client(4000), Dropped(DropReason::FragmentWithoutFirst)),
                at(FromPod, TinyPiece, Pod(0), Pod(3), Dropped(DropReason::Unreadable)),
                at(ToPod, TinyPiece, Pod(3), Pod(0), Dropped(DropReason::Unreadable)),
            ],
            rows: 0,
        },
    ]
}

fn unknown_pods() -> Vec<Case> {
    vec![Case {
        name: "policy: a pod that nobody knows yet is held",
        given: |node| {
            node.guard(Nothing, Nothing);
            node.forget_pod(0);
        },
        steps: vec![
            at(FromPod, Tcp(SYN, 0), Pod(0), Pod(3), Dropped(DropReason::UnknownPod)),
            at(FromPod, Arp, Pod(0), Pod(3), Untouched),
            at(ToPod, Tcp(SYN, 0), Pod(3), Pod(0), Dropped(DropReason::UnknownPod)),
            at(ToPod, Tcp(SYN, 0), Node, Pod(0), Untouched).that_came_by(0),
            Step::Change(|node| node.isolate(0, Everything, Everything)),
            at(FromPod, Tcp(SYN, 0), Pod(0), Pod(3), Untouched),
        ],
        rows: 0,
    }]
}

#[cfg(test)]
mod tests {
    use weir_agent::source::Family;

    use super::*;
    use crate::packets::case::What::Advertisement;
    use crate::packets::judge::{Alone, judge};

    /// ARP and neighbour discovery, each in its own family.
    #[test]
    fn whose_addresses_a_pod_speaks_of() {
        let spoken = |what: fn(crate::packets::case::Who) -> crate::packets::case::What| Case {
            name: "",
            given: |node| node.guard(Nothing, Nothing),
            steps: vec![
                at(FromPod, what(Pod(0)), Pod(0), Pod(1), Untouched),
                at(FromPod, what(Pod(1)), Pod(1), Pod(0), SPOOFED),
            ],
            rows: 0,
        };
        judge(&spoken(|_| Arp), Family::V4, &mut Alone).unwrap();
        judge(&spoken(Advertisement), Family::V6, &mut Alone).unwrap();
    }
}
