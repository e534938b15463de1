//! Tells people who look at an object what is wrong with it: Kubernetes Events (events.k8s.io/v1), as
//! `kubectl describe` and `kubectl get events` show them. The daemon hands problems over; all else happens here.
//!
//! - One Event for each problem of an object and node, for as long as it lasts. Its name follows from what it says, so
//!   that another agent on this node finds it made. If the problem comes back, the Event becomes a series.
//! - Nothing waits for an Event: handing over never blocks, requests go over the connection that the watches have and
//!   never make one, and there are few of them. What finds no room, no server or no right is counted and forgotten:
//!   the log, the metrics and `weir status` say it anyway.
//! - The object is asked for first: `kubectl describe` finds Events by its UID, and what is gone needs none.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use form_urlencoded::byte_serialize;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::decode::{Page, decode_object};
use super::fault::Fault;
use super::kind::Kind;
use super::link::Link;
use super::session::Session;
use crate::source::{Health, ObjectRef, Problem};

/// Problems that may wait for their turn.
const WAITING: usize = 256;

/// So many Events may be sent at once, and then one in each [`PACE`].
const BURST: u32 = 10;
const PACE: Duration = Duration::from_secs(1);

/// The first Event after a rest is sent at some moment within this time: an object that is wrong is wrong on every
/// node of the cluster at once.
const SPREAD: Duration = Duration::from_secs(1);

/// How often sending one is tried, if the server may think better of it.
const ATTEMPTS: u32 = 3;

/// How many Events are remembered as sent. A problem whose Event was forgotten and still exists, and that comes back,
/// counts as one that was never away.
const REMEMBERED: usize = 4096;

/// Who reports, as a qualified name.
const CONTROLLER: &str = "weir.dev/agent";

/// What was done: the action that led to the Event.
const ACTION: &str = "Serve";

/// The most bytes that Kubernetes takes: of a note, of an object's name, and of `reportingInstance`.
const LONGEST_NOTE: usize = 1024;
const LONGEST_NAME: usize = 253;
const LONGEST_INSTANCE: usize = 128;

/// Why there is an Event: what people select and alert by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// A field means nothing, or nothing that can be served.
    InvalidField,
    /// The object is in order, but another has what it asks for, or there is no room.
    NotServed,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::InvalidField => "InvalidField",
            Self::NotServed => "NotServed",
        }
    }
}

/// A problem that has just begun.
#[derive(Debug)]
struct Begun {
    object: ObjectRef,
    reason: Reason,
    problem: Problem,
    at: Timestamp,
}

/// Where problems are handed over. That of a source without an API server takes them and does nothing.
#[derive(Clone, Debug, Default)]
pub struct Announcer(Option<(Sender<Begun>, Health)>);

impl Announcer {
    /// A problem has begun: it was not there before, or it was away in between. Never blocks.
    pub fn announce(&self, object: &ObjectRef, reason: Reason, problem: &Problem) {
        let Some((sender, health)) = &self.0 else { return };
        if path_of(object).is_none() {
            return;
        }
        let begun = Begun { object: object.clone(), reason, problem: problem.clone(), at: Timestamp::now() };
        if sender.try_send(begun).is_err() {
            health.update(|connection| connection.events_dropped += 1);
        }
    }
}

/// What became of an Event.
#[derive(Debug)]
enum Outcome {
    Sent,
    /// There is nobody to be told: the object is gone, or an earlier agent of this node has told it.
    Needless,
    /// No server can be reached.
    Away,
}

/// Sends what an [`Announcer`] was handed.
#[derive(Debug)]
pub(super) struct Events {
    node: Arc<str>,
    link: Arc<Link>,
    health: Health,
    begun: Receiver<Begun>,
    /// How often the Event of this name was sent by this process.
    sent: HashMap<String, u32>,
    pace: Pace,
    /// The rights of which it was said that they are missing: once each.
    told: BTreeSet<&'static str>,
}

impl Events {
    pub(super) fn new(node: Arc<str>, link: Arc<Link>, health: Health) -> (Self, Announcer) {
        let (sender, begun) = channel(WAITING);
        let announcer = Announcer(Some((sender, health.clone())));
        let (sent, pace) = (HashMap::new(), Pace::new());
        (Self { node, link, health, begun, sent, pace, told: BTreeSet::new() }, announcer)
    }

    /// Runs for as long as there is an announcer.
    pub(super) async fn sync(&mut self) {
        let mut idle = true;
        while let Some(begun) = self.begun.recv().await {
            if idle {
                sleep(SPREAD.mul_f64(fastrand::f64())).await;
            }
            self.pace.wait().await;
            match self.send_patiently(&begun).await {
                Ok(Outcome::Sent) => self.health.update(|connection| connection.events_sent += 1),
                Ok(Outcome::Needless) => {}
                Ok(Outcome::Away) => self.drop_waiting(),
                Err(fault) => self.drop_one(&begun, &fault),
            }
            idle = self.begun.is_empty();
        }
    }

