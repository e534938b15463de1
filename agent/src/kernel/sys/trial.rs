//! The `bpf` commands that run a program on one packet.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{MapCreate, MapUpdate, bpf, bpf_mut, create_map, own, uapi};

const PROG_LOAD: i64 = 5;
const PROG_TEST_RUN: i64 = 10;
const MAP_TYPE_PROG_ARRAY: u32 = 3;

/// Kinds of programs: `enum bpf_prog_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(in crate::kernel) enum ProgramKind {
    Classifier = 3,
    Xdp = 6,
}

/// An array for so many programs.
pub(in crate::kernel) fn create_program_array(places: u32) -> io::Result<OwnedFd> {
    create_map(&MapCreate {
        map_type: MAP_TYPE_PROG_ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: places,
        map_flags: 0,
        inner_map_fd: 0,
    })
}

/// Puts a program into such an array.
pub(in crate::kernel) fn put_program(
    array: BorrowedFd<'_>,
    place: u32,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    let value = program.as_raw_fd();
    let attr = MapUpdate {
        map_fd: array.as_raw_fd().cast_unsigned().into(),
        key: std::ptr::from_ref(&place).expose_provenance() as u64,
        value: std::ptr::from_ref(&value).expose_provenance() as u64,
        flags: 0,
    };
    bpf(uapi::MAP_UPDATE_ELEM, &attr).map(|_| ())
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ProgLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// A program of these instructions.
pub(in crate::kernel) fn load_program(kind: ProgramKind, instructions: &[u64]) -> io::Result<OwnedFd> {
    own(bpf(
        PROG_LOAD,
        &ProgLoad {
            kind: kind as u32,
            count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
            instructions: instructions.as_ptr().expose_provenance() as u64,
            license: c"GPL".as_ptr().expose_provenance() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
        },
    )?)
}

/// A packet, its context and room for both as they are afterwards.
pub(in crate::kernel) struct TestRun<'a> {
    pub(in crate::kernel) program: BorrowedFd<'a>,
    pub(in crate::kernel) packet: &'a [u8],
    pub(in crate::kernel) packet_after: &'a mut [u8],
    pub(in crate::kernel) context: &'a [u8],
    pub(in crate::kernel) context_after: &'a mut [u8],
    /// How often it runs on the packet; the result is the last run's.
    pub(in crate::kernel) times: u32,
}

/// What a run left beside what it wrote.
pub(in crate::kernel) struct Ran {
    pub(in crate::kernel) code: i32,
    /// Of the packet, in bytes.
    pub(in crate::kernel) length: usize,
    /// What a run took, of all of them.
    pub(in crate::kernel) nanoseconds: u32,
}

/// The kernel writes the results into it.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Attr {
    program: u32,
    code: u32,
    packet_size: u32,
    packet_after_size: u32,
    packet: u64,
    packet_after: u64,
    times: u32,
    nanoseconds: u32,
    context_size: u32,
    context_after_size: u32,
    context: u64,
    context_after: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    zero: u32,
}

/// Runs a program on a packet.
pub(in crate::kernel) fn test_run(run: &mut TestRun<'_>) -> io::Result<Ran> {
    let size = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
    let mut attr = Attr {
        program: run.program.as_raw_fd().cast_unsigned(),
        code: 0,
        packet_size: size(run.packet.len())?,
        packet_after_size: size(run.packet_after.len())?,
        packet: run.packet.as_ptr().expose_provenance() as u64,
        packet_after: run.packet_after.as_mut_ptr().expose_provenance() as u64,
        times: run.times,
        nanoseconds: 0,
        context_size: size(run.context.len())?,
        context_after_size: size(run.context_after.len())?,
        context: run.context.as_ptr().expose_provenance() as u64,
        context_after: run.context_after.as_mut_ptr().expose_provenance() as u64,
        flags: 0,
        cpu: 0,
        batch_size: 0,
        zero: 0,
    };
    // The slices are there for as long as it takes, with the sizes that are given.
    bpf_mut(PROG_TEST_RUN, &mut attr)?;
    let length = usize::try_from(attr.packet_after_size).map_err(io::Error::other)?;
    Ok(Ran { code: attr.code.cast_signed(), length, nanoseconds: attr.nanoseconds })
}
