//! The `bpf` commands that aya does not offer: link update and info, map in map, batches.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[cfg(feature = "testing")]
mod trial;

#[cfg(feature = "testing")]
pub(super) use trial::{ProgramKind, TestRun, create_program_array, load_program, put_program, test_run};

/// Numbers of `enum bpf_cmd` and `enum bpf_map_type` (include/uapi/linux/bpf.h).
mod uapi {
    pub(super) const MAP_CREATE: i64 = 0;
    pub(super) const MAP_UPDATE_ELEM: i64 = 2;
    pub(super) const MAP_LOOKUP_AND_DELETE_ELEM: i64 = 21;
    pub(super) const OBJ_PIN: i64 = 6;
    pub(super) const OBJ_GET: i64 = 7;
    pub(super) const OBJ_GET_INFO_BY_FD: i64 = 15;
    pub(super) const MAP_LOOKUP_BATCH: i64 = 24;
    pub(super) const LINK_CREATE: i64 = 28;
    pub(super) const LINK_UPDATE: i64 = 29;
    pub(super) const LINK_DETACH: i64 = 34;
    pub(super) const MAP_TYPE_ARRAY: u32 = 2;
    pub(super) const MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
    /// `enum bpf_link_type`
    pub(super) const LINK_TYPE_XDP: u32 = 6;
    pub(super) const LINK_TYPE_TCX: u32 = 11;
    /// `enum bpf_attach_type`
    pub(super) const ATTACH_XDP: u32 = 37;
}

fn bpf<A: IntoBytes + Immutable>(command: i64, attr: &A) -> io::Result<i64> {
    // SAFETY: the kernel reads size_of::<A>() bytes; pointers inside are the callers' to vouch for. Commands that
    // write to the attribute go through `bpf_mut`.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A command that also writes to its attribute: how much it read, or how much there was.
fn bpf_mut<A: FromBytes + IntoBytes>(command: i64, attr: &mut A) -> io::Result<i64> {
    // SAFETY: the kernel reads and writes size_of::<A>() bytes, and any bytes are an `A`; pointers inside are the
    // callers' to vouch for.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

fn create_map(attr: &MapCreate) -> io::Result<OwnedFd> {
    own(bpf(uapi::MAP_CREATE, attr)?)
}

fn own(fd: i64) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An array of one number.
pub(super) fn create_array() -> io::Result<OwnedFd> {
    create_map(&MapCreate {
        map_type: uapi::MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        map_flags: 0,
        inner_map_fd: 0,
    })
}

/// An array of one map such as `inner`.
pub(super) fn create_array_of_maps(inner: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    create_map(&MapCreate {
        map_type: uapi::MAP_TYPE_ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        map_flags: 0,
        inner_map_fd: inner.as_raw_fd().cast_unsigned(),
    })
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct MapUpdate {
    map_fd: u64,
    key: u64,
    value: u64,
    flags: u64,
}

/// Takes a row out of a hash in one step; `None` where there is none.
pub(super) fn take_row<K, V>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>>
where
    K: IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    let mut value = V::new_zeroed();
    let attr = MapUpdate {
        map_fd: map.as_raw_fd().cast_unsigned().into(),
        key: std::ptr::from_ref(key).expose_provenance() as u64,
        value: std::ptr::from_mut(&mut value).expose_provenance() as u64,
        flags: 0,
    };
    match bpf(uapi::MAP_LOOKUP_AND_DELETE_ELEM, &attr) {
        // SAFETY: read as the kernel left it, behind the compiler's back; any bytes are a row.
        Ok(_) => Ok(Some(unsafe { std::ptr::read_volatile(&raw const value) })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts `inner` into the only place of an array of maps.
pub(super) fn update_array_of_maps(outer: BorrowedFd<'_>, inner: BorrowedFd<'_>) -> io::Result<()> {
    let (key, value) = (0_u32, inner.as_raw_fd());
    let attr = MapUpdate {
        map_fd: outer.as_raw_fd().cast_unsigned().into(),
        key: std::ptr::from_ref(&key).expose_provenance() as u64,
        value: std::ptr::from_ref(&value).expose_provenance() as u64,
        flags: 0,
    };
    bpf(uapi::MAP_UPDATE_ELEM, &attr).map(|_| ())
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ObjGet {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens what is pinned at this path.
pub(super) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let attr = ObjGet { path: path.as_ptr().expose_provenance() as u64, fd: 0, flags: 0 };
    own(bpf(uapi::OBJ_GET, &attr)?)
}

/// Pins what the descriptor stands for.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let attr = ObjGet {
        path: path.as_ptr().expose_provenance() as u64,
        fd: object.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    bpf(uapi::OBJ_PIN, &attr).map(|_| ())
}

/// Where a tc program is attached to a device (`enum bpf_attach_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum TcxHook {
    /// What the device receives.
    Ingress = 46,
    /// What it sends.
    Egress = 47,
}

/// Where in the way of a packet an XDP program is: `XDP_FLAGS_*` (include/uapi/linux/if_link.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum XdpFlags {
    /// Behind the driver, which knows nothing of it.
    Stack = 2,
    /// In the driver.
    Driver = 4,
}

/// A place at a device for a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LinkPoint {
    /// Of a tc program.
    Tcx(TcxHook),
    /// Of an XDP program.
    Xdp(XdpFlags),
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct DeviceLinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    zero: u32,
    expected_revision: u64,
}

/// Attaches a program to a device, a tc program after those that are there. The device is named by its index: names may
/// change hands meanwhile.
pub(super) fn create_device_link(
    program: BorrowedFd<'_>,
    device: u32,
    point: LinkPoint,
) -> io::Result<OwnedFd> {
    let (attach_type, flags) = match point {
        LinkPoint::Tcx(hook) => (hook as u32, 0),
        LinkPoint::Xdp(flags) => (uapi::ATTACH_XDP, flags as u32),
    };
    own(bpf(
        uapi::LINK_CREATE,
        &DeviceLinkCreate {
            prog_fd: program.as_raw_fd().cast_unsigned(),
            target_ifindex: device,
            attach_type,
            flags,
            relative_fd: 0,
            zero: 0,
            expected_revision: 0,
        },
    )?)
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Replaces a link's program; no packet meets neither or both.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = LinkUpdate {
        link_fd: link.as_raw_fd().cast_unsigned(),
        new_prog_fd: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(uapi::LINK_UPDATE, &attr).map(|_| ())
}

/// Detaches a link's program before it returns; closing or unpinning the link does so some time later.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(uapi::LINK_DETACH, &link.as_raw_fd().cast_unsigned()).map(|_| ())
}

/// Attribute of `OBJ_GET_INFO_BY_FD`; the kernel writes `len`: how much of `info` it filled in.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct InfoRequest {
    fd: u32,
    len: u32,
    info: u64,
}

