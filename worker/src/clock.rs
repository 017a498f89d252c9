//! The only reader of time.

use crate::machine::io::Tick;
use jiff::tz::TimeZone;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// The clocks of this process: one that only goes forward, the wall's, and local time.
#[derive(Debug)]
pub struct Clock {
    origin: Instant,
    zone: Option<TimeZone>,
}

impl Clock {
    /// A clock that begins at zero.
    #[expect(clippy::disallowed_methods, reason = "this is the reader of time")]
    pub fn start() -> Self {
        Self { origin: Instant::now(), zone: None }
    }

    /// Milliseconds since the start of the clock.
    pub fn now(&self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When `tick` is, for a sleep. Beyond a year it is a year.
    pub fn instant(&self, tick: Tick) -> Instant {
        const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
        self.origin + Duration::from_millis(tick.0.min(self.now().0 + YEAR_MS))
    }

    /// Sets the zone in which Codex tells times: the child's `TZ`, else the system's.
    pub fn set_zone(&mut self, name: Option<&str>) {
        let named = name.and_then(|n| TimeZone::get(n.trim_start_matches(':')).ok());
        self.zone = Some(named.unwrap_or_else(TimeZone::system));
    }

    /// How far local time is ahead of UTC, in seconds.
    pub fn utc_offset_s(&self) -> i32 {
        let at = jiff::Timestamp::from_millisecond(i64::try_from(wall_ms()).unwrap_or(0)).unwrap_or_default();
        self.zone.as_ref().map_or(0, |zone| zone.to_offset(at).seconds())
    }
}

/// Unix milliseconds.
#[expect(clippy::disallowed_methods, reason = "this is the reader of time")]
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_follows_the_zone_of_the_child() {
        let mut clock = Clock::start();
        assert_eq!(clock.utc_offset_s(), 0);
        clock.set_zone(Some("Asia/Kolkata"));
        assert_eq!(clock.utc_offset_s(), 19_800);
        clock.set_zone(Some("UTC"));
        assert_eq!(clock.utc_offset_s(), 0);
    }

    #[test]
    fn a_far_deadline_is_no_overflow() {
        let clock = Clock::start();
        assert!(clock.instant(Tick(u64::MAX)) > clock.instant(Tick(1)));
    }
}
