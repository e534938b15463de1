//! Drops, one by one, explained by name: kept for a while, and told to whoever asks (`weir drops`).
//!
//! `daemon` hands over what the hooks told; [`Explainer`] makes records of it, [`SharedDrops`] keeps the last of them,
//! [`serve_drops`] writes them to a Unix socket in the run directory. Not to the port of the metrics: records tell who speaks to
//! whom, and that port may be anybody's of the node (or of the network, by `--metrics-address`). The socket is root's.

mod blame;
mod explain;
mod record;
mod serve;
mod talker;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

pub use explain::{Clocks, Explainer, Known};
pub use record::{DropEnd, DropRecord, DropRule};
pub use serve::{Followed, read_drops, serve_drops};
pub use talker::{Say, Talker};

/// The last records, each as a line of JSON.
#[derive(Clone, Debug)]
pub struct SharedDrops(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    log: Mutex<Log>,
    /// How many there were so far.
    news: watch::Sender<u64>,
}

#[derive(Debug)]
struct Log {
    lines: VecDeque<Arc<str>>,
    /// How many there were before the first of these.
    before: u64,
    most: usize,
}

/// Records that follow one another.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Page {
    lines: Vec<Arc<str>>,
    /// How many there were before these that are kept no more, and were asked for.
    missed: u64,
    /// How many there are so far, these included.
    end: u64,
}

impl SharedDrops {
    /// Which keeps so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let log = Log { lines: VecDeque::new(), before: 0, most };
        Self(Arc::new(Inner { log: Mutex::new(log), news: watch::Sender::new(0) }))
    }

    /// One more; the oldest is forgotten where there are too many.
    pub fn push(&self, record: &DropRecord) {
        // Strings and numbers: there is nothing that has no form in JSON.
        let Ok(line) = serde_json::to_string(record) else { return };
        let end = {
            let mut log = self.0.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.lines.push_back(line.into());
            while log.lines.len() > log.most {
                log.lines.pop_front();
                log.before += 1;
            }
            log.before + log.lines.len() as u64
        };
        self.0.news.send_replace(end);
    }

    /// At most so many of those that followed the first `from`.
    fn page(&self, from: u64, most: usize) -> Page {
        let log = self.0.log.lock().unwrap_or_else(PoisonError::into_inner);
        let first = from.max(log.before);
        let skip = usize::try_from(first - log.before).unwrap_or(usize::MAX);
        let lines: Vec<Arc<str>> = log.lines.iter().skip(skip).take(most).cloned().collect();
        Page { missed: first - from, end: first + lines.len() as u64, lines }
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.0.news.subscribe()
    }
}

#[cfg(test)]
mod tests;
