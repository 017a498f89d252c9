//! What the figures mean: the budgets, and whether they hold. Pure.

use super::plan::Kind;
use super::stats::{Summary, ratio};
use serde::Serialize;

/// The others' turns while one agent is hurt: median, as a ratio to the time before.
pub(super) const TURNS_MEDIAN_RATIO_MAX: f64 = 1.1;
/// The same for the 99th percentile.
pub(super) const TURNS_P99_RATIO_MAX: f64 = 1.5;
/// `health` at the socket while one agent is hurt: 99th percentile in milliseconds.
pub(super) const HEALTH_P99_MS_MAX: f64 = 5.0;
/// Fewer samples in a phase than these say nothing.
pub(super) const SAMPLES_MIN: usize = 20;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Probe {
    /// Small turns of other agents, from the message to the answer.
    Turns,
    /// The answer to `health` at the control socket.
    Health,
    /// The answer of a configured agent's worker to a ping.
    Workers,
}

impl Probe {
    pub(super) const ALL: [Self; 3] = [Self::Turns, Self::Health, Self::Workers];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Turns => "turns of others",
            Self::Health => "health",
            Self::Workers => "pings of workers",
        }
    }
}

/// How a probe did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// There is no budget for it; of turns: the harm uses the processor, and nothing here shares that out.
    NoBudget,
    /// The budget holds.
    Within,
    /// Too few samples to tell.
    TooFew,
    /// The budget is missed on a host that was busy before anything was hurt.
    Busy,
    /// The budget is missed.
    Missed,
}

impl Verdict {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Within => "within budget",
            Self::NoBudget => "no budget",
            Self::TooFew => "too few samples",
            Self::Busy => "missed, busy host",
            Self::Missed => "MISSED",
        }
    }
}

/// The host that is measured on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ground {
    /// The victim's share of the processor is enforced (`cpu.weight`).
    pub(super) weighted: bool,
    /// It was busy before anything was hurt.
    pub(super) busy: bool,
}

/// Judges a probe.
pub(super) fn judge(probe: Probe, kind: Kind, before: &Summary, during: &Summary, ground: Ground) -> Verdict {
    if during.failed > 0 {
        return Verdict::Missed;
    }
    if probe != Probe::Workers && (before.count < SAMPLES_MIN || during.count < SAMPLES_MIN) {
        return Verdict::TooFew;
    }
    let holds = match probe {
        Probe::Workers => return Verdict::NoBudget,
        Probe::Turns if kind.is_cpu_bound() && !ground.weighted => return Verdict::NoBudget,
        Probe::Turns => {
            let within = |before, during, most| ratio(before, during).is_some_and(|ratio| ratio <= most);
            within(before.median, during.median, TURNS_MEDIAN_RATIO_MAX)
                && within(before.p99, during.p99, TURNS_P99_RATIO_MAX)
        }
        Probe::Health => during.p99 <= HEALTH_P99_MS_MAX,
    };
    match (holds, ground.busy) {
        (true, _) => Verdict::Within,
        (false, true) => Verdict::Busy,
        (false, false) => Verdict::Missed,
    }
}

/// The verdict of several.
pub(super) fn worst(all: impl IntoIterator<Item = Verdict>) -> Verdict {
    all.into_iter().max().unwrap_or(Verdict::TooFew)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(count: usize, median: f64, p99: f64) -> Summary {
        Summary { count, failed: 0, median, p99, max: p99 }
    }

    const fn ground(weighted: bool) -> Ground {
        Ground { weighted, busy: false }
    }

    fn turns(kind: Kind, during: Summary, weighted: bool) -> Verdict {
        judge(Probe::Turns, kind, &told(50, 60.0, 80.0), &during, ground(weighted))
    }

    #[test]
    fn turns_are_judged_by_both_ratios() {
        assert_eq!(turns(Kind::Stall, told(50, 65.9, 119.0), false), Verdict::Within);
        assert_eq!(turns(Kind::Stall, told(50, 66.1, 80.0), false), Verdict::Missed);
        assert_eq!(turns(Kind::Stall, told(50, 60.0, 121.0), false), Verdict::Missed);
    }

    #[test]
    fn a_busy_processor_counts_where_shares_are_enforced() {
        let slow = told(50, 120.0, 300.0);
        assert_eq!(turns(Kind::Forks, slow, false), Verdict::NoBudget);
        assert_eq!(turns(Kind::Forks, slow, true), Verdict::Missed);
        assert_eq!(judge(Probe::Health, Kind::Forks, &slow, &told(50, 1.0, 5.1), ground(false)), Verdict::Missed);
        assert_eq!(judge(Probe::Health, Kind::Forks, &slow, &told(50, 1.0, 5.0), ground(false)), Verdict::Within);
    }

    #[test]
    fn few_samples_say_nothing_and_a_failure_says_all() {
        assert_eq!(turns(Kind::Stop, told(19, 60.0, 60.0), true), Verdict::TooFew);
        assert_eq!(turns(Kind::Oom, Summary { failed: 1, ..told(1, 1.0, 1.0) }, false), Verdict::Missed);
        assert_eq!(worst([Verdict::Within, Verdict::Missed, Verdict::TooFew]), Verdict::Missed);
        assert_eq!(worst([Verdict::Within, Verdict::NoBudget]), Verdict::Within);
    }

    #[test]
    fn a_busy_host_is_no_proof_against_us_but_a_failure_is() {
        let busy = Ground { weighted: true, busy: true };
        let quiet = told(50, 60.0, 80.0);
        assert_eq!(judge(Probe::Turns, Kind::Stall, &quiet, &told(50, 90.0, 90.0), busy), Verdict::Busy);
        assert_eq!(judge(Probe::Turns, Kind::Stall, &quiet, &quiet, busy), Verdict::Within);
        let failed = Summary { failed: 1, ..quiet };
        assert_eq!(judge(Probe::Workers, Kind::Stall, &quiet, &failed, busy), Verdict::Missed);
        assert_eq!(judge(Probe::Workers, Kind::Stall, &quiet, &told(1, 99.0, 99.0), busy), Verdict::NoBudget);
    }
}
