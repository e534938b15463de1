//! Runs a case: in pure Rust, and in the kernel beside it, where every packet that comes out has to be the same byte by
//! byte, and `flows` the same row by row.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use weir_agent::source::Family;
use weir_ebpf::abi::{DropReason, Flow, HopRow, Peer, Tuple};
use weir_ebpf::datapath::Tables as _;
use weir_ebpf::datapath::enforce::{self, PodHook};
use weir_ebpf::datapath::packet::{self, Verdict};
use weir_ebpf::testing::frame::{self, ETHERNET};
use weir_ebpf::testing::{Outcome, apply};
use weir_ebpf::wire::{self, Kind, Packet, TCP_RST, Unusable, parse_quoted};
use zerocopy::IntoBytes as _;

use super::case::{Becomes, Case, Ends, Hook, Sent, Step, What, Who};
use super::checksums::{verify, verify_pieces};
use super::frames::{advertisement, arp, complete_ipv4, mapped, redirect, strange, tiny_piece, with_options};
use super::node::{FIRST_POD, Node, TUNNEL, UPLINK, workload};

/// Another way to run packets, beside the one in pure Rust.
pub trait Beside {
    /// Begins with these tables.
    ///
    /// # Errors
    /// It cannot.
    fn begin(&mut self, node: &Node) -> Result<()>;

    /// The tables are now these, but for flows and fragments.
    ///
    /// # Errors
    /// It cannot.
    fn change(&mut self, node: &Node) -> Result<()>;

    /// Runs a packet and compares what it finds with what pure Rust made of it.
    ///
    /// # Errors
    /// What is different.
    fn compare(&mut self, node: &Node, passed: &Passed<'_>) -> Result<()>;
}

/// What pure Rust made of a packet.
pub struct Passed<'a> {
    /// Where it was, and what is expected of it.
    pub sent: &'a Sent,
    /// As it came.
    pub before: &'a [u8],
    /// As it goes on.
    pub after: &'a [u8],
    /// How it goes on.
    pub outcome: Outcome,
}

impl Passed<'_> {
    /// Whether the kernel is to find it too long for the way on.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        self.sent.becomes == Becomes::TooLong
    }
}

/// Nothing beside: pure Rust alone.
pub struct Alone;

impl Beside for Alone {
    fn begin(&mut self, _node: &Node) -> Result<()> {
        Ok(())
    }

    fn change(&mut self, _node: &Node) -> Result<()> {
        Ok(())
    }

    fn compare(&mut self, _node: &Node, _passed: &Passed<'_>) -> Result<()> {
        Ok(())
    }
}

/// Runs a case in one family.
///
/// # Errors
/// Which step was not as expected, and how.
pub fn judge(case: &Case, family: Family, beside: &mut impl Beside) -> Result<()> {
    let mut node = Node::new(family);
    (case.given)(&mut node);
    beside.begin(&node)?;
    let mut run = Running { node, source: None, pieces: Vec::new() };
    for (number, step) in (1..).zip(&case.steps) {
        run.step(step, beside).with_context(|| format!("step {number}"))?;
    }
    run.check_pieces()?;
    let rows = run.node.tables.flows.borrow().len();
    ensure!(rows == case.rows, "{rows} rows of flows instead of {}", case.rows);
    Ok(())
}

struct Running {
    node: Node,
    source: Option<Peer>,
    /// Pieces that were translated, of one datagram.
    pieces: Vec<Vec<u8>>,
}

impl Running {
    fn step(&mut self, step: &Step, beside: &mut impl Beside) -> Result<()> {
        match step {
            Step::Change(change) => {
                change(&mut self.node);
                beside.change(&self.node)
            }
            Step::Packet(sent) => {
                let before = self.build(sent)?;
                let (outcome, after) = self.pass(sent, &before);
                self.check(sent, outcome, &before, &after)?;
                beside.compare(&self.node, &Passed { sent, before: &before, after: &after, outcome })
            }
        }
    }

