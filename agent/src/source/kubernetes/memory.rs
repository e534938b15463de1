//! What a start needs to know from the one before, also after a reboot: where the API servers were, and which
//! cluster it was. One small file, replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// The file in the state directory.
const FILE: &str = "cluster.json";

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    /// `metadata.uid` of the Service `default/kubernetes`, which each cluster makes for itself: tells clusters apart.
    pub(super) cluster: Option<String>,
    /// The endpoints of that Service, as URLs.
    pub(super) servers: Vec<String>,
}

impl Memory {
    /// What was saved; nothing if there is nothing that can be read.
    pub(super) fn load(dir: &Path) -> Self {
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(
                        "{}: {error}: the API servers of the last time are not known",
                        path.display()
                    );
                }
                return Self::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!("{}: {error}: the API servers of the last time are not known", path.display());
            Self::default()
        })
    }

    /// Replaces what was saved: after a crash at any moment there is the old file or the new one.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn save(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let (path, new): (PathBuf, PathBuf) = (dir.join(FILE), dir.join("cluster.json.new"));
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()
    }
}

/// The memory of a running agent, saved whenever it changes.
#[derive(Debug)]
pub(super) struct Keeper {
    dir: PathBuf,
    now: Mutex<Memory>,
    /// What is on disk; held while it is written, so that the newest is written last.
    saved: Mutex<Memory>,
}

impl Keeper {
    pub(super) fn new(dir: PathBuf) -> Self {
        let memory = Memory::load(&dir);
        Self { dir, now: Mutex::new(memory.clone()), saved: Mutex::new(memory) }
    }

    pub(super) fn read(&self) -> Memory {
        lock(&self.now).clone()
    }

    /// Changes it, and saves it on a thread of its own: a disk may be slow.
    pub(super) fn update(self: &Arc<Self>, change: impl FnOnce(&mut Memory)) {
        {
            let mut now = lock(&self.now);
            let before = now.clone();
            change(&mut now);
            if *now == before {
                return;
            }
        }
        let keeper = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut saved = lock(&keeper.saved);
            let now = keeper.read();
            if now == *saved {
                return;
            }
            if let Err(error) = now.save(&keeper.dir) {
                let dir = keeper.dir.display();
                tracing::warn!(
                    "--state-dir {dir}: {error}: a restart will not know the API servers' addresses"
                );
            }
            // A disk that is full is said once for each change.
            *saved = now;
        });
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_rubbish_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("not/there/yet");
        assert_eq!(Memory::load(&dir), Memory::default());
        let memory = Memory { cluster: Some("uid".into()), servers: vec!["https://10.0.0.1:6443".into()] };
        memory.save(&dir).unwrap();
        assert_eq!(Memory::load(&dir), memory);
        fs::write(dir.join(FILE), "{").unwrap();
        assert_eq!(Memory::load(&dir), Memory::default());
        memory.save(&dir).unwrap();
        assert_eq!(Memory::load(&dir), memory);
    }
}
