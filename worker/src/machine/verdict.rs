//! The words of a turn's life: where it stands, what runs out, how it ends.

use super::io::Tick;
use protocol::{FailureClass, Outcome};

/// Longest answer that is kept, in bytes: Codex itself never cuts one, a worker's memory does.
pub(super) const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long an interrupt or the exit after a told end may take before the child is ended, in milliseconds.
pub(super) const PATIENCE_MS: u64 = 5000;

/// How long an interrupt of a turn that went silent, or that compacts without end, may stay unanswered, in milliseconds: a
/// Codex that lives answers within 10 ms, also in a compaction.
pub(super) const INTERRUPT_MS: u64 = 2000;

/// How long the reading of a rollout may take before nothing is taken as proven, in milliseconds.
pub(super) const PROOF_MS: u64 = 10_000;

/// How a turn ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    /// Raw words; cleaned when the turn ends.
    pub(super) detail: String,
    /// Whether a replay is safe; `None`: it is if no tool had begun.
    pub(super) safe: Option<bool>,
    /// Codex itself told the end, so that no rollout has to be read.
    pub(super) told: bool,
}

impl Verdict {
    /// A failure that is decided here and not told by Codex.
    pub(super) fn failed(class: FailureClass, detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failed(class), detail: detail.into(), safe: None, told: false }
    }

    /// The same, told by Codex or proven by its absence: nothing has to be read.
    pub(super) fn told(self, safe: Option<bool>) -> Self {
        Self { safe, told: true, ..self }
    }

    /// Somebody wished it.
    pub(super) fn interrupted() -> Self {
        Self { outcome: Outcome::Interrupted, detail: String::new(), safe: Some(false), told: false }
    }

    pub(super) fn completed() -> Self {
        Self { outcome: Outcome::Completed, detail: String::new(), safe: Some(false), told: true }
    }

    /// How long its interrupt may stay unanswered before the child is ended, in milliseconds.
    pub(super) fn patience_ms(&self) -> u64 {
        let hung = [FailureClass::CodexSilent, FailureClass::CompactionTimeout].map(Outcome::Failed);
        if hung.contains(&self.outcome) { INTERRUPT_MS } else { PATIENCE_MS }
    }

    /// Whether a replay is thought of at all after such an end.
    pub(super) fn wants_proof(&self) -> bool {
        match self.outcome {
            Outcome::Completed | Outcome::Interrupted => false,
            Outcome::Failed(class) => !self.told && class != FailureClass::Shutdown,
        }
    }
}

/// Where a turn stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// Its child, its slot or its thread is not there yet.
    Waiting,
    /// The child has been asked; `None`: the request itself has a clock.
    Opening(Option<Tick>),
    /// Codex runs it.
    Running,
    /// It has been told to stop, or has told its end; at the tick its child is ended.
    Stopping(Verdict, Option<Tick>),
    /// Its rollout is read.
    Proving(Verdict, Tick),
}

/// What has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    FirstEvent,
    Silence,
    Compaction,
    Turn,
    Patience,
    Proof,
}

impl Due {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::FirstEvent => "first event",
            Self::Silence => "silence",
            Self::Compaction => "compaction",
            Self::Turn => "turn",
            Self::Patience => "stop",
            Self::Proof => "rollout",
        }
    }
}

/// What an event means for those around the turn.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum After {
    Nothing,
    /// Codex named this thread.
    Named(String),
    /// The turn runs.
    Started,
    /// The turn is over.
    Ended(Verdict),
}
