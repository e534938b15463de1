//! Asks the datapath what the first packet of a flow becomes, and its reply, on the whole way through the node.

use std::net::SocketAddr;

use weir_ebpf::abi::{Origin, Peer, Port, Protocol};
use weir_ebpf::datapath::packet::{self, Onward, Translation, Verdict};
use weir_ebpf::wire::{Fragment, Kind, Packet, TCP_ACK, TCP_SYN};

use super::ask::{Answer, Draw, draws, forget_clients};
use super::world::{SOURCE_PORTS, World};

/// The first port that a client has; each draw is from another one, for outside that is what chance is.
pub(super) const FIRST_CLIENT_PORT: u16 = 40_000;

/// What becomes of packets from one address to this one.
pub(super) fn ask_packets(
    world: &World,
    origin: Origin,
    protocol: Protocol,
    source: std::net::IpAddr,
    dialled: SocketAddr,
) -> Result<Answer, String> {
    let mut answer: Option<Answer> = None;
    for (port, draw) in (FIRST_CLIENT_PORT..).zip(draws()) {
        forget_clients(&world.tables);
        let client = SocketAddr::new(source, port);
        let mut walk = |origin, packet: &Packet| walk(world, &draw, origin, packet);
        let this = ask_one(world, &mut walk, origin, protocol, client, dialled)?;
        answer = Some(match answer {
            Some(answer) => answer.and(this)?,
            None => this,
        });
    }
    answer.ok_or_else(|| "nothing was drawn".to_owned())
}

/// What becomes of the first packet from this client, and of its reply. `walk`: what becomes of one packet.
pub(super) fn ask_one(
    world: &World,
    walk: &mut impl FnMut(Origin, &Packet) -> Result<Walked, String>,
    origin: Origin,
    protocol: Protocol,
    client: SocketAddr,
    dialled: SocketAddr,
) -> Result<Answer, String> {
    let first = packet(protocol, client.into(), dialled.into(), TCP_SYN);
    let (src, dst) = match walk(origin, &first)? {
        Walked::Out(src, dst) => (src, dst),
        Walked::Answered(answer) => return Ok(answer),
    };
    if (src, dst) == (first.src, first.dst) {
        return Ok(Answer::Pass);
    }
    let hidden = src.addr != first.src.addr;
    let own = [world.tables.config.map(|config| config.v4), world.tables.config.map(|config| config.v6)];
    if hidden && (!own.contains(&Some(src.addr)) || !SOURCE_PORTS.contains(&src.port.host())) {
        return Err(format!("hidden behind {src}, which is none of the node's"));
    }
    // The backend answers whom it saw, and the client has to hear whom it dialled.
    let is_local = world.tables.workloads.contains_key(&dst.addr);
    let from = if is_local { Origin::Inside } else { Origin::Outside };
    let reply = packet(protocol, dst, src, TCP_SYN | TCP_ACK);
    match walk(from, &reply)? {
        Walked::Out(src, dst) if (src, dst) == (first.dst, first.src) => {}
        Walked::Out(src, dst) => return Err(format!("{client} gets a reply from {src} to {dst}")),
        Walked::Answered(answer) => return Err(format!("the reply does not come back: {answer}")),
    }
    Ok(Answer::Backends([(dst.into(), hidden)].into()))
}

/// What came of a packet on its way.
pub(super) enum Walked {
    /// It left, from here to there.
    Out(Peer, Peer),
    /// It did not.
    Answered(Answer),
}

/// Both hooks, as far as the first one does not finish it.
fn walk(world: &World, draw: &Draw, origin: Origin, packet: &Packet) -> Result<Walked, String> {
    let node = packet::Node { tables: &world.tables, moment: draw, network: &world.network };
    let nothing: &[u8] = &[];
    let (src, dst) = match packet::arrive(&node, origin, packet, nothing) {
        Verdict::Pass => (packet.src, packet.dst),
        Verdict::Translate(Translation { src, dst, onward: Onward::Stack, .. }) => (src, dst),
        Verdict::Translate(Translation { src, dst, .. }) => return Ok(Walked::Out(src, dst)),
        Verdict::Answer(packet::Answer::Refusal(_)) => return Ok(Walked::Answered(Answer::Refuse)),
        Verdict::Drop(_) | Verdict::Cut(..) => return Ok(Walked::Answered(Answer::Drop)),
        Verdict::Answer(answer) => return Err(format!("answered with {answer:?}")),
    };
    match packet::leave(&node, &Packet { src, dst, ..*packet }, nothing) {
        Verdict::Pass => Ok(Walked::Out(src, dst)),
        Verdict::Translate(Translation { src, dst, .. }) => Ok(Walked::Out(src, dst)),
        other => Err(format!("the last hook says {other:?}")),
    }
}

/// As the parser would give it; the flags are those of TCP alone.
fn packet(protocol: Protocol, src: Peer, dst: Peer, tcp_flags: u8) -> Packet {
    let tcp_flags = if protocol == Protocol::Tcp { tcp_flags } else { 0 };
    debug_assert_ne!(src.port, Port::new(0));
    let (l3, l4) = if src.addr.is_v4() { (14, 34) } else { (14, 54) };
    let kind = Kind::Transport(protocol);
    Packet {
        src,
        dst,
        kind,
        protocol: protocol as u8,
        fragment: Fragment::Whole,
        tcp_flags,
        ttl: 64,
        before_addresses: [0; 4],
        l3,
        l4,
        length: l4 + 6,
    }
}
