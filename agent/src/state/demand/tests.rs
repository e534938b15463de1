//! What is asked for by named rules, at the borders, and after random histories.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use proptest::prelude::*;

use super::super::PolicyState;
use super::*;
use crate::source::{
    ClusterNetworkPolicy, ClusterRule, IpBlock, Namespace, NetworkPolicy, Pod, PolicyModes, PolicyPeer,
    PolicyPort, PolicyRule, Protocol, Requirement, RuleAction, RuleLabel, Subject, Test, Tier,
};

const HERE: &str = "here";

fn selector(key: &str, value: &str) -> Selector {
    Selector::from_iter([Requirement { key: key.into(), test: Test::In([value.into()].into()) }])
}

fn labels(key: &str, value: &str) -> Labels {
    Labels::from_iter([(key.into(), value.into())])
}

fn pod(node: &str, app: &str) -> Option<Pod> {
    Some(Pod { labels: labels("app", app), node: Some(node.into()), ..Pod::default() })
}

fn peer(namespaces: Option<Selector>) -> PolicyPeer {
    PolicyPeer::Pods { namespaces, pods: Selector::default() }
}

fn anywhere() -> PolicyPeer {
    PolicyPeer::Block(IpBlock { cidr: "0.0.0.0/0".parse().unwrap(), except: Box::default() })
}

fn rule(peers: Option<Vec<PolicyPeer>>, named: bool) -> PolicyRule {
    let port = PolicyPort::Named { protocol: Protocol::Tcp, name: "http".into() };
    PolicyRule { peers: peers.map(Into::into), ports: named.then(|| [port].into()) }
}

/// A policy for pods of this app.
fn policy(app: &str, ingress: Vec<PolicyRule>, egress: Vec<PolicyRule>) -> Option<NetworkPolicy> {
    let pods = selector("app", app);
    Some(NetworkPolicy {
        pods,
        ingress: Some(ingress.into()),
        egress: Some(egress.into()),
        modes: PolicyModes::default(),
    })
}

/// A policy without a namespace that denies what a rule says.
fn cluster_policy(subject: Subject, rule: PolicyRule, egress: bool) -> ClusterNetworkPolicy {
    let PolicyRule { peers, ports } = rule;
    let rules = |is: bool| {
        if is {
            [ClusterRule {
                label: RuleLabel::default(),
                action: RuleAction::Deny,
                peers: peers.clone(),
                ports: ports.clone(),
            }]
            .into()
        } else {
            Box::default()
        }
    };
    ClusterNetworkPolicy {
        tier: Tier::Admin,
        priority: 1,
        subject,
        ingress: rules(!egress),
        egress: rules(egress),
        modes: PolicyModes::default(),
    }
}

fn of(names: &[&str]) -> PodDemand {
    PodDemand::Of(names.iter().map(|name| Arc::from(*name)).collect())
}

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(namespace, name)
}

#[test]
fn what_each_rule_asks_for() {
    let team = || peer(Some(selector("team", "t")));
    let demand = |namespaces, pods| PolicyDemand { namespaces, pods };
    let nothing = PolicyDemand::default;
    let own = || NamespaceDemand::Of(["ns".into()].into());
    let (none, all) = (|| demand(own(), of(&[])), || demand(own(), PodDemand::All));
    for (ingress, egress, expected) in [
        (vec![], vec![], none()),
        (vec![rule(None, true)], vec![rule(None, false)], none()),
        (vec![rule(Some(vec![anywhere()]), true)], vec![rule(Some(vec![anywhere()]), false)], none()),
        (vec![rule(Some(vec![peer(None)]), false)], vec![], demand(own(), of(&["ns"]))),
        (vec![], vec![rule(Some(vec![peer(None)]), true)], demand(own(), of(&["ns"]))),
        (vec![rule(Some(vec![team()]), true)], vec![], demand(NamespaceDemand::All, of(&["a", "b"]))),
        (
            vec![rule(Some(vec![team(), peer(None)]), true)],
            vec![],
            demand(NamespaceDemand::All, of(&["a", "b", "ns"])),
        ),
        (vec![rule(Some(vec![peer(Some(Selector::default()))]), false)], vec![], PolicyDemand::ALL),
        // Whatever it leads to may have a port of that name.
        (vec![], vec![rule(None, true)], all()),
        (vec![], vec![rule(Some(vec![anywhere()]), true)], all()),
        (vec![], vec![rule(Some(vec![]), true)], none()),
    ] {
        let mut state = PolicyState::new(HERE.into());
        for (name, team) in [("a", "t"), ("b", "t"), ("c", "u"), ("ns", "u")] {
            state.apply_namespace(
                &name.into(),
                Some(Namespace { labels: labels("team", team), ..Namespace::default() }),
            );
        }
        state.apply_policy(&key("ns", "p"), policy("x", ingress, egress));
        assert_eq!(state.demand(), nothing(), "it selects nobody");
        for (namespace, node, app) in [("ns", "there", "x"), ("ns", HERE, "y"), ("other", HERE, "x")] {
            state.apply_pod(&key(namespace, app), pod(node, app));
            assert_eq!(state.demand(), nothing(), "it selects nobody here");
        }
        state.apply_pod(&key("ns", "pod"), pod(HERE, "x"));
        assert_eq!(state.demand(), expected);
        state.apply_pod(&key("ns", "pod"), pod(HERE, "y"));
        assert_eq!(state.demand(), nothing(), "no more");
    }
}

