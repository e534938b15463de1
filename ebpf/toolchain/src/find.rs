//! Which toolchain this machine has, and what is missing if it has none.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::host::{Host, lookup_llvm_major};

/// The target of the programs. Every machine that Weir runs on is little-endian.
pub const TARGET: &str = "bpfel-unknown-none";

/// A complete set: compiler, `core`, linker, and a tool that removes debug sections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Toolchain {
    /// Which of the two ways.
    pub kind: Kind,
    /// `bpf-linker`.
    pub linker: PathBuf,
    /// LLVM's `objcopy`, under whichever name.
    pub objcopy: PathBuf,
}

/// Where the compiler comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Debian's packages: a stable compiler and a `core` ready for the target.
    Packaged {
        /// The compiler.
        rustc: PathBuf,
        /// The programs of the LLVM that it was built with.
        llvm_bin: PathBuf,
    },
    /// A nightly toolchain of rustup's with the component `rust-src`; cargo builds `core`.
    Nightly {
        /// `rustup` itself.
        rustup: PathBuf,
        /// Where the toolchain is installed.
        sysroot: PathBuf,
    },
}

/// No complete toolchain. Says what the nearest one lacks.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the eBPF programs cannot be compiled: {what} is missing; run `cargo xtask setup`")]
pub struct Missing {
    /// The first thing that is missing.
    pub what: String,
}

/// The toolchain of this machine for the workspace in that folder: packages first, then rustup.
///
/// # Errors
/// What is missing if neither is complete; of the packages if Debian's compiler is there, else of rustup's.
pub fn find_toolchain(workspace: &Path) -> Result<Toolchain, Missing> {
    find_on(&Host::here(workspace))
}

/// As [`find_toolchain`], on any machine.
///
/// # Errors
/// The same.
pub fn find_on(host: &Host) -> Result<Toolchain, Missing> {
    find_packaged(host).or_else(|packaged| {
        find_nightly(host).map_err(|nightly| if host.packaged_core.is_dir() { packaged } else { nightly })
    })
}

fn find_packaged(host: &Host) -> Result<Toolchain, Missing> {
    need(host.packaged_core.is_dir(), || format!("Debian's core for {TARGET}"))?;
    let major = lookup_llvm_major(&mut Command::new(&host.packaged_rustc))
        .ok_or_else(|| Missing { what: format!("a compiler at {}", host.packaged_rustc.display()) })?;
    let llvm_bin = host.llvm_bin(major);
    let objcopy = llvm_bin.join("llvm-objcopy");
    need(objcopy.is_file(), || format!("LLVM {major} in {}", llvm_bin.display()))?;
    let linker = host.tools_bin.join("bpf-linker");
    need(linker.is_file(), || linker.display().to_string())?;
    Ok(Toolchain { kind: Kind::Packaged { rustc: host.packaged_rustc.clone(), llvm_bin }, linker, objcopy })
}

fn find_nightly(host: &Host) -> Result<Toolchain, Missing> {
    let rustup = host.lookup_program("rustup").ok_or_else(|| Missing { what: "rustup".into() })?;
    let sysroot = lookup_nightly_sysroot(&rustup)
        .ok_or_else(|| Missing { what: "rustup's toolchain `nightly`".into() })?;
    need(sysroot.join("lib/rustlib/src/rust/library/core").is_dir(), || "nightly's rust-src".into())?;
    let objcopy = lookup_rust_objcopy(&sysroot)
        .or_else(|| host.lookup_program("llvm-objcopy"))
        .ok_or_else(|| Missing { what: "llvm-objcopy".into() })?;
    let own = host.tools_bin.join("bpf-linker");
    let linker = if own.is_file() { Some(own) } else { host.lookup_program("bpf-linker") };
    let linker = linker.ok_or_else(|| Missing { what: "bpf-linker".into() })?;
    Ok(Toolchain { kind: Kind::Nightly { rustup, sysroot }, linker, objcopy })
}

fn need(there: bool, what: impl FnOnce() -> String) -> Result<(), Missing> {
    if there { Ok(()) } else { Err(Missing { what: what() }) }
}

