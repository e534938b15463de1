//! What the kernel would run for the sockets of a cgroup. Asked of the kernel itself, so that a measurement never
//! depends on anybody's word that programs are there or gone.

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::{Context, Result};

/// Every hook of a cgroup that the sockets and packets of our traffic pass (`enum bpf_attach_type`).
const HOOKS: [(u32, &str); 21] = [
    (0, "ingress"),
    (1, "egress"),
    (2, "sock_create"),
    (3, "sock_ops"),
    (8, "bind4"),
    (9, "bind6"),
    (10, "connect4"),
    (11, "connect6"),
    (12, "post_bind4"),
    (13, "post_bind6"),
    (14, "sendmsg4"),
    (15, "sendmsg6"),
    (19, "recvmsg4"),
    (20, "recvmsg6"),
    (21, "getsockopt"),
    (22, "setsockopt"),
    (29, "getpeername4"),
    (30, "getpeername6"),
    (31, "getsockname4"),
    (32, "getsockname6"),
    (34, "sock_release"),
];

const PROG_QUERY: libc::c_long = 16;
const LINK_GET_NEXT_ID: libc::c_long = 31;
const QUERY_EFFECTIVE: u32 = 1;

/// `query` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_count: u32,
    zero: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// `*_GET_NEXT_ID` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct NextId {
    start: u32,
    next: u32,
    open_flags: u32,
}

/// The hooks at which a socket of this cgroup meets a program, attached here or further up.
///
/// # Errors
/// The cgroup is gone, or the kernel does not say (needs `CAP_NET_ADMIN`).
pub fn effective(cgroup: &Path) -> Result<Vec<&'static str>> {
    let directory = File::open(cgroup).with_context(|| cgroup.display().to_string())?;
    let mut found = Vec::new();
    for (attach_type, name) in HOOKS {
        let mut query = Query {
            target_fd: directory.as_raw_fd().cast_unsigned(),
            attach_type,
            query_flags: QUERY_EFFECTIVE,
            ..Query::default()
        };
        match bpf(PROG_QUERY, &mut query) {
            Ok(_) if query.prog_count > 0 => found.push(name),
            Ok(_) => {}
            // a hook that this kernel does not have, or not for cgroups
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(error).with_context(|| format!("asking for programs at {name}")),
        }
    }
    Ok(found)
}

/// How many links there are in the whole kernel, ours and everybody's.
///
/// # Errors
/// The kernel does not say (needs `CAP_SYS_ADMIN`).
pub fn links() -> Result<usize> {
    let mut id = NextId::default();
    for count in 0.. {
        match bpf(LINK_GET_NEXT_ID, &mut id) {
            Ok(_) => id.start = id.next,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(count),
            Err(error) => return Err(error).context("listing the links in the kernel"),
        }
    }
    Ok(usize::MAX)
}

/// A command of `bpf(2)`. `attr` is the part of `union bpf_attr` that belongs to it; pointers in it are the caller's to
/// vouch for.
pub(crate) fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is the part of `union bpf_attr` that belongs to the command, and lives until it returns.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}
