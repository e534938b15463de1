//! Asks the kernel what a socket of this thread gets.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::stat::fstat;
use socket2::{Domain, Socket, Type};
use weir_agent::source::Protocol;

use super::ask::Answer;

/// What `connect` to this address gives: not as the socket is told (`getpeername` is translated back), but as the kernel
/// lists it. A backend sees the client's own address: there is nothing that could hide it.
///
/// # Errors
/// Something that no hook and no Service is to blame for.
pub(super) fn ask_socket(protocol: Protocol, dialled: SocketAddr) -> Result<Result<Answer, String>> {
    let (kind, list) = match protocol {
        Protocol::Tcp => (Type::STREAM, "tcp"),
        Protocol::Udp => (Type::DGRAM, "udp"),
        // No flow may seem to have passed that way.
        Protocol::Sctp => return Ok(Err("sockets of SCTP pass no hook".to_owned())),
    };
    let socket = Socket::new(Domain::for_address(dialled), kind, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&dialled.into()) {
        Ok(()) => {}
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EINPROGRESS) => {}
            Some(Errno::ECONNREFUSED) => return Ok(Ok(Answer::Refuse)),
            Some(Errno::EHOSTUNREACH) => return Ok(Ok(Answer::Drop)),
            _ => return Ok(Err(format!("connect to {dialled}: {error}"))),
        },
    }
    let list = if dialled.is_ipv4() { list.to_owned() } else { format!("{list}6") };
    let remote = lookup_remote(&list, &socket)?;
    if remote == dialled {
        return Ok(Ok(Answer::Pass));
    }
    Ok(Ok(Answer::Backends([(remote, false)].into())))
}

/// Whom the socket speaks to, from `/proc/net` of this thread.
fn lookup_remote(list: &str, socket: &Socket) -> Result<SocketAddr> {
    let inode = fstat(socket)?.st_ino.to_string();
    let path = format!("/proc/thread-self/net/{list}");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let mut lines = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(9) == Some(&inode.as_str()));
    let line = line.with_context(|| format!("{path} has no socket {}", socket.as_raw_fd()))?;
    parse_remote(line[2])
}

/// `0100007F:0050`: words as they lie in memory, the port in host order.
fn parse_remote(field: &str) -> Result<SocketAddr> {
    let (addr, port) = field.split_once(':').context("no port")?;
    let mut bytes = Vec::new();
    for at in (0..addr.len()).step_by(8) {
        let word = addr.get(at..at + 8).context("no whole word")?;
        bytes.extend(u32::from_str_radix(word, 16)?.to_ne_bytes());
    }
    let port = u16::from_str_radix(port, 16)?;
    ensure!(matches!(bytes.len(), 4 | 16), "{field}");
    Ok(match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => (v4, port).into(),
        Err(_) => (<[u8; 16]>::try_from(bytes.as_slice()).map_err(io::Error::other)?, port).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let read = |field| parse_remote(field).unwrap();
        assert_eq!(read("0100007F:0050"), "127.0.0.1:80".parse().unwrap());
        assert_eq!(read("B80D0120000000000000000001000000:1F90"), "[2001:db8::1]:8080".parse().unwrap());
    }
}
