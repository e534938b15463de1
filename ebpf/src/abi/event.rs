//! Events: what one packet or socket met that did not get through, or would not have. Row of the ring buffer `drop_events`; the
//! hooks write, the agent reads and says it in names.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Addr, ClassId, DropReason, Peer, PolicySetId, Port, Side};

/// Where something was dropped or refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum HookPoint {
    /// What a pod sends, at its device.
    FromPod = 1,
    /// What is for a pod, at its device.
    ToPod = 2,
    /// What comes by a node-facing device.
    FromNet = 3,
    /// What leaves by a node-facing device.
    ToNet = 4,
    /// `connect` of a socket.
    Connect = 5,
    /// A datagram of a socket, with the address that it is for.
    SendMsg = 6,
}

impl HookPoint {
    /// Every one of them.
    pub const ALL: [Self; 6] =
        [Self::FromPod, Self::ToPod, Self::FromNet, Self::ToNet, Self::Connect, Self::SendMsg];

    /// The name that a person sees.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::FromPod => "from-pod",
            Self::ToPod => "to-pod",
            Self::FromNet => "from-net",
            Self::ToNet => "to-net",
            Self::Connect => "connect",
            Self::SendMsg => "sendmsg",
        }
    }
}

/// No address.
const NOWHERE: Addr = Addr::from_words([0; 4]);

/// One event. What is not known is zero; [`DropEvent::flags`] says which of it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DropEvent {
    /// When: nanoseconds since boot, suspended time excluded (`CLOCK_MONOTONIC`, as coarse as the kernel's tick).
    pub when_ns: u64,
    /// Who sent it, as it came. Of a socket its pod's or node's address, where that is known; the port is then 0.
    pub src_addr: Addr,
    /// Whom it is for, as it came; of a socket what was dialled.
    pub dst_addr: Addr,
    /// Whom it would have gone to: its destination after translation.
    pub new_dst_addr: Addr,
    /// The device of the pod that this is about: of the pod that policies were asked of, otherwise of the hook. 0 at sockets.
    pub device: u32,
    /// The device by which the packet came to this node; 0: the node made it, or it is a socket's.
    pub came_by: u32,
    /// The pod's policy set that was asked.
    pub set: PolicySetId,
    /// The class that the peer is of.
    pub class: ClassId,
    pub(super) src_port: Port,
    pub(super) dst_port: Port,
    pub(super) new_dst_port: Port,
    /// In host order, as in an Ethernet header; 0 at sockets.
    pub ether_type: u16,
    pub(super) hook: u8,
    pub(super) side: u8,
    pub(super) reason: u8,
    /// IANA number
    pub protocol: u8,
    /// The flags of a TCP segment, or the type of an ICMP message.
    pub detail: u8,
    /// The constants below.
    pub flags: u8,
    pub(super) zero: [u8; 2],
}

impl DropEvent {
    /// It passed: an audited policy would drop it.
    pub const WOULD: u8 = 1;
    /// Its sender was told (a TCP reset, ICMP, an error of the system call).
    pub const REFUSED: u8 = 2;
    /// It was read: addresses and protocol are there. Otherwise nobody can say what it is.
    pub const READ: u8 = 4;
    /// `new_dst_addr` and its port are there.
    pub const TRANSLATED: u8 = 8;
    /// `set` and `class` are there.
    pub const JUDGED: u8 = 16;
    /// A later piece of a datagram, which has no ports.
    pub const PIECE: u8 = 32;

    /// Nothing is known of it yet but when, where and why.
    #[inline(always)]
    #[must_use]
    pub const fn new(when_ns: u64, hook: HookPoint, reason: DropReason) -> Self {
        Self::by_index(when_ns, hook, reason as u32)
    }

    /// The same by the reason's place in [`DropReason::ALL`]: for a program, which would have to prove that it is a place there
    /// before it looked it up.
    #[inline(always)]
    #[must_use]
    pub const fn by_index(when_ns: u64, hook: HookPoint, reason: u32) -> Self {
        Self {
            when_ns,
            src_addr: NOWHERE,
            dst_addr: NOWHERE,
            new_dst_addr: NOWHERE,
            device: 0,
            came_by: 0,
            set: PolicySetId::OPEN,
            class: ClassId::EVERYBODY,
            src_port: Port::from_network(0),
            dst_port: Port::from_network(0),
            new_dst_port: Port::from_network(0),
            ether_type: 0,
            hook: hook as u8,
            side: 0,
            reason: reason.to_le_bytes()[0],
            protocol: 0,
            detail: 0,
            flags: 0,
            zero: [0; 2],
        }
    }

