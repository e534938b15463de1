//! Where the programs are that run in the lab.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The agent: `WEIR_BIN`, or `weir` of the same build.
///
/// # Errors
/// There is none.
pub fn find_weir() -> Result<PathBuf> {
    find("weir", "WEIR_BIN")
}

/// The program with the prober in it: `WEIR_LAB_BIN`, or `weir-lab` of the same build.
///
/// # Errors
/// There is none.
pub fn find_prober() -> Result<PathBuf> {
    find("weir-lab", "WEIR_LAB_BIN")
}

fn find(name: &str, variable: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("{variable} names {}, which does not exist", path.display());
        }
        return Ok(path);
    }
    let this = env::current_exe().context("this program's own path")?;
    // target/debug/weir-lab, or target/debug/deps/lab-0123 for a test
    let candidates = this.ancestors().skip(1).take(2).map(|directory| directory.join(name));
    let mut tried = Vec::new();
    for candidate in candidates {
        if candidate.is_file() {
            return Ok(candidate);
        }
        tried.push(candidate);
    }
    bail!("cannot find {name}: set {variable}, or build it; looked for {}", list(&tried))
}

fn list(paths: &[impl AsRef<Path>]) -> String {
    paths.iter().map(|path| path.as_ref().display().to_string()).collect::<Vec<_>>().join(", ")
}
