//! Workers of an earlier build are replaced one by one, each while nothing of its agent runs.
//!
//! ```text
//!   outdated, ready, no turn runs --> drained --> gone, swept --> started --> ready --> the next agent
//!                                                                   |
//!                                          does not come up ........'  nobody else is touched until it does
//! ```
//! A message that comes meanwhile waits for the milliseconds that it takes. One at a time on the whole host: a new build
//! that does not work costs one agent, which was idle, and not the fleet.

use super::lifecycle::Event as Life;
use super::nouns::Now;
use super::words::Effect;
use super::{Going, Machine};
use protocol::AgentName;

impl Machine {
    /// Begins the next replacement, if none is on its way. Before the turns that wait are sent, so that an agent with a
    /// queue has its moment too.
    pub(super) fn roll(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let may = self.going == Going::Staying && self.ledger_stuck.is_none();
        if !may || !self.agents.values().any(|agent| agent.outdated && agent.life.is_up()) {
            return;
        }
        if self.agents.values().any(|agent| agent.renewing) {
            return;
        }
        let idle = |name: &AgentName| self.running_of(name) == 0;
        let next = self.agents.iter().find(|(name, agent)| agent.outdated && agent.life.is_up() && idle(name));
        let Some(name) = next.map(|(name, _)| name.clone()) else { return };
        let Some(agent) = self.agents.get_mut(&name) else { return };
        agent.renewing = true;
        let grace = self.setup.agents.get(&name).map_or(0, |policy| policy.stop_grace_ms);
        Self::event(now, Some(&name), None, "its worker is of an earlier build and is replaced", effects);
        self.live(now, &name, Life::Renew(grace), effects);
    }
}
