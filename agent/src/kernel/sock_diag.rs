//! Sockets of one network namespace, by `NETLINK_SOCK_DIAG`: listing and destroying them.

use std::io;

use anyhow::{Context as _, bail};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagDestroy, SockDiagMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use weir_ebpf::abi::{Peer, Protocol};

/// Larger than any datagram of a dump (the kernel uses at most 32 KiB).
const BUFFER: usize = 1 << 16;

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
    socket: Socket,
}

impl SockDiag {
    /// In the thread's network namespace.
    pub(super) fn open() -> anyhow::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG).context("opening NETLINK_SOCK_DIAG")?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
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
            self.send(SockDiagMessage::InetRequest(request), NLM_F_REQUEST | NLM_F_DUMP)?;
            self.receive(|message| {
                if let SockDiagMessage::InetResponse(socket) = message {
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
        self.send(message, NLM_F_REQUEST | NLM_F_ACK)?;
        match self.receive(|_| {}) {
            Ok(()) => Ok(true),
            Err(error) if error.downcast_ref::<io::Error>().is_some_and(is_gone) => Ok(false),
            Err(error) => {
                Err(error
                    .context("destroying a socket (it needs CAP_NET_ADMIN and CONFIG_INET_DIAG_DESTROY)"))
            }
        }
    }

    fn send<M>(&self, message: M, flags: u16) -> anyhow::Result<()>
    where
        M: NetlinkSerializable,
    {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut buffer = vec![0; packet.buffer_len()];
        packet.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        Ok(())
    }

    /// Hands over each answer, until the kernel says that it was the last.
    fn receive(&self, mut each: impl FnMut(SockDiagMessage)) -> anyhow::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let size = self.socket.recv(&mut &mut buffer[..], 0)?;
            let mut rest = &buffer[..size];
            while !rest.is_empty() {
                let packet = NetlinkMessage::<SockDiagMessage>::deserialize(rest)?;
                match packet.payload {
                    NetlinkPayload::InnerMessage(message) => each(message),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(error) => return Err(error.to_io().into()),
                    NetlinkPayload::Overrun(_) => bail!("the kernel's answer was cut off"),
                    _ => {}
                }
                let len = (packet.header.length as usize).next_multiple_of(4);
                rest = rest.get(len..).unwrap_or_default();
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
