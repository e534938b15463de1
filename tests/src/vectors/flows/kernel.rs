//! The same flows in this kernel: what the node sends as sockets that the hooks see, everything else as packets through
//! the hooks that they meet, by `BPF_PROG_TEST_RUN`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use weir_agent::kernel::PacketIn;
use weir_agent::network::own_netns;
use weir_agent::source::Protocol;
use weir_ebpf::abi::{Origin, Run};
use weir_ebpf::testing::{MemoryTables, frame};
use weir_ebpf::wire::{self, Kind, Packet, TCP_RST};

use super::super::ask::Answer;
use super::super::packets::{FIRST_CLIENT_PORT, Walked, ask_one};
use super::super::sockets::ask_socket;
use super::super::tally::Tally;
use super::super::world::{HOST, UPLINK, VETH, World};
use super::{Flow, From, State, flow_name, judge_by};
use crate::packets::kernel::{DROPPED, Kernel, NEXT, Program, REDIRECTED, device};

/// The programs, and what they said so far: an expectation that is altered does not change it.
pub struct Judge {
    kernel: Kernel,
    found: HashMap<String, Result<Answer, String>>,
    netns: u64,
}

impl Judge {
    /// A node as these states describe it, which is one and the same in all of them.
    ///
    /// # Errors
    /// Those of [`Kernel::new`].
    pub fn new(states: &[State]) -> Result<Self> {
        let first = states.first().context("no states")?;
        let mut commands = [device("uplink", UPLINK), device("pods", VETH)].concat();
        for addr in first.node.local_ips.iter().filter(|addr| !addr.is_loopback()) {
            let (bits, nodad) = if addr.is_ipv4() { (32, "") } else { (128, "nodad") };
            commands.push(format!("address add {addr}/{bits} dev uplink {nodad}"));
        }
        commands.extend(["route add default dev uplink", "route add ::/0 dev uplink"].map(str::to_owned));
        let mut kernel = Kernel::new("vectors", &commands, 64)?;
        // What a socket of the node sends to the node itself is lost, and its connection stays to be looked at.
        kernel.ensure_silence("lo")?;
        kernel.attach()?;
        Ok(Self { kernel, found: HashMap::new(), netns: own_netns()? })
    }

    /// Judges every flow of every state.
    pub fn judge(&mut self, states: &[State]) -> Tally {
        judge_by(states, &mut |state, flow, world, protocol| {
            let name = flow_name(state, flow);
            if let Some(found) = self.found.get(&name) {
                return found.clone();
            }
            let found =
                self.ask(state, flow, world, protocol).unwrap_or_else(|error| Err(format!("{error:#}")));
            self.found.insert(name, found.clone());
            found
        })
    }

    /// With every backend in turn as the only one of its set.
    fn ask(
        &mut self,
        state: &State,
        flow: &Flow,
        world: &World,
        protocol: Protocol,
    ) -> Result<Result<Answer, String>> {
        let from = state.from(flow);
        let mut world =
            if from == From::Pod { world.clone().asked_by_pod(flow.source) } else { world.clone() };
        let host = world.tables.netns[&HOST];
        world.tables.netns = HashMap::from([(self.netns, host)]);
        let lengths = world.tables.sets.values().filter_map(|word| word.run().ok());
        let turns = lengths.map(|run| run.len).max().unwrap_or(1);
        let dialled = SocketAddr::new(flow.dest, flow.port);
        let mut answer: Option<Answer> = None;
        for turn in 0..turns {
            let alone = World { tables: alone(&world.tables, turn), ..world.clone() };
            self.kernel.fill(&alone.tables)?;
            let this = match from {
                From::Node => ask_socket(protocol, dialled)?,
                From::Pod => self.ask_packet(&alone, Origin::Inside, protocol, flow.source, dialled),
                From::Outside => self.ask_packet(&alone, Origin::Outside, protocol, flow.source, dialled),
            };
            let both = match (answer, this) {
                (Some(before), Ok(this)) => before.and(this),
                (_, this) => this,
            };
            match both {
                Ok(both) => answer = Some(both),
                Err(how) => return Ok(Err(how)),
            }
        }
        Ok(answer.ok_or_else(|| "nothing was asked".to_owned()))
    }

    fn ask_packet(
        &mut self,
        world: &World,
        origin: Origin,
        protocol: Protocol,
        source: IpAddr,
        dialled: SocketAddr,
    ) -> Result<Answer, String> {
        let client = SocketAddr::new(source, FIRST_CLIENT_PORT);
        let mut walk = |origin, packet: &Packet| {
            walk(&mut self.kernel, &world.tables, origin, packet)
                .unwrap_or_else(|error| Err(format!("{error:#}")))
        };
        ask_one(world, &mut walk, origin, protocol, client, dialled)
    }
}

/// Of each set only one backend is left, another one in each turn.
fn alone(tables: &MemoryTables, turn: u32) -> MemoryTables {
    let mut tables = tables.clone();
    for word in tables.sets.values_mut() {
        if let Ok(run) = word.run() {
            *word = weir_ebpf::abi::SetWord::of(Run { offset: run.offset + turn % run.len, len: 1 });
        }
    }
    tables
}

/// Through the first hook, and through the last one where the first lets the packet go on. It is asked twice then, for the
/// second run has to begin where the first did: with the flows that there were.
fn walk(
    kernel: &mut Kernel,
    tables: &MemoryTables,
    origin: Origin,
    packet: &Packet,
) -> Result<Result<Walked, String>> {
    let (first, ifindex) = match origin {
        Origin::Inside => (Program::FromPod, VETH),
        Origin::Outside => (Program::FromNet, UPLINK),
    };
    let bytes = build(packet);
    let given = PacketIn { frame: &bytes, ifindex, came_by: ifindex, note: 0, segment_size: 0 };
    kernel.read_flows(tables)?;
    let mut out = kernel.run(&[first], &given)?;
    if out.code == NEXT {
        kernel.fill(tables)?;
        out = kernel.run(&[first, Program::ToNet], &given)?;
    }
    if out.code == DROPPED {
        return Ok(Ok(Walked::Answered(Answer::Drop)));
    }
    let found = wire::parse(&out.frame[..], packet.l3, frame::ether_type(&out.frame));
    let Ok(found) = found else { return Ok(Err(format!("it became {:02x?}", out.frame))) };
    let is_back = (found.src.addr, found.dst.addr) == (packet.dst.addr, packet.src.addr);
    let is_error = found.kind == Kind::IcmpError || found.tcp_flags & TCP_RST != 0;
    Ok(match out.code {
        REDIRECTED if is_back && is_error => Ok(Walked::Answered(Answer::Refuse)),
        NEXT | REDIRECTED if found.kind == packet.kind => Ok(Walked::Out(found.src, found.dst)),
        code => Err(format!("code {code} and {found:?}")),
    })
}

fn build(packet: &Packet) -> Vec<u8> {
    let (src, dst) = (packet.src.into(), packet.dst.into());
    match packet.kind {
        Kind::Transport(Protocol::Tcp) => frame::tcp(src, dst, packet.tcp_flags, b""),
        Kind::Transport(Protocol::Sctp) => frame::sctp(src, dst, b"as long as it may be"),
        _ => frame::udp(src, dst, b"hello"),
    }
}
