//! What is dirty when, on named cases and on random histories.

use proptest::prelude::*;

use super::*;
use crate::source::{
    Endpoint, Family, NetworkPolicy, Pod, PodDemand, PolicyDemand, PolicyModes, PolicyPeer, PolicyRule,
    PolicySync, Selector, ServiceType, TrafficPolicy,
};

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

fn service(last_octet: u8) -> Service {
    Service {
        created_s: None,
        kind: ServiceType::ClusterIp,
        cluster_ips: vec![[10, 96, 0, last_octet].into()],
        ports: vec![],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        distribution: None,
        external_ips: Box::default(),
        load_balancer_ips: Box::default(),
        source_ranges: None,
        health_check_node_port: None,
    }
}

fn slice(service: &str, endpoints: u8) -> EndpointSlice {
    let endpoint = |n| Endpoint {
        addr: [10, 0, 0, n].into(),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(Arc::from("node-a")),
        zone_hints: vec![],
        node_hints: vec![],
    };
    EndpointSlice {
        service: Arc::from(service),
        family: Family::V4,
        ports: vec![],
        endpoints: (0..endpoints).map(endpoint).collect(),
    }
}

fn node(zone: Option<&str>) -> Option<Node> {
    Some(Node { zone: zone.map(Arc::from), ..Node::default() })
}

/// A state with Services `a` and `b`, and slice `s1` of `a`; nothing dirty.
fn state() -> State {
    let mut state = State::new("here");
    state.apply(Event::Service(key("a"), Some(service(1))));
    state.apply(Event::Service(key("b"), Some(service(2))));
    state.apply(Event::EndpointSlice(key("s1"), Some(slice("a", 2))));
    assert_eq!(state.take_dirty(), [key("a"), key("b")]);
    state
}

/// An event, and which Services it makes dirty.
#[test]
fn dirty() {
    let rows: &[(Event, &[&str])] = &[
        (Event::Service(key("a"), Some(service(1))), &[]),
        (Event::Service(key("a"), Some(service(9))), &["a"]),
        (Event::Service(key("a"), None), &["a"]),
        (Event::Service(key("c"), Some(service(3))), &["c"]),
        (Event::Service(key("c"), None), &[]),
        (Event::EndpointSlice(key("s1"), Some(slice("a", 2))), &[]),
        (Event::EndpointSlice(key("s1"), Some(slice("a", 3))), &["a"]),
        (Event::EndpointSlice(key("s1"), Some(slice("b", 2))), &["a", "b"]),
        (Event::EndpointSlice(key("s1"), Some(slice("unknown", 2))), &["a"]),
        (Event::EndpointSlice(key("s1"), None), &["a"]),
        (Event::EndpointSlice(key("s2"), Some(slice("a", 1))), &["a"]),
        (Event::EndpointSlice(key("s2"), Some(slice("unknown", 1))), &[]),
        (Event::EndpointSlice(key("s2"), None), &[]),
        (Event::EndpointSlice(ObjectKey::new("other", "s1"), Some(slice("a", 1))), &[]),
        (Event::Node(Arc::from("here"), node(Some("z"))), &["a", "b"]),
        (Event::Node(Arc::from("here"), node(None)), &[]),
        (Event::Node(Arc::from("here"), None), &[]),
        (Event::Node(Arc::from("there"), node(Some("z"))), &[]),
        (Event::Synced, &[]),
    ];
    for (event, want) in rows {
        let mut state = state();
        state.apply(event.clone());
        let want: Vec<_> = want.iter().map(|name| key(name)).collect();
        assert_eq!(state.take_dirty(), want, "{event:?}");
        assert_eq!(state.take_dirty(), [], "taken once");
    }
}

#[test]
fn addresses_of_the_node_are_kept_and_make_no_service_dirty() {
    let address = |last, primary| NodeAddress { addr: [192, 0, 2, last].into(), primary };
    let mut state = state().with_node_ports(NodePortAddresses::Primary);
    assert_eq!((state.take_addresses_changed(), state.addresses()), (false, None), "nobody said");
    // The second is on two devices, and the primary address of one.
    let found = vec![address(1, false), address(2, true), address(2, false)];
    state.apply(Event::NodeAddresses(found.clone()));
    let served = AddressUses::NODE.and(AddressUses::NODE_PORTS);
    let uses = BTreeMap::from([([192, 0, 2, 1].into(), AddressUses::NODE), ([192, 0, 2, 2].into(), served)]);
    assert_eq!((state.take_addresses_changed(), state.addresses()), (true, Some(&uses)));
    state.apply(Event::NodeAddresses(found.into_iter().rev().collect()));
    assert!(!state.take_addresses_changed(), "the same in another order");
    state.apply(Event::NodeAddresses(vec![]));
    assert_eq!((state.take_addresses_changed(), state.addresses()), (true, Some(&BTreeMap::new())));
    assert_eq!(state.take_dirty(), []);
}

