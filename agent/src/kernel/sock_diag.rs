//! Sockets of one network namespace, by `NETLINK_SOCK_DIAG`: listing and destroying them.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagDestroy, SockDiagMessage};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use weir_ebpf::abi::{Peer, Protocol};

use crate::network::channel::Channel;

/// A socket as the kernel names it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    family: u8,
    protocol: u8,
    id: SocketId,
}

impl Found {
    /// `SO_COOKIE`
    pub(super) fn cookie(&self) -> u64 {
        u64::from_ne_bytes(self.id.cookie)
    }

    /// Whom it is connected to.
    pub(super) fn peer(&self) -> Peer {
        std::net::SocketAddr::new(self.id.destination_address, self.id.destination_port).into()
    }
}

/// The channel to the kernel; it belongs to the network namespace in which it was made.
pub(super) struct SockDiag {
    channel: Channel,
}

impl SockDiag {
    /// In the thread's network namespace.
    pub(super) fn open() -> anyhow::Result<Self> {
        Ok(Self { channel: Channel::open(NETLINK_SOCK_DIAG)? })
    }

    /// All sockets of a protocol that have a peer, of both families; a v4-mapped one is of family IPv6.
    pub(super) fn connected(&self, protocol: Protocol) -> anyhow::Result<Vec<Found>> {
        let protocol = match protocol {
            Protocol::Tcp => IPPROTO_TCP,
            Protocol::Udp => IPPROTO_UDP,
            Protocol::Sctp => return Ok(Vec::new()),
        };
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let states = StateFlags::ESTABLISHED
                | StateFlags::SYN_SENT
                | StateFlags::FIN_WAIT1
                | StateFlags::FIN_WAIT2
                | StateFlags::CLOSE_WAIT
                | StateFlags::LAST_ACK
                | StateFlags::CLOSING;
            let id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
            let request = request(family, protocol, states, id);
            let message = SockDiagMessage::InetRequest(request);
            // A socket that comes or goes while they are listed is no reason to begin again.
            let _answered = self.channel.ask(message, NLM_F_REQUEST | NLM_F_DUMP, |answer| {
                if let SockDiagMessage::InetResponse(socket) = answer {
                    found.push(Found { family, protocol, id: socket.header.socket_id });
                }
            })?;
        }
        Ok(found)
    }

    /// Ends a socket: its owner gets ECONNABORTED, and a TCP peer a reset. `false` where it is gone already.
    pub(super) fn destroy(&self, socket: &Found) -> anyhow::Result<bool> {
        let request = request(socket.family, socket.protocol, StateFlags::all(), socket.id.clone());
        let message = SockDiagDestroy::new(SockDiagMessage::InetRequest(request));
        match self.channel.ask(message, NLM_F_REQUEST | NLM_F_ACK, |_: SockDiagMessage| {}) {
            Ok(_) => Ok(true),
            Err(error) if error.downcast_ref::<io::Error>().is_some_and(is_gone) => Ok(false),
            Err(error) => {
                Err(error
                    .context("destroying a socket (it needs CAP_NET_ADMIN and CONFIG_INET_DIAG_DESTROY)"))
            }
        }
    }
}

fn request(family: u8, protocol: u8, states: StateFlags, socket_id: SocketId) -> InetRequest {
    InetRequest { family, protocol, extensions: ExtensionFlags::empty(), states, socket_id }
}

fn is_gone(error: &io::Error) -> bool {
    // ENOENT: no such socket; ESTALE: the address is another socket's by now.
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE))
}
