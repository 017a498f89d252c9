//! Identical failures in a row: counted per agent, told once, forgotten at the first answer.

use super::nouns::Wall;
use protocol::control::LastError;
use protocol::{FailureClass, TurnId};

/// Longest text that two failures are compared by, in characters: ids and times behind it differ anyway.
const COMPARED_CHARS: usize = 80;

/// The failures of one agent: those of its turns and those of its worker, each counted for itself, because a worker that
/// dies under every turn is both at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    turns: Row,
    worker: Row,
}

/// Identical failures in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    last: Option<LastError>,
    fingerprint: String,
}

impl Row {
    fn failed(&mut self, class: &str, text: &str, turn: Option<TurnId>, at: Wall) -> u32 {
        let fingerprint = fingerprint(class, text);
        let before = if fingerprint == self.fingerprint { self.count() } else { 0 };
        self.fingerprint = fingerprint;
        let streak = before.saturating_add(1);
        self.last = Some(LastError { class: class.to_owned(), text: text.to_owned(), turn, at, streak });
        streak
    }

    fn end(&mut self) -> u32 {
        self.fingerprint.clear();
        self.last.as_mut().map_or(0, |last| std::mem::take(&mut last.streak))
    }

    fn count(&self) -> u32 {
        self.last.as_ref().map_or(0, |last| last.streak)
    }
}

impl Streak {
    /// A turn failed. Whether owners are to be told: at the `alert_after`th identical failure, once.
    pub fn failed(
        &mut self,
        class: FailureClass,
        text: &str,
        turn: Option<TurnId>,
        at: Wall,
        alert_after: u32,
    ) -> bool {
        self.turns.failed(class.as_str(), text, turn, at) == alert_after
    }

    /// A turn completed. Returns the streak that it ended.
    pub fn completed(&mut self) -> u32 {
        self.worker.end();
        self.turns.end()
    }

    /// Something about the worker itself went wrong.
    pub fn worker(&mut self, text: &str, at: Wall) {
        self.worker.failed("worker", text, None, at);
    }

    /// How often in a row the worker went wrong in the same way.
    pub fn worker_count(&self) -> u32 {
        self.worker.count()
    }

    /// How many turns failed in the same way in a row.
    pub fn count(&self) -> u32 {
        self.turns.count()
    }

    /// The latest failure.
    pub fn last(&self) -> Option<&LastError> {
        // Of two at the same moment the turn's says more.
        [self.worker.last.as_ref(), self.turns.last.as_ref()].into_iter().flatten().max_by_key(|last| last.at)
    }
}

/// What makes two failures identical: the class, and the text without digits.
fn fingerprint(class: &str, text: &str) -> String {
    let words: String = text.chars().filter(|c| !c.is_ascii_digit()).take(COMPARED_CHARS).collect();
    format!("{class}|{words}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_identical_failure_is_told_once() {
        let mut streak = Streak::default();
        let told: Vec<bool> = (0..5)
            .map(|n| streak.failed(FailureClass::Auth, &format!("request {n} refused"), Some(TurnId(n)), n, 3))
            .collect();
        assert_eq!(told, [false, false, true, false, false]);
        assert_eq!(streak.count(), 5);
        assert_eq!(streak.last().and_then(|last| last.turn), Some(TurnId(4)), "the latest");
        assert_eq!(streak.completed(), 5);
        assert_eq!(streak.last().map(|l| l.streak), Some(0));
    }

    #[test]
    fn a_worker_that_dies_under_every_turn_does_not_hide_the_streak() {
        let mut streak = Streak::default();
        let told: Vec<bool> = (0..3)
            .map(|n| {
                streak.worker("signal 9", n * 10);
                streak.failed(FailureClass::WorkerLost, "signal 9", None, n * 10 + 1, 3)
            })
            .collect();
        assert_eq!(told, [false, false, true]);
        assert_eq!(streak.last().map(|l| (l.class.as_str(), l.streak)), Some(("worker_lost", 3)));
    }

    #[test]
    fn another_failure_begins_anew() {
        let mut streak = Streak::default();
        streak.failed(FailureClass::Auth, "x", None, 0, 3);
        streak.failed(FailureClass::Auth, "x", None, 1, 3);
        assert!(!streak.failed(FailureClass::Network, "x", None, 2, 3));
        assert_eq!(streak.count(), 1);
        assert!(!streak.failed(FailureClass::Auth, "x", None, 3, 3));
    }
}
