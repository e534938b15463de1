//! The root of the node's cgroup hierarchy, where the socket hooks are attached.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};

use super::mounts::{self, NODE_ROOT, in_node};
use super::{is_process_one, is_shared_with_node};

/// Inode number of the first cgroup namespace (`PROC_CGROUP_INIT_INO` in include/linux/proc_ns.h): whoever is in it
/// sees the whole machine's hierarchy.
const FIRST_CGROUP_NAMESPACE: u64 = 0xEFFF_FFFB;

/// Where the root of the node's cgroup (v2) hierarchy is mounted, as a path for this process.
///
/// Nothing is mounted for this: mounting cgroup2 anew from the first cgroup namespace changes the options of the
/// hierarchy for the whole machine (`apply_cgroup_root_flags` in kernel/cgroup/cgroup.c).
///
/// # Errors
/// The node has none, or this process may not see the node.
pub fn find_cgroup_root() -> anyhow::Result<PathBuf> {
    if !is_process_one()
        && let Ok(table) = fs::read_to_string("/proc/1/mountinfo")
        && fs::read_dir(NODE_ROOT).is_ok()
    {
        let Some(point) = select_cgroup_root(&table) else {
            bail!("no cgroup2 file system is mounted on the node: mount one, or give --cgroup-root");
        };
        // The shorter path where it means the same.
        let is_own = is_shared_with_node("mnt").unwrap_or(false);
        return Ok(if is_own { point.to_owned() } else { in_node(point) });
    }
    let namespace = fs::metadata("/proc/self/ns/cgroup").context("asking for the cgroup namespace")?;
    if namespace.ino() != FIRST_CGROUP_NAMESPACE {
        bail!(
            "this container does not see the node's cgroups: it needs the node's PID namespace (hostPID) and \
             CAP_SYS_PTRACE; or give --cgroup-root"
        );
    }
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    match select_cgroup_root(&table) {
        Some(point) => Ok(point.to_owned()),
        None => bail!("no cgroup2 file system is mounted: mount one, or give --cgroup-root"),
    }
}

/// The first mount of cgroup version 2 whose root is ours or above ours: others show a part only. In systemd's
/// hybrid layout it stands beside version 1.
fn select_cgroup_root(table: &str) -> Option<&Path> {
    let is_above = |root: &str| {
        let mut parts = Path::new(root).components();
        parts.all(|part| matches!(part, Component::RootDir | Component::ParentDir))
    };
    mounts::parse(table)
        .find(|mount| mount.kind == "cgroup2" && is_above(mount.root))
        .map(|mount| mount.point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_the_hierarchy_is_told_from_its_parts() {
        let line =
            |root: &str, point: &str, kind: &str| format!("1 1 0:1 {root} {point} rw - {kind} none rw\n");
        let table = line("/", "/sys/fs/cgroup/cpu", "cgroup")
            + &line("/kubepods/pod1/c", "/sys/fs/cgroup", "cgroup2")
            + &line("/../../other", "/mnt", "cgroup2");
        assert_eq!(select_cgroup_root(&table), None);
        let at = |root: &str| table.clone() + &line(root, "/sys/fs/cgroup/unified", "cgroup2");
        for root in ["/", "/..", "/../../.."] {
            assert_eq!(select_cgroup_root(&at(root)), Some(Path::new("/sys/fs/cgroup/unified")), "{root}");
        }
    }
}
