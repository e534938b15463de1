//! The agent of a node, and the commands that a person would type there.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use super::teardown::{self, BPFFS};
use super::{Node, Place};

/// How long an agent may take to be ready; it takes far less.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const METRICS_ADDRESS: &str = "127.0.0.1:9964";

/// The agent of a node: where it keeps its things, and its process while it runs.
#[derive(Debug)]
pub struct Agent {
    binary: PathBuf,
    place: Place,
    node_name: String,
    cgroup: PathBuf,
    pin_root: PathBuf,
    run_dir: PathBuf,
    manifests: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
}

/// Something that is wrong with an object, as `weir status --json` says it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Problem {
    /// Kind, namespace and name: `Service lab/web`.
    pub object: String,
    /// The path of the field in the object.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.message)
    }
}

impl Agent {
    /// An agent that does not run yet.
    ///
    /// # Errors
    /// Its files cannot be made.
    pub fn new(binary: PathBuf, node: &Node, pins: &str, directory: &Path, manifests: &Path) -> Result<Self> {
        let node_name = node.place().name().to_owned();
        let run_dir = directory.join(&node_name);
        fs::create_dir_all(&run_dir)?;
        Ok(Self {
            binary,
            place: node.place().clone(),
            cgroup: node.cgroup().into(),
            pin_root: Path::new(BPFFS).join(pins),
            log: directory.join(format!("{node_name}.log")),
            run_dir,
            manifests: manifests.into(),
            node_name,
            arguments: Vec::new(),
            process: None,
        })
    }

    /// The same agent for another cgroup than the whole node's, with more arguments.
    #[must_use]
    pub fn confined(mut self, cgroup: PathBuf, arguments: Vec<String>) -> Self {
        (self.cgroup, self.arguments) = (cgroup, arguments);
        self
    }

    /// Gives it more arguments from its next start on.
    pub fn add_arguments(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
    }

    /// Starts the agent; see [`Agent::wait_ready`].
    ///
    /// # Errors
    /// It cannot be run.
    pub fn start(&mut self) -> Result<()> {
        let _held = teardown::changing();
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = self.weir("agent")?;
        command.arg("--source").arg(format!("manifests:{}", self.manifests.display()));
        command.args(["--node-name", &self.node_name]).arg("--cgroup-root").arg(&self.cgroup);
        command.arg("--pin-root").arg(&self.pin_root).arg("--run-dir").arg(&self.run_dir);
        command.args(["--metrics-address", METRICS_ADDRESS]).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process =
            Some(command.spawn().with_context(|| format!("cannot run {}", self.binary.display()))?);
        Ok(())
    }

    /// Waits until the agent says that what it was told is in force.
    ///
    /// # Errors
    /// It ended, or is not ready in time; with the end of its log.
    pub fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            if let Some(process) = &mut self.process
                && let Some(status) = process.try_wait()?
            {
                bail!("the agent of {} ended ({status}):\n{}", self.node_name, self.log_end());
            }
            let status = self.status();
            if status.as_ref().is_ok_and(|status| status["ready"] == Value::Bool(true)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the agent of {} is not ready: {status:?}\n{}", self.node_name, self.log_end());
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL, as the kernel or a person would; nothing of it runs after this returns.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent does not run")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// The agent's process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// `weir status --json`
    ///
    /// # Errors
    /// The command failed, or did not answer in JSON.
    pub fn status(&self) -> Result<Value> {
        let mut command = self.weir("status")?;
        command.arg("--pin-root").arg(&self.pin_root).arg("--run-dir").arg(&self.run_dir).arg("--json");
        // its exit code says whether the agent is ready; so does what it prints
        let output = command.output()?;
        let said = || format!("weir status --json: {}", String::from_utf8_lossy(&output.stderr).trim());
        serde_json::from_slice(&output.stdout).with_context(said)
    }

    /// The problems that `weir status --json` lists.
    ///
    /// # Errors
    /// Those of [`Agent::status`], or the list is not as it should be.
    pub fn problems(&self) -> Result<Vec<Problem>> {
        let problems = self.status()?["problems"].take();
        serde_json::from_value(problems).context("weir status --json: the list of problems")
    }

    /// `weir services`, for people or as JSON.
    ///
    /// # Errors
    /// The command failed.
    pub fn services(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.weir("services")?;
        command.arg("--pin-root").arg(&self.pin_root).args(arguments);
        Ok(String::from_utf8(succeed(&mut command)?.stdout)?)
    }

    /// `weir drops`: what it prints, or what it says why it cannot.
    ///
    /// # Errors
    /// The command cannot be run.
    pub fn drops(&self, arguments: &[&str]) -> Result<Result<String, String>> {
        let mut command = self.weir("drops")?;
        let output = command.arg("--run-dir").arg(&self.run_dir).args(arguments).output()?;
        let [printed, said] = [output.stdout, output.stderr].map(String::from_utf8);
        Ok(if output.status.success() { Ok(printed?) } else { Err(said?) })
    }

    /// `weir cleanup`: the node as if there had been no agent.
    ///
    /// # Errors
    /// The command failed.
    pub fn cleanup(&self) -> Result<()> {
        let mut command = self.weir("cleanup")?;
        command.arg("--pin-root").arg(&self.pin_root);
        succeed(&mut command).map(drop)
    }

    /// Where its maps and links are pinned.
    #[must_use]
    pub fn pin_root(&self) -> &Path {
        &self.pin_root
    }

    /// The last lines that it logged.
    #[must_use]
    pub fn log_end(&self) -> String {
        const LINES: usize = 30;
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    fn weir(&self, verb: &str) -> Result<Command> {
        let mut command = self.place.command(&self.binary)?;
        command.arg(verb);
        Ok(command)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // already gone is what is wanted
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn succeed(command: &mut Command) -> Result<Output> {
    let output = command.output()?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}