#[test]
fn many_namespaces_are_watched_at_once_until_they_are_few() {
    let mut state = PolicyState::new(HERE.into());
    state.apply_pod(&key("ns", "pod"), pod(HERE, "x"));
    let team = rule(Some(vec![peer(Some(selector("team", "t")))]), false);
    state.apply_policy(&key("ns", "p"), policy("x", vec![team], vec![]));
    let mut set = |number: usize, exists: bool| {
        let namespace = exists.then(|| Namespace { labels: labels("team", "t"), ..Namespace::default() });
        state.apply_namespace(&format!("ns-{number}").into(), namespace);
        match state.demand().pods {
            PodDemand::All => None,
            PodDemand::Of(names) => Some(names.len()),
        }
    };
    (0..NARROW).for_each(|number| assert_eq!(set(number, true), Some(number + 1)));
    assert_eq!(set(NARROW, true), None);
    let borders: Vec<_> = (NARROW_AGAIN..=NARROW).rev().map(|number| set(number, false)).collect();
    let (last, before) = borders.split_last().unwrap();
    assert!(before.iter().all(Option::is_none), "{before:?}");
    assert_eq!(*last, Some(NARROW_AGAIN));
    assert_eq!(set(NARROW_AGAIN, true), Some(NARROW_AGAIN + 1), "and it stays so");
}

#[test]
fn a_policy_that_asks_whose_a_pod_is_asks_for_the_namespaces_of_the_pods_here() {
    let mut state = PolicyState::new(HERE.into());
    let put = |state: &mut PolicyState, number: usize, is_here: bool| {
        let pod = if is_here { pod(HERE, "x") } else { None };
        state.apply_pod(&key(&format!("ns-{number}"), "pod"), pod);
    };
    (0..2).for_each(|number| put(&mut state, number, true));
    let subject = |namespaces| Subject { namespaces, pods: Selector::default() };
    let to_world = || rule(Some(vec![anywhere()]), false);
    state.apply_cluster_policy(
        &"p".into(),
        Some(cluster_policy(subject(Selector::default()), to_world(), true)),
    );
    assert_eq!(state.demand(), PolicyDemand::default(), "it is for all pods, whatever their namespaces are");
    state.apply_cluster_policy(
        &"p".into(),
        Some(cluster_policy(subject(selector("team", "t")), to_world(), true)),
    );
    let asked = |state: &PolicyState| match state.demand().namespaces {
        NamespaceDemand::All => None,
        NamespaceDemand::Of(names) => Some(names.len()),
    };
    assert_eq!(asked(&state), Some(2));
    (2..NARROW_NAMESPACES).for_each(|number| put(&mut state, number, true));
    assert_eq!(asked(&state), Some(NARROW_NAMESPACES));
    put(&mut state, NARROW_NAMESPACES, true);
    assert_eq!(asked(&state), None);
    put(&mut state, 0, false);
    assert_eq!(asked(&state), None, "not at each step over one border");
    (1..=NARROW_NAMESPACES - NARROW_NAMESPACES_AGAIN).for_each(|number| put(&mut state, number, false));
    assert_eq!(asked(&state), Some(NARROW_NAMESPACES_AGAIN));
    state.apply_cluster_policy(&"p".into(), None);
    assert_eq!(state.demand(), PolicyDemand::default());
}

