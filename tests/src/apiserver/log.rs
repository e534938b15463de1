//! What clients did: each request, and how many connections and watches there were and are. Tests wait on it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::Method;
use tokio::sync::watch;

use super::options::pairs;

/// A request as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `GET`.
    pub method: String,
    /// `/api/v1/services`.
    pub path: String,
    /// The query as it was sent.
    pub query: String,
    /// Whose token it carried; empty for one that is not valid.
    pub user: String,
    /// The HTTP status, once it is decided.
    pub status: Option<u16>,
}

impl Seen {
    /// The decoded value of a query parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        pairs(&self.query).find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Whether it asks for a watch.
    #[must_use]
    pub fn is_watch(&self) -> bool {
        self.parameter("watch").is_some_and(|value| value != "0" && value != "false")
    }
}

/// How many there were and are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were accepted since the start.
    pub connections_accepted: u64,
    /// Connections that are open.
    pub connections_open: u64,
    /// Watches that run.
    pub watches_open: u64,
}

/// See the module.
pub(super) struct Log {
    seen: Mutex<Vec<Seen>>,
    counts: Mutex<Counts>,
    ticks: watch::Sender<u64>,
}

/// Something that is open as long as this lives.
pub(super) struct Open<'a> {
    log: &'a Log,
    count: fn(&mut Counts) -> &mut u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        *(self.count)(&mut lock(&self.log.counts)) -= 1;
        self.log.tick();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    pub(super) fn new() -> Self {
        Self { seen: Mutex::default(), counts: Mutex::default(), ticks: watch::Sender::new(0) }
    }

    /// Something happened that a test may wait for.
    pub(super) fn tick(&self) {
        super::server::tick(&self.ticks);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    pub(super) fn begin(&self, method: &Method, path: &str, query: &str, user: &str) -> usize {
        let mut seen = lock(&self.seen);
        seen.push(Seen {
            method: method.to_string(),
            path: path.into(),
            query: query.into(),
            user: user.into(),
            status: None,
        });
        let index = seen.len() - 1;
        drop(seen);
        self.tick();
        index
    }

    pub(super) fn finish(&self, index: usize, status: u16) {
        if let Some(seen) = lock(&self.seen).get_mut(index) {
            seen.status = Some(status);
        }
        self.tick();
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }

    pub(super) fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    pub(super) fn connection_opened(&self) -> Open<'_> {
        lock(&self.counts).connections_accepted += 1;
        self.open(|counts| &mut counts.connections_open)
    }

    pub(super) fn watch_opened(&self) -> Open<'_> {
        self.open(|counts| &mut counts.watches_open)
    }

    fn open(&self, count: fn(&mut Counts) -> &mut u64) -> Open<'_> {
        *count(&mut lock(&self.counts)) += 1;
        self.tick();
        Open { log: self, count }
    }
}
