//! The only reader of time in the benchmarks, and the only place that pauses.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between two looks at something that should happen within milliseconds.
const LOOK_US: u64 = 150;

/// This moment, for differences.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Unix microseconds: what two processes of one host can compare.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(super) fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds of a duration.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Milliseconds between two readings of [`wall_us`].
pub(crate) fn ms_between(from: u64, to: u64) -> f64 {
    Duration::from_micros(to.saturating_sub(from)).as_secs_f64() * 1000.0
}

/// Lets time pass.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Looks until `look` gives something; `None` if it gives nothing within `limit`.
pub(crate) fn until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begin = now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if begin.elapsed() > limit {
            return None;
        }
        pause(Duration::from_micros(LOOK_US));
    }
}
