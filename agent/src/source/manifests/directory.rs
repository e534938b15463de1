//! The directory as it changes: which files are to be read, and what their objects become. Used by `daemon`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::Context;
use tokio::sync::mpsc::Sender;
use tokio::task::spawn_blocking;

use super::catalog::Catalog;
use super::load::{Loaded, Signature, load};
use super::watch::{Changes, Watcher, is_manifest};
use crate::source::{Event, PolicyDemand, PolicySync, Problem};

/// How long files of a directory that came back may be missing before that counts.
const ABSENT_GRACE: Duration = Duration::from_secs(1);

/// A directory of manifests.
#[derive(Debug)]
pub struct Manifests {
    dir: PathBuf,
}

impl Manifests {
    /// Checks that the directory can be read.
    ///
    /// # Errors
    /// It cannot, or is none.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        std::fs::read_dir(dir).with_context(|| format!("cannot read the manifests in {}", dir.display()))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Sends every object, then [`Event::Synced`], then changes, until the receiver is closed.
    ///
    /// # Errors
    /// The directory cannot be watched, or was gone at the start. Later it may come and go.
    pub async fn run(self, events: Sender<Event>) -> anyhow::Result<()> {
        let mut reader =
            Reader::new(&self.dir).with_context(|| format!("cannot watch {}", self.dir.display()))?;
        let mut synced = false;
        loop {
            reader.refresh().await?;
            for event in reader.catalog.take_events() {
                if events.send(event).await.is_err() {
                    return Ok(());
                }
            }
            if reader.listed && !synced {
                synced = true;
                for event in [Event::PolicySync(PolicySync::Told(PolicyDemand::ALL)), Event::Synced] {
                    if events.send(event).await.is_err() {
                        return Ok(());
                    }
                }
            }
            tokio::select! {
                result = reader.watcher.wait(&mut reader.changes) => result.context("inotify")?,
                () = events.closed() => return Ok(()),
            }
        }
    }
}

/// What is known of the directory.
struct Reader {
    dir: PathBuf,
    watcher: Watcher,
    changes: Changes,
    catalog: Catalog,
    /// The files that count, as they were when they were read; `None` for those that could not be.
    known: HashMap<Arc<str>, Option<Signature>>,
    /// How long a file may be missing in the next scan.
    absent_grace: Duration,
    /// All files were seen once: what is not there does not exist.
    listed: bool,
}

impl Reader {
    /// Attached, and about to read everything.
    fn new(dir: &Path) -> io::Result<Self> {
        let mut watcher = Watcher::new(dir)?;
        watcher.attach()?;
        Ok(Self {
            dir: dir.to_owned(),
            watcher,
            changes: Changes::at_start(),
            catalog: Catalog::default(),
            known: HashMap::new(),
            absent_grace: Duration::ZERO,
            listed: false,
        })
    }

