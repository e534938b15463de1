//! cargo-deny: what we depend on. `deny.toml` says what is allowed.

use std::process::Command;

use anyhow::Result;

use super::Finding;
use crate::shell::run_quietly;
use crate::workspace::Workspace;

pub(super) fn check(workspace: &Workspace) -> Result<Finding> {
    run_quietly(
        cargo_deny(workspace)
            .args(["--log-level=error", "check", "--hide-inclusion-graph"])
            .args(["bans", "licenses", "sources"]),
    )?;
    Ok(Finding::Good)
}

/// The database is a git repository; without a network to its server there is nothing to compare with.
pub(super) fn check_advisories(workspace: &Workspace) -> Result<Finding> {
    // git asks nobody for a password here, and gives up on a server that is silent.
    let mut fetch = cargo_deny(workspace);
    fetch.args(["fetch", "db"]).env("GIT_TERMINAL_PROMPT", "0").env("GIT_HTTP_LOW_SPEED_LIMIT", "1");
    fetch.env("GIT_HTTP_LOW_SPEED_TIME", "20");
    if run_quietly(&mut fetch).is_err() {
        return Ok(Finding::NotRun("the advisory database cannot be reached".into()));
    }
    run_quietly(cargo_deny(workspace).args(["check", "--disable-fetch", "advisories"]))?;
    Ok(Finding::Good)
}

fn cargo_deny(workspace: &Workspace) -> Command {
    let mut command = Command::new(workspace.tools_root().join("bin/cargo-deny"));
    command.current_dir(&workspace.root);
    command
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A workspace whose cargo-deny answers like that.
    fn judged_by(script: &str) -> Result<Finding> {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::fixture(folder.path());
        let program = workspace.tools_root().join("bin/cargo-deny");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        if script.contains("fetch") { check_advisories(&workspace) } else { check(&workspace) }
    }

    #[test]
    fn what_is_denied_fails() {
        assert!(matches!(judged_by("exit 0"), Ok(Finding::Good)));
        assert!(judged_by("exit 4").is_err());
    }

    #[test]
    fn without_a_database_advisories_are_not_run() {
        assert!(matches!(judged_by("test $1 != fetch"), Ok(Finding::NotRun(_))));
        assert!(matches!(judged_by("test $1 = fetch || test $3 = advisories"), Ok(Finding::Good)));
        assert!(judged_by("test $1 = fetch").is_err());
    }
}
