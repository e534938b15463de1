//! Who is behind which device, in the cases in which that is not plain.

mod others;

use super::*;
use crate::source::{Pod, PodIdentity};

/// Pods have UIDs by their numbers.
fn uid(number: u8) -> PodUid {
    PodUid::parse(&format!("{number:032x}")).unwrap()
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

fn pod(number: u8, created_s: i64, said: &[u8]) -> Pod {
    Pod {
        created_s: Some(created_s),
        addresses: said.iter().map(|last| ip(*last)).collect(),
        node: Some("here".into()),
        identity: Some(Box::new(PodIdentity { uid: uid(number), mirrors: None })),
        ..Pod::default()
    }
}

/// A device with addresses, the first `early` of which it had at first.
fn device(owner: Owner, early: usize, has: &[u8]) -> Device {
    let addresses: Vec<IpAddr> = has.iter().map(|last| ip(*last)).collect();
    let early = addresses[..early].to_vec();
    Device { owner, netns: Some(1), addresses, early, ..Device::default() }
}

fn of_pod(number: u8, has: &[u8]) -> Device {
    device(Owner::Pod(uid(number)), has.len(), has)
}

fn other(has: &[u8]) -> Device {
    device(Owner::Other("/docker".into()), 0, has)
}

/// A state and the devices of its node, put together again and again.
struct World {
    state: PolicyState,
    facts: Facts,
    networks: Vec<IpNet>,
    settled: BTreeSet<u32>,
    placement: Placement,
}

impl World {
    fn new(pods: &[(&str, Pod)], devices: Vec<(u32, Device)>) -> Self {
        let mut state = PolicyState::new("here".into());
        for (name, pod) in pods {
            state.apply_pod(&key(name), Some(pod.clone()));
        }
        let facts = Facts { pods: devices.into_iter().collect(), ..Facts::default() };
        let mut world = Self {
            state,
            facts,
            networks: Vec::new(),
            settled: BTreeSet::new(),
            placement: Placement::default(),
        };
        world.place();
        world
    }

    fn place(&mut self) {
        let placement = self.put();
        self.state.set_placement(&placement);
        self.placement = placement;
        // Nothing of it depends on how often it was said.
        let again = self.put();
        assert_eq!(again, self.placement);
    }

    fn put(&self) -> Placement {
        let (networks, settled) = (&*self.networks, &self.settled);
        self.state.place(&self.facts, &Given { before: &self.placement.addresses, networks, settled })
    }

    fn set(&mut self, name: &str, pod: Option<Pod>) {
        self.state.apply_pod(&key(name), pod);
        self.place();
    }

    fn plug(&mut self, index: u32, device: Option<Device>) {
        match device {
            Some(device) => self.facts.pods.insert(index, device),
            None => self.facts.pods.remove(&index),
        };
        self.place();
    }

    fn holder(&self, last: u8) -> Option<u32> {
        self.placement.addresses.get(&ip(last)).copied()
    }

    fn behind(&self, index: u32) -> &Behind {
        &self.placement.devices[&index]
    }

    fn owner(&self, last: u8) -> Option<&str> {
        self.state.owner(ip(last)).map(|view| &**view.name)
    }
}

/// Where an agent before this one wrote down who had which address.
fn place_after(state: &PolicyState, facts: &Facts, before: BTreeMap<IpAddr, u32>) -> Placement {
    state.place(facts, &Given { before: &before, networks: &[], settled: &BTreeSet::new() })
}

#[test]
fn a_pod_is_known_before_its_status_says_an_address() {
    let mut world = World::new(&[("a", pod(1, 1, &[]))], vec![(7, of_pod(1, &[5]))]);
    assert_eq!(*world.behind(7), Behind::Pod(key("a")));
    assert_eq!((world.holder(5), world.owner(5)), (Some(7), Some("a")));
    // It says something else than addresses: what it was made with stays.
    world.set("a", Some(Pod { labels: [("x".into(), "y".into())].into_iter().collect(), ..pod(1, 1, &[]) }));
    assert_eq!(world.owner(5), Some("a"));
    world.plug(7, Some(device(Owner::Pod(uid(1)), 1, &[5, 6])));
    world.set("a", Some(pod(1, 1, &[6])));
    assert_eq!((world.owner(5), world.holder(5)), (None, None), "the status wins once it is there");
    assert_eq!((world.owner(6), world.holder(6)), (Some("a"), Some(7)));
    world.set("a", None);
    assert_eq!(*world.behind(7), Behind::Unknown(Unknown::NoPod(uid(1))));
    assert_eq!(world.owner(6), None);
}

#[test]
fn a_pod_before_its_object_is_unknown() {
    let mut world = World::new(&[], vec![(7, of_pod(1, &[5]))]);
    assert_eq!(*world.behind(7), Behind::Unknown(Unknown::NoPod(uid(1))));
    world.set("a", Some(pod(1, 1, &[])));
    assert_eq!(*world.behind(7), Behind::Pod(key("a")));
}

#[test]
fn what_a_pod_adds_to_its_device_is_not_its() {
    // Its status says 5, and it takes 6, which is a neighbour's, and 9, which nobody has.
    let pods = [("a", pod(1, 1, &[5])), ("b", pod(2, 2, &[6]))];
    let mut world = World::new(&pods, vec![(7, of_pod(1, &[5])), (8, of_pod(2, &[6]))]);
    world.plug(8, Some(device(Owner::Pod(uid(2)), 1, &[6, 5, 9])));
    assert_eq!((world.holder(5), world.holder(6), world.holder(9)), (Some(7), Some(8), None));
    assert_eq!(world.placement.contested, BTreeSet::from([(8, ip(5))]));
    // Before its status says anything: the same.
    let pods = [("a", pod(1, 1, &[])), ("b", pod(2, 2, &[]))];
    let mut world = World::new(&pods, vec![(7, of_pod(1, &[5])), (8, of_pod(2, &[6]))]);
    world.plug(7, Some(device(Owner::Pod(uid(1)), 1, &[5, 6, 9])));
    assert_eq!((world.holder(5), world.holder(6), world.holder(9)), (Some(7), Some(8), None));
    assert_eq!((world.owner(6), world.owner(9)), (Some("b"), None));
    // Somebody else's container takes it, before and after.
    world.plug(3, Some(other(&[6])));
    assert_eq!((world.holder(6), world.behind(3)), (Some(8), &Behind::Other("/docker".into())));
    world.set("b", Some(pod(2, 2, &[6])));
    assert_eq!(world.holder(6), Some(8));
}

#[test]
fn an_address_that_was_another_pods_is_the_new_ones() {
    // The old one's object and device are still there, then the object alone.
    let mut world = World::new(&[("old", pod(1, 1, &[5]))], vec![(7, of_pod(1, &[5]))]);
    world.set("new", Some(pod(2, 2, &[])));
    world.plug(8, Some(of_pod(2, &[5])));
    assert_eq!(
        (world.holder(5), world.owner(5)),
        (Some(7), Some("old")),
        "nothing says that it was given up"
    );
    assert_eq!(*world.behind(8), Behind::Unknown(Unknown::NoAddress(key("new"))));
    world.plug(7, None);
    assert_eq!(
        (world.holder(5), world.owner(5)),
        (Some(8), Some("new")),
        "though the old one's status says it"
    );
    // Or the status of both says so, and the device is still there.
    world.plug(7, Some(of_pod(1, &[5])));
    world.set("new", Some(pod(2, 2, &[5])));
    assert_eq!((world.holder(5), world.owner(5)), (Some(8), Some("new")));
    // Or the object of the old one is gone, and its device is not.
    let mut world = World::new(&[("old", pod(1, 1, &[5]))], vec![(7, of_pod(1, &[5]))]);
    world.set("new", Some(pod(2, 2, &[])));
    world.plug(8, Some(of_pod(2, &[5])));
    world.set("old", None);
    assert_eq!((world.holder(5), world.owner(5)), (Some(8), Some("new")));
}

#[test]
fn who_says_nothing_is_known_by_the_address_and_keeps_it() {
    let nameless = |said: &[u8]| Pod { identity: None, ..pod(0, 1, said) };
    let mut world = World::new(&[("a", nameless(&[5]))], vec![(7, device(Owner::Unknown, 0, &[5]))]);
    assert_eq!(*world.behind(7), Behind::Pod(key("a")));
    world.plug(6, Some(other(&[5])));
    assert_eq!(world.holder(5), Some(7), "who had it before");
    world.plug(9, Some(other(&[5])));
    assert_eq!(world.holder(5), Some(7));
    world.plug(7, Some(device(Owner::Unknown, 0, &[8])));
    assert_eq!((world.holder(5), world.holder(8)), (Some(6), Some(7)));
    assert_eq!(*world.behind(7), Behind::Unknown(Unknown::NoProcess));
    // Another agent finds what is written down.
    let facts = Facts { pods: [(6, other(&[5])), (9, other(&[5]))].into(), ..Facts::default() };
    let placement = place_after(&world.state, &facts, BTreeMap::from([(ip(5), 9)]));
    assert_eq!(placement.addresses[&ip(5)], 9);
    // One whose objects have no UIDs, on a node with a kubelet.
    world.plug(10, Some(of_pod(3, &[12])));
    world.set("b", Some(nameless(&[12])));
    assert_eq!(*world.behind(10), Behind::Pod(key("b")));
    world.set("b", Some(pod(4, 1, &[12])));
    assert_eq!(*world.behind(10), Behind::Unknown(Unknown::NoPod(uid(3))), "it is another's");
}

#[test]
fn a_sandbox_that_keeps_its_address_to_itself_is_found() {
    let mut world = World::new(&[("a", pod(1, 1, &[]))], vec![(7, of_pod(1, &[]))]);
    assert_eq!(*world.behind(7), Behind::Unknown(Unknown::NoAddress(key("a"))));
    world.set("a", Some(pod(1, 1, &[5])));
    assert_eq!((world.behind(7), world.holder(5)), (&Behind::Pod(key("a")), Some(7)));
}

#[test]
fn a_status_of_a_sandbox_before_gives_nobody_an_address() {
    // The node was restarted: the pod has 6 now, and what it had is another's.
    let mut world = World::new(&[("a", pod(1, 9, &[5]))], vec![(9, of_pod(1, &[6]))]);
    assert_eq!((world.behind(9), world.holder(6), world.holder(5)), (&Behind::Pod(key("a")), Some(9), None));
    assert_eq!((world.owner(6), world.owner(5)), (Some("a"), None));
    world.set("b", Some(pod(2, 1, &[])));
    world.plug(8, Some(of_pod(2, &[5])));
    assert_eq!(
        (world.behind(8), world.holder(5), world.owner(5)),
        (&Behind::Pod(key("b")), Some(8), Some("b"))
    );
    // It takes it, all the same.
    world.plug(9, Some(device(Owner::Pod(uid(1)), 1, &[6, 5])));
    assert_eq!((world.holder(5), world.owner(5)), (Some(8), Some("b")));
    world.plug(9, Some(of_pod(1, &[6])));
    // The status is told again for another reason, then anew.
    world.set("a", Some(Pod { labels: [("x".into(), "y".into())].into_iter().collect(), ..pod(1, 9, &[5]) }));
    assert_eq!((world.holder(6), world.owner(6)), (Some(9), Some("a")));
    world.set("a", Some(pod(1, 9, &[6])));
    assert_eq!(
        (world.behind(9), world.holder(6), world.owner(6)),
        (&Behind::Pod(key("a")), Some(9), Some("a"))
    );
    // Only the sandbox is made anew, while the agent runs.
    world.plug(9, None);
    world.plug(10, Some(of_pod(1, &[7])));
    assert_eq!((world.holder(7), world.owner(7), world.holder(6)), (Some(10), Some("a"), None));
    world.plug(10, None);
    assert_eq!(
        (world.owner(6), world.holder(6)),
        (Some("a"), Some(0)),
        "what the status says is not forgotten"
    );
}

#[test]
fn a_sandbox_is_made_anew_and_has_no_address_for_a_moment() {
    let mut world = World::new(&[("a", pod(1, 1, &[5]))], vec![(9, of_pod(1, &[]))]);
    world.plug(9, Some(device(Owner::Pod(uid(1)), 0, &[6])));
    assert_eq!(*world.behind(9), Behind::Unknown(Unknown::NoAddress(key("a"))));
    assert_eq!(world.holder(5), None);
    world.set("a", Some(pod(1, 1, &[6])));
    assert_eq!((world.behind(9), world.holder(6)), (&Behind::Pod(key("a")), Some(9)));
}

#[test]
fn what_a_pod_takes_off_its_device_stays_its() {
    let emptied = || Device { early: vec![ip(5)], ..device(Owner::Pod(uid(1)), 0, &[91]) };
    let mut world = World::new(&[("a", pod(1, 1, &[5]))], vec![(7, emptied())]);
    assert_eq!((world.holder(5), world.holder(91)), (Some(7), None));
    // Another agent did not see it there, and finds what is written down.
    let facts = Facts { pods: [(7, of_pod(1, &[91]))].into(), ..Facts::default() };
    let placement = place_after(&world.state, &facts, BTreeMap::from([(ip(5), 7)]));
    assert_eq!(placement.addresses, BTreeMap::from([(ip(5), 7)]));
    world.set("a", None);
    assert_eq!(world.holder(91), None);
}

#[test]
fn each_family_of_a_status_is_borne_out_by_itself() {
    let v6 = |last: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
    let status = Pod { addresses: [ip(5), v6(5)].into(), ..pod(1, 1, &[]) };
    // Its sandbox shows IPv4 only.
    let mut world = World::new(&[("a", status.clone())], vec![(7, of_pod(1, &[5]))]);
    assert_eq!((world.holder(5), world.placement.addresses.get(&v6(5))), (Some(7), Some(&7)));
    let both = Device { addresses: vec![ip(6), v6(5)], early: vec![ip(6), v6(5)], ..of_pod(1, &[]) };
    world.plug(7, None);
    world.plug(9, Some(both));
    assert_eq!(world.placement.addresses, BTreeMap::from([(ip(6), 9), (v6(5), 9)]));
    // The status has one family, and the device two.
    world.set("a", Some(pod(1, 1, &[6])));
    assert_eq!(world.placement.addresses, BTreeMap::from([(ip(6), 9)]));
}

#[test]
fn a_device_is_a_second_ones_only_if_the_first_is_plain() {
    // The status is of a sandbox before, and neither device has what it says.
    let devices = vec![(7, of_pod(1, &[6])), (8, of_pod(1, &[90]))];
    let world = World::new(&[("a", pod(1, 1, &[5]))], devices);
    assert!([7, 8].iter().all(|index| !matches!(world.behind(*index), Behind::Second(_))));
    // One has no address at all, which says nothing of the other.
    let devices = vec![(7, of_pod(1, &[6])), (8, of_pod(1, &[]))];
    let world = World::new(&[("a", pod(1, 1, &[5]))], devices);
    assert_eq!(*world.behind(7), Behind::Unknown(Unknown::NoAddress(key("a"))));
    // The address of the status went to another pod.
    let devices = vec![(7, of_pod(1, &[5])), (8, of_pod(1, &[90])), (9, of_pod(2, &[5]))];
    let world = World::new(&[("a", pod(1, 1, &[5])), ("b", pod(2, 2, &[5]))], devices);
    assert_eq!(*world.behind(8), Behind::Unknown(Unknown::NoAddress(key("a"))));
    // A pod takes its first address off, and the second's device is what it was.
    let first = Device { early: vec![ip(5)], ..of_pod(1, &[]) };
    let world = World::new(&[("a", pod(1, 1, &[5]))], vec![(7, first), (8, of_pod(1, &[90]))]);
    assert_eq!((world.behind(7), world.behind(8)), (&Behind::Pod(key("a")), &Behind::Second(key("a"))));
}

#[test]
fn a_second_network_is_no_policys_business_and_no_way_out_of_the_first() {
    let devices = || vec![(7, of_pod(1, &[5])), (8, of_pod(1, &[90]))];
    let mut world = World::new(&[("a", pod(1, 1, &[]))], devices());
    assert!(
        matches!((world.behind(7), world.behind(8)), (Behind::Pod(_), Behind::Pod(_))),
        "nobody knows which"
    );
    world.set("a", Some(pod(1, 1, &[5])));
    assert_eq!((world.behind(7), world.behind(8)), (&Behind::Pod(key("a")), &Behind::Second(key("a"))));
    assert_eq!(world.holder(90), None);
    // It moves its address to the other device.
    world.plug(8, Some(device(Owner::Pod(uid(1)), 1, &[90, 5])));
    let emptied = Device { early: vec![ip(5)], ..device(Owner::Pod(uid(1)), 0, &[91]) };
    world.plug(7, Some(emptied));
    assert_eq!((world.behind(7), world.holder(5)), (&Behind::Pod(key("a")), Some(7)));
    assert_eq!(*world.behind(8), Behind::Unknown(Unknown::NoAddress(key("a"))));
}

#[test]
fn a_static_pod_is_known_by_its_mirror_and_by_nobody_who_pretends() {
    let mirror = |number, created_s, of| Pod {
        identity: Some(Box::new(PodIdentity { uid: uid(number), mirrors: Some(uid(of)) })),
        ..pod(number, created_s, &[])
    };
    let mut world = World::new(&[("static", mirror(1, 1, 100))], vec![(7, of_pod(100, &[5]))]);
    assert_eq!(*world.behind(7), Behind::Pod(key("static")));
    world.set("liar", Some(mirror(2, 2, 100)));
    assert_eq!(*world.behind(7), Behind::Pod(key("static")));
    world.set("victim", Some(pod(3, 3, &[])));
    world.plug(8, Some(of_pod(3, &[6])));
    world.set("liar", Some(mirror(2, 0, 3)));
    assert_eq!(*world.behind(8), Behind::Pod(key("victim")));
}

#[test]
fn pods_without_a_device_are_sought_and_their_addresses_known() {
    let nameless = Pod { identity: None, ..pod(0, 1, &[9]) };
    let mut world = World::new(&[("macvlan", pod(1, 1, &[5])), ("manifest", nameless)], vec![]);
    assert_eq!(world.placement.unplaced, BTreeMap::from([(key("macvlan"), true), (key("manifest"), true)]));
    assert!(world.placement.seeks.elsewhere);
    assert_eq!((world.holder(5), world.holder(9)), (Some(0), Some(0)));
    world.facts.elsewhere.insert(33, uid(1));
    world.place();
    assert!(!world.placement.seeks.elsewhere);
    assert_eq!(world.placement.elsewhere, BTreeMap::from([(33, vec![ip(5)])]));
    // One that is being made is not sought: its device comes of itself.
    world.set("new", Some(pod(5, 1, &[])));
    assert!(!world.placement.seeks.elsewhere && world.placement.unplaced.contains_key(&key("new")));
    world.set("new", Some(pod(5, 1, &[55])));
    assert!(world.placement.seeks.elsewhere);
    // A pod of another node is nothing of this.
    world.set("there", Some(Pod { node: Some("there".into()), ..pod(4, 1, &[44]) }));
    assert_eq!(world.holder(44), None);
    assert_eq!(world.state.pod(&key("there")).unwrap().pod.identity, None, "nor is its UID kept");
}

#[test]
fn what_changes_hands_is_looked_at_again() {
    let mut world = World::new(&[("old", pod(1, 1, &[5]))], vec![]);
    world.state.take_changes();
    world.set("new", Some(pod(2, 2, &[])));
    world.plug(8, Some(of_pod(2, &[5])));
    let changes = world.state.take_changes();
    assert_eq!((changes.peers, changes.workloads), ([ip(5)].into(), [ip(5)].into()));
    world.place();
    assert_eq!(world.state.take_changes(), super::super::PolicyChanges::default());
    world.plug(8, None);
    assert_eq!(world.state.take_changes().workloads, [ip(5)].into());
    assert_eq!(world.owner(5), Some("old"));
}
