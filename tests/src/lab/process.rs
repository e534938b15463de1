//! Where a process of the lab runs.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use super::netns::Netns;

/// A network namespace and a cgroup: a pod, a node or the client outside.
#[derive(Clone, Debug)]
pub struct Place {
    name: String,
    netns: Netns,
    cgroup: PathBuf,
}

impl Place {
    pub(super) fn new(name: &str, netns: Netns, cgroup: PathBuf) -> Self {
        Self { name: name.into(), netns, cgroup }
    }

    /// Its name in the lab: `n1`, `web`, `outside`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its cgroup.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A command that will run here. It enters the cgroup and the namespace before its program starts, so
    /// that no socket of it ever is anywhere else.
    ///
    /// # Errors
    /// The place is gone.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let procs = self.cgroup.join("cgroup.procs");
        let procs =
            OpenOptions::new().write(true).open(&procs).with_context(|| procs.display().to_string())?;
        let netns = self.netns.open()?;
        let mut command = Command::new(program);
        let enter = move || {
            // "0" is the writer itself
            nix::unistd::write(&procs, b"0")?;
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            Ok(())
        };
        // SAFETY: between fork and exec only two system calls on files that are already open; no allocation.
        unsafe { command.pre_exec(enter) };
        Ok(command)
    }
}
