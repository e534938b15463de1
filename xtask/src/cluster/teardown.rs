//! Nothing of the cluster stays. Everything is found by its name and not by a list, so that one that was cut short
//! while it was being made goes the same way as one that ended well.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, umount2};

use super::cgroups;
use super::plan::{CONTROL, Room, State};
use crate::shell::{announce, run_quietly};

/// Where iproute2 keeps named namespaces.
const NAMESPACES: &str = "/run/netns";
/// Where the machine's devices are.
const DEVICES: &str = "/sys/class/net";

/// Removes everything.
///
/// # Errors
/// What could not be removed; the rest is gone.
pub(super) fn remove(state: &State) -> Result<()> {
    // Mounts and everything in memory go with the processes whose namespaces they are in.
    cgroups::kill().context("ending the rooms' processes")?;
    let mut failures = Vec::new();
    let mut attempt = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{what}: {error:#}"));
        }
    };
    for room in Room::all() {
        attempt(&room.to_string(), remove_namespace(&Path::new(NAMESPACES).join(room.to_string())));
    }
    // The other end of the wire may be in a namespace that is only just going.
    if Path::new(DEVICES).join(CONTROL).exists() {
        let gone = run_quietly(Command::new("ip").args(["link", "delete", CONTROL]));
        attempt(
            "device",
            gone.or_else(|error| if Path::new(DEVICES).join(CONTROL).exists() { Err(error) } else { Ok(()) }),
        );
    }
    attempt("cgroups", cgroups::remove());
    attempt("files", remove_files(state.root()));
    if !failures.is_empty() {
        bail!("not everything could be removed: {}", failures.join("; "));
    }
    announce("nothing is left of the cluster");
    Ok(())
}

/// What is there of a cluster, in words.
pub(super) fn find_traces(state: &State) -> Result<Vec<String>> {
    let mut places: Vec<PathBuf> =
        Room::all().map(|room| Path::new(NAMESPACES).join(room.to_string())).collect();
    places.push(Path::new(DEVICES).join(CONTROL));
    places.push(state.root().to_owned());
    let mut traces: Vec<_> =
        places.into_iter().filter(|path| path.exists()).map(|path| path.display().to_string()).collect();
    traces.extend(cgroups::find_traces()?);
    Ok(traces)
}

fn remove_namespace(path: &Path) -> Result<()> {
    // Not mounted: left behind by a creation that was cut short.
    let _ = umount2(path, MntFlags::MNT_DETACH);
    ignore_missing(fs::remove_file(path)).with_context(|| path.display().to_string())
}

/// A mount in there is one that we do not know of, and what is behind it is not ours to remove.
fn remove_files(root: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let inside = |line: &&str| line.split(' ').nth(4).is_some_and(|point| Path::new(point).starts_with(root));
    if let Some(mount) = mounts.lines().find(inside) {
        bail!("something is mounted in {}: {mount}", root.display());
    }
    ignore_missing(fs::remove_dir_all(root)).with_context(|| root.display().to_string())
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_once_and_what_is_gone_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::below(&folder.path().join("cluster"));
        fs::create_dir_all(state.logs(Room::Node(1))).unwrap();
        for _ in 0..2 {
            remove_files(state.root()).unwrap();
            assert!(!state.root().exists());
        }
        assert!(remove_namespace(&folder.path().join("none")).is_ok());
    }
}
