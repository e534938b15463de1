//! From measurements to an answer: the median of paired ratios, its bootstrap interval, and whether a target holds.
//!
//! Pure. Called by the two benchmarks when they report.

use std::fmt;

use serde::Serialize;

/// How many times the measurements are drawn anew.
pub const RESAMPLES: usize = 10_000;

/// With fewer values there is no answer, whatever the interval: it is itself a guess then.
pub const FEWEST: usize = 20;

/// A median and how sure it is.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Estimate {
    /// The median of the values.
    pub median: f64,
    /// The interval in which 95 % of the medians of resampled values lie (percentile bootstrap).
    pub interval: [f64; 2],
    /// The first and the third quartile of the values: how much single ones differ.
    pub quartiles: [f64; 2],
    /// How many values.
    pub count: usize,
}

/// What can be said about a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The whole interval is above the target.
    Holds,
    /// The whole interval is below the target.
    FallsShort,
    /// The interval contains the target, or there are fewer than [`FEWEST`] values.
    Undecided,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::FallsShort => "falls short",
            Self::Undecided => "undecided",
        })
    }
}

impl Answer {
    /// Whether what is estimated is at least `target`.
    #[must_use]
    pub fn of(estimate: &Estimate, target: f64) -> Self {
        let [low, high] = estimate.interval;
        if estimate.count < FEWEST {
            Self::Undecided
        } else if low > target {
            Self::Holds
        } else if high < target {
            Self::FallsShort
        } else {
            Self::Undecided
        }
    }
}

/// Estimates the median; `None` without values, or if one is no number.
#[must_use]
pub fn estimate(values: &[f64], seed: u64) -> Option<Estimate> {
    if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut drawn = vec![0.0; sorted.len()];
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            drawn.fill_with(|| sorted[random.usize(..sorted.len())]);
            drawn.sort_by(f64::total_cmp);
            quantile(&drawn, 0.5)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Some(Estimate {
        median: quantile(&sorted, 0.5),
        interval: [quantile(&medians, 0.025), quantile(&medians, 0.975)],
        quartiles: [quantile(&sorted, 0.25), quantile(&sorted, 0.75)],
        count: sorted.len(),
    })
}

/// The value below which that part of the sorted values lies, interpolated between neighbours.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index into a few thousand values"
)]
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = last as f64 * part;
    let below = at.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (at - at.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_known_values_is_known() {
        let of = |values: &[f64]| estimate(values, 1).unwrap().median;
        assert_eq!(of(&[3.0]), 3.0);
        assert_eq!(of(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(of(&[4.0, 1.0, 2.0, 8.0]), 3.0);
        assert_eq!(estimate(&[0.0, 1.0, 2.0, 3.0, 4.0], 1).unwrap().quartiles, [1.0, 3.0]);
    }

    #[test]
    fn the_interval_of_known_values_is_the_exact_one() {
        // Of 21 different values the resampled median is at most the k-th smallest exactly if 11 of 21 draws are:
        // a binomial distribution, whose 2.5 % and 97.5 % points are computed here and nowhere in the estimate.
        let n = 21;
        let at_most = |k: i32| {
            let p = f64::from(k) / f64::from(n);
            (11..=n).map(|i| choose(n, i) * p.powi(i) * (1.0 - p).powi(n - i)).sum::<f64>()
        };
        let point = |part: f64| f64::from((1..=n).find(|k| at_most(*k) >= part).unwrap());
        let values: Vec<f64> = (1..=n).rev().map(f64::from).collect();
        let found = estimate(&values, 7).unwrap();
        assert_eq!(found.median, 11.0);
        assert_eq!(found.interval, [point(0.025), point(0.975)]);
        assert_eq!(found.interval, [7.0, 15.0]);
    }

    fn choose(n: i32, k: i32) -> f64 {
        (1..=k).map(|i| f64::from(n - k + i) / f64::from(i)).product()
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let values: Vec<f64> = (0..40).map(|i| f64::from(i * i % 37)).collect();
        assert_eq!(estimate(&values, 3), estimate(&values, 3));
    }

    #[test]
    fn there_are_three_answers() {
        let of = |count, interval| Estimate { median: 0.0, interval, quartiles: [0.0; 2], count };
        let about = |interval| of(FEWEST, interval);
        assert_eq!(Answer::of(&about([0.96, 0.99]), 0.95), Answer::Holds);
        assert_eq!(Answer::of(&about([0.90, 0.94]), 0.95), Answer::FallsShort);
        assert_eq!(Answer::of(&about([0.94, 0.96]), 0.95), Answer::Undecided);
        assert_eq!(Answer::of(&about([0.95, 0.96]), 0.95), Answer::Undecided, "the bound belongs to it");
        assert_eq!(Answer::of(&of(FEWEST - 1, [0.96, 0.99]), 0.95), Answer::Undecided, "too few values");
    }

    #[test]
    fn nothing_is_no_estimate() {
        assert_eq!(estimate(&[], 1), None);
        assert_eq!(estimate(&[1.0, f64::NAN], 1), None);
        assert_eq!(estimate(&[f64::INFINITY], 1), None);
    }
}
