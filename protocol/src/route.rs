//! Where an attempt runs: runtime, provider, model.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How Codex is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// A private `codex app-server` child, kept warm between turns.
    Codex,
    /// One `codex exec` child for each turn.
    CodexCli,
}

impl Runtime {
    /// The word of the configuration and of every report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Codex => "codex",
            Self::CodexCli => "codex-cli",
        }
    }

    /// Reads the word of the configuration.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "codex" => Some(Self::Codex),
            "codex-cli" => Some(Self::CodexCli),
            _ => None,
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where an attempt runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Route {
    /// How Codex is driven.
    pub runtime: Runtime,
    /// A key of `[providers]`, or `openai`, which Codex has built in.
    pub provider: String,
    /// The model as its provider calls it.
    pub model: String,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} on {}", self.provider, self.model, self.runtime)
    }
}
