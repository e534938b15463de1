//! Single packets through the programs, by `BPF_PROG_TEST_RUN`: nothing is attached and nothing is sent.
//!
//! The kernel takes no `tc_index` in the context of such a run, nor does it give one back. A program of our own stands
//! before the one on trial: it hands the note over, and tells it afterwards. Called by the tests of other packages.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, anyhow};
use aya::maps::{Array, HashMap, Map};
use weir_ebpf::abi::{
    Addr, BoundPod, ClassId, Enforcement, Flow, FragmentKey, FragmentRow, Judged, JudgedKey, NetworkKey,
    PortRule, PortRuleKey, PortRulesId, Share, Tuple, VerdictKey,
};
use weir_ebpf::testing::MemoryTables;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::batch;
use super::generation::Generation;
use super::hooks::Hooks;
use super::row::Row;
use super::sys::{self, LinkPoint, ProgramKind, TestRun, XdpFlags};

/// Room for a packet that grew.
const ROOM: usize = 8192;

/// Offsets in `struct __sk_buff` (include/uapi/linux/bpf.h), and its size.
mod context {
    pub(super) const MARK: usize = 8;
    pub(super) const INGRESS_IFINDEX: usize = 36;
    pub(super) const IFINDEX: usize = 40;
    pub(super) const TC_INDEX: usize = 44;
    /// How many programs ran on the packet.
    pub(super) const RAN: usize = 48;
    /// The note that they left.
    pub(super) const LEFT: usize = 52;
    /// The note that they find.
    pub(super) const FOUND: usize = 56;
    pub(super) const SEGMENTS: usize = 164;
    pub(super) const SEGMENT_SIZE: usize = 176;
    pub(super) const SIZE: usize = 192;
}

/// A packet on its way into a program.
#[derive(Clone, Copy, Debug)]
pub struct PacketIn<'a> {
    /// The packet, from where its device's header begins; at least as long as an Ethernet header.
    pub frame: &'a [u8],
    /// The device of the hook, in this thread's network namespace.
    pub ifindex: u32,
    /// The device by which it came to this node; 0: this node made it.
    pub came_by: u32,
    /// `tc_index`, which a hook before this one may have written.
    pub note: u32,
    /// Payload of each segment that a device is to make of it, in bytes; 0: it is one.
    pub segment_size: u32,
}

/// The same packet afterwards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PacketOut {
    /// What the program returned: `TC_ACT_UNSPEC` (-1), `TC_ACT_SHOT` (2), `TC_ACT_REDIRECT` (7).
    pub code: i32,
    /// The packet.
    pub frame: Vec<u8>,
    /// The firewall mark.
    pub mark: u32,
}

/// Programs of a [`Hooks`] to be tried, one after the other, on one packet.
#[derive(Debug)]
pub struct Trial {
    stand_in: OwnedFd,
    /// The program that comes n-th is in its n-th place. Held, for the stand-in calls into it.
    _programs: OwnedFd,
    count: u32,
}

impl Trial {
    /// Of these programs, by their names.
    ///
    /// # Errors
    /// There is no such program, or the kernel's.
    pub fn new(hooks: &Hooks, names: &[&str]) -> anyhow::Result<Self> {
        let count = u32::try_from(names.len())?;
        let programs = sys::create_program_array(count + 1).context("making an array of programs")?;
        for (place, name) in (0..).zip(names) {
            let program = hooks.device_program(name)?.fd;
            sys::put_program(programs.as_fd(), place, program)
                .with_context(|| format!("putting {name} into an array of programs"))?;
        }
        let stand_in = sys::load_program(ProgramKind::Classifier, &stand_in(programs.as_fd()))
            .context("loading the stand-in")?;
        Ok(Self { stand_in, _programs: programs, count })
    }

    /// The packet after all of them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn run(&self, packet: &PacketIn<'_>) -> io::Result<PacketOut> {
        let ran = run(&self.stand_in, packet, self.count)?;
        Ok(PacketOut { code: ran.code, frame: ran.frame, mark: word(&ran.context, context::MARK) })
    }

    /// The note that they leave. They run for it: the tables change as in [`Trial::run`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn run_for_note(&self, packet: &PacketIn<'_>) -> io::Result<u32> {
        let ran = run(&self.stand_in, packet, self.count + 1)?;
        Ok(word(&ran.context, context::LEFT))
    }
}

