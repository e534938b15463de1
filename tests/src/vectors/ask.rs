//! Asks the datapath what a socket gets, for every draw of chance.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use weir_ebpf::abi::Protocol;
use weir_ebpf::datapath::Moment;
use weir_ebpf::datapath::socket::{Errno, Verdict, connect, sendmsg};
use weir_ebpf::testing::{FakeSocket, MemoryTables};

/// What clients get. For backends it is all that any of them may get.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// What they dialled.
    Pass,
    /// One of these.
    Backends(BTreeSet<SocketAddr>),
    /// A refusal: a packet would have met a TCP reset or an ICMP error.
    Refuse,
    /// Nothing: a packet would have been dropped.
    Drop,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Backends(backends) => write!(f, "one of {backends:?}"),
            Self::Refuse => f.write_str("refuse"),
            Self::Drop => f.write_str("drop"),
        }
    }
}

/// How many backends of one set can be told apart: the draws are spread evenly, two for each of so many parts.
pub(super) const MOST_BACKENDS: u32 = 1 << 10;

/// What `connect` to this address gives; for UDP `sendmsg` too, which has to give the same.
///
/// A socket of SCTP passes no socket hook (the kernel calls none for it): for those this is what the tables say,
/// which the translation of packets will read in the same way.
pub(super) fn ask(tables: &MemoryTables, protocol: Protocol, dialled: SocketAddr) -> Result<Answer, String> {
    let connected = ask_hook(|moment, socket| connect(tables, moment, socket, dialled.into()), protocol)?;
    if protocol == Protocol::Udp {
        let sent = ask_hook(|moment, socket| sendmsg(tables, moment, socket, dialled.into()), protocol)?;
        if sent != connected {
            return Err(format!("connect gives {connected}, sendmsg {sent}"));
        }
    }
    Ok(connected)
}

fn ask_hook(hook: impl Fn(&Draw, &FakeSocket) -> Verdict, protocol: Protocol) -> Result<Answer, String> {
    let mut answer: Option<Answer> = None;
    for (cookie, draw) in (1..).zip(draws()) {
        // A socket and a client of its own for each draw: neither keeps what another one got.
        let socket = FakeSocket { protocol: Some(protocol), cookie, netns: cookie };
        let this = parse_verdict(hook(&draw, &socket));
        answer = Some(match (answer, this) {
            (Some(Answer::Backends(mut all)), Answer::Backends(one)) => {
                all.extend(one);
                Answer::Backends(all)
            }
            (Some(other), this) if other != this => return Err(format!("at times {other}, at times {this}")),
            (_, this) => this,
        });
    }
    answer.ok_or_else(|| "nothing was drawn".to_owned())
}

fn parse_verdict(verdict: Verdict) -> Answer {
    match verdict {
        Verdict::Pass => Answer::Pass,
        Verdict::Translate(backend) => Answer::Backends([backend.into()].into()),
        Verdict::Deny(reason) => match Errno::from(reason) {
            Errno::ConnectionRefused => Answer::Refuse,
            Errno::HostUnreachable => Answer::Drop,
        },
    }
}

/// One draw, always the same; no time passes.
struct Draw(u32);

impl Moment for Draw {
    fn seconds(&self) -> u32 {
        1
    }

    fn random(&self) -> u32 {
        self.0
    }
}

/// The first and the last number of each part of the range.
fn draws() -> impl Iterator<Item = Draw> {
    let part = u32::MAX / MOST_BACKENDS + 1;
    let ends = (0..MOST_BACKENDS).flat_map(move |n| [n * part, n * part + (part - 1)]);
    ends.map(Draw)
}
