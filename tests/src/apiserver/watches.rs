//! Watches: what is sent first, what of each change this watch is told, bookmarks, and the end.
//!
//! The rules are those of apiserver's `pkg/storage/cacher`. What is wrong after the options were understood is told
//! in an ERROR event of an answer that began as 200.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::fault::{Feed, Gone};
use super::list::{bookmark, is_meant};
use super::options::{Options, Target};
use super::server::Shared;
use super::status::Failure;
use super::store::Change;

/// Changes that are taken from the store at once.
const BATCH: usize = 256;

/// How long before its timeout a watch gets its last bookmark.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// A watch without `timeoutSeconds` lasts so long. A real server adds up to as much again, by chance.
const LIFETIME: Duration = Duration::from_secs(1800);

/// One running watch.
pub(super) struct Watch {
    shared: Arc<Shared>,
    target: Target,
    options: Options,
    feed: Feed,
    /// All up to this version was told.
    cursor: u64,
    /// The history that the cursor belongs to.
    incarnation: u64,
    deadline: Instant,
    /// When the regular bookmark is due.
    regular: Option<Instant>,
    /// Ticks when a test wants a bookmark.
    wanted: watch::Receiver<u64>,
    told_malformed: bool,
}

/// Why a watch ends before its time.
enum End {
    /// The client is gone, or a fault cut the answer.
    Gone,
    /// The server has nothing more to say: its history changed, or the client is too far behind.
    Done,
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Watch {
    pub(super) fn new(shared: Arc<Shared>, target: Target, options: Options, feed: Feed) -> Self {
        let lifetime = options.timeout.map_or(LIFETIME, Duration::from_secs);
        let incarnation = shared.store(|store| store.incarnation());
        let now = Instant::now();
        Self {
            target,
            options,
            feed,
            cursor: 0,
            incarnation,
            deadline: now + lifetime,
            regular: shared.options.bookmark_every.map(|every| now + every),
            wanted: shared.bookmark.subscribe(),
            told_malformed: false,
            shared,
        }
    }

    /// Runs until the client leaves, the time is over, or there is nothing more to say.
    pub(super) async fn run(mut self) {
        let reader = self.feed.reader();
        let deadline = self.deadline;
        let mut faults = self.shared.faults.subscribe();
        tokio::select! {
            () = reader.gone() => return,
            () = sleep_until(deadline) => {}
            end = self.serve() => if matches!(end, End::Gone) { return },
        }
        // The end of an answer is sent, too.
        tokio::select! {
            () = reader.gone() => {}
            _ = faults.wait_for(|faults| !faults.silent) => {}
        }
    }

    async fn serve(&mut self) -> End {
        match self.begin().await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => return self.send_failure(&failure).await.err().unwrap_or(End::Done),
            Err(end) => return end,
        }
        loop {
            if let Err(end) = self.follow().await {
                return end;
            }
        }
    }

    /// The part before the first change.
    async fn begin(&mut self) -> Result<Result<(), Failure>, End> {
        let asked = self.options.version.unwrap_or(0);
        let initial = self.options.initial_events;
        if initial == Some(true)
            && let Err(failure) = self.shared.wait_until_fresh(asked).await
        {
            return Ok(Err(failure));
        }
        if initial == Some(true) || (initial.is_none() && asked == 0) {
            self.send_all().await?;
            return Ok(Ok(()));
        }
        let (current, compacted) = self.shared.store(|store| (store.version(), store.compacted()));
        if asked != 0 && asked < compacted {
            return Ok(Err(Failure::expired_watch(asked, compacted)));
        }
        // A version that is still to come is waited for in silence.
        self.cursor = if asked == 0 { current } else { asked };
        Ok(Ok(()))
    }

