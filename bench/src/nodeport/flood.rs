//! Datagrams without end from the client, and the counting, which is the receiver's alone: what the sender sends says
//! nothing about what arrives.

use std::fs;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::frame::{CONTENT, LENGTH, write_datagram};
use super::plan::{self, Family, SINK_PORT, UPLINK};

/// Datagrams of one system call.
const BATCH: usize = 64;
/// Where clients' ports begin, and how many each has.
const FIRST_PORT: u16 = 1024;
const PORTS: u64 = 60_000;
/// Bytes that wait for the receiver: many times what arrives between two of its looks.
const ROOM: libc::c_int = 64 << 20;
/// Between two looks of the receiver: so it takes its CPU away from the sender as seldom as it can.
const PAUSE: Duration = Duration::from_millis(1);
/// How long the first datagram may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Datagrams to be sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FloodSpec {
    /// In which family.
    pub family: Family,
    /// To node ports; otherwise to the backends themselves.
    pub through_node_port: bool,
    /// How many frontends are dialled in turn; 0: one, by one client, in one flow.
    pub frontends: u32,
    /// Milliseconds of sending.
    pub limit_ms: u64,
}

/// Datagrams to be counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CollectSpec {
    /// Milliseconds from the first one to the beginning of counting.
    pub warm_up_ms: u64,
    /// Milliseconds of counting.
    pub limit_ms: u64,
    /// The CPU that does the node's work.
    pub node_cpu: usize,
}

/// What arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Arrivals {
    /// Datagrams with the right content.
    pub delivered: u64,
    /// Others.
    pub wrong: u64,
    /// Nanoseconds of counting.
    pub elapsed_ns: u64,
    /// Nanoseconds of them in which the node's CPU had nothing to do; in steps of 10 ms. If many, something else than the
    /// node was measured.
    pub idle_ns: u64,
}

/// Sends. Returns how many were sent, which is no result of anything.
///
/// # Errors
/// There is no such device, or the kernel does not take a packet.
pub fn flood(spec: &FloodSpec) -> Result<u64> {
    let device = open_device(UPLINK)?;
    let mut frames = vec![Vec::new(); BATCH];
    let end = Instant::now() + Duration::from_millis(spec.limit_ms);
    let mut number = 0;
    while Instant::now() < end {
        if spec.frontends > 0 || number == 0 {
            for (at, frame) in (number..).zip(&mut frames) {
                frame.clear();
                let (src, dst) = ends(spec, if spec.frontends > 0 { at } else { 0 });
                write_datagram(frame, src, dst)?;
            }
        }
        send(&device, &mut frames)?;
        number += BATCH as u64;
    }
    Ok(number)
}

fn ends(spec: &FloodSpec, number: u64) -> (SocketAddr, SocketAddr) {
    // the real client's ports are left to its sockets
    let client = 1 + u32::try_from(number / PORTS % 250).unwrap_or_default();
    let port = FIRST_PORT + u16::try_from(number % PORTS).unwrap_or_default();
    let src = SocketAddr::new(plan::client(spec.family, client), port);
    (src, plan::dial(spec.family, spec.through_node_port, spec.frontends, number))
}

/// A socket that puts frames on a device as they are, past every queue.
fn open_device(name: &str) -> Result<OwnedFd> {
    // SAFETY: a system call without pointers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(socket >= 0, "a packet socket: {}", io::Error::last_os_error());
    // SAFETY: made above, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
    // SAFETY: numbers, for which zero is a value.
    let mut at: libc::sockaddr_ll = unsafe { zeroed() };
    at.sll_family = libc::AF_PACKET.try_into()?;
    at.sll_ifindex = nix::net::if_::if_nametoindex(name).with_context(|| name.to_owned())?.cast_signed();
    let size = size_of::<libc::sockaddr_ll>().try_into()?;
    // SAFETY: an address of that size.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const at).cast(), size) };
    ensure!(bound == 0, "{name}: {}", io::Error::last_os_error());
    Ok(socket)
}

fn set_option(socket: &impl std::os::fd::AsRawFd, level: i32, option: i32, value: libc::c_int) -> Result<()> {
    let size = size_of::<libc::c_int>().try_into()?;
    // SAFETY: the value lives until the call returns.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    ensure!(done == 0, "socket option {option}: {}", io::Error::last_os_error());
    Ok(())
}

fn send(device: &OwnedFd, frames: &mut [Vec<u8>]) -> Result<()> {
    let mut pieces: Vec<libc::iovec> = frames.iter_mut().map(|frame| piece(frame)).collect();
    let mut messages: Vec<libc::mmsghdr> = pieces.iter_mut().map(message).collect();
    let mut left = messages.as_mut_slice();
    while !left.is_empty() {
        let count = left.len().try_into()?;
        // SAFETY: so many messages, whose pieces live as long as the frames.
        let sent = unsafe { libc::sendmmsg(device.as_raw_fd(), left.as_mut_ptr(), count, 0) };
        if let Ok(sent) = usize::try_from(sent) {
            left = &mut left[sent..];
            continue;
        }
        match io::Error::last_os_error() {
            // the node's queue is full: the first of those left is lost there, as it is meant to be
            error if error.raw_os_error() == Some(libc::ENOBUFS) => left = &mut left[1..],
            error => bail!("sending: {error}"),
        }
    }
    Ok(())
}

