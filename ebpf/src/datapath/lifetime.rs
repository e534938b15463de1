//! How long a flow is kept after its last packet.
//!
//! Called by the sweeper in user space, which removes flows, and by the per-packet path, which lets a client use the port
//! of a connection that is over at once. The times are those of kube-proxy's and netfilter's defaults, where these have
//! proved themselves (`--conntrack-tcp-timeout-established`, `-close-wait`; nf_conntrack_proto_udp.c).

use crate::abi::{Flow, Protocol, Signs};

/// A TCP connection that is established.
const TCP_ESTABLISHED_S: u32 = 86_400;
/// A TCP connection that one side has closed.
const TCP_HALF_CLOSED_S: u32 = 3_600;
/// A TCP connection that both sides have closed: as long as its last segment may be sent again. Whatever comes later the
/// node's stack answers, or the client itself does.
const TCP_CLOSED_S: u32 = 20;
/// A TCP connection that was reset.
const TCP_RESET_S: u32 = 10;
/// A TCP connection that is not established: the backend has not been heard, or the client not after it. A SYN, which anybody
/// can send under any address, and its answer are no reason to remember anything for a day.
const TCP_OPENING_S: u32 = 120;
/// Datagrams one way, or a question and its answer.
const UDP_S: u32 = 30;
/// Datagrams both ways for longer than a question and its answer take.
const UDP_STREAM_S: u32 = 180;
/// How long that is, as netfilter has it.
const UDP_ANSWER_S: u32 = 2;
/// SCTP, whose associations send heartbeats every 30 seconds (RFC 9260 section 16).
const SCTP_S: u32 = 210;

/// Seconds after the last packet of either direction until a flow is forgotten, by what was seen from the client and from
/// the backend, and by how many seconds lay between the first packet and the last.
#[must_use]
pub const fn lifetime_s(protocol: Protocol, client: Signs, backend: Signs, lasted_s: u32) -> u32 {
    let answered = is_answered(protocol, client, backend);
    match protocol {
        Protocol::Tcp if client.contains(Signs::RST) || backend.contains(Signs::RST) => TCP_RESET_S,
        Protocol::Tcp if !answered => TCP_OPENING_S,
        Protocol::Tcp => match (client.contains(Signs::FIN), backend.contains(Signs::FIN)) {
            (true, true) => TCP_CLOSED_S,
            (false, false) => TCP_ESTABLISHED_S,
            _ => TCP_HALF_CLOSED_S,
        },
        Protocol::Udp if answered && lasted_s > UDP_ANSWER_S => UDP_STREAM_S,
        Protocol::Udp => UDP_S,
        Protocol::Sctp => SCTP_S,
    }
}

/// The same while the table is nearly full: what nobody answered gives way, as what netfilter calls unassured does.
#[must_use]
pub const fn lifetime_in_need_s(protocol: Protocol, client: Signs, backend: Signs, lasted_s: u32) -> u32 {
    let lifetime_s = lifetime_s(protocol, client, backend, lasted_s);
    if is_answered(protocol, client, backend) || lifetime_s < IN_NEED_S { lifetime_s } else { IN_NEED_S }
}

/// Whether the backend was heard; of TCP also the client, when it had heard the backend.
const fn is_answered(protocol: Protocol, client: Signs, backend: Signs) -> bool {
    let client_answered = !matches!(protocol, Protocol::Tcp) || client.contains(Signs::ACK);
    backend.contains(Signs::SEEN) && client_answered
}

/// A flow that was not answered, while the table is nearly full: longer than a SYN takes to be sent again, twice.
const IN_NEED_S: u32 = 10;

/// Whether a connection is over, so that a segment that opens one under the same tuple is a new one's: reset, closed by
/// both sides, or half forgotten. `client` and `backend` are the rows in which the two directions are noted.
#[inline(always)]
#[must_use]
pub fn is_over(client: &Flow, backend: Option<&Flow>) -> bool {
    let Some(backend) = backend else { return true };
    client.signs.contains(Signs::RST)
        || backend.signs.contains(Signs::RST)
        || (client.signs.contains(Signs::FIN) && backend.signs.contains(Signs::FIN))
}
