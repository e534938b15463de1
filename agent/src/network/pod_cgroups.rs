//! Below which cgroups the kubelet has its pods, and which are those of pods that the agent has seen. For the socket hooks, which
//! hold who is in a pod and in none of these.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use weir_ebpf::abi::PodCgroups;

use super::owner::parse_component as parse_pod_cgroup;
use crate::source::PodUid;

/// How far below the node's root they are looked for: `kubepods`, `kubelet.slice/kubelet-kubepods.slice`.
const DEPTH: usize = 2;

/// The ids of the cgroups that hold all pods of the node's kubelet, below the root of the node's hierarchy (v2), and of those of
/// the pods in `seen`, with what each is: none where the kubelet has made none there. A cgroup's id is its inode (`cgroup_id` in include/linux/cgroup.h).
#[must_use]
pub fn find_pod_cgroups(root: &Path, seen: &HashSet<PodUid>) -> Vec<(u64, u32)> {
    let mut found = Vec::new();
    look(root, DEPTH, seen, &mut found);
    found
}

fn look(dir: &Path, depth: usize, seen: &HashSet<PodUid>, found: &mut Vec<(u64, u32)>) {
    for (name, path) in children(dir) {
        if is_pods(&name) {
            found.extend(fs::metadata(&path).map(|meta| (meta.ino(), PodCgroups::ALL)));
            look_for_seen(&path, DEPTH, seen, found);
        } else if depth > 1 {
            look(&path, depth - 1, seen, found);
        }
    }
}

/// Pods are there, or below the cgroup of their class (`besteffort`, `kubepods-burstable.slice`). What a pod makes is not looked at.
fn look_for_seen(dir: &Path, depth: usize, seen: &HashSet<PodUid>, found: &mut Vec<(u64, u32)>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        match name.to_str().and_then(parse_pod_cgroup) {
            Some(uid) if seen.contains(&uid) => {
                found.extend(entry.metadata().map(|meta| (meta.ino(), PodCgroups::SEEN)));
            }
            Some(_) => {}
            None if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) => {
                look_for_seen(&entry.path(), depth - 1, seen, found);
            }
            None => {}
        }
    }
}

fn children(dir: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

/// With the cgroupfs driver and the systemd driver (`NewQOSContainerManager` and `cgroupManagerImpl` in pkg/kubelet/cm): the
/// latter writes the parents into a slice's name.
fn is_pods(name: &str) -> bool {
    name == "kubepods" || name == "kubepods.slice" || name.ends_with("-kubepods.slice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_kubelets_have_their_pods() {
        let root = std::env::temp_dir().join(format!("weir-cgroups-{}", std::process::id()));
        let all = ["kubepods", "kubepods.slice", "kubelet.slice/kubelet-kubepods.slice", "custom/kubepods"];
        for dir in
            all.into_iter().chain(["system.slice/docker-1.scope/kubepods", "kubepods/podx/kubepods", "a"])
        {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        let mut found: Vec<u64> =
            find_pod_cgroups(&root, &HashSet::new()).into_iter().map(|(id, _)| id).collect();
        let mut expected = all.map(|dir| fs::metadata(root.join(dir)).unwrap().ino());
        fs::remove_dir_all(&root).unwrap();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert!(find_pod_cgroups(&root, &HashSet::new()).is_empty());
    }

    #[test]
    fn which_are_of_pods_that_were_seen() {
        let root = std::env::temp_dir().join(format!("weir-cgroups-seen-{}", std::process::id()));
        let uid = |number: u8| format!("{number:08x}-7a0c-4a4e-9d7d-1f0a6e2b3c4d");
        let slice = |number| format!("kubepods-besteffort-pod{}.slice", uid(number).replace('-', "_"));
        let seen = [
            format!("kubepods/pod{}", uid(1)),
            format!("kubepods/burstable/pod{}", uid(2)),
            format!("kubepods.slice/kubepods-besteffort.slice/{}", slice(3)),
        ];
        // Another pod; what a pod made; and what is no pod of the kubelet's.
        let others = [
            format!("kubepods/burstable/pod{}", uid(9)),
            format!("kubepods/burstable/pod{}/pod{}", uid(9), uid(1)),
            format!("mine/pod{}", uid(1)),
        ];
        for dir in seen.iter().chain(&others) {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        let uids = (1..=3).map(|number| PodUid::parse(&uid(number)).unwrap()).collect();
        let found = find_pod_cgroups(&root, &uids);
        let mut expected = seen.map(|dir| fs::metadata(root.join(dir)).unwrap().ino());
        fs::remove_dir_all(&root).unwrap();
        let mut found: Vec<u64> =
            found.into_iter().filter(|(_, what)| *what == PodCgroups::SEEN).map(|(id, _)| id).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}
