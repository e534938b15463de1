//! `cargo xtask check`: everything about the code that a machine can judge without running it.

mod abi;
mod deny;
mod fuzz;
mod layers;
mod object;
mod style;

use std::time::{Duration, Instant};

use anyhow::Result;

pub(crate) use abi::bless as bless_abi;

use crate::setup::{Need, ensure};
use crate::shell::{Style, announce};
use crate::workspace::Workspace;

/// How the checks ended.
#[derive(Default, Debug)]
pub(crate) struct Outcome {
    /// How many found nothing to complain about.
    pub(crate) passed: usize,
    /// Those that did.
    pub(crate) failed: Vec<String>,
    /// Those that could not be made, and why.
    pub(crate) not_run: Vec<String>,
}

/// What one check found, unless it found a fault.
enum Finding {
    Good,
    NotRun(String),
}

type Check = fn(&Workspace) -> Result<Finding>;

/// The quick ones first.
const CHECKS: [(&str, &[Need], Check); 10] = [
    ("layers", &[], layers::check),
    ("abi", &[], abi::check),
    ("format", &[Need::Style], style::check_format),
    ("bans, licenses, sources", &[Need::Deny], deny::check),
    ("advisories", &[Need::Deny], deny::check_advisories),
    ("programs without warnings", &[Need::Toolchain], object::check_warnings),
    ("same programs from two folders", &[Need::Toolchain], object::check_deterministic),
    ("clippy", &[Need::Style, Need::Toolchain], style::check_clippy),
    ("fuzz targets", &[], fuzz::check),
    ("clippy, with all features", &[Need::Style, Need::Toolchain], style::check_features),
];

/// Makes every check, also after one failed, and prints a line for each.
///
/// # Errors
/// None of the checks'; they are in the outcome.
pub(crate) fn run_all(workspace: &Workspace) -> Result<Outcome> {
    let style = Style::of(&std::io::stdout());
    let mut outcome = Outcome::default();
    for (name, needs, check) in CHECKS {
        announce(&format!("check: {name}"));
        let start = Instant::now();
        let finding = ensure(workspace, needs).and_then(|()| check(workspace));
        let took = seconds(start.elapsed());
        match finding {
            Ok(Finding::Good) => {
                outcome.passed += 1;
                println!("{} {name} ({took})", style.good("ok     "));
            }
            Ok(Finding::NotRun(reason)) => {
                println!("{} {name}: {reason}", style.open("not run"));
                outcome.not_run.push(format!("{name}: {reason}"));
            }
            Err(error) => {
                println!("{} {name} ({took})\n{error:#}", style.bad("FAILED "));
                outcome.failed.push(name.into());
            }
        }
    }
    Ok(outcome)
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
