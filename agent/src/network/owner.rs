//! Whose a network namespace is, by the cgroups of the processes in it: pure.
//!
//! The kubelet puts all processes of a pod below a cgroup that is named by the pod's UID, whatever runs containers for it. The
//! first of them, the sandbox, is there before any container of the pod; so a pod is known before it sends anything, and
//! before anybody was told its address.

use std::sync::Arc;

use crate::host::{Process, is_in};
use crate::source::PodUid;

/// Whose a network namespace is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Owner {
    /// Nobody is in it yet who says so.
    #[default]
    Unknown,
    /// A pod of the kubelet's.
    Pod(PodUid),
    /// No process has been in it for a minute: a person's (`ip netns`), or a pod's that is not finished.
    Nobody,
    /// Somebody else's: a container of another runtime, a person's. In which cgroup, for people.
    Other(Arc<str>),
}

/// What the processes of a namespace say, and which of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Witness {
    pub(super) owner: Owner,
    /// Whether it can be no pod that is still being made.
    pub(super) is_sure: bool,
    pid: u32,
    started: u64,
}

impl Witness {
    /// Whether both are of one process.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.pid, self.started, &self.owner) == (other.pid, other.started, &other.owner)
    }

    /// Whether it is still in the network namespace with this inode.
    pub(super) fn is_still_in(&self, netns: u64) -> bool {
        is_in(self.pid, self.started, netns)
    }
}

/// What the processes of one namespace say. Of several pods' the oldest has it: others have entered it. While a pod is being
/// made, those that make it may be there alone, in a cgroup of their own.
pub(super) fn witness(processes: &[&Process], init: &str) -> Option<Witness> {
    let oldest = |wanted: &dyn Fn(&Process) -> Option<Owner>| {
        let fitting = processes.iter().filter_map(|process| Some((process, wanted(process)?)));
        let (process, owner) = fitting.min_by_key(|(process, _)| (process.started, process.pid))?;
        Some((*process, owner))
    };
    let of_pod = |process: &Process| match outermost(&process.cgroup, init)? {
        Outermost::Pod(uid) => Some(Owner::Pod(uid)),
        _ => None,
    };
    let container = |process: &Process| match outermost(&process.cgroup, init)? {
        Outermost::Container(path) => Some(Owner::Other(path.into())),
        _ => None,
    };
    let any = |process: &Process| match outermost(&process.cgroup, init) {
        Some(Outermost::Sandbox) => None,
        _ => Some(Owner::Other(first_path(&process.cgroup).into())),
    };
    let (found, is_sure) = match oldest(&of_pod).or_else(|| oldest(&container)) {
        Some(found) => (found, true),
        None => (oldest(&any)?, false),
    };
    let (process, owner) = found;
    Some(Witness { owner, is_sure, pid: process.pid, started: process.started })
}

/// What a process is in, by the cgroups in these lines (`/proc/PID/cgroup`).
enum Outermost<'a> {
    Pod(PodUid),
    /// A container of an engine that is not the kubelet's, and what is in that: another cluster's node, too (kind, k3d).
    Container(&'a str),
    /// What a container runtime of the kubelet's has outside of the pod that it is for (Kata), which it does not name.
    Sandbox,
}

/// `init`: the lines of process 1. What both have in common is above the node, which may itself be in a container, and that in
/// a pod. Of several the outermost counts: the others were made by processes in it.
///
/// Pods' components are `pod<uid>` (cgroupfs driver) or `...-pod<uid with underscores>.slice` (systemd driver), below `kubepods`,
/// `kubepods.slice` or, in kind, `kubelet-kubepods.slice`; what is above our cgroup namespace is cut off (`/../..`).
fn outermost<'a>(cgroup: &'a str, init: &str) -> Option<Outermost<'a>> {
    paths(cgroup, init).find_map(|(path, below)| {
        let mut engine = "";
        below.into_iter().find_map(|component| {
            if let Some(uid) = parse_component(component) {
                return Some(Outermost::Pod(uid));
            }
            if component.starts_with("kata_overhead") {
                return Some(Outermost::Sandbox);
            }
            let above = std::mem::replace(&mut engine, component);
            match container_engine(component)? {
                "cri-containerd" | "crio" | "crio-conmon" => Some(Outermost::Sandbox),
                "" => is_engine(above).then_some(Outermost::Container(path)),
                engine => is_engine(engine).then_some(Outermost::Container(path)),
            }
        })
    })
}

