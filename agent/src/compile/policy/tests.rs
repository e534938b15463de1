//! What a change writes, and what it does not. That the rows say what the API says is shown in tests/policy, against an
//! evaluator of its own.

mod modes;

use serde_json::{Value, json};
use weir_ebpf::abi::{Addr, ClassId, NetworkKey, PodPolicy, PolicySetId, Port, Side};
use weir_ebpf::datapath::policy::{Access, judge};
use weir_ebpf::testing::MemoryPolicy;

use super::{Change, PolicyCompiler, Sizes, Update};
use crate::source::{
    Event, ObjectKey, parse_cluster_network_policy, parse_namespace, parse_network_policy, parse_pod,
};
use crate::state::State;

struct World {
    state: State,
    compiler: PolicyCompiler,
    tables: MemoryPolicy,
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

fn addr(text: &str) -> Addr {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

fn open() -> PodPolicy {
    PodPolicy::OPEN
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: State::new("here"),
            compiler: PolicyCompiler::new(),
            tables: MemoryPolicy::default(),
        };
        let namespace =
            parse_namespace(&serde_json::from_value(json!({"metadata": {"name": "ns"}})).unwrap());
        world.state.apply(Event::Namespace("ns".into(), namespace.object));
        world.update();
        world
    }

    /// A namespace with a server here, which takes TCP 80 from two clients elsewhere, and a stranger.
    fn served() -> Self {
        let mut world = Self::new();
        world.put_pod("server", "here", "10.0.0.1", json!({"app": "server"}));
        world.put_pod("client-1", "there", "10.0.1.1", json!({"app": "client"}));
        world.put_pod("client-2", "there", "10.0.1.2", json!({"app": "client"}));
        world.put_pod("stranger", "there", "10.0.1.9", json!({"app": "other"}));
        world.put_policy("serve", &serve());
        world.update();
        world
    }

    fn put_pod(&mut self, name: &str, node: &str, ip: &str, labels: Value) {
        let object = json!({
            "metadata": {"namespace": "ns", "name": name, "labels": labels},
            "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [
                {"name": "web", "containerPort": if name.ends_with('2') { 8080 } else { 80 }},
            ]}]},
            "status": {"podIP": ip},
        });
        let parsed = parse_pod(&serde_json::from_value(object).unwrap());
        self.state.apply(Event::Pod(key(name), parsed.object));
    }

    fn put_policy(&mut self, name: &str, spec: &Value) {
        self.put_policy_with(name, &json!({}), spec);
    }

    fn put_policy_with(&mut self, name: &str, annotations: &Value, spec: &Value) {
        let metadata = json!({"namespace": "ns", "name": name, "annotations": annotations});
        let object = json!({"metadata": metadata, "spec": spec});
        let parsed = parse_network_policy(&serde_json::from_value(object).unwrap());
        assert_eq!(parsed.problems, []);
        self.state.apply(Event::NetworkPolicy(key(name), parsed.object));
    }

    /// A policy of the Admin tier for servers.
    fn put_cluster_policy(&mut self, name: &str, annotations: &Value, ingress: &Value) {
        let subject = json!({"pods": {"podSelector": {"matchLabels": {"app": "server"}}}});
        let object = json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"tier": "Admin", "priority": 1, "subject": subject, "ingress": ingress},
        });
        let parsed = parse_cluster_network_policy(&serde_json::from_value(object).unwrap());
        assert_eq!(parsed.problems, []);
        self.state.apply(Event::ClusterNetworkPolicy(name.into(), parsed.object));
    }

    fn update(&mut self) -> Update {
        let changes = self.state.take_policy_changes();
        let update = self.compiler.update(self.state.policy(), &changes);
        for change in update.changes.iter().chain(&update.garbage) {
            self.write(change);
        }
        update
    }

    fn write(&mut self, change: &Change) {
        match *change {
            Change::PortRule(key, row) => put(&mut self.tables.port_rules, key, row),
            Change::Verdict(key, row) => put(&mut self.tables.verdicts, key, row),
            Change::Network(key, row) => put(&mut self.tables.networks, key, row),
            Change::Address(key, Some(row)) => drop(self.tables.addresses.insert(key, row)),
            Change::Address(key, None) => drop(self.tables.addresses.remove(&key)),
            Change::Pod(key, Some(row)) => drop(self.tables.pods.insert(key, row)),
            Change::Pod(key, None) => drop(self.tables.pods.remove(&key)),
            Change::Name(..) | Change::Exact(..) => {}
        }
    }

    fn class(&self, ip: &str) -> Option<ClassId> {
        self.tables.addresses.get(&addr(ip)).copied()
    }

    fn policy(&self, ip: &str) -> PodPolicy {
        self.tables.pods[&addr(ip)]
    }

    fn passes(&self, side: Side, pod: &str, peer: &str, protocol: u8, port: u16) -> bool {
        let access = Access { side, pod: addr(pod), peer: addr(peer), protocol, port: Port::new(port) };
        judge(&self.tables, &access).passes()
    }
}

