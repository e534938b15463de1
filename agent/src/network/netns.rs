//! The network namespaces of this node, and working inside one.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::host::mounted_netns;

/// Every network namespace that a process is in or that is mounted somewhere (as CNI plugins and `ip netns` do),
/// each once, open. One that ends meanwhile is left out.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn all() -> io::Result<Vec<File>> {
    let mut seen = HashSet::new();
    let candidates = processes()?.into_iter().chain(mounted_netns()?);
    let open = candidates.filter_map(|path| File::open(path).ok());
    Ok(open.filter(|file| file.metadata().is_ok_and(|meta| seen.insert((meta.dev(), meta.ino())))).collect())
}

fn processes() -> io::Result<Vec<PathBuf>> {
    let mut seen = HashSet::new();
    let mut paths = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path().join("ns/net");
        // The link's text names the namespace: most processes share one, and need not be opened.
        if let Ok(name) = fs::read_link(&path)
            && seen.insert(name)
        {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Runs `work` inside a network namespace, on a thread of its own: the namespace of a thread that others share must
/// not change.
///
/// # Errors
/// Entering the namespace; `work`'s own.
pub(crate) fn inside<T: Send>(
    netns: &File,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let run = || {
        setns(netns, CloneFlags::CLONE_NEWNET)
            .context("entering a network namespace (it needs CAP_SYS_ADMIN)")?;
        work()
    };
    std::thread::scope(|scope| {
        scope.spawn(run).join().unwrap_or_else(|_| Err(anyhow!("the thread panicked")))
    })
}