    fn peer(&self, who: Who) -> Result<Peer> {
        let source = || self.source.context("no flow has begun");
        Ok(match who {
            Who::Source => source()?,
            Who::Between(port) => Peer { port: source()?.port, ..self.node.peer(Who::Client(port)) },
            who => self.node.peer(who),
        })
    }

    fn build(&self, sent: &Sent) -> Result<Vec<u8>> {
        let (src, dst) = (self.peer(sent.src)?, self.peer(sent.dst)?);
        let ends =
            |a, b| -> Result<(SocketAddr, SocketAddr)> { Ok((self.peer(a)?.into(), self.peer(b)?.into())) };
        let reporter = IpAddr::from(src.addr);
        let (src, dst) = (SocketAddr::from(src), SocketAddr::from(dst));
        let mut bytes = match sent.what {
            What::Tcp(flags, length) => frame::tcp(src, dst, flags, &vec![7; length]),
            What::Udp(length) => frame::udp(src, dst, &vec![7; length]),
            What::Sctp => frame::sctp(src, dst, b"chunks of some length"),
            What::UdpWithOptions => with_options(frame::udp(src, dst, b"behind options")),
            What::UdpMapped => mapped(src.port(), dst.port()),
            What::Piece(id, number) => {
                let whole = frame::udp(src, dst, &[7; 3000]);
                frame::fragments(&whole, 1000, id).into_iter().nth(number).context("no such piece")?
            }
            What::TinyPiece => tiny_piece(src, dst),
            What::Echo => frame::echo_request(src.ip(), dst.ip(), b"anybody there?"),
            What::Arp => arp(src.ip(), dst.ip()),
            What::Advertisement(whose) => advertisement(src.ip(), dst.ip(), self.peer(whose)?.addr),
            What::Redirect => redirect(src.ip(), dst.ip()),
            What::Strange => strange(frame::udp(src, dst, b"in a wrapping")),
            What::TooBig(from, to) => {
                let (from, to) = ends(from, to)?;
                frame::icmp_error(reporter, &frame::tcp(from, to, wire::TCP_ACK, &[1; 100]), true)
            }
            What::Unreachable(from, to) => {
                let (from, to) = ends(from, to)?;
                frame::icmp_error(reporter, &frame::udp(from, to, &[1; 100]), false)
            }
        };
        if let Some(ttl) = sent.ttl {
            set_ttl(&mut bytes, ttl);
        }
        if !sent.hook.has_ethernet() {
            bytes.drain(..ETHERNET);
        }
        Ok(bytes)
    }

    /// In pure Rust.
    fn pass(&self, sent: &Sent, before: &[u8]) -> (Outcome, Vec<u8>) {
        let mut after = before.to_vec();
        let read = parse(sent.hook, before);
        let node = packet::Node {
            tables: &self.node.tables,
            moment: &self.node.moment,
            network: &self.node.network,
        };
        let ether_type = before.get(12..14).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        let came_by = if sent.hook.is_first() { FIRST_POD } else { sent.came_by };
        let at_pod = PodHook { device: FIRST_POD, came_by, ether_type, read, bytes: before };
        let verdict = match (sent.hook, &read) {
            (Hook::FromPod, _) => enforce::arrive_from_pod(&node, &at_pod),
            (Hook::ToPod, _) => enforce::leave_to_pod(&node, &at_pod, false),
            (_, Err(Unusable::MappedAddress)) => {
                // As the programs do, which parse before they ask.
                self.node.tables.count(DropReason::MappedAddress.into());
                Verdict::Drop(DropReason::MappedAddress)
            }
            (_, Err(Unusable::NotIp | Unusable::Malformed)) => Verdict::Pass,
            (Hook::FromNet, Ok(packet)) => enforce::arrive_from_net(&node, UPLINK, packet, before),
            (Hook::FromL3, Ok(packet)) => enforce::arrive_from_net(&node, TUNNEL, packet, before),
            (Hook::ToNet | Hook::ToL3, Ok(packet)) => packet::leave(&node, packet, before),
        };
        let outcome = match (&verdict, &read) {
            (Verdict::Drop(reason), _) => Outcome::Dropped(Some(*reason)),
            (verdict, Ok(packet)) => apply(&mut after, packet, verdict),
            (_, Err(_)) => Outcome::Untouched,
        };
        (outcome, after)
    }

