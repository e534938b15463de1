//! `netpol-e2e.json` and `gaps.json`: NetworkPolicies, step by step, against the reference evaluator and against compiled
//! tables.
//!
//! A verdict is judged in each family that its case is about, and by tables in two places: with all pods on one node, and with
//! each on a node of its own. All of them have to agree.

mod format;

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;
use weir_agent::source::Protocol;

use self::format::{Action, Case, ContainerRow, NamespaceRow, PodRow, Step, Verdict, Verdicts};
use super::tally::{Outcome, Tally};
use weir_policy::reference::{self, Answer, Ruling};
use weir_policy::{Cluster, Flow, Name, Node, Placement};

pub use self::format::File;

/// What answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judge {
    /// The objects themselves.
    Reference,
    /// Compiled tables and the decision of the datapath.
    Tables,
}

/// What became of a file.
#[derive(Debug)]
pub struct Judged {
    /// Each verdict under case, step and flow.
    pub tally: Tally,
    /// How many of them are about a pod that reaches itself: compared by what rules say, though nothing keeps a pod from itself.
    pub of_itself: usize,
}

/// How many verdicts the file has.
#[must_use]
pub fn count_verdicts(file: &File) -> usize {
    let steps = file.cases.iter().flat_map(|case| &case.steps);
    steps.flat_map(|step| step.expected.values()).filter(|verdict| **verdict != Verdict::Ignored).count()
}

/// Judges every verdict.
///
/// # Errors
/// The file is not as its README says.
pub fn judge(file: &File, judge: Judge) -> anyhow::Result<Judged> {
    let mut judged = Judged { tally: Tally::default(), of_itself: 0 };
    for case in &file.cases {
        judge_case(file, case, judge, &mut judged).with_context(|| case.name.clone())?;
    }
    Ok(judged)
}

/// The file with every verdict of one kind turned round: all of them, those of ingress, those of egress. A harness that works
/// fails every one.
#[must_use]
pub fn altered(file: &File) -> Vec<File> {
    let kinds: [fn(&mut Step) -> Option<&mut Verdicts>; 3] =
        [|step| Some(&mut step.expected), |step| step.ingress.as_mut(), |step| step.egress.as_mut()];
    let turned = kinds.iter().filter_map(|kind| {
        let mut file = file.clone();
        let steps = file.cases.iter_mut().flat_map(|case| &mut case.steps);
        let verdicts: Vec<_> = steps.filter_map(kind).flat_map(BTreeMap::values_mut).collect();
        let any = !verdicts.is_empty();
        for verdict in verdicts {
            *verdict = match verdict {
                Verdict::Allowed => Verdict::Blocked,
                Verdict::Blocked => Verdict::Allowed,
                Verdict::Ignored => Verdict::Ignored,
            };
        }
        any.then_some(file)
    });
    turned.collect()
}

/// The cluster as the steps make it, and who else has an address.
#[derive(Default)]
struct World {
    cluster: Cluster,
    /// The addresses of pods and of others, by family.
    addresses: BTreeMap<String, [IpAddr; 2]>,
    nodes: BTreeMap<Name, Node>,
    one_node: Option<Node>,
}

fn judge_case(file: &File, case: &Case, judge: Judge, judged: &mut Judged) -> anyhow::Result<()> {
    let initial = case.initial.as_ref().or(file.initial.as_ref()).context("a case without a beginning")?;
    let mut world = World::default();
    for namespace in &initial.namespaces {
        world.put_namespace(namespace)?;
    }
    for pod in &initial.pods {
        world.put_pod(pod)?;
    }
    let families = families(case)?;
    for (n, step) in case.steps.iter().enumerate() {
        for action in &step.actions {
            world.act(action)?;
        }
        if judge == Judge::Tables {
            world.sync()?;
        }
        let name = format!("{} {}, step {}", case.suite, case.name, n + 1);
        for (key, verdict) in step.expected.iter().filter(|(_, verdict)| **verdict != Verdict::Ignored) {
            let expected = Expected {
                both: *verdict,
                ingress: step.ingress.as_ref().map(|of| of[key]),
                egress: step.egress.as_ref().map(|of| of[key]),
            };
            let outcome = world.judge_verdict(step, key, &expected, families, judge, judged)?;
            judged.tally.add(format!("{}: {key}", name.trim_start()), outcome);
        }
    }
    Ok(())
}

