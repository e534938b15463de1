//! How the watches stand, and what is said about it: one line when something changes, not one for each attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::fault::{Fault, Topic};
use super::scope::Scope;
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
    good: BTreeSet<Scope>,
    faults: BTreeMap<Scope, Fault>,
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

    /// A watch is up.
    pub(super) fn good(&self, scope: &Scope) {
        let mut state = self.state();
        if let Some(fault) = state.faults.remove(scope)
            && is_refused(scope, &fault)
        {
            state.told.remove(&fault.topic());
            tracing::info!("API server {}: {scope}: it tells us now", self.health.read().server);
        }
        state.good.insert(scope.clone());
        self.judge(&mut state);
    }

    /// Nobody asks for a watch any more.
    pub(super) fn end(&self, scope: &Scope) {
        let mut state = self.state();
        state.good.remove(scope);
        state.faults.remove(scope);
        self.judge(&mut state);
    }

    /// Whether all is well, or as well as the server lets it be.
    fn judge(&self, state: &mut State) {
        let up =
            Scope::ALWAYS.iter().filter(|scope| scope.is_essential()).all(|one| state.good.contains(one));
        if !up || state.faults.iter().any(|(scope, fault)| !is_refused(scope, fault)) {
            return;
        }
        self.health.update(|connection| {
            connection.error = state.faults.values().next().map(ToString::to_string).unwrap_or_default();
            if connection.connected {
                return;
            }
            state.recovered = Some(Instant::now());
            connection.connected = true;
            let after_s = now_s().saturating_sub(std::mem::replace(&mut connection.since_s, now_s()));
            if std::mem::take(&mut state.owed) {
                tracing::info!(after_s, "API server {}: connected", connection.server);
            }
        });
    }

    /// A watch is down, or does not come up.
    pub(super) fn bad(&self, scope: &Scope, fault: &Fault) {
        let mut state = self.state();
        let refused = is_refused(scope, fault);
        if !refused && state.recovered.take_if(|recovered| recovered.elapsed() > SAME).is_some() {
            state.told.clear();
        }
        state.good.remove(scope);
        state.faults.insert(scope.clone(), fault.clone());
        let news = state.told.insert(fault.topic());
        state.owed |= news && !refused;
        self.health.update(|connection| {
            if !refused && std::mem::replace(&mut connection.connected, false) {
                connection.since_s = now_s();
            }
            connection.errors += 1;
            // What keeps Services from being heard of is the worse.
            if !refused || connection.error.is_empty() {
                connection.error = fault.to_string();
            }
            let server = &connection.server;
            if news && refused {
                tracing::warn!("API server {server}: {fault}; {}", scope.loss());
            } else if news {
                tracing::warn!("API server {server}: {fault}; what is known stays in force, trying again");
            } else {
                tracing::debug!("API server {server}: {scope}: {fault}");
            }
        });
        self.judge(&mut state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether only this is missing, and the connection is in order.
fn is_refused(scope: &Scope, fault: &Fault) -> bool {
    !scope.is_essential() && fault.is_refusal()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::super::kind::Kind;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_watches_make_a_connection_and_one_breaks_it() {
        let health = Health::default();
        let standing = Standing::new(health.clone());
        standing.trying("https://a");
        standing.good(&Scope::Services);
        standing.good(&Scope::ThisNode);
        assert!(!health.read().connected);
        standing.bad(&Scope::EndpointSlices, &Fault::Forbidden(Kind::EndpointSlice, "list", "no".into()));
        assert!(
            health.read().error.starts_with("RBAC does not allow to list endpointslices.discovery.k8s.io: ")
        );
        standing.good(&Scope::EndpointSlices);
        let connection = health.read();
        assert!(connection.connected && connection.error.is_empty());
        assert_eq!((connection.server.as_str(), connection.errors), ("https://a", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_is_said_once_in_an_outage() {
        let standing = Standing::new(Health::default());
        let gone = Fault::Unreachable("refused".into());
        let is_news = |scope| {
            let before = standing.state.lock().unwrap().told.len();
            standing.bad(scope, &gone);
            standing.state.lock().unwrap().told.len() > before
        };
        assert!(is_news(&Scope::Services));
        assert!(!is_news(&Scope::ThisNode), "the same of another kind");
        let all_good = || Scope::ALWAYS.iter().for_each(|scope| standing.good(scope));
        all_good();
        assert!(!is_news(&Scope::Services), "it flaps");
        all_good();
        tokio::time::advance(SAME * 2).await;
        standing.bad(&Scope::Services, &gone);
        assert!(standing.state.lock().unwrap().owed, "another outage");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_beside_services_is_said_once_and_breaks_nothing() {
        let health = Health::default();
        let standing = Standing::new(health.clone());
        let refused = Fault::Forbidden(Kind::NetworkPolicy, "list", "no".into());
        standing.bad(&Scope::NetworkPolicies, &refused);
        assert!(!health.read().connected);
        Scope::ALWAYS[..3].iter().for_each(|scope| standing.good(scope));
        assert!(health.read().connected);
        assert!(health.read().error.contains("networkpolicies"), "{:?}", health.read());
        tokio::time::advance(SAME * 2).await;
        standing.bad(&Scope::NetworkPolicies, &refused);
        assert!(health.read().connected);
        assert_eq!(standing.state().told.len(), 1);

        // Of those that are up, each one that breaks is a fault; until nobody asks for it.
        let elsewhere = Scope::PodsElsewhere;
        standing.bad(&elsewhere, &Fault::Throttled(None));
        assert!(!health.read().connected);
        standing.end(&elsewhere);
        assert!(health.read().connected);
        standing.good(&Scope::NetworkPolicies);
        assert_eq!((health.read().error.as_str(), standing.state().told.len()), ("", 1), "429 alone");
    }
}