    /// No server can be reached: what waits would only be old news later.
    fn drop_waiting(&mut self) {
        let mut dropped = 1;
        while !matches!(self.begun.try_recv(), Err(TryRecvError::Empty | TryRecvError::Disconnected)) {
            dropped += 1;
        }
        tracing::debug!(dropped, "no Kubernetes Events: no API server can be reached");
        self.health.update(|connection| connection.events_dropped += dropped);
    }

    fn drop_one(&mut self, begun: &Begun, fault: &Fault) {
        self.health.update(|connection| connection.events_dropped += 1);
        match fault {
            // The right to list is the watches' as well: they say it.
            Fault::Forbidden(_, verb, why) if *verb != "list" && self.told.insert(verb) => {
                tracing::warn!(
                    "RBAC does not allow to {verb} events.events.k8s.io: what is wrong with objects is not told as \
                     Kubernetes Events; bind a ClusterRole with create and patch on it to our user ({why})"
                );
            }
            _ => tracing::debug!("no Kubernetes Event for {}: {fault}", begun.object),
        }
    }

    async fn send_patiently(&mut self, begun: &Begun) -> Result<Outcome, Fault> {
        let mut backoff = Backoff::default();
        let mut attempt = 1;
        loop {
            let Some(session) = self.link.current().await else { return Ok(Outcome::Away) };
            match self.send(&session, begun).await {
                // One that arrived although its answer did not is found made the next time.
                Err(fault @ (Fault::Unreachable(_) | Fault::Throttled(_) | Fault::Server(500.., ..)))
                    if attempt < ATTEMPTS =>
                {
                    attempt += 1;
                    let (cap, asked) = fault.patience();
                    sleep(backoff.fail(cap, asked)).await;
                }
                result => return result,
            }
        }
    }

    async fn send(&mut self, session: &Session, begun: &Begun) -> Result<Outcome, Fault> {
        let Some((kind, api_version)) = path_of(&begun.object) else { return Ok(Outcome::Needless) };
        let Some(uid) = lookup_uid(session, kind, &begun.object).await? else { return Ok(Outcome::Needless) };
        let name = event_name(&self.node, begun, &uid);
        let path =
            format!("/apis/events.k8s.io/v1/namespaces/{}/events", encode(event_namespace(&begun.object)));
        let event = compile_event(&self.node, begun, &name, api_version, &uid);
        match session.create(kind, &path, &event).await {
            Ok(()) => {
                self.remember(name, 1);
                return Ok(Outcome::Sent);
            }
            Err(Fault::Server(409, ..)) => {}
            // The namespace is on its way out, and the object with it.
            Err(Fault::Forbidden(_, _, why)) if why.contains("because it is being terminated") => {
                return Ok(Outcome::Needless);
            }
            Err(fault) => return Err(fault),
        }
        let Some(&times) = self.sent.get(&name) else {
            // Of an earlier agent: for all that we know, the problem was there all the time.
            self.remember(name, 1);
            return Ok(Outcome::Needless);
        };
        let series = json!({"series": {"count": times + 1, "lastObservedTime": micro_time(begun.at)}});
        session.patch(kind, &format!("{path}/{}", encode(&name)), &series).await?;
        self.remember(name, times + 1);
        Ok(Outcome::Sent)
    }

    fn remember(&mut self, name: String, times: u32) {
        if self.sent.len() >= REMEMBERED && !self.sent.contains_key(&name) {
            self.sent.clear();
        }
        self.sent.insert(name, times);
    }
}

/// The kind and apiVersion of what Events are about; files and the like have none.
fn path_of(object: &ObjectRef) -> Option<(Kind, &'static str)> {
    // What could not even be named.
    const NAMELESS: &str = "(no name)";
    let found = match object.kind {
        "ClusterNetworkPolicy" => (Kind::ClusterNetworkPolicy, "policy.networking.k8s.io/v1alpha2"),
        "Namespace" => (Kind::Namespace, "v1"),
        "Service" => (Kind::Service, "v1"),
        "EndpointSlice" => (Kind::EndpointSlice, "discovery.k8s.io/v1"),
        "NetworkPolicy" => (Kind::NetworkPolicy, "networking.k8s.io/v1"),
        "Pod" => (Kind::Pod, "v1"),
        _ => return None,
    };
    let is_named =
        if is_in_namespace(found.0) { !object.namespace.is_empty() } else { *object.name != *NAMELESS };
    is_named.then_some(found)
}

fn is_in_namespace(kind: Kind) -> bool {
    !matches!(kind, Kind::ClusterNetworkPolicy | Kind::Namespace | Kind::Node)
}

