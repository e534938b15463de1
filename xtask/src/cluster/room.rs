//! How a room comes to be: a process joins its cgroups and its network, takes namespaces of its own for the rest, and
//! starts the room's first process ([`super::inside`]). When that one ends, so does everything in the room.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::setsid;

use super::cgroups;
use super::node;
use super::pki::Authority;
use super::plan::{Plan, Room, State};
use crate::shell::run_quietly;

/// Folders that a room keeps on disk: where they are in it, and below [`State::room`].
pub(super) const FOLDERS: [(&str, &str); 5] = [
    ("/etc/kubernetes", "kubernetes"),
    ("/etc/cni/net.d", "cni"),
    ("/var/log", "log"),
    // Images and volumes: a file system in memory is not for them, and layers cannot lie on layers.
    ("/var/lib/containerd", "containerd"),
    ("/var/lib/kubelet", "kubelet"),
];

/// Writes what the room reads, and makes the folders that it writes to.
pub(super) fn prepare(state: &State, plan: &Plan, authority: &Authority, room: Room) -> Result<()> {
    let folder = state.room(room);
    for (_, name) in FOLDERS {
        let path = folder.join(name);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    }
    let kubernetes = folder.join("kubernetes");
    match room {
        Room::Control => authority.write_control(&kubernetes),
        Room::Node(_) => {
            authority.write_node(room, &kubernetes)?;
            node::write_configs(plan, room, &kubernetes, &folder.join("cni"))
        }
    }
}

/// Starts the room; it goes on when this process ends.
pub(super) fn start(room: Room) -> Result<()> {
    let mut command = Command::new(env::current_exe().context("where this program is")?);
    run_quietly(command.args(["cluster", "room", &room.to_string()]))
}

/// What that process does: see the module.
pub(super) fn run(state: &State, room: Room) -> Result<()> {
    setsid().context("setsid")?;
    let program = env::current_exe().context("where this program is")?;
    let log = state.logs(room).join("room.log");
    let log =
        File::options().create(true).append(true).open(&log).with_context(|| log.display().to_string())?;
    let network = Path::new("/run/netns").join(room.to_string());
    let network = File::open(&network).with_context(|| network.display().to_string())?;
    cgroups::enter(room)?;
    setns(network, CloneFlags::CLONE_NEWNET).context("entering the network namespace")?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .context("unshare")?;
    let first = Command::new(program)
        .args(["cluster", "inside", &room.to_string()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting the room's first process")?;
    fs::write(state.pid(room), first.id().to_string())?;
    Ok(())
}
