//! Building for the other processor: a standard library for it, and gcc as its linker.
//!
//! rustup's target is taken where it is installed. Else Debian's compiler is, with its library for the other processor
//! unpacked under `target/`: to install that package would take this machine's own away.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::setup::{self, Need};
use crate::shell::capture;
use crate::vm::{Arch, unpack_library};
use crate::workspace::Workspace;

/// Debian's compiler.
const PACKAGED_RUSTC: &str = "/usr/bin/rustc";

/// What it takes.
pub(crate) struct Cross {
    arch: Arch,
    /// Debian's library, if it is that.
    sysroot: Option<PathBuf>,
}

impl Cross {
    /// Everything is there, or is fetched.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn ensure(workspace: &Workspace, arch: Arch) -> Result<Self> {
        setup::ensure(workspace, &[Need::Toolchain, Need::Cross(arch)])?;
        if has_target(arch) {
            return Ok(Self { arch, sysroot: None });
        }
        let version = lookup_version()?;
        let folder = workspace.root.join("target/cross").join(arch.debian());
        let sysroot = unpack_library(&folder, arch, &version)?;
        Ok(Self { arch, sysroot: Some(sysroot) })
    }

    /// Makes this cargo build for it, statically.
    pub(crate) fn prepare(&self, cargo: &mut Command) {
        let triple = self.arch.triple();
        let shouted = triple.to_uppercase().replace('-', "_");
        let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
        if let Some(sysroot) = &self.sysroot {
            flags.push(format!("--sysroot={}", sysroot.display()));
            cargo.env("RUSTC", PACKAGED_RUSTC);
        }
        cargo.args(["--target", triple]);
        cargo.env(format!("CARGO_TARGET_{shouted}_LINKER"), self.tool("gcc"));
        cargo.env(format!("CC_{}", triple.replace('-', "_")), self.tool("gcc"));
        cargo.env(format!("AR_{}", triple.replace('-', "_")), self.tool("ar"));
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    }

    /// One of gcc's or the binutils' for it.
    pub(crate) fn tool(&self, name: &str) -> String {
        let family = self.arch.triple().replace("-unknown", "");
        format!("{family}-{name}")
    }
}

/// Whether the compiler that builds Weir has a library for it.
fn has_target(arch: Arch) -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print=target-libdir", "--target", arch.triple()]);
    capture(&mut rustc).is_ok_and(|folder| PathBuf::from(folder.trim()).is_dir())
}

/// Of Debian's compiler: its library has to be of the very same.
fn lookup_version() -> Result<String> {
    let said = capture(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", "rustc-web"]))
        .context(
        "Debian's compiler (package rustc-web) is not installed, and rustup has no such target",
    )?;
    ensure!(!said.is_empty(), "Debian's compiler has no version");
    Ok(said)
}
