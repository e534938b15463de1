//! Mount tables, as `/proc/<pid>/mountinfo` tells them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The node's root directory, as process 1 sees it, with all that is mounted below it.
pub(super) const NODE_ROOT: &str = "/proc/1/root";

/// One mount: a line of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mount<'a> {
    /// Which part of the file system is mounted. A cgroup's is told from the reader's cgroup namespace: what is
    /// above that namespace begins with `/..`.
    pub(super) root: &'a str,
    /// Where. Blanks in it stay escaped: what we look for has none.
    pub(super) point: &'a Path,
    /// The kind of file system.
    pub(super) kind: &'a str,
}

/// A path of the node's as one for this process.
pub(super) fn in_node(path: &Path) -> PathBuf {
    Path::new(NODE_ROOT).join(path.strip_prefix("/").unwrap_or(path))
}

/// Network namespaces that are mounted somewhere, here or on the node: container runtimes and `ip netns` do that, and
/// a pod's is there before its first process.
///
/// # Errors
/// `/proc` cannot be read. A node that cannot be seen is none.
pub(crate) fn mounted_netns() -> io::Result<Vec<PathBuf>> {
    let own = fs::read_to_string("/proc/self/mountinfo")?;
    let mut paths: Vec<_> = netns_in(&own).map(Path::to_owned).collect();
    if let Ok(node) = fs::read_to_string("/proc/1/mountinfo")
        && node != own
    {
        paths.extend(netns_in(&node).map(in_node));
    }
    Ok(paths)
}

fn netns_in(table: &str) -> impl Iterator<Item = &Path> {
    parse(table)
        .filter(|mount| mount.kind == "nsfs" && mount.root.starts_with("net:"))
        .map(|mount| mount.point)
}

/// The mounts of a table, in the order in which they were made; fields as in proc_pid_mountinfo(5).
pub(super) fn parse(table: &str) -> impl Iterator<Item = Mount<'_>> {
    table.lines().filter_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        Some(Mount { root, point: Path::new(point), kind: rest.split(' ').next()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_fields_may_be_any_number() {
        let table = "\
            29 1 254:0 / / rw,relatime - ext4 /dev/root rw\n\
            35 29 0:28 /../.. /sys/fs/cgroup rw,nosuid shared:9 master:4 - cgroup2 cgroup2 rw,nsdelegate\n\
            cut off\n\
            97 29 0:4 net:[4026532177] /run/netns/a rw shared:5 - nsfs nsfs rw\n";
        let found: Vec<_> = parse(table).collect();
        let mount = |root, point: &'static str, kind| Mount { root, point: Path::new(point), kind };
        let expected = [
            mount("/", "/", "ext4"),
            mount("/../..", "/sys/fs/cgroup", "cgroup2"),
            mount("net:[4026532177]", "/run/netns/a", "nsfs"),
        ];
        assert_eq!(found, expected);
        assert_eq!(netns_in(table).map(in_node).collect::<Vec<_>>(), [Path::new("/proc/1/root/run/netns/a")]);
    }
}
