//! Tells systemd how we are: ready, alive, stopping. Without systemd nothing happens.
//!
//! ```text
//!   the loop turns --> a third of WatchdogSec is over --> the ledger's writer is asked for a pulse
//!                                                             | it came round
//!   systemd <-------------- WATCHDOG=1 <----------------------'
//! ```
//! So a loop that hangs and a writer that hangs both end in a restart, with the workers staying. A full disk does not:
//! its writer comes round, and a restart would not make room.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sd_notify::NotifyState;
use std::fmt;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior};

/// Pulses within one `WatchdogSec`: two may come late by half of it and nothing happens.
const PULSES: u32 = 3;

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

/// The main loop has come round, and so has the ledger's writer.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// When [`alive`] is to be told.
pub struct Watchdog {
    interval: Interval,
    pulse: Option<BoxFuture<'static, bool>>,
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog").field("waits_for_pulse", &self.pulse.is_some()).finish_non_exhaustive()
    }
}

impl Watchdog {
    /// The one that systemd asks for, `None` if it does not ask. Needs a tokio runtime.
    pub fn of_process() -> Option<Self> {
        sd_notify::watchdog_enabled().map(Self::within)
    }

    fn within(limit: Duration) -> Self {
        let mut interval = tokio::time::interval((limit / PULSES).max(Duration::from_millis(1)));
        // After a stall one pulse is as good as many.
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { interval, pulse: None }
    }

    /// Resolves when a pulse has come, once for each; never if none comes. May be dropped and called again.
    pub async fn fed<P>(&mut self, ask: impl Fn() -> P)
    where
        P: Future<Output = bool> + Send + 'static,
    {
        loop {
            if let Some(pulse) = &mut self.pulse {
                let came = pulse.await;
                self.pulse = None;
                if came {
                    return;
                }
            }
            self.interval.tick().await;
            self.pulse = Some(ask().boxed());
        }
    }
}

/// As [`Watchdog::fed`]; without one it never resolves.
pub async fn fed<P>(watchdog: Option<&mut Watchdog>, ask: impl Fn() -> P)
where
    P: Future<Output = bool> + Send + 'static,
{
    match watchdog {
        Some(watchdog) => watchdog.fed(ask).await,
        None => std::future::pending().await,
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    /// A third of it is one pause between pulses.
    const LIMIT: Duration = Duration::from_millis(15);

    #[tokio::test]
    async fn each_pulse_feeds_once() {
        let mut watchdog = Watchdog::within(LIMIT);
        assert_eq!(watchdog.interval.period(), LIMIT / 3);
        let asked = Cell::new(0);
        for fed in 1..=5 {
            watchdog.fed(|| std::future::ready(asked.replace(asked.get() + 1) >= 0)).await;
            assert_eq!(asked.get(), fed);
        }
    }

    #[tokio::test]
    async fn a_writer_that_hangs_feeds_nobody_until_it_comes_round() {
        let mut watchdog = Watchdog::within(LIMIT);
        let (writer, pulse) = oneshot::channel::<()>();
        let pulse = Cell::new(Some(pulse));
        let asked = Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            let pulse = pulse.take();
            async move {
                match pulse {
                    Some(pulse) => pulse.await.is_ok(),
                    None => std::future::pending().await,
                }
            }
        };
        let mut rounds = 0;
        while asked.get() == 0 || rounds < 10 {
            // As the loop does: the wait is dropped and begun again at each turn.
            assert!(timeout(LIMIT, watchdog.fed(ask)).await.is_err());
            rounds += 1;
        }
        assert_eq!(asked.get(), 1, "one question at a time");
        writer.send(()).unwrap();
        watchdog.fed(ask).await;
    }

    #[tokio::test]
    async fn a_writer_that_is_gone_feeds_nobody() {
        let mut watchdog = Watchdog::within(LIMIT);
        let asked = Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            std::future::ready(false)
        };
        while asked.get() < 5 {
            assert!(timeout(LIMIT, watchdog.fed(ask)).await.is_err());
        }
    }
}
