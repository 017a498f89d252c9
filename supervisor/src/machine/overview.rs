//! All agents at a glance: when something is due and for whom, how many are in which state, who ails, who rests. Kept up
//! agent by agent, so that neither an input nor `health` costs a look at every agent.

use protocol::AgentName;
use std::collections::{BTreeMap, BTreeSet};

/// One agent, as far as the whole is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The state of its worker, in the word of `ps`.
    pub word: &'static str,
    /// It has given up, pauses before a restart, or failed too often in a row.
    pub ails: bool,
    /// It is down, or nothing that we can end is left of it.
    pub rests: bool,
    /// The tick at which something must happen by itself, and what.
    pub due: Option<(u64, &'static str)>,
}

/// All agents.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    rows: BTreeMap<AgentName, Row>,
    clock: BTreeSet<(u64, AgentName)>,
    words: BTreeMap<&'static str, u32>,
    ailing: BTreeSet<AgentName>,
    restless: BTreeSet<AgentName>,
}

impl Overview {
    /// What an agent is from here on; `None` if it is gone. What it was is returned.
    pub fn set(&mut self, agent: &AgentName, row: Option<Row>) -> Option<Row> {
        let before = self.rows.get(agent).copied();
        if before == row {
            return before;
        }
        if let Some(before) = before {
            self.leave(agent, before);
        }
        match row {
            Some(row) => self.enter(agent, row),
            None => drop(self.rows.remove(agent)),
        }
        before
    }

    fn enter(&mut self, agent: &AgentName, row: Row) {
        self.rows.insert(agent.clone(), row);
        *self.words.entry(row.word).or_default() += 1;
        if let Some((at, _)) = row.due {
            self.clock.insert((at, agent.clone()));
        }
        if row.ails {
            self.ailing.insert(agent.clone());
        }
        if !row.rests {
            self.restless.insert(agent.clone());
        }
    }

    fn leave(&mut self, agent: &AgentName, row: Row) {
        if let Some(count) = self.words.get_mut(row.word) {
            *count -= 1;
            if *count == 0 {
                self.words.remove(row.word);
            }
        }
        if let Some((at, _)) = row.due {
            self.clock.remove(&(at, agent.clone()));
        }
        self.ailing.remove(agent);
        self.restless.remove(agent);
    }

    /// What an agent is.
    pub fn row(&self, agent: &AgentName) -> Option<Row> {
        self.rows.get(agent).copied()
    }

    /// Agents for which something is due.
    pub fn due(&self, tick: u64) -> Vec<AgentName> {
        self.clock.iter().take_while(|(at, _)| *at <= tick).map(|(_, agent)| agent.clone()).collect()
    }

    /// When the next thing is due, and what.
    pub fn deadline(&self) -> Option<(u64, &'static str)> {
        self.rows.get(&self.clock.first()?.1)?.due
    }

    /// How many agents are in each state.
    pub const fn words(&self) -> &BTreeMap<&'static str, u32> {
        &self.words
    }

    /// Whether any agent ails.
    pub fn any_ails(&self) -> bool {
        !self.ailing.is_empty()
    }

    /// Whether every agent rests.
    pub fn all_rest(&self) -> bool {
        self.restless.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row() -> impl Strategy<Value = Option<Row>> {
        let due = proptest::option::of((0_u64..9, Just("worker")));
        let row = (proptest::sample::select(vec!["ready", "busy", "down"]), any::<bool>(), any::<bool>(), due);
        proptest::option::of(row.prop_map(|(word, ails, rests, due)| Row { word, ails, rests, due }))
    }

    proptest! {
        #[test]
        fn what_is_kept_up_is_what_a_look_at_all_would_find(
            steps in proptest::collection::vec((0_usize..4, row()), 0..40),
            tick in 0_u64..9,
        ) {
            let mut overview = Overview::default();
            let mut all: BTreeMap<AgentName, Row> = BTreeMap::new();
            for (who, row) in steps {
                let agent = AgentName::parse(["a", "b", "c", "d"][who]).unwrap();
                prop_assert_eq!(overview.set(&agent, row), all.get(&agent).copied());
                match row {
                    Some(row) => drop(all.insert(agent, row)),
                    None => drop(all.remove(&agent)),
                }
            }
            let mut words = BTreeMap::new();
            for row in all.values() {
                *words.entry(row.word).or_default() += 1;
            }
            prop_assert_eq!(overview.words(), &words);
            prop_assert_eq!(overview.any_ails(), all.values().any(|row| row.ails));
            prop_assert_eq!(overview.all_rest(), all.values().all(|row| row.rests));
            prop_assert_eq!(overview.deadline(), all.values().filter_map(|row| row.due).min());
            let mut due = overview.due(tick);
            due.sort();
            let late = all.iter().filter(|(_, row)| row.due.is_some_and(|(at, _)| at <= tick));
            prop_assert_eq!(due, late.map(|(agent, _)| agent.clone()).collect::<Vec<_>>());
        }
    }
}
