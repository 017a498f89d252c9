//! Figures and the table that they are printed in, a row as soon as it is there.
//!
//! ```text
//!   what                             n   median      p90      p99  min .. max      budget        load
//!   worker idle: PSS, MiB           50     0.81     0.83     0.85  0.80 .. 0.85    1.10 median ok  0.4
//! ```

use super::host;

/// Width of the first column.
const WHAT_WIDTH: usize = 62;

/// What was measured, in one unit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn new(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    pub(crate) fn one(value: f64) -> Self {
        Self(vec![value])
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest value that `percent` of all do not pass (nearest rank).
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    pub(crate) fn min(&self) -> f64 {
        self.percentile(0)
    }

    pub(crate) fn max(&self) -> f64 {
        self.percentile(100)
    }

    pub(crate) fn sum(&self) -> f64 {
        self.0.iter().sum()
    }
}

/// The most that a figure may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Budget {
    Median(f64),
    P99(f64),
    Max(f64),
}

impl Budget {
    fn check(self, samples: &Samples) -> String {
        let (limit, word, seen) = match self {
            Self::Median(limit) => (limit, "median", samples.median()),
            Self::P99(limit) => (limit, "p99", samples.percentile(99)),
            Self::Max(limit) => (limit, "max", samples.max()),
        };
        // A figure that is no number keeps no budget.
        let sign = if seen <= limit { "ok" } else { "MISSED" };
        format!("{limit} {word} {sign}")
    }
}

/// The table, as far as it is printed.
#[derive(Debug, Default)]
pub(crate) struct Table {
    missed: Vec<String>,
    judged: usize,
}

impl Table {
    pub(crate) fn begin() -> Self {
        line(&format!("{}\nload {}\n", host::machine(), host::load()));
        Self::default()
    }

    /// A heading over the rows that follow.
    pub(crate) fn heading(words: &str) {
        line(&format!(
            "\n{words:<WHAT_WIDTH$} {:>5} {:>9} {:>9} {:>9}  {:<19} {:<17} load",
            "n", "median", "p90", "p99", "min .. max", "budget"
        ));
    }

    /// A row without a budget.
    pub(crate) fn row(what: &str, samples: &Samples) {
        Self::print(what, samples, "");
    }

    /// A row that must keep a budget.
    pub(crate) fn judged(&mut self, what: &str, samples: &Samples, budget: Budget) {
        let verdict = budget.check(samples);
        self.judged += 1;
        if verdict.ends_with("MISSED") {
            self.missed.push(what.to_owned());
        }
        Self::print(what, samples, &verdict);
    }

    /// Something that was seen and is no figure.
    pub(crate) fn note(words: &str) {
        line(&format!("  {words}"));
    }

    /// A measure that did not come to its end.
    pub(crate) fn failed(&mut self, what: &str, why: &str) {
        self.missed.push(format!("{what} (not measured)"));
        line(&format!("{what:<WHAT_WIDTH$} not measured: {why}"));
    }

    /// The last line: which budgets are missed.
    pub(crate) fn end(self) -> bool {
        let kept = self.missed.is_empty();
        let words = match (kept, self.judged) {
            (true, 0) => "nothing here has a budget".to_owned(),
            (true, _) => "every budget kept".to_owned(),
            (false, _) => format!("missed:\n  {}", self.missed.join("\n  ")),
        };
        line(&format!("\nload {}; {words}", host::load()));
        kept
    }

    fn print(what: &str, samples: &Samples, verdict: &str) {
        line(&format!(
            "{what:<WHAT_WIDTH$} {:>5} {:>9} {:>9} {:>9}  {:<19} {verdict:<17} {:.1}",
            samples.count(),
            figure(samples.median()),
            figure(samples.percentile(90)),
            figure(samples.percentile(99)),
            format!("{} .. {}", figure(samples.min()), figure(samples.max())),
            host::load_1(),
        ));
    }
}

/// A value as all tables show it.
pub(super) fn figure(value: f64) -> String {
    if value.abs() < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

/// Prints a line.
#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
pub(super) fn line(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let samples = Samples::new((1..=200).rev().map(f64::from).collect());
        let seen: Vec<f64> = [0, 50, 90, 99, 100].into_iter().map(|p| samples.percentile(p)).collect();
        assert_eq!(seen, [1.0, 100.0, 180.0, 198.0, 200.0]);
        assert!((Samples::one(3.0).percentile(99) - 3.0).abs() < f64::EPSILON);
        assert!(Samples::default().median().is_nan());
    }

    #[test]
    fn a_budget_without_figures_is_missed() {
        assert!(Budget::Median(1.0).check(&Samples::default()).ends_with("MISSED"));
        assert!(Budget::P99(1.0).check(&Samples::one(1.0)).ends_with("ok"));
        assert!(Budget::Max(1.0).check(&Samples::new(vec![0.5, 1.1])).ends_with("MISSED"));
    }
}