fn put<K: Ord, V>(rows: &mut std::collections::BTreeMap<K, V>, key: K, row: Option<V>) {
    match row {
        Some(row) => drop(rows.insert(key, row)),
        None => drop(rows.remove(&key)),
    }
}

fn serve() -> Value {
    json!({
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 80}]}],
    })
}

/// Where a change of this kind stands first, and last.
fn places(update: &Update, is: impl Fn(&Change) -> bool) -> (usize, usize) {
    let first = update.changes.iter().position(&is).unwrap();
    (first, update.changes.iter().rposition(is).unwrap())
}

#[test]
fn before_anything_ipv4_is_a_network_of_its_own() {
    let mut compiler = PolicyCompiler::new();
    let mut state = State::new("here");
    let changes = state.take_policy_changes();
    let update = compiler.update(state.policy(), &changes);
    let all_v4 = Change::Network(NetworkKey::new(addr("0.0.0.0"), 96), Some(ClassId::EVERYBODY));
    assert_eq!(update, Update { changes: vec![all_v4], garbage: vec![] });
}

#[test]
fn pods_that_nobody_tells_apart_have_no_rows() {
    let world = World::served();
    let class = world.class("10.0.1.1");
    assert!(class.is_some());
    assert_eq!(world.class("10.0.1.2"), class);
    assert_eq!(world.class("10.0.1.9"), None);
    assert_eq!(world.class("10.0.0.1"), None);
    assert_eq!(world.tables.pods.len(), 1, "only pods of this node have sets");
    let sizes = Sizes {
        atoms: 1,
        sets: 1,
        classes: 1,
        verdicts: 1,
        port_sets: 1,
        networks: 1,
        addresses: 2,
        workloads: 1,
    };
    assert_eq!(world.compiler.sizes(), sizes);
    assert!(world.passes(Side::Ingress, "10.0.0.1", "10.0.1.2", 6, 80));
    assert!(!world.passes(Side::Ingress, "10.0.0.1", "10.0.1.9", 6, 80));
}

#[test]
fn what_no_rule_asks_for_changes_nothing() {
    let mut world = World::served();
    world.put_pod("stranger", "there", "10.0.1.9", json!({"app": "another"}));
    assert_eq!(world.update(), Update::default());
    world.put_pod("newcomer", "there", "10.0.1.10", json!({}));
    assert_eq!(world.update(), Update::default());
    // Of pods that are elsewhere.
    world.put_policy(
        "theirs",
        &json!({
            "podSelector": {"matchLabels": {"app": "other"}}, "ingress": [{"from": [{"podSelector": {}}]}],
        }),
    );
    assert_eq!(world.update(), Update::default());
    // The same in other words.
    let mut other = serve();
    other["ingress"][0]["from"][0]["podSelector"] =
        json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["client"]}]});
    other["ingress"][0]["ports"] = json!([{"port": 80, "protocol": "TCP"}, {"port": 80, "endPort": 80}]);
    other["policyTypes"] = json!(["Ingress"]);
    world.put_policy("serve", &other);
    assert_eq!(world.update(), Update::default());
}

#[test]
fn a_pod_that_changes_is_one_row() {
    let mut world = World::served();
    let class = world.class("10.0.1.1");
    world.put_pod("client-1", "there", "10.0.1.1", json!({"app": "other"}));
    let gone = Update { changes: vec![Change::Address(addr("10.0.1.1"), None)], garbage: vec![] };
    assert_eq!(world.update(), gone);
    world.put_pod("client-3", "there", "10.0.1.3", json!({"app": "client", "more": "x"}));
    let come = Update { changes: vec![Change::Address(addr("10.0.1.3"), class)], garbage: vec![] };
    assert_eq!(world.update(), come);
    let sets = world.policy("10.0.0.1");
    world.put_pod("server-2", "here", "10.0.0.2", json!({"app": "server"}));
    let second = Update { changes: vec![Change::Pod(addr("10.0.0.2"), Some(sets))], garbage: vec![] };
    assert_eq!(world.update(), second, "pods under the same policies share their sets");
}

