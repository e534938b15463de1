//! The ABI guard: the layout of the rows may change only together with `ABI_VERSION`, because pinned maps outlive
//! the agent that made them. `ebpf/abi.lock` holds the layout of the last version that was recorded.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use weir_ebpf::abi::layout::describe;

use super::Finding;
use crate::shell::announce;
use crate::workspace::Workspace;

const BLESS: &str = "record it with `cargo xtask check --bless-abi`";
const RAISE: &str = "raise ABI_VERSION in ebpf/src/abi/mod.rs, then `cargo xtask check --bless-abi`";

pub(super) fn check(workspace: &Workspace) -> Result<Finding> {
    let lock = lock_file(workspace);
    judge(read(&lock)?.as_deref(), &layout()?)?;
    Ok(Finding::Good)
}

/// Records the present layout.
///
/// # Errors
/// If the layout changed and the version did not rise.
pub(crate) fn bless(workspace: &Workspace) -> Result<()> {
    let (lock, layout) = (lock_file(workspace), layout()?);
    if may_bless(read(&lock)?.as_deref(), &layout)? {
        announce(&format!("writing {}", lock.display()));
        fs::write(&lock, layout).with_context(|| lock.display().to_string())?;
    }
    Ok(())
}

fn lock_file(workspace: &Workspace) -> PathBuf {
    workspace.root.join("ebpf/abi.lock")
}

fn layout() -> Result<String> {
    let mut text = String::new();
    describe(&mut text)?;
    Ok(text)
}

/// `None` where there is no such file.
fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Whether the recorded layout is the present one.
fn judge(lock: Option<&str>, layout: &str) -> Result<()> {
    let Some(lock) = lock else { bail!("ebpf/abi.lock is missing: {BLESS}") };
    if may_bless(Some(lock), layout)? {
        bail!("ABI_VERSION rose to {}: {BLESS}\n{}", version(layout)?, difference(lock, layout));
    }
    Ok(())
}

/// Whether there is something to record: an error if it must not be.
fn may_bless(lock: Option<&str>, layout: &str) -> Result<bool> {
    let Some(lock) = lock else { return Ok(true) };
    if lock == layout {
        return Ok(false);
    }
    let (old, new) = (version(lock)?, version(layout)?);
    if new <= old {
        bail!("the rows changed, ABI_VERSION ({new}) did not: {RAISE}\n{}", difference(lock, layout));
    }
    Ok(true)
}

fn version(layout: &str) -> Result<u32> {
    let line = layout.lines().next().and_then(|line| line.strip_prefix("version "));
    line.and_then(|number| number.parse().ok())
        .ok_or_else(|| anyhow!("ebpf/abi.lock does not begin with `version NUMBER`"))
}

/// The lines that only one of the two has.
fn difference(lock: &str, layout: &str) -> String {
    let only = |of: &str, not_of: &str, sign: char| {
        let lines = of.lines().filter(|line| !not_of.lines().any(|other| other == *line));
        lines.map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    only(lock, layout, '-') + &only(layout, lock, '+')
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version 3\nBackend 20: addr@0 port@16 flags@18\nSetWord 8: 0@0\n";

    fn changed(version: u32) -> String {
        LOCK.replace("flags@18", "zone@18").replace("version 3", &format!("version {version}"))
    }

    #[test]
    fn an_unchanged_layout_is_good_and_not_written_again() {
        judge(Some(LOCK), LOCK).unwrap();
        assert!(!may_bless(Some(LOCK), LOCK).unwrap());
    }

    #[test]
    fn a_change_under_the_same_version_fails_and_is_not_recorded() {
        for version in [2, 3] {
            for error in [
                judge(Some(LOCK), &changed(version)).unwrap_err(),
                may_bless(Some(LOCK), &changed(version)).unwrap_err(),
            ] {
                let error = error.to_string();
                assert!(error.contains("raise ABI_VERSION"), "{error}");
                assert!(error.contains("- Backend 20: addr@0 port@16 flags@18"), "{error}");
                assert!(error.contains("+ Backend 20: addr@0 port@16 zone@18"), "{error}");
                assert!(!error.contains("SetWord"), "{error}");
            }
        }
    }

    #[test]
    fn a_change_under_a_new_version_is_to_be_recorded() {
        let error = judge(Some(LOCK), &changed(4)).unwrap_err().to_string();
        assert!(error.contains("--bless-abi"), "{error}");
        assert!(may_bless(Some(LOCK), &changed(4)).unwrap());
    }

    #[test]
    fn a_missing_or_broken_record_fails() {
        assert!(judge(None, LOCK).unwrap_err().to_string().contains("--bless-abi"));
        assert!(judge(Some("Backend 20:\n"), LOCK).is_err());
    }

    #[test]
    fn the_present_layout_names_version_and_rows() {
        let layout = layout().unwrap();
        assert_eq!(version(&layout).unwrap(), weir_ebpf::abi::ABI_VERSION);
        assert!(layout.lines().any(|line| line.starts_with("Backend 24: ")), "{layout}");
    }
}
