//! Where things are on this machine. Everything else in this crate takes a [`Host`], so that tests can make one up.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The places that are searched for a toolchain.
#[derive(Clone, Debug)]
pub struct Host {
    /// Debian's compiler, which is never the one that rustup puts first in PATH.
    pub packaged_rustc: PathBuf,
    /// The `core` that Debian's compiler has for the BPF target.
    pub packaged_core: PathBuf,
    /// Where the folders `llvm-22`, `llvm-23`, … of Debian's LLVM packages are.
    pub llvm_parent: PathBuf,
    /// The folder for programs that `cargo xtask setup` builds for this workspace alone.
    pub tools_bin: PathBuf,
    /// The folders of PATH.
    pub path: Vec<PathBuf>,
}

impl Host {
    /// This machine, for the workspace in that folder.
    #[must_use]
    pub fn here(workspace: &Path) -> Self {
        Self {
            packaged_rustc: "/usr/bin/rustc".into(),
            packaged_core: "/usr/lib/rustlib/bpfel-unknown-none/lib".into(),
            llvm_parent: "/usr/lib".into(),
            tools_bin: tools_root(workspace).join("bin"),
            path: env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
        }
    }

    /// The `bin` folder of that major version of LLVM.
    #[must_use]
    pub fn llvm_bin(&self, major: u32) -> PathBuf {
        self.llvm_parent.join(format!("llvm-{major}/bin"))
    }

    /// A program in PATH.
    #[must_use]
    pub fn lookup_program(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|folder| folder.join(name)).find(|program| program.is_file())
    }
}

/// The `--root` for `cargo install bpf-linker`: under `target/`, not in the user's home.
#[must_use]
pub fn tools_root(workspace: &Path) -> PathBuf {
    workspace.join("target/bpf-tools")
}

/// The major version of LLVM that this rustc writes bitcode of; `None` if it cannot be run or does not say.
#[must_use]
pub fn lookup_llvm_major(rustc: &mut Command) -> Option<u32> {
    let output = rustc.arg("-vV").stderr(Stdio::null()).output().ok()?;
    parse_llvm_major(&String::from_utf8_lossy(&output.stdout))
}

/// From what `rustc -vV` prints.
fn parse_llvm_major(version: &str) -> Option<u32> {
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_major_is_read_from_rustc() {
        let version = "rustc 1.96.0 (ac68faa20 2026-05-25)\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(parse_llvm_major(version), Some(22));
        assert_eq!(parse_llvm_major("rustc 1.96.0\nLLVM version: unknown\n"), None);
        assert_eq!(parse_llvm_major("gcc 12"), None);
    }
}
