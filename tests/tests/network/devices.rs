//! Programs on devices: attached, replaced, detached; and the rows that go with them.

use std::collections::BTreeMap;

use weir_agent::kernel::{
    AttachedDevice, DeviceKind, Generation, Hooks, NodeTables, PinRoot, attached_devices, cleanup,
};
use weir_agent::network::{Forwarding, NodeRows, RowOptions, SocketLb, Told, Xdp};
use weir_tests::lab::netns::Netns;

use crate::stage::{Stage, until};

/// A veth whose ends are both on the node, with these indexes.
fn pair(stage: &Stage, first: u32) {
    let command = format!("link add a{first} index {first} type veth peer name b{first}");
    stage.ip(&[&command, &format!("link set a{first} up"), &format!("link set b{first} up")]);
}

fn sync(node: &Netns, root: &PinRoot, hooks: &Hooks, wanted: &[(u32, DeviceKind)]) -> Vec<(u32, String)> {
    let wanted: BTreeMap<u32, DeviceKind> = wanted.iter().copied().collect();
    node.enter(|| hooks.sync_devices(root, &wanted)).unwrap()
}

fn attached(node: &Netns, root: &PinRoot) -> Vec<AttachedDevice> {
    node.enter(|| attached_devices(root)).unwrap()
}

fn names(found: &[AttachedDevice]) -> Vec<(u32, &str)> {
    found.iter().map(|found| (found.device, found.hook.as_str())).collect()
}

/// The whole life of programs on devices, by whichever way they are attached.
fn live(name: &str, prepare: fn(Hooks) -> Hooks) {
    let mut stage = Stage::new(name);
    let (root, _generation, hooks) = stage.load();
    let hooks = prepare(hooks);
    pair(&stage, 100);
    pair(&stage, 200);
    let node = stage.node.clone();
    let wanted = [(100, DeviceKind::Pod), (200, DeviceKind::Net)];
    assert_eq!(sync(&node, &root, &hooks, &wanted), []);
    let first = attached(&node, &root);
    let all = [(100, "weir_from_pod"), (100, "weir_to_pod"), (200, "weir_from_net"), (200, "weir_to_net")];
    assert_eq!(names(&first), all);
    assert_eq!(sync(&node, &root, &hooks, &wanted), []);
    assert_eq!(attached(&node, &root), first, "what is as it should be is left alone");

    // Another agent: the same places, other programs.
    let (_, _, hooks) = stage.load();
    let hooks = prepare(hooks);
    assert_eq!(sync(&node, &root, &hooks, &wanted), []);
    let second = attached(&node, &root);
    assert_eq!(names(&second), all);
    assert!(first.iter().zip(&second).all(|(old, new)| old.program != new.program));

    // One device is gone, and another has its index; one is none of ours any more; one is there no more at all.
    stage.ip(&["link del a100"]);
    pair(&stage, 100);
    let wanted = [(100, DeviceKind::Net), (200, DeviceKind::L3), (999, DeviceKind::Pod)];
    assert_eq!(sync(&node, &root, &hooks, &wanted), []);
    let found = attached(&node, &root);
    let all = [(100, "weir_from_net"), (100, "weir_to_net"), (200, "weir_from_l3"), (200, "weir_to_l3")];
    assert_eq!(names(&found), all);

    assert_eq!(sync(&node, &root, &hooks, &[(100, DeviceKind::Net)]), []);
    assert_eq!(names(&attached(&node, &root)), [(100, "weir_from_net"), (100, "weir_to_net")]);
    node.enter(|| cleanup(&root)).unwrap();
    assert_eq!(attached(&node, &root), []);
    assert!(!root.path().exists());
}

#[test]
fn by_links() {
    live("links", |hooks| hooks);
}

#[test]
fn by_filters() {
    live("filters", Hooks::without_tcx);
}

#[test]
fn links_stand_beside_somebodys_ingress() {
    let mut stage = Stage::new("ingress");
    let (root, _generation, hooks) = stage.load();
    add_ingress(&stage);
    assert_eq!(sync(&stage.node, &root, &hooks, &[(100, DeviceKind::Pod)]), []);
    assert_eq!(attached(&stage.node, &root).len(), 2);
}

/// There is no place for what the device sends: said so, and the other devices have theirs.
#[test]
fn filters_do_not_fit_beside_somebodys_ingress() {
    let mut stage = Stage::new("narrow");
    let (root, _generation, hooks) = stage.load();
    let hooks = hooks.without_tcx();
    add_ingress(&stage);
    pair(&stage, 200);
    let problems = sync(&stage.node, &root, &hooks, &[(100, DeviceKind::Pod), (200, DeviceKind::Pod)]);
    assert!(problems.iter().all(|(device, what)| *device == 100 && what.contains("ingress")), "{problems:?}");
    assert!(!problems.is_empty());
    assert!(attached(&stage.node, &root).iter().filter(|found| found.device == 200).count() == 2);
}

/// A device with a qdisc of somebody else's.
fn add_ingress(stage: &Stage) {
    pair(stage, 100);
    let arguments = ["qdisc", "add", "dev", "a100", "ingress"];
    let added = stage.node.enter(|| Ok(std::process::Command::new("tc").args(arguments).status()?));
    assert!(added.unwrap().success());
}

fn rows(stage: &mut Stage) -> NodeRows {
    let mut watch = stage.watch();
    let facts = until(&mut watch, "a pod's addresses", |facts| {
        facts.pods.values().map(|pod| pod.addresses.len()).sum::<usize>() == 2
    });
    let options = RowOptions {
        service_networks: vec!["10.96.0.0/12".parse().unwrap()],
        pod_networks: Vec::new(),
        source_ports: (16384, 29999),
        forwarding: Forwarding::Stack,
        socket_lb: SocketLb::All,
        shows_cluster_ip_clients: false,
        marks_forwarded: true,
        xdp: Xdp::Off,
    };
    NodeRows::compile(&facts, &Told::by_network(&facts), &options)
}

#[test]
fn rows_are_written_adopted_and_pruned() {
    let mut stage = Stage::new("rows");
    let (_, generation, _hooks) = stage.load();
    let open = |generation: &Generation| NodeTables::open(generation).unwrap();
    let _pod = stage.pod("p1", &["10.244.1.5/24", "fd00:1::5/64"]);
    let rows = rows(&mut stage);
    assert_eq!((rows.workloads.len(), rows.netns.len(), rows.devices.len()), (2, 2, 1));
    let mut tables = open(&generation);
    assert_eq!(tables.put(&rows), [""; 0]);
    assert_eq!(tables.held(), rows);
    let mut adopted = open(&generation);
    assert_eq!(adopted.held(), rows, "a restarted agent reads what is there");
    let mut fewer = rows.clone();
    fewer.workloads.clear();
    fewer.devices.clear();
    assert_eq!(adopted.put(&fewer), [""; 0]);
    assert_eq!(open(&generation).held(), rows, "nothing goes before its programs are gone");
    assert_eq!(adopted.prune(&fewer), [""; 0]);
    assert_eq!(open(&generation).held(), fewer);
}