    fn check(&mut self, sent: &Sent, outcome: Outcome, before: &[u8], after: &[u8]) -> Result<()> {
        let ends = match (sent.becomes, outcome) {
            (Becomes::Untouched, Outcome::Untouched) => {
                ensure!(before == after, "it was touched");
                return Ok(());
            }
            (Becomes::Dropped(expected), Outcome::Dropped(Some(found))) if expected == found => return Ok(()),
            (Becomes::Silenced, Outcome::Dropped(None)) => return Ok(()),
            (Becomes::Refused | Becomes::Expired | Becomes::Echoed, Outcome::Answered) => {
                let (l3, found) = (l3(sent.hook), parse(sent.hook, after));
                verify(&after[l3..]).context("the answer")?;
                let found = found.map_err(|why| anyhow::anyhow!("an answer that is {why:?}"))?;
                return self.check_answer(sent, &found, after);
            }
            (Becomes::Cut(src, dst), Outcome::Cut) => return self.check_reset(sent.hook, src, dst, after),
            (Becomes::TooLong, Outcome::Routed) => return Ok(()),
            (Becomes::Stack(ends), Outcome::Stack) | (Becomes::Routed(ends), Outcome::Routed) => ends,
            (Becomes::Delivered(ends, pod), Outcome::Delivered(found)) if found == workload(pod) => ends,
            (expected, found) => bail!("{found:?} instead of {expected:?}"),
        };
        verify(&after[l3(sent.hook)..]).context("the translated packet")?;
        let (was, is) = (parse(sent.hook, before), parse(sent.hook, after));
        let (Ok(was), Ok(is)) = (was, is) else { bail!("it is no packet any more") };
        let hop = u8::from(outcome != Outcome::Stack);
        ensure!(is.ttl + hop == was.ttl, "its time to live went from {} to {}", was.ttl, is.ttl);
        ensure!((is.kind, is.fragment, is.length) == (was.kind, was.fragment, was.length), "{is:?}");
        if let What::Piece(_, number) = sent.what {
            if number == 0 {
                self.check_pieces()?;
            }
            self.pieces.push(after[l3(sent.hook)..].to_vec());
        }
        self.check_ends(ends, &is, after)
    }

    /// Those of one datagram, before another begins.
    fn check_pieces(&mut self) -> Result<()> {
        let pieces = std::mem::take(&mut self.pieces);
        if pieces.is_empty() { Ok(()) } else { verify_pieces(&pieces).context("the pieces put together") }
    }

    fn check_ends(&mut self, ends: Ends, is: &Packet, after: &[u8]) -> Result<()> {
        let (src, dst) = match ends {
            Ends::Shown(to) | Ends::ShownAs(_, to) | Ends::Hidden(to) => {
                let seen = match ends {
                    Ends::Shown(_) => Who::Client(0),
                    Ends::ShownAs(client, _) => client,
                    _ => Who::Node,
                };
                let config = self.node.tables.config.context("no config")?;
                let ports =
                    u32::from(config.first_port)..u32::from(config.first_port) + u32::from(config.ports);
                let port = u32::from(is.src.port.host());
                let addr = self.node.peer(seen).addr;
                ensure!(is.src.addr == addr, "the backend sees {} and not {addr}", is.src);
                ensure!(ports.contains(&port), "{port} is none of our ports");
                self.source = Some(is.src);
                (is.src, self.peer(to)?)
            }
            Ends::Of(src, dst) => (self.peer(src)?, self.peer(dst)?),
            Ends::Quoting([src, dst], quoted) => {
                let found = parse_quoted(after, is).context("it quotes nothing")?;
                let expected = (self.peer(quoted[0])?, self.peer(quoted[1])?);
                ensure!((found.src, found.dst) == expected, "it quotes {} to {}", found.src, found.dst);
                (self.peer(src)?, self.peer(dst)?)
            }
        };
        ensure!((is.src.addr, is.dst.addr) == (src.addr, dst.addr), "from {} to {}", is.src, is.dst);
        let has_ports =
            matches!(is.kind, Kind::Transport(_)) && !matches!(is.fragment, wire::Fragment::Later(_));
        ensure!(!has_ports || (is.src, is.dst) == (src, dst), "from {} to {}", is.src, is.dst);
        Ok(())
    }

