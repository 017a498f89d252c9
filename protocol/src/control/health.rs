//! Whether all is well, as `health` tells it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
