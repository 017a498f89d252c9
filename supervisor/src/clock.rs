//! The only reader of time.

use crate::machine::nouns::Now;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Both clocks: one that only goes forward, and the wall's.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose ticks begin at zero.
    #[expect(clippy::disallowed_methods, reason = "this is the reader of time")]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Both clocks at this moment.
    #[expect(clippy::disallowed_methods, reason = "this is the reader of time")]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let tick = Instant::now().saturating_duration_since(self.origin);
        Now { tick: millis(tick), wall: millis(wall) }
    }

    /// How long from `now` to a tick.
    pub fn until(now: Now, tick: u64) -> Duration {
        Duration::from_millis(tick.saturating_sub(now.tick))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
