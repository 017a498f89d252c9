//! What the command line asks the supervisor, and what it answers.
//! One request a connection; answers follow until [`Reply::Done`] or [`Reply::Refused`]. What scripts read is its JSON.

use crate::codec::{self, CodecError};
use crate::envelope::Bound;
use crate::frame::Frame;
use crate::ids::{AgentName, AttemptId, TurnId};
use crate::text::Text;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the command line asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Is all well?
    Health,
    /// One row an agent.
    Ps,
    /// A message for an agent.
    Send(Send),
    /// The latest turns.
    Turns(Turns),
    /// The story of one turn.
    Turn(TurnId),
    /// What waits at an agent.
    Queue(AgentName),
    /// Change what is wanted of agents.
    Agents(Verb, Vec<AgentName>),
    /// Stop the running turns of an agent, or of one of its conversations.
    Interrupt(AgentName, Option<String>),
    /// Try a failed turn again, as a new turn.
    Retry(TurnId),
    /// Read the configuration again.
    Reload,
    /// Let this program (an absolute path) take the supervisor's place.
    Upgrade(String),
    /// End everything: after the turns that run, or at once.
    Shutdown {
        /// Do not wait for turns that run.
        now: bool,
    },
    /// Make agents that last as long as this connection.
    Guests(crate::guest::Guests),
    /// Let an agent's worker answer, and nothing else: how soon is for the caller to measure.
    Ping(AgentName),
}

/// What may be wanted of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Be up.
    Start,
    /// Finish what runs, within a grace, and be down.
    Stop,
    /// Stop, then start.
    Restart,
    /// Be down at once, whatever runs.
    Kill,
}

impl Verb {
    /// The command's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Kill => "kill",
        }
    }
}

/// A message for an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// For whom.
    pub agent: AgentName,
    /// In which conversation; `default` if none is named.
    pub conversation: String,
    /// What is said.
    pub text: Text,
    /// Whether the caller stays for the answer.
    pub wait: bool,
}

/// Which turns to list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// Of one agent only.
    pub agent: Option<AgentName>,
    /// Failed ones only.
    pub failed: bool,
    /// At most so many, latest first.
    pub most: u32,
}

/// What the supervisor answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Health`].
    Health(Health),
    /// To [`Request::Ps`].
    Ps(Vec<AgentRow>),
    /// To [`Request::Send`], any number.
    Event(SendEvent),
    /// To [`Request::Turns`], latest first.
    Turns(Vec<TurnRow>),
    /// To [`Request::Turn`].
    Turn(Box<TurnStory>),
    /// To [`Request::Queue`].
    Queue(Vec<QueueRow>),
    /// To [`Request::Guests`]: they are being started.
    Guests(Vec<AgentName>),
    /// A line for the person while the work goes on.
    Note(String),
    /// The last answer: done.
    Done,
    /// The last answer: no, and why, and what to do.
    Refused(Refused),
}

/// A lawful no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which kind of no, for the exit code.
    pub kind: RefusedKind,
    /// Why, and what to do.
    pub why: String,
}

/// Which kind of no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusedKind {
    /// There is no such thing: exit 1.
    Failed,
    /// Later perhaps: exit 75.
    Later,
    /// The configuration is wrong: exit 78.
    Config,
}

/// State of an agent's worker, as `ps` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// No worker, and none is wanted.
    Down,
    /// A worker from before is being taken over.
    Adopting,
    /// A worker is starting.
    Starting,
    /// It waits for turns.
    Ready,
    /// It runs turns.
    Busy,
    /// It finishes what runs and takes nothing new.
    Draining,
    /// It is being ended.
    Stopping,
    /// It ended; the next start waits for a pause.
    Backoff,
    /// It ended too often; nothing is tried until somebody starts it.
    Failed,
}

impl AgentState {
    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Adopting => "adopting",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
        }
    }
}

/// One agent, as `ps --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRow {
    /// Its name.
    pub agent: AgentName,
    /// `up` or `down`.
    pub wanted: String,
    /// What it is.
    pub state: AgentState,
    /// The worker's pid.
    pub pid: Option<u32>,
    /// The worker's run.
    pub incarnation: Option<u64>,
    /// Runtime of its first route.
    pub runtime: String,
    /// Provider and model of its first route.
    pub model: String,
    /// Turns that run.
    pub running: u32,
    /// Turns that wait.
    pub queued: u32,
    /// Resident memory of the worker and all its descendants.
    pub rss_bytes: u64,
    /// The worker and all its descendants.
    pub processes: u32,
    /// Restarts since the supervisor started.
    pub restarts: u32,
    /// The latest failure.
    pub last_error: Option<LastError>,
    /// When the state began, in Unix milliseconds.
    pub since: u64,
    /// What the longest running turn does.
    pub phase: Option<String>,
    /// Since when, in Unix milliseconds.
    pub phase_since: Option<u64>,
    /// The rung of containment of its Codex children.
    pub isolation: String,
    /// Its limits, and what holds each of them on this host.
    pub limits: Vec<Bound>,
    /// Its worker's build.
    pub build: Option<String>,
    /// Its file was replaced, or it is of an earlier build: it is replaced once nothing runs.
    pub outdated: bool,
}

