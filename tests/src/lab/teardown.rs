//! Nothing of a lab stays: processes, pins, cgroups, namespaces, files.
//!
//! Everything is found by its name and not by a list kept somewhere, so that a lab that was cut short while
//! it was being made goes the same way as one that ended well.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use tokio::signal::unix::{SignalKind, signal};

use super::ident::LabId;
use super::{cgroup, locked, netns};

/// Where BPF objects are pinned.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// The labs of this process.
static LIVING: Mutex<BTreeSet<LabId>> = Mutex::new(BTreeSet::new());

/// Held while something is added to a lab: an interruption waits for it, and then nothing more is added.
static CHANGING: Mutex<()> = Mutex::new(());

/// To be held while namespaces, cgroups or processes are made.
pub(crate) fn changing() -> MutexGuard<'static, ()> {
    locked(&CHANGING)
}

/// From now on an interruption removes this lab.
pub(super) fn register(id: LabId) {
    locked(&LIVING).insert(id);
}

/// Removes a lab of this process.
pub(super) fn unregister(id: LabId) {
    let _held = changing();
    if let Err(error) = remove(id) {
        eprintln!("{id}: {error:#}");
    }
    locked(&LIVING).remove(&id);
}

/// Mounts bpffs where it is missing, as the agent does too.
///
/// # Errors
/// Those of mount.
pub fn ensure_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).context("cannot mount bpffs")
}

/// Where a lab keeps its files.
#[must_use]
pub fn directory(id: LabId) -> PathBuf {
    std::env::temp_dir().join(id.to_string())
}

/// Removes everything that bears the lab's name.
///
/// # Errors
/// All that could not be removed; the rest is gone.
pub fn remove(id: LabId) -> Result<()> {
    let mut failures = Vec::new();
    let mut attempt = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{what}: {error:#}"));
        }
    };
    match cgroup::ensure_root() {
        Ok(root) => {
            let cgroup = root.join(id.to_string());
            attempt("processes", cgroup::kill(&cgroup));
            attempt("cgroups", cgroup::remove(&cgroup).map_err(Into::into));
        }
        Err(error) => attempt("cgroups", Err(error)),
    }
    for name in names_in(Path::new(BPFFS), id) {
        attempt("pins", remove_tree(&Path::new(BPFFS).join(name)));
    }
    for name in names_in(Path::new(netns::DIRECTORY), id) {
        attempt("namespaces", netns::remove(&name));
    }
    attempt("files", remove_tree(&directory(id)));
    if failures.is_empty() {
        Ok(())
    } else {
        bail!("not everything could be removed: {}", failures.join("; "))
    }
}

/// What is left of a lab, in words; empty when it is gone.
#[must_use]
pub fn find_traces(id: LabId) -> Vec<String> {
    let mut traces: Vec<String> =
        all_names().into_iter().filter(|(of, _)| *of == id).map(|(_, at)| at).collect();
    traces.sort();
    traces
}

/// The labs of a process of which anything is left.
#[must_use]
pub fn find_labs(owner: u32) -> BTreeSet<LabId> {
    all_names().into_iter().map(|(id, _)| id).filter(|id| id.owner() == owner).collect()
}

/// Removes what labs left behind whose process was killed.
///
/// # Errors
/// What could not be removed.
pub fn sweep() -> Result<()> {
    let dead: BTreeSet<LabId> =
        all_names().into_iter().map(|(id, _)| id).filter(|id| !id.is_alive()).collect();
    for id in dead {
        remove(id).with_context(|| format!("leftovers of {id}"))?;
    }
    Ok(())
}

/// Everything on the machine that bears a lab's name.
fn all_names() -> Vec<(LabId, String)> {
    let mut directories = vec![PathBuf::from(BPFFS), PathBuf::from(netns::DIRECTORY), std::env::temp_dir()];
    directories.extend(cgroup::ensure_root());
    let entries = directories.iter().flat_map(fs::read_dir).flatten().flatten();
    entries
        .filter_map(|entry| {
            Some((LabId::parse_prefix(entry.file_name().to_str()?)?, entry.path().display().to_string()))
        })
        .collect()
}

fn names_in(directory: &Path, id: LabId) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| LabId::parse_prefix(name) == Some(id))
        .collect()
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP end this process only after its labs are gone, with the exit code
/// that a shell gives to a signal.
///
/// # Errors
/// The handler cannot be installed.
pub fn watch_signals() -> Result<()> {
    if cfg!(panic = "abort") {
        remove_on_panic();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ready, wait) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [interrupt, terminate, hangup] = kinds.map(signal);
            let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = (interrupt, terminate, hangup)
            else {
                return;
            };
            let _ = ready.send(());
            let kind = tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
                _ = hangup.recv() => SignalKind::hangup(),
            };
            end_interrupted(kind);
        });
    })?;
    wait.recv().context("cannot watch signals")
}

/// Where a panic ends the process on the spot, as in release builds, nothing is dropped.
fn remove_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        // the thread that panics may itself hold the lock
        let _held = CHANGING.try_lock();
        remove_all();
    }));
}

fn end_interrupted(signal: SignalKind) -> ! {
    // kept for good: nobody adds anything any more
    let _held = changing();
    if !locked(&LIVING).is_empty() {
        eprintln!("\ninterrupted: removing the lab");
    }
    remove_all();
    std::process::exit(128 + signal.as_raw_value())
}

/// Removes every lab of this process.
fn remove_all() {
    let labs = locked(&LIVING).clone();
    for id in labs {
        if let Err(error) = remove(id) {
            eprintln!("{id}: {error:#}");
        }
    }
}
