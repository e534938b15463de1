//! Reads what libtest prints: how many tests passed, and the names of those that failed. Lines `figure NAME VALUE`
//! are kept for the summary, as are lines `not run: WHY`: what passes because it was left out has not passed.

use anyhow::{Context as _, Result};

/// What the tests of a layer said, over all of its processes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Count {
    /// Tests that passed.
    pub(crate) passed: usize,
    /// Tests that failed.
    pub(crate) failed: usize,
    /// Tests that were left out.
    pub(crate) ignored: usize,
    /// The names of those that failed.
    pub(crate) failures: Vec<String>,
    /// Whole lines `figure NAME VALUE`.
    pub(crate) figures: Vec<String>,
    /// What else a reader of the summary should know.
    pub(crate) notes: Vec<String>,
}

impl Count {
    /// With what others said.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.failures.extend(other.failures);
        self.figures.extend(other.figures);
        self.notes.extend(other.notes);
    }
}

/// Reads the output of one process, line by line, into a [`Count`].
pub(crate) struct Reader<'a> {
    count: &'a mut Count,
    /// The names under the last heading `failures:`. libtest prints two such sections, first what the tests
    /// printed and then the names; only the last one counts.
    names: Option<Vec<String>>,
}

impl<'a> Reader<'a> {
    /// Adds to that count.
    pub(crate) fn new(count: &'a mut Count) -> Self {
        Self { count, names: None }
    }

    /// One line, without its end.
    ///
    /// # Errors
    /// If a line that sums up tests is not as libtest writes it.
    pub(crate) fn read(&mut self, line: &str) -> Result<()> {
        if let Some(figure) = parse_figure(line) {
            self.count.figures.push(figure);
        } else if let Some(note) = parse_not_run(line) {
            self.count.notes.push(note.into());
        } else if line == "failures:" {
            self.names = Some(Vec::new());
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let [passed, failed, ignored] = parse_result(result).with_context(|| line.to_owned())?;
            self.count.passed += passed;
            self.count.failed += failed;
            self.count.ignored += ignored;
            self.count.failures.extend(self.names.take().unwrap_or_default());
        } else if let (Some(names), Some(name)) = (&mut self.names, line.strip_prefix("    ")) {
            names.push(name.into());
        }
        Ok(())
    }
}

/// What a test printed: it may follow `test NAME ... ` on its line, for with `--nocapture` the name is printed first.
fn strip_name(line: &str) -> &str {
    let named = line.strip_prefix("test ").and_then(|test| test.split_once(" ... "));
    named.map_or(line, |(_, printed)| printed)
}

/// Why a test, or a whole binary, did not run: the summary says the rest.
fn parse_not_run(line: &str) -> Option<&str> {
    strip_name(line).strip_prefix("not run: ")
}

fn parse_figure(line: &str) -> Option<String> {
    let mut words = strip_name(line).split_whitespace();
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some("figure"), Some(name), Some(value), None) => Some(format!("figure {name} {value}")),
        _ => None,
    }
}

/// From `ok. 10 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
fn parse_result(result: &str) -> Option<[usize; 3]> {
    let (_, counts) = result.split_once(". ")?;
    let number = |what: &str| {
        counts
            .split("; ")
            .find_map(|part| part.strip_suffix(what))
            .and_then(|number| number.trim().parse().ok())
    };
    Some([number("passed")?, number("failed")?, number("ignored")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Count {
        let mut count = Count::default();
        let mut reader = Reader::new(&mut count);
        for line in text.lines() {
            reader.read(line).unwrap();
        }
        count
    }

    const FAILED: &str = "
running 3 tests
test a ... ok
test b::c ... FAILED

failures:

---- b::c stdout ----
thread 'b::c' panicked at x.rs:1:
    an indented line of the test's own

failures:
    b::c

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn results_of_several_binaries_add_up() {
        let once = read(FAILED);
        assert_eq!((once.passed, once.failed, once.ignored), (1, 1, 1));
        assert_eq!(once.failures, ["b::c"]);

        let doc = "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let both = read(&format!("{FAILED}\n{doc}\n"));
        assert_eq!((both.passed, both.failed, both.ignored), (5, 1, 1));
        assert_eq!(both.failures, ["b::c"]);
    }

    #[test]
    fn figures_are_kept_word_for_word() {
        let count = read(
            "figure vectors.topology 32/32\ntest flows ... figure vectors.flows 340/446\nfigures are fine\n\
             figure without-value\nfigure a b c\n",
        );
        assert_eq!(count.figures, ["figure vectors.topology 32/32", "figure vectors.flows 340/446"]);
    }

    #[test]
    fn what_did_not_run_is_noted_with_the_reason() {
        let count = read(
            "not run: vectors: no folder x\ntest memory ... not run: no controller\nwas it not run: no\nnot run\n",
        );
        assert_eq!(count.notes, ["vectors: no folder x", "no controller"]);
    }

    #[test]
    fn a_result_in_another_form_is_an_error() {
        let mut count = Count::default();
        assert!(Reader::new(&mut count).read("test result: ok. all of them").is_err());
    }
}
