//! How flows live and end.

use weir_ebpf::wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

use crate::packets::case::Becomes::{Delivered, Routed, Untouched};
use crate::packets::case::Ends::{Of, Shown};
use crate::packets::case::Hook::{FromNet, FromPod};
use crate::packets::case::What::{Tcp, Udp};
use crate::packets::case::Who::{Client, Node, Pod, Source, Vip};
use crate::packets::case::{Case, Step, at};

const SYN: u8 = TCP_SYN;
const FIN: u8 = TCP_FIN | TCP_ACK;

pub(super) fn cases() -> Vec<Case> {
    let there = |flags, ends| at(FromNet, Tcp(flags, 0), Client(4000), Vip, Delivered(ends, 0));
    let back = |flags| at(FromPod, Tcp(flags, 0), Pod(0), Source, Routed(Of(Vip, Client(4000))));
    let elsewhere = || at(FromNet, Tcp(SYN, 0), Client(4000), Vip, Delivered(Shown(Pod(1)), 1));
    let other_backend = || Step::Change(|node| node.set_backends(1, 2));
    let again = |name, steps| Case { name, given: |node| node.set_backends(0, 1), steps, rows: 2 };
    vec![
        again(
            "a flow keeps its backend when the set changes",
            vec![
                there(SYN, Shown(Pod(0))),
                other_backend(),
                there(SYN, Of(Source, Pod(0))),
                there(TCP_ACK, Of(Source, Pod(0))),
                back(SYN | TCP_ACK),
            ],
        ),
        again(
            "the port of a connection that both sides closed may be used again at once",
            vec![
                there(SYN, Shown(Pod(0))),
                there(FIN, Of(Source, Pod(0))),
                other_backend(),
                there(SYN, Of(Source, Pod(0))),
                back(FIN),
                elsewhere(),
            ],
        ),
        again(
            "the port of a connection that was reset may be used again at once",
            vec![there(SYN, Shown(Pod(0))), back(TCP_RST), other_backend(), elsewhere()],
        ),
        again(
            "a backend that opens a connection of its own is no reply",
            vec![there(SYN, Shown(Pod(0))), at(FromPod, Tcp(SYN, 0), Pod(0), Source, Untouched)],
        ),
        Case {
            name: "a privileged port is kept where the client is seen, by its first flow",
            given: |node| node.set_backends(0, 1),
            steps: vec![
                at(FromNet, Tcp(SYN, 0), Client(700), Vip, Delivered(Of(Client(700), Pod(0)), 0)),
                at(FromPod, Tcp(SYN | TCP_ACK, 0), Pod(0), Client(700), Routed(Of(Vip, Client(700)))),
                at(FromNet, Tcp(SYN, 0), Client(700), Node, Delivered(Shown(Pod(0)), 0)),
            ],
            rows: 4,
        },
        Case {
            name: "flows of one client under two protocols are two",
            given: |node| node.set_backends(0, 1),
            steps: vec![
                at(FromNet, Udp(4), Client(4000), Node, Delivered(Shown(Pod(0)), 0)),
                at(FromNet, Tcp(SYN, 0), Client(4000), Node, Delivered(Shown(Pod(0)), 0)),
            ],
            rows: 4,
        },
    ]
}
