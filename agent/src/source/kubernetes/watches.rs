//! Which watches run: those that are always needed, and those that policies ask for. Says when all that was asked for has
//! been told.
//!
//! A watch that nobody asks for ends after a while, or when a wider one takes over; and not before those of its kind that
//! are asked for have told their lists, so that what moves from one to another is never gone in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::kind::Kind;
use super::known::Known;
use super::link::Link;
use super::scope::Scope;
use super::sync::Sync;
use crate::source::{Event, PolicyDemand, PolicySync};

/// How far a loop has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// A full list was told.
    Listed,
    /// The server will not tell it; it is asked again now and then.
    Refused,
}

/// What a loop works with.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    pub(super) node: Arc<str>,
    pub(super) link: Arc<Link>,
    pub(super) events: Sender<Event>,
    /// How long until a server is asked again whether it has a kind that it did not have; half of it at least.
    pub(super) rediscover: Duration,
    /// Held while what changes in it is sent: several loops may tell of one kind.
    pub(super) known: Arc<Mutex<Known>>,
    /// Where progress is reported; there is little of it. With the number of the loop.
    pub(super) reports: UnboundedSender<(u64, Progress)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watches {
    node: Arc<str>,
    link: Arc<Link>,
    events: Sender<Event>,
    known: BTreeMap<Kind, Arc<Mutex<Known>>>,
    running: BTreeMap<Scope, Running>,
    reports: UnboundedReceiver<(u64, Progress)>,
    reporter: UnboundedSender<(u64, Progress)>,
    /// How long a watch goes on that nobody asks for.
    linger: Duration,
    rediscover: Duration,
    demand: PolicyDemand,
    /// What the demand needs.
    wanted: BTreeSet<Scope>,
    /// How many loops were started.
    started: u64,
    /// [`Event::Synced`] was sent.
    synced: bool,
    /// What was last sent of this.
    told: Option<PolicySync>,
}

/// A loop.
#[derive(Debug)]
struct Running {
    number: u64,
    task: JoinHandle<()>,
    progress: Option<Progress>,
    /// Since when nobody asks for it.
    needless: Option<Instant>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Nobody listens any more.
struct Closed;

impl Watches {
    /// `linger`, `rediscover`: see [`super::KubernetesOptions`].
    pub(super) fn new(
        node: Arc<str>,
        link: Arc<Link>,
        events: Sender<Event>,
        [linger, rediscover]: [Duration; 2],
    ) -> Self {
        let (reporter, reports) = unbounded_channel();
        Self {
            node,
            link,
            events,
            known: BTreeMap::new(),
            running: BTreeMap::new(),
            reports,
            reporter,
            linger,
            rediscover,
            demand: PolicyDemand::default(),
            wanted: BTreeSet::new(),
            started: 0,
            synced: false,
            told: None,
        }
    }

    /// Runs until nobody listens any more. If nobody asks any more, what was asked for last holds.
    pub(super) async fn follow(mut self, mut demand: watch::Receiver<PolicyDemand>) {
        let events = self.events.clone();
        loop {
            self.demand.clone_from(&demand.borrow_and_update());
            if self.settle().await.is_err() {
                return;
            }
            let next = self.next_end();
            tokio::select! {
                report = self.reports.recv() => {
                    report.into_iter().for_each(|(number, progress)| self.note(number, progress));
                }
                Ok(()) = demand.changed() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                () = events.closed() => return,
            }
        }
    }

    fn note(&mut self, number: u64, progress: Progress) {
        // It may be of a loop that has been ended.
        if let Some(running) = self.running.values_mut().find(|running| running.number == number) {
            running.progress = Some(progress);
        }
    }