/// The pod whose cgroup has this name.
pub(crate) fn parse_component(component: &str) -> Option<PodUid> {
    // `slice:prefix:id` where the kubelet has the systemd driver and the runtime the other one.
    let component = component.split(':').next().unwrap_or(component);
    let uid = match component.strip_suffix(".slice") {
        Some(slice) => {
            let (above, uid) = slice.rsplit_once("-pod")?;
            above.split('-').any(|part| part == "kubepods").then_some(uid)?
        }
        None => component.strip_prefix("pod")?,
    };
    PodUid::parse(uid)
}

/// What stands before the number of a container, which is 64 hexadecimal digits in runtimes' names of its cgroup; nothing if the
/// component is all number.
fn container_engine(component: &str) -> Option<&str> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let (engine, id) = name.rsplit_once(['-', ':']).unwrap_or(("", name));
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(engine)
}

/// Engines whose containers are no pods of a kubelet, unless they are in a pod's cgroup.
fn is_engine(name: &str) -> bool {
    ["docker", "libpod", "buildkit", "nerdctl", "lxc", "machine-libpod"]
        .iter()
        .any(|engine| name.starts_with(engine))
}

fn first_path(cgroup: &str) -> &str {
    lines(cgroup).map(|(_, path)| path).find(|path| *path != "/").unwrap_or("/")
}

