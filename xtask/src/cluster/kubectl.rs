//! What the cluster is asked and told, by the kubectl of its release.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::plan::{Plan, Room, State};
use crate::shell::describe;

/// How many lines of each log come with an error.
const TAIL: usize = 5;

/// kubectl, with everything that it needs to know.
#[derive(Clone, Debug)]
pub(super) struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// For the cluster that `up` made.
    pub(super) fn new(state: &State, plan: &Plan) -> Self {
        Self { program: plan.binaries.join("kubectl"), kubeconfig: state.kubeconfig() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // Discovery is remembered by address, and these addresses are every cluster's.
        command.arg("--cache-dir=/dev/null").arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// Runs it; what it printed.
    ///
    /// # Errors
    /// It fails; what it said.
    pub(super) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        self.run_with(arguments, "")
    }

    /// Makes an object, or makes it so.
    pub(super) fn apply(&self, object: &Value) -> Result<()> {
        self.run_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &object.to_string())
            .map(|_| ())
    }

    /// What the API server answers to a GET of `path`.
    pub(super) fn raw(&self, path: &str) -> Result<String> {
        self.run(&["get", "--raw", path])
    }

    /// An object, or a list of them.
    pub(super) fn get<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Value> {
        let mut all: Vec<&OsStr> = vec!["get".as_ref(), "--output=json".as_ref()];
        all.extend(arguments.iter().map(AsRef::as_ref));
        Ok(serde_json::from_str(&self.run(&all)?)?)
    }

    fn run_with<S: AsRef<OsStr>>(&self, arguments: &[S], input: &str) -> Result<String> {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {}", self.program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{}: {}", describe(&command), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Tries until it succeeds.
///
/// # Errors
/// The last one, after `limit`.
pub(super) fn wait_for<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("{what}: not within {} s", limit.as_secs())));
            }
            Err(_) => sleep(Duration::from_millis(200)),
            done => return done,
        }
    }
}

/// The same for what happens in a room: there is no point in waiting for one that has ended.
///
/// # Errors
/// The last one, with what the room's programs said last.
pub(super) fn wait_for_room<T>(
    state: &State,
    room: Room,
    limit: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let waited = wait_for(&room.to_string(), limit, || match attempt() {
        Err(error) if !is_alive(state, room) => Ok(Err(error.context(format!("{room} has ended")))),
        other => other.map(Ok),
    });
    waited.and_then(|attempted| attempted).with_context(|| last_words(state, room))
}

/// Whether the room's first process is there.
fn is_alive(state: &State, room: Room) -> bool {
    let pid = fs::read_to_string(state.pid(room)).unwrap_or_default();
    !pid.is_empty() && Path::new("/proc").join(pid).exists()
}

/// The last words of every program of a room.
pub(super) fn last_words(state: &State, room: Room) -> String {
    let mut words = String::new();
    let entries = fs::read_dir(state.logs(room)).into_iter().flatten().flatten();
    for path in
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "log"))
    {
        let text = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        words += &format!("{}:\n{tail}\n", path.display());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_that_has_ended_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::below(folder.path());
        let room = Room::Node(1);
        fs::create_dir_all(state.logs(room)).unwrap();
        fs::write(state.logs(room).join("kubelet.log"), "first\nlast\n").unwrap();
        let mut attempts = 0;
        let waited = wait_for_room::<()>(&state, room, Duration::from_secs(600), || {
            attempts += 1;
            bail!("not yet")
        });
        let error = format!("{:#}", waited.unwrap_err());
        assert!(error.contains("weir-node-1 has ended: not yet") && error.contains("last"), "{error}");
        assert_eq!(attempts, 1);

        fs::write(state.pid(room), std::process::id().to_string()).unwrap();
        let waited = wait_for_room(&state, room, Duration::from_secs(600), || {
            attempts += 1;
            anyhow::ensure!(attempts > 2, "not yet");
            Ok(attempts)
        });
        assert_eq!(waited.unwrap(), 3);
    }
}
