//! Translation per packet: a world, and steps through it. After each step everything in `hold` and `trip` holds.

mod hold;
mod trip;

use arbitrary::{Arbitrary, Unstructured};
use weir_ebpf::abi::{Form, Hop, Origin, Peer, Protocol, Scope, Tuple};
use weir_ebpf::datapath::Moment as _;
use weir_ebpf::datapath::packet::{Ahead, Node, Verdict, arrive, leave, look_ahead, remember_hop};
use weir_ebpf::testing::{Outcome, apply};
use weir_ebpf::wire::{Kind, Packet, parse};

use crate::counted::Counted;
use crate::frame::{self, Frame, Headers, Shape};
use crate::pool::Place;
use crate::world::{SetSeed, World, WorldSeed};

/// The most steps that are taken: more find nothing that fewer do not.
const MOST_STEPS: usize = 16;

#[derive(Arbitrary, Debug)]
struct Story {
    world: WorldSeed,
    steps: Vec<Step>,
}

/// Where a packet is.
#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
enum Hook {
    FromPod,
    FromNet,
    Last,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// A packet; and whether another CPU sees the like of it at the same time.
    Send(Hook, Shape, bool),
    /// Any bytes; IPv6 or not.
    Raw(Hook, bool, Vec<u8>),
    /// The last packet again, with other flags.
    Again(Hook, u8),
    /// What its receiver says to it.
    Reply(Hook, u8),
    /// An ICMP error about it: about what was sent, or about what was received.
    Error { hook: Hook, kind: u8, reporter: Place, received: bool, headers: Headers },
    /// Time.
    Wait(u16),
    /// Other backends.
    Backends(u8, bool, SetSeed),
    /// No room for more flows than these and so many; or room.
    Room(Option<u8>),
    /// A flow is swept, or has been only in part: the client's row goes first.
    Sweep(u8, bool),
    /// A pod goes.
    Unplug(bool),
}

/// A packet that was sent, and as which it arrived.
#[derive(Clone, Copy, Debug)]
struct Sent {
    protocol: Protocol,
    as_sent: (Peer, Peer),
    as_received: (Peer, Peer),
}

pub(crate) fn run(data: &[u8]) {
    let Ok(story) = Story::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut world = story.world.build();
    let mut last = None;
    for step in story.steps.iter().take(MOST_STEPS) {
        take_step(&mut world, step, &mut last);
    }
}

fn take_step(world: &mut World, step: &Step, last: &mut Option<Sent>) {
    match step {
        Step::Send(hook, shape, raced) => send(world, *hook, &shape.build(), *raced, last),
        Step::Raw(hook, v6, bytes) => {
            let ether_type = if *v6 { 0x86dd } else { 0x0800 };
            send(world, *hook, &Frame { bytes: bytes.clone(), l3: 0, ether_type }, false, last);
        }
        Step::Again(hook, flags) => {
            if let Some(Sent { protocol, as_sent: (src, dst), .. }) = *last {
                send(
                    world,
                    *hook,
                    &frame::transport(src, dst, protocol, *flags, &Headers::PLAIN),
                    false,
                    last,
                );
            }
        }
        Step::Reply(hook, flags) => {
            if let Some(Sent { protocol, as_received: (src, dst), .. }) = *last {
                let reply = frame::transport(dst, src, protocol, *flags, &Headers::PLAIN);
                send(world, *hook, &reply, false, &mut None);
            }
        }
        Step::Error { hook, kind, reporter, received, headers } => {
            if let Some(Sent { protocol, as_sent, as_received }) = *last {
                let (src, dst) = if *received { as_received } else { (as_sent.1, as_sent.0) };
                let error = frame::error(*reporter, *kind, (src, dst, protocol), headers);
                send(world, *hook, &error, false, &mut None);
            }
        }
        Step::Wait(seconds) => {
            let later = world.moment.seconds.get().saturating_add(u32::from(*seconds));
            world.moment.seconds.set(later);
        }
        Step::Backends(service, local, set) => {
            let scope = if *local { Scope::Local } else { Scope::Cluster };
            world.set_backends(u32::from(*service), scope, *set);
        }
        Step::Room(rows) => {
            let used = world.tables.flows.borrow().len();
            world.room = rows.map_or(usize::MAX, |rows| used + usize::from(rows % 4));
        }
        Step::Sweep(row, half) => sweep(world, usize::from(*row), *half),
        Step::Unplug(second) => {
            for v6 in [false, true] {
                world.tables.workloads.remove(&Place::LocalPod(*second).addr(v6));
            }
        }
    }
}

