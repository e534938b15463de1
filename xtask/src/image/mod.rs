//! `cargo xtask image`: the container image, from nothing but the program, without a daemon and without root.

mod archive;
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::shell::announce;
use crate::workspace::{Profile, Workspace};
use archive::{Archive, Contents, build};

/// Where an image of ours would be published; the manifests in `deploy/` name it.
const REPOSITORY: &str = "ghcr.io/weir-dataplane/weir";
const SOURCE: &str = env!("CARGO_PKG_REPOSITORY");
const VERSION: &str = env!("CARGO_PKG_VERSION");
const LICENSES: &str = env!("CARGO_PKG_LICENSE");
/// What a node has to fetch at most, in bytes.
const MOST: u64 = 15 << 20;

/// An archive that was written.
pub(crate) struct Made {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Lines `figure NAME VALUE` about it.
    pub(crate) figures: Vec<String>,
}

/// Builds the program and the archive, and writes it to `output` or below `target/`.
///
/// # Errors
/// The program cannot be built, is not static or is too large; the file cannot be written.
pub(crate) fn make(workspace: &Workspace, profile: Profile, output: Option<&Path>) -> Result<Made> {
    let (arch, triple) = program::target()?;
    let path = match profile {
        Profile::Release => {
            announce(&format!("building weir for {triple}, static (minutes, the first time)"));
            program::build(workspace, triple)?
        }
        Profile::Dev => program::build_for_test(workspace)?,
    };
    let binary = fs::read(&path).with_context(|| path.display().to_string())?;
    program::ensure_static(&binary).with_context(|| path.display().to_string())?;
    let contents = Contents {
        binary: &binary,
        arch: arch.clone(),
        repository: REPOSITORY,
        version: VERSION,
        labels: labels(lookup_revision(&workspace.root)),
    };
    let Archive { bytes, name, compressed } = build(&contents)?;
    ensure!(compressed < MOST, "the image has {compressed} bytes compressed, {MOST} or more");
    let output = match output {
        Some(output) => output.to_owned(),
        None => workspace.root.join(format!("target/image/{}/weir-{VERSION}-{arch}.tar", folder(profile))),
    };
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::write(&output, bytes).with_context(|| output.display().to_string())?;
    announce(&format!("{name} is in {}", output.display()));
    // What is not optimized is larger: an upper bound.
    let suffix = if profile == Profile::Release { "" } else { "-unoptimized" };
    let figures = vec![
        format!("figure image-mib{suffix} {}", mebibytes(compressed)),
        format!("figure image-uncompressed-mib{suffix} {}", mebibytes(binary.len() as u64)),
    ];
    Ok(Made { path: output, figures })
}

/// So that what is tested is never taken for what is shipped.
fn folder(profile: Profile) -> &'static str {
    match profile {
        Profile::Release => "release",
        Profile::Dev => "test",
    }
}

/// Those of the OCI image specification that are true of every image of ours.
fn labels(revision: Option<String>) -> Vec<(&'static str, String)> {
    let title = "Services of Kubernetes in eBPF, beside any CNI plugin";
    let mut labels = vec![
        ("org.opencontainers.image.title", "Weir".to_owned()),
        ("org.opencontainers.image.description", title.to_owned()),
        ("org.opencontainers.image.version", VERSION.to_owned()),
        ("org.opencontainers.image.source", SOURCE.to_owned()),
        ("org.opencontainers.image.licenses", LICENSES.to_owned()),
    ];
    labels.extend(revision.map(|revision| ("org.opencontainers.image.revision", revision)));
    labels
}

/// The commit that is checked out, with `-dirty` where a file differs from it; none outside of a repository.
fn lookup_revision(root: &Path) -> Option<String> {
    let git = |arguments: &[&str]| Command::new("git").arg("-C").arg(root).args(arguments).output().ok();
    let head = git(&["rev-parse", "--verify", "HEAD"]).filter(|output| output.status.success())?;
    let head = String::from_utf8(head.stdout).ok()?;
    let clean = git(&["diff", "--quiet", "HEAD"]).is_some_and(|output| output.status.success());
    Some(format!("{}{}", head.trim(), if clean { "" } else { "-dirty" }))
}

/// With two decimals, rounded up: a figure that is compared with a limit.
fn mebibytes(bytes: u64) -> String {
    let hundredths = (bytes * 100).div_ceil(1 << 20);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up() {
        assert_eq!(mebibytes(0), "0.00");
        assert_eq!(mebibytes(1), "0.01");
        assert_eq!(mebibytes(15 << 20), "15.00");
        assert_eq!(mebibytes((15 << 20) + 1), "15.01");
    }

    #[test]
    fn the_revision_says_what_is_not_committed() {
        let folder = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
            let mut git = Command::new("git");
            git.arg("-C").arg(folder.path()).args(identity).args(arguments);
            assert!(git.output().unwrap().status.success(), "{arguments:?}");
        };
        git(&["init", "--quiet"]);
        assert_eq!(lookup_revision(folder.path()), None);
        fs::write(folder.path().join("file"), "one").unwrap();
        git(&["add", "file"]);
        git(&["commit", "--quiet", "--message=first"]);
        let revision = lookup_revision(folder.path()).unwrap();
        assert!(revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit()), "{revision}");
        fs::write(folder.path().join("file"), "two").unwrap();
        assert_eq!(lookup_revision(folder.path()), Some(format!("{revision}-dirty")));
    }
}