/// Each path, and its components below what it has in common with process 1's.
fn paths<'a>(cgroup: &'a str, init: &str) -> impl Iterator<Item = (&'a str, Vec<&'a str>)> {
    lines(cgroup).map(move |(hierarchy, path)| {
        let above = lines(init).find(|(of, _)| *of == hierarchy).map_or("", |(_, path)| path);
        let mut above = components(above).peekable();
        let mut below = components(path).peekable();
        while above.peek().is_some() && above.peek() == below.peek() {
            above.next();
            below.next();
        }
        (path, below.collect())
    })
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

/// `hierarchy:controllers:path` (cgroups(7)); of version 2 `0::path`.
fn lines(cgroup: &str) -> impl Iterator<Item = (&str, &str)> {
    cgroup.lines().filter_map(|line| {
        let (hierarchy, rest) = line.split_once(':')?;
        Some((hierarchy, rest.split_once(':')?.1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_pod_uid(cgroup: &str, init: &str) -> Option<PodUid> {
        match outermost(cgroup, init)? {
            Outermost::Pod(uid) => Some(uid),
            _ => None,
        }
    }

    const UID: &str = "0b6fcf3e-7a0c-4a4e-9d7d-1f0a6e2b3c4d";
    const OTHER: &str = "11111111-2222-3333-4444-555555555555";
    const ID: &str = "8f2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f809";

    fn uid(text: &str) -> PodUid {
        PodUid::parse(text).unwrap()
    }

    fn fill(text: &str) -> String {
        let slice = UID.replace('-', "_");
        text.replace("<uid>", UID).replace("<uid_>", &slice).replace("<other>", OTHER).replace("<id>", ID)
    }

    #[test]
    fn pods_of_every_runtime_and_driver() {
        let rows = [
            (
                "containerd, systemd",
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<uid_>.slice/cri-containerd-<id>.scope",
            ),
            (
                "containerd, guaranteed",
                "0::/kubepods.slice/kubepods-pod<uid_>.slice/cri-containerd-<id>.scope",
            ),
            ("containerd, cgroupfs", "0::/kubepods/burstable/pod<uid>/<id>"),
            (
                "containerd, systemd for one of two",
                "0::/kubepods.slice/kubepods-pod<uid_>.slice:cri-containerd:<id>",
            ),
            (
                "CRI-O",
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid_>.slice/crio-<id>.scope",
            ),
            (
                "CRI-O, a container's own cgroups",
                "0::/kubepods.slice/kubepods-pod<uid_>.slice/crio-<id>.scope/container/init.scope",
            ),
            ("k3s", "0::/kubepods/besteffort/pod<uid>/<id>"),
            ("cri-dockerd", "0::/kubepods.slice/kubepods-pod<uid_>.slice/docker-<id>.scope"),
            (
                "kind",
                "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod<uid_>.slice/cri-containerd-<id>.scope",
            ),
            (
                "version 1",
                "12:pids:/kubepods/besteffort/pod<uid>/<id>\n11:memory:/kubepods/besteffort/pod<uid>/<id>\n1:name=systemd:/kubepods/besteffort/pod<uid>/<id>",
            ),
            ("hybrid", "5:cpu,cpuacct:/kubepods.slice/kubepods-pod<uid_>.slice/crio-<id>.scope\n0::/"),
            (
                "from a cgroup namespace beside it",
                "0::/../../kubepods-besteffort-pod<uid_>.slice/cri-containerd-<id>.scope",
            ),
            ("from a cgroup namespace beside it, cgroupfs", "0::/../../pod<uid>/<id>"),
            (
                "with a cgroup of its own that is named like another pod's",
                "0::/kubepods/pod<uid>/<id>/pod<other>",
            ),
        ];
        for (name, text) in rows {
            assert_eq!(parse_pod_uid(&fill(text), "0::/init.scope\n"), Some(uid(UID)), "{name}");
        }
    }

    #[test]
    fn a_node_in_a_container_of_this_machine_is_another_clusters() {
        let kind = "/system.slice/docker-<id>.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod<uid_>.slice/cri-containerd-<id>.scope";
        let k3d = "/docker/<id>/kubepods/besteffort/pod<uid>/<id>";
        let podman = "/machine.slice/libpod-<id>.scope/container/kubelet.slice/kubelet-kubepods-pod<uid_>.slice/crio-<id>.scope";
        for path in [kind, k3d, podman] {
            let path = fill(path);
            let (owner, is_sure) = said(&[process(7, 7, &format!("0::{path}"))]).unwrap();
            let is_pods = matches!(owner, Owner::Pod(_));
            // `kubelet-kubepods` is below what is a container of this machine.
            assert_eq!((is_pods, is_sure), (false, true), "{path}: {owner:?}");
        }
        // On that node itself they are its pods.
        let rows = [(kind, "/system.slice/docker-<id>.scope/init.scope"), (k3d, "/docker/<id>/init")];
        for (path, init) in rows {
            let (path, init) = (fill(&format!("0::{path}")), fill(&format!("0::{init}")));
            assert_eq!(parse_pod_uid(&path, &init), Some(uid(UID)), "{path}");
        }
    }

    #[test]
    fn a_sandbox_outside_of_its_pod_is_nobodys_yet() {
        let rows = [
            "0::/kata_overhead/<id>",
            "0::/system.slice/kata_overhead-<id>.scope",
            "3:pids:/kata_overhead/<id>\n0::/",
            "0::/system.slice/cri-containerd-<id>.scope",
            "0::/system.slice/crio-<id>.scope",
            "0::/system.slice/crio-conmon-<id>.scope",
        ];
        for text in rows {
            assert_eq!(said(&[process(7, 7, text)]), None, "{text}");
            // The pod's own processes are heard.
            let own = process(8, 8, "0::/kubepods/pod<uid>/<id>");
            assert_eq!(said(&[process(7, 7, text), own]), Some((Owner::Pod(uid(UID)), true)), "{text}");
        }
        // It might be anybody's: whoever stays is no pod in the making.
        let (_, is_sure) = said(&[process(7, 7, "0::/default/<id>")]).unwrap();
        assert!(!is_sure);
        let engines = ["/docker/<id>", "/docker/buildkit/<id>", "/machine.slice/libpod-<id>.scope/container"];
        for path in engines {
            let path = fill(path);
            let other = Owner::Other(path.as_str().into());
            assert_eq!(said(&[process(7, 7, &format!("0::{path}"))]), Some((other, true)), "{path}");
        }
    }

    #[test]
    fn a_static_pod_has_the_hash_of_its_manifest() {
        let hash = "d41d8cd98f00b204e9800998ecf8427e";
        for text in [
            format!("0::/kubepods/burstable/pod{hash}/{ID}"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{hash}.slice/crio-{ID}.scope"
            ),
        ] {
            assert_eq!(parse_pod_uid(&text, ""), Some(uid(hash)), "{text}");
        }
    }

    #[test]
    fn what_is_in_no_pod() {
        let rows = [
            "0::/",
            "0::/init.scope",
            "0::/system.slice/containerd.service",
            "0::/system.slice/docker-<id>.scope",
            "0::/docker/<id>",
            "0::/machine.slice/libpod-<id>.scope/container",
            "0::/machine.slice/machine-libpod_pod_<id>.slice/libpod-<id>.scope",
            "0::/user.slice/user-1000.slice/podman-1.scope",
            "0::/lxc.payload.web",
            "0::/kubepods.slice/kubepods-besteffort.slice",
            "0::/user.slice/mine-pod<uid_>.slice",
            "0::/kubepods/podinfo",
            "no lines at all",
            "",
        ];
        for text in rows {
            assert_eq!(parse_pod_uid(&fill(text), "0::/init.scope"), None, "{text}");
        }
    }

    #[test]
    fn what_is_above_the_node_is_not_its_pods() {
        // A node that is a container in a pod of another cluster, seen from the machine.
        let init =
            fill("3:pids:/kubepods/pod<other>/<id>/init.scope\n0::/kubepods/pod<other>/<id>/init.scope");
        let pod = fill("3:pids:/kubepods/pod<other>/<id>/kubelet/kubepods/pod<uid>/a\n0::/");
        assert_eq!(parse_pod_uid(&pod, &init), Some(uid(UID)));
        assert_eq!(parse_pod_uid(&fill("3:pids:/kubepods/pod<other>/<id>/docker/x"), &init), None);
    }

    fn process(pid: u32, started: u64, cgroup: &str) -> Process {
        Process { pid, started, netns: 1, cgroup: fill(cgroup) }
    }

    fn said(processes: &[Process]) -> Option<(Owner, bool)> {
        let all: Vec<&Process> = processes.iter().collect();
        witness(&all, "0::/init.scope").map(|witness| (witness.owner, witness.is_sure))
    }

    #[test]
    fn who_makes_a_pod_does_not_own_it() {
        let pause = process(20, 200, "0::/kubepods/pod<uid>/<id>");
        let plugin = process(10, 100, "0::/system.slice/containerd.service");
        let entered = process(5, 300, "0::/kubepods/pod<other>/<id>");
        let pod = || Some((Owner::Pod(uid(UID)), true));
        assert_eq!(said(&[]), None);
        assert_eq!(said(std::slice::from_ref(&pause)), pod());
        assert_eq!(said(&[plugin.clone(), pause.clone()]), pod());
        assert_eq!(said(&[entered.clone(), pause.clone(), plugin.clone()]), pod(), "it has entered later");
        let plugins = Owner::Other("/system.slice/containerd.service".into());
        assert_eq!(said(std::slice::from_ref(&plugin)), Some((plugins, false)), "a pod may be in the making");
        let docker = process(30, 300, "0::/system.slice/docker-<id>.scope");
        let path = fill("/system.slice/docker-<id>.scope");
        assert_eq!(said(&[plugin, docker]), Some((Owner::Other(path.into()), true)));
    }
}
