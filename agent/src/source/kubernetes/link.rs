//! The one connection to the cluster that all watches share: to which server, and whether it is the right cluster.
//!
//! While it is down, one attempt at a time is made, whoever asks, over the candidates in turn. Each new connection
//! begins with one small request, for the Service `default/kubernetes`:
//! - Its UID says which cluster this is. Every API server makes that Service at its start, so that one without it has
//!   just lost its data, or is something else. It costs no right that the watches do not need.
//! - The list's version says whether the server went back in time (restored from a backup): a watch from a version
//!   of its future would be silent, for hours perhaps.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::access::{Access, server_url};
use super::backoff::Backoff;
use super::fault::Fault;
use super::memory::Keeper;
use super::session::Session;
use super::standing::Standing;
use crate::source::{EndpointSlice, Health, Protocol};

/// A connection that breaks off is made anew within this time where all is well.
const BREAK: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    access: Access,
    pub(super) standing: Standing,
    memory: Arc<Keeper>,
    /// Held while connecting.
    current: tokio::sync::Mutex<Option<Arc<Session>>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The endpoints of the API servers' Service, by slice.
    slices: HashMap<Arc<str>, Vec<String>>,
    /// The cluster's objects were listed in this process: it is too late for another cluster.
    committed: bool,
    /// Which of the candidates is tried.
    candidate: usize,
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Link {
    pub(super) fn new(access: Access, state_dir: PathBuf, health: Health) -> Self {
        Self {
            access,
            standing: Standing::new(health),
            memory: Arc::new(Keeper::new(state_dir)),
            current: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// The connection; makes one if there is none.
    pub(super) async fn session(&self) -> Result<Arc<Session>, Fault> {
        let mut current = self.current.lock().await;
        if let Some(session) = &*current {
            return Ok(session.clone());
        }
        let not_before = self.state().not_before;
        if let Some(not_before) = not_before {
            sleep_until(not_before).await;
        }
        match self.connect().await {
            Ok(session) => {
                let session = Arc::new(session);
                *current = Some(session.clone());
                self.state().backoff.reset();
                Ok(session)
            }
            Err(fault) => {
                self.postpone(&fault);
                self.state().candidate += 1;
                Err(fault)
            }
        }
    }

    /// The connection if there is one, or the watches make one in time. Never makes one itself: attempts are the
    /// watches' business, and what they find out they say.
    pub(super) async fn current(&self) -> Option<Arc<Session>> {
        let until = Instant::now() + BREAK;
        loop {
            let current = timeout_at(until, self.current.lock()).await.ok()?.clone();
            if current.is_some() || Instant::now() >= until {
                return current;
            }
            sleep(BREAK / 10).await;
        }
    }

    /// A session failed: the next one who asks connects anew.
    pub(super) async fn give_up(&self, session: &Arc<Session>, fault: &Fault) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *current = None;
            self.postpone(fault);
            if matches!(fault, Fault::Server(..)) {
                self.state().candidate += 1;
            }
        }
    }

    fn postpone(&self, fault: &Fault) {
        let mut state = self.state();
        let (cap, asked) = fault.patience();
        let wait = state.backoff.fail(cap, asked);
        state.not_before = Some(Instant::now() + wait);
    }

    async fn connect(&self) -> Result<Session, Fault> {
        let servers = self.access.servers(&self.memory.read().servers);
        let candidate = self.state().candidate % servers.len().max(1);
        let server = servers.into_iter().nth(candidate);
        let server = server.ok_or_else(|| Fault::Config("no address is known: give --api-server".into()))?;
        self.standing.trying(&server);
        let unusable = |error: anyhow::Error| Fault::Config(format!("{error:#}"));
        let config = self.access.config(&server).await.map_err(unusable)?;
        let mut session = Session::new(&config).map_err(unusable)?;
        match session.identify().await {
            Ok(cluster) => self.check_cluster(&server, cluster)?,
            // Said by the watch that lacks the right; the others go on.
            Err(Fault::Forbidden(..)) => {}
            Err(fault) => return Err(fault),
        }
        Ok(session)
    }

    fn check_cluster(&self, server: &str, found: Option<String>) -> Result<(), Fault> {
        let known = self.memory.read().cluster;
        if known == found {
            return Ok(());
        }
        match (known, found) {
            (Some(_), None) => Err(Fault::Cluster(
                "has no Service default/kubernetes, which every API server makes for itself: it lost its data; \
                 restore it"
                    .into(),
            )),
            (Some(known), Some(found)) if self.state().committed => Err(Fault::Cluster(format!(
                "is another cluster's: the Service default/kubernetes has the UID {found}, not {known}; if that \
                 is meant, restart the agent"
            ))),
            (known, found) => {
                if known.is_some() {
                    tracing::warn!("API server {server}: another cluster than the last time: following it");
                }
                self.memory.update(|memory| {
                    if known.is_some() {
                        memory.servers.clear();
                    }
                    memory.cluster = found;
                });
                Ok(())
            }
        }
    }

    /// The Service `default/kubernetes` was seen to come, change or go in a watch that did not break: whatever its
    /// UID now is, it is the same cluster.
    pub(super) fn follow_cluster(&self, uid: Option<&String>) {
        if self.memory.read().cluster.as_ref() != uid {
            self.memory.update(|memory| memory.cluster = uid.cloned());
        }
    }

    /// Whether it is known which cluster this is.
    pub(super) fn knows_cluster(&self) -> bool {
        self.memory.read().cluster.is_some()
    }

    /// A full list has come from the cluster.
    pub(super) fn commit(&self) {
        self.state().committed = true;
    }

    /// A slice of the Service `default/kubernetes`; `None` when it is gone.
    pub(super) fn remember_servers(&self, name: &Arc<str>, slice: Option<&EndpointSlice>) {
        let mut state = self.state();
        match slice {
            Some(slice) => state.slices.insert(name.clone(), slice_servers(slice)),
            None => state.slices.remove(name),
        };
        let mut servers: Vec<String> = state.slices.values().flatten().cloned().collect();
        servers.sort_unstable();
        servers.dedup();
        // None at all is no place to begin at.
        if !servers.is_empty() {
            self.memory.update(|memory| memory.servers = servers);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The addresses of the API servers.
fn slice_servers(slice: &EndpointSlice) -> Vec<String> {
    let ports = slice.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    let ready = || slice.endpoints.iter().filter(|endpoint| endpoint.ready);
    ports
        .flat_map(|port| {
            ready().map(move |endpoint| server_url(&endpoint.addr.to_string(), &port.port.to_string()))
        })
        .collect()
}
