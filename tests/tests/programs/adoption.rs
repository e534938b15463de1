//! Restarts: the same maps, other sizes, a foreign map, nothing left behind.

use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use weir_agent::kernel::{
    KernelPolicyStore, Migrated, PinRoot, attached, cleanup, connected_sockets, expected, flow_forms,
    insert_flow, migrate_clients,
};
use weir_agent::source::{Family, Protocol};
use weir_agent::tables::{PolicySnapshot, Sizes};
use weir_ebpf::abi::{
    Addr, BoundPod, ClassId, Enforcement, Flow, Form, NetworkKey, Peer, PodPolicy, PolicyName, PolicyNameKey,
    PolicySetId, Port, PortRule, PortRuleKey, PortRulesId, Signs, VerdictKey,
};

use crate::world::{SIZES, World, named, plan, tcp_server, vip};

fn ask(addr: SocketAddr) -> std::io::Result<u16> {
    let mut answer = [0; 2];
    TcpStream::connect(addr)?.read_exact(&mut answer)?;
    Ok(u16::from_be_bytes(answer))
}

#[test]
fn a_restart_adopts_the_maps_and_replaces_the_programs_in_their_links() {
    let mut world = World::new("adopt");
    let server = tcp_server("127.0.0.1");
    world.apply(&plan(Protocol::Tcp, &[server]));
    assert_eq!(ask(vip(Family::V4)).unwrap(), server.port());
    let before = attached(&world.root).unwrap();
    world.restart(SIZES);
    let after = attached(&world.root).unwrap();
    assert_eq!(before.len(), expected());
    assert_eq!(after.len(), expected());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before.hook, before.cgroup), (&after.hook, after.cgroup));
        assert_ne!(before.program, after.program, "{}: the new agent's program runs", after.hook);
    }
    assert_eq!(world.tables.usage().services, 1);
    assert_eq!(ask(vip(Family::V4)).unwrap(), server.port());
}

#[test]
fn other_sizes_build_new_maps_and_keep_what_sockets_know() {
    let mut world = World::new("resize");
    let server = tcp_server("127.0.0.1");
    // The Service's number is one that the smaller tables do not have.
    for other in 0..8 {
        world.apply(&named(&format!("other{other}"), &plan(Protocol::Udp, &[])));
    }
    world.apply(&plan(Protocol::Tcp, &[server]));
    let open = TcpStream::connect(vip(Family::V4)).unwrap();
    let old = world.generation.clone();
    world.restart(Sizes { services: 4, ..SIZES });
    world.apply(&plan(Protocol::Tcp, &[server]));
    assert_eq!(migrate_clients(&old, &world.generation).unwrap(), Migrated { rows: 1, cut: 0 });
    world.generation.remove_others().unwrap();
    assert_eq!(open.peer_addr().unwrap(), vip(Family::V4), "the open socket still knows whom it dialled");
    assert_eq!(ask(vip(Family::V4)).unwrap(), server.port());
    let sockets = connected_sockets(&world.generation).unwrap();
    assert!(!sockets.is_empty());
    for (_, row) in sockets {
        assert!(
            !world.tables.is_stale(row.service, row.backend(), Protocol::Tcp),
            "{row:?}: it is still served"
        );
    }
}

