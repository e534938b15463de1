//! What each change touches, and whose an address is.

use super::*;
use crate::source::{Labels, PolicyModes, Requirement, Selector, Test};

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

fn addr(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn addresses(last: &[u8]) -> BTreeSet<IpAddr> {
    last.iter().map(|last| addr(*last)).collect()
}

fn pod(node: &str, label: &str, created_s: Option<i64>, last: &[u8]) -> Pod {
    Pod {
        created_s,
        labels: Labels::from_iter([("app".into(), label.into())]),
        addresses: last.iter().map(|last| addr(*last)).collect(),
        node: Some(node.into()),
        ..Pod::default()
    }
}

fn policy(label: &str) -> NetworkPolicy {
    let test = Test::In([label.into()].into());
    let pods = Selector::from_iter([Requirement { key: "app".into(), test }]);
    NetworkPolicy { pods, ingress: None, egress: None, modes: PolicyModes::default() }
}

/// Three pods here and one there; nothing waits to be looked at.
fn state() -> PolicyState {
    let mut state = PolicyState::new("here".into());
    for (name, node, label, last) in
        [("a", "here", "x", 1), ("b", "here", "x", 2), ("c", "here", "y", 3), ("d", "there", "x", 4)]
    {
        state.apply_pod(&key(name), Some(pod(node, label, None, &[last])));
    }
    assert_eq!(state.take_changes().workloads, addresses(&[1, 2, 3, 4]));
    state
}

#[test]
fn a_policy_touches_the_pods_here_that_it_selects_or_selected() {
    let mut state = state();
    state.apply_policy(&key("p"), Some(policy("x")));
    let expected = PolicyChanges { workloads: addresses(&[1, 2]), ..PolicyChanges::default() };
    assert_eq!(state.take_changes(), expected);
    state.apply_policy(&key("p"), Some(policy("x")));
    assert_eq!(state.take_changes(), PolicyChanges::default(), "it is the same");
    state.apply_policy(&key("p"), Some(policy("y")));
    assert_eq!(state.take_changes().workloads, addresses(&[1, 2, 3]));
    state.apply_policy(&key("p"), None);
    assert_eq!(state.take_changes().workloads, addresses(&[3]));
    let elsewhere = ObjectKey::new("other", "p");
    state.apply_policy(&elsewhere, Some(policy("x")));
    assert_eq!(state.take_changes(), PolicyChanges::default());
}

#[test]
fn a_namespace_touches_its_pods_as_peers() {
    let mut state = state();
    let labels = Labels::from_iter([("team".into(), "t".into())]);
    state.apply_namespace(&"ns".into(), Some(Namespace { labels: labels.clone(), ..Namespace::default() }));
    let expected = PolicyChanges { peers: addresses(&[1, 2, 3, 4]), workloads: BTreeSet::new() };
    assert_eq!(state.take_changes(), expected);
    state.apply_namespace(&"ns".into(), Some(Namespace { labels, ..Namespace::default() }));
    assert_eq!(state.take_changes(), PolicyChanges::default(), "it is the same");
    state.apply_namespace(&"other".into(), None);
    assert_eq!(state.take_changes(), PolicyChanges::default());
}

#[test]
fn a_pod_touches_the_addresses_that_it_has_and_had() {
    let mut state = state();
    state.apply_pod(&key("a"), Some(pod("here", "x", None, &[1])));
    assert_eq!(state.take_changes(), PolicyChanges::default(), "it is the same");
    state.apply_pod(&key("a"), Some(pod("here", "x", None, &[5, 6])));
    let changes = state.take_changes();
    assert_eq!((changes.peers, changes.workloads), (addresses(&[1, 5, 6]), addresses(&[1, 5, 6])));
    assert_eq!(state.owner(addr(1)), None);
    state.apply_pod(&key("a"), None);
    assert_eq!(state.take_changes().peers, addresses(&[5, 6]));
    assert_eq!((state.owner(addr(5)), state.all_pods().count()), (None, 3));
}

#[test]
fn of_several_pods_the_youngest_has_the_address() {
    let name = |state: &PolicyState| state.owner(addr(9)).map(|view| view.name.to_string());
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut state = PolicyState::new("here".into());
        let pods = [("old", Some(1)), ("young", Some(2)), ("ageless", None)];
        for (name, created_s) in order.map(|at| pods[at]) {
            state.apply_pod(&key(name), Some(pod("here", "x", created_s, &[9])));
        }
        assert_eq!(name(&state).as_deref(), Some("young"));
        assert_eq!(state.workload(addr(9)).map(|view| &**view.name), Some("young"));
        state.apply_pod(&key("young"), Some(pod("there", "x", Some(2), &[9])));
        assert_eq!(state.workload(addr(9)), None, "it is none of ours any more");
        state.apply_pod(&key("young"), None);
        assert_eq!(name(&state).as_deref(), Some("old"));
        state.apply_pod(&key("old"), None);
        assert_eq!(name(&state).as_deref(), Some("ageless"));
    }
}