    /// Brings the catalog up to what [`Changes`] says.
    async fn refresh(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.changes.detached) {
            self.reattach();
        }
        let listed = std::mem::take(&mut self.changes.rescan) && self.scan();
        let loaded = load_all(&self.dir, std::mem::take(&mut self.changes.ready)).await?;
        // What changed while it was read may be half of a write, or half of a removed directory.
        self.watcher.drain(&mut self.changes).context("inotify")?;
        if self.changes.detached {
            return Ok(());
        }
        self.listed |= listed;
        let now = Instant::now();
        for (name, loaded) in loaded {
            if !self.changes.is_unsettled(&name) {
                self.apply(name, loaded, now);
            }
        }
        for name in self.changes.take_gone(now) {
            // Where a file of that name is back, it has, or will have, an event of its own.
            if let Ok(false) = self.dir.join(&*name).try_exists() {
                self.known.remove(&name);
                self.catalog.remove(&self.path_text(&name));
            }
        }
        Ok(())
    }

    fn apply(&mut self, name: Arc<str>, loaded: Loaded, now: Instant) {
        let path = self.path_text(&name);
        match loaded {
            Loaded::Missing => self.changes.set_gone(name, now, Duration::ZERO),
            Loaded::InProgress => {}
            Loaded::Unreadable(problem) => {
                self.known.insert(name, None);
                self.catalog.set_faults(&path, vec![problem]);
            }
            Loaded::Read(signature, content) => {
                self.known.insert(name, Some(signature));
                self.catalog.replace(&path, content);
            }
        }
    }

    /// Finds the directory again after it went away or was replaced.
    fn reattach(&mut self) {
        self.changes.forget_files();
        match self.watcher.attach() {
            Ok(()) => {
                self.set_directory_fault(None);
                self.changes.rescan = true;
                self.absent_grace = ABSENT_GRACE;
            }
            Err(error) => self.set_directory_fault(Some(&error)),
        }
    }

    /// Marks the files that changed since they were read, and those that are missing. Whether it could.
    fn scan(&mut self) -> bool {
        let names = match list(&self.dir) {
            Ok(names) => names,
            Err(error) => {
                self.set_directory_fault(Some(&error));
                return false;
            }
        };
        let now = Instant::now();
        let grace = std::mem::take(&mut self.absent_grace);
        for name in self.known.keys().filter(|name| !names.contains(*name)) {
            self.changes.set_gone(name.clone(), now, grace);
        }
        for name in names {
            let found = self.dir.join(&*name).metadata().ok().map(|metadata| Signature::of(&metadata));
            if found.is_none() || Some(&found) != self.known.get(&name) {
                self.changes.ready.insert(name, false);
            }
        }
        true
    }

    fn set_directory_fault(&mut self, error: Option<&io::Error>) {
        let problem = error.map(|error| Problem {
            field: "(directory)".into(),
            message: format!("{error}: what its files held stays in force until it is back"),
        });
        let path = Arc::from(self.dir.display().to_string());
        self.catalog.set_faults(&path, problem.into_iter().collect());
    }

    /// How problems name a file.
    fn path_text(&self, name: &str) -> Arc<str> {
        Arc::from(self.dir.join(name).display().to_string())
    }
}

/// The names of the manifests in a directory.
fn list(dir: &Path) -> io::Result<HashSet<Arc<str>>> {
    let mut names = HashSet::new();
    for entry in std::fs::read_dir(dir)? {
        if let Some(name) = entry?.file_name().to_str().filter(|name| is_manifest(name)) {
            names.insert(Arc::from(name));
        }
    }
    Ok(names)
}

/// Reads and parses files, on as many threads as there are processors. The runtime's own thread stays free.
async fn load_all(dir: &Path, files: BTreeMap<Arc<str>, bool>) -> anyhow::Result<Vec<(Arc<str>, Loaded)>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let files: Vec<_> = files.into_iter().collect();
    let mut tasks = Vec::new();
    for files in files.chunks(files.len().div_ceil(threads).max(1)) {
        let (dir, files) = (dir.to_owned(), files.to_vec());
        tasks.push(spawn_blocking(move || -> Vec<_> {
            let load = |(name, created): (Arc<str>, bool)| {
                let loaded = load(&dir.join(&*name), created);
                (name, loaded)
            };
            files.into_iter().map(load).collect()
        }));
    }
    let mut loaded = Vec::with_capacity(files.len());
    for task in tasks {
        loaded.extend(task.await.context("a thread that reads manifests died")?);
    }
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Reader;
    use crate::source::manifests::tests::service;

    #[tokio::test]
    async fn only_what_changed_is_read() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(dir.path().join(name).with_extension("yaml"), service(name, "10.0.0.1")).unwrap();
        }
        let mut reader = Reader::new(dir.path()).unwrap();
        reader.refresh().await.unwrap();
        assert_eq!(reader.catalog.take_events().len(), 3);

        assert!(reader.scan());
        assert!(reader.changes.ready.is_empty(), "a second look finds nothing new: {:?}", reader.changes);
        fs::write(dir.path().join("b.yaml"), service("b", "10.0.0.22")).unwrap();
        assert!(reader.scan());
        assert_eq!(reader.changes.ready.keys().map(|name| &**name).collect::<Vec<_>>(), ["b.yaml"]);
        reader.changes.ready.clear();
        reader.watcher.drain(&mut reader.changes).unwrap();
        assert_eq!(reader.changes.ready.keys().map(|name| &**name).collect::<Vec<_>>(), ["b.yaml"]);
        reader.refresh().await.unwrap();
        assert_eq!(reader.catalog.take_events().len(), 1);
    }
}
