//! Guests: agents that a caller of the control socket makes for a while. `cofferdam drill` hurts one and measures others.
//!
//! ```text
//!   caller -- Request::Guests --> supervisor -- Reply::Guests --> caller
//!                                    |  they are agents as any other, but in no configuration
//!             connection closed ---> |  they are killed, and their folders removed
//! ```

use crate::ids::AgentName;
use crate::route::Runtime;
use serde::{Deserialize, Serialize};

/// What a guest's name begins with; no configured agent's name does.
pub const GUEST_PREFIX: &str = "drill-";

/// Guests at once: one that is hurt and those beside it. Each is a process with a Codex of its own.
pub const GUESTS_MAX: usize = 8;

/// Agents for as long as their caller stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guests {
    /// Where their model is served: an address on loopback, for the caller serves it itself.
    pub base_url: String,
    /// At most [`GUESTS_MAX`].
    pub agents: Vec<Guest>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Begins with [`GUEST_PREFIX`].
    pub agent: AgentName,
    /// How its Codex is driven.
    pub runtime: Runtime,
    /// Bytes of memory that its processes may have; `None`: no limit.
    pub memory_max: Option<u64>,
    /// Processes and threads that it may have; `None`: no limit.
    pub pids_max: Option<u32>,
    /// Tokens of a thread after which Codex compacts it; `None` leaves that to Codex.
    pub compact_at_tokens: Option<u32>,
}

impl Guests {
    /// Whether a supervisor may make them, and if not, why.
    pub fn check(&self) -> Result<(), String> {
        if self.agents.is_empty() || self.agents.len() > GUESTS_MAX {
            return Err(format!("1 to {GUESTS_MAX} guests may be made at once"));
        }
        for (index, guest) in self.agents.iter().enumerate() {
            if !guest.agent.as_str().starts_with(GUEST_PREFIX) {
                return Err(format!("the name of a guest begins with {GUEST_PREFIX}; {} does not", guest.agent));
            }
            if self.agents.iter().skip(index + 1).any(|other| other.agent == guest.agent) {
                return Err(format!("the guest {} is named twice", guest.agent));
            }
        }
        let port = self.base_url.strip_prefix("http://127.0.0.1:").and_then(|rest| rest.strip_suffix("/v1"));
        if port.is_none_or(|port| port.parse::<u16>().is_err()) {
            return Err("the model of a guest is served at http://127.0.0.1:PORT/v1".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guests(names: &[&str]) -> Guests {
        let guest = |name: &&str| Guest {
            agent: AgentName::parse(name).unwrap(),
            runtime: Runtime::Codex,
            memory_max: None,
            pids_max: None,
            compact_at_tokens: None,
        };
        Guests { base_url: "http://127.0.0.1:4000/v1".into(), agents: names.iter().map(guest).collect() }
    }

    #[test]
    fn only_guests_are_made_as_guests() {
        assert_eq!(guests(&["drill-a", "drill-b"]).check(), Ok(()));
        for bad in [&[][..], &["a"], &["drill-a", "drill-a"], &["drill-a"; 9]] {
            assert!(guests(bad).check().is_err(), "{bad:?}");
        }
        for url in ["", "http://example.org/v1", "http://127.0.0.1:4000@evil.org/v1", "http://127.0.0.1:99999/v1"] {
            let abroad = Guests { base_url: url.into(), ..guests(&["drill-a"]) };
            assert!(abroad.check().unwrap_err().contains("127.0.0.1"), "{url}");
        }
    }
}
