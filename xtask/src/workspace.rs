//! Where things are in this checkout.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The checkout that this xtask was built from.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    /// Its root.
    pub(crate) root: PathBuf,
    /// Where cargo puts the binaries of the profiles `dev` and `release`, in folders of that name.
    binaries: PathBuf,
}

/// A profile of cargo's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Profile {
    /// For tests and for the demo.
    Dev,
    /// As it is shipped.
    Release,
}

impl Profile {
    /// The folder of its binaries.
    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

impl Workspace {
    /// From where cargo built this program: `<binaries>/debug/xtask`, whichever target folder is configured.
    pub(crate) fn here() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is not in a workspace")?;
        let program = env::current_exe().context("where this program is")?;
        let binaries = program.ancestors().nth(2).context("this program was not built by cargo")?;
        Ok(Self { root: root.into(), binaries: binaries.into() })
    }

    /// One in a folder of a test's.
    #[cfg(test)]
    pub(crate) fn fixture(root: &Path) -> Self {
        Self { root: root.into(), binaries: root.join("target") }
    }

    /// The binary `weir` of that profile.
    pub(crate) fn agent(&self, profile: Profile) -> PathBuf {
        self.binaries.join(profile.folder()).join("weir")
    }

    /// The binary `weir` of that profile, for a target that was named.
    pub(crate) fn agent_for(&self, triple: &str, profile: Profile) -> PathBuf {
        self.binaries.join(triple).join(profile.folder()).join("weir")
    }

    /// For programs that only xtask runs.
    pub(crate) fn tools_root(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// The folder of the conformance vectors: `WEIR_VECTORS`, or beside the checkout; `None` where there is none.
    pub(crate) fn lookup_vectors(&self) -> Option<PathBuf> {
        let folder = match env::var_os("WEIR_VECTORS") {
            Some(folder) => env::current_dir().ok()?.join(folder),
            None => self.root.parent()?.join("shared/vectors"),
        };
        folder.join("kubeproxy-flows.json").is_file().then_some(folder)
    }
}
