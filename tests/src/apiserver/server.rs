//! What all connections share, and what answers one request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, Response};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::ServerOptions;
use super::access::Access;
use super::event;
use super::fault::{Dice, Faults, FedBody, Feed, RefuseWith};
use super::list::{RETRY_TOO_LARGE, list, select_minimum};
use super::log::Log;
use super::options::{Options, Target, pairs, parse_path};
use super::resource::Resource;
use super::status::Failure;
use super::store::{Expect, Refused, Store};
use super::watches::Watch;

/// A server, as its connections see it.
pub(super) struct Shared {
    pub(super) options: ServerOptions,
    store: Mutex<Store>,
    access: Mutex<Access>,
    pub(super) log: Log,
    pub(super) faults: watch::Sender<Faults>,
    /// Ticks when the store has changed.
    pub(super) changed: watch::Sender<u64>,
    /// Ticks when every watch shall get a bookmark.
    pub(super) bookmark: watch::Sender<u64>,
    /// For the seeds of the answers' splitting.
    answers: AtomicU64,
}

/// A tick for everybody who waits.
pub(super) fn tick(sender: &watch::Sender<u64>) {
    sender.send_modify(|count| *count += 1);
}

/// A lock whose holder panicked is a failed test already; the others still get to say so.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a group and version has; `None` where there is no such.
fn discover(resources: &[Resource], path: &str) -> Option<Value> {
    let here = resources.iter().filter(|resource| resource.served && resource.root() == path);
    let found: Vec<Value> = here
        .clone()
        .map(|one| json!({"name": one.plural, "kind": one.kind, "namespaced": one.namespaced, "verbs": ["list", "watch"]}))
        .collect();
    let version = here.clone().next()?.api_version();
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": found}))
}

impl Shared {
    pub(super) fn new(options: ServerOptions) -> Self {
        Self {
            options,
            store: Mutex::new(Store::new()),
            access: Mutex::default(),
            log: Log::new(),
            faults: watch::Sender::new(Faults::default()),
            changed: watch::Sender::new(0),
            bookmark: watch::Sender::new(0),
            answers: AtomicU64::new(0),
        }
    }

    /// Looks at the store.
    pub(super) fn store<T>(&self, look: impl FnOnce(&Store) -> T) -> T {
        look(&lock(&self.store))
    }