fn lookup_nightly_sysroot(rustup: &Path) -> Option<PathBuf> {
    let mut command = Command::new(rustup);
    command.args(["run", "nightly", "rustc", "--print", "sysroot"]).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end()))
}

/// rustc ships an objcopy of its own, in a folder that is named after the host's target.
fn lookup_rust_objcopy(sysroot: &Path) -> Option<PathBuf> {
    let targets = sysroot.join("lib/rustlib").read_dir().ok()?;
    targets
        .filter_map(Result::ok)
        .map(|target| target.path().join("bin/rust-objcopy"))
        .find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    /// A machine in a folder, with a compiler that is a script.
    struct Machine(TempDir);

    impl Machine {
        fn new() -> Self {
            Self(TempDir::new().unwrap())
        }

        fn host(&self) -> Host {
            let root = self.0.path();
            Host {
                packaged_rustc: root.join("usr/bin/rustc"),
                packaged_core: root.join("core"),
                llvm_parent: root.to_owned(),
                tools_bin: root.join("tools/bin"),
                path: vec![root.join("path")],
            }
        }

        fn program(&self, path: &str, script: &str) -> &Self {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            self
        }

        fn folder(&self, path: &str) -> &Self {
            fs::create_dir_all(self.0.path().join(path)).unwrap();
            self
        }

        fn packages(&self) -> &Self {
            self.folder("core").program("usr/bin/rustc", "echo 'LLVM version: 31.0.2'");
            self.program("llvm-31/bin/llvm-objcopy", "")
        }

        fn nightly(&self) -> &Self {
            let sysroot = self.0.path().join("nightly");
            self.program("path/rustup", &format!("echo {}", sysroot.display()));
            self.folder("nightly/lib/rustlib/src/rust/library/core");
            self.program("nightly/lib/rustlib/some-host/bin/rust-objcopy", "")
        }
    }

    #[test]
    fn packages_come_first_and_llvm_follows_the_compiler() {
        let machine = Machine::new();
        machine.packages().nightly().program("tools/bin/bpf-linker", "");
        let found = find_on(&machine.host()).unwrap();
        let Kind::Packaged { llvm_bin, .. } = found.kind else { panic!("{found:?}") };
        assert_eq!(llvm_bin, machine.0.path().join("llvm-31/bin"));
        assert_eq!(found.linker, machine.0.path().join("tools/bin/bpf-linker"));
    }

    #[test]
    fn nightly_serves_where_packages_are_not() {
        let machine = Machine::new();
        machine.nightly().program("path/bpf-linker", "");
        let found = find_on(&machine.host()).unwrap();
        assert!(matches!(found.kind, Kind::Nightly { .. }), "{found:?}");
        assert_eq!(found.linker, machine.0.path().join("path/bpf-linker"));
    }

    #[test]
    fn packages_do_not_take_a_linker_from_the_path() {
        let machine = Machine::new();
        machine.packages().program("path/bpf-linker", "");
        let missing = find_on(&machine.host()).unwrap_err();
        assert!(missing.what.ends_with("tools/bin/bpf-linker"), "{missing}");
    }

    #[test]
    fn what_is_missing_is_named_with_its_cure() {
        let machine = Machine::new();
        assert_eq!(find_on(&machine.host()).unwrap_err().what, "rustup");

        machine.folder("core").program("usr/bin/rustc", "echo 'LLVM version: 31.0.2'");
        let missing = find_on(&machine.host()).unwrap_err();
        assert!(missing.what.starts_with("LLVM 31 in "), "{missing}");
        assert!(missing.to_string().ends_with("run `cargo xtask setup`"), "{missing}");
    }

    #[test]
    fn a_nightly_without_sources_is_not_enough() {
        let machine = Machine::new();
        machine.program("path/rustup", "echo /nowhere").program("path/bpf-linker", "");
        assert_eq!(find_on(&machine.host()).unwrap_err().what, "nightly's rust-src");
        machine.program("path/rustup", "exit 1");
        assert_eq!(find_on(&machine.host()).unwrap_err().what, "rustup's toolchain `nightly`");
    }
}
