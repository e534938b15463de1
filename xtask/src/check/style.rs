//! rustfmt and clippy.

use anyhow::Result;

use super::Finding;
use crate::shell::{cargo, run_quietly};
use crate::workspace::Workspace;

pub(super) fn check_format(workspace: &Workspace) -> Result<Finding> {
    run_quietly(cargo(workspace).args(["fmt", "--all", "--check"]))?;
    Ok(Finding::Good)
}

pub(super) fn check_clippy(workspace: &Workspace) -> Result<Finding> {
    run_quietly(cargo(workspace).args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    Ok(Finding::Good)
}

/// The features that the workspace as a whole does not build.
pub(super) fn check_features(workspace: &Workspace) -> Result<Finding> {
    run_quietly(cargo(workspace).args([
        "clippy",
        "--quiet",
        "--all-targets",
        "--package=weir-agent",
        "--package=weir-tests",
        "--features=weir-agent/log,weir-tests/kernel",
        "--",
        "-D",
        "warnings",
    ]))?;
    Ok(Finding::Good)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_long_line_and_a_warning_fail() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::fixture(folder.path());
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("Cargo.toml", "[package]\nname = \"p\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n");
        write("lib.rs", "fn private() {}\n");
        assert!(check_format(&workspace).is_ok());
        assert!(check_clippy(&workspace).is_err());
        write("lib.rs", "pub fn public(){}\n");
        assert!(check_format(&workspace).is_err());
        assert!(check_clippy(&workspace).is_ok());
    }
}
