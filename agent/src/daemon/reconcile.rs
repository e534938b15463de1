//! One batch of changes: events into the state, dirty Services through the compiler, plans into the tables.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use weir_ebpf::abi::{AddressUses, Connection, Peer, Protocol, ServiceId};

use super::places::Places;
use super::policies::Policies;
use crate::compile::compile_service;
use crate::kernel::KernelStore;
use crate::network::{Facts, Seeks, Told};
use crate::observe::{Health, HealthCheck, ReportedProblem, SharedReport};
use crate::source::{Announcer, Event, ObjectKey, ObjectRef, PolicyDemand, Problem, Reason};
use crate::state::State;
use crate::tables::{PolicyRows, Retired, RetiredPolicy, Tables};

/// An object, what is wrong with it, and whether that is the object's fault.
type Ill = (ObjectRef, Problem, Reason);

/// What was given up in the tables, of Services and of policies.
pub(super) struct Superseded {
    services: Option<Retired>,
    policies: Option<RetiredPolicy>,
}

impl Superseded {
    /// Both.
    pub(super) fn and(self, more: Self) -> Self {
        Self {
            services: both(self.services, more.services, Retired::and),
            policies: both(self.policies, more.policies, RetiredPolicy::and),
        }
    }
}

fn both<T>(one: Option<T>, other: Option<T>, and: impl FnOnce(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(and(one, other)),
        (one, other) => one.or(other),
    }
}

/// State, tables and store, and what was said about them.
pub(super) struct Reconciler {
    state: State,
    tables: Tables,
    store: KernelStore,
    policies: Policies,
    places: Places,
    report: SharedReport,
    problems: BTreeSet<Ill>,
    /// That sockets stay open in a network namespace.
    unsearched: Option<Problem>,
    announcer: Announcer,
    health: watch::Sender<Health>,
    /// What of other nodes the source is to tell.
    demand: watch::Sender<PolicyDemand>,
}

impl Reconciler {
    pub(super) fn new(
        state: State,
        tables: Tables,
        store: KernelStore,
        (policies, places): (Policies, Places),
        report: SharedReport,
        health: watch::Sender<Health>,
    ) -> Self {
        let announcer = Announcer::default();
        let demand = watch::Sender::new(PolicyDemand::default());
        let problems = BTreeSet::new();
        let unsearched = None;
        Self {
            state,
            tables,
            store,
            policies,
            places,
            report,
            problems,
            unsearched,
            announcer,
            health,
            demand,
        }
    }

    /// Whom to tell, from now on, of each problem that begins.
    pub(super) fn announce_to(&mut self, announcer: Announcer) {
        self.announcer = announcer;
    }

    /// What of other nodes the source is to tell, now and later.
    pub(super) fn demand(&self) -> watch::Receiver<PolicyDemand> {
        self.demand.subscribe()
    }

    /// Whether Services can be served.
    pub(super) fn is_synced(&self) -> bool {
        self.state.is_synced()
    }

    /// Whether policies can be, too, as far as the source tells of them.
    pub(super) fn is_complete(&self) -> bool {
        self.state.is_complete()
    }

    /// Takes an event in, without acting on it but for asking for what it needs.
    pub(super) fn take(&mut self, event: Event) {
        self.state.apply(event);
        self.ask();
    }

    /// Has the source told what policies now ask for.
    fn ask(&self) {
        let demand = self.state.policy().demand();
        self.demand.send_if_modified(|asked| {
            let news = *asked != demand;
            *asked = demand;
            news
        });
    }

    /// An event and all that wait behind it: one batch.
    pub(super) fn reconcile(&mut self, event: Event, events: &mut Receiver<Event>) {
        let begun = Instant::now();
        self.state.apply(event);
        while let Ok(event) = events.try_recv() {
            self.state.apply(event);
        }
        self.ask();
        let dirty = self.state.take_dirty();
        self.write(&dirty);
        self.apply_policies();
        self.tell(begun.elapsed());
    }

    /// The cluster's objects.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// What of policies is in the tables.
    pub(super) const fn policy_rows(&self) -> &PolicyRows {
        self.policies.rows()
    }

    /// What is served.
    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Takes in the devices of this node, for the next batch.
    pub(super) fn set_network(&mut self, facts: Facts) {
        self.places.set_facts(facts);
    }

