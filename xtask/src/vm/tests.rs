//! The tests that run on other kernels: those that load programs and need no agent.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use serde_json::Value;

use super::Series;
use crate::cross::Cross;
use crate::shell::{announce, cargo, describe};
use crate::workspace::Workspace;

/// The job that needs the conformance vectors.
pub(super) const VECTORS: &str = "vectors";
/// The job that says figures and little else.
const INSTRUCTIONS: &str = "instructions";

/// Where devices have links of programs (TCX); before, there are filters.
const TCX: Series = Series::new(6, 6);
/// What attaches links; without them it would attach filters, as others do.
const LINKS: [&str; 2] = ["devices::by_links", "devices::links_stand_beside_somebodys_ingress"];
/// What needs flows that began up to twelve minutes ago.
const OLD_FLOWS: [&str; 2] = [
    "flows::flows_are_swept_when_their_lifetime_is_over_and_all_rows_together",
    "flows::what_is_left_of_a_flow_that_never_was_goes_in_the_end",
];

/// Which tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Suite {
    /// Single packets: the table of cases, and the conformance vectors
    Packets,
    /// Programs with sockets and devices
    Programs,
    /// What a packet costs under policies, on a machine whose clock counts instructions
    Instructions,
}

impl Suite {
    /// Names of `tests/tests`.
    fn tests(self) -> &'static [&'static str] {
        match self {
            Self::Packets => &["packets", VECTORS],
            Self::Programs => &["programs", "network"],
            Self::Instructions => &[INSTRUCTIONS],
        }
    }
}

/// A program that runs tests.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
}

impl Job {
    /// As it runs on such a kernel, and what of it cannot.
    pub(super) fn on(&self, series: Series) -> (Self, Vec<String>) {
        let mut job = self.clone();
        let mut lacking = Vec::new();
        let mut skip = |test: &str, why: &str| {
            job.arguments.extend(["--skip".to_owned(), test.to_owned()]);
            lacking.push(format!("{test}: {why}"));
        };
        if self.name == "network" {
            for test in OLD_FLOWS {
                skip(test, "the machine has just started, and so is younger than the flows");
            }
            for test in LINKS.iter().filter(|_| series < TCX) {
                skip(test, "TCX links are from Linux 6.6 on");
            }
        }
        (job, lacking)
    }
}

/// Builds them, for this machine or the other processor.
///
/// # Errors
/// What cargo said.
pub(super) fn build(workspace: &Workspace, suites: &[Suite], cross: Option<&Cross>) -> Result<Vec<Job>> {
    let names: Vec<_> = suites.iter().flat_map(|suite| suite.tests()).copied().collect();
    let mut build = cargo(workspace);
    build.args(["test", "--no-run", "--package=weir-tests", "--features=kernel"]);
    build.args(names.iter().map(|name| format!("--test={name}")));
    build.arg("--message-format=json-render-diagnostics");
    if let Some(cross) = cross {
        cross.prepare(&mut build);
    }
    announce(&describe(&build));
    let output = build.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "{} failed ({})", describe(&build), output.status);
    let said = String::from_utf8_lossy(&output.stdout);
    let program = |name: &&str| {
        let found = said.lines().find_map(|line| parse_executable(line, name));
        let program = found.with_context(|| format!("cargo built no test {name}"))?;
        // What was counted is told also where all is well.
        let arguments = if *name == INSTRUCTIONS { vec!["--nocapture".to_owned()] } else { Vec::new() };
        Ok(Job { name: (*name).to_owned(), program, arguments })
    };
    names.iter().map(program).collect()
}

/// From a message of cargo's: <https://doc.rust-lang.org/cargo/reference/external-tools.html#artifact-messages>.
fn parse_executable(line: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_it = message["target"]["name"] == name && message["profile"]["test"] == true;
    is_it.then(|| message["executable"].as_str()).flatten().map(PathBuf::from)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn what_a_kernel_cannot_run_is_left_out_by_name() {
        let job = Job { name: "network".into(), program: "network".into(), arguments: Vec::new() };
        let (on_floor, lacking) = job.on(Series::new(6, 1));
        assert_eq!(on_floor.arguments[..2], ["--skip", OLD_FLOWS[0]]);
        assert_eq!((on_floor.arguments.len(), lacking.len()), (8, 4));
        assert_eq!(lacking[2], "devices::by_links: TCX links are from Linux 6.6 on");
        let (on_newer, lacking) = job.on(Series::new(6, 6));
        assert_eq!((on_newer.arguments.len(), lacking.len()), (4, 2));
        let packets = Job { name: "packets".into(), ..job };
        assert!(packets.on(Series::new(6, 1)).1.is_empty());
    }

    #[test]
    fn only_the_test_of_that_name_is_an_executable() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"packets"},"profile":{"test":true},"executable":"/t/packets-1"}"#;
        assert_eq!(parse_executable(line, "packets"), Some("/t/packets-1".into()));
        assert_eq!(parse_executable(line, "vectors"), None);
        assert_eq!(parse_executable(r#"{"reason":"build-finished","success":true}"#, "packets"), None);
    }
}