/// One program, or none, run again and again on one packet, each time with another source port if that is asked for. What the
/// program that changes the port takes itself is the same with and without one behind it.
#[derive(Debug)]
pub struct Series {
    stand_in: OwnedFd,
    /// The program, if there is one. Held, for the stand-in calls into it.
    _programs: OwnedFd,
}

impl Series {
    /// Of the program with this name. The source port is at `offset` in the frame; `varies`: one more in each run.
    ///
    /// # Errors
    /// There is no such program, or the kernel's.
    pub fn new(hooks: &Hooks, name: Option<&str>, offset: u16, varies: bool) -> anyhow::Result<Self> {
        let programs = sys::create_program_array(1).context("making an array of programs")?;
        if let Some(name) = name {
            sys::put_program(programs.as_fd(), 0, hooks.device_program(name)?.fd)
                .with_context(|| format!("putting {name} into an array of programs"))?;
        }
        let stand_in = sys::load_program(ProgramKind::Classifier, &series(programs.as_fd(), offset, varies))
            .context("loading the stand-in")?;
        Ok(Self { stand_in, _programs: programs })
    }

    /// What came of the last run, and the nanoseconds of one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn run(&self, packet: &PacketIn<'_>, times: u32) -> io::Result<(i32, u32)> {
        let ran = run(&self.stand_in, packet, times)?;
        Ok((ran.code, ran.nanoseconds))
    }
}

/// What came of the last of some runs.
struct Ran {
    code: i32,
    /// What one took, of all of them.
    nanoseconds: u32,
    frame: Vec<u8>,
    context: [u8; context::SIZE],
}

