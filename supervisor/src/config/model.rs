//! The configuration as the rest of the supervisor sees it: checked, complete, every default applied.
//!
//! ```text
//!  file -> read.rs (spans, types, keys) -> resolve.rs (defaults, policy, references) -> Config
//!                                                            `-> Report (every error at once)
//! ```
//!
//! Promise: a [`Config`] made by [`Config::load`](super::Config::load) is whole. Each agent that a bot or a job
//! names exists, each route names a known provider, each path is absolute, each socket path fits. Two agents
//! compare equal exactly if `reload` need not touch the worker.

use super::users::User;
use super::words::{Approval, Auth, Catchup, Home, LogFormat, OnUncertain, Overlap, QueueMode, Reviewer, Sandbox};
use protocol::{AgentName, Route, Runtime};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A whole, valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file that it came from, absolute.
    pub path: PathBuf,
    /// Ledger, homes and journals.
    pub state_dir: PathBuf,
    /// Sockets. Short enough for the socket of every agent.
    pub runtime_dir: PathBuf,
    /// How many turns may run at once beyond each agent's first.
    pub max_turns: u32,
    /// The name or path of Codex for agents without their own.
    pub codex_command: PathBuf,
    /// The worker binary; `None`: the one beside the running `cofferdam`.
    pub worker_command: Option<PathBuf>,
    /// Bytes held back on disk so that the ledger can end what it began when the disk is full.
    pub ballast_bytes: u64,
    /// Where workers get cgroups of their own.
    pub cgroup: Cgroup,
    /// What the supervisor writes about itself.
    pub log: Log,
    /// When owners are told of failures that nobody waits for.
    pub alerts: Alerts,
    /// By name; `openai` is always in it.
    pub providers: BTreeMap<String, Provider>,
    /// By name.
    pub agents: BTreeMap<AgentName, Agent>,
    /// Telegram bots by the name of their table.
    pub bots: BTreeMap<String, Bot>,
    /// In the order of the file; names are unique.
    pub jobs: Vec<Job>,
}

/// What the supervisor writes about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A filter in the words of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// Text or JSON lines.
    pub format: LogFormat,
}

/// When owners are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alerts {
    /// Identical failures of an agent in a row before its owners are told; at least 1.
    pub after: u32,
}

/// Where models are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its key in `[providers]`.
    pub name: String,
    /// `None` for `openai` alone: Codex knows where that is.
    pub base_url: Option<String>,
    /// The variable of the environment that holds the key.
    pub api_key_env: Option<String>,
    /// Policy for agents that do not say.
    pub runtime: Option<Runtime>,
}

/// One agent, resolved.
#[derive(Clone, PartialEq)]
pub struct Agent {
    /// Its key in `[agents]`.
    pub name: AgentName,
    /// Where its turns run first.
    pub route: Route,
    /// Who said which runtime.
    pub runtime_from: RuntimeFrom,
    /// Where a turn may go after a failure that allows it, in order; `route` is not among them, nothing is twice.
    pub fallbacks: Vec<Route>,
    /// Where Codex finds its login.
    pub auth: Auth,
    /// The working directory of its turns.
    pub workspace: PathBuf,
    /// Whether the file names the workspace; if not, it is made below the state.
    pub workspace_explicit: bool,
    /// Turns of this agent at once; at least 1.
    pub max_turns: u32,
    /// What a message during a turn does.
    pub queue: QueueMode,
    /// Messages of the agent that may wait before further ones are refused.
    pub queue_max: u32,
    /// What Codex' tools may touch.
    pub sandbox: Sandbox,
    /// Whether tools reach the network inside `workspace-write`.
    pub network: bool,
    /// Further writable roots inside `workspace-write`.
    pub writable: Vec<PathBuf>,
    /// Whether Codex asks.
    pub approval: Approval,
    /// Who answers if it asks.
    pub reviewer: Reviewer,
    /// Which HOME its processes see.
    pub home: Home,
    /// Names below the real home that a private home links to; relative, without `..`.
    pub home_share: Vec<PathBuf>,
    /// Variables of the supervisor's environment that get through, beside the basics.
    pub env_pass: BTreeSet<String>,
    /// Variables set for its processes.
    pub env: BTreeMap<String, String>,
    /// The longest turn.
    pub turn_timeout: Duration,
    /// The longest silence of Codex within a turn.
    pub silence_timeout: Duration,
    /// The longest wait for the first event of a turn.
    pub first_event_timeout: Duration,
    /// The longest compaction.
    pub compaction_timeout: Duration,
    /// The longest silence of its worker.
    pub heartbeat_timeout: Duration,
    /// How long a Codex child without a turn stays.
    pub idle_after: Duration,
    /// What a worker gets between the request to end and the kill.
    pub stop_grace: Duration,
    /// How long a worker without a supervisor and without work stays.
    pub orphan_after: Duration,
    /// Bounds of its processes.
    pub limits: Limits,
    /// The name or path of its Codex.
    pub codex_command: PathBuf,
    /// TOML text merged into its Codex' config.toml; empty if nothing is configured.
    pub codex: String,
    /// The user of the host that its worker runs as; `None`: the supervisor's.
    pub user: Option<User>,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `env` and `codex` may hold keys.
        let mut shown = f.debug_struct("Agent");
        shown.field("name", &self.name).field("route", &self.route).field("fallbacks", &self.fallbacks);
        shown.finish_non_exhaustive()
    }
}

impl Agent {
    /// Whether anybody chose the runtime: then no turn leaves it unless `fallbacks` say so.
    pub fn runtime_explicit(&self) -> bool {
        self.runtime_from != RuntimeFrom::BuiltIn
    }

