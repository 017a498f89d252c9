//! What the supervisor says to a worker.

use crate::codec::{self, CodecError};
use crate::frame::Frame;
use crate::hello::Hello;
use crate::ids::{AttemptId, TurnId};
use crate::route::Route;
use crate::stable::{self, StableError, kind};
use crate::text::Text;
use serde::{Deserialize, Serialize};

/// What the supervisor says to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToWorker {
    /// The first frame.
    Hello(Hello),
    /// An outcome is in the ledger; the worker may forget it.
    Ack(AttemptId),
    /// Finish what runs, take nothing new, leave.
    Drain,
    /// End everything and leave.
    Kill,
    /// How this agent is served. Sent after the hello and again after a reload.
    Configure(Box<Configure>),
    /// Try this turn.
    Begin(Box<Begin>),
    /// Give this text to a running turn.
    Steer(Steer),
    /// Stop a running attempt.
    Interrupt(Interrupt),
    /// Of the threads that it named, those with which no conversation goes on: their rollouts may be archived.
    Archive(Vec<String>),
    /// Answer with the same number, at once: somebody measures how soon the worker does.
    Ping(u64),
}

/// How an agent is served. The worker renders its homes from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configure {
    /// Identity of the ledger: outcomes of another ledger are set aside, not handed over.
    pub ledger: u64,
    /// Working directory of every turn; made if it does not exist.
    pub workspace: String,
    /// Name on PATH or path of the Codex program.
    pub codex_command: String,
    /// Provider and model of the agent's first route, for the home's defaults.
    pub default_route: Route,
    /// Every provider of the configuration.
    pub providers: Vec<Provider>,
    /// Where the login comes from.
    pub auth: Auth,
    /// What tools may touch.
    pub sandbox: Sandbox,
    /// Whether tools inside `workspace-write` may use the network.
    pub network: bool,
    /// Further roots that tools may write to.
    pub writable: Vec<String>,
    /// When Codex asks before it acts.
    pub approval: Approval,
    /// Who is asked.
    pub reviewer: Reviewer,
    /// Which HOME the children see.
    pub home: Home,
    /// The operator's real home, given to children as `REAL_HOME`.
    pub real_home: String,
    /// Names under the real home that a private HOME links to.
    pub home_share: Vec<String>,
    /// The whole environment of a Codex child but for what the worker itself adds (`HOME`, `CODEX_HOME`, `TMPDIR`).
    pub env: Vec<(String, String)>,
    /// Variables of `env` that the tools must not see.
    pub env_secret: Vec<String>,
    /// TOML text that is merged into the home's config.toml before the safety keys.
    pub codex_extra: String,
    /// Paths that Codex and its tools must not see: the state of others, sockets, token files.
    pub masked: Vec<String>,
    /// Limits of the agent's processes.
    pub limits: Limits,
    /// Turns at once.
    pub max_turns: u32,
    /// The clocks.
    pub clocks: Clocks,
}

/// One entry of `[providers]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Its key in the configuration.
    pub name: String,
    /// Base address of its Responses API.
    pub base_url: String,
    /// The variable that holds its key.
    pub api_key_env: Option<String>,
}

/// Where the login comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Auth {
    /// A link to this file, which belongs to the operator's own Codex home.
    Shared(String),
    /// A login of the agent's own.
    Own,
    /// No login: the provider's key alone.
    None,
}

/// What tools may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sandbox {
    /// Nothing.
    ReadOnly,
    /// The workspace, HOME, TMPDIR and the further roots.
    WorkspaceWrite,
    /// All that the process may touch.
    DangerFullAccess,
}

impl Sandbox {
    /// Codex' word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::WorkspaceWrite => "workspace-write",
            Self::DangerFullAccess => "danger-full-access",
        }
    }
}

/// When Codex asks before it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Approval {
    /// Never; what the sandbox forbids fails.
    Never,
    /// When the model wants more than the sandbox allows.
    OnRequest,
}

impl Approval {
    /// Codex' word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnRequest => "on-request",
        }
    }
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reviewer {
    /// A person.
    User,
    /// Codex' own reviewer.
    Auto,
}

/// Which HOME the children see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Home {
    /// One of the agent's own.
    Private,
    /// The operator's.
    Real,
}

/// Limits of the agent's processes. Absent: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory of all together, above which a turn ends.
    pub memory_max: Option<u64>,
    /// Bytes of memory of all together, above which Codex is retired between turns.
    pub memory_high: Option<u64>,
    /// Share of the processor, 1 to 10000; 100 is the kernel's default.
    pub cpu_weight: Option<u32>,
    /// Processor time in percent of one core.
    pub cpu_max: Option<u32>,
    /// Processes and threads at once.
    pub pids_max: Option<u32>,
    /// Share of the disks, 1 to 10000; 100 is the kernel's default.
    pub io_weight: Option<u32>,
    /// Descriptors that one process may have open.
    pub open_files: Option<u32>,
    /// Bytes of a core file.
    pub core_size: Option<u64>,
    /// Bytes of a file that one process writes.
    pub file_size: Option<u64>,
    /// Bytes of the agent's folder, of which its owners are told.
    pub disk_max: Option<u64>,
}