fn run(stand_in: &OwnedFd, packet: &PacketIn<'_>, times: u32) -> io::Result<Ran> {
    let mut before = [0; context::SIZE];
    let segments = if packet.segment_size == 0 {
        0
    } else {
        u32::try_from(packet.frame.len()).map_err(io::Error::other)?.div_ceil(packet.segment_size)
    };
    for (at, value) in [
        (context::INGRESS_IFINDEX, packet.came_by),
        (context::IFINDEX, packet.ifindex),
        (context::FOUND, packet.note),
        (context::SEGMENTS, segments),
        (context::SEGMENT_SIZE, packet.segment_size),
    ] {
        before[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    let (mut context, mut frame) = ([0; context::SIZE], vec![0; ROOM]);
    let ran = sys::test_run(&mut TestRun {
        program: stand_in.as_fd(),
        packet: packet.frame,
        packet_after: &mut frame,
        context: &before,
        context_after: &mut context,
        times,
    })?;
    frame.truncate(ran.length);
    Ok(Ran { code: ran.code, nanoseconds: ran.nanoseconds, frame, context })
}

fn word(context: &[u8; context::SIZE], at: usize) -> u32 {
    context[at..].first_chunk().map_or(0, |word| u32::from_ne_bytes(*word))
}

/// Of run after run on one packet each calls another program; the one after the last only takes down the note.
fn stand_in(programs: BorrowedFd<'_>) -> Vec<u64> {
    let array = programs.as_raw_fd();
    vec![
        // r6 = context; r7 = how many ran
        instruction(0xbf, 6, 1, 0, 0),
        instruction(0x61, 7, 6, context::RAN, 0),
        // The first time, hand the note over.
        instruction(0x55, 7, 0, 2, 0),
        instruction(0x61, 8, 6, context::FOUND, 0),
        instruction(0x63, 6, 8, context::TC_INDEX, 0),
        // One more ran.
        instruction(0xbf, 8, 7, 0, 0),
        instruction(0x07, 8, 0, 0, 1),
        instruction(0x63, 6, 8, context::RAN, 0),
        // bpf_tail_call(context, programs, r7)
        instruction(0xbf, 1, 6, 0, 0),
        instruction(0x18, 2, 1, 0, array),
        0,
        instruction(0xbf, 3, 7, 0, 0),
        instruction(0x85, 0, 0, 0, 12),
        // There is none.
        instruction(0x61, 8, 6, context::TC_INDEX, 0),
        instruction(0x63, 6, 8, context::LEFT, 0),
        instruction(0xb7, 0, 0, 0, 0),
        instruction(0x95, 0, 0, 0, 0),
    ]
}

/// Writes a source port, the number of the run or always the same, and calls the program.
fn series(programs: BorrowedFd<'_>, offset: u16, varies: bool) -> Vec<u64> {
    let array = programs.as_raw_fd();
    vec![
        // r6 = context; r7 = how many ran
        instruction(0xbf, 6, 1, 0, 0),
        instruction(0x61, 7, 6, context::RAN, 0),
        // One more ran.
        instruction(0xbf, 8, 7, 0, 0),
        instruction(0x07, 8, 0, 0, 1),
        instruction(0x63, 6, 8, context::RAN, 0),
        // No hook before left a note.
        instruction(0xb7, 8, 0, 0, 0),
        instruction(0x63, 6, 8, context::TC_INDEX, 0),
        // The port: below those that are anybody's own, in any order of bytes.
        instruction(0x57, 7, 0, 0, if varies { 0x3fff } else { 0 }),
        instruction(0x07, 7, 0, 0, 0x4000),
        instruction(0xdc, 7, 0, 0, 16),
        instruction(0x6b, 10, 7, usize::from(2_u16.wrapping_neg()), 0),
        // bpf_skb_store_bytes(context, offset, stack - 2, 2, 0)
        instruction(0xbf, 1, 6, 0, 0),
        instruction(0xb7, 2, 0, 0, i32::from(offset)),
        instruction(0xbf, 3, 10, 0, 0),
        instruction(0x07, 3, 0, 0, -2),
        instruction(0xb7, 4, 0, 0, 2),
        instruction(0xb7, 5, 0, 0, 0),
        instruction(0x85, 0, 0, 0, 9),
        // bpf_tail_call(context, programs, 0)
        instruction(0xbf, 1, 6, 0, 0),
        instruction(0x18, 2, 1, 0, array),
        0,
        instruction(0xb7, 3, 0, 0, 0),
        instruction(0x85, 0, 0, 0, 12),
        // There is none.
        instruction(0xb7, 0, 0, 0, 0),
        instruction(0x95, 0, 0, 0, 0),
    ]
}

/// `struct bpf_insn`
#[expect(clippy::cast_possible_truncation, reason = "offsets in the context")]
fn instruction(code: u8, dst: u8, src: u8, offset: usize, value: i32) -> u64 {
    let registers = if cfg!(target_endian = "little") { dst | (src << 4) } else { (dst << 4) | src };
    let ([a, b], [c, d, e, f]) = ((offset as u16).to_ne_bytes(), value.to_ne_bytes());
    u64::from_ne_bytes([code, registers, a, b, c, d, e, f])
}

/// A packet after the XDP program, which these hooks have. The code is an `XDP_` action.
///
/// # Errors
/// The hooks have none, or the kernel's.
pub fn run_at_xdp(hooks: &Hooks, frame: &[u8], device: u32) -> anyhow::Result<PacketOut> {
    let program = hooks.xdp_program()?.context("no XDP program is loaded")?;
    // struct xdp_md: where the packet begins, ends and has its metadata; device, its queue, the device out
    let length = u32::try_from(frame.len())?;
    let fields = [0, length, 0, device, 0, 0].map(u32::to_ne_bytes);
    let (mut context_after, mut after) = ([0; 24], vec![0; ROOM]);
    let ran = sys::test_run(&mut TestRun {
        program: program.fd,
        packet: frame,
        packet_after: &mut after,
        context: fields.as_flattened(),
        context_after: &mut context_after,
        times: 1,
    })?;
    after.truncate(ran.length);
    Ok(PacketOut { code: ran.code, frame: after, mark: 0 })
}

/// An XDP program at a device of this thread's network namespace that lets everything pass, for as long as the result is held.
/// A veth takes what the XDP program of its peer sends only with a program of its own.
///
/// # Errors
/// The kernel's.
pub fn pass_at_xdp(device: u32) -> io::Result<OwnedFd> {
    // r0 = XDP_PASS
    let pass = [instruction(0xb7, 0, 0, 0, 2), instruction(0x95, 0, 0, 0, 0)];
    let program = sys::load_program(ProgramKind::Xdp, &pass)?;
    sys::create_device_link(program.as_fd(), device, LinkPoint::Xdp(XdpFlags::Driver))
}

/// Makes the tables of policies hold what is in these, and nothing else.
///
/// # Errors
/// The kernel's.
pub fn fill_policies(generation: &Generation, tables: &MemoryTables) -> anyhow::Result<()> {
    let policy = &tables.policy;
    fill::<u32, BoundPod>(generation, "POD_POLICIES", tables.pods.iter())?;
    fill::<Addr, ClassId>(generation, "ADDRESS_CLASSES", policy.addresses.iter())?;
    fill::<NetworkKey, ClassId>(generation, "NETWORK_CLASSES", policy.networks.iter())?;
    fill::<VerdictKey, PortRulesId>(generation, "VERDICTS", policy.verdicts.iter())?;
    fill::<PortRuleKey, PortRule>(generation, "PORT_RULES", policy.port_rules.iter())?;
    let mut map: Array<_, Row<Enforcement>> = Map::Array(generation.open("ENFORCEMENT")?).try_into()?;
    Ok(map.set(0, Row(tables.enforcement), 0)?)
}

/// The same of `judged`, and of how it is shared.
///
/// # Errors
/// The kernel's.
pub fn fill_judged(generation: &Generation, tables: &MemoryTables) -> anyhow::Result<()> {
    fill::<JudgedKey, Judged>(generation, "JUDGED", tables.judged.borrow().iter())?;
    fill::<u32, Share>(generation, "JUDGED_SHARES", tables.shares.borrow().iter())
}

/// What the programs left in `judged`, into these tables.
///
/// # Errors
/// The kernel's.
pub fn read_judged(generation: &Generation, tables: &MemoryTables) -> anyhow::Result<()> {
    let judged = batch::read_all(generation.open("JUDGED")?.fd().as_fd()).context("reading judged")?;
    let shares = batch::read_all(generation.open("JUDGED_SHARES")?.fd().as_fd()).context("reading shares")?;
    *tables.judged.borrow_mut() = judged.into_iter().collect();
    *tables.shares.borrow_mut() = shares.into_iter().collect();
    Ok(())
}

/// Makes `flows` and `fragments` hold what is in these tables, and nothing else.
///
/// # Errors
/// The kernel's.
pub fn fill_flows(generation: &Generation, tables: &MemoryTables) -> anyhow::Result<()> {
    fill::<Tuple, Flow>(generation, "FLOWS", tables.flows.borrow().iter())?;
    fill::<FragmentKey, FragmentRow>(generation, "FRAGMENTS", tables.fragments.borrow().iter())
}

/// What is in `flows` and `fragments`, into these tables.
///
/// # Errors
/// The kernel's.
pub fn read_flows(generation: &Generation, tables: &MemoryTables) -> anyhow::Result<()> {
    let flows = batch::read_all(generation.open("FLOWS")?.fd().as_fd()).context("reading flows")?;
    let fragments =
        batch::read_all(generation.open("FRAGMENTS")?.fd().as_fd()).context("reading fragments")?;
    *tables.flows.borrow_mut() = flows.into_iter().collect();
    *tables.fragments.borrow_mut() = fragments.into_iter().collect();
    Ok(())
}

fn fill<'a, K, V>(
    generation: &Generation,
    name: &str,
    rows: impl Iterator<Item = (&'a K, &'a V)>,
) -> anyhow::Result<()>
where
    K: FromBytes + IntoBytes + Immutable + Copy + 'static,
    V: FromBytes + IntoBytes + Immutable + Copy + 'static,
{
    let data = generation.open(name)?;
    let before: Vec<(K, V)> = batch::read_all(data.fd().as_fd()).with_context(|| name.to_owned())?;
    let mut map: HashMap<_, Row<K>, Row<V>> = Map::HashMap(data).try_into()?;
    for (key, _) in before {
        map.remove(&Row(key)).map_err(|error| anyhow!("emptying {name}: {error}"))?;
    }
    for (key, row) in rows {
        map.insert(Row(*key), Row(*row), 0).map_err(|error| anyhow!("filling {name}: {error}"))?;
    }
    Ok(())
}
