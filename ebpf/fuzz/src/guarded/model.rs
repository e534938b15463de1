//! What may pass, by rules that are read anew for every packet and a list of flows that were let pass: with nothing of the
//! datapath's tables, classes, rows or generations.
//!
//! It is generous where policies are: whatever it does not permit must not pass.

use std::collections::{HashMap, HashSet};

use weir_ebpf::abi::{Addr, Peer, PodPolicy, Port, Protocol, Side};
use weir_ebpf::wire::{Fragment, Kind, Packet, TCP_ACK, TCP_RST, TCP_SYN, parse_quoted};

use super::rules::Rules;

/// A flow as a pod sees it: which pod, its port, the other end, the protocol.
type Seen = (u32, Port, Peer, u8);

/// A packet at one side of a pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) device: u32,
    pub(super) policy: PodPolicy,
    pub(super) side: Side,
    pub(super) pod: Peer,
    /// The other end as the pod sees it.
    pub(super) near: Peer,
    /// The other end behind translation.
    pub(super) far: Peer,
    /// Whom policies know the other end by.
    pub(super) owner: Addr,
    /// Whether the pod's sockets can be seen. It has none.
    pub(super) is_seen: bool,
    pub(super) is_translated: bool,
}

/// What was let pass before.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// Flows, and on which sides of the pod they began.
    begun: HashSet<(Seen, Side)>,
    /// Ends of the first pieces that came by, whatever became of them.
    pieces: HashMap<Datagram, HashSet<(Peer, Peer)>>,
}

/// What all pieces of a datagram have in common: from where to where, the protocol and its number.
type Datagram = (Addr, Addr, u8, u32);

impl Model {
    /// Remembers the ends of a first piece.
    pub(super) fn see_piece(&mut self, packet: &Packet) {
        if let (Fragment::First(id), Kind::Transport(_)) = (packet.fragment, packet.kind) {
            let key = (packet.src.addr, packet.dst.addr, packet.protocol, id);
            self.pieces.entry(key).or_default().insert((packet.src, packet.dst));
        }
    }

    /// The ends that a packet may have: of a later piece those of every first one of its datagram.
    pub(super) fn ends(&self, packet: &Packet) -> Vec<(Peer, Peer)> {
        match (packet.kind, packet.fragment) {
            (Kind::Transport(_), Fragment::Later(id)) => {
                let key = (packet.src.addr, packet.dst.addr, packet.protocol, id);
                self.pieces.get(&key).into_iter().flatten().copied().collect()
            }
            _ => vec![(packet.src, packet.dst)],
        }
    }

    /// Whether the packet may pass there; remembers what it begins.
    pub(super) fn permits(&mut self, rules: &Rules, at: &At, packet: &Packet, bytes: &[u8]) -> bool {
        if at.policy.is_open() || at.far.addr == at.pod.addr || is_for_links(packet, bytes) {
            return true;
        }
        if packet.kind == Kind::IcmpError && self.quotes_known(at, packet, bytes) {
            return true;
        }
        let has_ports = matches!(packet.kind, Kind::Transport(_));
        let port = |peer: Peer| if has_ports { peer.port } else { Port::default() };
        let key =
            (at.device, port(at.pod), Peer { addr: at.near.addr, port: port(at.near) }, packet.protocol);
        let allowed = |side: Side| {
            let (peer, to) = match side {
                Side::Egress => (at.far.addr, port(at.far)),
                Side::Ingress => (at.owner, port(at.pod)),
            };
            rules.allow(at.policy.set(side), peer, packet.protocol, to)
        };
        if allowed(at.side) {
            self.begun.insert((key, at.side));
            return true;
        }
        // The ends of a connection that was allowed are told that it is over.
        let is_known = |side: Side| self.begun.contains(&(key, side));
        if packet.tcp_flags & TCP_RST != 0 && (is_known(Side::Egress) || is_known(Side::Ingress)) {
            return true;
        }
        let opposite = if at.side == Side::Egress { Side::Ingress } else { Side::Egress };
        if opens(packet) || !allowed(opposite) {
            return false;
        }
        // What nobody saw begin may be from before there were policies, unless the pod's sockets know nothing of it.
        let may = is_known(opposite) || !at.is_seen && packet.kind == Kind::Transport(Protocol::Tcp);
        if may {
            self.begun.insert((key, opposite));
        }
        may
    }

    fn quotes_known(&self, at: &At, packet: &Packet, bytes: &[u8]) -> bool {
        let Some(quoted) = parse_quoted(bytes, packet) else { return false };
        let protocol = quoted.protocol as u8;
        let (own, other) = match at.side {
            Side::Egress => (quoted.dst, quoted.src),
            Side::Ingress => (quoted.src, quoted.dst),
        };
        // Translated errors quote what the pod sees: any flow of the pod by that protocol will do.
        self.begun.iter().any(|((device, port, peer, number), _)| {
            let is_it = at.is_translated || (*port, *peer) == (own.port, other);
            *device == at.device && *number == protocol && is_it
        })
    }
}

/// Whether a packet is no reply, whatever came before.
fn opens(packet: &Packet) -> bool {
    let is_syn = packet.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
    packet.kind == Kind::EchoRequest || packet.kind == Kind::Transport(Protocol::Tcp) && is_syn
}

/// Neighbour discovery and group membership, which did not come from farther away.
fn is_for_links(packet: &Packet, bytes: &[u8]) -> bool {
    let kind = usize::try_from(packet.l4).ok().and_then(|at| bytes.get(at).copied());
    let stays = match kind {
        Some(130..=132 | 143) => packet.ttl == 1,
        Some(133 | 135 | 136) => packet.ttl == 255,
        _ => false,
    };
    packet.protocol == 58 && packet.fragment == Fragment::Whole && stays
}