#[test]
fn a_class_splits_where_a_policy_tells_its_members_apart() {
    let mut world = World::served();
    world.put_pod("client-1", "there", "10.0.1.1", json!({"app": "client", "tier": "x"}));
    assert_eq!(world.update(), Update::default());
    let class = world.class("10.0.1.1");
    world.put_policy(
        "tier",
        &json!({
            "podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"tier": "x"}}}], "ports": [{"port": 81}]}],
        }),
    );
    let update = world.update();
    assert_eq!(world.class("10.0.1.2"), class, "the others keep their class");
    assert_ne!(world.class("10.0.1.1"), class);
    let verdicts = places(&update, |change| matches!(change, Change::Verdict(..)));
    let addresses = places(&update, |change| matches!(change, Change::Address(..)));
    let pods = places(&update, |change| matches!(change, Change::Pod(..)));
    assert!(verdicts.1 < addresses.0 && addresses.1 < pods.0, "{update:?}");
    let is_gone = |change: &Change| matches!(change, Change::Verdict(_, None) | Change::Name(_, None));
    assert!(update.garbage.iter().all(is_gone), "{update:?}");
    for (peer, port, passes) in [("10.0.1.1", 80, true), ("10.0.1.1", 81, true), ("10.0.1.2", 81, false)] {
        assert_eq!(world.passes(Side::Ingress, "10.0.0.1", peer, 6, port), passes, "{peer} {port}");
    }
}

#[test]
fn numbers_are_not_used_again() {
    let mut world = World::served();
    let (sets, class) = (world.policy("10.0.0.1"), world.class("10.0.1.1"));
    world.state.apply(Event::NetworkPolicy(key("serve"), None));
    let update = world.update();
    assert_eq!(world.policy("10.0.0.1"), open());
    assert_eq!(update.changes.first(), Some(&Change::Pod(addr("10.0.0.1"), Some(open()))));
    assert_eq!((world.tables.verdicts.len(), world.tables.port_rules.len()), (0, 0));
    let nothing = Sizes { networks: 1, workloads: 1, ..Sizes::default() };
    assert_eq!(world.compiler.sizes(), nothing);
    world.put_policy("serve", &serve());
    world.update();
    assert!(world.policy("10.0.0.1").ingress > sets.ingress);
    assert!(world.class("10.0.1.1") > class);
}

#[test]
fn all_and_nothing_are_numbers() {
    let mut world = World::served();
    let server = json!({"matchLabels": {"app": "server"}});
    world.put_policy("serve", &json!({"podSelector": server, "policyTypes": ["Ingress", "Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": "no-such"}]}, {}]}));
    world.update();
    let closed = PodPolicy::new(PolicySetId::CLOSED, PolicySetId::OPEN);
    assert_eq!(world.policy("10.0.0.1"), closed);
    let nothing = Sizes { networks: 1, workloads: 1, ..Sizes::default() };
    assert_eq!(world.compiler.sizes(), nothing, "what such sets ask for is not told apart");
    world.put_policy("more", &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": []}));
    world.update();
    assert_eq!(world.policy("10.0.0.1"), closed, "what one policy allows another does not take away");
}

#[test]
fn names_of_ports() {
    let mut world = World::new();
    world.put_pod("server-1", "here", "10.0.0.1", json!({}));
    world.put_pod("server-2", "here", "10.0.0.2", json!({}));
    let web = json!([{"ports": [{"port": "web"}]}]);
    world.put_policy("web", &json!({"podSelector": {}, "ingress": web, "egress": web}));
    world.update();
    let (one, two) = (world.policy("10.0.0.1"), world.policy("10.0.0.2"));
    assert_ne!(one.ingress, two.ingress, "each has its own number");
    assert_eq!(one.egress, two.egress, "the name is their peers'");
    for (side, pod, peer, port, passes) in [
        (Side::Ingress, "10.0.0.1", "192.0.2.1", 80, true),
        (Side::Ingress, "10.0.0.1", "192.0.2.1", 8080, false),
        (Side::Ingress, "10.0.0.2", "192.0.2.1", 8080, true),
        (Side::Egress, "10.0.0.1", "10.0.0.2", 8080, true),
        (Side::Egress, "10.0.0.1", "10.0.0.2", 80, false),
        (Side::Egress, "10.0.0.2", "10.0.0.1", 80, true),
        (Side::Egress, "10.0.0.2", "192.0.2.1", 80, false),
    ] {
        assert_eq!(world.passes(side, pod, peer, 6, port), passes, "{side:?} {pod} {peer} {port}");
    }
}

