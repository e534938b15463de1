//! How many cases passed, which failed, and which wait for what.

use std::collections::BTreeMap;
use std::fmt;

/// What became of one case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// As expected.
    Passed,
    /// Not as expected, and how.
    Failed(String),
    /// Not judged yet, and why.
    Pending(&'static str),
}

/// The cases of one file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    passed: usize,
    failed: Vec<(String, String)>,
    pending: BTreeMap<&'static str, Vec<String>>,
}

impl Tally {
    /// Counts one case.
    pub fn add(&mut self, name: String, outcome: Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(how) => self.failed.push((name, how)),
            Outcome::Pending(why) => self.pending.entry(why).or_default().push(name),
        }
    }

    /// How many passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// How many failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failed.len()
    }

    /// How many are not judged yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.values().map(Vec::len).sum()
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> usize {
        self.passed + self.failed() + self.pending()
    }
}

/// Every pending and every failed case by name; those that passed as a number.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (why, names) in &self.pending {
            writeln!(f, "  pending: {}, {why}", names.len())?;
            for name in names {
                writeln!(f, "    pending {name}")?;
            }
        }
        for (name, how) in &self.failed {
            writeln!(f, "  FAILED {name}: {how}")?;
        }
        let (passed, pending, failed) = (self.passed, self.pending(), self.failed());
        write!(f, "  {passed} passed, {pending} pending, {failed} failed")
    }
}
