//! The XDP program on devices: attached, replaced, in the other mode, refused, detached.

use std::collections::BTreeMap;

use weir_agent::kernel::{AttachedDevice, DeviceKind, Hooks, attached_devices, cleanup};
use weir_agent::network::Xdp;

use crate::stage::Stage;

/// A node with two veths and a bridge, of which only the bridge's driver takes no XDP programs.
struct World {
    stage: Stage,
    bridge: u32,
}

impl World {
    fn new(name: &str) -> Self {
        let stage = Stage::new(name);
        let bridge = stage.index("cni0");
        let world = Self { stage, bridge };
        world.pair(100);
        world.pair(200);
        world
    }

    fn pair(&self, first: u32) {
        let command = format!("link add a{first} index {first} type veth peer name b{first}");
        self.stage.ip(&[&command, &format!("link set a{first} up"), &format!("link set b{first} up")]);
    }

    fn load(&mut self, mode: Xdp) -> Hooks {
        self.stage.load().2.with_xdp(mode).unwrap()
    }

    fn sync(&mut self, hooks: &Hooks, wanted: &[(u32, DeviceKind)]) -> Vec<(u32, String)> {
        let wanted: BTreeMap<u32, DeviceKind> = wanted.iter().copied().collect();
        let (root, _) = self.stage.root();
        self.stage.node.enter(|| hooks.sync_devices(&root, &wanted)).unwrap()
    }

    /// The XDP programs alone.
    fn attached(&mut self) -> Vec<AttachedDevice> {
        let (root, _) = self.stage.root();
        let mut all = self.stage.node.enter(|| attached_devices(&root)).unwrap();
        all.retain(|found| found.hook.contains("xdp"));
        all
    }

    fn names(&mut self) -> Vec<(u32, String)> {
        self.attached().into_iter().map(|found| (found.device, found.hook)).collect()
    }
}

#[test]
fn from_one_mode_to_the_other_and_off() {
    let mut world = World::new("xdp-modes");
    let wanted = [(100, DeviceKind::Net), (200, DeviceKind::Pod)];
    let hooks = world.load(Xdp::Generic);
    assert_eq!(world.sync(&hooks, &wanted), []);
    let first = world.attached();
    assert_eq!(world.names(), [(100, "weir_xdp_generic".to_owned())], "not on pods' devices");
    assert_eq!(world.sync(&hooks, &wanted), []);
    assert_eq!(world.attached(), first, "what is as it should be is left alone");

    // Another agent: the same place, another program.
    let hooks = world.load(Xdp::Generic);
    assert_eq!(world.sync(&hooks, &wanted), []);
    assert_eq!(world.names(), [(100, "weir_xdp_generic".to_owned())]);
    assert!(world.attached()[0].program != first[0].program);

    // The other mode, for which the first has to go.
    let hooks = world.load(Xdp::Native);
    assert_eq!(world.sync(&hooks, &wanted), []);
    assert_eq!(world.names(), [(100, "weir_xdp_native".to_owned())]);

    let hooks = world.load(Xdp::Off);
    assert_eq!(world.sync(&hooks, &wanted), []);
    assert_eq!(world.names(), []);
}

#[test]
fn devices_come_and_go() {
    let mut world = World::new("xdp-devices");
    let hooks = world.load(Xdp::Native);
    assert_eq!(world.sync(&hooks, &[(100, DeviceKind::Net), (200, DeviceKind::Net)]), []);
    assert_eq!(world.names().len(), 2);
    // One is gone and another has its index, one is none of ours any more, and one is there no more at all.
    world.stage.ip(&["link del a100"]);
    world.pair(100);
    assert_eq!(world.names(), [(200, "weir_xdp_native".to_owned())]);
    let wanted = [(100, DeviceKind::Net), (200, DeviceKind::L3), (999, DeviceKind::Net)];
    assert_eq!(world.sync(&hooks, &wanted), []);
    assert_eq!(world.names(), [(100, "weir_xdp_native".to_owned())]);

    let (root, _) = world.stage.root();
    world.stage.node.enter(|| cleanup(&root)).unwrap();
    assert_eq!(world.stage.node.enter(|| attached_devices(&root)).unwrap(), []);
    assert!(!root.path().exists());
}

#[test]
fn a_driver_that_takes_none_is_named_and_the_others_have_theirs() {
    let mut world = World::new("xdp-refused");
    let bridge = world.bridge;
    let wanted = [(100, DeviceKind::Net), (bridge, DeviceKind::Net)];
    let hooks = world.load(Xdp::Native);
    let problems = world.sync(&hooks, &wanted);
    let [(device, what)] = problems.as_slice() else { panic!("{problems:?}") };
    assert_eq!(*device, bridge);
    assert!(what.contains("driver takes no XDP") && what.contains("by tc"), "{what}");
    assert_eq!(world.names(), [(100, "weir_xdp_native".to_owned())]);
    // Its tc programs are there all the same.
    let (root, _) = world.stage.root();
    let all = world.stage.node.enter(|| attached_devices(&root)).unwrap();
    assert_eq!(all.iter().filter(|found| found.device == bridge).count(), 2);
}
