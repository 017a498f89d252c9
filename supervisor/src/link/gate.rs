//! How much of one worker's news may be on its way to the daemon. Pure.
//!
//! ```text
//!   every frame      --- window's budget spent? --- yes --> the rest of this window is waited out
//!   Progress, Delta  --- gate open? --- yes --> the daemon
//!                            | no
//!                            `--> the newest progress of each attempt is kept, the rest is counted
//!   everything else  --- waits for the gate ---> the daemon
//! ```

use protocol::frame::Frame;
use protocol::from_worker::Progress;
use protocol::{AttemptId, FromWorker};
use std::collections::BTreeMap;

/// News of one session that may be with the daemon at once: enough to keep it busy for a moment, so few that a flood
/// of one worker is a small part of the daemon's channel.
pub const NEWS_AT_ONCE_MAX: usize = 8;

/// What one session may cost within [`WINDOW_MS`] before its reading pauses until the window ends: 1 a frame and 1 for
/// each further `COST_BYTES`. That is 2,000 frames or 16 MiB a second: more than any turn says, and a small part of
/// what the daemon can take.
pub const COST_PER_WINDOW_MAX: u32 = 512;

/// See [`COST_PER_WINDOW_MAX`], in milliseconds.
pub const WINDOW_MS: u64 = 250;

/// See [`COST_PER_WINDOW_MAX`].
const COST_BYTES: usize = 8 * 1024;

/// What a frame costs.
pub(super) fn cost(frame: &Frame) -> u32 {
    u32::try_from(frame.body.len() / COST_BYTES).unwrap_or(u32::MAX).saturating_add(1)
}

/// Attempts whose latest progress is kept while the gate is shut. A worker runs fewer turns than this at once.
const KEPT_MAX: usize = 64;

/// What was held back while the gate was shut.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    latest: BTreeMap<AttemptId, Progress>,
    lost: BTreeMap<AttemptId, u32>,
}

/// Whether a message may be dropped under pressure.
pub(super) const fn may_be_dropped(said: &FromWorker) -> bool {
    match said {
        FromWorker::Progress(_) | FromWorker::Delta(_) => true,
        FromWorker::Hello(_)
        | FromWorker::Finished(_)
        | FromWorker::Ready(_)
        | FromWorker::Begun(_)
        | FromWorker::Started(_)
        | FromWorker::Steered(_)
        | FromWorker::Beat(_)
        | FromWorker::Note(_)
        | FromWorker::Alert(_)
        | FromWorker::Spare(_)
        | FromWorker::Pong(_) => false,
    }
}

impl HeldBack {
    /// Whether progress waits for the gate.
    pub(super) fn is_empty(&self) -> bool {
        self.latest.is_empty()
    }

    /// Keeps what can be kept of a message that found the gate shut.
    pub(super) fn hold(&mut self, said: FromWorker) {
        match said {
            FromWorker::Progress(progress) => {
                let attempt = progress.attempt;
                if self.latest.len() >= KEPT_MAX && !self.latest.contains_key(&attempt) {
                    return;
                }
                if let Some(old) = self.latest.insert(attempt, progress) {
                    self.count(attempt, old.dropped.saturating_add(1));
                }
            }
            FromWorker::Delta(delta) => self.count(delta.attempt, 1),
            FromWorker::Hello(_)
            | FromWorker::Finished(_)
            | FromWorker::Ready(_)
            | FromWorker::Begun(_)
            | FromWorker::Started(_)
            | FromWorker::Steered(_)
            | FromWorker::Beat(_)
            | FromWorker::Note(_)
            | FromWorker::Alert(_)
            | FromWorker::Spare(_)
            | FromWorker::Pong(_) => {}
        }
    }

    fn count(&mut self, attempt: AttemptId, more: u32) {
        if self.lost.len() < KEPT_MAX || self.lost.contains_key(&attempt) {
            let lost = self.lost.entry(attempt).or_default();
            *lost = lost.saturating_add(more);
        }
    }

