//! What happens in the directory, from inotify, reduced to what is to be done. Called by [`super::Manifests`].
//!
//! inotify tells of single steps: created, written to, closed, moved. [`Changes`] folds them into the files that
//! are worth reading now, those that somebody is in the middle of writing, and those that are gone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How long a file must be gone before its objects are. Editors replace a file by moving it away and writing a
/// new one; in between there is a moment without it. Written files do not wait for this.
const GONE_AFTER: Duration = Duration::from_millis(2);

/// A ConfigMap's files are links through `..data`, which is replaced to change all of them at once.
const SWAPPED_PREFIX: &str = "..";

/// What has to be done, gathered from events until [`super::Manifests`] takes it.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Files to read; `true`: nothing but its creation is known.
    pub(super) ready: BTreeMap<Arc<str>, bool>,
    /// Files that somebody is writing: they are read once closed.
    writing: HashSet<Arc<str>>,
    /// Files that are gone, and when that counts.
    gone: HashMap<Arc<str>, Instant>,
    /// The whole directory is to be looked through.
    pub(super) rescan: bool,
    /// The directory itself went away or became another one.
    pub(super) detached: bool,
}

/// Whether a file of this name is a manifest: `*.yaml`, `*.yml`, `*.json`, not hidden.
pub(super) fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}

impl Changes {
    /// All is to be read.
    pub(super) fn at_start() -> Self {
        Self { rescan: true, ..Self::default() }
    }

    /// Takes in one event of the directory. `now`: when it was read.
    fn note(&mut self, mask: EventMask, name: Option<&OsStr>, now: Instant) {
        if mask.intersects(EventMask::Q_OVERFLOW) {
            // Whatever was lost may have been the end of a write.
            self.writing.clear();
            self.rescan = true;
        }
        if mask.intersects(
            EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT | EventMask::IGNORED,
        ) {
            self.detached = true;
        }
        let Some(name) = name.and_then(OsStr::to_str) else { return };
        if name.starts_with(SWAPPED_PREFIX) {
            self.rescan |= mask.intersects(EventMask::MOVED_TO | EventMask::CREATE);
        } else if is_manifest(name) {
            self.note_file(mask, Arc::from(name), now);
        }
    }

    fn note_file(&mut self, mask: EventMask, name: Arc<str>, now: Instant) {
        if mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) {
            self.ready.remove(&name);
            self.writing.remove(&name);
            self.gone.insert(name, now + GONE_AFTER);
        } else if mask.intersects(EventMask::CLOSE_WRITE | EventMask::MOVED_TO) {
            self.writing.remove(&name);
            self.ready.insert(name, false);
        } else if mask.intersects(EventMask::MODIFY) {
            self.ready.remove(&name);
            self.writing.insert(name);
        } else if mask.intersects(EventMask::CREATE) {
            // The end of a write follows if it was opened; nothing follows if it was linked.
            self.ready.entry(name).or_insert(true);
        } else if mask.intersects(EventMask::ATTRIB) && !self.writing.contains(&name) {
            // It may have become readable.
            self.ready.entry(name).or_insert(false);
        }
    }

    /// Notes that a file was not found; it counts as gone `after` at least [`GONE_AFTER`].
    pub(super) fn set_gone(&mut self, name: Arc<str>, now: Instant, after: Duration) {
        self.gone.entry(name).or_insert(now + after.max(GONE_AFTER));
    }

    /// Whether all is done that is not waiting for a time.
    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty() && !self.rescan && !self.detached
    }

    /// Whether a file changed again since it was taken from `ready`: what was read may be half of a write.
    pub(super) fn is_unsettled(&self, name: &str) -> bool {
        self.writing.contains(name) || self.ready.contains_key(name)
    }

    /// Forgets what was known of single files: the directory is another one.
    pub(super) fn forget_files(&mut self) {
        self.ready.clear();
        self.writing.clear();
        self.gone.clear();
    }

    /// The files whose absence counts now.
    pub(super) fn take_gone(&mut self, now: Instant) -> Vec<Arc<str>> {
        let mut due: Vec<_> = self.gone.extract_if(|_, due| *due <= now).map(|(name, _)| name).collect();
        due.sort_unstable();
        due
    }

    /// When the next absence counts.
    fn next_due(&self) -> Option<Instant> {
        self.gone.values().min().copied()
    }
}

