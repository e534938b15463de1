//! Sets that deny by rows.

use super::*;

/// The same pod with a set that allows everybody, but one class only some ports; an address is of that class.
fn denying() -> Update {
    let (ports, class) = (PortRulesId(3), ClassId(4));
    let changes = vec![
        Change::Exact(SET, true),
        Change::Verdict(VerdictKey { set: SET, class: ClassId::EVERYBODY }, Some(PortRulesId::ALL)),
        Change::PortRule(PortRuleKey::otherwise(ports), Some(PortRule::ALLOW)),
        Change::PortRule(PortRuleKey::new(ports, 6, Port::new(80), 16), Some(PortRule::DENY)),
        Change::Verdict(VerdictKey { set: SET, class }, Some(ports)),
        Change::Address(addr("10.0.0.9"), Some(class)),
        Change::Pod(addr("10.0.0.1"), Some(guarded())),
    ];
    Update { changes, garbage: Vec::new() }
}

#[test]
fn a_set_that_denies_is_closed_while_a_row_of_it_is_missing() {
    for table in ["port_rules", "verdicts", "address_classes"] {
        let (mut rows, mut store) = (rows(), Store::default());
        rows.set_workloads(here(), BTreeSet::new(), &mut store);
        store.full.insert(table);
        rows.apply(denying(), true, &mut store);
        assert_eq!(store.snapshot.pods[&DEVICE].policy, closed_to_all(), "{table}");
        let was_open = |write: &PolicyWrite| matches!(write, PolicyWrite::Pod(_, Some(row)) if row.policy != closed_to_all());
        assert!(!store.writes.iter().any(was_open), "{table}: not for a moment");
        let problems: Vec<String> = rows.problems().iter().map(ToString::to_string).collect();
        assert!(problems.iter().any(|problem| problem.contains("10.0.0.1")), "{problems:?}");
        assert!(problems[0].contains("where they deny nothing is allowed"), "{problems:?}");
        // So that each policy is named that is not in force, whatever row is missing.
        let lacking = rows.lacking(|_| BTreeSet::new());
        assert_eq!(lacking, BTreeSet::from(["10.0.0.1".parse().unwrap()]), "{table}");
        rows.retry(&mut store);
        assert_eq!(store.snapshot.pods[&DEVICE].policy, closed_to_all(), "there is no room yet");
        store.full.clear();
        rows.retry(&mut store);
        assert_eq!(store.snapshot.pods[&DEVICE].policy, guarded(), "{table}");
        assert!(!rows.has_refused() && rows.problems().is_empty());
    }
}

#[test]
fn a_pod_of_a_set_that_denies_is_closed_before_anything_else_is_written() {
    let (mut rows, mut store) = (rows(), Store::default());
    rows.set_workloads(here(), BTreeSet::new(), &mut store);
    rows.apply(denying(), true, &mut store);
    assert_eq!(store.snapshot.pods[&DEVICE].policy, guarded());
    store.full.insert("address_classes");
    store.writes.clear();
    let (late, network) = (addr("10.0.0.10"), NetworkKey::new(addr("192.0.2.0"), 120));
    let changes =
        vec![Change::Address(late, Some(ClassId(4))), Change::Network(network, Some(ClassId::EVERYBODY))];
    rows.apply(Update { changes, garbage: Vec::new() }, true, &mut store);
    assert!(matches!(store.writes[0], PolicyWrite::Pod(DEVICE, Some(row)) if row.policy == closed_to_all()));
    // It is not to be told apart any more.
    let changes = vec![Change::Address(late, None)];
    rows.apply(Update { changes, garbage: Vec::new() }, true, &mut store);
    assert_eq!(store.snapshot.pods[&DEVICE].policy, guarded());
}

#[test]
fn a_set_that_denies_is_closed_while_a_network_keeps_the_class_that_it_had() {
    let (mut rows, mut store) = (rows(), Store::default());
    rows.set_workloads(here(), BTreeSet::new(), &mut store);
    let network = NetworkKey::new(addr("10.0.0.0"), 104);
    let (before, after) = (ClassId(4), ClassId(7));
    let verdict = |class| VerdictKey { set: SET, class };
    let mut first = denying();
    first.changes.push(Change::Network(network, Some(before)));
    rows.apply(first, true, &mut store);
    assert_eq!(store.snapshot.pods[&DEVICE].policy, guarded());
    // A policy of other pods writes the same network into a block of its own, so that there is another class.
    store.full.insert("network_classes");
    let changes =
        vec![Change::Verdict(verdict(after), Some(PortRulesId(3))), Change::Network(network, Some(after))];
    let garbage = vec![Change::Verdict(verdict(before), None)];
    rows.apply(Update { changes, garbage }, true, &mut store);
    assert_eq!(store.snapshot.networks[&network], before, "it is judged as before");
    assert_eq!(store.snapshot.pods[&DEVICE].policy, closed_to_all(), "and by what is to go");
    let retired = rows.take_retired().expect("there is garbage");
    rows.release(retired, &mut store);
    assert!(!store.snapshot.verdicts.contains_key(&verdict(before)));
    rows.retry(&mut store);
    assert_eq!(store.snapshot.pods[&DEVICE].policy, closed_to_all(), "there is no room yet");
    store.full.clear();
    rows.retry(&mut store);
    assert_eq!(store.snapshot.networks[&network], after);
    assert_eq!(store.snapshot.pods[&DEVICE].policy, guarded());
    assert!(!rows.has_refused() && rows.problems().is_empty());
}

#[test]
fn only_the_sets_that_ask_for_a_row_are_closed_without_it() {
    let (mut rows, mut store) = (rows(), Store::default());
    let (other, second) = (PolicySetId(6), addr("10.0.0.2"));
    let devices = [(addr("10.0.0.1"), DEVICE), (second, DEVICE + 1)];
    rows.set_workloads(devices.into_iter(), BTreeSet::new(), &mut store);
    let mut first = denying();
    let of_other = PodPolicy::new(other, PolicySetId::OPEN);
    first.changes.extend([
        Change::Exact(other, true),
        Change::Verdict(VerdictKey { set: other, class: ClassId(4) }, Some(PortRulesId::NONE)),
        Change::Verdict(VerdictKey { set: other, class: ClassId::EVERYBODY }, Some(PortRulesId::ALL)),
        Change::Pod(second, Some(of_other)),
    ]);
    store.full.insert("port_rules");
    rows.apply(first, true, &mut store);
    assert_eq!(store.snapshot.pods[&DEVICE].policy, closed_to_all());
    assert_eq!(store.snapshot.pods[&(DEVICE + 1)].policy, of_other);
    // The pod moves to another set, and this one goes.
    let changes = vec![Change::Pod(addr("10.0.0.1"), Some(of_other))];
    let ports = PortRulesId(3);
    let garbage = vec![
        Change::Verdict(VerdictKey { set: SET, class: ClassId(4) }, None),
        Change::Exact(SET, false),
        Change::PortRule(PortRuleKey::otherwise(ports), None),
        Change::PortRule(PortRuleKey::new(ports, 6, Port::new(80), 16), None),
    ];
    rows.apply(Update { changes, garbage }, true, &mut store);
    assert_eq!(store.snapshot.pods[&DEVICE].policy, of_other);
    let retired = rows.take_retired().expect("there is garbage");
    rows.release(retired, &mut store);
    assert!(!rows.has_refused() && rows.problems().is_empty());
}
