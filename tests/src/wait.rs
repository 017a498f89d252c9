//! Waits for a condition, with a limit, and tells the story if it never comes. The only place that pauses.

use std::time::{Duration, Instant};

/// Longest wait for anything that should happen at once. Generous: the machine may have two busy cores.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `look` gives something.
///
/// # Panics
/// When it gives nothing within `limit`: with `what` was waited for and the `story` so far.
#[expect(clippy::disallowed_methods, reason = "a wait in a test has a limit, and fails the test")]
pub fn until<T>(what: &str, limit: Duration, story: impl Fn() -> String, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() <= limit, "{what}: not within {limit:?}\n{}", story());
        std::thread::sleep(PAUSE);
    }
}
