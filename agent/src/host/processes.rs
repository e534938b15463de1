//! The processes of the node, by the network namespaces that they are in.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

/// A process that is in a network namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: u32,
    /// When it began, in ticks since boot: tells it from another one of the same number.
    pub(crate) started: u64,
    /// The inode of its network namespace.
    pub(crate) netns: u64,
    /// `/proc/PID/cgroup`: a line for each hierarchy, with paths as they are seen from our own cgroup namespace.
    pub(crate) cgroup: String,
}

/// The processes whose network namespaces are wanted; one that ends meanwhile is left out, and so are those that we may not
/// look into.
///
/// What `/proc/PID/ns/net` leads to is told to who may trace the process (`proc_ns_readlink` in fs/proc/namespaces.c asks
/// `ptrace_may_access` with PTRACE_MODE_READ_FSCREDS): of other users' processes, and of those with capabilities that we lack,
/// with CAP_SYS_PTRACE. `/proc/PID/cgroup` and `stat` may be read by all.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn processes_in(wanted: impl Fn(u64) -> bool) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(netns) = netns_of(pid).filter(|netns| wanted(*netns))
            && let Some(process) = read(pid, netns)
        {
            found.push(process);
        }
    }
    Ok(found)
}

/// The inode of our own network namespace.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn own_netns_inode() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// `/proc/1/cgroup`: where the node's own processes begin; empty if process 1 is not to be seen.
pub(crate) fn cgroup_of_init() -> String {
    fs::read_to_string("/proc/1/cgroup").unwrap_or_default()
}

/// Whether the process of this number that began then is in the network namespace with this inode.
pub(crate) fn is_in(pid: u32, started: u64, netns: u64) -> bool {
    let began = || parse_start(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?);
    netns_of(pid) == Some(netns) && began() == Some(started)
}

fn netns_of(pid: u32) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

fn read(pid: u32, netns: u64) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    // Another process may have its number by now.
    (netns_of(pid) == Some(netns)).then_some(())?;
    Some(Process { pid, started: parse_start(&stat)?, netns, cgroup })
}

/// Field 22 of proc_pid_stat(5). The second, a name in brackets, may have anything in it. A zombie has begun as well, but is in
/// no namespace any more.
fn parse_start(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_process_began() {
        let stat = "7 (a) R 2 (b)) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 2 3";
        assert_eq!(parse_start(stat), Some(4242));
        assert_eq!(parse_start("7 (a) S 1 7"), None);
    }

    #[test]
    fn this_process_is_found_in_its_namespace() {
        let own = own_netns_inode().unwrap();
        let found = processes_in(|netns| netns == own).unwrap();
        let this = found.iter().find(|process| process.pid == std::process::id()).expect("we are there");
        assert!(this.cgroup.contains(":/"), "{this:?}");
        assert!(is_in(this.pid, this.started, own));
        assert!(!is_in(this.pid, this.started + 1, own) && !is_in(this.pid, this.started, own + 1));
        assert_eq!(processes_in(|_| false).unwrap(), []);
    }
}
