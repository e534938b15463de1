//! The kernel beside pure Rust: the same packets at the same hooks.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, bail, ensure};
use weir_agent::kernel::{PacketIn, PacketOut};
use weir_ebpf::abi::{Config, Counter, Judged, JudgedKey};
use weir_ebpf::testing::{MemoryTables, Outcome};
use zerocopy::IntoBytes as _;

use super::case::Hook;
use super::checksums::verify;
use super::judge::{Beside, Passed, l3, parse, timeless};
use super::kernel::{DROPPED, Kernel, NEXT, Program, REDIRECTED};
use super::node::{FIRST_POD, FLOWS, Node, TUNNEL, UPLINK};
use super::told::Told;

/// The note of a hook that nobody need look at the packet again (`Note` in ebpf/src/programs/skb.rs).
const DONE: u32 = 0x5765;
/// The note of the first hooks on what goes through the stack.
const FORWARDED_BY_US: u32 = 0x5764;

/// Of packets that the stack forwards (`FORWARDED` in ebpf/src/programs/act.rs).
const FORWARDED: u32 = 0x4000;

/// The kernel, with the node's devices and routes.
pub struct InKernel {
    kernel: Kernel,
    /// What processes of the node have.
    sockets: Vec<UdpSocket>,
    /// What pure Rust counted up to the last packet.
    counted: HashMap<Counter, u64>,
}

impl InKernel {
    /// # Errors
    /// Those of [`Kernel::new`].
    pub fn new() -> Result<Self> {
        let kernel = Kernel::new("cases", &Node::commands(), FLOWS)?;
        Ok(Self { kernel, sockets: Vec::new(), counted: HashMap::new() })
    }

    /// The note that the hook leaves: in a second run that begins where the first did and ends where it did.
    fn note(&mut self, program: Program, packet: &PacketIn<'_>, before: &MemoryTables) -> Result<u32> {
        let (after, again) = (MemoryTables::default(), MemoryTables::default());
        self.kernel.read_flows(&after)?;
        self.kernel.fill_flows(before)?;
        let note = self.kernel.run_for_note(&[program], packet)?;
        self.kernel.read_flows(&again)?;
        ensure!(
            timeless(after.flows.borrow().iter()) == timeless(again.flows.borrow().iter()),
            "a second time it leaves other flows"
        );
        Ok(note)
    }
}

impl Beside for InKernel {
    fn begin(&mut self, node: &Node) -> Result<()> {
        self.sockets.clear();
        self.counted.clear();
        for (_, local) in &node.network.sockets {
            let local = SocketAddr::from(*local);
            self.sockets.push(UdpSocket::bind(local).with_context(|| format!("binding {local}"))?);
        }
        self.kernel.fill(&node.tables)
    }

    fn change(&mut self, node: &Node) -> Result<()> {
        let tables = node.tables.clone();
        self.kernel.read_flows(&tables)?;
        self.kernel.fill(&tables)
    }

    fn compare(&mut self, node: &Node, passed: &Passed<'_>) -> Result<()> {
        let (program, ifindex) = match passed.sent.hook {
            Hook::FromPod => (Program::FromPod, FIRST_POD),
            Hook::FromNet => (Program::FromNet, UPLINK),
            Hook::FromL3 => (Program::FromL3, TUNNEL),
            Hook::ToNet => (Program::ToNet, UPLINK),
            Hook::ToPod => (Program::ToPod, FIRST_POD),
            Hook::ToL3 => (Program::ToL3, TUNNEL),
        };
        let came_by = if passed.sent.hook.is_first() { ifindex } else { passed.sent.came_by };
        let packet =
            PacketIn { frame: passed.before, ifindex, came_by, note: 0, segment_size: passed.sent.segment };
        let before = MemoryTables::default();
        self.kernel.read_flows(&before)?;
        let expected = self.expected_counts(node, passed);
        self.kernel.drop_events()?;
        let counted = self.kernel.counters()?;
        let out = self.kernel.run(&[program], &packet)?;
        compare_packets(passed, &out).context("in the kernel")?;
        let mark = expected_mark(node, passed);
        ensure!(out.mark == mark, "the mark is {:#x}", out.mark);
        let mut counts = difference(&self.kernel.counters()?, &counted);
        let told = [Counter::DropTold, Counter::DropUntold].map(|one| counts.remove(&one).unwrap_or(0));
        let events = self.kernel.drop_events()?;
        Told { node, passed, packet: &packet, expected: &expected }.compare(told, &events).context("told")?;
        ensure!(counts == expected, "it counts {counts:?} and not {expected:?}");
        let found = MemoryTables::default();
        self.kernel.read_flows(&found)?;
        compare_tables(&node.tables, &found)?;
        let note = self.note(program, &packet, &before)?;
        let expected = expected_note(passed);
        ensure!(expected.is_none_or(|expected| note == expected), "it leaves the note {note:#x}");
        // With policies it is judged all the same.
        if !passed.sent.hook.is_first() && !node.tables.enforcement.is_on() {
            self.leave_finished_alone(program, &packet)?;
        }
        if passed.sent.hook == Hook::ToPod && ![0, ifindex].contains(&came_by) {
            self.judge_a_piece(program, &packet, out.code)?;
        }
        Ok(())
    }
}

