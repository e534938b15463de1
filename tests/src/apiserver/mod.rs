//! A test API server: it speaks the Kubernetes list/watch protocol over HTTPS as a real one does, and can be told to
//! misbehave. Used by the tests of the Kubernetes source and by the lab.
//!
//! What it answers follows Kubernetes' API concepts and apiserver's sources (1.34 and later), also where that is
//! surprising. Deliberately so:
//! * An empty or missing `resourceVersion` and `0` are different things for lists, and the same for watches.
//! * A watch from a version that is compacted answers 200 and then an ERROR event; an expired list answers 410.
//! * A watch from a version that is still to come says nothing until that is passed: a client that does not notice
//!   that the cluster was restored from a backup waits for long.
//! * Items of a list carry neither `kind` nor `apiVersion`.
//! * Too many requests are refused in plain text, without a Status.
//!
//! It differs from a real one in this: HTTP/1.1 and JSON only; no discovery but of one group and version, no patches but merge
//! patches,
//! subresources, finalizers, graceful
//! deletion, admission or defaulting but for a namespace's name label; a namespace need not exist for objects in it.
//!
//! Nothing here reads a clock but for what a client or [`ServerOptions`] asks for in seconds; all randomness comes
//! from a seed.

mod access;
mod event;
mod fault;
mod identity;
mod list;
mod listen;
mod log;
mod options;
mod real;
mod resource;
mod selector;
mod server;
mod status;
mod store;
mod watches;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};

pub use access::Rule;
pub use fault::{Cut, Faults, Refusal, RefuseWith, StreamingLists};
pub use identity::Validity;
pub use log::{Counts, Seen};
pub use real::{Assets, RealServer};
pub use resource::Resource;

use identity::Authority;
use listen::Gate;
use server::{Shared, tick};
use store::{Expect, Store};

/// The token that [`ApiServer::kubeconfig`] carries; its user may do everything.
pub const ADMIN_TOKEN: &str = "weir-test-admin";

/// What etcd's manual recommends to add to the revision of a backup.
const BUMP: u64 = 1_000_000_000;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where it listens; port 0 is any.
    pub address: SocketAddr,
    /// Names and addresses that its certificate is for, beside `address`.
    pub names: Vec<String>,
    /// Watches that allow bookmarks get one so often; none for only when [`ApiServer::send_bookmarks`] is called and
    /// shortly before the watch's timeout. A real server sends one a minute.
    pub bookmark_every: Option<Duration>,
    /// How long a request waits for a version that is still to come. A real server waits 3 s.
    pub fresh_within: Duration,
    /// Where answers are split comes from it.
    pub seed: u64,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            names: vec!["localhost".into(), "kubernetes.default.svc".into()],
            bookmark_every: None,
            fresh_within: Duration::from_secs(3),
            seed: 1,
        }
    }
}

/// With what a server comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// All that it had.
    Kept,
    /// Nothing, and versions that begin anew.
    Empty,
    /// What it had at this version; later versions are given out again: etcd restored from a backup, carelessly.
    RestoredTo(u64),
    /// What it had at this version, under a version that nobody has seen, and all before compacted: etcd restored as
    /// its manual wants it (`--bump-revision`, `--mark-compacted`).
    RestoredAndBumped(u64),
}

/// A running server. It ends when this is dropped; it lives in the tokio runtime that it was started in.
pub struct ApiServer {
    shared: Arc<Shared>,
    gate: Gate,
    authority: Mutex<Authority>,
}

