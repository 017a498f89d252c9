//! Who may begin next on this host.
//!
//! * The first turn of an agent never waits for others.
//! * Further turns of agents share [`Limits::extra_max`] slots, round robin over agents.
//! * Starts of Codex are bounded: a start holds its place until Codex runs the turn, or for a second, so that a wedged
//!   agent cannot keep the others waiting.

use protocol::AgentName;
use std::collections::BTreeMap;

/// How long a start may hold its place. A cold start of Codex takes about 0.2 s. Milliseconds.
pub const START_HOLDS_MS: u64 = 1_000;

/// The host's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Turns at once beyond the first of each agent.
    pub extra_max: u32,
    /// Starts of Codex at once.
    pub starts_max: u32,
}

/// What an agent has and wants at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Turns that run.
    pub running: u32,
    /// Conversations whose next turn could begin.
    pub ready: u32,
    /// Its own bound.
    pub running_max: u32,
}

/// The order of turns among agents, and the starts that are under way.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// The agent that was served last.
    last: Option<AgentName>,
    /// Ticks at which starts began, with whose they are.
    starts: Vec<(AgentName, u64)>,
}

impl Admission {
    /// A turn of `agent` was sent at tick `now`.
    pub fn began(&mut self, agent: &AgentName, now: u64) {
        self.starts.push((agent.clone(), now));
        self.last = Some(agent.clone());
    }

    /// Codex runs a turn of `agent`, or its start has failed.
    pub fn started(&mut self, agent: &AgentName) {
        if let Some(at) = self.starts.iter().position(|(who, _)| who == agent) {
            self.starts.swap_remove(at);
        }
    }

    /// Takes back the places that were held too long.
    pub fn expire(&mut self, now: u64) {
        self.starts.retain(|(_, at)| now < at + START_HOLDS_MS);
    }

    /// Whose turn may begin now, if anybody's.
    pub fn next(&mut self, now: u64, limits: Limits, demands: &BTreeMap<AgentName, Demand>) -> Option<AgentName> {
        self.expire(now);
        if self.starts.len() >= limits.starts_max as usize {
            return None;
        }
        let extra: u32 = demands.values().map(|d| d.running.saturating_sub(1)).sum();
        let may = |demand: &Demand| {
            demand.ready > 0 && demand.running < demand.running_max && (demand.running == 0 || extra < limits.extra_max)
        };
        let pick = |fit: &dyn Fn(&Demand) -> bool| {
            let names = || demands.iter().filter(|(_, demand)| fit(demand)).map(|(name, _)| name);
            let after = |name: &&AgentName| self.last.as_ref().is_none_or(|last| *name > last);
            names().find(after).or_else(|| names().next()).cloned()
        };
        // First turns come before further ones: they wait for nobody but the bound of starts.
        pick(&|demand| demand.running == 0 && may(demand)).or_else(|| pick(&may))
    }

    /// When a start gives its place back by itself.
    pub fn deadline(&self) -> Option<u64> {
        self.starts.iter().map(|(_, at)| at + START_HOLDS_MS).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: &str) -> AgentName {
        AgentName::parse(n).unwrap()
    }

    fn demand(running: u32, ready: u32) -> Demand {
        Demand { running, ready, running_max: 3 }
    }

    const LIMITS: Limits = Limits { extra_max: 1, starts_max: 2 };

    #[test]
    fn a_first_turn_does_not_wait_for_the_host_but_a_second_does() {
        let mut admission = Admission::default();
        let full = BTreeMap::from([(name("a"), demand(2, 4)), (name("b"), demand(0, 1))]);
        assert_eq!(admission.next(0, LIMITS, &full), Some(name("b")));
        let only_extra = BTreeMap::from([(name("a"), demand(2, 4)), (name("b"), demand(1, 1))]);
        assert_eq!(admission.next(0, LIMITS, &only_extra), None);
    }

    #[test]
    fn further_turns_go_round() {
        let mut admission = Admission::default();
        let limits = Limits { extra_max: 9, starts_max: 9 };
        let demands = BTreeMap::from([(name("a"), demand(1, 9)), (name("b"), demand(1, 9)), (name("c"), demand(1, 9))]);
        let mut order = String::new();
        for _ in 0..6 {
            let next = admission.next(0, limits, &demands).unwrap();
            order.push_str(next.as_str());
            admission.began(&next, 0);
        }
        assert_eq!(order, "abcabc");
    }

    #[test]
    fn starts_are_bounded_and_a_wedged_one_gives_its_place_back() {
        let mut admission = Admission::default();
        let demands = BTreeMap::from([(name("c"), demand(0, 1))]);
        admission.began(&name("a"), 0);
        admission.began(&name("b"), 10);
        assert_eq!(admission.next(20, LIMITS, &demands), None);
        assert_eq!(admission.deadline(), Some(START_HOLDS_MS));
        assert_eq!(admission.next(START_HOLDS_MS, LIMITS, &demands), Some(name("c")));
        admission.started(&name("b"));
        assert_eq!(admission.deadline(), None);
    }
}
