//! Kubernetes' conformance vectors: where they are, and how each kind is judged.
//!
//! The files are not part of this repository (see `vectors/README.md` beside them for their format and for the
//! mapping of outcomes). Run by `tests/vectors.rs`.

mod ask;
mod chain;
pub mod flows;
pub mod netpol;
mod packets;
#[cfg(feature = "kernel")]
mod sockets;
pub mod tally;
pub mod topology;
mod world;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Names the folder of the vectors, where they are not beside the repository.
pub const VECTORS_VAR: &str = "WEIR_VECTORS";

/// Where the vectors are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Folder {
    /// Here.
    Found(PathBuf),
    /// Not here, and nobody said that they would be.
    Absent(PathBuf),
}

/// Finds the folder: [`VECTORS_VAR`], or `../shared/vectors` beside the workspace.
///
/// # Errors
/// [`VECTORS_VAR`] names what is no folder.
pub fn find_folder() -> anyhow::Result<Folder> {
    if let Some(named) = std::env::var_os(VECTORS_VAR) {
        let folder = PathBuf::from(named);
        anyhow::ensure!(folder.is_dir(), "{VECTORS_VAR} names {}, which is no folder", folder.display());
        return Ok(Folder::Found(folder));
    }
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = package.ancestors().nth(2).context("this package lies in no workspace")?;
    let folder = beside.join("shared/vectors");
    Ok(if folder.is_dir() { Folder::Found(folder) } else { Folder::Absent(folder) })
}

/// A file of vectors.
#[derive(Deserialize)]
struct File<T> {
    cases: Vec<T>,
}

/// Reads the cases of a file.
///
/// # Errors
/// It cannot be read, or is not of its format.
pub fn load<T: DeserializeOwned>(folder: &Path, name: &str) -> anyhow::Result<Vec<T>> {
    let file: File<T> = load_whole(folder, name)?;
    Ok(file.cases)
}

/// Reads all of a file.
///
/// # Errors
/// It cannot be read, or is not of its format.
pub fn load_whole<T: DeserializeOwned>(folder: &Path, name: &str) -> anyhow::Result<T> {
    let path = folder.join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not as expected", path.display()))
}
