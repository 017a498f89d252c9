//! Samples and what is told of them. Pure.

use super::plan::{Phase, Times};
use serde::Serialize;

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// When it began, in seconds since the begin of its drill.
    pub(super) at_s: f64,
    /// How long it took, in milliseconds. What failed took as long as it was waited for.
    pub(super) ms: f64,
    /// Whether it succeeded.
    pub(super) ok: bool,
}

/// What is told of the samples of a phase. Without samples all is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Summary {
    /// How many.
    pub(super) count: usize,
    /// How many of them failed.
    pub(super) failed: usize,
    /// In milliseconds.
    pub(super) median: f64,
    /// In milliseconds; of fewer than 100 samples it is the largest.
    pub(super) p99: f64,
    /// In milliseconds.
    pub(super) max: f64,
}

impl Summary {
    /// Of the samples that began in this phase.
    pub(super) fn of(samples: &[Sample], times: &Times, phase: Phase) -> Self {
        let inside: Vec<&Sample> = samples.iter().filter(|sample| times.phase(sample.at_s) == phase).collect();
        let mut all: Vec<f64> = inside.iter().map(|sample| sample.ms).collect();
        all.sort_by(f64::total_cmp);
        Self {
            count: all.len(),
            failed: inside.iter().filter(|sample| !sample.ok).count(),
            median: percentile(&all, 50),
            p99: percentile(&all, 99),
            max: all.last().copied().unwrap_or(0.0),
        }
    }
}

/// The smallest value that so many per cent of all do not pass (nearest rank); zero of nothing.
pub(super) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0.0)
}

/// How many times the first the second is; `None` where there is no first or no second.
pub(super) fn ratio(before: f64, after: f64) -> Option<f64> {
    (before > 0.0 && after > 0.0).then(|| after / before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIMES: Times = Times { hurt: 1.0, ended: 2.0, over: 3.0 };

    fn sample(at_s: f64, ms: f64) -> Sample {
        Sample { at_s, ms, ok: true }
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        let told = |sorted: &[f64], percent| percentile(sorted, percent).to_string();
        assert_eq!([50, 99, 100].map(|percent| told(&hundred, percent)), ["50", "99", "100"]);
        assert_eq!([told(&[7.0], 50), told(&[], 99), told(&[1.0, 2.0, 3.0], 99)], ["7", "0", "3"]);
    }

    #[test]
    fn each_phase_is_told_by_itself() {
        let mut all = vec![sample(0.1, 10.0), sample(0.2, 30.0), sample(0.3, 20.0), sample(1.5, 99.0)];
        all.push(Sample { ok: false, ..sample(1.9, 500.0) });
        let before = Summary::of(&all, &TIMES, Phase::Before);
        assert_eq!(before, Summary { count: 3, failed: 0, median: 20.0, p99: 30.0, max: 30.0 });
        assert_eq!(Summary::of(&all, &TIMES, Phase::During).failed, 1);
        assert_eq!(Summary::of(&all, &TIMES, Phase::After), Summary::default());
    }

    #[test]
    fn no_ratio_is_made_of_nothing() {
        assert_eq!(ratio(2.0, 3.0), Some(1.5));
        assert_eq!((ratio(0.0, 3.0), ratio(3.0, 0.0)), (None, None));
    }

    proptest! {
        #[test]
        fn a_summary_is_in_order(values in proptest::collection::vec(0.001f64..1e6, 1..200)) {
            let all: Vec<Sample> = values.iter().map(|ms| sample(0.5, *ms)).collect();
            let told = Summary::of(&all, &TIMES, Phase::Before);
            prop_assert!(told.median <= told.p99 && told.p99 <= told.max);
            prop_assert!(values.contains(&told.median) && values.contains(&told.p99));
        }
    }
}
