//! Asks the datapath what a socket gets, for every draw of chance.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use weir_ebpf::abi::Protocol;
use weir_ebpf::datapath::socket::{Errno, Verdict, connect, sendmsg};
use weir_ebpf::datapath::{Instant, Moment};
use weir_ebpf::testing::{FakeSocket, MemoryTables};

/// What clients get. For backends it is all that any of them may get.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// What they dialled.
    Pass,
    /// One of these. The value says whether it sees another address than the client's.
    Backends(BTreeMap<SocketAddr, bool>),
    /// A refusal: a TCP reset or an ICMP error.
    Refuse,
    /// Nothing: the packet is dropped.
    Drop,
}

impl Answer {
    /// The same for whom it does not matter what the backends see.
    pub(super) fn outcome(&self) -> (u8, BTreeSet<SocketAddr>) {
        match self {
            Self::Pass => (0, BTreeSet::new()),
            Self::Backends(backends) => (1, backends.keys().copied().collect()),
            Self::Refuse => (2, BTreeSet::new()),
            Self::Drop => (3, BTreeSet::new()),
        }
    }

    /// What one client gets beside what others got. The same backend has to see the same each time, and other outcomes
    /// have to be the same for all.
    pub(super) fn and(self, this: Self) -> Result<Self, String> {
        match (self, this) {
            (Self::Backends(mut all), Self::Backends(one)) => {
                for (backend, hidden) in one {
                    if all.insert(backend, hidden).is_some_and(|before| before != hidden) {
                        return Err(format!("{backend} sees the client's address at times"));
                    }
                }
                Ok(Self::Backends(all))
            }
            (other, this) if other != this => Err(format!("at times {other}, at times {this}")),
            (_, this) => Ok(this),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Backends(backends) => {
                f.write_str("one of")?;
                for (backend, hidden) in backends {
                    write!(f, " {backend}{}", if *hidden { " (masq)" } else { "" })?;
                }
                Ok(())
            }
            Self::Refuse => f.write_str("refuse"),
            Self::Drop => f.write_str("drop"),
        }
    }
}

/// How many backends of one set can be told apart: the draws are spread evenly, two for each of so many parts.
pub(super) const MOST_BACKENDS: u32 = 1 << 6;

/// What `connect` to this address gives a socket of that network namespace; for UDP `sendmsg` too, which has to give the
/// same.
///
/// A socket of SCTP passes no socket hook (the kernel calls none for it): for those this is what the tables say.
pub(super) fn ask(
    tables: &MemoryTables,
    netns: u64,
    protocol: Protocol,
    dialled: SocketAddr,
) -> Result<Answer, String> {
    let socket = FakeSocket { protocol: Some(protocol), cookie: 0, netns, listener: false, in_pod: false };
    let connected =
        ask_hook(|moment, socket| connect(tables, moment, socket, dialled.into()), tables, socket)?;
    if protocol == Protocol::Udp {
        let sent =
            ask_hook(|moment, socket| sendmsg(tables, moment, socket, dialled.into()), tables, socket)?;
        if sent != connected {
            return Err(format!("connect gives {connected}, sendmsg {sent}"));
        }
    }
    Ok(connected)
}

fn ask_hook(
    hook: impl Fn(&Draw, &FakeSocket) -> Verdict,
    tables: &MemoryTables,
    socket: FakeSocket,
) -> Result<Answer, String> {
    let mut answer: Option<Answer> = None;
    for (cookie, draw) in (1..).zip(draws()) {
        forget_clients(tables);
        let this = parse_verdict(hook(&draw, &FakeSocket { cookie, ..socket }));
        answer = Some(match answer {
            Some(answer) => answer.and(this)?,
            None => this,
        });
    }
    answer.ok_or_else(|| "nothing was drawn".to_owned())
}

/// Each draw is a client of its own: none keeps what another one got.
pub(super) fn forget_clients(tables: &MemoryTables) {
    tables.affinity.borrow_mut().clear();
    tables.connections.borrow_mut().clear();
    tables.datagrams.borrow_mut().clear();
    tables.flows.borrow_mut().clear();
}

/// Translated before a packet exists: the backend sees the client's own address.
fn parse_verdict(verdict: Verdict) -> Answer {
    match verdict {
        Verdict::Pass => Answer::Pass,
        Verdict::Translate(backend) => Answer::Backends([(backend.into(), false)].into()),
        Verdict::Deny(reason) => match Errno::from(reason) {
            Errno::ConnectionRefused => Answer::Refuse,
            Errno::HostUnreachable => Answer::Drop,
        },
    }
}

/// One draw, always the same; no time passes.
pub(super) struct Draw(u32);

impl Moment for Draw {
    fn now(&self) -> Instant {
        Instant { ns: 1_000_000_000 }
    }

    fn random(&self) -> u32 {
        self.0
    }
}

/// The first and the last number of each part of the range.
pub(super) fn draws() -> impl Iterator<Item = Draw> {
    let part = u32::MAX / MOST_BACKENDS + 1;
    let ends = (0..MOST_BACKENDS).flat_map(move |n| [n * part, n * part + (part - 1)]);
    ends.map(Draw)
}
