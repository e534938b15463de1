//! What a person and a script read: a `figure` line for each number, and beneath it how sure it is.

use serde::Serialize;

use crate::stats::{Answer, Estimate};

/// A number with a name.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figure {
    /// `connect/direct@10`
    pub name: String,
    /// The median and its interval.
    pub estimate: Estimate,
    /// What it is to be at least, where that is stated.
    pub target: Option<f64>,
    /// Whether it is.
    pub answer: Option<Answer>,
    /// Digits after the point.
    #[serde(skip)]
    pub digits: usize,
}

impl Figure {
    /// A ratio, with the target that it has.
    #[must_use]
    pub fn ratio(name: String, estimate: Estimate, target: Option<f64>) -> Self {
        let answer = target.map(|target| Answer::of(&estimate, target));
        Self { name, estimate, target, answer, digits: 3 }
    }

    /// Nanoseconds.
    #[must_use]
    pub fn nanoseconds(name: String, estimate: Estimate) -> Self {
        Self { name, estimate, target: None, answer: None, digits: 0 }
    }

    /// The lines that are printed.
    #[must_use]
    pub fn lines(&self) -> String {
        let Estimate { median, interval: [low, high], quartiles: [q1, q3], count } = self.estimate;
        let digits = self.digits;
        let answer = match (self.target, self.answer) {
            (Some(target), Some(answer)) => format!("; at least {target}: {answer}"),
            _ => String::new(),
        };
        format!(
            "figure {} {median:.digits$}\n    95 % interval {low:.digits$} to {high:.digits$}, \
             half of {count} between {q1:.digits$} and {q3:.digits$}{answer}",
            self.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_says_how_sure_it_is() {
        let estimate = Estimate { median: 0.97, interval: [0.961, 0.98], quartiles: [0.95, 0.99], count: 40 };
        let figure = Figure::ratio("connect/direct@10".into(), estimate, Some(0.95));
        assert_eq!(
            figure.lines(),
            "figure connect/direct@10 0.970\n    95 % interval 0.961 to 0.980, half of 40 between 0.950 and \
             0.990; at least 0.95: holds"
        );
        let plain = Figure::nanoseconds("hook.service-ns".into(), estimate);
        assert!(plain.lines().starts_with("figure hook.service-ns 1\n") && !plain.lines().contains("least"));
    }
}
