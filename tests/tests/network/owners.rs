//! Whose pods' namespaces are, by real processes in cgroups that are named as the kubelet, and others, name them.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};

use weir_agent::network::{Facts, Owner, Seeks};
use weir_agent::source::PodUid;
use weir_tests::lab::cgroup;
use weir_tests::lab::netns::Netns;

use crate::stage::{Stage, run, until};

const UID: &str = "0b6fcf3e-7a0c-4a4e-9d7d-1f0a6e2b3c4d";

/// A cgroup of the tests' own, removed with all that is in it.
struct Cgroups(PathBuf);

impl Cgroups {
    fn new(name: &str) -> Self {
        let root = cgroup::ensure_root().unwrap().join(format!("weir-own-{}-{name}", std::process::id()));
        cgroup::ensure(&root).unwrap();
        Self(root)
    }

    /// A process in a namespace and a cgroup.
    fn run(&self, netns: &Netns, below: &str) -> Process {
        let dir = self.0.join(below);
        cgroup::ensure(&dir).unwrap();
        let (netns, procs) = (netns.open().unwrap(), dir.join("cgroup.procs"));
        let procs = std::fs::OpenOptions::new().write(true).open(procs).unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        let enter = move || {
            nix::unistd::write(&procs, b"0")?;
            nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
            Ok(())
        };
        // SAFETY: between fork and exec only two system calls on files that are already open; no allocation.
        unsafe { command.pre_exec(enter) };
        Process(command.spawn().unwrap())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        cgroup::kill(&self.0).unwrap();
        cgroup::remove(&self.0).unwrap();
    }
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn owner(facts: &Facts, device: u32) -> Option<&Owner> {
    facts.pods.get(&device).map(|pod| &pod.owner)
}

fn uid() -> Owner {
    Owner::Pod(PodUid::parse(UID).unwrap())
}

#[test]
fn a_pod_is_known_when_its_first_process_is_there() {
    let cgroups = Cgroups::new("pod");
    let mut stage = Stage::new("owner");
    let mut watch = stage.watch();
    let pod = stage.pod("p1", &["10.244.1.5/24"]);
    let index = stage.index("p1");
    let facts = until(&mut watch, "the pod", |facts| {
        facts.pods.get(&index).is_some_and(|pod| !pod.addresses.is_empty() && pod.netns.is_some())
    });
    assert_eq!(owner(&facts, index), Some(&Owner::Unknown));
    let slice = UID.replace('-', "_");
    let _pause = cgroups.run(
        &pod,
        &format!("kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{slice}.slice/cri-containerd-a.scope"),
    );
    let facts = until(&mut watch, "whose it is", |facts| owner(facts, index) == Some(&uid()));
    assert_eq!(facts.pods[&index].early, facts.pods[&index].addresses);
    // What it adds to its device now was not given to it.
    run(&pod, &["address add 10.244.1.6/24 dev eth0"]);
    let facts = until(&mut watch, "another address", |facts| facts.pods[&index].addresses.len() == 2);
    assert_eq!(facts.pods[&index].early, facts.pods[&index].addresses[..1]);
}

#[test]
fn an_agent_that_starts_knows_at_once_whose_they_are() {
    let cgroups = Cgroups::new("late");
    let mut stage = Stage::new("late");
    let (pod, other) = (stage.pod("p1", &["10.244.1.5/24"]), stage.pod("p2", &["10.244.1.6/24"]));
    let _pause = cgroups.run(&pod, &format!("kubepods/pod{UID}/a"));
    let container = format!("docker-{}.scope", "0a".repeat(32));
    let _container = cgroups.run(&other, &container);
    let facts = stage.watch().now();
    assert_eq!(owner(&facts, stage.index("p1")), Some(&uid()));
    match owner(&facts, stage.index("p2")) {
        Some(Owner::Other(cgroup)) => assert!(cgroup.ends_with(&container), "{cgroup}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_in_no_container_is_no_pod_when_it_has_stayed() {
    let cgroups = Cgroups::new("plain");
    let mut stage = Stage::new("plain");
    let mut watch = stage.watch();
    let pod = stage.pod("p1", &["10.244.1.5/24"]);
    let index = stage.index("p1");
    let plugin = cgroups.run(&pod, "system.slice/containerd.service");
    until(&mut watch, "the process", |facts| matches!(owner(facts, index), Some(Owner::Other(_))));
    drop(plugin);
    stage.remove(&pod);
    until(&mut watch, "the namespace gone", |facts| facts.pods.is_empty());
}

#[test]
fn pods_without_a_veth_are_found_when_they_are_sought() {
    let cgroups = Cgroups::new("else");
    let mut stage = Stage::new("else");
    let mut watch = stage.watch();
    watch.seek(Seeks::default());
    let elsewhere = stage.namespace("macvlan");
    let _pause = cgroups.run(&elsewhere, &format!("kubepods/pod{UID}/a"));
    watch.seek(Seeks { elsewhere: true, making: false });
    // Pods of other tests are somewhere else as well.
    let cookie = elsewhere.enter(weir_agent::network::own_netns).unwrap();
    let wanted = PodUid::parse(UID).unwrap();
    until(&mut watch, "the pod elsewhere", |facts| facts.elsewhere.get(&cookie) == Some(&wanted));
}

#[test]
fn a_pod_without_a_veth_whose_sandbox_is_made_anew_is_found_again() {
    let cgroups = Cgroups::new("anew");
    let mut stage = Stage::new("anew");
    let mut watch = stage.watch();
    let wanted = PodUid::parse("22222222-7a0c-4a4e-9d7d-1f0a6e2b3c4d").unwrap();
    let below = format!("kubepods/pod{wanted}/a");
    let cookies = |facts: &Facts| {
        let own = facts.elsewhere.iter().filter(|(_, uid)| **uid == wanted);
        own.map(|(cookie, _)| *cookie).collect::<Vec<_>>()
    };
    let first = stage.namespace("first");
    let pause = cgroups.run(&first, &below);
    let cookie = first.enter(weir_agent::network::own_netns).unwrap();
    watch.seek(Seeks { elsewhere: true, making: false });
    until(&mut watch, "the pod elsewhere", |facts| cookies(facts) == [cookie]);
    // All are found: nobody is sought any more.
    watch.seek(Seeks::default());
    let second = stage.namespace("second");
    let _pause = cgroups.run(&second, &below);
    drop(pause);
    stage.remove(&first);
    let cookie = second.enter(weir_agent::network::own_netns).unwrap();
    until(&mut watch, "its new sandbox", |facts| cookies(facts) == [cookie]);
}