/// The directory's watch, and the one that waits for it to come back. Lives within a tokio runtime.
pub(super) struct Watcher {
    inotify: AsyncFd<Inotify>,
    dir: PathBuf,
    /// The directory's watch, and which directory that is.
    attached: Option<(WatchDescriptor, Identity)>,
    /// Watches a directory above, while `dir` is missing, or is a symbolic link that may come to point elsewhere.
    anchor: Option<WatchDescriptor>,
}

/// Device and inode.
type Identity = (u64, u64);

impl Watcher {
    /// A watcher of `dir` that is not attached yet.
    ///
    /// # Errors
    /// The limit on inotify instances is reached (`fs.inotify.max_user_instances`).
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        // SAFETY: an `Inotify` owns its file descriptor and keeps it, and names only that one, until it is dropped.
        let inotify = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) }?;
        Ok(Self { inotify, dir: dir.to_owned(), attached: None, anchor: None })
    }

    /// Watches the directory that is there now, in place of the one before. Where there is none, watches what is
    /// above, so that [`Changes::detached`] is set when that may have changed.
    ///
    /// # Errors
    /// There is no such directory, it must not be read, or the limit on watches is reached
    /// (`fs.inotify.max_user_watches`).
    pub(super) fn attach(&mut self) -> io::Result<()> {
        let old = self.attached.take().map(|(watch, _)| watch);
        for watch in old.into_iter().chain(self.anchor.take()) {
            // It fails where the kernel removed the watch itself, with the directory.
            let _ = self.inotify.get_ref().watches().remove(watch);
        }
        let is_link = self.dir.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
        if is_link || self.attach_dir().is_err() {
            // First the watch above, then another attempt: nothing can happen unseen in between.
            self.anchor = self.attach_above().ok();
            self.attach_dir()?;
        }
        Ok(())
    }

    fn attach_dir(&mut self) -> io::Result<()> {
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MODIFY
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let watch = self.inotify.get_ref().watches().add(&self.dir, mask)?;
        self.attached = Some((watch, identity(&self.dir)?));
        Ok(())
    }

    fn attach_above(&self) -> io::Result<WatchDescriptor> {
        let mask = WatchMask::CREATE
            | WatchMask::MOVED_TO
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let mut result = Err(io::ErrorKind::NotFound.into());
        for above in self.dir.ancestors().skip(1) {
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            result = self.inotify.get_ref().watches().add(above, mask);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Waits until there is something to do. Safe to cancel.
    ///
    /// # Errors
    /// inotify itself fails.
    pub(super) async fn wait(&mut self, changes: &mut Changes) -> io::Result<()> {
        loop {
            self.drain(changes)?;
            let due = changes.next_due();
            if !changes.is_idle() || due.is_some_and(|due| due <= Instant::now()) {
                return Ok(());
            }
            let timer = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ready = self.inotify.readable() => ready?.clear_ready(),
                () = timer => {}
            }
        }
    }

    /// Takes all events that are there.
    pub(super) fn drain(&mut self, changes: &mut Changes) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        let now = Instant::now();
        let mut above = false;
        loop {
            let events = match self.inotify.get_mut().read_events(&mut buffer) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            for event in events {
                let here = self.attached.as_ref().is_some_and(|(watch, _)| *watch == event.wd);
                if here || event.mask.contains(EventMask::Q_OVERFLOW) {
                    changes.note(event.mask, event.name, now);
                }
                above |= self.anchor.as_ref() == Some(&event.wd);
            }
        }
        if above || changes.rescan {
            let known = self.attached.as_ref().map(|(_, identity)| *identity);
            changes.detached |= known.is_none() || identity(&self.dir).ok() != known;
        }
        Ok(())
    }
}

fn identity(dir: &Path) -> io::Result<Identity> {
    dir.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}
