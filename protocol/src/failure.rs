//! Why a turn failed: one table of classes, read by the worker that names them and the supervisor that acts on them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The person's, or their plan's.
    Person,
    /// The model's provider or the way to it.
    Provider,
    /// The Codex program's.
    Codex,
    /// This machine's.
    Host,
    /// Our own, or the operator's wish.
    Us,
}

/// What the supervisor may do by itself after a failure of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whose fault it is.
    pub fault: Fault,
    /// How often the same route is tried again, if a replay is safe.
    pub retries: u8,
    /// Whether the next route of `fallbacks` may take over, if a replay is safe.
    pub falls_back: bool,
    /// What the sender reads.
    pub told: &'static str,
    /// What the operator should do next; `AGENT` stands for the agent's name.
    pub next_step: &'static str,
}

macro_rules! classes {
    ($($name:ident $word:literal, $fault:ident, $retries:literal, $falls_back:literal,
       $meaning:literal, $told:literal, $next:literal;)*) => {
        /// How a turn failed. The words are stable: scripts and alerts rely on them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum FailureClass {
            $(#[doc = $meaning] $name,)*
        }

        impl FailureClass {
            /// Every class, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The row of the table.
            pub const fn policy(self) -> Policy {
                match self {
                    $(Self::$name => Policy {
                        fault: Fault::$fault, retries: $retries, falls_back: $falls_back, told: $told, next_step: $next,
                    },)*
                }
            }
        }
    };
}

classes! {
    RateLimit "rate_limit", Provider, 1, true,
        "The provider asked for fewer requests.",
        "the model's provider is limiting requests",
        "wait a minute and `cofferdam retry` the turn; lower max_turns of AGENT if it comes back";
    UsageLimit "usage_limit", Person, 0, true,
        "The plan's allowance is used up until a reset.",
        "the plan's usage limit is reached",
        "wait for the reset, or give AGENT a fallback on another provider";
    Auth "auth", Person, 0, true,
        "The provider refused the credentials.",
        "the login for the model was refused",
        "run `cofferdam login AGENT`, or check the provider's api_key_env, then `cofferdam retry` the turn";
    BlockedPage "blocked_page", Provider, 0, true,
        "A web page came instead of an API answer: a challenge or a block on the way.",
        "the provider answered with a web page instead of an answer (a challenge or a block)",
        "check the provider's base_url and whether this host's address is blocked";
    Network "network", Provider, 1, true,
        "The provider could not be reached, or the connection was lost.",
        "the model's provider could not be reached",
        "check the host's network and DNS and the provider's base_url";
    ModelUnknown "model_unknown", Us, 0, true,
        "The provider has no such model.",
        "the provider does not know this agent's model",
        "correct `model` of AGENT and `cofferdam reload`";
    ProviderUnknown "provider_unknown", Us, 0, true,
        "Codex knows no such provider, or its key is missing.",
        "this agent's model provider is not set up",
        "check [providers] and that api_key_env is set for the supervisor, then restart AGENT";
    ModelError "model_error", Provider, 1, true,
        "The provider failed in a way that no other class names.",
        "the model failed",
        "read `cofferdam turns show ID`; `cofferdam retry` it when the provider is well";
    ContextOverflow "context_overflow", Person, 0, false,
        "The conversation no longer fits into the model's context.",
        "this conversation has grown too long for the model; /new starts a fresh one",
        "start a fresh conversation (/new)";
    CodexMissing "codex_missing", Host, 0, true,
        "The Codex program was not found.",
        "Codex is not installed on this host",
        "install @openai/codex, or set [codex] command, then restart AGENT";
    CodexStart "codex_start", Codex, 1, true,
        "Codex did not start: too old, a bad configuration, or it ended before the turn.",
        "Codex did not start",
        "read `cofferdam logs AGENT` and the stderr in `cofferdam turns show ID`";
    CodexExit "codex_exit", Codex, 1, true,
        "Codex ended in the middle of a turn.",
        "Codex ended before the answer was complete",
        "read the stderr in `cofferdam turns show ID`; `cofferdam retry` it";
    CodexSilent "codex_silent", Codex, 0, true,
        "Codex gave no sign of life for longer than `silence_timeout`.",
        "Codex went silent and was ended",
        "`cofferdam retry` it; raise silence_timeout of AGENT if its model is slow";
    CodexProtocol "codex_protocol", Codex, 0, true,
        "Codex spoke in a way that cannot be understood.",
        "Codex spoke in a way that could not be understood",
        "compare Codex' version with the README; read `cofferdam logs AGENT`";
    CompactionTimeout "compaction_timeout", Provider, 0, true,
        "Compacting the conversation took longer than `compaction_timeout`.",
        "compacting this conversation took too long; /new starts a fresh one",
        "`cofferdam retry` it, or start a fresh conversation (/new)";
    TurnTimeout "turn_timeout", Us, 0, false,
        "The turn took longer than `turn_timeout`.",
        "the turn took longer than its limit",
        "raise turn_timeout of AGENT, or ask for less at once";
    Budget "budget", Us, 0, false,
        "The turn used up its budget.",
        "the turn used up its budget",
        "raise the budget of AGENT, or ask for less at once";
    WorkerLost "worker_lost", Us, 1, false,
        "The agent's worker ended before the turn did.",
        "the agent's worker ended before the turn did",
        "read `cofferdam turns show ID`; `cofferdam retry` it";
    OutOfMemory "out_of_memory", Host, 0, false,
        "The kernel ended the agent for its use of memory.",
        "the agent ran out of memory",
        "raise limits.memory_max of AGENT, or ask for less at once";
    DiskFull "disk_full", Host, 0, false,
        "The disk is full.",
        "the host's disk is full",
        "free space under state_dir, then `cofferdam retry` it";
    Killed "killed", Us, 0, false,
        "An operator killed the agent.",
        "the operator killed the agent",
        "`cofferdam start AGENT`, then `cofferdam retry` it";
    Shutdown "shutdown", Us, 0, false,
        "Cofferdam was told to end everything.",
        "the service was shut down",
        "`cofferdam retry` it after the next start";
}

impl FailureClass {
    /// Reads the stable word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.as_str() == word)
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_and_says_what_to_do() {
        for class in FailureClass::ALL {
            assert_eq!(FailureClass::parse(class.as_str()), Some(*class));
            assert!(!class.policy().told.is_empty() && !class.policy().next_step.is_empty());
        }
        assert_eq!(FailureClass::parse("nonsense"), None);
    }
}
