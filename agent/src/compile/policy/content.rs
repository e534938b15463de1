//! What a policy set says: tiers of rules in their order around what NetworkPolicies allow.
//!
//! Semantics: the API's comments on `tier` and `action` of policy.networking.k8s.io/v1alpha2; of audited policies,
//! ARCHITECTURE.md.

use std::collections::BTreeSet;

use super::names::Fingerprint;
use super::ports::{ByPort, Ports, Verdict};
use super::rule::{Admits, AtomId, Mark, Rule, union_ports};
use crate::source::RuleAction;

/// See the module. Two that say the same in the same words are equal; so are many that say it in others.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Content {
    admin: Vec<Step>,
    isolation: Isolation,
    /// Of NetworkPolicies, in order, each once.
    rules: Vec<Rule>,
    baseline: Vec<Step>,
}

/// What NetworkPolicies make of a pod.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) enum Isolation {
    /// None selects it.
    #[default]
    None,
    /// Only such as are audited.
    Audited,
    /// One does that is enforced: what no rule allows is denied.
    Enforced,
}

/// A step of a tier. The first that decides counts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Step {
    Rule(RuleAction, Rule),
    /// A policy that is audited: it decides nothing; what it would deny is told.
    Audit(Vec<(RuleAction, Rule)>),
}

impl Content {
    /// Without what makes no difference.
    pub(super) fn new(
        mut admin: Vec<Step>,
        mut isolation: Isolation,
        mut rules: Vec<Rule>,
        mut baseline: Vec<Step>,
    ) -> Self {
        rules.retain(|rule| !rule.is_void());
        if rules.iter().any(Rule::is_open) {
            // Nothing is denied; but one that is enforced has decided.
            baseline.retain(|_| isolation != Isolation::Enforced);
            isolation = Isolation::None;
        }
        trim(&mut admin);
        let passes = |step: &Step| matches!(step, Step::Rule(RuleAction::Pass, _));
        if admin.last().is_some_and(decides_all) && !admin.iter().any(passes) {
            isolation = Isolation::None;
            baseline.clear();
        }
        if isolation == Isolation::Enforced {
            baseline.clear();
        }
        if isolation == Isolation::None {
            rules.clear();
        }
        trim(&mut baseline);
        trim_accepts(&mut baseline);
        if baseline.is_empty() && isolation == Isolation::None {
            trim_accepts(&mut admin);
        }
        rules.sort_unstable();
        rules.dedup();
        Self { admin, isolation, rules, baseline }
    }

    /// Whether everything is allowed to everybody, and nobody audits anything.
    pub(super) fn is_open(&self) -> bool {
        self.admin.is_empty() && self.isolation == Isolation::None && self.baseline.is_empty()
    }

    /// Whether nothing is allowed to anybody.
    pub(super) fn is_closed(&self) -> bool {
        match &*self.admin {
            [] => self.isolation == Isolation::Enforced && self.rules.is_empty(),
            [Step::Rule(RuleAction::Deny, rule)] => rule.is_open(),
            _ => false,
        }
    }

    /// Whether somebody may be allowed more when one of his atoms is not seen.
    pub(super) fn is_exact(&self) -> bool {
        let is_exact = |step: &Step| match step {
            Step::Rule(action, _) => *action != RuleAction::Accept,
            Step::Audit(_) => false,
        };
        self.admin.iter().chain(&self.baseline).any(is_exact)
    }

    /// Whether anything may be denied by it. `is_sure`: whether it is always known whom an atom matches; by a rule that passes
    /// others may be denied.
    pub(super) fn may_deny(&self, is_sure: impl Fn(AtomId) -> bool) -> bool {
        let may_deny = |step: &Step| match step {
            Step::Rule(RuleAction::Deny, _) => true,
            Step::Rule(RuleAction::Pass, rule) => !rule.peers.iter().flatten().all(|peer| is_sure(*peer)),
            Step::Rule(RuleAction::Accept, _) | Step::Audit(_) => false,
        };
        self.isolation == Isolation::Enforced || self.admin.iter().chain(&self.baseline).any(may_deny)
    }

    /// Each atom that decides about it, once.
    pub(super) fn atoms(&self) -> BTreeSet<AtomId> {
        let steps = self.admin.iter().chain(&self.baseline);
        let of_steps = steps.flat_map(|step| match step {
            Step::Rule(_, rule) => vec![rule],
            Step::Audit(rules) => rules.iter().map(|(_, rule)| rule).collect(),
        });
        of_steps.chain(&self.rules).flat_map(Rule::atoms).collect()
    }

