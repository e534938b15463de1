//! Translation at the socket: a world, and what sockets do in it.

use arbitrary::{Arbitrary, Unstructured};
use weir_ebpf::abi::{DropReason, Origin, Peer, Protocol, Scope};
use weir_ebpf::datapath::bind::is_refused;
use weir_ebpf::datapath::socket::{Errno, Verdict, connect, release, reverse, sendmsg};
use weir_ebpf::testing::FakeSocket;

use crate::counted::Counted;
use crate::pool::{End, Transport};
use crate::world::{HOST_NETNS, POD_NETNS, SetSeed, World, WorldSeed};

const MOST_STEPS: usize = 16;
/// Of the tables, for one call: most of them where a client's or a socket's backend is searched for in a run of 2^20.
const MOST_QUESTIONS: u32 = 2 * 20 + 24;

#[derive(Arbitrary, Debug)]
struct Story {
    world: WorldSeed,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Connect(SocketSeed, bool, End),
    Send(SocketSeed, bool, End),
    Reverse(SocketSeed, bool, End),
    Release(u8),
    Bind(Transport, u8, bool, End),
    Backends(u8, bool, SetSeed),
    Full(bool),
    Wait(u16),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct SocketSeed {
    /// Without one no Service is for it.
    protocol: Option<Transport>,
    cookie: u8,
    netns: u8,
    listener: bool,
}

impl SocketSeed {
    fn socket(self) -> FakeSocket {
        FakeSocket {
            in_pod: self.netns & 4 != 0,
            protocol: self.protocol.map(Transport::protocol),
            cookie: u64::from(self.cookie % 4),
            netns: netns(self.netns),
            listener: self.listener,
        }
    }
}

fn netns(bits: u8) -> u64 {
    [HOST_NETNS, POD_NETNS, POD_NETNS + 1, 99][usize::from(bits % 4)]
}

pub(crate) fn run(data: &[u8]) {
    let Ok(story) = Story::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut world = story.world.build();
    for step in story.steps.iter().take(MOST_STEPS) {
        take_step(&mut world, step);
    }
}

fn take_step(world: &mut World, step: &Step) {
    match *step {
        Step::Connect(socket, v6, at) => dial(world, socket.socket(), at.peer(v6)),
        Step::Send(socket, v6, at) => write(world, socket.socket(), at.peer(v6)),
        Step::Reverse(socket, v6, at) => {
            let _ = reverse(&Counted::new(world), &socket.socket(), at.peer(v6));
        }
        Step::Release(cookie) => release(&Counted::new(world), u64::from(cookie % 4)),
        Step::Bind(protocol, bits, v6, at) => {
            let tables = Counted::new(world);
            let refused = is_refused(&tables, protocol.protocol(), at.peer(v6), || netns(bits));
            assert!(!refused || netns(bits) == HOST_NETNS, "a pod binds as it likes");
        }
        Step::Backends(service, local, set) => {
            let scope = if local { Scope::Local } else { Scope::Cluster };
            world.set_backends(u32::from(service), scope, set);
        }
        Step::Full(full) => world.tables.full.set(full),
        Step::Wait(seconds) => {
            let later = world.moment.seconds.get().saturating_add(u32::from(seconds));
            world.moment.seconds.set(later);
        }
    }
}

fn dial(world: &World, socket: FakeSocket, dialled: Peer) {
    let tables = Counted::new(world);
    let before = world.tables.connections.borrow().clone();
    let verdict = connect(&tables, &world.moment, &socket, dialled);
    assert!(tables.asked() <= MOST_QUESTIONS, "{} questions", tables.asked());
    let Some(backend) = judge(world, socket.protocol, dialled, verdict) else {
        assert_eq!(
            *world.tables.connections.borrow(),
            before,
            "nothing is remembered of what is not translated"
        );
        return;
    };
    if !world.tables.full.get() {
        assert_eq!(
            reverse(&tables, &socket, backend),
            Some(dialled),
            "who is connected sees what it dialled"
        );
    }
}

fn write(world: &World, socket: FakeSocket, dialled: Peer) {
    let tables = Counted::new(world);
    let verdict = sendmsg(&tables, &world.moment, &socket, dialled);
    assert!(tables.asked() <= MOST_QUESTIONS, "{} questions", tables.asked());
    let Some(backend) = judge(world, Some(Protocol::Udp), dialled, verdict) else { return };
    if world.tables.full.get() {
        return;
    }
    assert!(reverse(&tables, &socket, backend).is_some(), "the reply is recognised");
    let again = sendmsg(&tables, &world.moment, &socket, dialled);
    assert_eq!(again, Verdict::Translate(backend), "a socket keeps its backend");
}

/// The backend, of the set of what was dialled; `None` if there is none.
fn judge(world: &World, protocol: Option<Protocol>, dialled: Peer, verdict: Verdict) -> Option<Peer> {
    match verdict {
        Verdict::Pass => None,
        Verdict::Deny(reason) => {
            let refused = matches!(reason, DropReason::NoEndpoint | DropReason::UnknownPort);
            assert_eq!(Errno::from(reason) == Errno::ConnectionRefused, refused, "{reason:?}");
            None
        }
        Verdict::Translate(backend) => {
            let protocol = protocol.expect("only what has a protocol is translated");
            let frontend = world.frontend(dialled, protocol).expect("only a frontend is translated");
            assert_eq!(backend.addr.is_v4(), dialled.addr.is_v4());
            let scope = frontend.scope(Origin::Inside);
            assert!(world.set_has(frontend.service, scope, backend), "{dialled} to {backend}");
            Some(backend)
        }
    }
}
