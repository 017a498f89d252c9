//! Who may begin next on this host.
//!
//! ```text
//!   ready ---- warm, or slow ----------------------------------------------> begins without a place
//!         `--- cold --- a place is free ------------------------------------> holds it
//!                  `--- waited START_HOLDS_MS, and a place ran out meanwhile -> begins without a place
//!
//!   place ---- Codex runs the turn, or the turn ended ----> given back
//!         `--- START_HOLDS_MS are over ----> taken back; its agent is slow until a start of it succeeds
//! ```
//! * The first turn of an agent waits for nobody but the bound of starts, and a warm agent's does not wait at all.
//! * Further turns of agents share [`Limits::extra_max`] slots; those that wait longest come first.
//! * An agent holds one place at most. What a wedged one costs the others is one place for a second, once; however many
//!   are wedged at a time, nobody's first turn waits longer than that second for them.

use protocol::AgentName;
use std::collections::{BTreeMap, BTreeSet};

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
    /// The Codex that its next turn needs is running.
    pub warm: bool,
}

/// What a ready agent waits for, in the order in which agents are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// A first turn that needs no place.
    First,
    /// A first turn that needs one.
    FirstCold,
    /// A further turn that needs no place.
    Further,
    /// A further turn that needs one.
    FurtherCold,
}

/// One agent.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    demand: Demand,
    class: Option<Class>,
    /// Its number in the queue, and the tick at which it got it.
    number: u64,
    since: u64,
}

/// The order of turns among agents, and the starts that are under way.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    agents: BTreeMap<AgentName, Standing>,
    /// Agents with a turn that is ready, those that wait longest first in each class.
    queue: BTreeMap<(Class, u64), AgentName>,
    /// Who holds a place, and since which tick.
    places: BTreeMap<AgentName, u64>,
    /// Agents whose latest place was taken back, and that have not started since.
    slow: BTreeSet<AgentName>,
    /// Turns that run beyond the first of each agent.
    extra: u32,
    last_number: u64,
    /// The tick at which a place was last taken back.
    taken_back_at: Option<u64>,
}

impl Admission {
    /// What an agent has and wants.
    pub fn set(&mut self, now: u64, agent: &AgentName, demand: Demand) {
        let known = self.agents.get(agent).map(|standing| standing.demand);
        if known != Some(demand) {
            let before = known.unwrap_or_default().running.saturating_sub(1);
            self.extra = self.extra + demand.running.saturating_sub(1) - before;
            self.agents.entry(agent.clone()).or_default().demand = demand;
            self.stand(now, agent, false);
        }
    }

    /// What is known of an agent's wants.
    #[cfg(test)]
    pub fn demand(&self, agent: &AgentName) -> Demand {
        self.agents.get(agent).map(|standing| standing.demand).unwrap_or_default()
    }

    /// The agent is gone, with all that it held.
    pub fn forget(&mut self, now: u64, agent: &AgentName) {
        self.set(now, agent, Demand::default());
        self.agents.remove(agent);
        self.places.remove(agent);
        self.slow.remove(agent);
    }

    /// Codex runs a turn of `agent`.
    pub fn started(&mut self, now: u64, agent: &AgentName) {
        self.slow.remove(agent);
        self.ended(now, agent);
    }

    /// A start of `agent` is over, well or not.
    pub fn ended(&mut self, now: u64, agent: &AgentName) {
        self.places.remove(agent);
        self.stand(now, agent, false);
    }

    /// Takes back the places that were held too long.
    pub fn expire(&mut self, now: u64) {
        let over = |(_, at): &(&AgentName, &u64)| now >= **at + START_HOLDS_MS;
        let over: Vec<AgentName> = self.places.iter().filter(over).map(|(agent, _)| agent.clone()).collect();
        for agent in over {
            self.places.remove(&agent);
            self.taken_back_at = Some(now);
            self.slow.insert(agent.clone());
            self.stand(now, &agent, false);
        }
    }

    /// Whose turn begins now, if anybody's: it counts as running from here on.
    pub fn next(&mut self, now: u64, limits: Limits) -> Option<AgentName> {
        self.expire(now);
        let place = self.places.len() < limits.starts_max as usize;
        let further = self.extra < limits.extra_max;
        let may = |class: Class| match class {
            Class::First => true,
            Class::FirstCold => place || self.patience_ends().is_some_and(|at| at <= now),
            Class::Further => further,
            Class::FurtherCold => further && place,
        };
        let classes = [Class::First, Class::FirstCold, Class::Further, Class::FurtherCold];
        let (class, agent) = classes.into_iter().find_map(|class| {
            let agent = self.head(class).filter(|_| may(class))?;
            Some((class, agent.clone()))
        })?;
        if place && matches!(class, Class::FirstCold | Class::FurtherCold) {
            self.places.insert(agent.clone(), now);
        }
        let demand = self.agents.get(&agent).map(|standing| standing.demand).unwrap_or_default();
        let begun = Demand { running: demand.running + 1, ready: demand.ready.saturating_sub(1), ..demand };
        self.set(now, &agent, begun);
        // It goes to the end: others that are ready come before its next turn.
        self.stand(now, &agent, true);
        Some(agent)
    }