/// The clocks of a turn and of a worker, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// From the start of a Codex child to its first event.
    pub first_event_ms: u64,
    /// Without any sign of life: no output, no work of the tree, no writing.
    pub silence_ms: u64,
    /// A whole turn.
    pub turn_ms: u64,
    /// One compaction.
    pub compaction_ms: u64,
    /// An app-server without a turn, before it is retired.
    pub idle_after_ms: u64,
    /// A worker without a supervisor and without a turn, before it leaves.
    pub orphan_after_ms: u64,
    /// From a polite end of a Codex child to the next, harder step.
    pub stop_grace_ms: u64,
    /// Without a word of the worker itself, after which its supervisor replaces it.
    pub heartbeat_ms: u64,
}

/// Try this turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Name of the try; a known one is answered with its state and never begun again.
    pub attempt: AttemptId,
    /// The turn that is tried.
    pub turn: TurnId,
    /// Codex' thread to go on with, `None` for a new one.
    pub thread: Option<String>,
    /// What is asked.
    pub prompt: Text,
    /// Where it runs.
    pub route: Route,
    /// A worker has begun it before: one that does not know it has lost its journal, and must not begin it anew.
    pub begun: bool,
}

/// Give this text to a running turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steer {
    /// The running attempt.
    pub attempt: AttemptId,
    /// The waiting turn whose text this is; it joins if the steer is taken.
    pub turn: TurnId,
    /// What is said.
    pub text: Text,
}

/// Why an attempt is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterruptReason {
    /// A person or an operator wished it: the outcome is `interrupted`.
    Asked,
    /// Everything ends: the outcome is failed(shutdown).
    Shutdown,
}

/// Stop a running attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupt {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Why.
    pub reason: InterruptReason,
}

/// Frame kinds of this direction; stable kinds are below 16.
mod own {
    pub(super) const CONFIGURE: u16 = 16;
    pub(super) const BEGIN: u16 = 17;
    pub(super) const STEER: u16 = 18;
    pub(super) const INTERRUPT: u16 = 19;
    pub(super) const ARCHIVE: u16 = 20;
    pub(super) const PING: u16 = 31;
}

/// Why a frame holds no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A bincode body is wrong.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A stable body is wrong.
    #[error(transparent)]
    Stable(#[from] StableError),
}

impl ToWorker {
    /// The frame of this message.
    ///
    /// # Errors
    /// When the message passes the frame limit.
    pub fn to_frame(&self) -> Result<Frame, CodecError> {
        Ok(match self {
            Self::Hello(hello) => Frame { kind: kind::HELLO, body: stable::encode_hello(hello) },
            Self::Ack(attempt) => Frame { kind: kind::ACK, body: stable::encode_ack(*attempt) },
            Self::Drain => Frame { kind: kind::DRAIN, body: Vec::new() },
            Self::Kill => Frame { kind: kind::KILL, body: Vec::new() },
            Self::Configure(message) => Frame { kind: own::CONFIGURE, body: codec::encode(message)? },
            Self::Begin(message) => Frame { kind: own::BEGIN, body: codec::encode(message)? },
            Self::Steer(message) => Frame { kind: own::STEER, body: codec::encode(message)? },
            Self::Interrupt(message) => Frame { kind: own::INTERRUPT, body: codec::encode(message)? },
            Self::Archive(threads) => Frame { kind: own::ARCHIVE, body: codec::encode(threads)? },
            Self::Ping(nonce) => Frame { kind: own::PING, body: codec::encode(nonce)? },
        })
    }

    /// The message of a frame; `None` for a kind that this build does not know, which is skipped and counted.
    ///
    /// # Errors
    /// When a known kind has a wrong body; the session must end.
    pub fn from_frame(frame: &Frame) -> Result<Option<Self>, MessageError> {
        Ok(Some(match frame.kind {
            kind::HELLO => Self::Hello(stable::decode_hello(&frame.body)?),
            kind::ACK => Self::Ack(stable::decode_ack(&frame.body)?),
            kind::DRAIN => Self::Drain,
            kind::KILL => Self::Kill,
            own::CONFIGURE => Self::Configure(codec::decode(&frame.body)?),
            own::BEGIN => Self::Begin(codec::decode(&frame.body)?),
            own::STEER => Self::Steer(codec::decode(&frame.body)?),
            own::INTERRUPT => Self::Interrupt(codec::decode(&frame.body)?),
            own::ARCHIVE => Self::Archive(codec::decode(&frame.body)?),
            own::PING => Self::Ping(codec::decode(&frame.body)?),
            _ => return Ok(None),
        }))
    }
}
