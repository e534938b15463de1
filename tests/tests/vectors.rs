//! Runs Kubernetes' conformance vectors: `cargo xtask test vectors`.
//!
//! Each case is a test of its own under its name; what is not judged yet is ignored, and says why. Afterwards come
//! the lines `figure NAME PASSED/TOTAL`, one for each file. Without the files it says `not run:`, and fails where
//! `CI` is `true`.
//!
//! With the feature `kernel` (`cargo xtask test packets`) it is the flows alone, judged by the programs in this kernel; that
//! needs root.

use std::path::Path;
use std::process::ExitCode;

use anyhow::ensure;
use libtest_mimic::{Arguments, Failed, Trial};
use weir_tests::vectors::tally::{Outcome, Tally};
use weir_tests::vectors::{Folder, VECTORS_VAR, find_folder, flows, load};
#[cfg(not(feature = "kernel"))]
use weir_tests::vectors::{load_whole, netpol, topology};

/// A file of vectors, judged.
struct Judged {
    /// What its figure and its tests are called by.
    name: &'static str,
    tally: Tally,
    /// The same cases with expectations that contradict the file's.
    altered: Tally,
    /// What else is to be said.
    notes: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            println!("FAILED vectors: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let folder = match find_folder()? {
        Folder::Found(folder) => folder,
        Folder::Absent(folder) => {
            println!("not run: vectors: no folder {} ({VECTORS_VAR} names another one)", folder.display());
            ensure!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "with CI=true they have to be there"
            );
            return Ok(ExitCode::SUCCESS);
        }
    };
    let files = judge_all(&folder)?;
    let conclusion = libtest_mimic::run(arguments, files.iter().flat_map(trials).collect());
    if !arguments.list {
        files.iter().for_each(print);
    }
    Ok(conclusion.exit_code())
}

/// By the libraries alone.
#[cfg(not(feature = "kernel"))]
fn judge_all(folder: &Path) -> anyhow::Result<Vec<Judged>> {
    let mut files = vec![judge_topology(folder)?, judge_flows(folder)?];
    for (name, by_reference) in [("netpol-e2e", "netpol-e2e.reference"), ("gaps", "gaps.reference")] {
        files.push(judge_policies(folder, name, by_reference, netpol::Judge::Reference)?);
        files.push(judge_policies(folder, name, name, netpol::Judge::Tables)?);
    }
    Ok(files)
}

/// By the programs in this kernel.
#[cfg(feature = "kernel")]
fn judge_all(folder: &Path) -> anyhow::Result<Vec<Judged>> {
    let states: Vec<flows::State> = load(folder, "kubeproxy-flows.json")?;
    let mut judge = flows::kernel::Judge::new(&states)?;
    let tally = judge.judge(&states);
    let asserted = flows::count_asserted(&states)?;
    ensure!(tally.total() == asserted, "{} flows were looked at, the file has {asserted}", tally.total());
    let altered = judge.judge(&flows::altered(&states));
    Ok(vec![Judged { name: "flows.kernel", tally, altered, notes: Vec::new() }])
}

#[cfg(not(feature = "kernel"))]
fn judge_topology(folder: &Path) -> anyhow::Result<Judged> {
    let cases: Vec<topology::Case> = load(folder, "topology.json")?;
    Ok(Judged {
        name: "topology",
        tally: topology::judge(&cases),
        altered: topology::judge(&topology::altered(&cases)),
        notes: Vec::new(),
    })
}

#[cfg(not(feature = "kernel"))]
fn judge_flows(folder: &Path) -> anyhow::Result<Judged> {
    let states: Vec<flows::State> = load(folder, "kubeproxy-flows.json")?;
    let tally = flows::judge(&states);
    let asserted = flows::count_asserted(&states)?;
    ensure!(tally.total() == asserted, "{} flows were looked at, the file has {asserted}", tally.total());
    let by_tables = flows::judged_by_tables_alone(&states);
    let note = |name| format!("by the tables alone, for sockets of SCTP pass no hook: {name}");
    Ok(Judged {
        name: "flows",
        tally,
        altered: flows::judge(&flows::altered(&states)),
        notes: by_tables.into_iter().map(note).collect(),
    })
}

#[cfg(not(feature = "kernel"))]
fn judge_policies(
    folder: &Path,
    file: &str,
    name: &'static str,
    by: netpol::Judge,
) -> anyhow::Result<Judged> {
    let file: netpol::File = load_whole(folder, &format!("{file}.json"))?;
    let netpol::Judged { tally, of_itself } = netpol::judge(&file, by)?;
    let verdicts = netpol::count_verdicts(&file);
    ensure!(tally.total() == verdicts, "{} verdicts were looked at, the file has {verdicts}", tally.total());
    let mut altered = Tally::default();
    for file in netpol::altered(&file) {
        altered.append(netpol::judge(&file, by)?.tally);
    }
    let note =
        format!("{of_itself} of a pod that reaches itself, by what the rules say: nothing else keeps it");
    let notes = (of_itself > 0).then_some(note).into_iter().collect();
    Ok(Judged { name, tally, altered, notes })
}

/// Every case, and the proof that it could have failed.
fn trials(file: &Judged) -> Vec<Trial> {
    let cases = file.tally.cases().map(|(name, outcome)| trial(file.name, name, outcome.clone()));
    // Where some failed anyway there is nothing to prove, and what is wrong may be just what was altered to.
    let proof = (file.tally.failed() == 0).then(|| {
        let name = format!("{}: each of {} altered expectations fails", file.name, file.altered.total());
        let result = prove_it_can_fail(&file.altered);
        Trial::test(name, || result)
    });
    cases.chain(proof).collect()
}

/// What is pending bears its reason in its name, and fails where somebody insists on running it.
fn trial(file: &str, name: &str, outcome: Outcome) -> Trial {
    match outcome {
        Outcome::Passed => Trial::test(format!("{file}: {name}"), || Ok(())),
        Outcome::Failed(how) => Trial::test(format!("{file}: {name}"), || Err(how.into())),
        Outcome::Pending(why) => {
            Trial::test(format!("{file}: pending, {why}: {name}"), || Err(why.into())).with_ignored_flag(true)
        }
    }
}

/// Every altered expectation has to fail: otherwise those that passed say nothing.
fn prove_it_can_fail(altered: &Tally) -> Result<(), Failed> {
    let unnoticed = altered.cases().find(|(_, outcome)| !matches!(outcome, Outcome::Failed(_)));
    match unnoticed {
        Some((name, outcome)) => Err(format!("{name}: {outcome:?} under another expectation").into()),
        None if altered.total() == 0 => Err("nothing was judged".into()),
        None => Ok(()),
    }
}

fn print(file: &Judged) {
    println!("{}: {}", file.name, file.tally);
    for note in &file.notes {
        println!("  {note}");
    }
    println!("figure vectors.{} {}/{}", file.name, file.tally.passed(), file.tally.total());
}