/// As places in [`World::addresses`]. Where nothing is said, of both; but blocks are written for IPv4.
fn families(case: &Case) -> anyhow::Result<&'static [usize]> {
    let has_block = |policy: &NetworkPolicy| {
        let spec = policy.spec.clone().unwrap_or_default();
        let from =
            spec.ingress.unwrap_or_default().into_iter().flat_map(|rule| rule.from.unwrap_or_default());
        let to = spec.egress.unwrap_or_default().into_iter().flat_map(|rule| rule.to.unwrap_or_default());
        from.chain(to).any(|peer| peer.ip_block.is_some())
    };
    let mut actions = case.steps.iter().flat_map(|step| &step.actions);
    let blocks = actions.any(|action| match action {
        Action::CreatePolicy(policy) | Action::UpdatePolicy(policy) => has_block(policy),
        _ => false,
    });
    Ok(match case.ip_family.as_deref() {
        Some("any") => &[0, 1],
        Some("IPv4") => &[0],
        Some("IPv6") => &[1],
        None if blocks => &[0],
        None => &[0, 1],
        Some(other) => bail!("{other} is no family"),
    })
}

/// What a step says of one flow.
struct Expected {
    both: Verdict,
    ingress: Option<Verdict>,
    egress: Option<Verdict>,
}

impl Expected {
    /// How what was found is not this.
    fn contradiction(&self, found: Answer) -> Option<String> {
        let is = |passes: bool| if passes { Verdict::Allowed } else { Verdict::Blocked };
        let (ingress, egress) = (is(found.ingress.passes()), is(found.egress.passes()));
        let both = is(found.passes());
        let same = both == self.both
            && self.ingress.is_none_or(|expected| expected == ingress)
            && self.egress.is_none_or(|expected| expected == egress);
        (!same).then(|| {
            format!("found {both:?} (ingress {ingress:?}, egress {egress:?}), expected {:?}", self.both)
        })
    }
}

impl World {
    fn judge_verdict(
        &self,
        step: &Step,
        key: &str,
        expected: &Expected,
        families: &[usize],
        judge: Judge,
        judged: &mut Judged,
    ) -> anyhow::Result<Outcome> {
        let (ends, port) = key.split_once(" : ").context("no flow")?;
        let (source, dest) = ends.split_once(" -> ").context("no flow")?;
        let (protocol, port) = port.split_once('/').context("no port")?;
        let port = port.parse()?;
        ensure!(step.probe.asks(protocol, port), "{key} is not what is probed");
        judged.of_itself += usize::from(source == dest);
        for family in families {
            let addr = |name: &str| {
                self.addresses.get(name).map(|of| of[*family]).with_context(|| format!("no {name}"))
            };
            let protocol = Some(parse_protocol(protocol)?);
            let flow = Flow { source: addr(source)?, dest: addr(dest)?, protocol, port };
            for found in self.ask(&flow, source, dest, judge)? {
                if let Some(how) = expected.contradiction(found) {
                    return Ok(Outcome::Failed(format!("{flow}: {how}")));
                }
            }
        }
        Ok(Outcome::Passed)
    }

    fn ask(&self, flow: &Flow, source: &str, dest: &str, judge: Judge) -> anyhow::Result<Vec<Answer>> {
        if judge == Judge::Reference {
            return Ok(vec![reference::judge(&self.cluster, flow)]);
        }
        let one_node = self.one_node.as_ref().context("no node")?;
        let together = one_node.judge(flow);
        let whole = one_node.passes(flow);
        ensure!(
            whole == (source == dest || together.passes()),
            "{flow}: {whole} in all, by the rules {together:?}"
        );
        ensure!(one_node.passes_hooks(flow) == whole, "{flow}: {whole} by the rules, and not at the hooks");
        // What is no pod has no node, and nobody to ask.
        let at = |end: &str| self.nodes.get(&split(end)?).map(|node| node.judge(flow));
        let apart = Answer {
            egress: at(source).map_or(Ruling::Allowed, |answer| answer.egress),
            ingress: at(dest).map_or(Ruling::Allowed, |answer| answer.ingress),
        };
        Ok(vec![together, apart])
    }