/// What it costs in a large cluster: 10,000 policies, each of 100 namespaces has a hundred; one namespaceSelector in ten is
/// another one; 1,000 namespaces in all; 110 pods here. A figure of the build that runs it.
#[test]
fn ten_thousand_policies() {
    let mut state = PolicyState::new(HERE.into());
    let begun = Instant::now();
    for number in 0..1_000 {
        let team = (number % 50).to_string();
        state.apply_namespace(
            &format!("ns-{number}").into(),
            Some(Namespace { labels: labels("team", &team), ..Namespace::default() }),
        );
    }
    for number in 0..10_000 {
        let (at, app) = (format!("ns-{}", number % 100), (number / 100 % 10).to_string());
        let team = peer(Some(selector("team", &(number % 1_000).to_string())));
        let rules = vec![rule(Some(vec![team, peer(None)]), false)];
        state.apply_policy(&key(&at, &format!("p-{number}")), policy(&app, rules, vec![]));
    }
    for number in 0..110 {
        let at = format!("ns-{}", number % 100);
        state.apply_pod(&key(&at, &format!("pod-{number}")), pod(HERE, &(number % 10).to_string()));
    }
    let all = begun.elapsed();
    assert_eq!(state.demand(), PolicyDemand { namespaces: NamespaceDemand::All, pods: PodDemand::All });
    let begun = Instant::now();
    for round in 0..10_u8 {
        state.apply_pod(&key("ns-0", "pod-0"), pod(HERE, &(round % 3).to_string()));
        assert_eq!(state.demand().namespaces, NamespaceDemand::All);
    }
    let pod = begun.elapsed() / 10;
    let begun = Instant::now();
    for round in 0..10_u8 {
        let labels = labels("team", &round.to_string());
        state.apply_namespace(&"ns-5".into(), Some(Namespace { labels, ..Namespace::default() }));
        assert_eq!(state.demand().namespaces, NamespaceDemand::All);
    }
    let namespace = begun.elapsed() / 10;
    println!("figure policy-demand@10000 all {all:?}, a pod {pod:?}, a namespace {namespace:?}");
}

/// A change: to which object of a few, and what it is now.
#[derive(Clone, Debug)]
enum Step {
    Pod(u8, u8, Option<Pod>),
    Policy(u8, u8, Option<NetworkPolicy>),
    Namespace(u8, Option<Namespace>),
    Cluster(u8, Option<ClusterNetworkPolicy>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let peers = prop_oneof![
        Just(anywhere()),
        Just(peer(None)),
        (0..3_u8).prop_map(|team| peer(Some(selector("team", &team.to_string())))),
        Just(peer(Some(Selector::default()))),
    ];
    let rules = prop::option::of(prop::collection::vec(peers, 0..3));
    let rules = prop::collection::vec((rules, prop::bool::weighted(0.2)), 0..3);
    let policy = (0..2_u8, rules.clone(), rules).prop_map(|(app, ingress, egress)| {
        let rules = |list: Vec<(Option<_>, bool)>| list.into_iter().map(|(peers, named)| rule(peers, named));
        policy(&app.to_string(), rules(ingress).collect(), rules(egress).collect())
    });
    let pod = (any::<bool>(), 0..2_u8)
        .prop_map(|(here, app)| pod(if here { HERE } else { "there" }, &app.to_string()));
    let teams = prop::option::of(0..3_u8).prop_map(|team| match team {
        None => Selector::default(),
        Some(team) => selector("team", &team.to_string()),
    });
    let cluster = (teams.clone(), prop::option::of(0..2_u8), teams, any::<bool>(), any::<bool>()).prop_map(
        |(namespaces, app, peers, egress, named)| {
            let pods = app.map_or(Selector::default(), |app| selector("app", &app.to_string()));
            Some(cluster_policy(
                Subject { namespaces, pods },
                rule(Some(vec![peer(Some(peers))]), named),
                egress,
            ))
        },
    );
    let namespace = (0..3_u8).prop_map(|team| {
        Some(Namespace { labels: labels("team", &team.to_string()), ..Namespace::default() })
    });
    prop_oneof![
        (0..3_u8, 0..3_u8, prop_oneof![1 => Just(None), 3 => pod]).prop_map(|(a, b, it)| Step::Pod(a, b, it)),
        (0..3_u8, 0..3_u8, prop_oneof![1 => Just(None), 3 => policy])
            .prop_map(|(a, b, it)| Step::Policy(a, b, it)),
        (0..4_u8, prop_oneof![1 => Just(None), 3 => namespace]).prop_map(|(a, it)| Step::Namespace(a, it)),
        (0..2_u8, prop_oneof![1 => Just(None), 2 => cluster]).prop_map(|(a, it)| Step::Cluster(a, it)),
    ]
}

/// By the words, from all that there is.
#[derive(Default)]
struct World {
    pods: BTreeMap<(u8, u8), Pod>,
    policies: BTreeMap<(u8, u8), NetworkPolicy>,
    namespaces: BTreeMap<u8, Namespace>,
    cluster: BTreeMap<u8, ClusterNetworkPolicy>,
}

impl World {
    fn apply(&mut self, step: Step) {
        fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
            match value {
                Some(value) => drop(map.insert(key, value)),
                None => drop(map.remove(&key)),
            }
        }
        match step {
            Step::Pod(namespace, name, pod) => set(&mut self.pods, (namespace, name), pod),
            Step::Policy(namespace, name, policy) => set(&mut self.policies, (namespace, name), policy),
            Step::Namespace(name, namespace) => set(&mut self.namespaces, name, namespace),
            Step::Cluster(name, policy) => set(&mut self.cluster, name, policy),
        }
    }

