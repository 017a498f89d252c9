//! Tells systemd how we are: ready, alive, stopping. Without systemd nothing happens.

use sd_notify::NotifyState;
use std::time::Duration;

/// Messages are taken from here on.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// We leave.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Another program takes our place in this process: not an end.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "systemd was not told"),
    }
}

/// The main loop has come round.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] must be told: half of what systemd asks for, `None` if it does not ask.
pub fn alive_every() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