    /// Changes the store, and tells the watches.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let result = change(&mut lock(&self.store));
        tick(&self.changed);
        self.log.tick();
        result
    }

    pub(super) fn access<T>(&self, look: impl FnOnce(&mut Access) -> T) -> T {
        look(&mut lock(&self.access))
    }

    /// Waits for `version` as long as a server does, which may be behind another one.
    pub(super) async fn wait_until_fresh(&self, version: u64) -> Result<(), Failure> {
        let mut changed = self.changed.subscribe();
        let reached = async {
            while self.store(Store::version) < version {
                let _ = changed.changed().await;
            }
        };
        timeout(self.options.fresh_within, reached)
            .await
            .map_err(|_| Failure::too_large(version, self.store(Store::version), RETRY_TOO_LARGE))
    }

    /// Answers a request, also with a fault.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<FedBody> {
        let user = self.access(|access| access.identify(authorization(request.headers())));
        let path = request.uri().path().to_string();
        let query = request.uri().query().unwrap_or_default().to_string();
        let index = self.log.begin(request.method(), &path, &query, user.as_deref().unwrap_or_default());
        let mut faults = self.faults.subscribe();
        let delay = faults.borrow().delay;
        tokio::time::sleep(delay.unwrap_or(Duration::ZERO)).await;
        let is_told =
            |faults: &Faults| !faults.silent_about.as_ref().is_some_and(|end| path.ends_with(end.as_str()));
        let _ = faults.wait_for(|faults| !faults.silent && is_told(faults)).await;
        let answer = match self.take_refusal() {
            Some(failure) => Err(failure),
            None => match user {
                Ok(user) => self.answer_user(&user, request, &path, &query).await,
                Err(failure) => Err(failure),
            },
        };
        let response = answer.unwrap_or_else(|failure| self.respond_failure(&failure));
        self.log.finish(index, response.status().as_u16());
        response
    }

    fn take_refusal(&self) -> Option<Failure> {
        let mut taken = None;
        self.faults.send_if_modified(|faults| {
            taken = faults.refusal.map(|refusal| refusal.with);
            match &mut faults.refusal {
                Some(refusal) => {
                    refusal.requests = refusal.requests.map(|left| left.saturating_sub(1));
                    if refusal.requests == Some(0) {
                        faults.refusal = None;
                    }
                    true
                }
                None => false,
            }
        });
        taken.map(|with| match with {
            RefuseWith::TooManyRequests(seconds) => Failure::too_many_requests(seconds),
            RefuseWith::CacheNotReady(seconds) => Failure::cache_not_ready(seconds),
            RefuseWith::Internal => Failure::internal("etcdserver: request timed out"),
            RefuseWith::Unavailable => Failure::unavailable(),
        })
    }

    async fn answer_user(
        self: &Arc<Self>,
        user: &str,
        request: Request<Incoming>,
        path: &str,
        query: &str,
    ) -> Result<Response<FedBody>, Failure> {
        let Some(target) = self.store(|store| parse_path(path, store.resources())) else {
            let verb = request.method().as_str().to_ascii_lowercase();
            self.access(|access| access.judge_path(user, &verb, path))?;
            return self.answer_path(path);
        };
        let resource = self.store(|store| store.resources()[target.resource].clone());
        let is_watch = pairs(query).any(|(key, value)| key == "watch" && value != "0" && value != "false");
        let verb = match (request.method(), target.name.is_empty()) {
            (&Method::GET, _) if is_watch => "watch",
            (&Method::GET, true) => "list",
            (&Method::GET, false) => "get",
            (&Method::POST, true) => "create",
            (&Method::PUT, false) => "update",
            (&Method::PATCH, false) => "patch",
            (&Method::DELETE, false) => "delete",
            (method, _) => {
                return Err(Failure::method_not_allowed(&resource, &method.as_str().to_ascii_lowercase()));
            }
        };
        let streaming = self.faults.borrow().streaming_lists;
        let options = Options::parse(query, &resource, streaming);
        let selected = options.as_ref().ok().and_then(|options| options.fields.name()).unwrap_or_default();
        let name = if target.name.is_empty() { selected } else { &target.name };
        self.access(|access| access.judge(user, verb, &resource, &target, name))?;
        match verb {
            "watch" => self.answer_watch(target, options?),
            "list" => self.answer_list(&target, &options?).await,
            "get" => self.answer_get(&target),
            "delete" => self.answer_delete(&target),
            "patch" => self.answer_patch(&target, request).await,
            _ => self.answer_write(&target, verb, request).await,
        }
    }

    fn answer_path(&self, path: &str) -> Result<Response<FedBody>, Failure> {
        match path {
            "/version" => Ok(self.respond(200, "application/json", VERSION.into())),
            "/healthz" | "/livez" | "/readyz" => {
                Ok(self.respond(200, "text/plain; charset=utf-8", "ok".into()))
            }
            _ => {
                if let Some(found) = self.store(|store| discover(store.resources(), path)) {
                    return Ok(self.respond(200, "application/json", found.to_string()));
                }
                let is_below = |resource: &Resource| {
                    path.strip_prefix(&resource.root()).is_some_and(|rest| rest.starts_with('/'))
                };
                let known = self.store(|store| store.resources().iter().any(is_below));
                Err(if known { Failure::no_such_resource() } else { Failure::no_such_path() })
            }
        }
    }

    async fn answer_list(&self, target: &Target, options: &Options) -> Result<Response<FedBody>, Failure> {
        self.wait_until_fresh(select_minimum(options)).await?;
        let malformed = self.faults.borrow().malformed.clone();
        let object = self.store(|store| list(store, target, options, malformed.as_ref()))?;
        Ok(self.respond(200, "application/json", format!("{object}\n")))
    }

    fn answer_watch(
        self: &Arc<Self>,
        target: Target,
        options: Options,
    ) -> Result<Response<FedBody>, Failure> {
        let asked = options.version.filter(|asked| *asked != 0 && options.initial_events != Some(true));
        let compacted = self.store(Store::compacted);
        if let Some(asked) = asked.filter(|asked| *asked < compacted)
            && self.faults.borrow().expired_as_status
        {
            return Err(Failure::expired_watch(asked, compacted));
        }
        let (feed, body) = self.feed();
        let shared = self.clone();
        tokio::spawn(async move {
            let _open = shared.log.watch_opened();
            Watch::new(shared.clone(), target, options, feed).run().await;
        });
        Ok(respond_with(200, "application/json", body))
    }

    fn answer_get(&self, target: &Target) -> Result<Response<FedBody>, Failure> {
        let key = (target.namespace.clone(), target.name.clone());
        let object = self.store(|store| {
            let object = store.objects(target.resource).get(&key).cloned();
            object.ok_or_else(|| Failure::not_found(&store.resources()[target.resource], &target.name))
        })?;
        Ok(self.respond(200, "application/json", format!("{object}\n")))
    }

    fn answer_delete(&self, target: &Target) -> Result<Response<FedBody>, Failure> {
        let key = (target.namespace.clone(), target.name.clone());
        let resource = self.store(|store| store.resources()[target.resource].clone());
        let old = self.change(|store| store.delete(target.resource, &key));
        let old = old.ok_or_else(|| Failure::not_found(&resource, &target.name))?;
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": target.name, "kind": resource.plural, "uid": old["metadata"]["uid"]},
        });
        Ok(self.respond(200, "application/json", format!("{status}\n")))
    }

    async fn answer_write(
        &self,
        target: &Target,
        verb: &str,
        request: Request<Incoming>,
    ) -> Result<Response<FedBody>, Failure> {
        let mut object = read(request).await?;
        if !target.namespace.is_empty() {
            object["metadata"]["namespace"] = target.namespace.clone().into();
        }
        let resource = self.store(|store| store.resources()[target.resource].clone());
        let (found, key) = self
            .store(|store| store.locate(&object))
            .map_err(|error| Failure::bad_request(&error.to_string()))?;
        if found != target.resource || (!target.name.is_empty() && target.name != key.1) {
            return Err(Failure::bad_request("the object does not fit the path"));
        }
        if resource.kind == "Event" {
            event::judge(&object, None)?;
        }
        let name = key.1.clone();
        let (expect, code) =
            if verb == "create" { (Expect::Absent, 201) } else { (Expect::SameVersion, 200) };
        let stored = self.change(|store| store.put(found, key, object, expect));
        let stored = stored.map_err(|refused| match refused {
            Refused::Exists => Failure::already_exists(&resource, &name),
            Refused::Missing => Failure::not_found(&resource, &name),
            Refused::Changed => Failure::conflict(&resource, &name),
        })?;
        Ok(self.respond(code, "application/json", format!("{stored}\n")))
    }

    async fn answer_patch(
        &self,
        target: &Target,
        request: Request<Incoming>,
    ) -> Result<Response<FedBody>, Failure> {
        if request.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != "application/merge-patch+json") {
            return Err(Failure::unsupported_media_type());
        }
        let patch = read(request).await?;
        let key = (target.namespace.clone(), target.name.clone());
        let patched = self.change(|store| {
            let resource = store.resources()[target.resource].clone();
            let missing = || Failure::not_found(&resource, &target.name);
            let old = store.objects(target.resource).get(&key).cloned().ok_or_else(missing)?;
            let mut object = Value::clone(&old);
            event::merge(&mut object, &patch);
            if resource.kind == "Event" {
                event::judge(&object, Some(&old))?;
            }
            store
                .put(target.resource, key, object, Expect::SameVersion)
                .map_err(|_| Failure::conflict(&resource, &target.name))
        })?;
        Ok(self.respond(200, "application/json", format!("{patched}\n")))
    }

    fn feed(&self) -> (Feed, FedBody) {
        let number = self.answers.fetch_add(1, Ordering::Relaxed);
        Feed::new(self.faults.subscribe(), Dice(self.options.seed ^ number.rotate_left(32)))
    }

    /// A whole answer; one that is a success is subject to the faults of bodies.
    fn respond(&self, code: u16, kind: &'static str, text: String) -> Response<FedBody> {
        let (mut feed, body) = self.feed();
        tokio::spawn(async move { feed.send(&text).await });
        respond_with(code, kind, body)
    }

    fn respond_failure(&self, failure: &Failure) -> Response<FedBody> {
        let (kind, text) = failure.body();
        let mut response = self.respond(failure.code, kind, text);
        if let Some(seconds) = failure.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The JSON of a request.
async fn read(request: Request<Incoming>) -> Result<Value, Failure> {
    let bad = |error: &dyn std::fmt::Display| Failure::bad_request(&error.to_string());
    let body = request.into_body().collect().await.map_err(|error| bad(&error))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| bad(&error))
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default())
}

fn respond_with(code: u16, kind: &'static str, body: FedBody) -> Response<FedBody> {
    let mut response = Response::new(body);
    // All codes here are ours, and are codes.
    *response.status_mut() = code.try_into().unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// What `/version` says.
const VERSION: &str = r#"{"major":"1","minor":"34","gitVersion":"v1.34.0","gitCommit":"0000000000000000000000000000000000000000","gitTreeState":"clean","buildDate":"2026-01-01T00:00:00Z","goVersion":"go1.24.0","compiler":"gc","platform":"linux/amd64"}
"#;
