//! Who may begin a flow, and what everybody else gets.

use weir_ebpf::abi::{DropReason, Frontend, FrontendKind};
use weir_ebpf::wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

use crate::packets::case::Becomes::{
    Delivered, Dropped, Expired, Refused, Routed, Silenced, Stack, Untouched,
};
use crate::packets::case::Ends::{Hidden, Of, Shown};
use crate::packets::case::Hook::{FromL3, FromNet, FromPod, ToNet, ToPod};
use crate::packets::case::What::{Piece, Sctp, Tcp, Udp, UdpMapped, UdpWithOptions};
use crate::packets::case::Who::{Balancer, Client, Node, NodePort, Pod, PodPort, Unallocated, Vip, VipPort};
use crate::packets::case::{Case, at};

const SYN: u8 = TCP_SYN;

pub(super) fn cases() -> Vec<Case> {
    [strangers(), refusals(), shortages(), drops(), at_the_end()].into_iter().flatten().collect()
}

fn strangers() -> Vec<Case> {
    vec![
        Case {
            name: "whoever is not a Service is left alone",
            given: |_| {},
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(4000), NodePort(22), Untouched),
                at(FromPod, Udp(10), PodPort(0, 4000), Pod(2), Untouched),
                at(ToNet, Udp(10), Pod(0), Client(4000), Untouched),
                at(ToPod, Tcp(SYN, 0), Client(4000), Pod(0), Untouched),
            ],
            rows: 0,
        },
        Case {
            name: "what listens on the node comes before a Service at its address",
            given: |node| {
                node.set_backends(0, 1);
                node.set_frontend(NodePort(5353), FrontendKind::LoadBalancer, Frontend::NODE_ADDRESS);
                node.add_socket(NodePort(5353));
            },
            steps: vec![
                at(FromNet, Udp(9), Client(4000), NodePort(5353), Untouched),
                at(FromNet, Tcp(SYN, 0), Client(4000), NodePort(5353), Delivered(Shown(Pod(0)), 0)),
            ],
            rows: 2,
        },
        Case {
            name: "of TCP only a SYN begins a flow",
            given: |_| {},
            steps: vec![
                at(FromNet, Tcp(TCP_ACK, 5), Client(4000), Vip, Untouched),
                at(FromNet, Tcp(SYN | TCP_ACK, 0), Client(4000), Vip, Untouched),
                at(FromNet, Tcp(TCP_RST, 0), Client(4000), Node, Untouched),
                at(FromNet, Tcp(TCP_FIN | TCP_ACK, 0), Client(4000), Balancer, Untouched),
            ],
            rows: 0,
        },
    ]
}

fn refusals() -> Vec<Case> {
    vec![
        Case {
            name: "an unknown port of a ClusterIP is refused",
            given: |_| {},
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(4000), VipPort(81), Refused),
                at(FromPod, Tcp(SYN, 31), PodPort(0, 4000), VipPort(81), Refused),
                at(FromNet, Udp(0), Client(4000), VipPort(81), Refused),
                at(FromPod, Udp(1201), PodPort(0, 4000), VipPort(81), Refused),
                at(FromNet, Udp(1400), Client(4000), VipPort(81), Refused),
                at(FromNet, UdpWithOptions, Client(4000), VipPort(81), Refused),
                at(FromNet, Sctp, Client(4000), VipPort(81), Refused),
                at(FromL3, Tcp(SYN, 0), Client(4000), VipPort(81), Refused),
                at(FromL3, Udp(333), Client(4000), VipPort(81), Refused),
                at(FromNet, Piece(9, 0), Client(4000), VipPort(81), Refused),
                at(
                    FromNet,
                    Piece(9, 1),
                    Client(4000),
                    VipPort(81),
                    Dropped(DropReason::FragmentWithoutFirst),
                ),
            ],
            rows: 0,
        },
        Case {
            name: "a Service without endpoints refuses under every name",
            given: |node| node.set_backends(0, 0),
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(4000), Vip, Refused),
                at(FromNet, Udp(7), Client(4000), Node, Refused),
                at(FromNet, Tcp(SYN, 0), Client(4000), Balancer, Refused),
                at(FromPod, Udp(7), PodPort(1, 53), Balancer, Refused),
            ],
            rows: 0,
        },
    ]
}

