//! The agent's container as its DaemonSet describes it, started by containerd. Nothing of the description is repeated
//! here; what the kubelet adds to every pod comes from [`crate::control_plane`].

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{EnvVar, PodSpec};
use serde_json::Value;
use weir_tests::deploy::{HostMount, Object, host_mounts, select_container, select_pod};

use crate::node::Node;

/// How long an agent may take to be ready, or to say why it is not.
const PATIENCE: Duration = Duration::from_secs(30);
/// What runtimes give to a container that asks for nothing; `drop: [ALL]` takes them away.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A container to be: what is in the DaemonSet, and what a test changes about it.
#[derive(Clone)]
pub(crate) struct Description {
    /// Its image's full name.
    pub(crate) image: String,
    arguments: Vec<String>,
    environment: Vec<String>,
    mounts: Vec<HostMount>,
    /// Its capabilities, as Kubernetes writes them.
    pub(crate) capabilities: Vec<String>,
    options: Vec<&'static str>,
    /// The most memory that it may have, in bytes.
    pub(crate) memory: u64,
}

impl Description {
    /// What an overlay says, on the node `node_name`.
    pub(crate) fn read(objects: &[Object], node_name: &str) -> Result<Self> {
        let pod = select_pod(objects)?;
        let container = select_container(pod)?;
        let environment = container.env.iter().flatten().map(|variable| resolve(variable, node_name));
        let security = container.security_context.as_ref().context("no securityContext")?;
        let capabilities = security.capabilities.as_ref().and_then(|it| it.add.clone()).unwrap_or_default();
        Ok(Self {
            image: container.image.clone().context("no image")?,
            arguments: container.args.clone().unwrap_or_default(),
            environment: environment.collect::<Result<_>>()?,
            mounts: host_mounts(pod)?,
            capabilities,
            options: options(pod)?,
            memory: memory(container)?,
        })
    }

    /// With a directory or file more that the container may read, and more variables.
    pub(crate) fn add(&mut self, host: &Path, container: &str, environment: &[String]) {
        self.mounts.push(HostMount {
            host: host.display().to_string(),
            container: container.into(),
            read_only: true,
            propagates: false,
            is_made: false,
        });
        self.environment.extend_from_slice(environment);
    }

    /// The arguments of `ctr run`.
    fn to_arguments(&self, id: &str) -> Vec<String> {
        let mut arguments: Vec<String> = self.options.iter().map(|it| (*it).to_owned()).collect();
        let has = |name: &str| self.capabilities.iter().any(|own| own == name);
        let dropped = DEFAULT_CAPABILITIES.iter().filter(|name| !has(name));
        arguments.extend(dropped.map(|name| format!("--cap-drop=CAP_{name}")));
        let added = self.capabilities.iter().filter(|name| !DEFAULT_CAPABILITIES.contains(&name.as_str()));
        arguments.extend(added.map(|name| format!("--cap-add=CAP_{name}")));
        for mount in &self.mounts {
            let access = if mount.read_only { "ro" } else { "rw" };
            let propagation = if mount.propagates { "rslave" } else { "rprivate" };
            let (host, container) = (&mount.host, &mount.container);
            arguments.push(format!(
                "--mount=type=bind,src={host},dst={container},options=rbind:{access}:{propagation}"
            ));
        }
        arguments.extend(self.environment.iter().map(|variable| format!("--env={variable}")));
        arguments.extend([self.image.clone(), id.to_owned()]);
        // Of an image's own entry point and other arguments ctr makes nothing.
        arguments.push("/weir".into());
        arguments.extend(self.arguments.iter().cloned());
        arguments
    }
}

/// The value that Kubernetes would give to a variable.
fn resolve(variable: &EnvVar, node_name: &str) -> Result<String> {
    let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
    let value = match (&variable.value, field.map(|field| field.field_path.as_str())) {
        (Some(value), None) => value,
        (None, Some("spec.nodeName")) => node_name,
        other => bail!("{}: {other:?}", variable.name),
    };
    Ok(format!("{}={value}", variable.name))
}

/// The limit of memory, in bytes.
fn memory(container: &k8s_openapi::api::core::v1::Container) -> Result<u64> {
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let text = &limits.and_then(|limits| limits.get("memory")).context("no limit of memory")?.0;
    let mebibytes: u64 = text.strip_suffix("Mi").with_context(|| format!("{text}: not in Mi"))?.parse()?;
    Ok(mebibytes << 20)
}

