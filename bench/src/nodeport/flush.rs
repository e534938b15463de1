//! Forgets flows, so that each measurement begins with empty tables.

use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use weir_tests::lab::netns::Netns;

use crate::programs::bpf;

const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO: libc::c_long = 15;
const LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;
/// Rows of one call.
const ROWS: u32 = 16_384;

/// Netfilter's connections of a namespace (`IPCTNL_MSG_CT_DELETE` without a tuple).
///
/// # Errors
/// The kernel refused.
pub(super) fn connections(node: &Netns) -> Result<()> {
    node.enter(|| {
        // SAFETY: a system call without pointers.
        let socket = unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER)
        };
        ensure!(socket >= 0, "netlink: {}", io::Error::last_os_error());
        // SAFETY: made above, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let kind = (u16::try_from(libc::NFNL_SUBSYS_CTNETLINK)? << 8) | 2;
        let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK)?;
        let mut request = Vec::new();
        request.extend(20_u32.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend(flags.to_ne_bytes());
        // sequence, port; then any family
        request.extend([0; 12]);
        let mut answer = [0_u8; 64];
        // SAFETY: the bytes are there, and room for the answer.
        let got = unsafe {
            libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0);
            libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0)
        };
        ensure!(got >= 20, "netlink: {}", io::Error::last_os_error());
        let [a, b, c, d] = [answer[16], answer[17], answer[18], answer[19]];
        let error = i32::from_ne_bytes([a, b, c, d]);
        ensure!(error == 0, "forgetting connections: {}", io::Error::from_raw_os_error(-error));
        Ok(())
    })
}

/// Weir's flows. Returns how many rows there were.
///
/// # Errors
/// There is no such map, or the kernel refused.
pub(super) fn flows(pin_root: &Path) -> Result<u64> {
    let map = open(&find(pin_root)?)?;
    let (key_size, value_size) = sizes(&map)?;
    let mut keys = vec![0_u8; ROWS as usize * key_size];
    let mut values = vec![0_u8; ROWS as usize * value_size];
    // a hash map's place is 32 bits
    let (mut place, mut next, mut is_first, mut removed) = (0_u64, 0_u64, true, 0);
    loop {
        let mut batch = Batch {
            in_batch: if is_first { 0 } else { (&raw mut place) as u64 },
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: ROWS,
            map_fd: map.as_raw_fd().cast_unsigned(),
            ..Batch::default()
        };
        let done = bpf(LOOKUP_AND_DELETE_BATCH, &mut batch);
        removed += u64::from(batch.count);
        match done {
            Ok(_) => (place, is_first) = (next, false),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(removed),
            Err(error) => return Err(error).context("removing flows"),
        }
    }
}

/// `<pin root>/<generation>/flows`
fn find(pin_root: &Path) -> Result<PathBuf> {
    let mut found = fs::read_dir(pin_root)?.flatten().map(|entry| entry.path());
    let map = found.find_map(|generation| {
        ["FLOWS", "flows"].map(|name| generation.join(name)).into_iter().find(|path| path.exists())
    });
    map.with_context(|| format!("no table of flows in {}", pin_root.display()))
}

/// Opens what is pinned.
pub(super) fn open(path: &Path) -> Result<OwnedFd> {
    let name = std::ffi::CString::new(path.to_str().context("not UTF-8")?)?;
    let mut get = ObjectGet { pathname: name.as_ptr() as u64, ..ObjectGet::default() };
    let fd = bpf(OBJ_GET, &mut get).with_context(|| path.display().to_string())?;
    // SAFETY: the kernel made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd.try_into()?) })
}

/// What the kernel says about a map, a program or a link, as far as it fits.
pub(super) fn info<T: Default>(object: &OwnedFd) -> Result<T> {
    let mut info = T::default();
    let mut get = InfoGet {
        bpf_fd: object.as_raw_fd().cast_unsigned(),
        info_len: size_of::<T>().try_into()?,
        info: (&raw mut info) as u64,
    };
    bpf(OBJ_GET_INFO, &mut get)?;
    Ok(info)
}

/// Bytes of keys and of values.
fn sizes(map: &OwnedFd) -> Result<(usize, usize)> {
    let info: MapInfo = info(map)?;
    Ok((info.key_size as usize, info.value_size as usize))
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
}

#[repr(C)]
#[derive(Default)]
struct ObjectGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoGet {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}