    /// Says who sent it and whom it is for.
    #[inline(always)]
    pub const fn set_ends(&mut self, src: Peer, dst: Peer) {
        (self.src_addr, self.src_port) = (src.addr, src.port);
        (self.dst_addr, self.dst_port) = (dst.addr, dst.port);
        self.flags |= Self::READ;
    }

    /// Says what its destination would have become.
    #[inline(always)]
    pub const fn set_translation(&mut self, dst: Peer) {
        (self.new_dst_addr, self.new_dst_port) = (dst.addr, dst.port);
        self.flags |= Self::TRANSLATED;
    }

    /// Says what was asked of policies.
    #[inline(always)]
    pub const fn set_judged(&mut self, set: PolicySetId, class: ClassId) {
        (self.set, self.class) = (set, class);
        self.flags |= Self::JUDGED;
    }

    /// Says whether it was on its way to the pod of [`DropEvent::device`], or from it.
    #[inline(always)]
    pub const fn set_side(&mut self, side: Side) {
        self.side = match side {
            Side::Ingress => 1,
            Side::Egress => 2,
        };
    }

    /// Where; `None`: another version's.
    #[must_use]
    pub fn hook(&self) -> Option<HookPoint> {
        HookPoint::ALL.into_iter().find(|&hook| hook as u8 == self.hook)
    }

    /// Why; `None`: another version's.
    #[must_use]
    pub fn reason(&self) -> Option<DropReason> {
        DropReason::ALL.get(usize::from(self.reason)).copied()
    }

    /// Whether it is for this reason.
    #[inline(always)]
    #[must_use]
    pub const fn is_for(&self, reason: DropReason) -> bool {
        self.reason == reason as u8
    }

    /// The way that it was on as the pod of [`DropEvent::device`] sees it; `None`: it is no pod's.
    #[must_use]
    pub const fn side(&self) -> Option<Side> {
        match self.side {
            1 => Some(Side::Ingress),
            2 => Some(Side::Egress),
            _ => None,
        }
    }

    /// Whether one of the constants is set.
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Who sent it.
    #[must_use]
    pub const fn src(&self) -> Peer {
        Peer { addr: self.src_addr, port: self.src_port }
    }

    /// Whom it is for.
    #[must_use]
    pub const fn dst(&self) -> Peer {
        Peer { addr: self.dst_addr, port: self.dst_port }
    }

    /// Whom it would have gone to, if it was translated.
    #[must_use]
    pub const fn new_dst(&self) -> Option<Peer> {
        if self.has(Self::TRANSLATED) {
            Some(Peer { addr: self.new_dst_addr, port: self.new_dst_port })
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out() {
        let peer = |last: u8, port| Peer {
            addr: Addr::from_v4(u32::from_be_bytes([10, 0, 0, last])),
            port: Port::new(port),
        };
        let mut event = DropEvent::new(5, HookPoint::ToPod, DropReason::JudgedFull);
        assert_eq!((event.side(), event.new_dst(), event.has(DropEvent::READ)), (None, None, false));
        event.set_ends(peer(1, 1000), peer(2, 80));
        event.set_translation(peer(3, 8080));
        event.set_side(Side::Egress);
        event.set_judged(PolicySetId(9), ClassId(8));
        let event = DropEvent::read_from_bytes(event.as_bytes()).unwrap();
        assert_eq!((event.hook(), event.reason()), (Some(HookPoint::ToPod), Some(DropReason::JudgedFull)));
        assert_eq!((event.src(), event.dst()), (peer(1, 1000), peer(2, 80)));
        assert_eq!((event.new_dst(), event.side()), (Some(peer(3, 8080)), Some(Side::Egress)));
        assert_eq!((event.set, event.class), (PolicySetId(9), ClassId(8)));
        let mut bytes = [0xff; size_of::<DropEvent>()];
        bytes[0] = 0;
        let other = DropEvent::read_from_bytes(&bytes).unwrap();
        assert_eq!((other.hook(), other.reason(), other.side()), (None, None, None));
    }
}
