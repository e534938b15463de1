//! What a prober is asked and what it answers: one JSON object per line.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A command and the number under which it will be answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// Chosen by who asks, never twice.
    pub id: u64,
    /// What to do.
    pub command: Command,
}

/// The answer to a request. Answers may come in another order than the requests.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    /// The request's number.
    pub id: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// How an application uses its socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// TCP
    Tcp,
    /// UDP with `connect`.
    UdpConnected,
    /// UDP with `sendto` and `recvfrom`.
    UdpUnconnected,
}

impl How {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::UdpConnected, Self::UdpUnconnected];
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::UdpConnected => "UDP, connected",
            Self::UdpUnconnected => "UDP, unconnected",
        })
    }
}

/// What to do. The family of a socket is that of the address: `::ffff:a.b.c.d` is dialled on an `AF_INET6`
/// socket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Command {
    /// Serve TCP and UDP at each of these, until the end. Answers `Done`.
    Serve {
        /// Who it is that answers.
        name: String,
        /// Where.
        at: Vec<SocketAddr>,
    },
    /// Connect and close. Answers `Done` or `Failed`.
    Connect {
        /// On what socket.
        how: How,
        /// To what.
        to: SocketAddr,
    },
    /// One question and its answer on a new socket. Answers `Answered` or `Failed`.
    Ask {
        /// On what socket.
        how: How,
        /// To what.
        to: SocketAddr,
    },
    /// A new socket that stays open; connected to `to` unless it is an unconnected one. Answers `Done` or
    /// `Failed`.
    Open {
        /// Its number from now on.
        socket: u64,
        /// What socket.
        how: How,
        /// To what; for an unconnected socket only the family matters.
        to: SocketAddr,
    },
    /// As `Open`, from a port of the client's choice; several sockets may have one port.
    OpenFrom {
        /// Its number from now on.
        socket: u64,
        /// What socket.
        how: How,
        /// To what.
        to: SocketAddr,
        /// Its own port.
        port: u16,
    },
    /// One question and its answer, both with so many bytes more, on an open socket. Answers `Answered` or `Failed`.
    ExchangeLong {
        /// Which.
        socket: u64,
        /// To what; only an unconnected socket asks.
        to: SocketAddr,
        /// Bytes.
        padding: usize,
    },
    /// One question and its answer on an open socket. Answers `Answered` or `Failed`.
    Exchange {
        /// Which.
        socket: u64,
        /// To what; only an unconnected socket asks.
        to: SocketAddr,
    },
    /// An ICMP echo, and its reply. Answers `Done` or `Failed`.
    Echo {
        /// To what.
        to: IpAddr,
    },
    /// `SO_ERROR` of an open socket, without sending anything. Answers `Done` or `Failed`.
    TakeError {
        /// Which.
        socket: u64,
    },
    /// Closes an open socket. Answers `Done`.
    Close {
        /// Which.
        socket: u64,
    },
    /// Many questions, each on a new socket. Answers `Counted`.
    Bulk(BulkSpec),
    /// Ends a bulk command early, which then answers what it has. Answers `Done`.
    Stop {
        /// The number of the bulk's request.
        bulk: u64,
    },
}

/// Many questions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BulkSpec {
    /// On what sockets.
    pub how: How,
    /// To what.
    pub to: SocketAddr,
    /// How many; as many as there is time for if `None`.
    pub count: Option<u64>,
    /// How many at a time.
    pub workers: u32,
    /// Milliseconds after which no new question is asked.
    pub limit_ms: u64,
    /// Microseconds that each worker rests after each question.
    pub pause_us: u64,
}

/// What came of a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// It is done; there is nothing more to tell.
    Done,
    /// Somebody answered.
    Answered(Answer),
    /// A system call failed, or the answer did not come.
    Failed(Failure),
    /// What came of many questions.
    Counted(BulkReport),
}

/// An answer whose nonce is the question's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Who answered.
    pub server: String,
    /// The client's address as the server saw it.
    pub client: SocketAddr,
    /// The address at which the server was reached.
    pub reached: SocketAddr,
    /// `getpeername`; `None` on an unconnected socket.
    pub peer: Option<SocketAddr>,
    /// The source that `recvfrom` told; `None` for TCP.
    pub from: Option<SocketAddr>,
    /// Microseconds from the first system call to the answer.
    pub elapsed_us: u64,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The errno's name, or in words what was wrong with the answer.
    pub error: String,
    /// What failed: `connect`, `send`, `receive`.
    pub at: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.error, self.at)
    }
}

/// What came of many questions.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BulkReport {
    /// Questions that were answered, with the right nonce.
    pub delivered: u64,
    /// Who answered how many.
    pub servers: BTreeMap<String, u64>,
    /// The others, by what went wrong.
    pub failures: Vec<Failures>,
    /// Microseconds from the first question to the last answer.
    pub elapsed_us: u64,
}

/// Failures of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failures {
    /// What went wrong.
    pub failure: Failure,
    /// How often.
    pub count: u64,
    /// When first: microseconds since the command began.
    pub first_us: u64,
}

impl BulkReport {
    /// How many questions were not answered.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.iter().map(|kind| kind.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_its_line() {
        let to = "[::ffff:10.96.0.1]:80".parse().unwrap();
        let bulk = BulkSpec { how: How::Tcp, to, count: None, workers: 2, limit_ms: 5, pause_us: 0 };
        for command in [Command::Bulk(bulk), Command::Exchange { socket: 3, to }] {
            let request = Request { id: 7, command };
            let line = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request, "{line}");
        }
    }
}
