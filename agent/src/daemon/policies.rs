//! Policies in the running agent: what changed of them through the compiler into the tables, batch by batch.

use std::collections::BTreeMap;

use super::places::Places;
use crate::compile::policy::PolicyCompiler;
use crate::kernel::{Generation, KernelPolicyStore};
use crate::observe::PolicyReport;
use crate::source::{ObjectRef, Problem};
use crate::state::{PodView, State};
use crate::tables::{PolicyOptions, PolicyRows, RetiredPolicy};

/// Compiler, rows and store of policies.
pub(super) struct Policies {
    compiler: PolicyCompiler,
    rows: PolicyRows,
    store: KernelPolicyStore,
}

impl Policies {
    /// Over what an earlier agent left, be it in tables of other sizes: what is in force stays so until it is known what is
    /// true.
    pub(super) fn adopt(
        options: PolicyOptions,
        generation: &Generation,
        earlier: Option<&Generation>,
    ) -> anyhow::Result<Self> {
        let mut store = KernelPolicyStore::open(generation)?;
        let mut found = store.snapshot()?;
        if let Some(earlier) = earlier.filter(|_| !found.is_said()) {
            let left_out = KernelPolicyStore::open(earlier)?.snapshot()?.carry_to(&mut store)?;
            if left_out > 0 {
                tracing::warn!(
                    "{left_out} rows of policies find no room in the new tables: pods that are isolated are allowed nothing \
                     until all policies were told"
                );
            }
            found = store.snapshot()?;
        }
        let compiler = PolicyCompiler::adopting(found.named());
        Ok(Self { compiler, rows: PolicyRows::new(options, found), store })
    }

    /// What changed since the last time. Nothing until it is known what policies here ask for: what is pinned stays in force.
    /// The first time then whatever the state says, and nothing else, is in the tables afterwards.
    pub(super) fn apply(&mut self, state: &mut State) {
        let Some(changes) = state.take_policy_update() else { return };
        let has_policies = state.policy().has_policies();
        let is_news = !changes.peers.is_empty() || !changes.workloads.is_empty();
        // Most batches are about Services alone.
        if is_news || has_policies != self.rows.is_on() || !self.rows.has_begun() {
            let update = self.compiler.update(state.policy(), &changes);
            self.rows.apply(update, has_policies, &mut self.store);
        }
    }

    /// Takes in who is behind which device.
    pub(super) fn set_places(&mut self, places: &Places) {
        self.rows.set_free(places.free());
        self.rows.set_workloads(places.workloads(), places.trusted(), &mut self.store);
    }

    /// Whether it is known what is true.
    pub(super) fn has_begun(&self) -> bool {
        self.rows.has_begun()
    }

    /// Whether policies are in force.
    pub(super) fn is_on(&self) -> bool {
        self.rows.is_on()
    }

    /// What is in force.
    pub(super) fn tell(&self, report: &mut PolicyReport) {
        report.is_on = self.rows.is_on();
        (report.pods, report.isolated) = (self.rows.bound(), self.rows.isolated());
    }

    /// What of them is in the tables.
    pub(super) const fn rows(&self) -> &PolicyRows {
        &self.rows
    }

    pub(super) fn take_retired(&mut self) -> Option<RetiredPolicy> {
        self.rows.take_retired()
    }

    pub(super) fn release(&mut self, retired: RetiredPolicy) {
        self.rows.release(retired, &mut self.store);
    }

    pub(super) fn has_refused(&self) -> bool {
        self.rows.has_refused()
    }

    pub(super) fn retry(&mut self) {
        self.rows.retry(&mut self.store);
    }

    pub(super) fn take_problems_changed(&mut self) -> bool {
        self.rows.take_problems_changed()
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        self.rows.problems()
    }

    /// The policies that are not wholly in force for want of rows.
    pub(super) fn lacking(&self, state: &State) -> BTreeMap<ObjectRef, Problem> {
        let mut found = BTreeMap::new();
        for addr in self.rows.lacking(|ports| self.compiler.sets_with(ports)) {
            let Some(pod) = state.policy().workload(addr) else { continue };
            for policy in policies_of(state, &pod) {
                found.entry(policy).or_insert_with(|| problem_of(&pod));
            }
        }
        found
    }
}

/// Those that select a pod.
fn policies_of(state: &State, pod: &PodView<'_>) -> Vec<ObjectRef> {
    let named = state.policy().named_policies(pod.namespace);
    let named = named.filter(|(_, policy)| policy.pods.matches(&pod.pod.labels)).map(|(name, _)| ObjectRef {
        kind: "NetworkPolicy",
        namespace: pod.namespace.clone(),
        name: name.clone(),
    });
    let of_cluster = state.policy().cluster_policies(pod).into_iter().map(|one| ObjectRef {
        kind: "ClusterNetworkPolicy",
        namespace: "".into(),
        name: one.name.clone(),
    });
    named.chain(of_cluster).collect()
}

fn problem_of(pod: &PodView<'_>) -> Problem {
    Problem {
        field: "spec".into(),
        message: format!(
            "it is not wholly in force: a table has no room for what the policies of {}/{} say together (the Node's problems \
             name it); they allow less than they say until there is",
            pod.namespace, pod.name
        ),
    }
}
