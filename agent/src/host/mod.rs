//! The node around the agent, also where the agent is in a container: its cgroup hierarchy, its mounts, and working
//! among them. All is found through process 1, which a pod sees with `hostPID` and may look into with CAP_SYS_PTRACE.
//!
//! The node may itself be a container, as kind's are; its process 1 is then not the machine's, and what that one sees
//! is what belongs to the node.

mod cgroup;
mod mounts;
#[cfg(feature = "kernel")]
mod namespace;
mod processes;

pub use cgroup::find_cgroup_root;
pub(crate) use mounts::mounted_netns;
#[cfg(feature = "kernel")]
pub(crate) use namespace::in_mount_namespace;
pub(crate) use processes::{Process, cgroup_of_init, is_in, own_netns_inode, processes_in};

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

/// With a PID namespace of our own, process 1 is ourselves, and nobody shows us the node.
fn is_process_one() -> bool {
    std::process::id() == 1
}

/// Whether process 1 has the same namespace of this kind (a name in `/proc/<pid>/ns`) as we have.
///
/// # Errors
/// Process 1 may not be looked at.
fn is_shared_with_node(kind: &str) -> io::Result<bool> {
    let number = |process: &str| fs::metadata(format!("/proc/{process}/ns/{kind}")).map(|meta| meta.ino());
    Ok(number("self")? == number("1")?)
}