#[test]
fn blocks_are_as_many_rows_as_prefixes() {
    let mut world = World::new();
    world.put_pod("server", "here", "10.0.0.1", json!({}));
    let block = |cidr: &str, except: &[&str], port: u16| json!({"from": [{"ipBlock": {"cidr": cidr, "except": except}}], "ports": [{"port": port}]});
    let blocks = [
        block("10.0.0.0/8", &["10.1.0.0/16", "10.2.0.0/16"], 80),
        block("10.1.0.0/16", &["10.1.1.0/24"], 81),
        block("::/0", &[], 82),
    ];
    world.put_policy("blocks", &json!({"podSelector": {}, "ingress": blocks}));
    world.update();
    // 0.0.0.0/0 and ::/0, 10.0.0.0/8, 10.1.0.0/16 once, 10.2.0.0/16, 10.1.1.0/24.
    assert_eq!(world.compiler.sizes().networks, 6);
    for (peer, ports) in [
        ("10.0.0.2", [80].as_slice()),
        ("10.1.0.1", &[81]),
        ("10.1.1.1", &[]),
        ("10.2.0.1", &[]),
        ("192.0.2.1", &[]),
        ("2001:db8::1", &[82]),
    ] {
        let passing: Vec<_> =
            (80..=82).filter(|port| world.passes(Side::Ingress, "10.0.0.1", peer, 6, *port)).collect();
        assert_eq!(passing, ports, "{peer}");
    }
    world.state.apply(Event::NetworkPolicy(key("blocks"), None));
    world.update();
    assert_eq!(world.compiler.sizes(), Sizes { networks: 1, workloads: 1, ..Sizes::default() });
    assert_eq!(world.tables.networks.len(), 1);
}

#[test]
fn a_pod_of_this_node_goes_with_all_that_was_for_it() {
    let mut world = World::served();
    world.state.apply(Event::Pod(key("server"), None));
    let update = world.update();
    assert_eq!(update.changes.first(), Some(&Change::Pod(addr("10.0.0.1"), None)));
    assert_eq!(world.compiler.sizes(), Sizes { networks: 1, ..Sizes::default() });
    let empty = MemoryPolicy { networks: world.tables.networks.clone(), ..MemoryPolicy::default() };
    assert_eq!(world.tables, empty);
}

#[test]
fn a_policy_of_the_cluster_is_rows_of_the_pods_that_it_selects() {
    let mut world = World::served();
    world.put_pod("other", "here", "10.0.0.3", json!({"app": "other"}));
    world.update();
    let before = world.policy("10.0.0.1");
    let stranger = json!([{"pods": {"podSelector": {"matchLabels": {"app": "other"}}}}]);
    let client = json!([{"pods": {"podSelector": {"matchLabels": {"app": "client"}}}}]);
    let web = json!([{"tcp": {"destinationPort": {"number": 80}}}]);
    let rules =
        json!([{"action": "Accept", "from": stranger}, {"action": "Deny", "from": client, "protocols": web}]);
    world.put_cluster_policy("p", &json!({}), &rules);
    let update = world.update();
    let pods: Vec<_> = update.changes.iter().filter(|change| matches!(change, Change::Pod(..))).collect();
    assert!(matches!(pods[..], [Change::Pod(pod, _)] if *pod == addr("10.0.0.1")), "{pods:?}");
    let set = world.policy("10.0.0.1").ingress;
    assert!(set != before.ingress && world.policy("10.0.0.3") == open());
    assert!(update.changes.contains(&Change::Exact(set, true)), "a row that is missing would allow more");
    assert!(world.passes(Side::Ingress, "10.0.0.1", "10.0.1.9", 6, 81));
    assert!(!world.passes(Side::Ingress, "10.0.0.1", "10.0.1.1", 6, 80));
    // What it keeps is said of the pod alone.
    world.put_policy_with("serve", &json!({"weir.dev/established": "keep"}), &serve());
    assert_eq!(world.update(), Update::default(), "one of the two does not keep");
    world.put_cluster_policy("p", &json!({"weir.dev/established": "keep"}), &rules);
    let kept = PodPolicy { flags: PodPolicy::KEEP_INGRESS, ..world.policy("10.0.0.1") };
    let change = Change::Pod(addr("10.0.0.1"), Some(kept));
    assert_eq!(world.update(), Update { changes: vec![change], garbage: vec![] });

    world.state.apply(Event::ClusterNetworkPolicy("p".into(), None));
    let update = world.update();
    assert!(update.garbage.contains(&Change::Exact(set, false)), "{update:?}");
    assert_eq!(
        world.policy("10.0.0.1"),
        PodPolicy { flags: PodPolicy::KEEP_INGRESS, ..world.policy("10.0.0.1") }
    );
    assert!(world.passes(Side::Ingress, "10.0.0.1", "10.0.1.1", 6, 80));
}
