//! Whether a source hears of changes as they happen, for `weir status` and the metrics.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// How a source stands with what it watches. What is known stays in force either way.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Connection {
    /// Where it watches: the URL of an API server.
    pub server: String,
    /// All watches are up. `false`: changes are missed until they are.
    pub connected: bool,
    /// Since when that is so, in seconds since 1970.
    pub since_s: u64,
    /// What was wrong last; empty while all is well.
    pub error: String,
    /// Attempts that failed, since the agent started.
    pub errors: u64,
    /// Full lists that were asked for, since the agent started; one for each watch at its start.
    pub lists: u64,
    /// Kubernetes Events that were sent, since the agent started.
    pub events_sent: u64,
    /// Kubernetes Events that found no room, no server or no right, since the agent started.
    pub events_dropped: u64,
}

/// The state of a source's connection, shared with whoever reports it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Connection>>);

impl Health {
    /// The state as it is now.
    #[must_use]
    pub fn read(&self) -> Connection {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Connection) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
