//! A directory of manifests, as `--source manifests:DIR` reads it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use serde_json::Value;

/// Files are replaced by renaming, so that no reader ever finds half of one.
#[derive(Debug)]
pub struct Manifests {
    directory: PathBuf,
    /// On the same file system, and not watched.
    staging: PathBuf,
    written: AtomicU64,
}

impl Manifests {
    /// `manifests` in `parent`, made if it is not there.
    ///
    /// # Errors
    /// Those of mkdir.
    pub fn ensure(parent: &Path) -> Result<Self> {
        let (directory, staging) = (parent.join("manifests"), parent.join("staging"));
        fs::create_dir_all(&directory)?;
        fs::create_dir_all(&staging)?;
        Ok(Self { directory, staging, written: AtomicU64::new(0) })
    }

    /// The directory to be watched.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Puts `text` in force as file `name`, at once and whole.
    ///
    /// # Errors
    /// Those of writing.
    pub fn replace(&self, name: &str, text: &str) -> Result<()> {
        let staged = self.staging.join(self.written.fetch_add(1, Ordering::Relaxed).to_string());
        fs::write(&staged, text)?;
        fs::rename(&staged, self.directory.join(name)).with_context(|| format!("cannot put {name} in force"))
    }

    /// As [`Manifests::replace`], from objects.
    ///
    /// # Errors
    /// Those of writing.
    pub fn replace_objects(&self, name: &str, objects: &[Value]) -> Result<()> {
        self.replace(name, &to_yaml(objects)?)
    }

    /// Takes a file away.
    ///
    /// # Errors
    /// Those of unlink.
    pub fn remove(&self, name: &str) -> Result<()> {
        fs::remove_file(self.directory.join(name)).with_context(|| format!("cannot remove {name}"))
    }
}

/// Objects as one YAML file of many documents.
///
/// # Errors
/// One cannot be written as YAML.
pub fn to_yaml(objects: &[Value]) -> Result<String> {
    let documents: Result<Vec<String>, _> = objects.iter().map(serde_saphyr::to_string).collect();
    Ok(documents.context("cannot write YAML")?.join("\n---\n"))
}
