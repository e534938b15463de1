//! The policy compiler: a cluster that comes into being and changes. After each change the compiled tables say what an evaluator
//! says that reads the objects for every question; between two writes they say what was true before or is afterwards; and an
//! agent that starts anew finds everything as it is.

mod objects;

use std::collections::BTreeSet;
use std::net::IpAddr;

use arbitrary::{Arbitrary, Unstructured};
use serde::de::DeserializeOwned;
use serde_json::Value;
use weir_agent::source::Protocol;
use weir_tests::policy::node::{judge_by, write};
use weir_tests::policy::reference::{self, Answer, Ruling};
use weir_tests::policy::{Cluster, Flow, Node, Placement};

use self::objects::{Labels, OUTSIDE, POOL, Pod, Policy, name, namespace};

/// The most batches, and changes in one.
const MOST_BATCHES: usize = 6;
const MOST_CHANGES: usize = 6;
/// Protocols and ports that are asked about.
const PORTS: [(Option<Protocol>, u16); 8] = [
    (Some(Protocol::Tcp), 80),
    (Some(Protocol::Udp), 53),
    (Some(Protocol::Tcp), 8080),
    (None, 0),
    (Some(Protocol::Sctp), 80),
    (Some(Protocol::Tcp), 79),
    (Some(Protocol::Tcp), 65_535),
    (Some(Protocol::Udp), 8081),
];

#[derive(Arbitrary, Debug)]
struct Story {
    batches: Vec<Vec<Change>>,
}

#[derive(Arbitrary, Clone, Debug)]
enum Change {
    Namespace(u8, Labels),
    NoNamespace(u8),
    Pod(u8, u8, Pod),
    NoPod(u8, u8),
    Policy(u8, u8, Policy),
    NoPolicy(u8, u8),
}

impl Change {
    fn apply(&self, cluster: &mut Cluster) {
        let key = |space: u8, own: u8| (namespace(space).to_owned(), name(own).to_owned());
        match self {
            Self::Namespace(space, labels) => {
                let space = namespace(*space);
                cluster.namespaces.insert(space.to_owned(), from(labels.namespace(space)));
            }
            Self::NoNamespace(space) => drop(cluster.namespaces.remove(namespace(*space))),
            Self::Pod(space, own, pod) => {
                let object = from(pod.value(namespace(*space), name(*own)));
                cluster.pods.insert(key(*space, *own), object);
            }
            Self::NoPod(space, own) => drop(cluster.pods.remove(&key(*space, *own))),
            Self::Policy(space, own, policy) => {
                let object = from(policy.value(namespace(*space), name(*own)));
                cluster.policies.insert(key(*space, *own), object);
            }
            Self::NoPolicy(space, own) => drop(cluster.policies.remove(&key(*space, *own))),
        }
    }
}

fn from<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object of its kind")
}

pub(crate) fn run(data: &[u8]) {
    let Ok(story) = Story::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut cluster = Cluster::default();
    let mut node = Node::new(Placement::Named("here".into()));
    for (at, batch) in story.batches.iter().take(MOST_BATCHES).enumerate() {
        let (before, mut tables) = (cluster.clone(), node.tables.clone());
        batch.iter().take(MOST_CHANGES).for_each(|change| change.apply(&mut cluster));
        let update = node.sync(&cluster);
        let flows: Vec<Flow> = flows(at).collect();
        let answers: Vec<Answer> = flows.iter().map(|flow| answer(&cluster, flow)).collect();
        for ((flow, expected), at_hooks) in flows.iter().zip(&answers).zip(node.pass_hooks(&flows)) {
            assert_eq!(node.judge(flow), *expected, "batch {at}: {flow}");
            assert_eq!(at_hooks, node.passes(flow), "batch {at}: {flow} at the hooks");
        }
        if batch.len() == 1 {
            let steady: Vec<_> = flows
                .iter()
                .zip(answers)
                .filter(|(flow, _)| !is_one_pod(&before, &cluster, flow))
                .map(|(flow, after)| (flow, answer(&before, flow), after))
                .filter(|(_, before, after)| before.egress == after.egress || before.ingress == after.ingress)
                .collect();
            for change in &update.changes {
                write(&mut tables, change);
                for (flow, before, after) in &steady {
                    let found = judge_by(&tables, flow);
                    let egress = found.egress == before.egress || found.egress == after.egress;
                    let ingress = found.ingress == before.ingress || found.ingress == after.ingress;
                    assert!(egress && ingress, "batch {at}, after {change:?}: {flow}: {found:?}");
                }
            }
        }
        let (desired, update) = node.restart(&cluster);
        assert_eq!(desired, node.tables, "batch {at}: after a restart");
        assert!(update.garbage.is_empty(), "batch {at}: after a restart {:?}", update.garbage);
    }
}

/// What this node has to say: an end that is no pod of its own is not its to judge.
fn answer(cluster: &Cluster, flow: &Flow) -> Answer {
    let is_here = |addr: IpAddr| {
        let pod = reference::pod_at(cluster, addr);
        pod.is_some_and(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some("here"))
    };
    let all = reference::judge(cluster, flow);
    let of = |is_here: bool, ruling| if is_here { ruling } else { Ruling::Allowed };
    Answer { egress: of(is_here(flow.source), all.egress), ingress: of(is_here(flow.dest), all.ingress) }
}

/// Some flows between all pairs of addresses of one family.
fn flows(state: usize) -> impl Iterator<Item = Flow> {
    let all: Vec<IpAddr> =
        POOL.iter().chain(&OUTSIDE).map(|text| text.parse().expect("an address")).collect();
    let pairs: Vec<_> = all.iter().flat_map(|source| all.iter().map(move |dest| (*source, *dest))).collect();
    let pairs = pairs.into_iter().filter(|(source, dest)| source.is_ipv4() == dest.is_ipv4());
    pairs.enumerate().map(move |(at, (source, dest))| {
        let (protocol, port) = PORTS[(at + state) % PORTS.len()];
        Flow { source, dest, protocol, port }
    })
}

/// Whether both ends are, or were, addresses of one pod: what it may and who it is change together there.
fn is_one_pod(before: &Cluster, after: &Cluster, flow: &Flow) -> bool {
    let names = |addr: IpAddr| -> BTreeSet<String> {
        let pods = [before, after].into_iter().filter_map(|cluster| reference::pod_at(cluster, addr));
        pods.map(|pod| format!("{:?}/{:?}", pod.metadata.namespace, pod.metadata.name)).collect()
    };
    !names(flow.source).is_disjoint(&names(flow.dest))
}
