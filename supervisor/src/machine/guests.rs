//! Guests: agents that a caller makes for a while, see [`protocol::guest`].
//!
//! ```text
//!   host -- refused: another caller has some, or something of theirs is left
//!     | Host                        part: the caller went, or everything ends
//!   asked -- Hosted --> agents ----------------------------> killed -- at rest --> forgotten, Clear
//!                       (as any other: turns, restarts, sweeps)                      |
//!   free <---------------------------------------------------------- Cleared -------'
//! ```
//! Promises: one caller has guests at a time; no reload touches them, no configuration knows them; a guest's worker is
//! dead before its folder goes; no guest outlives its caller, nor this supervisor (the next one clears what a crash left).

use super::control::refuse;
use super::lifecycle::Event as Life;
use super::nouns::{CallerId, Now, Record};
use super::setup::Agent as Policy;
use super::words::Effect;
use super::{Agent, Caller, Going, Machine};
use protocol::control::{RefusedKind, Reply};
use protocol::{AgentName, Incarnation, guest};
use std::collections::{BTreeMap, BTreeSet};

/// Who has guests, and what is left of those before.
#[derive(Debug, Default)]
pub(super) struct Guests {
    /// Whose guests the present ones are.
    owner: Option<CallerId>,
    /// Gone guests whose folders are being removed.
    clearing: BTreeSet<AgentName>,
}

impl Machine {
    /// A caller wants guests.
    pub(super) fn host(&mut self, now: Now, caller: CallerId, guests: guest::Guests, effects: &mut Vec<Effect>) {
        if let Err((kind, why)) = self.may_host(&guests) {
            return refuse(caller, kind, why, effects);
        }
        self.guests.owner = Some(caller);
        self.callers.insert(caller, Caller::Guests);
        let names: Vec<&str> = guests.agents.iter().map(|guest| guest.agent.as_str()).collect();
        Self::event(now, None, None, format!("guests wanted: {}", names.join(", ")), effects);
        effects.push(Effect::Host(caller, guests));
    }

    fn may_host(&self, guests: &guest::Guests) -> Result<(), (RefusedKind, String)> {
        guests.check().map_err(|why| (RefusedKind::Failed, why))?;
        if self.going != Going::Staying {
            return Err((RefusedKind::Later, "cofferdam is shutting down: nothing is started".into()));
        }
        if let Some(why) = &self.ledger_stuck {
            return Err((RefusedKind::Later, format!("messages cannot be stored at this time: {why}")));
        }
        if self.guests.owner.is_some() {
            return Err((RefusedKind::Later, "a drill is running already: one at a time".into()));
        }
        if !self.guests.clearing.is_empty() || self.agents.values().any(|agent| agent.guest) {
            return Err((RefusedKind::Later, "the last drill's agents are still being removed: try again".into()));
        }
        let known = guests.agents.iter().find(|guest| self.agents.contains_key(&guest.agent));
        known.map_or(Ok(()), |guest| Err((RefusedKind::Failed, format!("there is an agent {} already", guest.agent))))
    }

    /// It is known how the guests of a caller are served. They begin, if it still waits for them.
    pub(super) fn hosted(
        &mut self,
        now: Now,
        caller: CallerId,
        policies: BTreeMap<AgentName, Policy>,
        effects: &mut Vec<Effect>,
    ) {
        if self.guests.owner != Some(caller) || self.going != Going::Staying {
            return;
        }
        let names: Vec<AgentName> = policies.keys().cloned().collect();
        for (name, policy) in policies {
            let last = Incarnation(self.last.incarnation);
            self.setup.agents.insert(name.clone(), policy);
            self.agents.insert(name.clone(), Agent { guest: true, ..Agent::new(now, true, last) });
            self.live(now, &name, Life::Start, effects);
        }
        effects.push(Effect::Reply(caller, Reply::Guests(names)));
    }

    /// The guests of this caller, or all of them, are ended.
    pub(super) fn part(&mut self, now: Now, caller: Option<CallerId>, effects: &mut Vec<Effect>) {
        if self.guests.owner.is_none() || caller.is_some_and(|caller| self.guests.owner != Some(caller)) {
            return;
        }
        self.guests.owner = None;
        let names: Vec<AgentName> = self.guest_policies().into_keys().collect();
        for name in names {
            if let Some(agent) = self.agents.get_mut(&name) {
                (agent.removed, agent.killed, agent.restart) = (true, true, false);
            }
            self.live(now, &name, Life::Kill, effects);
        }
    }

    /// How the present guests are served.
    pub(super) fn guest_policies(&self) -> BTreeMap<AgentName, Policy> {
        let guests = self.agents.iter().filter(|(_, agent)| agent.guest);
        guests.filter_map(|(name, _)| Some((name.clone(), self.setup.agents.get(name)?.clone()))).collect()
    }

    /// Forgets an agent that is down and no longer configured; of a guest, its threads and its folder as well.
    pub(super) fn forget_agent(&mut self, name: &AgentName, effects: &mut Vec<Effect>) {
        if !self.agents.remove(name).is_some_and(|agent| agent.guest) {
            return;
        }
        self.setup.agents.remove(name);
        let threads: Vec<_> = self.threads.keys().filter(|talk| talk.agent == *name).cloned().collect();
        for conversation in threads {
            self.threads.remove(&conversation);
            effects.push(Effect::Record(Record::Thread(conversation, None)));
        }
        self.guests.clearing.insert(name.clone());
        effects.push(Effect::Clear(name.clone()));
    }

    pub(super) fn cleared(&mut self, name: &AgentName) {
        self.guests.clearing.remove(name);
    }

    /// We leave and workers stay, but for those of guests: the next supervisor would only clear them.
    pub(super) fn leave_no_guests(&self, effects: &mut Vec<Effect>) {
        for (name, agent) in self.agents.iter().filter(|(_, agent)| agent.guest) {
            let pid = agent.life.process().and_then(|process| process.pid);
            effects.extend(pid.map(|pid| Effect::Kill(name.clone(), pid)));
        }
    }
}
