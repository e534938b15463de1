//! Compilers, the linker of the eBPF programs, and cargo's helpers. All but rustup's components go under `target/`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use weir_toolchain::host::{self, Host};
use weir_toolchain::{Kind, Toolchain, find_toolchain};

use super::apt;
use crate::shell::{announce, cargo, is_root, run_quietly, succeeds};
use crate::workspace::Workspace;

/// Debian's compiler and its `core` for the BPF target.
const PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];
/// Exactly this one: two machines have the same linker.
const LINKER_VERSION: &str = "0.13.0";
const DENY_VERSION: &str = "0.20.2";
const FUZZ_VERSION: &str = "0.13.2";

/// A toolchain for the eBPF programs.
pub(super) fn ensure_toolchain(workspace: &Workspace) -> Result<()> {
    if find_toolchain(&workspace.root).is_ok_and(|toolchain| linker_fits(workspace, &toolchain)) {
        return Ok(());
    }
    let host = Host::here(&workspace.root);
    if is_packaged(&host)? {
        ensure_packaged(workspace, &host)?;
    } else {
        ensure_nightly(workspace, &host)?;
    }
    find_toolchain(&workspace.root).map(drop).context("after everything was installed")
}

/// Whether Debian's packages are, or can be, this machine's toolchain.
fn is_packaged(host: &Host) -> Result<bool> {
    if host.packaged_core.is_dir() {
        return Ok(true);
    }
    if !apt::is_there() {
        return Ok(false);
    }
    let offered = || PACKAGES.iter().all(|package| apt::offers(package));
    if !offered() && is_root() {
        apt::update()?;
    }
    Ok(offered())
}

fn ensure_packaged(workspace: &Workspace, host: &Host) -> Result<()> {
    let major = || host::lookup_llvm_major(&mut Command::new(&host.packaged_rustc));
    if !host.packaged_core.is_dir() || major().is_none() {
        apt::install(&PACKAGES)?;
    }
    // The linker reads what the compiler writes: LLVM's version follows the compiler's.
    let major = major().with_context(|| format!("{} does not run", host.packaged_rustc.display()))?;
    let llvm_bin = host.llvm_bin(major);
    let is_complete = ["llvm-config", "llvm-objcopy"].iter().all(|program| llvm_bin.join(program).is_file());
    if !is_complete {
        apt::install(&[&format!("llvm-{major}-dev")])?;
    }
    install_linker(cargo(workspace), workspace, major, Some(&llvm_bin))
}

fn ensure_nightly(workspace: &Workspace, host: &Host) -> Result<()> {
    let Some(rustup) = host.lookup_program("rustup") else {
        bail!(
            "neither Debian's {} nor rustup is here; install rustup (https://rustup.rs) and try again",
            PACKAGES.join(" and ")
        );
    };
    announce("rustup toolchain install nightly --component rust-src");
    let mut install = Command::new(&rustup);
    install.args(["toolchain", "install", "nightly", "--profile=minimal", "--component=rust-src"]);
    run_quietly(&mut install)?;
    if host.lookup_program("bpf-linker").is_some() {
        return Ok(());
    }
    let mut rustc = Command::new(&rustup);
    rustc.args(["run", "nightly", "rustc"]);
    let major = host::lookup_llvm_major(&mut rustc).context("rustup's nightly does not run")?;
    let llvm_bin = host.llvm_bin(major);
    install_linker(cargo(workspace), workspace, major, llvm_bin.is_dir().then_some(&llvm_bin)).with_context(
        || format!("bpf-linker needs LLVM {major} with its headers; or put a ready bpf-linker into PATH"),
    )
}

fn install_linker(
    mut cargo: Command,
    workspace: &Workspace,
    major: u32,
    llvm_bin: Option<&PathBuf>,
) -> Result<()> {
    let root = host::tools_root(&workspace.root);
    announce(&format!("cargo install bpf-linker, with LLVM {major}, into {} (a minute)", root.display()));
    if let Some(llvm_bin) = llvm_bin {
        let inherited = env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(llvm_bin.clone()).chain(env::split_paths(&inherited));
        cargo.env("PATH", env::join_paths(folders).context("a folder of PATH has a colon in its name")?);
    }
    let feature = format!("--features=llvm-{major}");
    cargo.args(["install", "--locked", "--no-default-features", &feature, "--version", LINKER_VERSION]);
    run_quietly(cargo.arg("--root").arg(root).arg("bpf-linker"))
}

/// Whether the linker under `target/` was built for the LLVM of a compiler that was upgraded since.
fn linker_fits(workspace: &Workspace, toolchain: &Toolchain) -> bool {
    let Kind::Packaged { llvm_bin, .. } = &toolchain.kind else { return true };
    let Some(llvm) = llvm_bin.parent().and_then(Path::file_name) else { return true };
    // cargo's own record of what it installed there; a linker that somebody put there has none.
    match fs::read_to_string(host::tools_root(&workspace.root).join(".crates2.json")) {
        Ok(record) => record.contains(&format!("\"{}\"", llvm.to_string_lossy())),
        Err(_) => true,
    }
}

/// rustfmt and clippy for the cargo that runs us.
pub(super) fn ensure_style(workspace: &Workspace) -> Result<()> {
    let is_there = |name: &str| succeeds(cargo(workspace).args([name, "--version"]));
    if is_there("fmt") && is_there("clippy") {
        return Ok(());
    }
    announce("rustup component add rustfmt clippy");
    run_quietly(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]))
        .context("rustfmt and clippy are missing")
}

/// cargo-deny, under `target/tools`.
pub(super) fn ensure_deny(workspace: &Workspace) -> Result<()> {
    let root = workspace.tools_root();
    if root.join("bin/cargo-deny").is_file() {
        return Ok(());
    }
    announce(&format!("cargo install cargo-deny into {} (one to two minutes)", root.display()));
    let mut install = cargo(workspace);
    // Unoptimized: it is built in half the time and reads our few hundred crates in a second.
    install.args(["install", "--locked", "--debug", "--no-default-features", "--version", DENY_VERSION]);
    run_quietly(install.arg("--root").arg(root).arg("cargo-deny"))
}

/// cargo-fuzz, under `target/tools`.
pub(super) fn ensure_fuzz(workspace: &Workspace) -> Result<()> {
    let root = workspace.tools_root();
    if root.join("bin/cargo-fuzz").is_file() {
        return Ok(());
    }
    announce(&format!("cargo install cargo-fuzz into {} (half a minute)", root.display()));
    let mut install = cargo(workspace);
    install.args(["install", "--locked", "--debug", "--version", FUZZ_VERSION, "--root"]).arg(root);
    run_quietly(install.arg("cargo-fuzz")).context("cargo-fuzz is missing")
}