impl InKernel {
    /// What pure Rust counted for the packet; that one cannot go on past the stack is the kernel's to find out.
    fn expected_counts(&mut self, node: &Node, passed: &Passed<'_>) -> HashMap<Counter, u64> {
        let counted = node.tables.counters.borrow().clone();
        let mut counts = difference(&counted, &self.counted);
        if passed.is_too_long() {
            counts.insert(Counter::RedirectFailed, 1);
        }
        self.counted = counted;
        counts
    }

    /// Of a piece that the node cut the kernel may not know by which device it came: it is no packet of the node for that.
    fn judge_a_piece(&mut self, program: Program, packet: &PacketIn<'_>, code: i32) -> Result<()> {
        let before = MemoryTables::default();
        self.kernel.read_flows(&before)?;
        let out = self.kernel.run(&[program], &PacketIn { came_by: 0, note: FORWARDED_BY_US, ..*packet })?;
        self.kernel.fill_flows(&before)?;
        ensure!(out.code == code, "as a piece whose device is forgotten it returns {}", out.code);
        Ok(())
    }

    /// A packet that another hook finished is none of the last one's.
    fn leave_finished_alone(&mut self, program: Program, packet: &PacketIn<'_>) -> Result<()> {
        let out = self.kernel.run(&[program], &PacketIn { note: DONE, ..*packet })?;
        ensure!((out.code, &out.frame[..]) == (NEXT, packet.frame), "what is finished was touched again");
        Ok(())
    }
}

fn difference(after: &HashMap<Counter, u64>, before: &HashMap<Counter, u64>) -> HashMap<Counter, u64> {
    let before = |counter| before.get(counter).copied().unwrap_or_default();
    let counts = after.iter().map(|(counter, count)| (*counter, count - before(counter)));
    counts.filter(|(_, count)| *count != 0).collect()
}

/// That the stack forwards the packet of somebody outside, where neighbours are to know it.
fn expected_mark(node: &Node, passed: &Passed<'_>) -> u32 {
    let is_from_outside = matches!(passed.sent.hook, Hook::FromNet | Hook::FromL3);
    let marks = node.tables.config.is_some_and(|config| config.flags & Config::MARK_FORWARDED != 0);
    if marks && is_from_outside && passed.outcome == Outcome::Stack { FORWARDED } else { 0 }
}

/// What the last hook sees next to the packet; of a dropped one nobody sees anything.
fn expected_note(passed: &Passed<'_>) -> Option<u32> {
    let is_first = passed.sent.hook.is_first();
    match passed.outcome {
        Outcome::Dropped(_) => None,
        Outcome::Untouched | Outcome::Stack if is_first => Some(FORWARDED_BY_US),
        Outcome::Untouched => Some(0),
        Outcome::Stack | Outcome::Routed | Outcome::Delivered(_) | Outcome::Answered | Outcome::Cut => {
            Some(DONE)
        }
    }
}

