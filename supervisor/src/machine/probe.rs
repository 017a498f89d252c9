//! A look at what the machine holds, for simulations: nothing is decided by it.

use super::Machine;
use super::lifecycle::Lifecycle;
use protocol::AgentName;

impl Machine {
    /// An agent's worker, wanted and actual.
    pub fn life(&self, agent: &AgentName) -> Option<&Lifecycle> {
        self.agents.get(agent).map(|agent| &agent.life)
    }

    /// The tick at which an agent's worker is looked at if it says nothing more, to be given up.
    pub fn silent_at(&self, agent: &AgentName) -> Option<u64> {
        self.heart_due(agent)
    }

    /// Whether nothing is under way: no turn, no try, nobody who waits.
    pub fn is_quiet(&self) -> bool {
        self.turns.is_empty() && self.attempts.is_empty() && self.callers.is_empty()
    }
}
