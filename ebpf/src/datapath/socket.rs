//! Translation at the socket: once per connection, before its first packet exists.
//!
//! Called by the cgroup hooks, which hand over what the application asked for and carry out what comes back.
//! Both families take the same way; a v4-mapped address is an IPv4 address (see [`crate::abi::Addr`]), so a
//! dual-stack socket needs no case of its own.

use crate::abi::{
    Addr, AddressUses, Backend, Client, Config, Connection, Counter, DatagramKey, DatagramRow, Direction,
    DropReason, Frontend, FrontendKey, FrontendKind, Netns, Origin, Peer, Port, Protocol, SourceRangeKey,
};
use crate::datapath::select::{Choice, lookup_in_run, select_backend};
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
        if reason.is_refusal() { Self::ConnectionRefused } else { Self::HostUnreachable }
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
    if is_held(tables, socket, dialled) {
        return deny(tables, DropReason::UnknownPod);
    }
    let frontend = match lookup_dialled(tables, socket, dialled, protocol) {
        Ok(Some(frontend)) => frontend,
        Ok(None) => return Verdict::Pass,
        Err(reason) => return deny(tables, reason),
    };
    let backend = match select(tables, moment, socket, dialled, &frontend) {
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
    if is_held(tables, socket, dialled) {
        return deny(tables, DropReason::UnknownPod);
    }
    let frontend = match lookup_dialled(tables, socket, dialled, Protocol::Udp) {
        Ok(Some(frontend)) => frontend,
        Ok(None) => return Verdict::Pass,
        Err(reason) => return deny(tables, reason),
    };
    let cookie = socket.cookie();
    let forward = DatagramKey::new(cookie, dialled, Direction::Forward);
    let backend = match lookup_kept(tables, &frontend, cookie, dialled, &forward) {
        Some(backend) => backend,
        None => match select(tables, moment, socket, dialled, &frontend) {
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

/// Whether the socket is of a pod that nobody knows yet, as when it was made while no agent runs: there are no programs at its
/// device. Of other namespaces than pods' not all are known, and none is held; nor is one that a pod
/// made within itself (Docker in a pod): its packets pass the pod's device. What stays within the namespace is nobody's
/// business.
#[inline(always)]
fn is_held(tables: &impl Tables, socket: &impl Socket, dialled: Peer) -> bool {
    tables.config().flags & Config::HOLD_STRANGERS != 0
        && !is_loopback(dialled.addr)
        && netns(tables, socket).is_none()
        && socket.is_in_unseen_pod()
}

/// 127.0.0.0/8, ::1
#[inline(always)]
fn is_loopback(addr: Addr) -> bool {
    let [first, second, third, last] = addr.words();
    if addr.is_v4() {
        u32::from_be(last) >> 24 == 127
    } else {
        (first, second, third, last) == (0, 0, 0, 1_u32.to_be())
    }
}

/// What a socket that dials this gets: a frontend; nothing of ours; or a refusal.
#[inline(always)]
fn lookup_dialled(
    tables: &impl Tables,
    socket: &impl Socket,
    dialled: Peer,
    protocol: Protocol,
) -> Result<Option<Frontend>, DropReason> {
    let found = match tables.lookup_frontend(&FrontendKey::new(dialled, protocol)) {
        // Nobody dials the unspecified address but to mean this host: node ports stand under it.
        Some(frontend) if frontend.kind() == Some(FrontendKind::NodePort) => {
            is_host(tables, socket).then_some(frontend)
        }
        Some(frontend) if frontend.has(Frontend::NODE_ADDRESS) => {
            lookup_shared(tables, socket, dialled, protocol, frontend)
        }
        Some(frontend) => Some(frontend),
        None => lookup_whole(tables, socket, dialled, protocol)?,
    };
    let Some(frontend) = found else { return Ok(None) };
    // Who the client is can be seen from its packets where it is not known from its namespace (yet).
    if frontend.has(Frontend::SOURCE_RANGES) && netns(tables, socket).is_none() {
        return Ok(None);
    }
    if tables.config().flags & Config::SOME_WITHOUT_SOCKETS != 0
        && netns(tables, socket).is_some_and(|netns| netns.flags & Netns::NO_SOCKET_TRANSLATION != 0)
    {
        return Ok(None);
    }
    Ok(Some(frontend))
}

/// A frontend at an address that is the node's own as well. For a socket of the node what listens there comes first;
/// a pod's packets meet the per-packet path, which can ask the node.
#[inline(always)]
fn lookup_shared(
    tables: &impl Tables,
    socket: &impl Socket,
    dialled: Peer,
    protocol: Protocol,
    frontend: Frontend,
) -> Option<Frontend> {
    (is_host(tables, socket) && !socket.listens(protocol, dialled)).then_some(frontend)
}

/// What an address without a frontend at this port is: a node's, with node ports; a Service's, whose other ports are
/// refused; or none of ours.
#[inline(always)]
fn lookup_whole(
    tables: &impl Tables,
    socket: &impl Socket,
    dialled: Peer,
    protocol: Protocol,
) -> Result<Option<Frontend>, DropReason> {
    let Some(row) = tables.lookup_frontend(&FrontendKey::whole_address(dialled.addr)) else {
        return if is_unallocated(tables, dialled.addr) { Err(DropReason::UnknownAddress) } else { Ok(None) };
    };
    let uses = row.uses();
    if uses.contains(AddressUses::NODE_PORTS)
        && (!uses.contains(AddressUses::LOOPBACK) || is_host(tables, socket))
    {
        let node_port = Peer { addr: dialled.addr.unspecified(), port: dialled.port };
        if let Some(frontend) = tables.lookup_frontend(&FrontendKey::new(node_port, protocol)) {
            return Ok(Some(frontend));
        }
    }
    if uses.contains(AddressUses::CLUSTER_IP) && !uses.contains(AddressUses::NODE) {
        return Err(DropReason::UnknownPort);
    }
    Ok(None)
}

/// Whether the address is in a network of ClusterIPs. Asked only of addresses that no Service has.
#[inline(always)]
pub(super) fn is_unallocated(tables: &impl Tables, addr: Addr) -> bool {
    let [a, b, c, d] = &tables.config().service_networks;
    a.contains(addr) || b.contains(addr) || c.contains(addr) || d.contains(addr)
}

/// A backend for a socket that dialled this frontend.
#[inline(always)]
fn select(
    tables: &impl Tables,
    moment: &impl Moment,
    socket: &impl Socket,
    dialled: Peer,
    frontend: &Frontend,
) -> Result<Peer, DropReason> {
    if frontend.has(Frontend::SOURCE_RANGES) {
        let client = netns(tables, socket).map_or(Addr::default(), |netns| netns.address_like(dialled.addr));
        if !tables.lookup_source_range(&SourceRangeKey::client(frontend.service, client)) {
            return Err(DropReason::SourceRange);
        }
    }
    let client = || client(tables, socket, dialled);
    let backend = select_backend(tables, moment, frontend, Origin::Inside, Choice::Any, client)?;
    Ok(backend.peer())
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
    let run = tables.lookup_set(frontend.service.set(frontend.scope(Origin::Inside))).run().ok()?;
    lookup_in_run(tables, run, &Backend::new(backend, 0)).map(|_| backend)
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

/// Who the socket is to session affinity: its pod's (or node's) address, as on the per-packet path.
#[inline(always)]
fn client(tables: &impl Tables, socket: &impl Socket, dialled: Peer) -> Client {
    match netns(tables, socket).map(|netns| netns.address_like(dialled.addr)) {
        Some(addr) if addr != Addr::default() => Client::from_addr(addr),
        _ => Client::from_netns(socket.netns()),
    }
}

#[inline(always)]
fn netns(tables: &impl Tables, socket: &impl Socket) -> Option<Netns> {
    tables.lookup_netns(socket.netns())
}

/// Whether it is a socket of the node itself.
#[inline(always)]
fn is_host(tables: &impl Tables, socket: &impl Socket) -> bool {
    netns(tables, socket).is_some_and(|netns| netns.flags & Netns::HOST != 0)
}
