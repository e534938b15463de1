//! Working in the node's mount namespace.

use std::fs::File;

use anyhow::{Context as _, anyhow, bail};
use nix::sched::{CloneFlags, setns, unshare};

use super::{is_process_one, is_shared_with_node};

/// Runs `work` in the node's mount namespace, where what it mounts outlives a container; in our own if that is the
/// node's, or if the node is not to be seen.
///
/// # Errors
/// Entering it; `work`'s own; the agent is the first process of a container without a sight of the node.
pub(crate) fn in_mount_namespace<T: Send>(
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    if is_process_one() {
        bail!("this container does not see the node's mounts: it needs the node's PID namespace (hostPID)");
    }
    let node = match is_shared_with_node("mnt") {
        Ok(false) => File::open("/proc/1/ns/mnt").context("opening the node's mount namespace")?,
        Ok(true) | Err(_) => return work(),
    };
    let run = || {
        // A thread that shares its working directory with others cannot change its mount namespace.
        unshare(CloneFlags::CLONE_FS)
            .context("separating a thread's working directory (in a container it may need CAP_SYS_ADMIN)")?;
        setns(&node, CloneFlags::CLONE_NEWNS)
            .context("entering the node's mount namespace (it needs CAP_SYS_ADMIN and CAP_SYS_CHROOT)")?;
        work()
    };
    std::thread::scope(|scope| {
        scope.spawn(run).join().unwrap_or_else(|_| Err(anyhow!("the thread panicked")))
    })
}
