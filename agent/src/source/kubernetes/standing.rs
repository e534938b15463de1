//! How the watches stand, and what is said about it: one line when something changes, not one for each attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::fault::{Fault, Topic};
use super::kind::Kind;
use crate::source::Health;

/// An outage that comes back so soon is the same one: nothing is said that was said already.
const SAME: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(super) struct Standing {
    health: Health,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    good: BTreeSet<Kind>,
    faults: BTreeMap<Kind, Fault>,
    /// What was said in this outage.
    told: BTreeSet<Topic>,
    /// Something was said that the next line about a connection answers.
    owed: bool,
    /// When all was well again.
    recovered: Option<Instant>,
}

impl Standing {
    pub(super) fn new(health: Health) -> Self {
        health.update(|connection| connection.since_s = now_s());
        Self { health, state: Mutex::new(State { owed: true, ..State::default() }) }
    }

    /// A server is tried.
    pub(super) fn trying(&self, server: &str) {
        self.health.update(|connection| server.clone_into(&mut connection.server));
    }

    /// A full list is asked for.
    pub(super) fn listing(&self) {
        self.health.update(|connection| connection.lists += 1);
    }

    /// A kind's watch is up.
    pub(super) fn good(&self, kind: Kind) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.faults.remove(&kind);
        state.good.insert(kind);
        if !state.faults.is_empty() || state.good.len() < Kind::ALL.len() {
            return;
        }
        let owed = std::mem::take(&mut state.owed);
        self.health.update(|connection| {
            if connection.connected {
                return;
            }
            state.recovered = Some(Instant::now());
            connection.connected = true;
            connection.error.clear();
            let after_s = now_s().saturating_sub(std::mem::replace(&mut connection.since_s, now_s()));
            if owed {
                tracing::info!(after_s, "API server {}: connected", connection.server);
            }
        });
    }

    /// A kind's watch is down, or does not come up.
    pub(super) fn bad(&self, kind: Kind, fault: &Fault) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.recovered.take_if(|recovered| recovered.elapsed() > SAME).is_some() {
            state.told.clear();
        }
        state.good.remove(&kind);
        state.faults.insert(kind, fault.clone());
        let news = state.told.insert(fault.topic());
        state.owed |= news;
        self.health.update(|connection| {
            if std::mem::replace(&mut connection.connected, false) {
                connection.since_s = now_s();
            }
            connection.errors += 1;
            connection.error = fault.to_string();
            let server = &connection.server;
            if news {
                tracing::warn!("API server {server}: {fault}; what is known stays in force, trying again");
            } else {
                tracing::debug!("API server {server}: {}: {fault}", kind.name());
            }
        });
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_watches_make_a_connection_and_one_breaks_it() {
        let health = Health::default();
        let standing = Standing::new(health.clone());
        standing.trying("https://a");
        standing.good(Kind::Service);
        standing.good(Kind::Node);
        assert!(!health.read().connected);
        standing.bad(Kind::EndpointSlice, &Fault::Forbidden(Kind::EndpointSlice, "list", "no".into()));
        assert!(
            health.read().error.starts_with("RBAC does not allow to list endpointslices.discovery.k8s.io: ")
        );
        standing.good(Kind::EndpointSlice);
        let connection = health.read();
        assert!(connection.connected && connection.error.is_empty());
        assert_eq!((connection.server.as_str(), connection.errors), ("https://a", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_is_said_once_in_an_outage() {
        let standing = Standing::new(Health::default());
        let gone = Fault::Unreachable("refused".into());
        let is_news = |kind| {
            let before = standing.state.lock().unwrap().told.len();
            standing.bad(kind, &gone);
            standing.state.lock().unwrap().told.len() > before
        };
        assert!(is_news(Kind::Service));
        assert!(!is_news(Kind::Node), "the same of another kind");
        let all_good = || Kind::ALL.map(|kind| standing.good(kind));
        all_good();
        assert!(!is_news(Kind::Service), "it flaps");
        all_good();
        tokio::time::advance(SAME * 2).await;
        standing.bad(Kind::Service, &gone);
        assert!(standing.state.lock().unwrap().owed, "another outage");
    }
}
