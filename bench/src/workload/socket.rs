//! Sockets with a bound on every call, also on `connect`.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::socket::sockopt::{Linger, ReceiveTimeout, SendTimeout};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket as open_socket,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// How long one step may take. Longer than a measurement, so that a measurement never counts after one that failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

fn open(to: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = open_socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    let patience = TimeVal::seconds(PATIENCE.as_secs().cast_signed());
    setsockopt(&socket, ReceiveTimeout, &patience)?;
    setsockopt(&socket, SendTimeout, &patience)?;
    Ok(socket)
}

/// A TCP connection that leaves no `TIME_WAIT` when it is closed.
pub(super) fn connect_tcp(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = open(to, SockType::Stream)?;
    setsockopt(&socket, Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(socket.into())
}

/// A connected UDP socket.
pub(super) fn connect_udp(to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(to, SockType::Datagram)?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(socket.into())
}
