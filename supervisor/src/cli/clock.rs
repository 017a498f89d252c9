//! The command's clock: for ages in tables, and for what is measured.

/// Now, for how long something takes.
pub(super) fn instant() -> std::time::Instant {
    #[expect(clippy::disallowed_methods, reason = "this is a clock.rs")]
    std::time::Instant::now()
}

/// Unix milliseconds.
pub(super) fn wall_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is a clock.rs")]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
