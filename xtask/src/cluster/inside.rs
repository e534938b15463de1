//! The first process of a room: makes it look like a machine of its own, starts its programs, starts them again when
//! they end, and reaps what others leave behind.
//!
//! Its root directory is the machine's with a layer in memory above it, so that what a node writes anywhere is seen by
//! nobody else and is gone with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::wait::wait;
use nix::unistd::{chdir, pivot_root, sethostname};

use super::plan::{Plan, Room, State};
use super::room::FOLDERS;
use super::service::{BINARIES, Service};
use super::{cgroups, control, node};

/// The node's own cgroup of version 2 is there as well: a path that no machine has by chance, for the agent's
/// `--cgroup-root` in deploy/overlays/cluster. Whatever becomes of that pod, it cannot mean the machine's root.
const OWN_CGROUP: &str = "run/weir-cluster/cgroup";
/// What a kubelet wants to set for the whole machine. Here it finds them set, in files of the room's own.
const KERNEL_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];
/// Between the end of a program and its next start.
const PAUSE: Duration = Duration::from_secs(1);

/// Never returns while all is well.
pub(super) fn run(state: &State, plan: &Plan, room: Room) -> Result<()> {
    sethostname(room.to_string()).context("sethostname")?;
    let root = make_root(state, plan, room)?;
    enter_root(&root)?;
    set_up_network(room)?;
    let services = match room {
        Room::Control => control::services(),
        Room::Node(_) => node::services(room),
    };
    supervise(&services)
}

/// Mounts everything below a new root directory, and says where that is.
fn make_root(state: &State, plan: &Plan, room: Room) -> Result<PathBuf> {
    // What is mounted from here on is seen by this room alone.
    propagate("/", MsFlags::MS_PRIVATE)?;
    let memory = state.room(room).join("memory");
    fs::create_dir_all(&memory)?;
    mount_new("tmpfs", &memory, None)?;
    let [upper, work, root] = ["upper", "work", "root"].map(|name| memory.join(name));
    for folder in [&upper, &work, &root] {
        fs::create_dir(folder)?;
    }
    let options = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    mount_new("overlay", &root, Some(&options))?;
    mount_new("proc", &root.join("proc"), None)?;
    mount_new("sysfs", &root.join("sys"), None)?;
    mount_new("bpf", &root.join("sys/fs/bpf"), None)?;
    mount_new("tmpfs", &root.join("run"), Some("mode=755"))?;
    mount_new("tmpfs", &root.join("tmp"), Some("mode=1777"))?;
    bind(Path::new("/dev"), &root.join("dev"))?;
    mount_cgroups(&root)?;
    for (place, name) in FOLDERS {
        bind(&state.room(room).join(name), &below(&root, place))?;
    }
    bind(&plan.binaries, &below(&root, BINARIES))?;
    for (name, value) in KERNEL_SETTINGS {
        let file = memory.join(name.replace('/', "."));
        fs::write(&file, value)?;
        bind(&file, &root.join("proc/sys").join(name))?;
    }
    Ok(root)
}

/// As the machine has them, but beginning at the room's own.
fn mount_cgroups(root: &Path) -> Result<()> {
    let hierarchies = cgroups::hierarchies()?;
    if !hierarchies.iter().any(|hierarchy| hierarchy.point == Path::new("/sys/fs/cgroup")) {
        mount_new("tmpfs", &root.join("sys/fs/cgroup"), Some("mode=755"))?;
    }
    for hierarchy in hierarchies {
        let point = root.join(hierarchy.point.strip_prefix("/").unwrap_or(&hierarchy.point));
        match &hierarchy.controllers {
            Some(controllers) => mount_new("cgroup", &point, Some(controllers))?,
            None => {
                mount_new("cgroup2", &point, None)?;
                cgroups::leave_root(&point)?;
                bind(&point, &root.join(OWN_CGROUP))?;
            }
        }
    }
    Ok(())
}

/// Makes `root` the root directory, and forgets the other one.
fn enter_root(root: &Path) -> Result<()> {
    chdir(root)?;
    pivot_root(".", ".").context("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).context("leaving the machine's root directory")?;
    chdir("/")?;
    // Pods may ask to see mounts of the node that come later, and to show it theirs.
    propagate("/", MsFlags::MS_SHARED)
}

/// A node forwards; the control plane, by which one might get out, does not.
fn set_up_network(room: Room) -> Result<()> {
    let forward = matches!(room, Room::Node(_));
    for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        let path = Path::new("/proc/sys/net").join(name);
        fs::write(&path, if forward { "1" } else { "0" }).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Starts all, and each again when it ends, in no order: each waits for what it needs, or ends and comes again.
fn supervise(services: &[Service]) -> Result<()> {
    let mut running: Vec<Option<Child>> = services.iter().map(|_| None).collect();
    loop {
        for (service, child) in services.iter().zip(&mut running) {
            if child.is_none() {
                *child = match service.start() {
                    Ok(started) => Some(started),
                    Err(error) => {
                        eprintln!("{}: {error}", service.program);
                        None
                    }
                };
            }
        }
        if running.iter().all(Option::is_none) {
            sleep(PAUSE);
            continue;
        }
        // Whoever lost its parent is a child of this process, too.
        let ended = wait().context("waiting for a process")?;
        for (service, child) in services.iter().zip(&mut running) {
            let is_this = |child: &Child| {
                ended.pid().is_some_and(|pid| i64::from(pid.as_raw()) == i64::from(child.id()))
            };
            if child.as_ref().is_some_and(is_this) {
                eprintln!("{} ended: {ended:?}", service.program);
                *child = None;
                sleep(PAUSE);
            }
        }
    }
}

fn propagate(at: &str, how: MsFlags) -> Result<()> {
    mount(None::<&str>, at, None::<&str>, MsFlags::MS_REC | how, None::<&str>)
        .with_context(|| format!("propagation of {at}"))
}

fn mount_new(kind: &str, at: &Path, options: Option<&str>) -> Result<()> {
    fs::create_dir_all(at).with_context(|| at.display().to_string())?;
    mount(Some(kind), at, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("mounting {kind} at {}", at.display()))
}

/// A file or a folder with all that is mounted in it.
fn bind(from: &Path, at: &Path) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(at).with_context(|| at.display().to_string())?;
    } else if !at.exists() {
        File::create(at).with_context(|| at.display().to_string())?;
    }
    mount(Some(from), at, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("binding {} to {}", from.display(), at.display()))
}

fn below(root: &Path, place: &str) -> PathBuf {
    root.join(place.trim_start_matches('/'))
}