fn compare_packets(passed: &Passed<'_>, out: &PacketOut) -> Result<()> {
    let code = match passed.outcome {
        Outcome::Untouched | Outcome::Stack => NEXT,
        Outcome::Cut if !passed.sent.hook.is_first() => NEXT,
        Outcome::Routed | Outcome::Delivered(_) | Outcome::Answered | Outcome::Cut => REDIRECTED,
        Outcome::Dropped(_) => DROPPED,
    };
    ensure!(out.code == code, "it returns {} and not {code}: {:02x?}", out.code, out.frame);
    if code == DROPPED {
        return Ok(());
    }
    if passed.is_too_long() {
        return check_too_long(passed, out);
    }
    let mut expected = passed.after.to_vec();
    // The first of a window leaves it to the kernel to address the frame; those that follow do it themselves.
    let by_hop = out.frame.get(..12) == Some(&Node::hop());
    if passed.outcome == Outcome::Routed && l3(passed.sent.hook) != 0 && by_hop {
        expected[..12].copy_from_slice(&Node::hop());
    }
    if expected != out.frame {
        let at = expected.iter().zip(&out.frame).position(|(a, b)| a != b);
        let (expected_len, len) = (expected.len(), out.frame.len());
        bail!(
            "from byte {at:?} on, of {len} and {expected_len}:\n{:02x?}\ninstead of\n{expected:02x?}",
            out.frame
        );
    }
    Ok(())
}

/// The sender hears of the MTU in the name of what it dialled.
fn check_too_long(passed: &Passed<'_>, out: &PacketOut) -> Result<()> {
    let hook = passed.sent.hook;
    verify(&out.frame[l3(hook)..])?;
    let (Ok(before), Ok(after)) = (parse(hook, passed.before), parse(hook, &out.frame)) else {
        bail!("no packet")
    };
    ensure!((after.src.addr, after.dst.addr) == (before.dst.addr, before.src.addr), "{after:?}");
    let l4 = usize::try_from(after.l4)?;
    let (says, expected) = (&out.frame[l4..l4 + 2], if before.src.addr.is_v4() { [3, 4] } else { [2, 0] });
    ensure!(says == expected, "type and code are {says:?}");
    let mtu = &out.frame[l4 + 4..l4 + 8];
    ensure!(mtu == 1500_u32.to_be_bytes(), "the MTU is {mtu:?}");
    Ok(())
}

/// Without the moments, in an order of their own.
fn judged(tables: &MemoryTables) -> Vec<(JudgedKey, Judged)> {
    let rows = tables.judged.borrow();
    let timeless = |(key, row): (&JudgedKey, &Judged)| {
        let mut row = *row;
        (row.seen_s, row.begun_s) = (0, 0);
        (*key, row)
    };
    let mut rows: Vec<_> = rows.iter().map(timeless).collect();
    rows.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
    rows
}

fn compare_tables(expected_tables: &MemoryTables, found_tables: &MemoryTables) -> Result<()> {
    let (expected, found) = (expected_tables, found_tables);
    let (expected_rows, rows) =
        (timeless(expected.flows.borrow().iter()), timeless(found.flows.borrow().iter()));
    ensure!(expected_rows == rows, "flows are {rows:#?}\ninstead of {expected_rows:#?}");
    let (expected, found) = (expected.fragments.borrow(), found.fragments.borrow());
    let same =
        |key| expected.get(key).zip(found.get(key)).is_some_and(|(a, b)| (a.src, a.dst) == (b.src, b.dst));
    ensure!(expected.len() == found.len() && expected.keys().all(same), "fragments are {found:?}");
    let (judged, kernels) = (judged(expected_tables), judged(found_tables));
    ensure!(judged == kernels, "judged are {kernels:#?}\ninstead of {judged:#?}");
    let rows = |tables: &MemoryTables| -> HashMap<u32, u32> {
        tables.shares.borrow().iter().map(|(device, share)| (*device, share.rows)).collect()
    };
    let (shares, kernels) = (rows(expected_tables), rows(found_tables));
    ensure!(shares == kernels, "shares are {kernels:?} instead of {shares:?}");
    Ok(())
}
