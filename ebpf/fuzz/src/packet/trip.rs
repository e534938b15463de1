//! The way there and back: whatever a new flow's packet becomes, the answer comes from what the client dialled.

use weir_ebpf::abi::{Flow, Form, Frontend, Origin, Peer, Protocol, Tuple};
use weir_ebpf::datapath::packet::Verdict;
use weir_ebpf::testing::Outcome;
use weir_ebpf::wire::{Fragment, TCP_ACK, TCP_SYN, parse};

use super::hold::{Asked, State};
use super::{Hook, ask, carry_out};
use crate::frame::{Frame, Headers, transport};
use crate::pool::{FIRST_PORT, Place};
use crate::world::World;

/// Source and destination of a frame, with its ports.
pub(super) fn read_ends(frame: &Frame) -> Option<(Peer, Peer)> {
    let l3 = u32::try_from(frame.l3).expect("short");
    let packet = parse(frame.bytes.as_slice(), l3, frame.ether_type).ok()?;
    Some((packet.src, packet.dst))
}

/// After a packet that began a flow.
pub(super) fn comes_back(
    asked: &Asked<'_>,
    protocol: Protocol,
    before: &State,
    outcome: Outcome,
    became: &Frame,
) {
    let (src, dst) = (asked.packet.src, asked.packet.dst);
    if !matches!(asked.verdict, Verdict::Translate(_)) || matches!(asked.packet.fragment, Fragment::Later(_))
    {
        return;
    }
    let key = Tuple::new(src, dst, protocol).0;
    let flow = *asked.world.tables.flows.borrow().get(&key).expect("what is translated has a flow");
    if before.flows.contains_key(&key) || flow.form() != Form::Dialled {
        return;
    }
    is_well_begun(asked, protocol, &flow);
    // A spoofed one of the node's own has no way back through our hooks.
    if matches!(outcome, Outcome::Dropped(_)) || is_own(flow.client()) {
        return;
    }
    let world = asked.world.clone();
    let arrived = last_hook(&world, outcome, became.clone()).expect("it is not lost");
    let received = flow.ends(Form::Received);
    assert_eq!(read_ends(&arrived), Some(received), "{flow:?}");
    let reply = transport(received.1, received.0, protocol, TCP_SYN | TCP_ACK, &Headers::PLAIN);
    let arrived = back(&world, &flow, reply).expect("the reply is not lost");
    assert_eq!(read_ends(&arrived), Some((flow.dialled(), flow.client())), "{flow:?}");
}

/// The flow is what the tables say of its frontend.
fn is_well_begun(asked: &Asked<'_>, protocol: Protocol, flow: &Flow) {
    let world = asked.world;
    assert_eq!((flow.client(), flow.dialled()), (asked.packet.src, asked.packet.dst));
    let frontend: Frontend = world.frontend(flow.dialled(), protocol).expect("who began it had a frontend");
    assert_eq!(flow.service, frontend.service);
    let origin = if asked.hook == Hook::FromPod { Origin::Inside } else { Origin::Outside };
    assert!(world.set_has(flow.service, frontend.scope(origin), flow.backend()), "{flow:?}");
    let config = world.tables.config.expect("a config");
    let at = flow.source().port.host().wrapping_sub(config.first_port);
    let keeps = flow.source() == flow.client() && flow.client().port.host() < FIRST_PORT;
    assert!(at < config.ports || keeps, "{flow:?}");
    assert!(!flow.hides_client() || is_own(flow.source()), "{flow:?}");
}

fn is_own(peer: Peer) -> bool {
    let v6 = !peer.addr.is_v4();
    [Place::Node, Place::SecondNode, Place::Loopback].iter().any(|own| own.addr(v6) == peer.addr)
}

/// On from the first hook.
fn last_hook(world: &World, outcome: Outcome, frame: Frame) -> Option<Frame> {
    match outcome {
        Outcome::Routed | Outcome::Delivered(_) => Some(frame),
        Outcome::Answered | Outcome::Dropped(_) | Outcome::Cut => None,
        Outcome::Stack | Outcome::Untouched => {
            let (packet, verdict, _) = ask(world, Hook::Last, &frame, false)?;
            let (outcome, frame) = carry_out(&frame, &packet, &verdict);
            (!matches!(outcome, Outcome::Dropped(_) | Outcome::Answered)).then_some(frame)
        }
    }
}

/// From the backend to the client: a process of the node meets the last hook alone.
fn back(world: &World, flow: &Flow, reply: Frame) -> Option<Frame> {
    if is_own(flow.backend()) {
        return last_hook(world, Outcome::Stack, reply);
    }
    let is_here = world.tables.workloads.contains_key(&flow.backend().addr);
    let hook = if is_here { Hook::FromPod } else { Hook::FromNet };
    let (packet, verdict, _) = ask(world, hook, &reply, false)?;
    let (outcome, frame) = carry_out(&reply, &packet, &verdict);
    last_hook(world, outcome, frame)
}
