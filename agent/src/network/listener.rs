//! The kernel's announcements, of this network namespace and of those that it has numbers for.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use anyhow::Context as _;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};

use super::channel::{BUFFER, packets};
use super::mirror::{Change, Nsid};
use super::parse::parse;

/// include/uapi/linux/rtnetlink.h: devices, addresses and routes of both families, numbers of namespaces.
const GROUPS: [u32; 6] = [1, 5, 7, 9, 11, 28];

/// Room for some thousand announcements: a node that starts a hundred pods at once loses none.
const ROOM: usize = 4 << 20;

/// What was announced, and by which namespace if not by this one.
#[derive(Debug)]
pub(super) enum Heard {
    /// In the order in which it happened.
    Changes(Option<Nsid>, Vec<Change>),
    /// More than there was room for: something is missing.
    Lost,
    /// Nothing for now.
    Nothing,
}

/// Who listens.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Listener {
    /// In the thread's network namespace.
    pub(super) fn open() -> anyhow::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).context("opening a netlink socket")?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        // Beyond the limit of ordinary sockets, which is too small for a large node.
        if setsockopt(&socket, sockopt::RcvBufForce, &ROOM).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &ROOM)?;
        }
        socket
            .set_listen_all_namespaces(true)
            .context("listening to the namespaces of pods (it needs CAP_NET_BROADCAST)")?;
        for group in GROUPS {
            socket.add_membership(group).context("listening to the kernel's announcements")?;
        }
        Ok(Self { socket, buffer: vec![0; BUFFER] })
    }

    /// What was announced and not heard yet, a datagram at a time. Never waits.
    pub(super) fn hear(&mut self) -> anyhow::Result<Heard> {
        let mut control = nix::cmsg_space!(libc::c_int);
        let mut pieces = [IoSliceMut::new(&mut self.buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = recvmsg::<()>(self.socket.as_raw_fd(), &mut pieces, Some(&mut control), flags);
        let (size, nsid) = match received {
            Ok(message) => {
                if message.flags.contains(MsgFlags::MSG_TRUNC) {
                    return Ok(Heard::Lost);
                }
                (message.bytes, message.cmsgs()?.find_map(|control| number(&control)))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Heard::Nothing),
            Err(Errno::ENOBUFS) => return Ok(Heard::Lost),
            Err(error) => return Err(io::Error::from(error)).context("listening to the kernel"),
        };
        let mut changes = Vec::new();
        for packet in packets(self.buffer.get(..size).unwrap_or_default()) {
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(packet).map(|packet| packet.payload) {
                Ok(NetlinkPayload::InnerMessage(message)) => changes.extend(parse(&message)),
                Ok(_) => {}
                Err(error) => tracing::warn!("an announcement of the kernel cannot be read: {error}"),
            }
        }
        Ok(Heard::Changes(nsid, changes))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The namespace that an announcement is of; this one's have none.
fn number(control: &ControlMessageOwned) -> Option<Nsid> {
    let ControlMessageOwned::Unknown(unknown) = control else { return None };
    let header = unknown.cmsg_header;
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID) {
        return None;
    }
    unknown.data_bytes.get(..4)?.try_into().ok().map(Nsid::from_ne_bytes)
}
