//! Translation at the socket: once per connection, before its first packet exists.
//!
//! Called by the cgroup hooks, which hand over what the application asked for and carry out what comes back.
//! Both families take the same way; a v4-mapped address is an IPv4 address (see [`crate::abi::Addr`]), so a
//! dual-stack socket needs no case of its own.

use crate::abi::{
    Counter, Direction, DropReason, Frontend, FrontendKey, Peer, Port, Protocol, Side, SocketKey, SocketRow,
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
    let cookie = socket.cookie();
    let row = SocketRow::new(dialled, protocol, true, frontend.service);
    remember(tables, &SocketKey::new(cookie, backend, Direction::Reverse), &row);
    if protocol == Protocol::Tcp {
        tables.count(Counter::TcpConnect);
    } else {
        // A datagram may name the Service again, and the socket hears none but this backend.
        let row = SocketRow::new(backend, protocol, true, frontend.service);
        remember(tables, &SocketKey::new(cookie, dialled, Direction::Forward), &row);
        tables.count(Counter::UdpConnect);
    }
    Verdict::Translate(backend)
}

/// A datagram of an unconnected UDP socket to `dialled`. The socket keeps its backend for as long as that is
/// usable: to the backend, its datagrams are one flow.
#[inline(always)]
pub fn sendmsg(tables: &impl Tables, moment: &impl Moment, socket: &impl Socket, dialled: Peer) -> Verdict {
    let protocol = Protocol::Udp;
    let frontend = match lookup_frontend(tables, dialled, protocol) {
        Ok(Some(frontend)) => frontend,
        Ok(None) => return Verdict::Pass,
        Err(reason) => return deny(tables, reason),
    };
    let forward = SocketKey::new(socket.cookie(), dialled, Direction::Forward);
    let backend = match lookup_kept(tables, &frontend, &forward) {
        Some(backend) => backend,
        None => match select_backend(tables, moment, &frontend, Side::Internal, || socket.client()) {
            Ok(backend) => {
                let row = SocketRow::new(backend, protocol, false, frontend.service);
                remember(tables, &forward, &row);
                backend
            }
            Err(reason) => return deny(tables, reason),
        },
    };
    remember_reverse(tables, socket.cookie(), backend, dialled, &frontend);
    tables.count(Counter::UdpSend);
    Verdict::Translate(backend)
}

/// The address that an application is to see instead of `peer`: in `recvmsg` the datagram's sender, in
/// `getpeername` the one that the socket is connected to. `None`: `peer` itself.
#[inline(always)]
pub fn reverse(tables: &impl Tables, socket: &impl Socket, peer: Peer) -> Option<Peer> {
    let row = tables.lookup_socket(&SocketKey::new(socket.cookie(), peer, Direction::Reverse))?;
    tables.count(Counter::Reverse);
    Some(row.peer())
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

/// The backend that this socket already has for this frontend, if it is still usable.
#[inline(always)]
fn lookup_kept(tables: &impl Tables, frontend: &Frontend, forward: &SocketKey) -> Option<Peer> {
    let row = tables.lookup_socket(forward)?;
    if row.service != frontend.service {
        return None;
    }
    let run = tables.lookup_set(frontend.service.set(Side::Internal)).run().ok()?;
    contains(tables, run, &row.peer()).then_some(row.peer())
}

/// Writes the reverse row of a datagram where it is missing or another frontend's: the last one that the socket
/// spoke to through this backend gets the replies.
#[inline(always)]
fn remember_reverse(tables: &impl Tables, cookie: u64, backend: Peer, dialled: Peer, frontend: &Frontend) {
    let key = SocketKey::new(cookie, backend, Direction::Reverse);
    // Also one that connect wrote: the socket is still to be told when the backend goes.
    let known = |row: SocketRow| row.peer() == dialled && row.service == frontend.service;
    if !tables.lookup_socket(&key).is_some_and(known) {
        remember(tables, &key, &SocketRow::new(dialled, Protocol::Udp, false, frontend.service));
    }
}

#[inline(always)]
fn remember(tables: &impl Tables, key: &SocketKey, row: &SocketRow) {
    if tables.put_socket(key, row).is_err() {
        tables.count(Counter::SocketRowLost);
    }
}

#[inline(always)]
fn deny(tables: &impl Tables, reason: DropReason) -> Verdict {
    tables.count(reason.into());
    Verdict::Deny(reason)
}
