//! Translation at the socket: once per connection, before its first packet exists.
//!
//! Called by the cgroup hooks, which hand over what the application asked for and carry out what comes back.
//! Both families take the same way; a v4-mapped address is an IPv4 address (see [`crate::abi::Addr`]), so a
//! dual-stack socket needs no case of its own.

use crate::abi::{
    Connection, Counter, DatagramKey, DatagramRow, Direction, DropReason, Frontend, FrontendKey, Peer, Port,
    Protocol, Side,
};
use crate::datapath::select::{contains, select_backend};
use crate::datapath::{Moment, Socket, Tables};

/// What becomes of a `connect` or of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Verdict {
    /// Not for a Service: as the application asked.
    Pass,
    /// To this backend instead.
    Translate(Peer),
    /// Refused or dropped, and why; see [`Errno`].
    Deny(DropReason),
}

/// The error that an application sees where a packet would have been rejected or dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Errno {
    /// `ECONNREFUSED`: a packet would have met a TCP reset or an ICMP port unreachable.
    ConnectionRefused = 111,
    /// `EHOSTUNREACH`: a packet would have been dropped. The application learns at once what it would otherwise
    /// have learned from a timeout, and can tell it from a refusal.
    HostUnreachable = 113,
}

impl From<DropReason> for Errno {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        match reason {
            DropReason::NoEndpoint | DropReason::UnknownPort => Self::ConnectionRefused,
            DropReason::NoLocalEndpoint => Self::HostUnreachable,
        }
    }
}

/// `connect` of a TCP or UDP socket to `dialled`.
#[inline(always)]
pub fn connect(tables: &impl Tables, moment: &impl Moment, socket: &impl Socket, dialled: Peer) -> Verdict {
    let Some(protocol) = socket.protocol() else { return Verdict::Pass };
    // Nothing can be sent there: who connects to it wants to know the route and its source address, as getaddrinfo
    // does, and takes a refusal for the lack of a route.
    if protocol == Protocol::Udp && dialled.port == Port::new(0) {
        return Verdict::Pass;
    }
    let frontend = match lookup_frontend(tables, dialled, protocol) {
        Ok(Some(frontend)) => frontend,
        Ok(None) => return Verdict::Pass,
        Err(reason) => return deny(tables, reason),
    };
    let backend = match select_backend(tables, moment, &frontend, Side::Internal, || socket.client()) {
        Ok(backend) => backend,
        Err(reason) => return deny(tables, reason),
    };
    let row = Connection::new(dialled, backend, protocol, frontend.service);
    if tables.put_connection(socket.cookie(), &row).is_err() {
        tables.count(Counter::ConnectionLost);
    }
    tables.count(match protocol {
        Protocol::Tcp => Counter::TcpConnect,
        Protocol::Udp | Protocol::Sctp => Counter::UdpConnect,
    });
    Verdict::Translate(backend)
}

/// A datagram of a UDP socket to an address that the application spelled out. The socket keeps its backend for as long
/// as that is usable: to the backend, its datagrams are one flow.
#[inline(always)]
pub fn sendmsg(tables: &impl Tables, moment: &impl Moment, socket: &impl Socket, dialled: Peer) -> Verdict {
    let frontend = match lookup_frontend(tables, dialled, Protocol::Udp) {
        Ok(Some(frontend)) => frontend,
        Ok(None) => return Verdict::Pass,
        Err(reason) => return deny(tables, reason),
    };
    let cookie = socket.cookie();
    let forward = DatagramKey::new(cookie, dialled, Direction::Forward);
    let backend = match lookup_kept(tables, &frontend, cookie, dialled, &forward) {
        Some(backend) => backend,
        None => match select_backend(tables, moment, &frontend, Side::Internal, || socket.client()) {
            Ok(backend) => {
                remember(tables, &forward, &DatagramRow::new(backend, frontend.service));
                backend
            }
            Err(reason) => return deny(tables, reason),
        },
    };
    // Missing, or another frontend's: of those that the socket speaks to through this backend, the last one gets the
    // replies.
    let reverse = DatagramKey::new(cookie, backend, Direction::Reverse);
    let row = DatagramRow::new(dialled, frontend.service);
    if tables.lookup_datagram(&reverse) != Some(row) {
        remember(tables, &reverse, &row);
    }
    tables.count(Counter::UdpSend);
    Verdict::Translate(backend)
}

/// The address that an application is to see instead of `peer`: in `recvmsg` the datagram's sender, in
/// `getpeername` the one that the socket is connected to. `None`: `peer` itself.
#[inline(always)]
pub fn reverse(tables: &impl Tables, socket: &impl Socket, peer: Peer) -> Option<Peer> {
    let cookie = socket.cookie();
    let dialled = match tables.lookup_connection(cookie) {
        Some(connection) if connection.backend() == peer => connection.dialled(),
        _ => tables.lookup_datagram(&DatagramKey::new(cookie, peer, Direction::Reverse))?.peer(),
    };
    tables.count(Counter::Reverse);
    Some(dialled)
}

/// The end of a socket of any kind.
#[inline(always)]
pub fn release(tables: &impl Tables, cookie: u64) {
    tables.delete_connection(cookie);
}

/// The frontend at exactly this address and port; none; or the refusal of a Service address' other ports.
#[inline(always)]
fn lookup_frontend(
    tables: &impl Tables,
    dialled: Peer,
    protocol: Protocol,
) -> Result<Option<Frontend>, DropReason> {
    if let Some(frontend) = tables.lookup_frontend(&FrontendKey::new(dialled, protocol)) {
        return Ok(Some(frontend));
    }
    match tables.lookup_frontend(&FrontendKey::whole_address(dialled.addr)) {
        Some(_) => Err(DropReason::UnknownPort),
        None => Ok(None),
    }
}

/// The backend that this socket already has for this frontend, if it is still usable: by a datagram before, or because
/// it is connected to the Service, and hears nobody else.
#[inline(always)]
fn lookup_kept(
    tables: &impl Tables,
    frontend: &Frontend,
    cookie: u64,
    dialled: Peer,
    forward: &DatagramKey,
) -> Option<Peer> {
    let (backend, service) = match tables.lookup_datagram(forward) {
        Some(row) => (row.peer(), row.service),
        None => {
            let connection = tables.lookup_connection(cookie)?;
            if connection.dialled() != dialled {
                return None;
            }
            (connection.backend(), connection.service)
        }
    };
    if service != frontend.service {
        return None;
    }
    let run = tables.lookup_set(frontend.service.set(Side::Internal)).run().ok()?;
    contains(tables, run, &backend).then_some(backend)
}

#[inline(always)]
fn remember(tables: &impl Tables, key: &DatagramKey, row: &DatagramRow) {
    if tables.put_datagram(key, row).is_err() {
        tables.count(Counter::DatagramLost);
    }
}

#[inline(always)]
fn deny(tables: &impl Tables, reason: DropReason) -> Verdict {
    tables.count(reason.into());
    Verdict::Deny(reason)
}
