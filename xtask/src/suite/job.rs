//! Runs one process of a layer: passes its output on as it comes, and reads it on the way.

use std::io::{BufRead as _, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::count::{Count, Reader};
use crate::shell::describe;

/// Whether it succeeded. Its output goes to `copy` as well.
///
/// # Errors
/// If it cannot be started or does not speak as a test does.
pub(crate) fn run_job(command: &mut Command, count: &mut Count, copy: &mut impl Write) -> Result<bool> {
    let name = describe(command);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot run {name}"))?;
    let output = child.stdout.take().context("a child without output")?;
    let mut reader = Reader::new(count);
    let mut outcome = Ok(());
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    // To its end in any case: a child that cannot print cannot clean up either.
    while lines.read_until(b'\n', &mut line).with_context(|| name.clone())? > 0 {
        // Nobody may read us any more; the child still has to end as it wants to.
        let _ = copy.write_all(&line).and_then(|()| copy.flush());
        outcome =
            outcome.and_then(|()| reader.read(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r'])));
        line.clear();
    }
    let status = child.wait().with_context(|| name)?;
    outcome.map(|()| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (Result<bool>, Count) {
        let mut count = Count::default();
        let outcome = run_job(Command::new("sh").args(["-c", script]), &mut count, &mut std::io::sink());
        (outcome, count)
    }

    #[test]
    fn the_exit_code_decides_and_the_output_is_counted() {
        let passed = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let (outcome, count) = shell(&format!("echo 'figure a.b 3'; echo '{passed}'"));
        assert!(outcome.unwrap());
        assert_eq!((count.passed, count.figures), (2, vec!["figure a.b 3".to_string()]));

        let (outcome, count) = shell(&format!("echo '{passed}'; exit 101"));
        assert!(!outcome.unwrap());
        assert_eq!(count.passed, 2);
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let mut count = Count::default();
        assert!(run_job(&mut Command::new("/nonexistent/cargo"), &mut count, &mut std::io::sink()).is_err());
    }
}
