//! The eBPF object: compiled without a warning, and the same from whichever folder.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use weir_toolchain::{ObjectRequest, Toolchain, find_toolchain};

use super::Finding;
use crate::workspace::Workspace;

/// Where the second build is made: a copy of the sources, and a target folder of its own.
const TWIN: &str = "target/bpf-twin";

pub(super) fn check_warnings(workspace: &Workspace) -> Result<Finding> {
    let toolchain = find_toolchain(&workspace.root)?;
    let folder = workspace.root.join("target/bpf");
    fs::create_dir_all(&folder)?;
    let warnings = build(&toolchain, &workspace.root, &folder)?;
    if !warnings.is_empty() {
        bail!("{warnings}");
    }
    Ok(Finding::Good)
}

pub(super) fn check_deterministic(workspace: &Workspace) -> Result<Finding> {
    let toolchain = find_toolchain(&workspace.root)?;
    let first = workspace.root.join("target/bpf");
    let second = workspace.root.join(TWIN);
    let sources = second.join("sources");
    copy_sources(&workspace.root, &sources)?;
    fs::create_dir_all(&first)?;
    build(&toolchain, &workspace.root, &first)?;
    build(&toolchain, &sources, &second)?;
    compare(&first.join(OBJECT), &second.join(OBJECT))?;
    Ok(Finding::Good)
}

const OBJECT: &str = "weir-programs.o";

fn build(toolchain: &Toolchain, workspace: &Path, folder: &Path) -> Result<String> {
    let request = ObjectRequest {
        workspace,
        // As in agent/build.rs: what the agent's build has compiled is not compiled again.
        target_dir: &folder.join(env::consts::ARCH),
        arch: env::consts::ARCH,
        log: false,
        object: &folder.join(OBJECT),
    };
    Ok(toolchain.build_object(&request)?)
}

fn compare(first: &Path, second: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    let (a, b) = (read(first)?, read(second)?);
    if a.is_empty() {
        bail!("{} is empty", first.display());
    }
    if a != b {
        let at = a.iter().zip(&b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
        bail!("{} and {} differ from byte {at} on", first.display(), second.display());
    }
    Ok(())
}

/// Copies what is not hidden and not built, and removes what is no longer there. A file that is the same is left
/// alone, so that its age stays and nothing is compiled twice.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    let mut names = Vec::new();
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') || name == "target" {
            continue;
        }
        let (source, copy) = (entry.path(), to.join(&name));
        if source.is_dir() {
            copy_sources(&source, &copy)?;
        } else if source.is_file() {
            copy_file(&source, &copy)?;
        }
        names.push(name);
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if names.contains(&entry.file_name()) {
            continue;
        }
        if entry.path().is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

fn copy_file(source: &Path, copy: &Path) -> Result<()> {
    let text = fs::read(source).with_context(|| source.display().to_string())?;
    match fs::read(copy) {
        Ok(present) if present == text => Ok(()),
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| copy.display().to_string())
        }
        _ => fs::write(copy, text).with_context(|| copy.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_is_a_difference() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            fs::write(folder.path().join(name), bytes).unwrap();
            folder.path().join(name)
        };
        let first = write("a", b"\x7fELF one");
        compare(&first, &write("b", b"\x7fELF one")).unwrap();
        let error = compare(&first, &write("c", b"\x7fELF two")).unwrap_err().to_string();
        assert!(error.ends_with("from byte 5 on"), "{error}");
        let error = compare(&first, &write("d", b"\x7fELF one and more")).unwrap_err().to_string();
        assert!(error.ends_with("from byte 8 on"), "{error}");
        assert!(compare(&write("e", b""), &write("f", b"")).is_err());
        assert!(compare(&first, &folder.path().join("missing")).is_err());
    }

    #[test]
    fn a_copy_follows_its_original() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, to) = (from.path(), to.path());
        fs::create_dir_all(from.join("ebpf/src")).unwrap();
        fs::create_dir_all(from.join("target")).unwrap();
        fs::write(from.join("ebpf/src/main.rs"), "one").unwrap();
        fs::write(from.join("target/old"), "built").unwrap();
        fs::write(from.join("stale.rs"), "").unwrap();
        copy_sources(from, to).unwrap();
        assert!(to.join("stale.rs").is_file() && !to.join("target").exists());

        let age = |path: &str| fs::metadata(to.join(path)).unwrap().modified().unwrap();
        let before = age("ebpf/src/main.rs");
        fs::remove_file(from.join("stale.rs")).unwrap();
        copy_sources(from, to).unwrap();
        assert!(!to.join("stale.rs").exists());
        assert_eq!(age("ebpf/src/main.rs"), before);

        fs::write(from.join("ebpf/src/main.rs"), "two").unwrap();
        copy_sources(from, to).unwrap();
        assert_eq!(fs::read_to_string(to.join("ebpf/src/main.rs")).unwrap(), "two");
    }
}
