//! A node that is itself a container, as kind's are: PID, mount and cgroup namespaces of its own around Debian's
//! containerd, in the place of the lab's first node. No BPF file system is mounted on it. It ends when it is dropped,
//! and all that runs in it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use weir_tests::lab::{Cluster, Place};

use crate::memory::Charged;

/// How long containerd may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Kubernetes' namespace in containerd.
const NAMESPACE: &str = "k8s.io";

/// What makes a process the first of a node. `$1`: the node's cgroup, `$2`: the directory of containerd, `$3`: the
/// node's /etc, `$4`: where its containers' memory is charged, or nothing.
const INIT: &str = r#"
set -e
# The root of the node's cgroup namespace is where its first process is.
echo 0 > "$1/cgroup.procs"
exec unshare --cgroup --mount --propagation private --pid --fork --kill-child --mount-proc sh -c '
    set -e
    test -z "$2" || mount --bind "$2" "$0/memory"
    umount --recursive --lazy /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    while mountpoint --quiet /sys/fs/bpf; do umount --lazy /sys/fs/bpf; done
    mount --bind "$1" /etc
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /var/lib
    mount --make-rshared /
    exec containerd --config "$0/containerd.toml" >"$0/containerd.log" 2>&1
' "$2" "$3" "$4"
"#;

/// In the directory of containerd.
const RUNC: &str = "charged-runc";
/// What becomes the container's first process is one that runc makes.
const CHARGED_RUNC: &str = "#!/bin/sh\necho 0 > \"${0%/*}/memory/cgroup.procs\" && exec runc \"$@\"\n";

/// See the module.
pub(crate) struct Node {
    place: Place,
    directory: PathBuf,
    process: Child,
    is_charged: bool,
}

impl Node {
    /// Starts the node and its containerd, in the lab's first node, with this directory as its `/etc`.
    pub(crate) fn start(cluster: &Cluster, etc: &Path, charged: Option<&Charged>) -> Result<Self> {
        let node = cluster.lab().nodes().first().context("a lab without nodes")?;
        let directory = cluster.lab().directory().join("node");
        fs::create_dir_all(directory.join("memory"))?;
        write_program(&directory.join(RUNC), CHARGED_RUNC)?;
        let shown = directory.display();
        let config = format!(
            "version = 2\nroot = \"{shown}/root\"\nstate = \"/run/containerd\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"/run/containerd/containerd.sock\"\n"
        );
        fs::write(directory.join("containerd.toml"), config)?;
        let mut init = node.place().command("sh")?;
        init.args(["-c", INIT, "init"]).arg(node.cgroup()).arg(&directory).arg(etc);
        init.arg(charged.map(Charged::path).unwrap_or(Path::new("")));
        let process = init.stdin(Stdio::null()).spawn().context("starting the node")?;
        let (place, is_charged) = (node.place().clone(), charged.is_some());
        let mut node = Self { place, directory, process, is_charged };
        node.wait_ready()?;
        Ok(node)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.ctr(&["version"]) {
            if let Some(status) = self.process.try_wait()? {
                bail!("the node ended ({status}):\n{}", self.log());
            }
            ensure!(Instant::now() < deadline, "{error:#}\n{}", self.log());
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Runs `ctr` on the node.
    pub(crate) fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let output = self.try_ctr(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ctr {}: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// As [`Node::ctr`], whatever it comes to.
    pub(crate) fn try_ctr(&self, arguments: &[&str]) -> Result<Output> {
        // Nothing that it is asked for takes long; a container that should have ended must not hold up all others.
        let mut ctr = self.command("timeout")?;
        ctr.args(["60", "ctr", "--address", "/run/containerd/containerd.sock", "--namespace", NAMESPACE])
            .args(arguments);
        ctr.stdin(Stdio::null()).output().context("running ctr")
    }

    /// A program that will run on the node as an administrator would.
    pub(crate) fn command(&self, program: &str) -> Result<Command> {
        let mut enter = self.place.command("nsenter")?;
        enter.args(self.namespaces(&["mnt", "cgroup"])).arg("--").arg(program);
        Ok(enter)
    }

    /// A program that starts `program` among the node's processes, wherever else it is put: for pods.
    pub(crate) fn wrap(&self, program: &Path) -> Result<PathBuf> {
        let path = self.directory.join("in-node");
        let script = format!(
            "#!/bin/sh\nexec nsenter {} -- {} \"$@\"\n",
            self.namespaces(&[]).join(" "),
            program.display()
        );
        write_program(&path, &script)?;
        Ok(path)
    }

    /// What `ctr run` is told so that a container's memory is charged to the node's [`Charged`].
    pub(crate) fn runc(&self) -> Option<String> {
        self.is_charged.then(|| format!("--runc-binary={}", self.directory.join(RUNC).display()))
    }

    /// The node's namespaces, as arguments of nsenter: of processes always, and these.
    fn namespaces(&self, others: &[&str]) -> Vec<String> {
        let pid = self.process.id();
        let option = |kind: &str| match kind {
            "mnt" => format!("--mount=/proc/{pid}/ns/mnt"),
            kind => format!("--{kind}=/proc/{pid}/ns/{kind}"),
        };
        // The process that we started is the parent of the node's first.
        let processes = format!("--pid=/proc/{pid}/ns/pid_for_children");
        others.iter().map(|kind| option(kind)).chain([processes]).collect()
    }

    /// What containerd logged.
    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("containerd.log")).unwrap_or_default()
    }

    /// A directory of the node's that is ours.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Its first process, and with it all others, end with the one that we started.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn write_program(path: &Path, script: &str) -> Result<()> {
    fs::write(path, script)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}
