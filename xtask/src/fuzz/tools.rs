//! The nightly compiler, cargo-fuzz, and LLVM's programs that read coverage counters.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use weir_toolchain::host::{self, Host};

use crate::setup::{Need, ensure};
use crate::shell::succeeds;
use crate::workspace::Workspace;

/// What fuzzing takes.
pub(crate) struct Tools {
    pub(super) cargo_fuzz: PathBuf,
    /// What the nightly compiler builds for.
    pub(super) triple: String,
    sysroot: PathBuf,
}

impl Tools {
    /// As they are here.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub(crate) fn lookup(workspace: &Workspace) -> Result<Self> {
        if !succeeds(nightly("rustc".as_ref()).arg("--version")) {
            bail!("no nightly compiler; `rustup toolchain install nightly` brings one");
        }
        let Some(cargo_fuzz) = lookup_cargo_fuzz(workspace) else {
            bail!("no cargo-fuzz; `cargo xtask fuzz` or `cargo install cargo-fuzz` brings it");
        };
        let said = |arguments: &[&str]| -> Result<String> {
            let output =
                nightly("rustc".as_ref()).args(arguments).output().context("the nightly compiler")?;
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_string())
        };
        let version = said(&["-vV"])?;
        let triple = version.lines().find_map(|line| line.strip_prefix("host: "));
        let triple = triple.context("the nightly compiler does not say what it is for")?.to_string();
        Ok(Self { cargo_fuzz, triple, sysroot: said(&["--print=sysroot"])?.into() })
    }

    /// Installs cargo-fuzz if that alone is missing.
    ///
    /// # Errors
    /// As [`Tools::lookup`]; or why it cannot be installed.
    pub(crate) fn ensure(workspace: &Workspace) -> Result<Self> {
        if lookup_cargo_fuzz(workspace).is_none() && succeeds(nightly("rustc".as_ref()).arg("--version")) {
            ensure(workspace, &[Need::Fuzz])?;
        }
        Self::lookup(workspace)
    }

    /// A program, with the nightly toolchain first in its PATH.
    pub(super) fn nightly(&self, program: &Path) -> Command {
        nightly(program.as_os_str())
    }

    /// `llvm-cov` or `llvm-profdata` of the compiler's own LLVM: rustup's component, or Debian's package.
    ///
    /// # Errors
    /// How to get it.
    pub(super) fn lookup_llvm(&self, workspace: &Workspace, program: &str) -> Result<PathBuf> {
        let own = self.sysroot.join("lib/rustlib").join(&self.triple).join("bin").join(program);
        if own.is_file() {
            return Ok(own);
        }
        let major = host::lookup_llvm_major(&mut nightly("rustc".as_ref())).context("the nightly's LLVM")?;
        let packaged = Host::here(&workspace.root).llvm_bin(major).join(program);
        if !packaged.is_file() {
            bail!(
                "no {program}; `rustup component add llvm-tools --toolchain nightly` or llvm-{major} brings it"
            );
        }
        Ok(packaged)
    }
}

fn nightly(program: &OsStr) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly"]).arg(program);
    // Those of the cargo that runs us.
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}

fn lookup_cargo_fuzz(workspace: &Workspace) -> Option<PathBuf> {
    let own = workspace.tools_root().join("bin/cargo-fuzz");
    if own.is_file() {
        return Some(own);
    }
    Host::here(&workspace.root).lookup_program("cargo-fuzz")
}
