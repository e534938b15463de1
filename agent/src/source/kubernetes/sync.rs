//! The loop of one watch: a full list, then a watch for as long as it goes, from where it broke off for as long as
//! the server remembers, and another full list when it does not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::backoff::{Backoff, SOON};
use super::body::{Lines, SILENCE, read_all};
use super::decode::{Line, Page, decode_bookmark};
use super::fault::Fault;
use super::kind::Kind;
use super::scope::Scope;
use super::session::Session;
use super::watches::{Progress, Tools};

mod absence;
mod objects;

/// How long a watch is asked to last, in seconds; up to twice as long, so that those of many nodes do not end together.
const WATCH_S: u64 = 300;

/// The longest that a streaming list may take: pages end by themselves, and may take as long as they need.
const LONGEST_LIST: Duration = Duration::from_secs(45);

/// A server that ends a watch so early does it for a reason of its own.
const EARLY: Duration = Duration::from_secs(30);

/// Why a loop stops.
#[derive(Debug)]
enum Stop {
    /// Nobody listens any more.
    Closed,
    /// There is no connection.
    NoSession(Fault),
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// How a watch ended that had no fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    /// When it was to.
    InTime,
    /// The connection broke, or the server closed it: it may be another one by now.
    Early,
    /// The server does not have the kind.
    Absent,
    /// It had it until now.
    Vanished,
}

/// One watch.
#[derive(Debug)]
pub(super) struct Sync {
    scope: Scope,
    kind: Kind,
    number: u64,
    tools: Tools,
    progress: Option<Progress>,
    /// Up to where changes are known; `None`: ask for a full list.
    version: Option<Arc<str>>,
    /// When it was set.
    advanced: Instant,
    /// Whether the next list is to stream, if the server can.
    stream: bool,
    /// A list took so long that its pages expired: ask for it in one piece.
    whole: bool,
    /// The version was forgotten, and nothing new has come since.
    expired: bool,
    /// The server did not have the kind when it was last asked.
    absent: bool,
    backoff: Backoff,
}

impl Sync {
    pub(super) fn new(scope: Scope, number: u64, tools: Tools) -> Self {
        Self {
            kind: scope.kind(),
            scope,
            number,
            tools,
            progress: None,
            version: None,
            advanced: Instant::now(),
            stream: true,
            whole: false,
            expired: false,
            absent: false,
            backoff: Backoff::default(),
        }
    }