    /// The next progress that waits, with what was lost before it.
    pub(super) fn next(&mut self) -> Option<FromWorker> {
        let (_, progress) = self.latest.pop_first()?;
        Some(self.with_losses(FromWorker::Progress(progress)))
    }

    /// A message that passes: progress tells what was lost before it, an end makes what waits pointless.
    pub(super) fn with_losses(&mut self, mut said: FromWorker) -> FromWorker {
        match &mut said {
            FromWorker::Progress(progress) => {
                if let Some(stale) = self.latest.remove(&progress.attempt) {
                    self.count(progress.attempt, stale.dropped.saturating_add(1));
                }
                let lost = self.lost.remove(&progress.attempt).unwrap_or_default();
                progress.dropped = progress.dropped.saturating_add(lost);
            }
            FromWorker::Finished(end) => {
                self.latest.remove(&end.attempt);
                self.lost.remove(&end.attempt);
            }
            FromWorker::Hello(_)
            | FromWorker::Delta(_)
            | FromWorker::Ready(_)
            | FromWorker::Begun(_)
            | FromWorker::Started(_)
            | FromWorker::Steered(_)
            | FromWorker::Beat(_)
            | FromWorker::Note(_)
            | FromWorker::Alert(_)
            | FromWorker::Spare(_)
            | FromWorker::Pong(_) => {}
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocol::from_worker::{Delta, Phase};
    use protocol::{Finished, Outcome, TurnId};

    fn progress(attempt: u64, detail: &str) -> FromWorker {
        let (attempt, detail) = (AttemptId(attempt), detail.to_owned());
        FromWorker::Progress(Progress { attempt, phase: Phase::Tool, detail, dropped: 0, for_ms: 0 })
    }

    fn delta(attempt: u64) -> FromWorker {
        FromWorker::Delta(Delta { attempt: AttemptId(attempt), text: "x".into() })
    }

    fn told(said: Option<FromWorker>) -> (u64, String, u32) {
        let Some(FromWorker::Progress(p)) = said else { panic!("{said:?} is no progress") };
        (p.attempt.0, p.detail, p.dropped)
    }

    #[test]
    fn the_newest_progress_survives_and_tells_the_losses() {
        let mut held = HeldBack::default();
        held.hold(progress(1, "a"));
        held.hold(delta(1));
        held.hold(progress(1, "b"));
        held.hold(progress(2, "c"));
        assert_eq!(told(held.next()), (1, "b".into(), 2));
        assert_eq!(told(held.next()), (2, "c".into(), 0));
        assert!(held.is_empty() && held.next().is_none());
    }

    #[test]
    fn an_end_forgets_what_waits() {
        let mut held = HeldBack::default();
        held.hold(progress(1, "a"));
        let end = Finished::new(AttemptId(1), TurnId(1), Outcome::Completed);
        held.with_losses(FromWorker::Finished(Box::new(end)));
        assert!(held.is_empty());
    }

    proptest! {
        #[test]
        fn nothing_is_uncounted_and_nothing_grows(news in proptest::collection::vec((0u64..4, any::<bool>()), 0..200)) {
            let mut held = HeldBack::default();
            let mut sent = BTreeMap::<u64, u32>::new();
            for (attempt, is_delta) in news {
                held.hold(if is_delta { delta(attempt) } else { progress(attempt, "p") });
                *sent.entry(attempt).or_default() += 1;
            }
            while let Some(said) = held.next() {
                let (attempt, _, dropped) = told(Some(said));
                prop_assert_eq!(dropped + 1, sent[&attempt]);
            }
            for attempt in 0..10_000 { held.hold(progress(attempt, "p")); held.hold(delta(attempt)); }
            prop_assert!(held.latest.len() <= KEPT_MAX && held.lost.len() <= KEPT_MAX);
        }
    }
}