/// The latest failure of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// A failure class, or `worker` for the worker itself.
    pub class: String,
    /// Its words.
    pub text: String,
    /// The turn that failed; none for the worker itself, and for what an earlier supervisor saw.
    pub turn: Option<TurnId>,
    /// When, in Unix milliseconds.
    pub at: u64,
    /// How many identical failures in a row; 0 once a turn has completed since.
    pub streak: u32,
}

/// Is all well?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Yes.
    Ok,
    /// Something needs a look; the rest works.
    Degraded,
    /// Messages cannot be taken.
    Failing,
}

impl HealthStatus {
    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
        }
    }
}

/// What `health --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Is all well?
    pub status: HealthStatus,
    /// The supervisor's build.
    pub version: String,
    /// Since the supervisor's start.
    pub uptime_s: u64,
    /// Agents by state.
    pub agents: BTreeMap<String, u32>,
    /// `ok`, or what is wrong with the ledger.
    pub ledger: String,
    /// One row a channel.
    pub channels: Vec<ChannelRow>,
    /// Why the latest upgrade failed.
    pub upgrade_failed: Option<String>,
}

/// One channel's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRow {
    /// `console`, or `telegram:BOT`.
    pub channel: String,
    /// `ok`, or what is wrong and what to do.
    pub state: String,
    /// Posts that wait to be sent.
    pub waiting: u32,
}

/// What happens to a sent message; one JSON object a line with `send --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendEvent {
    /// It is in the ledger.
    Accepted {
        /// As this turn.
        turn: TurnId,
    },
    /// It waits.
    Queued {
        /// As this turn.
        turn: TurnId,
        /// So many are before it.
        position: u32,
    },
    /// It became part of a running turn.
    Joined {
        /// As this turn.
        turn: TurnId,
        /// Of that one.
        into: TurnId,
    },
    /// What its turn does.
    Progress {
        /// Which turn.
        turn: TurnId,
        /// Doing what.
        phase: String,
        /// Which one.
        detail: String,
    },
    /// More of its answer.
    Delta {
        /// Which turn.
        turn: TurnId,
        /// The next piece.
        text: String,
    },
    /// It was not taken.
    Refused {
        /// Why.
        reason: String,
    },
    /// It ended.
    Finished(Box<FinishedEvent>),
}

/// How a sent message ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedEvent {
    /// Which turn.
    pub turn: TurnId,
    /// `completed`, `interrupted` or `failed`.
    pub outcome: String,
    /// The failure class.
    pub class: Option<String>,
    /// The answer, or what the sender is told.
    pub text: Text,
    /// The route that answered.
    pub runtime: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// Codex' thread.
    pub thread: Option<String>,
    /// How many tries it took.
    pub attempts: u32,
    /// From acceptance to end.
    pub duration_ms: u64,
}

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

/// Frame kind of a request.
pub const REQUEST_KIND: u16 = 48;
/// Frame kind of a reply.
pub const REPLY_KIND: u16 = 49;

impl Request {
    /// The frame of this request.
    /// # Errors
    /// When it passes the frame limit.
    pub fn to_frame(&self) -> Result<Frame, CodecError> {
        Ok(Frame { kind: REQUEST_KIND, body: codec::encode(self)? })
    }

    /// The request of a frame; `None` for another kind.
    ///
    /// # Errors
    /// When the body is wrong.
    pub fn from_frame(frame: &Frame) -> Result<Option<Self>, CodecError> {
        if frame.kind == REQUEST_KIND { codec::decode(&frame.body).map(Some) } else { Ok(None) }
    }
}

impl Reply {
    /// The frame of this reply.
    ///
    /// # Errors
    /// When it passes the frame limit.
    pub fn to_frame(&self) -> Result<Frame, CodecError> {
        Ok(Frame { kind: REPLY_KIND, body: codec::encode(self)? })
    }

    /// The reply of a frame; `None` for another kind.
    ///
    /// # Errors
    /// When the body is wrong.
    pub fn from_frame(frame: &Frame) -> Result<Option<Self>, CodecError> {
        if frame.kind == REPLY_KIND { codec::decode(&frame.body).map(Some) } else { Ok(None) }
    }
}