    /// Starts what is missing, ends what is needless, and says how far it has come.
    async fn settle(&mut self) -> Result<(), Closed> {
        self.wanted = Scope::of_demand(&self.demand);
        let missing: Vec<_> =
            self.wanted.iter().filter(|scope| !self.running.contains_key(scope)).cloned().collect();
        missing.into_iter().for_each(|scope| self.start(scope));
        for (scope, running) in &mut self.running {
            let since = running.needless.unwrap_or_else(Instant::now);
            running.needless = (!self.wanted.contains(scope)).then_some(since);
        }
        let over: Vec<_> = self.running.keys().filter(|scope| self.is_over(scope)).cloned().collect();
        for scope in over {
            self.end(scope).await?;
        }
        self.tell_policy_sync().await?;
        let mut essential = Scope::ALWAYS.iter().filter(|scope| scope.is_essential());
        if !self.synced && essential.all(|scope| self.progress(scope) == Some(Progress::Listed)) {
            self.synced = true;
            self.send(Event::Synced).await?;
        }
        Ok(())
    }

    /// Whether a watch may end now.
    fn is_over(&self, scope: &Scope) -> bool {
        let Some(since) = self.running.get(scope).and_then(|running| running.needless) else { return false };
        let is_told = |other: &Scope| self.progress(other) == Some(Progress::Listed);
        let mut successors = self.wanted.iter().filter(|other| other.kind() == scope.kind());
        let is_within = match scope {
            Scope::PodsOf(_) => self.wanted.contains(&Scope::PodsElsewhere),
            Scope::Namespace(_) => self.wanted.contains(&Scope::Namespaces),
            _ => false,
        };
        successors.all(is_told) && (is_within || since.elapsed() >= self.linger)
    }

    /// When time alone may end the next one.
    fn next_end(&self) -> Option<Instant> {
        let ends = self.running.values().filter_map(|running| Some(running.needless? + self.linger));
        ends.filter(|end| *end > Instant::now()).min()
    }

    async fn tell_policy_sync(&mut self) -> Result<(), Closed> {
        let (base, asked): (Vec<&Scope>, _) = self
            .wanted
            .iter()
            .filter(|scope| !scope.is_essential())
            .partition(|scope| scope.is_base_of_policies());
        let sync = if base.iter().all(|scope| self.progress(scope) == Some(Progress::Listed)) {
            asked
                .iter()
                .all(|scope| self.progress(scope).is_some())
                .then(|| PolicySync::Told(self.demand.clone()))
        } else {
            let refused = base.iter().any(|scope| self.progress(scope) == Some(Progress::Refused));
            refused.then_some(PolicySync::Refused)
        };
        if let Some(sync) = sync.filter(|sync| self.told.as_ref() != Some(sync)) {
            self.told = Some(sync.clone());
            self.send(Event::PolicySync(sync)).await?;
        }
        Ok(())
    }

    fn progress(&self, scope: &Scope) -> Option<Progress> {
        self.running.get(scope)?.progress
    }

    fn start(&mut self, scope: Scope) {
        tracing::debug!("watching {scope}");
        self.started += 1;
        let tools = Tools {
            node: self.node.clone(),
            link: self.link.clone(),
            events: self.events.clone(),
            rediscover: self.rediscover,
            known: self.known(scope.kind()),
            reports: self.reporter.clone(),
        };
        let task = tokio::spawn(Sync::new(scope.clone(), self.started, tools).sync());
        self.running.insert(scope, Running { number: self.started, task, progress: None, needless: None });
    }

    async fn end(&mut self, scope: Scope) -> Result<(), Closed> {
        tracing::debug!("no longer watching {scope}");
        if let Some(mut running) = self.running.remove(&scope) {
            running.task.abort();
            // Or it might tell something after this.
            let _ = (&mut running.task).await;
        }
        self.link.standing.end(&scope);
        let known = self.known(scope.kind());
        let (mut known, mut events) = (known.lock().await, Vec::new());
        known.end(&scope, &mut events);
        for event in events {
            self.send(event).await?;
        }
        Ok(())
    }

    fn known(&mut self, kind: Kind) -> Arc<Mutex<Known>> {
        self.known.entry(kind).or_insert_with(|| Arc::new(Mutex::new(Known::new(kind)))).clone()
    }

    async fn send(&self, event: Event) -> Result<(), Closed> {
        self.events.send(event).await.map_err(|_| Closed)
    }
}