    /// The state of now, as ADDED events, and the bookmark that ends them where it was asked for.
    async fn send_all(&mut self) -> Result<(), End> {
        let (version, objects) = self.shared.store(|store| {
            let all = store.objects(self.target.resource).iter();
            let meant = all.filter(|(key, object)| is_meant(key, object, &self.target, &self.options));
            (store.version(), meant.map(|(_, object)| object.clone()).collect::<Vec<_>>())
        });
        for object in objects {
            self.send_event("ADDED", &object).await?;
        }
        self.cursor = version;
        if self.options.initial_events == Some(true)
            && self.options.bookmarks
            && !self.shared.faults.borrow().no_initial_end
        {
            self.send_bookmark(true).await?;
        }
        Ok(())
    }

    /// Tells what there is, then waits for more, and sends a bookmark when it is time.
    async fn follow(&mut self) -> Result<(), End> {
        let mut changed = self.shared.changed.subscribe();
        while self.tell_batch().await? {}
        let due = self.next_bookmark();
        let is_due = tokio::select! {
            _ = changed.changed() => false,
            _ = self.wanted.changed() => true,
            () = sleep_until(due.unwrap_or(self.deadline)) => due.is_some(),
        };
        if is_due {
            self.regular = self.shared.options.bookmark_every.map(|every| Instant::now() + every);
            while self.tell_batch().await? {}
            let current = self.shared.store(|store| store.version());
            let is_wanted = self.options.bookmarks && !self.shared.faults.borrow().no_bookmarks;
            if is_wanted && self.cursor <= current {
                self.send_bookmark(false).await?;
            }
        }
        Ok(())
    }

    fn next_bookmark(&self) -> Option<Instant> {
        let last = self.deadline.checked_sub(LAST_BOOKMARK).filter(|last| *last > Instant::now());
        self.regular.into_iter().chain(last).min()
    }

    /// Whether there was anything.
    async fn tell_batch(&mut self) -> Result<bool, End> {
        let changes = self.shared.store(|store| {
            let same = store.incarnation() == self.incarnation;
            same.then(|| store.changes_after(self.cursor, BATCH)).flatten()
        });
        // As of a real server, whose watches end when their client is too slow or its cache begins anew.
        let changes = changes.ok_or(End::Done)?;
        for change in &changes {
            if change.resource == self.target.resource {
                self.tell(change).await?;
            }
            self.cursor = change.version;
        }
        Ok(!changes.is_empty())
    }

    /// An object that no longer matches is deleted for this watch, one that begins to match is new.
    async fn tell(&mut self, change: &Change) -> Result<(), End> {
        let meant = |object: &&Arc<Value>| is_meant(&change.key, object, &self.target, &self.options);
        match (change.old.as_ref().filter(meant), change.new.as_ref().filter(meant)) {
            (None, None) => Ok(()),
            (None, Some(new)) => self.send_event("ADDED", new).await,
            (Some(_), Some(new)) => self.send_event("MODIFIED", new).await,
            (Some(old), None) => {
                // What was known last, at the version of the change.
                let mut last = Value::clone(old);
                last["metadata"]["resourceVersion"] = change.version.to_string().into();
                self.send_event("DELETED", &last).await
            }
        }
    }

    async fn send_event(&mut self, what: &str, object: &Value) -> Result<(), End> {
        let malformed = self.shared.faults.borrow().malformed.clone();
        if let Some(malformed) = malformed.filter(|_| !self.told_malformed) {
            self.told_malformed = true;
            self.send("ADDED", &malformed).await?;
        }
        self.send(what, object).await
    }

    async fn send_bookmark(&mut self, ends_initial_events: bool) -> Result<(), End> {
        let object = self.shared.store(|store| {
            bookmark(&store.resources()[self.target.resource], self.cursor, ends_initial_events)
        });
        self.send("BOOKMARK", &object).await
    }

    async fn send_failure(&mut self, failure: &Failure) -> Result<(), End> {
        let object = failure.object().unwrap_or_default();
        self.send("ERROR", &object).await
    }

    async fn send(&mut self, what: &str, object: &Value) -> Result<(), End> {
        let line = format!("{}\n", json!({"type": what, "object": object}));
        Ok(self.feed.send(&line).await?)
    }
}