    /// The namespaces of the pods here that a policy selects.
    fn selected(&self, is_for: impl Fn(u8, &Pod) -> bool) -> BTreeSet<u8> {
        let here = self.pods.iter().filter(|(_, pod)| pod.node.as_deref() == Some(HERE));
        here.filter(|((namespace, _), pod)| is_for(*namespace, pod))
            .map(|((namespace, _), _)| *namespace)
            .collect()
    }

    fn demand(&self) -> PolicyDemand {
        let (mut namespaces, mut all, mut names, mut own) = (false, false, BTreeSet::new(), BTreeSet::new());
        let mut take = |need: Need<'_>| match need {
            Need::Annotations(name) => drop(own.insert(name.clone())),
            Need::Own(name) => drop(names.insert(name.clone())),
            Need::Everywhere => all = true,
            Need::Selected(selector) => {
                namespaces = true;
                let matched = self.namespaces.iter().filter(|(_, it)| selector.matches(&it.labels));
                names.extend(matched.map(|(matched, _)| name(*matched)));
            }
        };
        for ((own, _), policy) in &self.policies {
            let selected =
                self.selected(|namespace, pod| namespace == *own && policy.pods.matches(&pod.labels));
            if !selected.is_empty() {
                Asker::Policy(&name(*own), policy).needs().into_iter().for_each(&mut take);
            }
        }
        for policy in self.cluster.values() {
            let Subject { namespaces, pods } = &policy.subject;
            let selected = self.selected(|namespace, pod| {
                let is_in = |it: &Namespace| namespaces.matches(&it.labels);
                pods.matches(&pod.labels) && self.namespaces.get(&namespace).is_none_or(is_in)
            });
            if !selected.is_empty() {
                Asker::Cluster(policy).needs().into_iter().for_each(&mut take);
            }
        }
        if self.cluster.values().any(|policy| policy.subject.namespaces != Selector::default()) {
            own = self.selected(|_, _| true).into_iter().map(name).collect();
        }
        let namespaces = if namespaces { NamespaceDemand::All } else { NamespaceDemand::Of(own) };
        PolicyDemand { namespaces, pods: if all { PodDemand::All } else { PodDemand::Of(names) } }
    }
}

fn name(number: u8) -> Arc<str> {
    format!("ns-{number}").into()
}

proptest! {
    #[test]
    fn it_is_what_all_that_there_is_asks_for(steps in prop::collection::vec(any_step(), 0..60)) {
        let (mut state, mut world) = (PolicyState::new(HERE.into()), World::default());
        for step in steps {
            world.apply(step.clone());
            match step {
                Step::Pod(at, pod_name, pod) => state.apply_pod(&key(&name(at), &pod_name.to_string()), pod),
                Step::Policy(at, of, policy) => state.apply_policy(&key(&name(at), &of.to_string()), policy),
                Step::Namespace(at, namespace) => state.apply_namespace(&name(at), namespace),
                Step::Cluster(at, policy) => state.apply_cluster_policy(&name(at), policy),
            }
            prop_assert_eq!(state.demand(), world.demand());
        }
    }
}
