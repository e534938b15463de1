//! The lab itself: its wires carry, and nothing of it stays.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command as Process, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weir_tests::cases::CAST;
use weir_tests::lab::{Cluster, Form, LabId, binary, teardown};
use weir_tests::prober::How;

use crate::SETTINGS;
use crate::support::ask;

/// Everybody reaches everybody directly, in each way and form, and is seen under its own address.
pub(crate) fn direct_traffic_then_nothing_left() -> Result<()> {
    let cluster = Cluster::create(SETTINGS, &CAST)?;
    let id = cluster.lab().id();
    let places = ["n1-a", "n1-b", "n1-c", "n2-a", "n2-b", "n1", "n2", "outside"];
    for (from, to) in places.iter().flat_map(|from| places.map(|to| (*from, to))) {
        for (how, form) in How::ALL.iter().flat_map(|how| Form::ALL.map(|form| (*how, form))) {
            let dialled = cluster.addresses(to)?.dial(form, 8080);
            let answer =
                ask(&cluster, from, how, dialled).with_context(|| format!("{from} to {dialled}, {how}"))?;
            ensure!(answer.server == to, "{from} asked {to} and {} answered", answer.server);
            ensure!(answer.peer.is_none_or(|peer| peer == dialled), "{answer:?}");
            ensure!(answer.from.is_none_or(|from| from == dialled), "{answer:?}");
        }
    }
    ensure!(!teardown::find_traces(id).is_empty(), "a living lab has no trace: the search finds nothing");
    drop(cluster);
    ensure_gone(id)
}

/// SIGINT and SIGTERM end a lab as Ctrl-C in a terminal would.
pub(crate) fn interrupted() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (mut child, id) = start_lab()?;
        kill(pid(&child)?, signal)?;
        let status = child.wait()?;
        ensure!(status.code() == Some(128 + signal as i32), "{signal}: {status}");
        ensure_gone(id)?;
    }
    Ok(())
}

/// What a killed process leaves is removed by the next lab, or by `weir-lab sweep`.
pub(crate) fn killed_and_swept() -> Result<()> {
    let (mut child, id) = start_lab()?;
    child.kill()?;
    child.wait()?;
    ensure!(!teardown::find_traces(id).is_empty(), "a killed lab left nothing: there is nothing to prove");
    teardown::sweep()?;
    ensure_gone(id)
}

/// The demo says that all is as expected, and is gone.
pub(crate) fn demo() -> Result<()> {
    let child = Process::new(binary::find_prober()?)
        .arg("demo")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let owner = child.id();
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    ensure!(said.contains("`weir services` on n1"), "{said}");
    ensure!(!said.contains('\u{1b}'), "colours where there is no terminal");
    let left = teardown::find_labs(owner);
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

fn ensure_gone(id: LabId) -> Result<()> {
    let traces = teardown::find_traces(id);
    ensure!(traces.is_empty(), "left behind: {traces:?}");
    Ok(())
}

fn pid(child: &Child) -> Result<Pid> {
    Ok(Pid::from_raw(child.id().try_into()?))
}

/// `weir-lab up`, with agents, and the lab that it made.
fn start_lab() -> Result<(Child, LabId)> {
    let mut child =
        Process::new(binary::find_prober()?).args(["up", "--agents"]).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("no standard output")?;
    let mut id = None;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        id = id.or_else(|| LabId::parse_prefix(line.strip_prefix("lab ")?.split(';').next()?));
        if let (Some(id), true) = (id, line.starts_with("Ctrl-C")) {
            return Ok((child, id));
        }
    }
    let status = child.wait()?;
    bail!("weir-lab up ended before its lab was made: {status}")
}