impl ApiServer {
    /// Starts a server on a free port of the loopback.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start() -> Result<Self> {
        Self::start_with(ServerOptions::default()).await
    }

    /// Starts a server.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start_with(options: ServerOptions) -> Result<Self> {
        let gate = Gate::reserve(options.address)?;
        let server =
            Self { shared: Arc::new(Shared::new(options)), gate, authority: Mutex::new(Authority::new()?) };
        server.grant(ADMIN_TOKEN, "system:admin", vec![Rule::new(&["*"], &["*"])]);
        server.accept_connections(Validity::Valid).await?;
        Ok(server)
    }

    // Reaching it

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.gate.address()
    }

    /// `https://127.0.0.1:6443`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// The certificate of its authority.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.authority().pem().into()
    }

    /// A kubeconfig whose user may do everything.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        self.kubeconfig_of(ADMIN_TOKEN)
    }

    /// A kubeconfig with this token.
    #[must_use]
    pub fn kubeconfig_of(&self, token: &str) -> String {
        kubeconfig(&self.url(), &self.ca_pem(), token)
    }

    /// Makes `token` that of `user`, and `rules` all that this user may do.
    pub fn grant(&self, token: &str, user: &str, rules: Vec<Rule>) {
        self.shared.access(|access| access.grant(token, user, rules));
    }

    /// Makes requests with this token 401.
    pub fn revoke(&self, token: &str) {
        self.shared.access(|access| access.revoke(token));
    }

    // What it holds

    /// Serves a further resource.
    pub fn register(&self, resource: Resource) {
        self.shared.change(|store| store.register(resource));
    }

    /// Serves a resource no longer: its objects are gone, requests for it are answered with 404, and connections break.
    ///
    /// # Errors
    /// If there is none.
    pub fn withdraw(&self, kind: &str) -> Result<()> {
        self.shared.change(|store| {
            let resource = store.lookup_kind(kind).with_context(|| format!("{kind} is not registered"))?;
            store.withdraw(resource);
            Ok::<_, anyhow::Error>(())
        })?;
        self.drop_connections();
        Ok(())
    }

    /// Creates or replaces an object, and answers its version. What changes nothing gets no new one.
    ///
    /// # Errors
    /// If it lacks kind, apiVersion or name, or its kind is not registered.
    pub fn put(&self, object: &impl Serialize) -> Result<u64> {
        let object = serde_json::to_value(object)?;
        let stored = self.shared.change(|store| {
            let (resource, key) = store.locate(&object)?;
            store.put(resource, key, object, Expect::Any).map_err(|refused| anyhow::anyhow!("{refused:?}"))
        })?;
        let version =
            stored["metadata"]["resourceVersion"].as_str().context("an object without a version")?;
        Ok(version.parse()?)
    }

    /// Deletes an object; `namespace` is empty for those that live in none.
    ///
    /// # Errors
    /// If there is none.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<u64> {
        self.shared.change(|store| {
            let resource = store.lookup_kind(kind).with_context(|| format!("{kind} is not registered"))?;
            let deleted = store.delete(resource, &(namespace.into(), name.into()));
            deleted.with_context(|| format!("no {kind} {namespace}/{name}"))?;
            Ok(store.version())
        })
    }

    /// All objects of a kind in the order of a list, as they are.
    #[must_use]
    pub fn truth(&self, kind: &str) -> Vec<Value> {
        self.shared.store(|store| {
            let objects = store.lookup_kind(kind).map(|resource| store.objects(resource).values());
            objects.into_iter().flatten().map(|object| Value::clone(object)).collect()
        })
    }

    /// The version of the last write.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.shared.store(Store::version)
    }

    /// Forgets all versions before the newest: who wants to watch from one, or to go on with a list, gets 410. Watches
    /// that run go on.
    pub fn compact(&self) {
        self.compact_to(u64::MAX);
    }

    /// Forgets all versions before this one.
    pub fn compact_to(&self, version: u64) {
        self.shared.change(|store| store.compact(version));
    }

    /// Sends a bookmark on every watch that allows them.
    pub fn send_bookmarks(&self) {
        tick(&self.shared.bookmark);
    }

    // Misbehaviour

    /// Changes what is wrong: `server.faults(|faults| faults.silent = true)`.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        self.shared.faults.send_modify(change);
        self.shared.log.tick();
    }

    /// What is wrong; a refusal of so many requests ends by itself.
    #[must_use]
    pub fn current_faults(&self) -> Faults {
        self.shared.faults.borrow().clone()
    }

    /// Nothing is wrong any more, and connections are accepted.
    ///
    /// # Errors
    /// If it cannot listen again.
    pub async fn heal(&self) -> Result<()> {
        self.faults(|faults| *faults = Faults::default());
        self.accept_connections(Validity::Valid).await
    }

    /// Drops all connections that are open, without a closing word.
    pub fn drop_connections(&self) {
        self.gate.drop_connections();
    }

    /// Refuses new connections, as if nothing listened; those that are open go on.
    pub async fn refuse_connections(&self) {
        self.gate.close().await;
    }

    /// Accepts connections, with a new certificate of the same authority.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn accept_connections(&self, validity: Validity) -> Result<()> {
        let mut names = self.shared.options.names.clone();
        names.push(self.address().ip().to_string());
        let acceptor = self.authority().acceptor(&names, validity)?;
        self.gate.open(&self.shared, acceptor).await
    }

    /// Breaks all connections and comes back at the same address with these contents.
    ///
    /// # Errors
    /// If the version to restore is compacted, or it cannot listen.
    pub async fn restart(&self, contents: Contents) -> Result<()> {
        self.gate.close().await;
        self.gate.drop_connections();
        // Or a watch would tell of what is now forgotten as if it had been deleted.
        self.until(|server| server.counts().connections_open == 0).await;
        let is_done = self.shared.change(|store| match contents {
            Contents::Kept => true,
            Contents::Empty => {
                store.empty();
                true
            }
            Contents::RestoredTo(version) => store.restore(version, 0),
            Contents::RestoredAndBumped(version) => store.restore(version, BUMP),
        });
        self.accept_connections(Validity::Valid).await?;
        ensure!(is_done, "{contents:?} is not held");
        Ok(())
    }

    /// Comes back under another authority: who knew the old one does not trust it. Contents are kept.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn restart_with_new_authority(&self) -> Result<()> {
        *self.authority() = Authority::new()?;
        self.restart(Contents::Kept).await
    }

    // What clients did

    /// All requests since the start.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.log.seen()
    }

    /// Connections and watches.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.log.counts()
    }

    /// Resolves when `condition` holds: it is looked at again after each request, answer, connection and write.
    pub async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let mut ticks = self.shared.log.subscribe();
        while !condition(self) {
            // The sender lives as long as this.
            let _ = ticks.changed().await;
        }
    }

    fn authority(&self) -> MutexGuard<'_, Authority> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A namespaced object of the given kind without further content, for tests that only count.
#[must_use]
pub fn bare_object(api_version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"namespace": namespace, "name": name}})
}

/// For whoever has this token.
fn kubeconfig(url: &str, ca_pem: &str, token: &str) -> String {
    let ca = STANDARD.encode(ca_pem);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters:\n- name: test\n  cluster:\n    server: {url}\n    certificate-authority-data: {ca}\n\
         users:\n- name: test\n  user:\n    token: {token}\n\
         contexts:\n- name: test\n  context:\n    cluster: test\n    user: test\n"
    )
}
