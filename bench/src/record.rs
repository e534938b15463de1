//! The record of a run: every single measurement, and on what machine, as JSON that a plot can be made from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::report::Figure;
use crate::stage::cpus;
use crate::{cpu, hook, nodeport, traffic};

/// Everything about one run.
#[derive(Debug, Serialize)]
pub struct Record {
    /// When it began, in UTC.
    pub started: String,
    /// How it was called.
    pub arguments: Vec<String>,
    /// What orders and resamples were drawn from.
    pub seed: u64,
    /// Where it ran.
    pub machine: Machine,
    /// Traffic, if it was measured.
    pub traffic: Option<traffic::Outcome>,
    /// The cost of `connect`, if it was measured.
    pub hook: Option<hook::Outcome>,
    /// Packets through a node, if they were measured.
    pub nodeport: Option<nodeport::Outcome>,
    /// What was printed.
    pub figures: Vec<Figure>,
}

/// The machine and the versions.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// As `/proc/cpuinfo` calls it.
    pub cpu: String,
    /// CPUs that can be used.
    pub cores: usize,
    /// The client's CPU and the server's.
    pub pinned: [usize; 2],
    /// The kernel's release.
    pub kernel: String,
    /// `weir --version`
    pub weir: String,
    /// The commit of the checkout and whether it was changed; `None` outside of one.
    pub commit: Option<String>,
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// `/proc` is not there, or `weir` does not run.
    pub fn here(weir: &Path) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's release")?;
        Ok(Self {
            cpu: parse_model(&cpuinfo).unwrap_or("unknown").into(),
            cores: cpu::count(),
            pinned: cpus(),
            kernel: kernel.trim().into(),
            weir: said(Command::new(weir).arg("--version")).context("weir --version")?,
            commit: said(Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args([
                "describe",
                "--always",
                "--dirty",
                "--abbrev=12",
            ])),
        })
    }
}

fn parse_model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(": ").map(|(_, model)| model.trim())
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Record {
    /// Writes it; without `path`, into the package's results under the time of its beginning. Returns where.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, path: Option<PathBuf>) -> Result<PathBuf> {
        let path = path.unwrap_or_else(|| {
            let name = self.started.replace(':', "");
            Path::new(env!("CARGO_MANIFEST_DIR")).join("results").join(format!("{name}.json"))
        });
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let text = serde_json::to_string(self)?;
        fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// Now, in UTC, to the second.
#[must_use]
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_a_name() {
        assert_eq!(parse_model("processor\t: 0\nmodel name\t: AMD EPYC\n"), Some("AMD EPYC"));
        let here = Machine::here(Path::new("true")).unwrap();
        assert!(here.cores > 0 && !here.kernel.is_empty());
        assert!(now().ends_with('Z'));
    }
}