    /// Runs until nobody listens any more.
    pub(super) async fn sync(mut self) {
        let events = self.tools.events.clone();
        loop {
            let result = tokio::select! {
                result = self.attempt() => result,
                () = events.closed() => return,
            };
            let wait = match result {
                Err(Stop::Closed) => return,
                Ok(Ended::InTime) => Duration::ZERO,
                Ok(Ended::Early | Ended::Vanished) => self.backoff.fail(SOON, None),
                Ok(Ended::Absent) => self.tools.rediscover.mul_f64(0.5 + fastrand::f64() / 2.0),
                Err(Stop::NoSession(fault)) => {
                    // The link itself takes its time before the next attempt.
                    self.tools.link.standing.bad(&self.scope, &fault);
                    Duration::ZERO
                }
                Err(Stop::Fault(Fault::Expired)) => {
                    self.version = None;
                    // The first time it is in order; again, before anything came, it is not.
                    if std::mem::replace(&mut self.expired, true) {
                        self.backoff.fail(SOON, None)
                    } else {
                        Duration::ZERO
                    }
                }
                Err(Stop::Fault(fault)) => {
                    self.tools.link.standing.bad(&self.scope, &fault);
                    if fault.is_refusal() && self.progress.is_none() {
                        self.report(Progress::Refused);
                    }
                    let (cap, asked) = fault.patience();
                    self.backoff.fail(cap, asked)
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = events.closed() => return,
            }
        }
    }

    /// One connection's worth: lists if need be, then watches.
    async fn attempt(&mut self) -> Result<Ended, Stop> {
        let session = self.tools.link.session().await.map_err(Stop::NoSession)?;
        let mut result = self.attempt_on(&session).await;
        if self.kind.discovery().is_some() && matches!(result, Err(Stop::Fault(Fault::Server(404, ..)))) {
            result = self.note_absence().await;
        }
        match &result {
            // Of what can be done without, a refusal says nothing about the connection.
            Err(Stop::Fault(fault)) if fault.is_refusal() && !self.scope.is_essential() => {}
            Err(Stop::Fault(fault)) if fault.is_servers() => self.tools.link.give_up(&session, fault).await,
            Ok(Ended::Early) => {
                let fault = Fault::Unreachable("the connection was closed".into());
                self.tools.link.give_up(&session, &fault).await;
            }
            _ => {}
        }
        result
    }

    async fn attempt_on(&mut self, session: &Session) -> Result<Ended, Stop> {
        if self.is_ahead_of(session) {
            tracing::warn!("the API server went back in time: listing {} anew", self.scope);
            self.version = None;
            self.tools.known.lock().await.forget_versions();
        }
        if self.version.is_none() {
            if !self.is_served(session).await? {
                return self.note_absence().await;
            }
            // Where one way broke off, the other is next: perhaps something between us does not let it through.
            let stream = self.stream;
            self.stream = !stream;
            if stream && !self.whole && session.may_stream() {
                match self.list_streaming(session).await {
                    Err(Stop::Fault(Fault::Rejected(why))) => {
                        tracing::debug!("no streaming lists: {why}");
                        session.no_streaming();
                    }
                    result => return result,
                }
            }
            self.list_pages(session).await?;
        }
        self.watch(session).await
    }

    /// Whether the server's newest version is older than what it told us before.
    fn is_ahead_of(&self, session: &Session) -> bool {
        let known: Option<u64> = self.version.as_ref().and_then(|version| version.parse().ok());
        let (Some(known), Some((asked, newest))) = (known, session.newest) else { return false };
        self.advanced < asked && known > newest
    }

    /// A watch that begins with the list.
    async fn list_streaming(&mut self, session: &Session) -> Result<Ended, Stop> {
        let seconds = watch_seconds();
        let path = self.scope.streaming_list(&self.tools.node, seconds);
        let answer = session.get(self.kind, "watch", &path).await?;
        self.tools.link.standing.listing();
        self.tools.known.lock().await.begin_list(&self.scope);
        self.follow(Lines::new(answer.into_body()), seconds, false).await
    }

    async fn watch(&mut self, session: &Session) -> Result<Ended, Stop> {
        let seconds = watch_seconds();
        let version = self.version.clone().unwrap_or_default();
        let path = self.scope.watch(&self.tools.node, &version, seconds);
        let answer = session.get(self.kind, "watch", &path).await?;
        self.tools.link.standing.good(&self.scope);
        self.follow(Lines::new(answer.into_body()), seconds, true).await
    }

    async fn list_pages(&mut self, session: &Session) -> Result<(), Stop> {
        self.tools.link.standing.listing();
        self.tools.known.lock().await.begin_list(&self.scope);
        let mut token = String::new();
        loop {
            let more = Some(token.as_str()).filter(|token| !token.is_empty());
            let path = self.scope.list(&self.tools.node, more, self.whole);
            let answer = match session.get(self.kind, "list", &path).await {
                Err(Fault::Expired) => {
                    self.whole = true;
                    return Err(Fault::Expired.into());
                }
                answer => answer?,
            };
            let body = read_all(answer.into_body()).await?;
            let page: Page<'_> =
                serde_json::from_slice(&body).map_err(|error| Fault::Protocol(error.to_string()))?;
            for item in page.items.unwrap_or_default() {
                self.take(item.get(), false).await?;
            }
            token = page.metadata.token;
            if token.is_empty() {
                self.whole = false;
                return self.end_list(page.metadata.resource_version.into()).await;
            }
        }
    }

    /// Takes the lines of a watch until it ends. `listed`: it begins behind a full list, not with one.
    async fn follow(&mut self, mut lines: Lines, seconds: u64, mut listed: bool) -> Result<Ended, Stop> {
        let begun = Instant::now();
        // A server that forgets to end it: its timeout, and some grace.
        let deadline = Duration::from_secs(seconds) + SILENCE;
        loop {
            if !listed && begun.elapsed() > LONGEST_LIST {
                let seconds = LONGEST_LIST.as_secs();
                return Err(Fault::Unreachable(format!("a list had no end after {seconds} s")).into());
            }
            let patience = if listed { deadline.saturating_sub(begun.elapsed()) } else { SILENCE };
            let line = match lines.next(patience).await {
                Ok(Some(line)) => line,
                Ok(None) if !listed => return Err(Fault::Unreachable("a list broke off".into()).into()),
                Ok(None) if begun.elapsed() < EARLY => return Ok(Ended::Early),
                Ok(None) => return Ok(Ended::InTime),
                // As usual as it is with load balancers; if the server does not come back, that is said.
                Err(Fault::Unreachable(why)) if listed => {
                    tracing::debug!("the watch of {} broke: {why}", self.scope);
                    return Ok(Ended::Early);
                }
                Err(fault) => return Err(fault.into()),
            };
            let line: Line<'_> =
                serde_json::from_slice(line).map_err(|error| Fault::Protocol(error.to_string()))?;
            match &*line.change {
                "ADDED" | "MODIFIED" => self.take(line.object.get(), listed).await?,
                "DELETED" => self.take_deleted(line.object.get(), listed).await?,
                "BOOKMARK" => {
                    let bookmark = decode_bookmark(line.object.get());
                    let bookmark = bookmark.map_err(|error| Fault::Protocol(error.to_string()))?;
                    if bookmark.listed && !listed {
                        listed = true;
                        self.end_list(bookmark.version).await?;
                        self.tools.link.standing.good(&self.scope);
                        continue;
                    }
                    self.set_version(&bookmark.version, listed);
                }
                "ERROR" => return Err(self.watch_error(line.object.get()).into()),
                other => return Err(Fault::Protocol(format!("a watch event of type {other:?}")).into()),
            }
            if listed {
                self.backoff.reset();
                self.expired = false;
            }
        }
    }

    fn watch_error(&self, text: &str) -> Fault {
        match serde_json::from_str::<kube::core::Status>(text) {
            Ok(status) => match Fault::of_status(self.kind, "watch", status.code, &status) {
                // Within a watch it is not about the request.
                Fault::Rejected(why) => Fault::Server(status.code, why, None),
                fault => fault,
            },
            Err(error) => Fault::Protocol(error.to_string()),
        }
    }

    async fn end_list(&mut self, version: Arc<str>) -> Result<(), Stop> {
        if version.is_empty() {
            return Err(Fault::Protocol("a list without a resourceVersion".into()).into());
        }
        {
            let known = self.tools.known.clone();
            let (mut known, mut events) = (known.lock().await, Vec::new());
            known.end_list(&self.scope, &mut events);
            self.send(events).await?;
        }
        self.version = Some(version);
        self.advanced = Instant::now();
        self.stream = true;
        self.absent = false;
        self.tools.link.commit();
        if self.progress != Some(Progress::Listed) {
            self.report(Progress::Listed);
        }
        Ok(())
    }

    fn report(&mut self, progress: Progress) {
        self.progress = Some(progress);
        // Nobody asks for it any more: this loop is about to end.
        let _ = self.tools.reports.send((self.number, progress));
    }
}

fn watch_seconds() -> u64 {
    fastrand::u64(WATCH_S..2 * WATCH_S)
}