fn shortages() -> Vec<Case> {
    vec![
        Case {
            name: "a full table refuses, and whoever is in it goes on",
            given: |node| {
                node.set_backends(0, 1);
                node.fill_flows();
            },
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(4000), Vip, Refused),
                at(FromNet, Udp(3), Client(4000), Node, Refused),
                at(FromNet, Tcp(TCP_ACK, 9), Client(1), Vip, Stack(Of(Client(1), Pod(3)))),
            ],
            rows: 64,
        },
        Case {
            name: "without a source port a client is refused and never mistaken for another",
            given: |node| {
                node.set_backends(2, 3);
                node.set_config(|config| config.ports = 1);
            },
            steps: vec![
                at(FromNet, Udp(1), Client(4000), Node, Routed(Hidden(Pod(2)))),
                at(FromNet, Udp(1), Client(4001), Node, Refused),
                at(FromNet, Tcp(SYN, 0), Client(4001), Node, Routed(Hidden(Pod(2)))),
            ],
            rows: 4,
        },
        Case {
            name: "ports that a process of the node has are not given away",
            given: |node| {
                node.set_backends(2, 3);
                node.set_config(|config| config.ports = 1);
                node.add_socket(NodePort(20_000));
            },
            steps: vec![at(FromNet, Udp(1), Client(4000), Node, Refused)],
            rows: 0,
        },
    ]
}

fn drops() -> Vec<Case> {
    vec![
        Case {
            name: "an address of the Service network that nobody has is dropped",
            given: |_| {},
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(4000), Unallocated, Dropped(DropReason::UnknownAddress)),
                at(FromPod, Udp(1), PodPort(0, 4000), Unallocated, Dropped(DropReason::UnknownAddress)),
            ],
            rows: 0,
        },
        Case {
            name: "IPv6 addresses that are IPv4 in disguise are dropped",
            given: |_| {},
            steps: vec![
                at(FromNet, UdpMapped, Client(4000), Vip, Dropped(DropReason::MappedAddress)),
                at(FromPod, UdpMapped, Client(4000), Vip, Dropped(DropReason::MappedAddress)),
                at(ToNet, UdpMapped, Client(4000), Vip, Dropped(DropReason::MappedAddress)),
            ],
            rows: 0,
        },
        Case {
            name: "source ranges drop whoever is in none",
            given: |node| {
                node.set_backends(0, 1);
                node.set_frontend(Balancer, FrontendKind::LoadBalancer, Frontend::SOURCE_RANGES);
                node.add_source_range(Client(0), 120);
            },
            steps: vec![
                at(FromNet, Udp(1), Client(4000), Balancer, Delivered(Shown(Pod(0)), 0)),
                at(FromPod, Udp(1), PodPort(1, 4000), Balancer, Dropped(DropReason::SourceRange)),
                at(FromNet, Tcp(SYN, 0), Pod(3), Balancer, Dropped(DropReason::SourceRange)),
            ],
            rows: 2,
        },
        Case {
            name: "policy Local drops clients outside where nothing is here",
            given: |node| {
                node.set_backends(2, 4);
                let flags = Frontend::OUTSIDE_LOCAL | Frontend::CONSISTENT;
                node.set_frontend(Node, FrontendKind::NodePort, flags);
            },
            steps: vec![at(FromNet, Tcp(SYN, 0), Client(4000), Node, Dropped(DropReason::NoLocalEndpoint))],
            rows: 0,
        },
        Case {
            name: "policy Local keeps the client's address",
            given: |node| {
                node.set_backends(1, 4);
                let flags = Frontend::OUTSIDE_LOCAL | Frontend::CONSISTENT;
                node.set_frontend(Node, FrontendKind::NodePort, flags);
            },
            steps: vec![at(FromNet, Tcp(SYN, 0), Client(4000), Node, Delivered(Shown(Pod(1)), 1))],
            rows: 2,
        },
    ]
}

fn at_the_end() -> Vec<Case> {
    vec![
        Case {
            name: "past the stack a packet at the end of its life is answered",
            given: |node| node.set_backends(0, 1),
            steps: vec![
                at(FromNet, Udp(100), Client(4000), Vip, Expired).with_ttl(1),
                at(FromNet, Tcp(SYN, 0), Client(4000), Vip, Expired).with_ttl(1),
                at(FromNet, Udp(100), Client(4000), Vip, Delivered(Shown(Pod(0)), 0)).with_ttl(2),
            ],
            rows: 4,
        },
        Case {
            name: "through the stack that is the stack's to answer",
            given: |node| {
                node.use_stack();
                node.set_backends(0, 1);
            },
            steps: vec![at(FromNet, Udp(100), Client(4000), Vip, Stack(Shown(Pod(0)))).with_ttl(1)],
            rows: 2,
        },
        Case {
            name: "a reset is never answered",
            given: |node| node.set_backends(0, 0),
            steps: vec![at(FromNet, Tcp(SYN | TCP_RST, 0), Client(4000), Vip, Silenced)],
            rows: 0,
        },
    ]
}