fn piece(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn message(piece: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: numbers and pointers, for which zero is a value.
    let mut message: libc::mmsghdr = unsafe { zeroed() };
    message.msg_hdr.msg_iov = piece;
    message.msg_hdr.msg_iovlen = 1;
    message
}

/// Counts what arrives at [`SINK_PORT`], at any address, in either family.
///
/// # Errors
/// The port is taken, or the kernel does not say what its CPUs do. That nothing arrives is a result.
pub fn collect(spec: &CollectSpec) -> Result<Arrivals> {
    let mut sink = Sink::open()?;
    let begun = Instant::now();
    while sink.drain()? == (0, 0) {
        if begun.elapsed() > PATIENCE {
            return Ok(Arrivals::default());
        }
        sleep(PAUSE);
    }
    let start = Instant::now() + Duration::from_millis(spec.warm_up_ms);
    while Instant::now() < start {
        sleep(PAUSE);
        sink.drain()?;
    }
    let (start, idle) = (Instant::now(), idle(spec.node_cpu)?);
    let mut arrivals = Arrivals::default();
    while start.elapsed() < Duration::from_millis(spec.limit_ms) {
        sleep(PAUSE);
        let (right, wrong) = sink.drain()?;
        arrivals.delivered += right;
        arrivals.wrong += wrong;
    }
    arrivals.elapsed_ns = nanos(start.elapsed());
    arrivals.idle_ns = nanos(self::idle(spec.node_cpu)?.saturating_sub(idle));
    Ok(arrivals)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

struct Sink {
    socket: UdpSocket,
    buffers: Vec<[u8; LENGTH + 1]>,
}

impl Sink {
    fn open() -> Result<Self> {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, SINK_PORT))?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, ROOM)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, buffers: vec![[0; LENGTH + 1]; 8 * BATCH] })
    }

    /// How many right and wrong ones were waiting.
    fn drain(&mut self) -> Result<(u64, u64)> {
        let mut pieces: Vec<libc::iovec> = self.buffers.iter_mut().map(|buffer| piece(buffer)).collect();
        let mut messages: Vec<libc::mmsghdr> = pieces.iter_mut().map(message).collect();
        let (mut right, mut wrong) = (0, 0);
        loop {
            let count = messages.len().try_into()?;
            let flags = libc::MSG_DONTWAIT;
            let (socket, first) = (self.socket.as_raw_fd(), messages.as_mut_ptr());
            // SAFETY: so many messages, whose buffers are this sink's.
            let got = unsafe { libc::recvmmsg(socket, first, count, flags, std::ptr::null_mut()) };
            let Ok(got) = usize::try_from(got) else {
                let error = io::Error::last_os_error();
                ensure!(error.kind() == io::ErrorKind::WouldBlock, "receiving: {error}");
                return Ok((right, wrong));
            };
            for (message, buffer) in messages.iter().zip(&self.buffers).take(got) {
                let is_right = message.msg_len as usize == LENGTH && buffer[..LENGTH] == CONTENT;
                *(if is_right { &mut right } else { &mut wrong }) += 1;
            }
        }
    }
}

/// What a CPU had nothing to do since boot.
fn idle(cpu: usize) -> Result<Duration> {
    parse_idle(&fs::read_to_string("/proc/stat")?, cpu).context("/proc/stat")
}

fn parse_idle(stat: &str, cpu: usize) -> Option<Duration> {
    let name = format!("cpu{cpu}");
    let line = stat.lines().find(|line| line.split_whitespace().next() == Some(&name))?;
    let ticks: u64 = line.split_whitespace().nth(4)?.parse().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_datagram_of_new_flows_is_another_ones() {
        let spec = FloodSpec { family: Family::V4, through_node_port: true, frontends: 10, limit_ms: 0 };
        let seen: BTreeSet<_> = (0..200_000).map(|number| ends(&spec, number)).collect();
        assert_eq!(seen.len(), 200_000);
        let dialled: BTreeSet<_> = seen.iter().map(|(_, dst)| dst.port()).collect();
        assert_eq!(dialled, (30_000..30_010).collect());
    }

    #[test]
    fn idle_is_of_one_cpu() {
        let stat = "cpu  1 2 3 40 5\ncpu0 1 1 1 7 1\ncpu1 1 1 1 33 1\n";
        assert_eq!(parse_idle(stat, 1), Some(Duration::from_millis(330)));
        assert_eq!(parse_idle(stat, 2), None);
    }
}