    /// A reset and nothing else, between these two.
    fn check_reset(&self, hook: Hook, src: Who, dst: Who, after: &[u8]) -> Result<()> {
        verify(&after[l3(hook)..]).context("the reset")?;
        let found = parse(hook, after).map_err(|why| anyhow::anyhow!("a reset that is {why:?}"))?;
        let expected = (self.peer(src)?, self.peer(dst)?);
        ensure!((found.src, found.dst) == expected, "from {} to {}", found.src, found.dst);
        ensure!(found.tcp_flags & TCP_RST != 0, "{found:?}");
        ensure!(found.length == found.l4 - found.l3 + 20, "it carries something: {found:?}");
        Ok(())
    }

    /// It comes from whoever was dialled, and says what is expected.
    fn check_answer(&self, sent: &Sent, found: &Packet, after: &[u8]) -> Result<()> {
        let (client, dialled) = (self.peer(sent.src)?, self.peer(sent.dst)?);
        ensure!((found.src.addr, found.dst.addr) == (dialled.addr, client.addr), "{found:?}");
        let l4 = usize::try_from(found.l4)?;
        let says = [after[l4], after[l4 + 1]];
        let is_v4 = self.node.family == Family::V4;
        let expected = match sent.becomes {
            Becomes::Echoed => {
                if is_v4 {
                    [0, 0]
                } else {
                    [129, 0]
                }
            }
            Becomes::Expired => {
                if is_v4 {
                    [11, 0]
                } else {
                    [3, 0]
                }
            }
            _ if matches!(sent.what, What::Tcp(..)) => {
                ensure!(
                    (found.src, found.dst) == (dialled, client) && found.tcp_flags & TCP_RST != 0,
                    "{found:?}"
                );
                return Ok(());
            }
            _ => {
                if is_v4 {
                    [3, 3]
                } else {
                    [1, 4]
                }
            }
        };
        ensure!(says == expected, "type and code are {says:?} and not {expected:?}");
        if !matches!(sent.becomes, Becomes::Echoed) {
            let quoted = parse_quoted(after, found).context("it quotes nothing")?;
            ensure!((quoted.src, quoted.dst) == (client, dialled), "it quotes {quoted:?}");
        }
        Ok(())
    }
}

/// Bytes before the IP header.
#[must_use]
pub const fn l3(hook: Hook) -> usize {
    if hook.has_ethernet() { ETHERNET } else { 0 }
}

/// What a hook reads. Without an Ethernet header the family stands in the packet alone.
///
/// # Errors
/// Why it is none of ours.
pub fn parse(hook: Hook, bytes: &[u8]) -> Result<Packet, Unusable> {
    if hook.has_ethernet() {
        return wire::parse(bytes, 14, frame::ether_type(bytes));
    }
    let is_v4 = bytes.first().is_some_and(|first| first >> 4 == 4);
    wire::parse(bytes, 0, if is_v4 { 0x0800 } else { 0x86dd })
}

/// The rows, without the moments at which they were written and what holds for a moment alone, in an order of their own.
#[must_use]
pub fn timeless<'a>(rows: impl Iterator<Item = (&'a Tuple, &'a Flow)>) -> Vec<(Tuple, Flow)> {
    let timeless = |(tuple, flow): (&Tuple, &Flow)| {
        let mut flow = *flow;
        (flow.begun_s, flow.seen_s) = (0, u32::from(flow.seen_s != 0));
        flow.hop = HopRow::default();
        (*tuple, flow)
    };
    let mut rows: Vec<_> = rows.map(timeless).collect();
    rows.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
    rows
}

fn set_ttl(frame: &mut [u8], ttl: u8) {
    if frame[ETHERNET] >> 4 == 4 {
        frame[ETHERNET + 8] = ttl;
        complete_ipv4(frame);
    } else {
        frame[ETHERNET + 7] = ttl;
    }
}
