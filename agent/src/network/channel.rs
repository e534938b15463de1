//! Questions to the kernel over netlink, one at a time, and their answers. Used for rtnetlink here and for socket
//! diagnosis in `kernel`.

use std::fmt::Debug;

use anyhow::{Context as _, bail};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// Larger than any datagram of a dump (the kernel uses at most 32 KiB).
pub(super) const BUFFER: usize = 1 << 16;

/// What came of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Answered {
    /// All of it, as of one moment.
    Whole,
    /// Something changed while the kernel listed it: rows may be missing.
    Interrupted,
}

/// A connection to one of the kernel's netlink families; it belongs to the network namespace in which it was made.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: Socket,
}

impl Channel {
    /// In the thread's network namespace. `family` is a constant of `netlink_sys::protocols`.
    pub(crate) fn open(family: isize) -> anyhow::Result<Self> {
        let mut socket = Socket::new(family).context("opening a netlink socket")?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Has the kernel take the attributes of dump requests at their word instead of ignoring them.
    pub(super) fn be_strict(&self) -> anyhow::Result<()> {
        self.socket.set_netlink_get_strict_chk(true).context("asking for strict checks of netlink requests")
    }

    /// Asks, and hands over each answer until the kernel says that it was the last.
    pub(crate) fn ask<Q, A>(&self, question: Q, flags: u16, each: impl FnMut(A)) -> anyhow::Result<Answered>
    where
        Q: NetlinkSerializable,
        A: NetlinkDeserializable + Debug,
    {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        packet.finalize();
        let mut buffer = vec![0; packet.buffer_len()];
        packet.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        let is_dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        let wants_ack = flags & NLM_F_ACK != 0;
        self.receive(!is_dump && !wants_ack, each)
    }

    fn receive<A>(&self, single: bool, mut each: impl FnMut(A)) -> anyhow::Result<Answered>
    where
        A: NetlinkDeserializable + Debug,
    {
        let mut buffer = vec![0; BUFFER];
        let mut answered = Answered::Whole;
        loop {
            let size = self.socket.recv(&mut &mut buffer[..], 0)?;
            for packet in packets(&buffer[..size]) {
                if let Some(flags) = packet.get(6..8)
                    && u16::from_ne_bytes([flags[0], flags[1]]) & NLM_F_DUMP_INTR != 0
                {
                    answered = Answered::Interrupted;
                }
                match NetlinkMessage::<A>::deserialize(packet).map(|packet| packet.payload) {
                    Ok(NetlinkPayload::InnerMessage(message)) => each(message),
                    Ok(NetlinkPayload::Done(_)) => return Ok(answered),
                    Ok(NetlinkPayload::Error(error)) if error.code.is_none() => return Ok(answered),
                    Ok(NetlinkPayload::Error(error)) => return Err(error.to_io().into()),
                    Ok(NetlinkPayload::Overrun(_)) => bail!("the kernel's answer was cut off"),
                    Ok(_) => {}
                    // One device of a kind that the library reads wrongly is no reason to know none.
                    Err(error) => tracing::warn!("an answer of the kernel cannot be read: {error}"),
                }
                if single {
                    return Ok(answered);
                }
            }
        }
    }
}

/// The messages in a datagram.
pub(super) fn packets(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        // A header has 16 bytes; less would never end.
        let packet = rest.get(..len).filter(|packet| packet.len() >= 16)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(packet)
    })
}
