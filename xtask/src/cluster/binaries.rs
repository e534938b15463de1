//! The programs that the cluster is made of: those of a Kubernetes release in one folder, the rest in the same or
//! from the distribution. Nothing is fetched; what is missing is named, with where one gets it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::node::CNI_PLUGINS;
use super::service::PATH;

/// Of a release.
const OF_RELEASE: [&str; 5] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"];
/// Of the folder or the distribution: name, and Debian's package.
const OF_EITHER: [(&str, &str); 5] = [
    ("etcd", "etcd-server (3.5 or later; it is also in the archive of setup-envtest)"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("runc", "runc"),
];
/// Needed plugins.
const PLUGINS: [&str; 4] = ["bridge", "host-local", "portmap", "loopback"];

/// The folder, if everything is there.
///
/// # Errors
/// What is missing, and where it is to be had.
pub(super) fn find(folder: Option<&Path>) -> Result<PathBuf> {
    let Some(folder) = folder else {
        bail!("which Kubernetes? Give --binaries DIR.\n{}", explain_release());
    };
    let folder = folder.canonicalize().with_context(|| folder.display().to_string())?;
    let missing = select_missing(&folder, Path::new("/"));
    if missing.is_empty() { Ok(folder) } else { bail!("{}", missing.join("\n")) }
}

fn select_missing(folder: &Path, root: &Path) -> Vec<String> {
    let has = |name: &str| folder.join(name).is_file();
    let distribution =
        |name: &str| PATH.split(':').any(|path| root.join(path.trim_start_matches('/')).join(name).is_file());
    let mut missing = Vec::new();
    let release: Vec<_> = OF_RELEASE.into_iter().filter(|name| !has(name)).collect();
    if !release.is_empty() {
        missing.push(format!("{} has no {}.\n{}", folder.display(), release.join(", "), explain_release()));
    }
    for (name, package) in OF_EITHER {
        if !has(name) && !distribution(name) {
            missing
                .push(format!("{name} is missing, in {} and in PATH: package {package}", folder.display()));
        }
    }
    let plugins = root.join(CNI_PLUGINS.trim_start_matches('/'));
    for name in PLUGINS.into_iter().filter(|name| !plugins.join(name).is_file()) {
        missing.push(format!("{CNI_PLUGINS}/{name} is missing: package containernetworking-plugins"));
    }
    missing
}

fn explain_release() -> String {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    format!(
        "A release's programs are {} and come from\n  \
         https://dl.k8s.io/v1.36.0/kubernetes-server-linux-{arch}.tar.gz   (kubernetes/server/bin)\n  \
         https://dl.k8s.io/v1.36.0/kubernetes-test-linux-{arch}.tar.gz     (e2e.test, for --e2e)",
        OF_RELEASE.join(", ")
    )
}

/// Where the images come from that `registries` names and no node can reach.
pub(super) fn explain_images(sandbox: &str) -> String {
    format!(
        "The nodes reach no registry. Save what their pods need into one folder, for --images:\n  \
         docker pull {sandbox} && docker save --output pause.tar {sandbox}\n  \
         (and for `check` and --e2e: what `e2e.test --list-images` calls agnhost)"
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn without_a_folder_one_learns_where_to_get_one() {
        let error = find(None).unwrap_err().to_string();
        assert!(error.contains("--binaries") && error.contains("https://dl.k8s.io/"), "{error}");
    }

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("release");
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(root.path().join("usr/lib/cni")).unwrap();
        fs::create_dir_all(root.path().join("usr/sbin")).unwrap();
        for name in OF_RELEASE.into_iter().chain(["etcd", "containerd", "ctr", "containerd-shim-runc-v2"]) {
            fs::write(folder.join(name), "").unwrap();
        }
        for name in PLUGINS {
            fs::write(root.path().join("usr/lib/cni").join(name), "").unwrap();
        }
        fs::write(root.path().join("usr/sbin/runc"), "").unwrap();
        assert_eq!(select_missing(&folder, root.path()), Vec::<String>::new());
        fs::remove_file(folder.join("kubelet")).unwrap();
        fs::remove_file(root.path().join("usr/sbin/runc")).unwrap();
        fs::remove_file(root.path().join("usr/lib/cni/portmap")).unwrap();
        let missing = select_missing(&folder, root.path());
        assert_eq!(missing.len(), 3, "{missing:?}");
        assert!(missing[0].contains("has no kubelet."), "{missing:?}");
        assert!(missing[1].contains("package runc"), "{missing:?}");
    }
}
