//! Weir comes onto the cluster as onto any other: an image that every node imports, and manifests.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::binaries;
use super::kubectl::{Kubectl, last_words, wait_for_room};
use super::node::CONTAINERD;
use super::plan::{Plan, Room, State};
use super::service::PATH;
use crate::image;
use crate::setup::{self, Need};
use crate::shell::{announce, run_quietly};
use crate::workspace::{Profile, Workspace};

/// What is applied.
const OVERLAY: &str = "deploy/overlays/cluster";
/// Until every agent is ready.
const ROLLOUT_TIMEOUT: Duration = Duration::from_secs(180);
/// Until a node's containerd takes images.
const CONTAINERD_TIMEOUT: Duration = Duration::from_secs(60);

/// The archives in the folder, in order.
pub(super) fn find_archives(folder: Option<&Path>, sandbox_image: &str) -> Result<Vec<PathBuf>> {
    let Some(folder) = folder else {
        bail!("{}", binaries::explain_images(sandbox_image));
    };
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut archives: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension() == Some(OsStr::new("tar")))
        .collect();
    archives.sort();
    if archives.is_empty() {
        bail!("no *.tar is in {}.\n{}", folder.display(), binaries::explain_images(sandbox_image));
    }
    Ok(archives)
}

/// The archive of Weir's image.
pub(super) fn ensure_image(workspace: &Workspace, given: Option<&Path>) -> Result<PathBuf> {
    match given {
        Some(path) => path.canonicalize().with_context(|| path.display().to_string()),
        None => {
            setup::ensure(workspace, &[Need::Toolchain])?;
            Ok(image::make(workspace, Profile::Release, None)?.path)
        }
    }
}

/// Gives all images to all nodes.
pub(super) fn import(state: &State, plan: &Plan, image: &Path, archives: &[PathBuf]) -> Result<()> {
    for node in Room::nodes() {
        for archive in archives.iter().map(PathBuf::as_path).chain([image]) {
            announce(&format!("{node}: importing {}", archive.display()));
            wait_for_room(state, node, CONTAINERD_TIMEOUT, || import_one(state, plan, node, archive))?;
        }
    }
    Ok(())
}

fn import_one(state: &State, plan: &Plan, node: Room, archive: &Path) -> Result<()> {
    let pid = fs::read_to_string(state.pid(node))?;
    // The node's socket, by the way that leads into every process' root directory.
    let socket = format!("/proc/{}/root{CONTAINERD}", pid.trim());
    let own = plan.binaries.join("ctr");
    let mut ctr = Command::new(if own.is_file() { own.as_os_str() } else { OsStr::new("ctr") });
    ctr.env("PATH", PATH).args(["--address", &socket, "--namespace", "k8s.io", "images", "import"]);
    run_quietly(ctr.arg(archive))
}

/// Applies the manifests, and waits until an agent on every node says that it is ready.
pub(super) fn apply(workspace: &Workspace, state: &State, kubectl: &Kubectl) -> Result<()> {
    let overlay = workspace.root.join(OVERLAY);
    announce(&format!("kubectl apply -k {OVERLAY}"));
    kubectl.run(&[OsStr::new("apply"), OsStr::new("-k"), overlay.as_os_str()])?;
    let timeout = format!("--timeout={}s", ROLLOUT_TIMEOUT.as_secs());
    let rollout = ["--namespace=kube-system", "rollout", "status", "daemonset/weir", &timeout];
    kubectl.run(&rollout).map(|_| ()).with_context(|| {
        let pods = kubectl.run(&["--namespace=kube-system", "describe", "pods"]).unwrap_or_default();
        let logs = ["--namespace=kube-system", "logs", "daemonset/weir", "--tail=20"];
        let logs = kubectl.run(&logs).unwrap_or_default();
        format!("{pods}\n{logs}\n{}", last_words(state, Room::Node(1)))
    })
}

/// Applies what the user gives.
pub(super) fn apply_more(kubectl: &Kubectl, manifests: &[PathBuf]) -> Result<()> {
    manifests.iter().try_for_each(|file| {
        announce(&format!("kubectl apply -f {}", file.display()));
        kubectl.run(&[OsStr::new("apply"), OsStr::new("-f"), file.as_os_str()]).map(|_| ())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_images_one_learns_how_to_save_them() {
        let folder = tempfile::tempdir().unwrap();
        for folder in [None, Some(folder.path())] {
            let error = find_archives(folder, "registry.example/pause:1").unwrap_err().to_string();
            assert!(error.contains("docker save --output pause.tar registry.example/pause:1"), "{error}");
        }
    }

    #[test]
    fn archives_come_in_the_same_order_each_time() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.tar", "a.tar", "readme.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = find_archives(Some(folder.path()), "any").unwrap();
        assert_eq!(found, [folder.path().join("a.tar"), folder.path().join("b.tar")]);
    }
}