    /// When a place is taken back, or somebody has waited long enough for one.
    pub fn deadline(&self) -> Option<u64> {
        let places = self.places.values().map(|at| at + START_HOLDS_MS).min();
        [places, self.patience_ends()].into_iter().flatten().min()
    }

    /// When the longest wait of a first turn for a place ends without one. A wait for places that are given back in
    /// time has no such end: these starts succeed, and more of them at once would only be slower.
    fn patience_ends(&self) -> Option<u64> {
        let since = self.agents.get(self.head(Class::FirstCold)?)?.since;
        self.taken_back_at.filter(|at| *at >= since).map(|_| since + START_HOLDS_MS)
    }

    fn head(&self, class: Class) -> Option<&AgentName> {
        self.queue.range((class, 0)..=(class, u64::MAX)).next().map(|(_, agent)| agent)
    }

    /// Puts an agent where it belongs; at the end if it is new there, or is to be.
    fn stand(&mut self, now: u64, agent: &AgentName, at_the_end: bool) {
        let Some(standing) = self.agents.get(agent).copied() else { return };
        let class = self.class(agent, standing.demand);
        let (mut number, mut since) = (standing.number, standing.since);
        if let Some(class) = standing.class {
            self.queue.remove(&(class, number));
        }
        if at_the_end || standing.class.is_none() {
            self.last_number += 1;
            (number, since) = (self.last_number, now);
        }
        if let Some(class) = class {
            self.queue.insert((class, number), agent.clone());
        }
        self.agents.insert(agent.clone(), Standing { demand: standing.demand, class, number, since });
    }

