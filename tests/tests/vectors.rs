//! Runs Kubernetes' conformance vectors and prints what came of each file: `cargo xtask test vectors`.
//!
//! Prints `figure NAME PASSED/TOTAL` for each file, the names of all cases that wait or failed, and `not run:`
//! where the files are not there, which is a failure where `CI` is `true`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::ensure;
use weir_tests::vectors::tally::Tally;
use weir_tests::vectors::{Folder, VECTORS_VAR, find_folder, flows, load, topology};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED vectors: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    match find_folder()? {
        Folder::Found(folder) => {
            let (topology, flows) = (run_topology(&folder)?, run_flows(&folder)?);
            let failed = topology.failed() + flows.failed();
            ensure!(failed == 0, "{failed} cases failed");
            Ok(())
        }
        Folder::Absent(folder) => {
            println!(
                "not run: vectors: there is no {} ({VECTORS_VAR} names another folder)",
                folder.display()
            );
            ensure!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "with CI=true they have to be there"
            );
            Ok(())
        }
    }
}

fn run_topology(folder: &Path) -> anyhow::Result<Tally> {
    let cases: Vec<topology::Case> = load(folder, "topology.json")?;
    let tally = topology::judge(&cases);
    println!("topology.json\n{tally}");
    println!("figure vectors.topology {}/{}", tally.passed(), cases.len());
    prove_it_can_fail(&tally, || topology::judge(&topology::altered(&cases)))?;
    Ok(tally)
}

fn run_flows(folder: &Path) -> anyhow::Result<Tally> {
    let states: Vec<flows::State> = load(folder, "kubeproxy-flows.json")?;
    let tally = flows::judge(&states);
    println!("kubeproxy-flows.json\n{tally}");
    for name in flows::judged_by_tables_alone(&states) {
        println!("  judged by the tables alone, for no socket hook sees SCTP: {name}");
    }
    let asserted = flows::count_asserted(&states)?;
    ensure!(tally.total() == asserted, "{} flows were looked at, the file has {asserted}", tally.total());
    println!("figure vectors.flows {}/{asserted}", tally.passed());
    prove_it_can_fail(&tally, || flows::judge(&flows::altered(&states)))?;
    Ok(tally)
}

/// Every altered expectation has to fail: otherwise those that passed say nothing. Where some failed anyway there
/// is nothing to prove, and what is wrong may happen to be what was altered to.
fn prove_it_can_fail(tally: &Tally, judge_altered: impl Fn() -> Tally) -> anyhow::Result<()> {
    if tally.failed() > 0 {
        return Ok(());
    }
    let altered = judge_altered();
    ensure!(altered.failed() == altered.total(), "an altered expectation did not fail:\n{altered}");
    ensure!(altered.total() > 0, "nothing was judged");
    println!("  each of {} altered expectations fails, as it must", altered.total());
    Ok(())
}
