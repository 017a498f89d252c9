//! Decides what of a running turn a person sees while it runs: joined, and not more often than one can read.
//!
//! ```text
//!  delta ----> pending text ---- 250 ms since the last ----> Delta
//!  note  ----> pending note ---- 500 ms, or a new phase ---> Progress{dropped}
//! ```
//! Nothing here is needed for the outcome: what passes the bounds is dropped and counted.

use super::io::{Effect, Tick};
use super::redact;
use protocol::from_worker::{Delta, Phase, Progress};
use protocol::text::clip;
use protocol::{AttemptId, FromWorker};

/// Least pause between two deltas of an attempt, in milliseconds: four a second read as a flow.
const DELTA_PAUSE_MS: u64 = 250;

/// Least pause between two notes of an attempt in the same phase, in milliseconds.
const NOTE_PAUSE_MS: u64 = 500;

/// Text that waits for its delta at most, in bytes: a quarter of the inline limit, so that a frame never comes near
/// its own.
const PENDING_BYTES_MAX: usize = 64 * 1024;

/// Longest detail of a note, in bytes: a line on a phone.
const NOTE_BYTES_MAX: usize = 300;

/// What one attempt shows.
#[derive(Debug)]
pub(super) struct Show {
    attempt: AttemptId,
    phase: Phase,
    detail: String,
    since: Tick,
    /// What the turn's own words said last, while something else is shown.
    said: (Phase, String, Tick),
    text: String,
    text_from: Tick,
    /// What is shown was not told yet.
    note: bool,
    note_from: Tick,
    dropped: u32,
}

impl Show {
    /// Nothing shown yet; the first note and the first delta come at once.
    pub(super) fn new(attempt: AttemptId, now: Tick) -> Self {
        Self {
            attempt,
            phase: Phase::Starting,
            detail: String::new(),
            since: now,
            said: (Phase::Starting, String::new(), now),
            text: String::new(),
            text_from: now,
            note: false,
            note_from: now,
            dropped: 0,
        }
    }

    /// The phase that was shown last.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// More of the answer.
    pub(super) fn delta(&mut self, now: Tick, text: &str, effects: &mut Vec<Effect>) {
        let room = PENDING_BYTES_MAX.saturating_sub(self.text.len());
        let taken = clip(text, room);
        self.text.push_str(taken);
        if taken.len() < text.len() {
            self.dropped = self.dropped.saturating_add(1);
        }
        self.flush(now, effects);
    }

    /// What the turn does, by its own words.
    pub(super) fn note(&mut self, now: Tick, phase: Phase, detail: &str, effects: &mut Vec<Effect>) {
        let detail = redact::clean(detail, NOTE_BYTES_MAX);
        let same = self.said.0 == phase && self.said.1 == detail;
        let since = if same { self.said.2 } else { now };
        self.said = (phase, detail, since);
        self.restore(now, effects);
    }

    /// What the turn does by other signs than its words, and since when.
    pub(super) fn replace(&mut self, now: Tick, phase: Phase, detail: &str, since: Tick, effects: &mut Vec<Effect>) {
        if (self.phase, self.since) != (phase, since) {
            self.show(now, phase, detail.to_owned(), since, effects);
        }
    }

    /// Shows again what the turn's own words said last.
    pub(super) fn restore(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let (phase, detail, since) = self.said.clone();
        self.show(now, phase, detail, since, effects);
    }

    /// Tells again what is shown: whoever listens may be new.
    pub(super) fn again(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        (self.note, self.note_from) = (true, now);
        self.flush(now, effects);
    }

    fn show(&mut self, now: Tick, phase: Phase, detail: String, since: Tick, effects: &mut Vec<Effect>) {
        if std::mem::replace(&mut self.note, true) {
            self.dropped = self.dropped.saturating_add(1);
        }
        if phase != self.phase {
            self.note_from = now;
        }
        (self.phase, self.detail, self.since) = (phase, detail, since);
        self.flush(now, effects);
    }

    /// Lets go what may go.
    pub(super) fn flush(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if now >= self.note_from && self.note {
            self.note = false;
            let progress = Progress {
                attempt: self.attempt,
                phase: self.phase,
                detail: self.detail.clone(),
                dropped: std::mem::take(&mut self.dropped),
                for_ms: now.0.saturating_sub(self.since.0),
            };
            effects.push(Effect::Tell(FromWorker::Progress(progress)));
            self.note_from = Tick(now.0.saturating_add(NOTE_PAUSE_MS));
        }
        if now >= self.text_from && !self.text.is_empty() {
            let text = std::mem::take(&mut self.text);
            effects.push(Effect::Tell(FromWorker::Delta(Delta { attempt: self.attempt, text })));
            self.text_from = Tick(now.0.saturating_add(DELTA_PAUSE_MS));
        }
    }

    /// When [`Show::flush`] has something to let go.
    pub(super) fn deadline(&self) -> Option<Tick> {
        let note = self.note.then_some(self.note_from);
        let text = (!self.text.is_empty()).then_some(self.text_from);
        note.into_iter().chain(text).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(effects: &[Effect]) -> (usize, usize) {
        let notes = effects.iter().filter(|e| matches!(e, Effect::Tell(FromWorker::Progress(_)))).count();
        let deltas = effects.iter().filter(|e| matches!(e, Effect::Tell(FromWorker::Delta(_)))).count();
        (notes, deltas)
    }

    #[test]
    fn a_flood_is_joined_and_counted() {
        let mut show = Show::new(AttemptId(1), Tick(0));
        let mut effects = Vec::new();
        for ms in 0..1000 {
            show.delta(Tick(ms), "x", &mut effects);
            show.note(Tick(ms), Phase::Tool, "ls", &mut effects);
        }
        assert_eq!(counts(&effects), (2, 4));
        show.note(Tick(1000), Phase::Thinking, "", &mut effects);
        let shown: Vec<_> = effects
            .iter()
            .filter_map(
                |e| if let Effect::Tell(FromWorker::Progress(p)) = e { Some((p.phase, p.dropped)) } else { None },
            )
            .collect();
        assert_eq!(shown.last().map(|(phase, _)| *phase), Some(Phase::Thinking), "a new phase is told at once");
        assert_eq!(shown.len() + shown.iter().map(|(_, dropped)| *dropped as usize).sum::<usize>(), 1001);
    }

    proptest! {
        #[test]
        fn no_more_than_the_pauses_allow(steps in prop::collection::vec((0_u64..100, any::<bool>()), 1..300)) {
            let mut show = Show::new(AttemptId(1), Tick(0));
            let mut effects = Vec::new();
            let (mut now, mut given) = (0, 0);
            for (wait, delta) in steps {
                now += wait;
                if delta {
                    given += 1;
                    show.delta(Tick(now), "ä", &mut effects);
                } else {
                    show.note(Tick(now), Phase::Thinking, "x", &mut effects);
                }
            }
            let (notes, deltas) = counts(&effects);
            prop_assert!(notes as u64 <= now / NOTE_PAUSE_MS + 2);
            prop_assert!(deltas as u64 <= now / DELTA_PAUSE_MS + 1);
            while let Some(due) = show.deadline() {
                show.flush(due, &mut effects);
            }
            let shown: usize = effects
                .iter()
                .map(|e| if let Effect::Tell(FromWorker::Delta(d)) = e { d.text.chars().count() } else { 0 })
                .sum();
            prop_assert_eq!(shown, given);
        }
    }
}
