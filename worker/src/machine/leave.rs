//! When the worker leaves: drained, terminated, or orphaned. Never in the middle of a turn that may still end well.
//!
//! ```text
//!  Drain ------> no turn runs ---> children end ---> acknowledged, or waited long enough ---> Leave
//!  Terminate --> every turn is stopped --^
//!  no supervisor and no turn for orphan_after ---> Drain
//! ```

use super::Machine;
use super::io::{Effect, Tick};
use super::verdict::Verdict;
use protocol::FailureClass;
use protocol::to_worker::Clocks;

/// How long a worker that is done waits for its outcomes to be acknowledged, in milliseconds. They are in the journal
/// either way; an acknowledged one spares its successor the reading.
const ACK_WAIT_MS: u64 = 2000;

/// Whether the worker is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// It serves.
    No,
    /// It takes nothing new; the tick is when it waits for acknowledgements no longer.
    Drain(Option<Tick>),
    /// The same, with everything stopped.
    Terminate(Option<Tick>),
    /// It has left.
    Left,
}

impl Machine {
    pub(super) fn drain(&mut self) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Drain(None);
        }
    }

    pub(super) fn terminate(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        match self.leaving {
            Leaving::No | Leaving::Drain(_) => self.leaving = Leaving::Terminate(None),
            Leaving::Terminate(_) | Leaving::Left => return,
        }
        let attempts: Vec<_> = self.turns.keys().copied().collect();
        for attempt in attempts {
            self.stop(now, attempt, Verdict::failed(FailureClass::Shutdown, "everything ends"), effects);
        }
        let children: Vec<_> = self.children.keys().copied().collect();
        for child in children {
            self.end_child(now, child, effects);
        }
    }

    pub(super) fn leave(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let clocks = self.clocks();
        let orphaned = !self.linked && self.turns.is_empty() && self.leaving == Leaving::No;
        self.orphan_from = if orphaned { self.orphan_from.or(Some(now)) } else { None };
        if self.orphan_by(&clocks).is_some_and(|by| by <= now) {
            self.leaving = Leaving::Drain(None);
            self.orphan_from = None;
        }
        let waited = match self.leaving {
            Leaving::No | Leaving::Left => return,
            Leaving::Drain(by) | Leaving::Terminate(by) => by,
        };
        if !self.turns.is_empty() {
            return;
        }
        let children: Vec<_> = self.children.iter().filter(|(_, c)| !c.leaves()).map(|(id, _)| *id).collect();
        for child in children {
            self.end_child(now, child, effects);
        }
        if !self.children.is_empty() {
            return;
        }
        let by = waited.unwrap_or(Tick(now.0.saturating_add(ACK_WAIT_MS)));
        if self.linked && !self.ended.is_empty() && now < by {
            self.leaving = match self.leaving {
                Leaving::Terminate(_) => Leaving::Terminate(Some(by)),
                Leaving::No | Leaving::Drain(_) | Leaving::Left => Leaving::Drain(Some(by)),
            };
            return;
        }
        self.leaving = Leaving::Left;
        effects.push(Effect::Leave);
    }

    pub(super) fn leave_deadline(&self, clocks: &Clocks) -> Option<(Tick, &'static str)> {
        let ack = match self.leaving {
            Leaving::Drain(by) | Leaving::Terminate(by) => by,
            Leaving::No | Leaving::Left => None,
        };
        ack.map(|by| (by, "acknowledgement")).or_else(|| self.orphan_by(clocks).map(|by| (by, "orphan")))
    }

    fn orphan_by(&self, clocks: &Clocks) -> Option<Tick> {
        self.orphan_from.map(|from| Tick(from.0.saturating_add(clocks.orphan_after_ms)))
    }
}