#[test]
fn slices_wait_for_their_service_and_outlive_it() {
    let mut state = State::new("here");
    state.apply(Event::EndpointSlice(key("s2"), Some(slice("a", 2))));
    state.apply(Event::EndpointSlice(key("s1"), Some(slice("a", 1))));
    assert_eq!(state.service(&key("a")), None);
    assert_eq!(state.take_dirty(), []);
    assert_eq!(state.counts(), Counts { slices: 2, endpoints: 3, ..Counts::default() });

    state.apply(Event::Service(key("a"), Some(service(1))));
    let sizes = |state: &State| -> Vec<usize> {
        state.service(&key("a")).unwrap().slices.iter().map(|slice| slice.endpoints.len()).collect()
    };
    assert_eq!(sizes(&state), [1, 2], "in the order of their names");

    state.apply(Event::Service(key("a"), None));
    assert_eq!(state.service(&key("a")), None);
    state.apply(Event::Service(key("a"), Some(service(1))));
    assert_eq!(sizes(&state), [1, 2]);
}

#[test]
fn everything_goes() {
    let mut state = state();
    state.apply(Event::Service(key("a"), None));
    state.apply(Event::Service(key("b"), None));
    state.apply(Event::EndpointSlice(key("s1"), None));
    assert_eq!(state.counts(), Counts::default());
    assert!(state.entries.is_empty() && state.owners.is_empty());
}

#[test]
fn the_zone_of_this_node() {
    let mut state = state();
    state.apply(Event::Node(Arc::from("here"), node(Some("z"))));
    assert_eq!(*state.node(), NodeView { name: Arc::from("here"), zone: Some(Arc::from("z")) });
    state.apply(Event::Node(Arc::from("here"), None));
    assert_eq!(state.node().zone, None);
    assert_eq!(state.take_dirty(), [key("a"), key("b")]);
}

#[test]
fn problems_replace_those_before() {
    let object =
        |name: &str| ObjectRef { kind: "Service", namespace: Arc::from("ns"), name: Arc::from(name) };
    let problem = |field: &str| Problem { field: field.into(), message: "wrong".into() };
    let mut state = State::new("here");
    state.apply(Event::Problems(object("b"), vec![problem("x")]));
    state.apply(Event::Problems(object("a"), vec![problem("x"), problem("y")]));
    state.apply(Event::Problems(object("b"), vec![problem("z")]));
    let said: Vec<_> = state.problems().map(|(object, problem)| format!("{object}: {problem}")).collect();
    assert_eq!(said, ["Service ns/a: x: wrong", "Service ns/a: y: wrong", "Service ns/b: z: wrong"]);
    state.apply(Event::Problems(object("a"), vec![]));
    state.apply(Event::Problems(object("b"), vec![]));
    assert_eq!(state.problems().count(), 0);
}

#[test]
fn synced() {
    let mut state = state();
    assert!(!state.is_synced());
    state.apply(Event::Synced);
    assert!(state.is_synced() && !state.is_complete(), "nothing was said of policies");
    state.apply(Event::PolicySync(PolicySync::Refused));
    assert!(state.is_complete(), "nothing will be");
    state.apply(Event::PolicySync(PolicySync::Told(PolicyDemand::default())));
    assert!(state.is_complete());
    // A policy that selects a pod here asks for those of its namespace.
    apply_policy_of_own(&mut state);
    assert!(!state.is_complete(), "it is still to come");
    let demand = state.policy().demand();
    assert_eq!(demand.pods, PodDemand::Of(["ns".into()].into()));
    state.apply(Event::PolicySync(PolicySync::Told(demand)));
    assert!(state.is_complete());
}

/// A pod of this node, and a policy that lets pods of its namespace come to it.
fn apply_policy_of_own(state: &mut State) {
    let addresses = [[10, 0, 0, 1].into()].into();
    let pod = Pod { addresses, node: Some("here".into()), ..Pod::default() };
    state.apply(Event::Pod(key("p"), Some(pod)));
    let peer = PolicyPeer::Pods { namespaces: None, pods: Selector::default() };
    let rule = PolicyRule { peers: Some([peer].into()), ports: None };
    let policy = NetworkPolicy {
        pods: Selector::default(),
        ingress: Some([rule].into()),
        egress: None,
        modes: PolicyModes::default(),
    };
    state.apply(Event::NetworkPolicy(key("q"), Some(policy)));
}

