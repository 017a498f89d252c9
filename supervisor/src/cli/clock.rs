//! The command's clocks: for ages in tables, and for what is measured.

/// Unix milliseconds.
pub(super) fn wall_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is a clock.rs")]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A stopwatch that only goes forward: for what is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch(std::time::Instant);

impl Watch {
    /// One that begins at this moment.
    pub(super) fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is a clock.rs")]
        Self(std::time::Instant::now())
    }

    /// Seconds since then.
    pub(super) fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
