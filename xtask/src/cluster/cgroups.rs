//! A cgroup for each room in every hierarchy of the machine, whichever versions it has: where the room's cgroup
//! namespace begins. All are below one named after the cluster, by which they are found again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::plan::{CONTROL, Room};

/// How long killed processes may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);
/// In version 2 processes and limits of children exclude each other: the room's own programs are here.
const LEAF: &str = "init";

/// A mounted hierarchy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hierarchy {
    /// Where.
    pub(super) point: PathBuf,
    /// Which; `None` for version 2.
    pub(super) controllers: Option<String>,
}

/// Those of this machine.
pub(super) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let hierarchies = parse_hierarchies(&table);
    if !hierarchies.iter().any(|hierarchy| hierarchy.controllers.is_none()) {
        bail!("no cgroup2 file system is mounted, and Weir works on that");
    }
    Ok(hierarchies)
}

/// Fields as in `proc_pid_mountinfo(5)`.
fn parse_hierarchies(table: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in table.lines() {
        let Some((fields, rest)) = line.split_once(" - ") else { continue };
        let mut fields = fields.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
        if !is_whole(root) {
            continue;
        }
        let rest: Vec<_> = rest.split(' ').collect();
        let controllers = match rest[..] {
            ["cgroup", _, options] => Some(select_controllers(options)),
            ["cgroup2", ..] => None,
            _ => continue,
        };
        if !found.iter().any(|known| known.controllers == controllers) {
            found.push(Hierarchy { point: point.into(), controllers });
        }
    }
    found
}

/// Whether it is all of a hierarchy: for a process in a cgroup namespace the mounts of those outside begin above it.
fn is_whole(root: &str) -> bool {
    root.split('/').all(|part| part.is_empty() || part == "..")
}

/// What names a hierarchy of version 1 among its options, in a form for mount(2).
fn select_controllers(options: &str) -> String {
    let others = ["rw", "ro", "xattr", "noprefix", "clone_children", "favordynmods"];
    let is_name = |option: &&str| !others.contains(option) && !option.starts_with("release_agent=");
    options.split(',').filter(is_name).collect::<Vec<_>>().join(",")
}

/// Makes the room's cgroups and moves this process into them. Those that it starts inherit them.
pub(super) fn enter(room: Room) -> Result<()> {
    for hierarchy in hierarchies()? {
        let cluster = hierarchy.point.join(CONTROL);
        let own = cluster.join(room.to_string());
        fs::create_dir_all(&own).with_context(|| own.display().to_string())?;
        for (parent, child) in [(&hierarchy.point, &cluster), (&cluster, &own)] {
            match &hierarchy.controllers {
                Some(_) => inherit_cpus(parent, child)?,
                None => delegate(parent)?,
            }
        }
        join(&own)?;
    }
    Ok(())
}

/// Once in the cgroup namespace: leaves its root, so that limits may be set for what is below.
pub(super) fn leave_root(root: &Path) -> Result<()> {
    let leaf = root.join(LEAF);
    fs::create_dir_all(&leaf).with_context(|| leaf.display().to_string())?;
    join(&leaf)?;
    delegate(root)
}

fn join(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0").with_context(|| format!("entering {}", cgroup.display()))
}

/// A new cpuset has no CPU, and takes no process.
fn inherit_cpus(parent: &Path, child: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = child.join(name);
        if file.exists() && fs::read_to_string(&file)?.trim().is_empty() {
            fs::write(&file, fs::read(parent.join(name))?).with_context(|| file.display().to_string())?;
        }
    }
    Ok(())
}

/// Version 2: all controllers that the cgroup has are its children's as well. On a machine with both versions it
/// has none of them.
fn delegate(cgroup: &Path) -> Result<()> {
    let file = cgroup.join("cgroup.subtree_control");
    for controller in fs::read_to_string(cgroup.join("cgroup.controllers"))?.split_whitespace() {
        if ["cpu", "cpuset", "io", "memory", "pids"].contains(&controller) {
            fs::write(&file, format!("+{controller}"))
                .with_context(|| format!("+{controller} in {}", file.display()))?;
        }
    }
    Ok(())
}

/// Ends every process of every room and waits until they are gone.
pub(super) fn kill() -> Result<()> {
    let Some(version2) = hierarchies()?.into_iter().find(|hierarchy| hierarchy.controllers.is_none()) else {
        return Ok(());
    };
    let cluster = version2.point.join(CONTROL);
    if !cluster.exists() {
        return Ok(());
    }
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        fs::write(cluster.join("cgroup.kill"), "1").with_context(|| cluster.display().to_string())?;
        let events = fs::read_to_string(cluster.join("cgroup.events"))?;
        if events.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("processes in {} outlive SIGKILL", cluster.display());
        }
        sleep(Duration::from_millis(50));
    }
}

/// Removes the rooms' cgroups.
pub(super) fn remove() -> Result<()> {
    for hierarchy in hierarchies()? {
        let cluster = hierarchy.point.join(CONTROL);
        remove_tree(&cluster).with_context(|| cluster.display().to_string())?;
    }
    Ok(())
}

/// What is left of them.
pub(super) fn find_traces() -> Result<Vec<String>> {
    let clusters = hierarchies()?.into_iter().map(|hierarchy| hierarchy.point.join(CONTROL));
    Ok(clusters.filter(|path| path.exists()).map(|path| path.display().to_string()).collect())
}

/// Deepest first. One that is gone is fine; one whose processes are still ending gets a moment.
fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                sleep(Duration::from_millis(50));
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_each_once_and_parts_not_at_all() {
        let table = "\
            32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 /../.. /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/a,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n\
            42 31 0:38 /part /mnt rw - cgroup2 cgroup2 rw\n\
            43 31 0:38 / /again rw - cgroup2 cgroup2 rw\n\
            44 31 0:39 / /sys rw - sysfs sysfs rw\n";
        let found: Vec<_> = parse_hierarchies(table)
            .into_iter()
            .map(|one| (one.point.display().to_string(), one.controllers))
            .collect();
        let expected = [
            ("/sys/fs/cgroup/cpu".to_owned(), Some("cpu,cpuacct".to_owned())),
            ("/sys/fs/cgroup/systemd".to_owned(), Some("name=systemd".to_owned())),
            ("/sys/fs/cgroup/unified".to_owned(), None),
        ];
        assert_eq!(found, expected);
    }
}