#[test]
fn flows_that_do_not_fit_into_a_smaller_table_are_left_out_whole() {
    let mut world = World::new("shrink");
    let plan = plan(Protocol::Tcp, &[]);
    world.apply(&plan);
    let service = world.store.snapshot().unwrap().names[0].0;
    let peer = |text: String| Peer::from(text.parse::<SocketAddr>().unwrap());
    // Of three rows each; the later ones were seen later.
    let flows: Vec<Flow> = (0..12_u32)
        .map(|number| {
            let client = peer(format!("198.51.100.1:{}", 1000 + number));
            let (dialled, backend) = (peer("192.0.2.1:30080".into()), peer("10.244.2.7:8080".into()));
            let mut flow = Flow::new(client, dialled, backend, service, 100 - number);
            flow.set_source(peer(format!("192.0.2.1:{}", 20_000 + number)));
            let rows = [Form::Received, Form::Forwarded, Form::Dialled];
            let rows = rows.map(|form| (form, 200 + number, Signs::SEEN));
            insert_flow(&world.generation, Protocol::Tcp, &flow, &rows).unwrap();
            flow
        })
        .collect();
    let old = world.generation.clone();
    world.restart(Sizes { flows: 16, ..SIZES });
    world.apply(&plan);
    assert_eq!(migrate_clients(&old, &world.generation).unwrap(), Migrated { rows: 15, cut: 7 });
    let forms = |flow: &Flow| flow_forms(&world.generation, Protocol::Tcp, flow).unwrap().len();
    let left: Vec<usize> = flows.iter().map(forms).collect();
    assert_eq!(left, [0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3, 3], "those that were idle longest are cut, whole");
    // Again, once the programs were replaced.
    assert_eq!(migrate_clients(&old, &world.generation).unwrap(), Migrated { rows: 0, cut: 7 });
}

/// A pod that may get what eight ports are allowed, from a network and from an address.
fn policies() -> PolicySnapshot {
    let (set, ports, class) = (PolicySetId(9), PortRulesId(9), ClassId(9));
    let addr = |text: &str| Addr::from(text.parse::<std::net::IpAddr>().unwrap());
    let rule = |port| (PortRuleKey::new(ports, Protocol::Tcp as u8, Port::new(port), 16), PortRule::ALLOW);
    let isolated = PodPolicy { ingress: set, ..PodPolicy::OPEN };
    PolicySnapshot {
        enforcement: Enforcement::new(Enforcement::ON, 3, 16),
        pods: [(7, BoundPod::new(addr("10.244.1.7"), addr("fd00:10:244:1::7"), isolated, 0))].into(),
        addresses: [(addr("10.244.2.7"), class)].into(),
        networks: [(NetworkKey::new(addr("198.51.100.0"), 120), class)].into(),
        verdicts: [(VerdictKey { set, class }, ports)].into(),
        port_rules: (80..88).map(rule).collect(),
        names: [(PolicyNameKey { kind: PolicyNameKey::SET, id: set.0 }, PolicyName([9; 16]))].into(),
    }
}

#[test]
fn other_sizes_keep_policies_in_force() {
    let mut world = World::new("carry");
    let old = policies();
    assert_eq!(old.carry_to(&mut KernelPolicyStore::open(&world.generation).unwrap()).unwrap(), 0);
    let first = world.generation.clone();
    let found = || KernelPolicyStore::open(&first).unwrap().snapshot().unwrap();
    assert_eq!(found(), old);
    world.restart(Sizes { verdicts: 128, ..SIZES });
    let mut wider = KernelPolicyStore::open(&world.generation).unwrap();
    assert_eq!((found().carry_to(&mut wider).unwrap(), wider.snapshot().unwrap()), (0, old));
    // Where they do not fit, the isolated side is closed, and the other stays open.
    world.restart(Sizes { port_rules: 4, ..SIZES });
    let mut narrower = KernelPolicyStore::open(&world.generation).unwrap();
    assert_eq!(found().carry_to(&mut narrower).unwrap(), 4, "half of the ports");
    let policy = narrower.snapshot().unwrap().pods[&7].policy;
    assert_eq!(policy, PodPolicy { ingress: PolicySetId::CLOSED, ..PodPolicy::OPEN });
}

