//! How soon a worker is started again, and when we give up: growing pauses and restart intensity.
//!
//! The first restart of a worker that had been ready for a while is immediate (s6's rule: one that worked deserves no
//! pause). Further ones pause 0.5 s, doubled up to 30 s, with up to a tenth of jitter so that a fleet does not start in
//! step (pebble's figures). More than five ends within a minute, and nothing is tried any more until a person says so
//! (Erlang's intensity and period, with room for a person's own kills).

use std::collections::VecDeque;

/// A worker that was ready for so long is restarted at once. Milliseconds.
pub const READY_ENOUGH_MS: u64 = 1_000;
/// First pause in milliseconds.
pub const PAUSE_FIRST_MS: u64 = 500;
/// Longest pause in milliseconds.
pub const PAUSE_MAX_MS: u64 = 30_000;
/// Ends within the period that are borne.
pub const ENDS_MAX: usize = 5;
/// The period of the intensity, and the quiet after which pauses begin anew. Milliseconds.
pub const PERIOD_MS: u64 = 60_000;

/// What follows an unwanted end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start again at this tick.
    At(u64),
    /// Too many ends: give up.
    GiveUp,
}

/// The history of one agent's unwanted ends. Bounded by [`ENDS_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    ends: VecDeque<u64>,
    pauses: u32,
}

impl History {
    /// Counts an end at tick `now` of a worker that had been ready for `ready_ms`, and says what follows.
    /// `jitter` is any number; it spreads the pause.
    pub fn ended(&mut self, now: u64, ready_ms: Option<u64>, jitter: u64) -> Verdict {
        if self.ends.back().is_none_or(|last| now.saturating_sub(*last) > PERIOD_MS) {
            self.pauses = 0;
        }
        self.ends.retain(|end| now.saturating_sub(*end) <= PERIOD_MS);
        if self.ends.len() >= ENDS_MAX {
            return Verdict::GiveUp;
        }
        self.ends.push_back(now);
        if self.pauses == 0 && ready_ms.is_some_and(|ms| ms >= READY_ENOUGH_MS) {
            self.pauses = 1;
            return Verdict::At(now);
        }
        let pause = PAUSE_FIRST_MS.saturating_mul(1 << self.pauses.min(10).saturating_sub(1)).min(PAUSE_MAX_MS);
        self.pauses += 1;
        Verdict::At(now + pause + jitter % (pause / 10 + 1))
    }

    /// Forgets everything: a person wants a new beginning.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_of_a_good_worker_is_immediate_and_pauses_grow() {
        let mut history = History::default();
        assert_eq!(history.ended(10_000, Some(5_000), 0), Verdict::At(10_000));
        assert_eq!(history.ended(11_500, Some(1_200), 0), Verdict::At(12_000));
        assert_eq!(history.ended(13_000, None, 0), Verdict::At(14_000));
        assert_eq!(history.ended(15_000, None, 7), Verdict::At(17_007));
    }

    #[test]
    fn six_ends_in_a_minute_are_too_many_and_a_quiet_minute_heals() {
        let mut history = History::default();
        for end in 0..ENDS_MAX as u64 {
            assert!(matches!(history.ended(end * 1_000, None, 3), Verdict::At(_)));
        }
        assert_eq!(history.ended(6_000, None, 3), Verdict::GiveUp);
        assert_eq!(history.ended(6_000 + 2 * PERIOD_MS, Some(PERIOD_MS), 3), Verdict::At(6_000 + 2 * PERIOD_MS));
    }

    #[test]
    fn jitter_is_at_most_a_tenth() {
        for jitter in [0, 1, 49, 50, 51, u64::MAX] {
            let mut history = History::default();
            let Verdict::At(at) = history.ended(0, None, jitter) else { panic!("gave up") };
            assert!((PAUSE_FIRST_MS..=PAUSE_FIRST_MS + PAUSE_FIRST_MS / 10).contains(&at), "{at}");
        }
    }
}
