//! What a worker says to the supervisor.

use crate::codec::{self, CodecError};
use crate::envelope::Bound;
use crate::frame::Frame;
use crate::hello::Hello;
use crate::ids::{AttemptId, TurnId};
use crate::stable::{self, Finished, kind};
use crate::to_worker::MessageError;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a worker says to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromWorker {
    /// The first frame.
    Hello(Hello),
    /// An attempt ended. Repeated after each new hello until it is acknowledged.
    Finished(Box<Finished>),
    /// Homes are rendered, the journal is told: turns may come.
    Ready(Ready),
    /// An attempt is in the journal, or was there already and runs.
    Begun(AttemptId),
    /// Codex runs it.
    Started(Started),
    /// What it does. May be dropped under pressure.
    Progress(Progress),
    /// More of the answer. May be dropped under pressure.
    Delta(Delta),
    /// Whether a steering text was taken.
    Steered(Steered),
    /// Evidence of life and of what it costs.
    Beat(Beat),
    /// Something that the operator should read.
    Note(String),
    /// Something that the agent's owners should hear of at once.
    Alert(String),
    /// Threads whose rollouts nobody has written to for long, oldest first: which of them may be archived?
    Spare(Vec<String>),
    /// The answer to a ping, with its number.
    Pong(u64),
}

/// Homes are rendered, the journal is told: turns may come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Attempts that run.
    pub running: Vec<AttemptId>,
    /// How far an agent's processes are kept apart, see [`Isolation`].
    pub isolation: Isolation,
    /// The configured limits, and what holds each of them here.
    pub bounds: Vec<Bound>,
}

/// The rung of containment that is in force for Codex children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// No Codex child has been started yet, so nothing is proven.
    Untried,
    /// A PID and mount namespace for each Codex child.
    Namespace,
    /// A cgroup for each Codex child and its descendants, no namespace.
    Cgroup,
    /// A PID and mount namespace for each Codex child, and a cgroup.
    NamespaceAndCgroup,
    /// A session each, descendants are looked for: a hostile tool can escape.
    BestEffort,
}

impl Isolation {
    /// The rung of a child.
    pub const fn of(namespace: bool, cgroup: bool) -> Self {
        match (namespace, cgroup) {
            (true, true) => Self::NamespaceAndCgroup,
            (true, false) => Self::Namespace,
            (false, true) => Self::Cgroup,
            (false, false) => Self::BestEffort,
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untried => "untried",
            Self::Namespace => "namespace",
            Self::Cgroup => "cgroup",
            Self::NamespaceAndCgroup => "namespace+cgroup",
            Self::BestEffort => "best-effort",
        })
    }
}

/// Codex runs an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Which attempt.
    pub attempt: AttemptId,
    /// The thread it runs on.
    pub thread: String,
    /// The rung of containment of its child.
    pub isolation: Isolation,
}

/// What a turn is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Codex is starting.
    Starting,
    /// The model is at work.
    Thinking,
    /// A tool runs.
    Tool,
    /// The conversation is being compacted.
    Compacting,
    /// The answer is being written.
    Answering,
    /// Codex tries the provider again.
    Retrying,
    /// The turn is being stopped.
    Stopping,
    /// The model has been asked and has not answered yet.
    Waiting,
    /// Codex or its tree works and says nothing.
    Busy,
    /// No sign of life: no output, no work, no writing.
    Silent,
}

impl Phase {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Thinking => "thinking",
            Self::Tool => "in a tool",
            Self::Compacting => "compacting",
            Self::Answering => "answering",
            Self::Retrying => "retrying",
            Self::Stopping => "stopping",
            Self::Waiting => "waiting on the model",
            Self::Busy => "busy",
            Self::Silent => "silent",
        }
    }

    /// The phase with its detail, as a person reads it: `in a tool: make test`.
    pub fn with(self, detail: &str) -> String {
        if detail.is_empty() { self.as_str().to_owned() } else { format!("{}: {detail}", self.as_str()) }
    }
}

/// What a turn does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Which attempt.
    pub attempt: AttemptId,
    /// What kind of thing.
    pub phase: Phase,
    /// Which one: the command, the retry. Bounded.
    pub detail: String,
    /// News of this attempt that were dropped since the last that came through.
    pub dropped: u32,
    /// For how long it has been so, in milliseconds: this word may come long after the fact.
    pub for_ms: u64,
}

