//! The program in the image: built so that it needs nothing but the kernel, and so that two builds are the same.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use object::elf::{PT_INTERP, SHT_SYMTAB};
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::{Endianness, Object as _};
use oci_spec::image::Arch;

use crate::shell::{cargo, run};
use crate::workspace::{Profile, Workspace};

/// This machine's processor, as images and as compilers call it.
pub(super) fn target() -> Result<(Arch, &'static str)> {
    match env::consts::ARCH {
        "x86_64" => Ok((Arch::Amd64, "x86_64-unknown-linux-gnu")),
        "aarch64" => Ok((Arch::ARM64, "aarch64-unknown-linux-gnu")),
        other => bail!("Weir is not made for {other}"),
    }
}

/// Builds `weir` as it is shipped, linked statically, and says where it is.
pub(super) fn build(workspace: &Workspace, triple: &str) -> Result<PathBuf> {
    let mut build = cargo(workspace);
    // With a target that is named, the flags are not those of build scripts and procedural macros.
    build.args(["build", "--release", "--locked", "--package=weir-agent", "--bin=weir", "--target", triple]);
    build.env("CARGO_ENCODED_RUSTFLAGS", flags(&workspace.root, &cargo_home()?)?);
    run(&mut build)?;
    let path = workspace.agent_for(triple, Profile::Release);
    ensure_placeless(&fs::read(&path)?, &workspace.root)?;
    Ok(path)
}

/// Builds `weir` as the other tests have it, but linked statically: only the last step is another, seconds instead of
/// minutes.
pub(super) fn build_for_test(workspace: &Workspace) -> Result<PathBuf> {
    let mut build = cargo(workspace);
    build.args(["rustc", "--locked", "--package=weir-agent", "--bin=weir", "--", STATIC, "-Cstrip=symbols"]);
    run(&mut build)?;
    Ok(workspace.agent(Profile::Dev))
}

const STATIC: &str = "-Ctarget-feature=+crt-static";

/// No shared library, and no path of this machine in the texts of panics.
fn flags(root: &Path, cargo_home: &Path) -> Result<OsString> {
    let remap = |from: &Path, to: &str| {
        let from = from.to_str().with_context(|| format!("{} is not UTF-8", from.display()))?;
        Ok::<_, anyhow::Error>(format!("--remap-path-prefix={from}={to}"))
    };
    let flags = [STATIC.to_owned(), remap(root, "/weir")?, remap(cargo_home, "/cargo")?];
    Ok(flags.join("\x1f").into())
}

/// The same program would have come of another folder, as far as can be seen: it does not name this one.
fn ensure_placeless(program: &[u8], root: &Path) -> Result<()> {
    // A folder like /src has the name of part of another path.
    if root.components().count() < 3 {
        return Ok(());
    }
    let root = root.as_os_str().as_bytes();
    let is_named = program.windows(root.len()).any(|window| window == root);
    ensure!(!is_named, "the program names the folder that it was built in");
    Ok(())
}

fn cargo_home() -> Result<PathBuf> {
    match env::var_os("CARGO_HOME") {
        Some(home) => Ok(env::current_dir()?.join(home)),
        None => Ok(env::home_dir().context("neither CARGO_HOME nor HOME is set")?.join(".cargo")),
    }
}

/// A program that would run in an empty file system.
///
/// # Errors
/// It asks for an interpreter or a library; it still has its symbols; it is no program of 64 bits.
pub(super) fn ensure_static(program: &[u8]) -> Result<()> {
    let file = ElfFile64::<Endianness>::parse(program).context("reading the program")?;
    let endian = file.endian();
    let interpreter = file.elf_program_headers().iter().any(|header| header.p_type(endian) == PT_INTERP);
    ensure!(!interpreter, "the program wants an interpreter: it is not linked statically");
    let imports = file.imports().context("reading what the program imports")?;
    ensure!(imports.is_empty(), "the program wants symbols of shared libraries: {imports:?}");
    let header = file.elf_header();
    let sections = header.sections(endian, program).context("reading the program's sections")?;
    let symbols = sections.iter().any(|section| section.sh_type(endian) == SHT_SYMTAB);
    ensure!(!symbols, "the program still has its symbols");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_an_interpreter_is_refused() {
        // This very test is one.
        let this = fs::read(env::current_exe().unwrap()).unwrap();
        let error = ensure_static(&this).unwrap_err().to_string();
        assert!(error.contains("interpreter"), "{error}");
        assert!(ensure_static(b"#!/bin/sh\n").is_err());
    }

    #[test]
    fn a_program_that_says_where_it_was_built_is_refused() {
        assert!(
            ensure_placeless(b"\x7fELF panicked at /weir/agent/src/main.rs", Path::new("/home/weir")).is_ok()
        );
        let named = b"\x7fELF panicked at /home/weir/agent/src/main.rs";
        assert!(ensure_placeless(named, Path::new("/home/weir")).is_err());
        assert!(ensure_placeless(named, Path::new("/src")).is_ok());
    }

    #[test]
    fn paths_of_this_machine_are_replaced() {
        let flags = flags(Path::new("/home/a b/weir"), Path::new("/home/a b/.cargo")).unwrap();
        let flags: Vec<_> = flags.to_str().unwrap().split('\x1f').collect();
        let expected = [
            "-Ctarget-feature=+crt-static",
            "--remap-path-prefix=/home/a b/weir=/weir",
            "--remap-path-prefix=/home/a b/.cargo=/cargo",
        ];
        assert_eq!(flags, expected);
    }
}