    /// The first route and the fallbacks, in order.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        std::iter::once(&self.route).chain(&self.fallbacks)
    }
}

/// Who said which runtime, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuntimeFrom {
    /// `codex-cli/...` in the reference of the model.
    Prefix,
    /// `runtime` in the agent's table.
    Agent,
    /// `runtime` in the model's table.
    Model,
    /// `runtime` in the provider's table.
    Provider,
    /// `runtime` in `[defaults]`.
    Defaults,
    /// Nobody: `codex`.
    BuiltIn,
}

/// Where workers get cgroups of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroup {
    /// Below our own, if it is ours to divide.
    Auto,
    /// Nowhere.
    None,
    /// Below this folder of cgroup v2, absolute.
    At(PathBuf),
}

/// Bounds of one agent's processes, for its worker. `None`: no bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory at which a turn ends.
    pub memory_max: Option<u64>,
    /// Bytes of memory at which Codex is retired between turns; at most `memory_max`.
    pub memory_high: Option<u64>,
    /// Share of the processor, 1 to 10,000; 100 is an ordinary share.
    pub cpu_weight: Option<u32>,
    /// Processor time in percent of one core.
    pub cpu_max: Option<u32>,
    /// Processes and threads.
    pub pids_max: Option<u32>,
    /// Share of the disks, 1 to 10,000; 100 is an ordinary share.
    pub io_weight: Option<u32>,
    /// Descriptors of one process.
    pub open_files: Option<u32>,
    /// Bytes of a core file.
    pub core_size: Option<u64>,
    /// Bytes of a file that one process writes.
    pub file_size: Option<u64>,
    /// Bytes of the agent's folder, of which its owners are told.
    pub disk_max: Option<u64>,
}

impl Limits {
    /// The same in the words of the wire.
    pub fn for_worker(&self) -> protocol::to_worker::Limits {
        protocol::to_worker::Limits {
            memory_max: self.memory_max,
            memory_high: self.memory_high,
            cpu_weight: self.cpu_weight,
            cpu_max: self.cpu_max,
            pids_max: self.pids_max,
            io_weight: self.io_weight,
            open_files: self.open_files,
            core_size: self.core_size,
            file_size: self.file_size,
            disk_max: self.disk_max,
        }
    }
}

/// A Telegram bot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bot {
    /// Its key in `[telegram]`.
    pub name: String,
    /// What Telegram knows it by.
    pub token: Secret,
    /// The file that the token came from, absolute, as it was named: agents must not see it. `None`: from elsewhere.
    pub token_file: Option<PathBuf>,
    /// Who answers; a key of `agents`.
    pub agent: AgentName,
    /// Users and chats that are heard; owners are heard without being here.
    pub allow: BTreeSet<i64>,
    /// Users that operate and get alerts.
    pub owners: BTreeSet<i64>,
    /// Where the Bot API is, without a slash at the end.
    pub api_root: String,
}

/// A prompt that a clock sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Unique among jobs.
    pub name: String,
    /// A key of `agents`.
    pub agent: AgentName,
    /// A cron expression that croner takes and that fires at some time.
    pub cron: String,
    /// The name of a time zone that jiff's bundle has.
    pub timezone: String,
    /// What is asked.
    pub prompt: String,
    /// Where the answer goes.
    pub deliver: Deliver,
    /// What a firing does while the last run still runs.
    pub overlap: Overlap,
    /// What becomes of missed firings.
    pub catchup: Catchup,
    /// What becomes of an uncertain run.
    pub on_uncertain: OnUncertain,
}

/// Where the answer of a job goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deliver {
    /// Into the ledger alone: `cofferdam jobs history` shows it.
    None,
    /// To a chat.
    Telegram {
        /// A key of `bots`.
        bot: String,
        /// A user or chat.
        chat: i64,
        /// A forum topic in it.
        topic: Option<i64>,
    },
}

/// A text that is never shown: neither `Debug` nor `Display` tells it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(String);

impl Secret {
    /// Takes `text` out of sight.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text. For the one call that needs it; never for a message.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Longest path of a socket in bytes: `sun_path` holds 108, one of which ends it.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

impl Config {
    /// Where `cofferdam` commands reach the supervisor.
    pub fn control_socket(&self) -> PathBuf {
        self.runtime_dir.join("control.sock")
    }

    /// Where the worker of `agent` listens. One of another user needs a folder of its own for it.
    pub fn agent_socket(&self, agent: &AgentName) -> PathBuf {
        if self.agents.get(agent).is_some_and(|agent| agent.user.is_some()) {
            return self.runtime_dir.join("agents").join(agent.as_str()).join("sock");
        }
        agent_socket(&self.runtime_dir, agent)
    }

    /// The folder that holds all of `agent`'s state.
    pub fn agent_dir(&self, agent: &AgentName) -> PathBuf {
        self.state_dir.join("agents").join(agent.as_str())
    }

    /// The ledger.
    pub fn ledger(&self) -> PathBuf {
        self.state_dir.join("ledger.db")
    }

    /// The providers that `agent` may use, by name; its Codex is told of all, but gets the keys of these alone.
    pub fn providers_of<'a>(&'a self, agent: &'a Agent) -> BTreeMap<&'a str, &'a Provider> {
        agent.routes().filter_map(|r| self.providers.get_key_value(&r.provider)).map(|(k, v)| (k.as_str(), v)).collect()
    }
}

/// Where the worker of `agent` listens below `runtime_dir`.
pub(super) fn agent_socket(runtime_dir: &Path, agent: &AgentName) -> PathBuf {
    runtime_dir.join("agents").join(format!("{agent}.sock"))
}