/// Removes the rows of a flow, or of these the first that a sweeper removes.
fn sweep(world: &World, row: usize, half: bool) {
    let mut flows = world.tables.flows.borrow_mut();
    let mut keys: Vec<Tuple> = flows.keys().copied().collect();
    keys.sort_by_key(|key| format!("{key:?}"));
    let Some(key) = keys.get(row % keys.len().max(1)) else { return };
    let (Some(flow), Some(protocol)) = (flows.get(key).copied(), key.protocol()) else { return };
    for form in [Form::Dialled, Form::Forwarded, Form::Received] {
        let (client, server) = flow.ends(form);
        let key = Tuple::new(client, server, protocol).0;
        // Its own rows, not those of another that came after it.
        if flows.get(&key).is_some_and(|row| hold::is_same_flow(row, &flow)) {
            flows.remove(&key);
        }
        if half {
            return;
        }
    }
}

/// What is decided about a frame, and how often the tables were asked; `None`: it is no packet.
fn ask(world: &World, hook: Hook, frame: &Frame, raced: bool) -> Option<(Packet, Verdict, u32)> {
    let l3 = u32::try_from(frame.l3).expect("short");
    let packet = parse(frame.bytes.as_slice(), l3, frame.ether_type).ok()?;
    let tables = Counted::new(world);
    let rival = || {
        let _ = ask(world, hook, frame, false);
    };
    let tables = if raced { tables.with_rival(rival) } else { tables };
    let node = Node { tables: &tables, moment: &world.moment, network: &tables };
    let bytes = frame.bytes.as_slice();
    let early = look_ahead(&world.tables, world.moment.window(), &packet);
    let verdict = match hook {
        Hook::FromPod => arrive(&node, Origin::Inside, &packet, bytes),
        Hook::FromNet => arrive(&node, Origin::Outside, &packet, bytes),
        Hook::Last => leave(&node, &packet, bytes),
    };
    if let (Ahead::Translate(translation, _), true, false) = (early, hook != Hook::Last, raced) {
        assert_eq!(verdict, Verdict::Translate(translation), "ahead of the hook it becomes something else");
    }
    Some((packet, verdict, tables.asked()))
}

/// Where what goes past the stack was sent last.
const HOP: Hop = Hop { ifindex: 2, mtu: 1500, dst: [2, 0, 0, 0, 0, 8], src: [2, 0, 0, 0, 0, 9] };

/// A packet at a hook, and then at the last one if it goes there.
fn send(world: &World, hook: Hook, frame: &Frame, raced: bool, last: &mut Option<Sent>) {
    let before = hold::State::of(world);
    let Some((packet, verdict, asked)) = ask(world, hook, frame, raced) else { return };
    let after = hold::State::of(world);
    let step = hold::Asked { world, hook, frame, packet: &packet, verdict: &verdict };
    step.is_bounded(asked, raced);
    step.keeps_the_family();
    step.enters_nothing_if_refused(&before, &after, raced);
    step.leaves_alone_what_is_a_strangers(&before, &after);
    step.changes_no_flow(&before, &after, raced);
    after.rows_agree();
    let (outcome, became) = carry_out(frame, &packet, &verdict);
    step.is_carried_out(outcome, &became);
    if outcome == Outcome::Routed {
        remember_hop(&world.tables, &packet, &HOP, world.moment.window());
        step.is_told_what_is_too_long();
    }
    if hook == Hook::Last {
        return;
    }
    if let Kind::Transport(protocol) = packet.kind {
        trip::comes_back(&step, protocol, &before, outcome, &became);
        *last = trip::read_ends(&became).map(|as_received| Sent {
            protocol,
            as_sent: (packet.src, packet.dst),
            as_received,
        });
    }
    if matches!(outcome, Outcome::Stack | Outcome::Untouched) {
        send(world, Hook::Last, &became, false, &mut None);
    }
}

fn carry_out(frame: &Frame, packet: &Packet, verdict: &Verdict) -> (Outcome, Frame) {
    let mut became = frame.clone();
    let outcome = apply(&mut became.bytes, packet, verdict);
    (outcome, became)
}