    /// What the tables of the node are to say of its pods, if it is something else than before; and whether pods are to be
    /// sought that are behind no device of ours.
    pub(super) fn take_told(&mut self) -> Option<(Told, Seeks)> {
        self.places.take_told(&self.state)
    }

    /// Whether something is to be told when some time has passed.
    pub(super) fn is_waiting(&self) -> bool {
        self.places.is_waiting()
    }

    /// Looks whether the time has come for it.
    pub(super) fn look_at_places(&mut self) {
        self.tell_problems();
        self.tell_places();
    }

    fn apply_policies(&mut self) {
        let moved = self.places.place(&mut self.state, Instant::now());
        // What an agent before this one left is adopted by the devices that there are.
        if moved && !self.policies.has_begun() {
            self.policies.set_places(&self.places);
        }
        self.policies.apply(&mut self.state);
        self.places.set_on(self.policies.is_on(), Instant::now());
        // Otherwise an address has its new owner's policy before it is behind another device.
        if moved {
            self.policies.set_places(&self.places);
            self.tell_problems();
        }
    }

    fn tell_places(&self) {
        self.report.update(|report| self.places.tell(&mut report.places, Instant::now()));
    }

    /// Every Service that is known, and every one that only the tables know.
    pub(super) fn reconcile_all(&mut self) {
        let begun = Instant::now();
        let gone: Vec<ObjectKey> =
            self.tables.services().filter(|key| self.state.service(key).is_none()).cloned().collect();
        // What is gone first: it may hold addresses and places that the others want.
        self.write(&gone);
        let dirty = self.state.take_dirty();
        self.write(&dirty);
        self.apply_policies();
        self.tell(begun.elapsed());
    }

    /// Says that the tables are true from now on.
    pub(super) fn ready(&mut self, took: Duration) {
        self.report.update(|report| report.ready = true);
        self.health.send_modify(|health| health.synced = true);
        let objects = self.report.read().objects;
        tracing::info!(
            services = objects.services,
            endpoints = objects.endpoints,
            took_ms = took.as_millis(),
            "ready: the tables say what the cluster says, and the programs are attached"
        );
    }

    fn write(&mut self, services: &[ObjectKey]) {
        if self.state.take_addresses_changed()
            && let Some(addresses) = self.state.addresses()
        {
            self.tables.apply_addresses(addresses, &mut self.store);
            let served = addresses.iter().filter(|(_, uses)| uses.contains(AddressUses::NODE_PORTS));
            let served: Vec<IpAddr> = served.map(|(addr, _)| *addr).collect();
            self.health.send_if_modified(|health| health.set_addresses(served));
        }
        for key in services {
            let node = self.state.node();
            let plan = self.state.service(key).map(|view| compile_service(&view, node));
            self.tables.apply(key, plan.as_ref(), &mut self.store);
            let check = self.state.service(key).and_then(|view| HealthCheck::of(&view, &node.name));
            self.health.send_if_modified(|health| health.set_check(key, check));
        }
    }

    /// What was given up, for a grace period to pass.
    pub(super) fn take_retired(&mut self) -> Option<Superseded> {
        let superseded =
            Superseded { services: self.tables.take_retired(), policies: self.policies.take_retired() };
        (superseded.services.is_some() || superseded.policies.is_some()).then_some(superseded)
    }

    /// A grace period after [`Reconciler::take_retired`].
    pub(super) fn release(&mut self, superseded: Superseded) {
        if let Some(retired) = superseded.policies {
            self.policies.release(retired);
        }
        let Some(retired) = superseded.services else { return };
        let starved = self.tables.release(retired);
        if !starved.is_empty() {
            let begun = Instant::now();
            self.write(&starved);
            self.tell(begun.elapsed());
        }
    }

    /// Says how this node is. Nobody is told what they know.
    pub(super) fn tell_health(&mut self, background_failed: bool) {
        let (late, leaving) = (self.has_refused() || background_failed, self.state.is_leaving());
        self.health.send_if_modified(|health| health.set_state(late, leaving));
    }

    /// Whether the kernel refused something that is to be tried again.
    pub(super) fn has_refused(&self) -> bool {
        self.tables.has_refused() || self.policies.has_refused()
    }

    /// Tries again what the kernel refused.
    pub(super) fn retry(&mut self) {
        let begun = Instant::now();
        let refused = self.tables.retry(&mut self.store);
        self.write(&refused);
        self.policies.retry();
        self.tell(begun.elapsed());
    }

    /// Has all translated sockets looked at once.
    pub(super) fn suspect_sockets(&mut self) {
        self.tables.suspect_sockets();
    }