    /// What whoever has these marks may use.
    pub(super) fn compile_ports(&self, marks: &[Mark]) -> Ports {
        let after = compile_tier(&self.baseline, marks, Ports::all(Verdict::Allow));
        let allowed = || union_ports(self.rules.iter(), marks);
        let policies = match self.isolation {
            Isolation::None => after,
            Isolation::Enforced => allowed()
                .zip(&ByPort::all(()), |allowed, ()| if allowed { Verdict::Allow } else { Verdict::Deny }),
            // They decide nothing.
            Isolation::Audited => {
                allowed().zip(&after, |allowed, after| if allowed { after } else { after.audited() })
            }
        };
        compile_tier(&self.admin, marks, policies)
    }

    /// What it says, with the names of atoms in place of their numbers.
    pub(super) fn name(&self, atom: &impl Fn(AtomId) -> Option<Fingerprint>) -> Fingerprint {
        let rule = |rule: &Rule| rule.name(atom);
        let step = |step: &Step| match step {
            Step::Rule(action, one) => Fingerprint::of(&format!("{action:?} {:?}", rule(one))),
            Step::Audit(rules) => {
                let rules: Vec<_> = rules.iter().map(|(action, one)| (action, rule(one))).collect();
                Fingerprint::of(&format!("audit {rules:?}"))
            }
        };
        let [admin, baseline] =
            [&self.admin, &self.baseline].map(|tier| tier.iter().map(step).collect::<Vec<_>>());
        let rules = Fingerprint::of_all("rules", self.rules.iter().map(rule));
        Fingerprint::of(&format!("set {admin:?} {:?} {rules:?} {baseline:?}", self.isolation))
    }
}

impl AsRef<Self> for Content {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Takes out what is about nobody, and what comes after a rule that is about everybody.
fn trim(tier: &mut Vec<Step>) {
    for step in tier.iter_mut() {
        if let Step::Audit(rules) = step {
            rules.retain(|(_, rule)| !rule.is_void());
            if let Some(last) = rules.iter().position(|(_, rule)| rule.is_open()) {
                rules.truncate(last + 1);
            }
            let last = rules.iter().rposition(|(action, _)| *action != RuleAction::Accept);
            rules.truncate(last.map_or(0, |last| last + 1));
        }
    }
    tier.retain(|step| match step {
        Step::Rule(_, rule) => !rule.is_void(),
        Step::Audit(rules) => !rules.is_empty(),
    });
    if let Some(last) = tier.iter().position(decides_all) {
        tier.truncate(last + 1);
    }
}

/// Whether no step after it is asked.
fn decides_all(step: &Step) -> bool {
    matches!(step, Step::Rule(_, rule) if rule.is_open())
}

/// What accepts at the end of a tier behind which everything is allowed.
fn trim_accepts(tier: &mut Vec<Step>) {
    while matches!(tier.last(), Some(Step::Rule(RuleAction::Accept, _))) {
        tier.pop();
    }
}

/// From the last step to the first, each over what comes after it. `next`: what comes after the tier. Of a rule that may be
/// about somebody or not, the stricter of both holds; between passing and not there is no telling which that is: it denies.
fn compile_tier(tier: &[Step], marks: &[Mark], next: Ports) -> Ports {
    let mut ports = next.clone();
    for step in tier.iter().rev() {
        match step {
            Step::Rule(action, rule) => {
                let verdict = match (rule.admits(marks), action) {
                    (Admits::No, _) | (Admits::Perhaps, RuleAction::Accept) => continue,
                    (Admits::Yes, RuleAction::Accept) => ByPort::all(Verdict::Allow),
                    (Admits::Yes, RuleAction::Pass) => next.clone(),
                    (Admits::Yes, RuleAction::Deny)
                    | (Admits::Perhaps, RuleAction::Deny | RuleAction::Pass) => ByPort::all(Verdict::Deny),
                };
                ports = rule.ports(marks, *action == RuleAction::Deny).choose(&verdict, &ports);
            }
            Step::Audit(rules) => {
                let denied = compile_audited(rules, marks);
                ports = denied.zip(&ports, |denied, after| if denied { after.audited() } else { after });
            }
        }
    }
    ports
}

/// What an audited policy would deny: that of which its first rule that is about it denies.
fn compile_audited(rules: &[(RuleAction, Rule)], marks: &[Mark]) -> ByPort<bool> {
    let mut denied = ByPort::all(false);
    for (action, rule) in rules.iter().rev() {
        let denies = match (rule.admits(marks), action) {
            (Admits::No, _) | (Admits::Perhaps, RuleAction::Accept) => continue,
            (Admits::Yes, action) => *action == RuleAction::Deny,
            (Admits::Perhaps, RuleAction::Deny | RuleAction::Pass) => true,
        };
        denied = rule.ports(marks, *action == RuleAction::Deny).choose(&ByPort::all(denies), &denied);
    }
    denied
}