#[test]
fn another_cgroup_takes_the_hooks_over_and_so_does_the_first_one_again() {
    let mut world = World::new("cgroup");
    let server = tcp_server("127.0.0.1");
    world.apply(&plan(Protocol::Tcp, &[server]));
    let first = attached(&world.root).unwrap();
    let vanishing = world.sub_cgroup("vanishing");
    world.attach(&vanishing).unwrap();
    let second = attached(&world.root).unwrap();
    assert_eq!(second.len(), expected());
    let id = std::fs::metadata(&vanishing).unwrap().ino();
    assert!(second.iter().all(|hook| hook.cgroup == id), "{second:?}");
    assert_eq!(
        TcpStream::connect(vip(Family::V4)).unwrap_err().kind(),
        ErrorKind::NetworkUnreachable,
        "the hooks of the first cgroup are gone"
    );
    std::fs::remove_dir(&vanishing).unwrap();
    world.restart(SIZES);
    let third = attached(&world.root).unwrap();
    assert!(third.iter().zip(&first).all(|(now, then)| now.cgroup == then.cgroup), "{third:?}");
    assert_eq!(ask(vip(Family::V4)).unwrap(), server.port());
    let pins = std::fs::read_dir(world.root.path().join("links")).unwrap().count();
    assert_eq!(pins, expected(), "nothing is left aside");
}

#[test]
fn what_others_pinned_under_the_root_is_left_alone() {
    let world = World::new("others");
    let foreign = world.root.path().join("theirs");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::rename(world.maps().join("sets"), foreign.join("sets")).unwrap();
    world.generation.remove_others().unwrap();
    assert!(foreign.join("sets").exists());
    assert!(!cleanup(&world.root).unwrap().contains(&world.root.path().to_owned()));
    assert!(foreign.join("sets").exists());
    std::fs::remove_file(foreign.join("sets")).unwrap();
    std::fs::remove_dir(foreign).unwrap();
}

#[test]
fn a_directory_that_holds_something_is_not_covered_by_a_mount() {
    let dir = std::env::temp_dir().join(format!("weir-mount-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("precious"), "").unwrap();
    let result = PinRoot::new(dir.join("weir")).ensure();
    let seen = dir.join("precious").exists();
    let _unmounted = Command::new("umount").arg(&dir).stderr(Stdio::null()).status();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(seen, "covered");
    let error = format!("{:#}", result.unwrap_err());
    assert!(error.contains("is not empty"), "{error}");
}

#[test]
fn a_map_of_another_layout_is_refused_by_name() {
    let world = World::new("layout");
    let dir = world.maps();
    std::fs::remove_file(dir.join("sets")).unwrap();
    std::fs::rename(dir.join("backends"), dir.join("sets")).unwrap();
    let error = format!("{:#}", world.generation.load().unwrap_err());
    assert!(error.contains("/sets: a map of another layout"), "{error}");
}

#[test]
fn cleanup_does_not_pull_the_tables_from_under_an_agent() {
    let world = World::new("locked");
    let lock = world.root.lock().unwrap();
    assert!(format!("{:#}", world.root.lock().unwrap_err()).contains("an agent is running"));
    cleanup(&world.root).unwrap_err();
    assert_eq!(attached(&world.root).unwrap().len(), expected());
    drop(lock);
}

#[test]
fn cleanup_leaves_no_pin_and_no_program() {
    let mut world = World::new("cleanup");
    let server = tcp_server("127.0.0.1");
    world.apply(&plan(Protocol::Tcp, &[server]));
    assert_eq!(ask(vip(Family::V4)).unwrap(), server.port());
    let maps = std::fs::read_dir(world.maps()).unwrap().count();
    assert!(maps > 8, "{maps} maps are pinned");
    let removed = cleanup(&world.root).unwrap();
    assert_eq!(removed.len(), expected() + maps + 4, "hooks, maps, directories");
    assert!(!world.root.path().exists());
    // Nothing translates any more, and the namespace has no route but that of loopback.
    assert_eq!(TcpStream::connect(vip(Family::V4)).unwrap_err().kind(), ErrorKind::NetworkUnreachable);
    assert_eq!(cleanup(&world.root).unwrap(), Vec::<std::path::PathBuf>::new(), "twice is no error");
}
