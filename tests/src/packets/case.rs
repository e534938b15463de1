//! The words in which cases are written: who sends what at which hook, and what becomes of it.

use weir_ebpf::abi::DropReason;

use super::node::{Node, UPLINK};

/// Packets one after the other, in a state, and the state afterwards.
pub struct Case {
    /// What it says.
    pub name: &'static str,
    /// What is different from [`Node::new`].
    pub given: fn(&mut Node),
    /// What happens.
    pub steps: Vec<Step>,
    /// How many rows `flows` has in the end.
    pub rows: usize,
}

/// What happens next.
pub enum Step {
    /// A packet arrives or leaves.
    Packet(Sent),
    /// Something changes.
    Change(fn(&mut Node)),
}

/// A packet at a hook, and what becomes of it.
pub struct Sent {
    pub(super) hook: Hook,
    pub(super) what: What,
    pub(super) src: Who,
    pub(super) dst: Who,
    pub(super) ttl: Option<u8>,
    /// Payload of each segment of a packet that a device is to cut; 0: it is one.
    #[cfg_attr(not(feature = "kernel"), expect(dead_code, reason = "only the kernel knows such packets"))]
    pub(super) segment: u32,
    /// The device by which it came to this node; 0: this node made it. Of the first hook it is its own.
    pub(super) came_by: u32,
    pub(super) becomes: Becomes,
}

/// Where a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// It comes from the first pod.
    FromPod,
    /// It comes through the device that leads to the world.
    FromNet,
    /// It comes through a device without Ethernet.
    FromL3,
    /// It leaves through the device that leads to the world.
    ToNet,
    /// It leaves towards the first pod.
    ToPod,
    /// It leaves through a device without Ethernet.
    ToL3,
}

impl Hook {
    /// Whether no hook saw the packet before on this node.
    #[must_use]
    pub const fn is_first(self) -> bool {
        matches!(self, Self::FromPod | Self::FromNet | Self::FromL3)
    }

    /// Whether packets have an Ethernet header there.
    #[must_use]
    pub const fn has_ethernet(self) -> bool {
        !matches!(self, Self::FromL3 | Self::ToL3)
    }
}

/// An end of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Somebody outside, with this port.
    Client(u16),
    /// The ClusterIP at the Service's port.
    Vip,
    /// The ClusterIP at another port.
    VipPort(u16),
    /// An address of the Service network that nobody has.
    Unallocated,
    /// The node at the node port.
    Node,
    /// The node at another port.
    NodePort(u16),
    /// The load balancer's address.
    Balancer,
    /// A backend; the first two are on this node.
    Pod(u32),
    /// The same pod with a port of its own.
    PodPort(u32, u16),
    /// A router.
    Router,
    /// As whom the backend sees the client of the last flow that began.
    Source,
    /// The client's address with that one's port: between the hooks.
    Between(u16),
}

/// A packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// A TCP segment with these flags and so many bytes.
    Tcp(u8, usize),
    /// A UDP datagram with so many bytes.
    Udp(usize),
    /// An SCTP packet.
    Sctp,
    /// A UDP datagram behind options of IP: a hop-by-hop header in IPv6.
    UdpWithOptions,
    /// A UDP datagram between IPv6 addresses that are IPv4 in disguise.
    UdpMapped,
    /// A piece of a UDP datagram of 3,000 bytes: the datagram's identification, and which piece.
    Piece(u16, usize),
    /// A first piece with 8 bytes of a TCP segment, in a frame that is filled up with what would say ACK.
    TinyPiece,
    /// An echo request.
    Echo,
    /// An ARP request of whoever has the source's address; nothing but IPv4 has it.
    Arp,
    /// Neighbour discovery says where an address is; nothing but IPv6 has it.
    Advertisement(Who),
    /// What routers send: a redirect.
    Redirect,
    /// A frame of a protocol that nobody knows.
    Strange,
    /// An ICMP error about a TCP segment between these two: it is too big for 1280 bytes.
    TooBig(Who, Who),
    /// The same about a UDP datagram that found no port.
    Unreachable(Who, Who),
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Becomes {
    /// It goes on as it came.
    Untouched,
    /// It goes on through the stack, from and to here.
    Stack(Ends),
    /// It leaves by the route.
    Routed(Ends),
    /// It goes into that pod.
    Delivered(Ends, u32),
    /// Its sender gets a TCP reset, or ICMP port unreachable.
    Refused,
    /// Its connection is over: a reset leaves by the device of the hook, from and to here; another enters there.
    Cut(Who, Who),
    /// Its sender learns that it lived too long.
    Expired,
    /// Its sender learns that it is too long for the way on. That is the kernel's to find out: in pure Rust it is routed.
    TooLong,
    /// Its sender gets an echo reply.
    Echoed,
    /// It is gone, for this reason.
    Dropped(DropReason),
    /// It is gone, for it is refused and nothing may be answered.
    Silenced,
}

/// Ends of a packet that was translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// A flow begins: its client's address is seen, with a port of ours. It is [`Who::Source`] from here on.
    Shown(Who),
    /// The same of a client that is this one.
    ShownAs(Who, Who),
    /// A flow begins: its client is hidden behind the node's address and a port of ours.
    Hidden(Who),
    /// From and to.
    Of(Who, Who),
    /// Of an ICMP error: from, to; and of the packet that it quotes: from, to.
    Quoting([Who; 2], [Who; 2]),
}

/// A packet at a hook.
#[must_use]
pub const fn at(hook: Hook, what: What, src: Who, dst: Who, becomes: Becomes) -> Step {
    Step::Packet(Sent { hook, what, src, dst, ttl: None, segment: 0, came_by: UPLINK, becomes })
}

impl Step {
    /// The same with another time to live.
    #[must_use]
    pub fn with_ttl(self, ttl: u8) -> Self {
        match self {
            Self::Packet(sent) => Self::Packet(Sent { ttl: Some(ttl), ..sent }),
            change @ Self::Change(_) => change,
        }
    }

    /// The same of a packet that came to this node by another device.
    #[must_use]
    pub fn that_came_by(self, device: u32) -> Self {
        match self {
            Self::Packet(sent) => Self::Packet(Sent { came_by: device, ..sent }),
            change @ Self::Change(_) => change,
        }
    }

    /// The same as segments of so many bytes that a device is yet to cut.
    #[must_use]
    pub fn in_segments(self, segment: u32) -> Self {
        match self {
            Self::Packet(sent) => Self::Packet(Sent { segment, ..sent }),
            change @ Self::Change(_) => change,
        }
    }
}