/// Where the Event of an object is: beside it; of one that is in no namespace where Kubernetes wants it.
fn event_namespace(object: &ObjectRef) -> &str {
    if object.namespace.is_empty() { "default" } else { &object.namespace }
}

async fn lookup_uid(session: &Session, kind: Kind, object: &ObjectRef) -> Result<Option<String>, Fault> {
    let page = session.list(kind, &kind.list_one(&object.namespace, &object.name)).await?;
    let page: Page<'_> = serde_json::from_slice(&page).map_err(|error| Fault::Protocol(error.to_string()))?;
    let item = page.items.unwrap_or_default().into_iter().next();
    Ok(item.and_then(|item| decode_object(kind, item.get()).ok()?.uid))
}

/// The same for the same problem on the same node, whoever asks: a prefix that people know, and a hash.
fn event_name(node: &str, begun: &Begun, uid: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (node, uid, begun.reason, &begun.problem).hash(&mut hasher);
    let hash = format!("{:016x}", hasher.finish());
    let name = cut(&begun.object.name, LONGEST_NAME - hash.len() - 1).trim_end_matches(['.', '-']);
    format!("{name}.{hash}")
}

fn compile_event(node: &str, begun: &Begun, name: &str, api_version: &str, uid: &str) -> Value {
    let ObjectRef { kind, namespace, name: object } = &begun.object;
    let mut regarding = json!({"apiVersion": api_version, "kind": kind, "name": **object, "uid": uid});
    if !namespace.is_empty() {
        regarding["namespace"] = namespace.as_ref().into();
    }
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": event_namespace(&begun.object), "name": name},
        "eventTime": micro_time(begun.at),
        "type": "Warning",
        "reason": begun.reason.as_str(),
        "action": ACTION,
        "note": cut(&begun.problem.to_string(), LONGEST_NOTE),
        "regarding": regarding,
        "reportingController": CONTROLLER,
        "reportingInstance": cut(node, LONGEST_INSTANCE),
    })
}

/// A `MicroTime`.
fn micro_time(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// At most so many bytes of a text.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// As a step of a path.
fn encode(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

/// Not too many at once.
#[derive(Debug)]
struct Pace {
    /// When all of the burst may be used again.
    full: Instant,
}

impl Pace {
    fn new() -> Self {
        Self { full: Instant::now() }
    }

    /// Waits until there may be another one.
    async fn wait(&mut self) {
        let now = Instant::now();
        self.full = self.full.max(now) + PACE;
        sleep((self.full - now).saturating_sub(PACE * BURST)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(name: &str, field: &str, message: &str) -> Begun {
        let object = ObjectRef { kind: "Service", namespace: "shop".into(), name: name.into() };
        let problem = Problem { field: field.into(), message: message.into() };
        let at = "2026-01-02T03:04:05.5Z".parse().unwrap();
        Begun { object, reason: Reason::NotServed, problem, at }
    }

    #[test]
    fn nothing_is_longer_than_kubernetes_takes_it() {
        let begun = begun(&"a.".repeat(126), "spec", &"ä".repeat(2000));
        let node = "n".repeat(200);
        let name = event_name(&node, &begun, "u");
        assert!(name.len() <= LONGEST_NAME && !name.contains("..") && name.starts_with("a.a."), "{name}");
        let event = compile_event(&node, &begun, &name, "v1", "u");
        let length = |field: &str| event[field].as_str().unwrap().len();
        assert_eq!((length("note"), length("reportingInstance")), (LONGEST_NOTE, LONGEST_INSTANCE));
        assert_eq!(event["eventTime"], "2026-01-02T03:04:05.500000Z");
    }

    #[test]
    fn a_name_for_each_node_object_and_problem() {
        let one = begun("a", "spec", "wrong");
        let name = |node: &str, begun: &Begun, uid: &str| event_name(node, begun, uid);
        assert_eq!(name("n", &one, "u"), name("n", &begun("a", "spec", "wrong"), "u"));
        let others = [
            name("m", &one, "u"),
            name("n", &one, "v"),
            name("n", &begun("a", "status", "wrong"), "u"),
            name("n", &begun("a", "spec", "missing"), "u"),
            name("n", &Begun { reason: Reason::InvalidField, ..begun("a", "spec", "wrong") }, "u"),
        ];
        assert!(!others.contains(&name("n", &one, "u")), "{others:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_one_at_a_time() {
        let mut pace = Pace::new();
        let begun = Instant::now();
        for _ in 0..BURST {
            pace.wait().await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for n in 1..5_u64 {
            pace.wait().await;
            assert_eq!(begun.elapsed().as_secs(), n * PACE.as_secs());
        }
        // A rest gives the burst back, and no more than that.
        sleep(PACE * BURST * 5).await;
        let begun = Instant::now();
        for _ in 0..=BURST {
            pace.wait().await;
        }
        assert_eq!(begun.elapsed().as_secs(), PACE.as_secs());
    }
}
