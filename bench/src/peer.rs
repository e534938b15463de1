//! The processes in the pods, and their other end in the benchmark: one JSON object per line.
//!
//! Each runs on a CPU of its own, before everything else that wants it, and lives as long as the benchmark; both subjects meet the same two processes.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weir_tests::lab::Place;

use crate::cpu;
use crate::hook::{self, Batch, Took};
use crate::nodeport::{self, Arrivals, CollectSpec, FloodSpec};
use crate::workload::{self, Sample, Spec};

/// What a peer is asked to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// Serve every workload at this address.
    Serve {
        /// An address of the pod.
        at: IpAddr,
    },
    /// Make one measurement of traffic.
    Measure(Spec),
    /// Make many `connect` calls.
    Connect(Batch),
    /// Send datagrams.
    Flood(FloodSpec),
    /// Count datagrams.
    Collect(CollectSpec),
}

#[derive(Serialize, Deserialize)]
enum Reply<T> {
    Done(T),
    Failed(String),
}

/// A process in a pod. It ends when this is dropped, or when its owner dies.
#[derive(Debug)]
pub struct Peer {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts one at a place of the lab, on this CPU.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn start(place: &Place, cpu: usize) -> Result<Self> {
        let mut command = place.command(std::env::current_exe()?)?;
        command.args(["peer", "--cpu", &cpu.to_string()]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = process.stdin.take().context("no standard input")?;
        let stdout = BufReader::new(process.stdout.take().context("no standard output")?);
        Ok(Self { process, stdin, stdout })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Serves every workload from now on.
    ///
    /// # Errors
    /// A port is taken, or the process is gone.
    pub fn serve(&mut self, at: IpAddr) -> Result<()> {
        self.call(&Request::Serve { at })
    }

    /// Makes one measurement.
    ///
    /// # Errors
    /// The process is gone. That nothing is delivered is no error.
    pub fn measure(&mut self, spec: &Spec) -> Result<Sample> {
        self.call(&Request::Measure(spec.clone()))
    }

    /// Makes many `connect` calls.
    ///
    /// # Errors
    /// One of them failed, or the process is gone.
    pub fn connect(&mut self, batch: &Batch) -> Result<Took> {
        self.call(&Request::Connect(batch.clone()))
    }

    /// Sends datagrams. Returns how many; that says nothing of what arrived.
    ///
    /// # Errors
    /// They cannot be sent, or the process is gone.
    pub fn flood(&mut self, spec: &FloodSpec) -> Result<u64> {
        self.call(&Request::Flood(spec.clone()))
    }

    /// Begins to count datagrams.
    ///
    /// # Errors
    /// The process is gone.
    pub fn begin_collect(&mut self, spec: CollectSpec) -> Result<()> {
        self.send(&Request::Collect(spec))
    }

    /// How many datagrams were counted since.
    ///
    /// # Errors
    /// They could not be counted, or the process is gone.
    pub fn end_collect(&mut self) -> Result<Arrivals> {
        self.receive().context("counting datagrams")
    }

    fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T> {
        self.send(request)?;
        self.receive().with_context(|| format!("{request:?}"))
    }

    fn send(&mut self, request: &Request) -> Result<()> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        self.stdin.write_all(line.as_bytes()).context("the process in the pod is gone")
    }

    fn receive<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        ensure!(self.stdout.read_line(&mut line)? > 0, "the process in the pod is gone");
        match serde_json::from_str(&line)? {
            Reply::Done(result) => Ok(result),
            Reply::Failed(error) => Err(anyhow!(error)),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // already gone is what is wanted
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process in the pod: does what standard input says until it ends.
///
/// # Errors
/// A line that is no request, or standard output is gone.
pub fn run(cpu: usize) -> Result<()> {
    cpu::pin(cpu)?;
    cpu::take_precedence()?;
    for line in io::stdin().lock().lines() {
        match serde_json::from_str(&line?).context("not a request")? {
            Request::Serve { at } => answer(workload::serve(at, false).map(drop).map_err(Into::into))?,
            Request::Measure(spec) => answer(workload::measure(&spec))?,
            Request::Connect(batch) => answer(hook::connect(&batch))?,
            Request::Flood(spec) => answer(nodeport::flood(&spec))?,
            Request::Collect(spec) => answer(nodeport::collect(&spec))?,
        }
    }
    Ok(())
}

fn answer<T: Serialize>(result: Result<T>) -> Result<()> {
    let reply = match result {
        Ok(done) => Reply::Done(done),
        Err(error) => Reply::Failed(format!("{error:#}")),
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&reply)?)?;
    Ok(out.flush()?)
}
