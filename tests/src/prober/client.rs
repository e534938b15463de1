//! The end of a prober that asks: in the test, the demo or the benchmark.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::protocol::{BulkReport, BulkSpec, Command, Outcome, Reply, Request};
use crate::lab::{Place, locked, teardown};

/// No single question takes this long; a bulk command has its own limit beside it.
const TIMEOUT: Duration = Duration::from_secs(30);

type Waiting = Arc<Mutex<HashMap<u64, Sender<Outcome>>>>;

/// A prober that runs at a place of the lab. It ends when this is dropped, or when its owner dies.
#[derive(Debug)]
pub struct Prober {
    place: String,
    process: Child,
    stdin: Mutex<ChildStdin>,
    waiting: Waiting,
    next: AtomicU64,
}

/// A command under way.
#[derive(Debug)]
pub struct Pending {
    id: u64,
    limit: Duration,
    place: String,
    outcome: Receiver<Outcome>,
}

impl Prober {
    /// Starts one.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn start(program: &Path, place: &Place) -> Result<Self> {
        let _held = teardown::changing();
        let mut command = place.command(program)?;
        command.arg("prober").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        let stdin = Mutex::new(process.stdin.take().context("no standard input")?);
        let stdout = process.stdout.take().context("no standard output")?;
        let waiting = Waiting::default();
        let for_reader = Arc::clone(&waiting);
        std::thread::Builder::new().name("prober".into()).spawn(move || read_replies(stdout, &for_reader))?;
        Ok(Self { place: place.name().into(), process, stdin, waiting, next: AtomicU64::new(1) })
    }

    /// The process id of the prober.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Begins a command.
    ///
    /// # Errors
    /// The prober is gone.
    pub fn begin(&self, command: Command) -> Result<Pending> {
        let limit = match &command {
            Command::Bulk(spec) => TIMEOUT + Duration::from_millis(spec.limit_ms),
            _ => TIMEOUT,
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, outcome) = channel();
        locked(&self.waiting).insert(id, sender);
        let mut line = serde_json::to_string(&Request { id, command })?;
        line.push('\n');
        let sent = locked(&self.stdin).write_all(line.as_bytes());
        sent.with_context(|| format!("the prober of {} is gone", self.place))?;
        Ok(Pending { id, limit, place: self.place.clone(), outcome })
    }

    /// Carries out a command.
    ///
    /// # Errors
    /// The prober is gone. That a connection fails is an outcome, not an error.
    pub fn call(&self, command: Command) -> Result<Outcome> {
        self.begin(command)?.wait()
    }

    /// As [`Prober::call`], for what cannot but work.
    ///
    /// # Errors
    /// It did not.
    pub fn must(&self, command: Command) -> Result<()> {
        match self.call(command.clone())? {
            Outcome::Failed(failure) => bail!("{}: {command:?}: {failure}", self.place),
            _ => Ok(()),
        }
    }

    /// Serves at these addresses from now on.
    ///
    /// # Errors
    /// One of them is taken, or is not this place's.
    pub fn serve(&self, name: &str, at: &[SocketAddr]) -> Result<()> {
        self.must(Command::Serve { name: name.into(), at: at.into() })
    }

    /// Asks many questions and waits for all of them.
    ///
    /// # Errors
    /// The prober is gone.
    pub fn bulk(&self, spec: BulkSpec) -> Result<BulkReport> {
        self.begin(Command::Bulk(spec))?.wait_report()
    }

    /// Ends a bulk command that [`Prober::begin`] began, and waits for its report.
    ///
    /// # Errors
    /// The prober is gone.
    pub fn stop(&self, bulk: Pending) -> Result<BulkReport> {
        self.must(Command::Stop { bulk: bulk.id })?;
        bulk.wait_report()
    }
}

impl Pending {
    /// Waits for the outcome.
    ///
    /// # Errors
    /// The prober is gone, or does not answer.
    pub fn wait(self) -> Result<Outcome> {
        match self.outcome.recv_timeout(self.limit) {
            Ok(outcome) => Ok(outcome),
            Err(RecvTimeoutError::Timeout) => bail!("the prober of {} does not answer", self.place),
            Err(RecvTimeoutError::Disconnected) => bail!("the prober of {} is gone", self.place),
        }
    }

    /// Waits for a bulk command's report.
    ///
    /// # Errors
    /// Those of [`Pending::wait`], or it was no bulk command.
    pub fn wait_report(self) -> Result<BulkReport> {
        match self.wait()? {
            Outcome::Counted(report) => Ok(report),
            other => bail!("no report but {other:?}"),
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        // already gone is what is wanted
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read_replies(stdout: ChildStdout, waiting: &Waiting) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        match serde_json::from_str::<Reply>(&line) {
            Ok(reply) => {
                if let Some(waiter) = locked(waiting).remove(&reply.id) {
                    // nobody waits any more: it came after its time
                    let _ = waiter.send(reply.outcome);
                }
            }
            Err(error) => eprintln!("a prober said {line:?}: {error}"),
        }
    }
    locked(waiting).clear();
}
