//! Where everything is pinned.
//!
//! ```text
//! <pin root>/links/<program>       one link for each hook of the cgroup
//! <pin root>/devices/<program>_<device>
//! <pin root>/<generation>/<map>    the maps; two generations while one replaces the other
//! ```

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::clsact::Clsact;
use super::{sys, tc};
use crate::host::in_mount_namespace;

/// The directory on a BPF file system that holds all pins of one agent.
#[derive(Clone, Debug)]
pub struct PinRoot(PathBuf);

impl PinRoot {
    /// `path` need not exist; its parent is on a BPF file system, or is empty, and one is mounted there.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Makes the directory, and mounts a BPF file system on its parent if the node has none there.
    ///
    /// # Errors
    /// What the kernel refused, with the path.
    pub fn ensure(&self) -> anyhow::Result<()> {
        let parent = self.0.parent().context("the pin root needs a parent directory")?;
        if !parent.is_dir() {
            fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        }
        if !is_bpf_fs(parent)? {
            let occupied = fs::read_dir(parent).is_ok_and(|mut entries| entries.next().is_some());
            ensure!(
                !occupied,
                "{} is no BPF file system, and is not empty: nothing is mounted over what it holds",
                parent.display()
            );
            mount_bpf_fs(parent)?;
        }
        for dir in [self.0.clone(), self.links(), self.devices()] {
            match fs::create_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("making {}", dir.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Locks the directory for who changes what is pinned there, until the lock is dropped. It holds for every
    /// process that sees this BPF file system, whatever its own directories are.
    ///
    /// # Errors
    /// Somebody else has the lock; the directory cannot be opened.
    pub fn lock(&self) -> anyhow::Result<Flock<File>> {
        let dir = File::open(&self.0).with_context(|| format!("opening {}", self.0.display()))?;
        match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(lock),
            Err(_) => bail!("an agent is running with --pin-root {}: stop it first", self.0.display()),
        }
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn links(&self) -> PathBuf {
        self.0.join("links")
    }

    pub(super) fn devices(&self) -> PathBuf {
        self.0.join("devices")
    }

    /// Names of the generations that are there, of any version. Whatever else is there is somebody else's.
    ///
    /// # Errors
    /// The directory cannot be read; none is no error.
    pub(super) fn generations(&self) -> anyhow::Result<Vec<String>> {
        let names =
            pins(&self.0)?.into_iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        Ok(names.filter(|name| is_generation(name)).collect())
    }
}

/// Removes every pin: the programs leave the kernel, and connections to Services are no longer translated. Sockets
/// that are already connected go on, for they talk to their backends directly. Returns what was removed.
///
/// # Errors
/// An agent is running, which would go on without its tables; what could not be removed.
pub fn cleanup(root: &PinRoot) -> anyhow::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    if !root.path().exists() {
        return Ok(removed);
    }
    let _lock = root.lock()?;
    // Detached before they are unpinned: when this returns, nothing is translated any more.
    for path in pins(&root.links())? {
        let link = sys::open_pinned(&path).with_context(|| format!("opening {}", path.display()))?;
        sys::detach_link(link.as_fd()).with_context(|| format!("detaching {}", path.display()))?;
    }
    for path in pins(&root.devices())? {
        tc::detach(&path)?;
    }
    Clsact::open()?.remove_others(|_, _| false)?;
    let generations = root.generations()?.into_iter().map(|name| root.path().join(name));
    for dir in [root.links(), root.devices()].into_iter().chain(generations) {
        remove_dir(&dir, &mut removed)?;
    }
    match fs::remove_dir(root.path()) {
        Ok(()) => removed.push(root.path().to_owned()),
        // Others may have pinned something there, too, or it is where the file system is mounted.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy
            ) => {}
        Err(error) => return Err(error).with_context(|| format!("removing {}", root.path().display())),
    }
    Ok(removed)
}

/// `v`, the version of the layout and the numbers of rows, as [`super::Generation`] makes them.
fn is_generation(name: &str) -> bool {
    let numbers = name.strip_prefix('v').unwrap_or_default();
    numbers.contains('-') && numbers.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

/// Removes a directory of pins; none is no error.
pub(super) fn remove_dir(dir: &Path, removed: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    for path in pins(dir)? {
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        removed.push(path);
    }
    fs::remove_dir(dir).with_context(|| format!("removing {}", dir.display()))?;
    removed.push(dir.to_owned());
    Ok(())
}

/// What a directory holds; nothing where there is none.
pub(super) fn pins(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", dir.display())),
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Mounts a BPF file system on the node: in a container's own mount namespace it would end with the container, and
/// every pin with it.
fn mount_bpf_fs(path: &Path) -> anyhow::Result<()> {
    in_mount_namespace(|| {
        // Another container may have been the first.
        if is_bpf_fs(path)? {
            return Ok(());
        }
        mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .with_context(|| format!("mounting a BPF file system on {}", path.display()))
    })?;
    ensure!(
        is_bpf_fs(path)?,
        "the BPF file system that is mounted on the node's {} does not show in this container: its volume needs \
         mountPropagation: HostToContainer, and the node a shared mount",
        path.display()
    );
    Ok(())
}

fn is_bpf_fs(path: &Path) -> anyhow::Result<bool> {
    let stat = statfs(path).with_context(|| format!("asking for the file system of {}", path.display()))?;
    Ok(stat.filesystem_type() == BPF_FS_MAGIC)
}