    /// Whether sockets may have lost their backend.
    pub(super) fn take_stale(&mut self) -> bool {
        self.tables.take_stale()
    }

    /// Those of these sockets that are to be closed.
    pub(super) fn select_stale(&self, mut sockets: Vec<(u64, Connection)>) -> Vec<(u64, Connection)> {
        let is_stale = |row: &Connection| {
            row.protocol().is_some_and(|protocol| self.tables.is_stale(row.service, row.backend(), protocol))
        };
        sockets.retain(|(_, row)| is_stale(row));
        sockets
    }

    /// Whether nothing may be sent to this backend of a Service any more.
    pub(super) fn is_stale(&self, service: ServiceId, backend: Peer, protocol: Protocol) -> bool {
        self.tables.is_stale(service, backend, protocol)
    }

    /// Counts sockets that were closed and flows that were forgotten.
    pub(super) fn closed(&mut self, sockets: usize, flows: usize) {
        if sockets + flows > 0 {
            tracing::info!(sockets, flows, "ended what led to backends that are gone");
            self.report.update(|report| {
                report.closed_sockets += sockets as u64;
                report.flows.stale += flows as u64;
            });
        }
    }

    /// Says why network namespaces could not be searched for sockets whose backend is gone, if there are such.
    pub(super) fn tell_unsearched(&mut self, reasons: &[String]) {
        let problem = reasons.first().map(|reason| Problem {
            field: "sockets".into(),
            message: format!(
                "those whose backend is gone stay open in {} network namespaces that cannot be searched ({reason}): \
                 tried again in a moment",
                reasons.len()
            ),
        });
        if problem != self.unsearched {
            self.unsearched = problem;
            self.tell_problems();
        }
    }

    /// Logs and reports what a batch came to.
    fn tell(&mut self, took: Duration) {
        // With thousands of problems, looking at them takes longer than a batch.
        let changed = self.state.take_problems_changed() | self.tables.take_problems_changed();
        if changed | self.policies.take_problems_changed() {
            self.tell_problems();
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.report.update(|report| {
            report.objects = self.state.counts();
            report.usage = self.tables.usage();
            self.policies.tell(&mut report.policies);
            self.places.tell(&mut report.places, Instant::now());
            report.syncs += 1;
            report.last_sync_us = micros;
            report.slowest_sync_us = report.slowest_sync_us.max(micros);
        });
    }

    /// Logs what is newly wrong and what is well again, and reports what is wrong.
    fn tell_problems(&mut self) {
        let known = self
            .state
            .problems()
            .map(|(object, problem)| (object.clone(), problem.clone(), Reason::InvalidField));
        let tables = self.tables.problems().map(|(service, problem)| {
            let object = ObjectRef { kind: "Service", namespace: service.namespace, name: service.name };
            (object, problem, Reason::NotServed)
        });
        let node = ObjectRef { kind: "Node", namespace: "".into(), name: self.state.node().name.clone() };
        let of_node =
            self.tables.node_problems().chain(self.unsearched.clone()).chain(self.policies.problems());
        let of_node = of_node.map(|problem| (node.clone(), problem, Reason::NotServed));
        let of_pods = self.places.look(&self.state, Instant::now()).iter();
        let of_pods = of_pods.map(|(object, problem)| (object.clone(), problem.clone(), Reason::NotServed));
        let of_policies = self.policies.lacking(&self.state).into_iter();
        let of_policies = of_policies.map(|(object, problem)| (object, problem, Reason::NotServed));
        let all = known.chain(tables).chain(of_node).chain(of_pods).chain(of_policies);
        let problems: BTreeSet<Ill> = all.collect();
        for (object, problem, reason) in problems.difference(&self.problems) {
            tracing::warn!("{object}: {problem}");
            self.announcer.announce(object, *reason, problem);
        }
        let ill: HashSet<&ObjectRef> = problems.iter().map(|(object, ..)| object).collect();
        let before: BTreeSet<&ObjectRef> = self.problems.iter().map(|(object, ..)| object).collect();
        for object in before.iter().filter(|object| !ill.contains(*object)) {
            tracing::info!("{object}: all is well again");
        }
        if problems != self.problems {
            let reported = problems.iter().map(|(object, problem, _)| ReportedProblem::new(object, problem));
            self.report.update(|report| report.problems = reported.collect());
            self.problems = problems;
        }
    }
}