#[test]
fn tables_of_policies_stay_until_all_is_known_once() {
    let mut state = state();
    let told = |demand| Event::PolicySync(PolicySync::Told(demand));
    assert_eq!(state.take_policy_update(), None);
    apply_policy_of_own(&mut state);
    assert_eq!(state.take_policy_update(), None);
    state.apply(Event::PolicySync(PolicySync::Refused));
    assert_eq!(state.take_policy_update(), None, "that nothing is told does not mean that there is nothing");
    state.apply(told(PolicyDemand::default()));
    assert_eq!(state.take_policy_update(), None, "its peers are still to come");
    state.apply(told(state.policy().demand()));
    let all = BTreeSet::from([[10, 0, 0, 1].into()]);
    let everything = PolicyChanges { peers: all.clone(), workloads: all };
    assert_eq!(state.take_policy_update(), Some(everything), "also what changed long ago");
    assert_eq!(state.take_policy_update(), Some(PolicyChanges::default()));
    // From then on nothing waits: who is newly isolated is so at once.
    state.apply(Event::NetworkPolicy(key("q"), None));
    state.apply(told(PolicyDemand::default()));
    state.take_policy_update();
    apply_policy_of_own(&mut state);
    assert!(!state.is_complete());
    assert_eq!(state.take_policy_update().unwrap().workloads.len(), 1);
}

#[test]
fn names_are_kept_once() {
    let mut state = State::new("here");
    state.apply(Event::EndpointSlice(key("s1"), Some(slice("a", 100))));
    state.apply(Event::EndpointSlice(key("s2"), Some(slice("b", 100))));
    state.apply(Event::Service(key("a"), Some(service(1))));
    state.apply(Event::Service(key("b"), Some(service(2))));
    let node = |name: &str| state.service(&key(name)).unwrap().slices[0].endpoints[0].node.clone().unwrap();
    assert!(Arc::ptr_eq(&node("a"), &node("b")));
    // ns, s1, s2, a, b, node-a
    assert_eq!(state.interner.len(), 6);
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn any_event() -> impl Strategy<Value = Event> {
    let name = || (0..NAMES.len()).prop_map(|n| NAMES[n]);
    let service = (name(), proptest::option::of(0..3_u8))
        .prop_map(|(name, octet)| Event::Service(key(name), octet.map(service)));
    let slice = (name(), proptest::option::of((name(), 0..3_u8))).prop_map(|(name, content)| {
        Event::EndpointSlice(key(name), content.map(|(service, endpoints)| slice(service, endpoints)))
    });
    let zone = proptest::option::of(prop_oneof![Just("x"), Just("y")]);
    let node = (prop_oneof![Just("here"), Just("there")], zone)
        .prop_map(|(name, zone)| Event::Node(Arc::from(name), node(zone)));
    prop_oneof![4 => service, 6 => slice, 1 => node]
}

/// What can be seen of a Service.
type Seen = Option<(Service, Vec<EndpointSlice>)>;

/// What can be seen of a state.
fn seen(state: &State) -> (NodeView, Counts, Vec<Seen>) {
    let services = NAMES.map(|name| {
        let view = state.service(&key(name))?;
        Some((view.service.clone(), view.slices.into_iter().cloned().collect()))
    });
    (state.node().clone(), state.counts(), services.into())
}

/// The last word on each object, in a canonical order.
fn last_words(events: &[Event]) -> Vec<Event> {
    let mut last = BTreeMap::new();
    for event in events {
        let id = match event {
            Event::Service(key, _) => (0, key.to_string()),
            Event::EndpointSlice(key, _) => (1, key.to_string()),
            Event::Node(name, _) => (2, name.to_string()),
            Event::Pod(..) | Event::Namespace(..) => unreachable!("not generated"),
            Event::NetworkPolicy(..) | Event::ClusterNetworkPolicy(..) => unreachable!("not generated"),
            Event::PolicySync(_) | Event::NodeAddresses(_) => unreachable!("not generated"),
            Event::Problems(..) | Event::Synced => unreachable!("not generated"),
        };
        last.insert(id, event.clone());
    }
    last.into_values().collect()
}

proptest! {
    /// However it came about, the state is what the last word on each object makes it.
    #[test]
    fn history_does_not_matter(events in prop::collection::vec(any_event(), 0..60), reverse: bool) {
        let mut state = State::new("here");
        for event in &events {
            state.apply(event.clone());
        }
        let mut fresh = State::new("here");
        let mut words = last_words(&events);
        if reverse {
            words.reverse();
        }
        for event in words {
            fresh.apply(event);
        }
        prop_assert_eq!(seen(&state), seen(&fresh));
        prop_assert_eq!(state.entries.len(), fresh.entries.len());
        prop_assert_eq!(state.owners, fresh.owners);
    }

    /// Exactly those Services are dirty of which something is seen differently, or whose node's zone changed.
    #[test]
    fn dirty_is_exact(events in prop::collection::vec(any_event(), 0..60)) {
        let mut state = State::new("here");
        let mut copy = State::new("here");
        for event in events {
            state.apply(event.clone());
            let mut want = Vec::new();
            for name in NAMES {
                let (before, after) = (copy.service(&key(name)), state.service(&key(name)));
                let zone_changed = copy.node() != state.node() && after.is_some();
                if before != after || zone_changed {
                    want.push(key(name));
                }
            }
            prop_assert_eq!(state.take_dirty(), want);
            copy.apply(event);
        }
    }
}