/// More of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Which attempt.
    pub attempt: AttemptId,
    /// The next piece.
    pub text: String,
}

/// Whether a steering text was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steered {
    /// The running attempt.
    pub attempt: AttemptId,
    /// The waiting turn whose text it was.
    pub turn: TurnId,
    /// Whether Codex has it. If not, the turn keeps its place in the lane.
    pub taken: bool,
}

/// Evidence of life, written by the worker's own loop: every third of [`crate::to_worker::Clocks::heartbeat_ms`], and at
/// least every 2 s while a turn runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Attempts that run.
    pub running: u32,
    /// Codex children that are alive.
    pub children: u32,
}

mod own {
    pub(super) const READY: u16 = 32;
    pub(super) const BEGUN: u16 = 33;
    pub(super) const STARTED: u16 = 34;
    pub(super) const PROGRESS: u16 = 35;
    pub(super) const DELTA: u16 = 36;
    pub(super) const STEERED: u16 = 37;
    pub(super) const BEAT: u16 = 38;
    pub(super) const NOTE: u16 = 39;
    pub(super) const ALERT: u16 = 40;
    pub(super) const SPARE: u16 = 41;
    pub(super) const PONG: u16 = 47;
}

impl FromWorker {
    /// The frame of this message.
    ///
    /// # Errors
    /// When the message passes the frame limit.
    pub fn to_frame(&self) -> Result<Frame, CodecError> {
        Ok(match self {
            Self::Hello(hello) => Frame { kind: kind::HELLO, body: stable::encode_hello(hello) },
            Self::Finished(end) => Frame { kind: kind::FINISHED, body: stable::encode_finished(end) },
            Self::Ready(message) => Frame { kind: own::READY, body: codec::encode(message)? },
            Self::Begun(attempt) => Frame { kind: own::BEGUN, body: codec::encode(attempt)? },
            Self::Started(message) => Frame { kind: own::STARTED, body: codec::encode(message)? },
            Self::Progress(message) => Frame { kind: own::PROGRESS, body: codec::encode(message)? },
            Self::Delta(message) => Frame { kind: own::DELTA, body: codec::encode(message)? },
            Self::Steered(message) => Frame { kind: own::STEERED, body: codec::encode(message)? },
            Self::Beat(message) => Frame { kind: own::BEAT, body: codec::encode(message)? },
            Self::Note(message) => Frame { kind: own::NOTE, body: codec::encode(message)? },
            Self::Alert(message) => Frame { kind: own::ALERT, body: codec::encode(message)? },
            Self::Spare(threads) => Frame { kind: own::SPARE, body: codec::encode(threads)? },
            Self::Pong(nonce) => Frame { kind: own::PONG, body: codec::encode(nonce)? },
        })
    }

    /// The message of a frame; `None` for a kind that this build does not know, which is skipped and counted.
    ///
    /// # Errors
    /// When a known kind has a wrong body; the session must end.
    pub fn from_frame(frame: &Frame) -> Result<Option<Self>, MessageError> {
        Ok(Some(match frame.kind {
            kind::HELLO => Self::Hello(stable::decode_hello(&frame.body)?),
            kind::FINISHED => Self::Finished(Box::new(stable::decode_finished(&frame.body)?)),
            own::READY => Self::Ready(codec::decode(&frame.body)?),
            own::BEGUN => Self::Begun(codec::decode(&frame.body)?),
            own::STARTED => Self::Started(codec::decode(&frame.body)?),
            own::PROGRESS => Self::Progress(codec::decode(&frame.body)?),
            own::DELTA => Self::Delta(codec::decode(&frame.body)?),
            own::STEERED => Self::Steered(codec::decode(&frame.body)?),
            own::BEAT => Self::Beat(codec::decode(&frame.body)?),
            own::NOTE => Self::Note(codec::decode(&frame.body)?),
            own::ALERT => Self::Alert(codec::decode(&frame.body)?),
            own::SPARE => Self::Spare(codec::decode(&frame.body)?),
            own::PONG => Self::Pong(codec::decode(&frame.body)?),
            _ => return Ok(None),
        }))
    }
}
