//! What the machine must know of the configuration: policies, as plain values.

use protocol::{AgentName, Route};
use std::collections::{BTreeMap, BTreeSet};

/// The configuration as far as it decides something.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Setup {
    /// Turns at once beyond the first of each agent.
    pub max_turns: u32,
    /// Starts of Codex at once.
    pub starts_max: u32,
    /// Identical failures in a row before owners are told.
    pub alert_after: u32,
    /// By name.
    pub agents: BTreeMap<AgentName, Agent>,
    /// By name.
    pub bots: BTreeMap<String, Bot>,
}

/// One agent's policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// The routes in order: the first, then the fallbacks. Never empty.
    pub routes: Vec<Route>,
    /// Turns at once.
    pub max_turns: u32,
    /// Messages that may wait.
    pub queue_max: u32,
    /// What a message during a turn does.
    pub queue: QueueMode,
    /// Milliseconds from a stop to the end of what still runs.
    pub stop_grace_ms: u64,
    /// Milliseconds that a turn may take; its worker ends it, and is ended if it does not.
    pub turn_ms: u64,
    /// Milliseconds without a word of its worker, after which that is replaced.
    pub heartbeat_ms: u64,
    /// Changes whenever the worker must be told again how the agent is served.
    pub served: u64,
}

/// What a message during a turn of its conversation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueMode {
    /// It is given to the running turn if Codex can take it, else it waits.
    Steer,
    /// It waits for its own turn.
    Queue,
    /// It waits; all that wait become one turn.
    Collect,
    /// It ends the running turn and comes next.
    Interrupt,
}

/// One bot's policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Bot {
    /// Who answers.
    pub agent: AgentName,
    /// Users and chats that are heard.
    pub allow: BTreeSet<i64>,
    /// Users that are told of trouble.
    pub owners: BTreeSet<i64>,
    /// Changes whenever the poller must begin anew: token or address.
    pub heard: u64,
}
