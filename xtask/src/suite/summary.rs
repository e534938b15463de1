//! The summary at the end: a line for each layer, what failed, what did not run, every figure.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use super::count::Count;
use crate::shell::Style;

/// Of the column of names, in characters, if none is longer.
const NAME_WIDTH: usize = 10;

/// How a layer ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Everything in it passed.
    Passed,
    /// Something did not; says what, where that is not a test of its own.
    Failed(String),
    /// It did not run, and why.
    NotRun(String),
}

/// One line of the summary.
#[derive(Debug)]
pub(crate) struct LayerReport {
    /// The layer.
    pub(crate) name: String,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// Its tests.
    pub(crate) count: Count,
    /// How long it took, compiling included.
    pub(crate) took: Duration,
}

/// All layers that were asked for.
#[derive(Debug)]
pub(crate) struct Report {
    layers: Vec<LayerReport>,
    /// What did not run is a fault in the CI, where everything can.
    ci: bool,
}

impl Report {
    /// Without any layer yet.
    pub(crate) fn new(ci: bool) -> Self {
        Self { layers: Vec::new(), ci }
    }

    /// The next layer.
    pub(crate) fn add(&mut self, layer: LayerReport) {
        self.layers.push(layer);
    }

    /// 0: everything that ran passed. 1: something failed. 2: in the CI, not everything ran.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        let any = |is: fn(&Outcome) -> bool| self.layers.iter().any(|layer| is(&layer.outcome));
        if any(|outcome| matches!(outcome, Outcome::Failed(_))) {
            1
        } else if self.ci && any(|outcome| matches!(outcome, Outcome::NotRun(_))) {
            2
        } else {
            0
        }
    }

    /// As text, with its last line end.
    pub(crate) fn render(&self, style: Style) -> String {
        let mut text = String::from("\n");
        let width = self.layers.iter().map(|layer| layer.name.len()).max().unwrap_or(0).max(NAME_WIDTH);
        let heading = format!(
            "{:<width$} {:<7} {:>6} {:>6} {:>7} {:>8}",
            "layer", "result", "passed", "failed", "ignored", "time"
        );
        line(&mut text, &style.heading(&heading));
        for layer in &self.layers {
            line(&mut text, &layer.render(style, width));
        }
        for layer in &self.layers {
            for name in &layer.count.failures {
                line(&mut text, &format!("{} {}: {name}", style.bad("failed"), layer.name));
            }
            if let Outcome::Failed(reason) = &layer.outcome
                && !reason.is_empty()
            {
                line(&mut text, &format!("{} {}: {reason}", style.bad("failed"), layer.name));
            }
            for note in &layer.count.notes {
                line(&mut text, &format!("{} {}: {note}", style.open("not run"), layer.name));
            }
        }
        for figure in self.layers.iter().flat_map(|layer| &layer.count.figures) {
            line(&mut text, figure);
        }
        text
    }
}

impl LayerReport {
    fn render(&self, style: Style, width: usize) -> String {
        let Count { passed, failed, ignored, .. } = &self.count;
        // Padded before it is coloured: what colours is not seen, but would be counted.
        let (result, numbers) = match &self.outcome {
            Outcome::NotRun(reason) => (style.open("not run"), format!("({reason})")),
            outcome => {
                let result =
                    if *outcome == Outcome::Passed { style.good("ok     ") } else { style.bad("FAILED ") };
                let took = format!("{:.1} s", self.took.as_secs_f64());
                (result, format!("{passed:>6} {failed:>6} {ignored:>7} {took:>8}"))
            }
        };
        format!("{:<width$} {result} {numbers}", self.name)
    }
}

fn line(text: &mut String, line: &str) {
    // Writing into a string cannot fail.
    let _ = writeln!(text, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &'static str, outcome: Outcome) -> LayerReport {
        LayerReport {
            name: name.into(),
            outcome,
            count: Count::default(),
            took: Duration::from_millis(1_250),
        }
    }

    fn report(ci: bool, outcomes: &[Outcome]) -> Report {
        let mut report = Report::new(ci);
        outcomes.iter().for_each(|outcome| report.add(layer("some", outcome.clone())));
        report
    }

    #[test]
    fn exit_codes_tell_failed_from_incomplete() {
        let (passed, failed, not_run) =
            (Outcome::Passed, Outcome::Failed(String::new()), Outcome::NotRun("needs root".into()));
        for (ci, outcomes, code) in [
            (true, vec![passed.clone()], 0),
            (false, vec![passed.clone(), not_run.clone()], 0),
            (true, vec![passed.clone(), not_run.clone()], 2),
            (false, vec![failed.clone(), not_run.clone()], 1),
            (true, vec![not_run, failed, passed], 1),
        ] {
            assert_eq!(report(ci, &outcomes).code(), code, "{outcomes:?}");
        }
    }

    #[test]
    fn the_summary_says_what_ran_and_what_did_not() {
        let mut report = report(false, &[]);
        let mut unit = layer("unit", Outcome::Failed(String::new()));
        unit.count = Count { passed: 12, failed: 1, failures: vec!["a::b".into()], ..Count::default() };
        let mut vectors = layer("vectors", Outcome::Passed);
        vectors.count = Count { passed: 2, figures: vec!["figure v.t 32/32".into()], ..Count::default() };
        report.add(unit);
        report.add(vectors);
        report.add(layer("lab", Outcome::NotRun("needs root".into())));
        let text = report.render(Style::plain());
        let expected = "
layer      result  passed failed ignored     time
unit       FAILED      12      1       0    1.2 s
vectors    ok           2      0       0    1.2 s
lab        not run (needs root)
failed unit: a::b
figure v.t 32/32
";
        assert_eq!(text, expected);
    }
}
