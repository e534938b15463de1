//! A packet socket at a device of the lab: puts frames on it byte by byte, as a process with CAP_NET_RAW may, and sees every
//! frame that reaches it. Used by the tests of what attackers try.

use std::io::{self, ErrorKind};
use std::mem::{MaybeUninit, size_of};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::ifaddrs::getifaddrs;
use nix::libc;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::netns::Netns;

/// Longer than any frame of the lab.
const ROOM: usize = 65_536;
/// Bytes that wait for whoever watches.
const BACKLOG: usize = 8 << 20;

/// A device, from both sides: what is sent leaves by it, what is seen came in by it.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    mac: [u8; 6],
}

impl Wire {
    /// At a device of a namespace.
    ///
    /// # Errors
    /// There is no such device, or the kernel's.
    pub fn open(netns: &Netns, device: &str) -> Result<Self> {
        netns.enter(|| {
            let every = libc::c_int::from(u16::try_from(libc::ETH_P_ALL)?.to_be());
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(every)))?;
            socket.bind(&address(device)?).with_context(|| device.to_owned())?;
            socket.set_recv_buffer_size(BACKLOG)?;
            Ok(Self { socket, mac: mac_of(device)? })
        })
    }

    /// The device's Ethernet address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Puts a frame on the wire as it is.
    ///
    /// # Errors
    /// The kernel's: of a frame that is longer than the device takes, for one.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = self.socket.send(frame).context("sending a frame")?;
        ensure!(sent == frame.len(), "{sent} of {} bytes were sent", frame.len());
        Ok(())
    }

    /// Frames that come in, until one is the last or time is over.
    ///
    /// # Errors
    /// The kernel's.
    pub fn watch(&self, patience: Duration, mut is_last: impl FnMut(&[u8]) -> bool) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut room = vec![MaybeUninit::<u8>::uninit(); ROOM];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.socket.set_read_timeout(Some(left))?;
            let (length, from) = match self.socket.recv_from(&mut room) {
                Ok(received) => received,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(error) => return Err(error).context("receiving a frame"),
            };
            // SAFETY: the kernel has written this many bytes.
            let frame: Vec<u8> = room[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
            if !is_outgoing(&from) && is_last(&frame) {
                return Ok(());
            }
        }
    }
}

/// The device of this thread's namespace, for every protocol.
fn address(device: &str) -> Result<SockAddr> {
    let index = nix::net::if_::if_nametoindex(device).with_context(|| device.to_owned())?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is plain numbers, and fits into the storage.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL)?.to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: an address of that family and that size.
    Ok(unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>().try_into()?) })
}

/// What this device itself sends is shown to its packet sockets, too.
fn is_outgoing(from: &SockAddr) -> bool {
    // SAFETY: an address of a packet socket is a `sockaddr_ll`, which its storage has room for.
    let kind = unsafe { (*from.as_ptr().cast::<libc::sockaddr_ll>()).sll_pkttype };
    kind == libc::PACKET_OUTGOING
}

fn mac_of(device: &str) -> Result<[u8; 6]> {
    let found = getifaddrs().map_err(io::Error::from)?.filter(|one| one.interface_name == device);
    let mut macs = found.filter_map(|one| one.address?.as_link_addr()?.addr());
    macs.next().with_context(|| format!("{device} has no Ethernet address"))
}