/// The part of `struct bpf_link_info` that we ask for, as a cgroup's link fills it in.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Default, Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct LinkInfo {
    pub(super) kind: u32,
    pub(super) id: u32,
    pub(super) program: u32,
    reserved: u32,
    pub(super) cgroup: u64,
    pub(super) attach_type: u32,
    rest: [u32; 9],
}

impl LinkInfo {
    /// The device of a TCX or XDP link; `None` where it is gone, or the link is another kind's.
    pub(super) fn device(&self) -> Option<u32> {
        // The union holds a number of 32 bits here instead of the cgroup's 64.
        let [a, b, c, d, ..] = self.cgroup.to_ne_bytes();
        let device = u32::from_ne_bytes([a, b, c, d]);
        ([uapi::LINK_TYPE_TCX, uapi::LINK_TYPE_XDP].contains(&self.kind) && device != 0).then_some(device)
    }
}

/// What a link is attached to, and which program runs.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let mut attr = InfoRequest {
        fd: link.as_raw_fd().cast_unsigned(),
        len: u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?,
        info: (&raw mut info).expose_provenance() as u64,
    };
    bpf_mut(uapi::OBJ_GET_INFO_BY_FD, &mut attr)?;
    // SAFETY: a local, and any bytes are a `LinkInfo`. Read behind the compiler's back: it does not see that the kernel
    // wrote there.
    Ok(unsafe { std::ptr::read_volatile(&raw const info) })
}

/// Attribute of the batch commands; the kernel writes `count`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Batch {
    pub(super) in_batch: u64,
    pub(super) out_batch: u64,
    pub(super) keys: u64,
    pub(super) values: u64,
    pub(super) count: u32,
    pub(super) map_fd: u32,
    pub(super) elem_flags: u64,
    pub(super) flags: u64,
}

/// One step through a hash; `ENOENT` with a `count` says that it was the last.
pub(super) fn lookup_batch(attr: &mut Batch) -> io::Result<()> {
    bpf_mut(uapi::MAP_LOOKUP_BATCH, attr).map(|_| ())
}
