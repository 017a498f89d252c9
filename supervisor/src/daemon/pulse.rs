//! Measures how late our own loop comes round: a supervisor that lags must not call its workers silent.
//!
//! ```text
//!   loop --- at least every second ---> beat: on time, nothing follows
//!                                       beat: a second late or more --> Input::Lagged, before the input that came late
//! ```

use super::Daemon;
use crate::machine::words::Input;

/// How often the loop comes round at least. Milliseconds.
const PULSE_MS: u64 = 1_000;
/// From this lateness on the machine is told. Milliseconds.
const LAG_MS: u64 = 1_000;

/// When the loop comes round next at the latest, if it is on time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pulse {
    due: u64,
}

impl Pulse {
    /// A pulse that begins at this tick.
    pub(super) const fn begin(now: u64) -> Self {
        Self { due: now.saturating_add(PULSE_MS) }
    }

    /// The tick at which the loop must have come round.
    pub(super) const fn due(self) -> u64 {
        self.due
    }

    /// The loop comes round: how late it is, if that counts.
    fn beat(&mut self, now: u64) -> Option<u64> {
        let late = now.checked_sub(self.due)?;
        *self = Self::begin(now);
        (late >= LAG_MS).then_some(late)
    }
}

impl Daemon {
    /// The sleep is over: something is due, or the loop merely shows itself that it is on time.
    pub(super) fn timeout(&mut self, due: u64) {
        if self.clock.now().tick >= due {
            self.handle(Input::Timeout);
        } else {
            self.feel_pulse();
        }
    }

    /// The machine hears of a lag before the input that came with it.
    pub(super) fn feel_pulse(&mut self) {
        if let Some(late_ms) = self.pulse.beat(self.clock.now().tick) {
            tracing::warn!(late_ms, "the loop was late");
            self.handle(Input::Lagged(late_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_lateness_counts_once() {
        let mut pulse = Pulse::begin(0);
        assert_eq!((pulse.beat(10), pulse.due()), (None, 1_000), "early is on time, and changes nothing");
        assert_eq!((pulse.beat(1_999), pulse.due()), (None, 2_999));
        assert_eq!(pulse.beat(3_999), Some(1_000));
        assert_eq!(pulse.beat(4_000), None);
    }
}
