//! What became of each case of a file.

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

/// The cases of one file, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    cases: Vec<(String, Outcome)>,
}

impl Tally {
    /// Takes in one case.
    pub fn add(&mut self, name: String, outcome: Outcome) {
        self.cases.push((name, outcome));
    }

    /// Takes in all cases of another.
    pub fn append(&mut self, other: Self) {
        self.cases.extend(other.cases);
    }

    /// Each case, in the order of the file.
    pub fn cases(&self) -> impl Iterator<Item = (&str, &Outcome)> {
        self.cases.iter().map(|(name, outcome)| (name.as_str(), outcome))
    }

    /// How many passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Passed))
    }

    /// How many failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    /// How many are not judged yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Pending(_)))
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> usize {
        self.cases.len()
    }

    fn count(&self, is: impl Fn(&Outcome) -> bool) -> usize {
        self.cases.iter().filter(|(_, outcome)| is(outcome)).count()
    }
}

/// How many passed and failed, and how many wait for what.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed, pending) = (self.passed(), self.failed(), self.pending());
        write!(f, "{passed} passed, {failed} failed, {pending} pending")?;
        let mut reasons = BTreeMap::<_, usize>::new();
        for (_, outcome) in &self.cases {
            if let Outcome::Pending(why) = outcome {
                *reasons.entry(why).or_default() += 1;
            }
        }
        for (why, count) in reasons {
            write!(f, "\n  {count} pending: {why}")?;
        }
        Ok(())
    }
}