    fn class(&self, agent: &AgentName, demand: Demand) -> Option<Class> {
        if demand.ready == 0 || demand.running >= demand.running_max {
            return None;
        }
        let free = demand.warm || self.slow.contains(agent);
        match (free, demand.running == 0) {
            // Its next start follows the one that is under way.
            (false, _) if self.places.contains_key(agent) => None,
            (true, true) => Some(Class::First),
            (false, true) => Some(Class::FirstCold),
            (true, false) => Some(Class::Further),
            (false, false) => Some(Class::FurtherCold),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(n: &str) -> AgentName {
        AgentName::parse(n).unwrap()
    }

    fn demand(running: u32, ready: u32) -> Demand {
        Demand { running, ready, running_max: 3, warm: false }
    }

    const LIMITS: Limits = Limits { extra_max: 1, starts_max: 2 };

    /// Agents of one letter each, with what they want.
    fn of(demands: &[(&str, Demand)]) -> Admission {
        let mut admission = Admission::default();
        for (agent, demand) in demands {
            admission.set(0, &name(agent), *demand);
        }
        admission
    }

    fn all(admission: &mut Admission, now: u64, limits: Limits) -> String {
        std::iter::from_fn(|| admission.next(now, limits)).map(|agent| agent.to_string()).collect()
    }

    #[test]
    fn a_first_turn_does_not_wait_for_the_host_but_a_second_does() {
        assert_eq!(all(&mut of(&[("a", demand(2, 4)), ("b", demand(0, 1))]), 0, LIMITS), "b");
        assert_eq!(all(&mut of(&[("a", demand(2, 4)), ("b", demand(1, 1))]), 0, LIMITS), "");
    }

    #[test]
    fn further_turns_go_round() {
        let busy = Demand { running: 1, ready: 9, running_max: 9, warm: true };
        let limits = Limits { extra_max: 6, starts_max: 9 };
        assert_eq!(all(&mut of(&[("a", busy), ("b", busy), ("c", busy)]), 0, limits), "abcabc");
    }

    #[test]
    fn starts_are_bounded_and_a_wedged_one_gives_its_place_back() {
        let mut admission = of(&[("a", demand(0, 1)), ("b", demand(0, 1)), ("c", demand(0, 1))]);
        assert_eq!(all(&mut admission, 10, LIMITS), "ab");
        assert_eq!(admission.deadline(), Some(10 + START_HOLDS_MS));
        assert_eq!(all(&mut admission, 10 + START_HOLDS_MS, LIMITS), "c");
        admission.started(2_000, &name("c"));
        assert_eq!(admission.deadline(), None);
    }

    #[test]
    fn a_warm_agent_takes_no_place_and_waits_for_none() {
        let warm = Demand { warm: true, ..demand(0, 1) };
        let mut admission = of(&[("a", demand(0, 1)), ("b", demand(0, 1)), ("c", warm), ("d", warm), ("e", warm)]);
        assert_eq!(all(&mut admission, 0, LIMITS), "cdeab");
        assert_eq!(admission.places.len(), 2);
    }

    #[test]
    fn an_agent_holds_one_place_and_its_own_next_start_waits_for_it() {
        let limits = Limits { extra_max: 9, starts_max: 9 };
        let mut admission = of(&[("a", demand(0, 3)), ("b", demand(0, 1))]);
        assert_eq!(all(&mut admission, 0, limits), "ab");
        admission.started(5, &name("a"));
        assert_eq!(all(&mut admission, 5, limits), "a");
        assert_eq!(admission.places.len(), 2);
    }

    #[test]
    fn whose_place_was_taken_back_gets_none_until_it_has_started() {
        let limits = Limits { extra_max: 9, starts_max: 1 };
        let mut admission = of(&[("a", demand(0, 2))]);
        assert_eq!(all(&mut admission, 0, limits), "a");
        assert_eq!(all(&mut admission, START_HOLDS_MS, limits), "a");
        assert!(admission.places.is_empty(), "its second start holds nothing");
        admission.ended(2_000, &name("a"));
        admission.set(2_000, &name("a"), demand(0, 1));
        assert_eq!(all(&mut admission, 2_000, limits), "a");
        assert!(admission.places.is_empty(), "an end is no start");
        admission.started(2_500, &name("a"));
        admission.set(2_500, &name("a"), demand(0, 1));
        assert_eq!(all(&mut admission, 2_500, limits), "a");
        assert_eq!(admission.places.len(), 1);
    }

    proptest! {
        /// Any number of agents begin turns and are never heard of again; another one's first turn waits for them a
        /// second at most, and not at all if they have not taken every place.
        #[test]
        fn wedged_agents_cost_another_one_second_at_most(
            mut arrivals in proptest::collection::vec((0_u64..4_000, 1_u32..4), 0..60),
            at in 0_u64..4_000,
            starts_max in 1_u32..6,
        ) {
            let limits = Limits { extra_max: 4, starts_max };
            let mut admission = Admission::default();
            arrivals.sort_unstable();
            let mut begun_at = None;
            for now in 0..=at + START_HOLDS_MS {
                for (i, (_, ready)) in arrivals.iter().enumerate().filter(|(_, (t, _))| *t == now) {
                    admission.set(now, &name(&format!("w{i}")), demand(0, *ready));
                }
                if now == at {
                    admission.expire(now);
                    let at_once = admission.places.len() + admission.queue.len() < starts_max as usize;
                    admission.set(now, &name("other"), demand(0, 1));
                    prop_assert!(!at_once || all(&mut admission, now, limits).contains("other"));
                    begun_at = at_once.then_some(now);
                }
                while let Some(agent) = admission.next(now, limits) {
                    if agent == name("other") {
                        begun_at = Some(now);
                    }
                }
                prop_assert!(admission.places.len() <= starts_max as usize);
                prop_assert!(admission.deadline().is_none_or(|due| due > now), "a deadline that is over at {now}");
            }
            prop_assert!(begun_at.is_some(), "it waits longer than a second");
        }

        /// The counters are what a look at every agent would find.
        #[test]
        fn what_is_counted_is_what_is_there(
            steps in proptest::collection::vec((0_usize..5, 0_u32..4, 0_u32..4, any::<bool>(), 0_u8..6), 1..60),
        ) {
            let limits = Limits { extra_max: 3, starts_max: 2 };
            let mut admission = Admission::default();
            for (now, (who, running, ready, warm, what)) in steps.into_iter().enumerate() {
                let (now, agent) = (now as u64 * 300, name(["a", "b", "c", "d", "e"][who]));
                match what {
                    0 => admission.started(now, &agent),
                    1 => admission.ended(now, &agent),
                    2 => admission.forget(now, &agent),
                    _ => admission.set(now, &agent, Demand { running, ready, running_max: 3, warm }),
                }
                while admission.next(now, limits).is_some() {}
                let extra: u32 = admission.agents.values().map(|s| s.demand.running.saturating_sub(1)).sum();
                prop_assert_eq!(admission.extra, extra);
                let queued = admission.agents.iter().filter_map(|(a, s)| Some(((s.class?, s.number), a.clone())));
                prop_assert_eq!(&admission.queue, &queued.collect::<BTreeMap<_, _>>());
                for (agent, standing) in &admission.agents {
                    prop_assert_eq!(standing.class, admission.class(agent, standing.demand));
                }
            }
        }
    }
}
