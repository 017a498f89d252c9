//! What is told of turns: in a list, in a queue, and the whole story of one. Scripts read the JSON of the README.

use crate::ids::{AttemptId, TurnId};
use serde::{Deserialize, Serialize};

/// One turn in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnRow {
    /// Its number.
    pub turn: TurnId,
    /// Whose.
    pub agent: String,
    /// In which conversation.
    pub conversation: String,
    /// `queued`, `running`, `waiting`, `completed`, `interrupted`, `failed`, `cancelled`, `joined`.
    pub state: String,
    /// The failure class.
    pub class: Option<String>,
    /// When it was accepted, in Unix milliseconds.
    pub accepted_at: u64,
    /// When it ended.
    pub ended_at: Option<u64>,
    /// How many tries.
    pub attempts: u32,
    /// The first line of what was asked.
    pub prompt: String,
}

/// The whole story of one turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnStory {
    /// The row.
    pub row: TurnRow,
    /// Where it came from.
    pub source: String,
    /// The turn that it repeats.
    pub retry_of: Option<TurnId>,
    /// What was asked, whole or its beginning.
    pub prompt: String,
    /// What the sender got.
    pub answer: String,
    /// What the operator should do next, if it failed.
    pub next_step: Option<String>,
    /// Every try.
    pub attempts: Vec<AttemptStory>,
    /// What else happened to it: `(Unix milliseconds, words)`.
    pub events: Vec<(u64, String)>,
    /// Every post about it: `(state, words)`.
    pub posts: Vec<(String, String)>,
}

/// The story of one try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptStory {
    /// Its number.
    pub attempt: AttemptId,
    /// The worker's run.
    pub incarnation: u64,
    /// Where it ran.
    pub runtime: String,
    /// Provider and model.
    pub model: String,
    /// Codex' thread.
    pub thread: Option<String>,
    /// `running`, `completed`, `interrupted`, `failed`.
    pub state: String,
    /// The failure class.
    pub class: Option<String>,
    /// The raw words.
    pub detail: String,
    /// What had run.
    pub ran: Vec<String>,
    /// Whether a replay cannot repeat an effect.
    pub replay_safe: bool,
    /// Exit code of Codex.
    pub exit_code: Option<i32>,
    /// Signal that ended Codex.
    pub signal: Option<i32>,
    /// Its last stderr lines.
    pub stderr: String,
    /// When it was sent to the worker, in Unix milliseconds.
    pub begun_at: u64,
    /// When Codex ran it.
    pub started_at: Option<u64>,
    /// When it ended.
    pub ended_at: Option<u64>,
    /// From begin to the first event.
    pub first_event_ms: Option<u64>,
    /// Tokens read and written by the model.
    pub tokens: (u64, u64),
    /// Version of Codex.
    pub codex_version: Option<String>,
    /// When the limit ends, in Unix seconds.
    pub resets_at: Option<u64>,
}

/// What waits or runs at an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRow {
    /// Which turn.
    pub turn: TurnId,
    /// In which conversation.
    pub conversation: String,
    /// `running`, or its place in the lane.
    pub place: String,
    /// When it was accepted, in Unix milliseconds.
    pub accepted_at: u64,
    /// The first line of what was asked.
    pub prompt: String,
    /// What it does, if it runs.
    pub phase: Option<String>,
    /// Since when, in Unix milliseconds.
    pub phase_since: Option<u64>,
}