    fn act(&mut self, action: &Action) -> anyhow::Result<()> {
        match action {
            Action::CreatePolicy(policy) | Action::UpdatePolicy(policy) => {
                let meta = policy.metadata.clone();
                let name = (meta.namespace.context("no namespace")?, meta.name.context("no name")?);
                self.cluster.policies.insert(name, policy.clone());
            }
            Action::DeletePolicy(row) => {
                let removed = self.cluster.policies.remove(&(row.namespace.clone(), row.name.clone()));
                ensure!(removed.is_some(), "no policy {row:?}");
            }
            Action::CreateNamespace(row) | Action::SetNamespaceLabels(row) => self.put_namespace(row)?,
            Action::DeleteNamespace(row) => self.cluster.delete_namespace(&row.name),
            Action::CreatePod(row) => self.put_pod(row)?,
            Action::SetPodLabels(row) => {
                let pod = self.cluster.pods.get_mut(&(row.namespace.clone(), row.name.clone()));
                pod.with_context(|| format!("no pod {row:?}"))?.metadata.labels = Some(row.labels.clone());
            }
            Action::DeletePod(row) => {
                let removed = self.cluster.pods.remove(&(row.namespace.clone(), row.name.clone()));
                ensure!(removed.is_some(), "no pod {row:?}");
            }
            Action::AddExternal(row) => drop(self.addresses.insert(full_name(row), [row.ip, row.ip6])),
        }
        Ok(())
    }

    fn put_namespace(&mut self, row: &NamespaceRow) -> anyhow::Result<()> {
        let namespace =
            serde_json::from_value(json!({"metadata": {"name": row.name, "labels": row.labels}}))?;
        self.cluster.namespaces.insert(row.name.clone(), namespace);
        Ok(())
    }

    fn put_pod(&mut self, row: &PodRow) -> anyhow::Result<()> {
        let containers = row.containers.iter().map(|container| {
            let ContainerRow { name, port, protocol, port_name } = container;
            json!({"name": name, "ports": [{"containerPort": port, "protocol": protocol, "name": port_name}]})
        });
        let pod: core::Pod = serde_json::from_value(json!({
            "metadata": {"namespace": row.namespace, "name": row.name, "labels": row.labels},
            "spec": {"containers": containers.collect::<Vec<_>>()},
            "status": {"phase": "Running", "podIP": row.ip, "podIPs": [{"ip": row.ip}, {"ip": row.ip6}]},
        }))?;
        self.addresses.insert(full_name(row), [row.ip, row.ip6]);
        self.cluster.pods.insert((row.namespace.clone(), row.name.clone()), pod);
        Ok(())
    }

    /// Brings every node up to date.
    fn sync(&mut self) -> anyhow::Result<()> {
        let one_node = self.one_node.get_or_insert_with(|| Node::new(Placement::All));
        self.nodes.retain(|name, _| self.cluster.pods.contains_key(name));
        for name in self.cluster.pods.keys() {
            let node = self.nodes.entry(name.clone());
            node.or_insert_with(|| Node::new(Placement::One(name.clone())));
        }
        for node in self.nodes.values_mut().chain([one_node]) {
            node.sync(&self.cluster);
            ensure!(node.problems().is_empty(), "{:?}", node.problems());
        }
        Ok(())
    }
}

fn full_name(row: &PodRow) -> String {
    format!("{}/{}", row.namespace, row.name)
}

fn split(name: &str) -> Option<Name> {
    let (namespace, name) = name.split_once('/')?;
    Some((namespace.to_owned(), name.to_owned()))
}

fn parse_protocol(name: &str) -> anyhow::Result<Protocol> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    all.into_iter().find(|protocol| protocol.name() == name).with_context(|| format!("{name} is no protocol"))
}
