//! 10,000 pods, 10,000 policies, 1,000 selectors: how many rows that is, and that a change is still no more than it touches.

use std::collections::BTreeMap;

use serde_json::json;
use weir_agent::compile::policy::{Change, Sizes};

use crate::scale::{NAMESPACES, PODS_HERE, SELECTORS, Sides, cluster};
use crate::{Node, Placement};

const PODS: usize = 10_000;
const POLICIES: usize = 10_000;

#[test]
fn at_ten_thousand_policies_a_change_is_what_it_touches() {
    let mut cluster = cluster(PODS, POLICIES, Sides::Ingress);
    let mut node = Node::new(Placement::Named("here".into()));
    node.sync(&cluster);
    // The policies of a namespace name ten apps, and there is one pod of each namespace here.
    let expected = Sizes {
        atoms: SELECTORS,
        sets: PODS_HERE,
        classes: SELECTORS,
        verdicts: PODS_HERE * SELECTORS / NAMESPACES,
        port_sets: 1,
        networks: 1,
        addresses: 2 * PODS,
        workloads: 2 * PODS_HERE,
    };
    assert_eq!(node.sizes(), expected);

    let pod = cluster.pods.get_mut(&("ns-5".into(), "pod-505".into())).unwrap();
    pod.metadata.labels = Some(BTreeMap::from([("app".into(), "app-7".into())]));
    let update = node.sync(&cluster);
    assert!(matches!(update.changes[..], [Change::Address(..), Change::Address(..)]), "{update:?}");
    assert_eq!((update.garbage.len(), node.sizes()), (0, expected));

    // It is not the only one that lets in that app: the same as before is allowed, and nothing is written.
    let name = ("ns-5".to_owned(), "policy-505".to_owned());
    let policy = cluster.policies.get_mut(&name).unwrap();
    policy.spec.as_mut().unwrap().ingress = None;
    let update = node.sync(&cluster);
    assert_eq!((update.changes.len(), update.garbage.len()), (0, 0));

    let object = json!({
        "metadata": {"namespace": name.0, "name": name.1},
        "spec": {"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "app-0"}}}]}]},
    });
    cluster.policies.insert(name, serde_json::from_value(object).unwrap());
    let update = node.sync(&cluster);
    // A new set and its name, with a row for each of its ten apps; it asks for app-0 in a namespace where there is none.
    let verdicts = update.changes.iter().filter(|change| matches!(change, Change::Verdict(..))).count();
    let pods = update.changes.iter().filter(|change| matches!(change, Change::Pod(..))).count();
    assert_eq!((verdicts, pods, update.changes.len()), (10, 2, 13));
    assert_eq!(update.garbage.len(), 11, "those of the set before");
}
