//! What the client does to the server. Both subjects of a pair are measured by this code with the same socket
//! options; they differ in the address that is dialled and in nothing else.
//!
//! No port is used up: a client that is done with a connection closes it with `SO_LINGER` 0 after the server has
//! closed its end, which leaves `TIME_WAIT` on neither side.

mod client;
mod server;
mod socket;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use client::measure;
pub use server::serve;

/// A kind of traffic.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// TCP: connect, a request of 16 bytes, its reply, close.
    Connect,
    /// TCP: 64 bytes there and back, on connections that were made before.
    Established,
    /// TCP: as many bytes as the receiver gets, on connections that were made before.
    Stream,
    /// UDP: a new socket, connect, a query of 32 bytes, its answer, close.
    UdpConnect,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Established, Self::Stream, Self::UdpConnect];

    /// The name in figures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Established => "established",
            Self::Stream => "stream",
            Self::UdpConnect => "udp-connect",
        }
    }

    /// The port at which the server does its part of it.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Connect => 7001,
            Self::Established => 7002,
            Self::Stream => 7003,
            Self::UdpConnect => 7004,
        }
    }

    /// How many clients there are at a time. Streams are few: they are to fill a CPU, not to fight for it.
    #[must_use]
    pub fn workers(self) -> u32 {
        match self {
            Self::Stream => 2,
            _ => 8,
        }
    }

    /// Whether the part that can depend on the number of Services is measured at all: a connection that exists
    /// is an ordinary one.
    #[must_use]
    pub fn sets_up(self) -> bool {
        matches!(self, Self::Connect | Self::UdpConnect)
    }

    /// Service traffic divided by direct traffic is to be at least this.
    #[must_use]
    pub fn target(self) -> f64 {
        if self.sets_up() { 0.95 } else { 0.99 }
    }

    /// What is counted.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Stream => "bytes/s",
            _ => "replies/s",
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One measurement to be made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Of what.
    pub workload: Workload,
    /// What is dialled.
    pub to: SocketAddr,
    /// How many clients at a time.
    pub workers: u32,
    /// Milliseconds before counting begins.
    pub warm_up_ms: u64,
    /// Milliseconds of counting.
    pub limit_ms: u64,
    /// Counting ends earlier when so many replies were counted. Streams have no replies.
    pub limit_count: u64,
    /// The server's process, to see what it used of its CPU.
    pub server_pid: u32,
}

/// What was measured.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Verified replies, or bytes that the receiver has.
    pub delivered: u64,
    /// Attempts without a right reply, warm-up included.
    pub failed: u64,
    /// The first of them, in words.
    pub failure: Option<String>,
    /// Nanoseconds in which that was delivered.
    pub elapsed_ns: u64,
    /// What the client's process used of its CPU meanwhile; most of the kernel's work for both sides is in it.
    pub client_cpu_ns: u64,
    /// What the server's process used of its CPU meanwhile.
    pub server_cpu_ns: u64,
    /// What everything else on the machine used of all CPUs meanwhile; in steps of 10 ms.
    pub other_cpu_ns: u64,
}

impl Sample {
    /// Deliveries in a second. A subject that delivers nothing has 0, however busy it is.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn rate(&self) -> f64 {
        if self.elapsed_ns == 0 {
            return 0.0;
        }
        self.delivered as f64 * 1e9 / self.elapsed_ns as f64
    }
}