/// What a pod's settings are to ctr.
fn options(pod: &PodSpec) -> Result<Vec<&'static str>> {
    let security = select_container(pod)?.security_context.as_ref().context("no securityContext")?;
    // Without limits: the machine may have its controllers in version 1 of cgroups, or not delegated.
    let mut options = vec!["--cpu-shares=0"];
    let mut option = |wanted: bool, name| {
        if wanted {
            options.push(name);
        }
    };
    option(pod.host_network == Some(true), "--net-host");
    option(pod.host_pid == Some(true), "--with-ns=pid:/proc/1/ns/pid");
    option(security.read_only_root_filesystem == Some(true), "--read-only");
    option(security.seccomp_profile.as_ref().is_some_and(|it| it.type_ == "RuntimeDefault"), "--seccomp");
    option(security.allow_privilege_escalation != Some(false), "--allow-new-privs");
    Ok(options)
}

/// What the kubelet does for `DirectoryOrCreate`.
fn ensure_directories(node: &Node, description: &Description) -> Result<()> {
    let hosts = description.mounts.iter().filter(|mount| mount.is_made).map(|mount| &mount.host);
    let status = node.command("mkdir")?.arg("-p").args(hosts).status()?;
    ensure!(status.success(), "mkdir: {status}");
    Ok(())
}

/// Runs a container that is to end by itself, and soon: whether it succeeded, and what it said.
pub(crate) fn run_to_end(node: &Node, id: &str, description: &Description) -> Result<(bool, String)> {
    ensure_directories(node, description)?;
    let arguments = description.to_arguments(id);
    let mut run = vec!["run", "--rm", "--snapshotter=native"];
    run.extend(arguments.iter().map(String::as_str));
    let output = node.try_ctr(&run)?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// A container that runs, or ran.
pub(crate) struct Container<'a> {
    node: &'a Node,
    id: String,
    log: String,
}

impl<'a> Container<'a> {
    /// Starts it.
    pub(crate) fn start(node: &'a Node, id: &str, description: &Description) -> Result<Self> {
        ensure_directories(node, description)?;
        let log = node.directory().join(format!("{id}.log")).display().to_string();
        let arguments = description.to_arguments(id);
        let log_uri = format!("--log-uri=file://{log}");
        let mut run = vec!["run", "--detach", "--snapshotter=native", &log_uri];
        let runc = node.runc();
        run.extend(runc.as_deref());
        run.extend(arguments.iter().map(String::as_str));
        node.ctr(&run)?;
        Ok(Self { node, id: id.into(), log })
    }

    /// `weir status --json`, run in the container as `kubectl exec` would.
    pub(crate) fn status(&self) -> Result<Value> {
        let output = self.node.try_ctr(&[
            "tasks",
            "exec",
            "--exec-id=status",
            &self.id,
            "/weir",
            "status",
            "--json",
        ])?;
        let said = || format!("weir status: {}", String::from_utf8_lossy(&output.stderr).trim());
        serde_json::from_slice(&output.stdout).with_context(said)
    }

    /// Waits until the agent says that it is ready; then its status.
    pub(crate) fn wait_ready(&self) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if let Ok(status) = &status
                && status["ready"] == Value::Bool(true)
            {
                return Ok(status.clone());
            }
            ensure!(self.is_running()?, "the agent ended:\n{}", self.log());
            ensure!(Instant::now() < deadline, "not ready: {status:?}\n{}", self.log());
            sleep(Duration::from_millis(50));
        }
    }

    fn wait_ended(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.is_running()? {
            ensure!(Instant::now() < deadline, "it goes on:\n{}", self.log());
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Tells it to end, as the kubelet would, and waits until it has.
    pub(crate) fn terminate(&self) -> Result<()> {
        self.node.ctr(&["tasks", "kill", "--signal=SIGTERM", &self.id])?;
        self.wait_ended()
    }

    fn is_running(&self) -> Result<bool> {
        let tasks = self.node.ctr(&["tasks", "list"])?;
        let mut lines = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        Ok(lines.any(|words| words.first() == Some(&self.id.as_str()) && words.last() == Some(&"RUNNING")))
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
