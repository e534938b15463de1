//! Below which cgroups the kubelet has its pods.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// How far below the node's root they are looked for: `kubepods`, `kubelet.slice/kubelet-kubepods.slice`.
const DEPTH: usize = 2;

/// The ids of the cgroups that hold all pods of the node's kubelet, below the root of the node's hierarchy (v2): none where the
/// kubelet has made none there. A cgroup's id is its inode (`cgroup_id` in include/linux/cgroup.h).
#[must_use]
pub fn find_pod_cgroups(root: &Path) -> Vec<u64> {
    let mut found = Vec::new();
    look(root, DEPTH, &mut found);
    found
}

fn look(dir: &Path, depth: usize, found: &mut Vec<u64>) {
    for (name, path) in children(dir) {
        if is_pods(&name) {
            found.extend(fs::metadata(&path).map(|meta| meta.ino()));
        } else if depth > 1 {
            look(&path, depth - 1, found);
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
        let mut found = find_pod_cgroups(&root);
        let mut expected = all.map(|dir| fs::metadata(root.join(dir)).unwrap().ino());
        fs::remove_dir_all(&root).unwrap();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert!(find_pod_cgroups(&root).is_empty());
    }
}
