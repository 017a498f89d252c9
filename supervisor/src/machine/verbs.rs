//! What an operator wants of agents and of the whole: start, stop, restart, kill, reload, shutdown.

use super::lifecycle::{Event as Life, Lifecycle, State};
use super::nouns::{CallerId, Now, Record};
use super::setup::Setup;
use super::words::Effect;
use super::{Agent, Caller, Going, Machine, Stage};
use protocol::control::{Refused, RefusedKind, Reply, Verb};
use protocol::from_worker::Isolation;
use protocol::{AgentName, FailureClass, Incarnation, TurnId};
use std::collections::{BTreeMap, BTreeSet};

impl Machine {
    /// `start`, `stop`, `restart`, `kill`.
    pub(super) fn verb(
        &mut self,
        now: Now,
        caller: CallerId,
        verb: Verb,
        names: Vec<AgentName>,
        effects: &mut Vec<Effect>,
    ) {
        let unknown: Vec<&str> =
            names.iter().filter(|name| !self.agents.contains_key(name)).map(AgentName::as_str).collect();
        if !unknown.is_empty() {
            let why = format!("there is no agent {}; `cofferdam ps` lists them", unknown.join(", "));
            effects.push(Effect::Reply(caller, Reply::Refused(Refused { kind: RefusedKind::Failed, why })));
            return;
        }
        let pending: BTreeSet<AgentName> = names.iter().cloned().collect();
        self.callers.insert(caller, Caller::Agents { verb, pending, failed: false });
        for name in names {
            self.want(now, &name, verb, effects);
        }
    }

    fn want(&mut self, now: Now, name: &AgentName, verb: Verb, effects: &mut Vec<Effect>) {
        let grace = self.setup.agents.get(name).map_or(0, |policy| policy.stop_grace_ms);
        let Some(agent) = self.agents.get_mut(name) else { return };
        let up = matches!(verb, Verb::Start | Verb::Restart);
        effects.push(Effect::Record(Record::Wanted(name.clone(), up)));
        Self::event(now, Some(name), None, format!("{} wanted", verb.as_str()), effects);
        agent.restart = verb == Verb::Restart;
        agent.killed = verb == Verb::Kill;
        match verb {
            Verb::Start if agent.life.is_up() => self.agent_reached(name, true, effects),
            Verb::Start => self.live(now, name, Life::Start, effects),
            Verb::Stop | Verb::Restart => self.live(now, name, Life::Stop(Some(grace)), effects),
            Verb::Kill => self.live(now, name, Life::Kill, effects),
        }
    }

    /// An agent is up or at rest: command lines that waited for it go on.
    pub(super) fn agent_reached(&mut self, name: &AgentName, well: bool, effects: &mut Vec<Effect>) {
        let up = self.agents.get(name).is_some_and(|agent| agent.life.is_up());
        let restarting = self.agents.get(name).is_some_and(|agent| agent.restart);
        let mut done = Vec::new();
        for (caller, waits) in &mut self.callers {
            let Caller::Agents { verb, pending, failed } = waits else { continue };
            let wants_up = matches!(verb, Verb::Start | Verb::Restart);
            if !pending.contains(name) || (wants_up && !up && well) || (!wants_up && up) || (restarting && well) {
                continue;
            }
            pending.remove(name);
            *failed |= !well && wants_up;
            let word = match verb {
                _ if !well => "failed",
                Verb::Start => "started",
                Verb::Stop => "stopped",
                Verb::Restart => "restarted",
                Verb::Kill => "killed, nothing of it is left",
            };
            effects.push(Effect::Reply(*caller, Reply::Note(format!("{name}: {word}"))));
            if pending.is_empty() {
                done.push((*caller, *failed));
            }
        }
        for (caller, failed) in done {
            self.callers.remove(&caller);
            let last = if failed {
                let why = format!("agent {name} does not start; `cofferdam logs {name}` tells why");
                Reply::Refused(Refused { kind: RefusedKind::Failed, why })
            } else {
                Reply::Done
            };
            effects.push(Effect::Reply(caller, last));
        }
    }

    /// An agent is down: it is started again if that was the wish, and forgotten if it is no longer configured.
    pub(super) fn rested(&mut self, now: Now, name: &AgentName, effects: &mut Vec<Effect>) {
        let Some(agent) = self.agents.get(name) else { return };
        if agent.removed {
            let open: Vec<TurnId> = self.turns.values().filter(|t| t.of(name)).map(|t| t.new.id).collect();
            for id in open {
                if let Some(Stage::Running { attempt, .. }) = self.turns.get(&id).map(|t| t.stage.clone()) {
                    self.lost(now, attempt, FailureClass::Shutdown, String::new(), effects);
                } else {
                    self.fail_waiting(now, id, FailureClass::Shutdown, "the agent was removed", effects);
                }
            }
            self.agents.remove(name);
        } else if agent.restart && self.going == Going::Staying {
            self.live(now, name, Life::Start, effects);
        }
    }

    /// The configuration was read again: only agents and bots whose part of it changed are touched.
    pub(super) fn reloaded(&mut self, now: Now, caller: Option<CallerId>, setup: Setup, effects: &mut Vec<Effect>) {
        let old = std::mem::replace(&mut self.setup, setup);
        let mut notes = Vec::new();
        self.reload_agents(now, &old, &mut notes, effects);
        self.reload_bots(&old, &mut notes, effects);
        if notes.is_empty() {
            notes.push("nothing changed".to_owned());
        }
        Self::event(now, None, None, format!("configuration read again: {}", notes.join(", ")), effects);
        if let Some(caller) = caller {
            effects.extend(notes.into_iter().map(|note| Effect::Reply(caller, Reply::Note(note))));
            effects.push(Effect::Reply(caller, Reply::Done));
        }
    }

    fn reload_agents(&mut self, now: Now, old: &Setup, notes: &mut Vec<String>, effects: &mut Vec<Effect>) {
        let names: BTreeSet<AgentName> = old.agents.keys().chain(self.setup.agents.keys()).cloned().collect();
        for name in names {
            match (old.agents.get(&name), self.setup.agents.get(&name)) {
                (None, Some(_)) => {
                    notes.push(format!("{name}: added"));
                    let last = Incarnation(self.last.incarnation);
                    self.agents.entry(name.clone()).or_insert_with(|| Agent::new(now, true, last)).removed = false;
                    self.live(now, &name, Life::Start, effects);
                }
                (Some(_), None) => {
                    notes.push(format!("{name}: removed, its worker finishes what runs"));
                    if let Some(agent) = self.agents.get_mut(&name) {
                        agent.removed = true;
                        agent.restart = false;
                    }
                    self.live(now, &name, Life::Stop(None), effects);
                }
                (Some(before), Some(after)) if before.served != after.served => {
                    notes.push(format!("{name}: changed, in force from its next turn"));
                    effects.push(Effect::Configure(name));
                }
                (Some(before), Some(after)) if before != after => notes.push(format!("{name}: changed")),
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
    }

    fn reload_bots(&mut self, old: &Setup, notes: &mut Vec<String>, effects: &mut Vec<Effect>) {
        for (name, bot) in &self.setup.bots {
            if old.bots.get(name).is_none_or(|before| before.heard != bot.heard) {
                notes.push(format!("bot {name}: heard from now on"));
                let offset = self.bots.entry(name.clone()).or_default().offset;
                effects.push(Effect::Hear(name.clone(), offset));
            }
        }
        for name in old.bots.keys().filter(|name| !self.setup.bots.contains_key(*name)) {
            notes.push(format!("bot {name}: no longer heard"));
            effects.push(Effect::Unhear(name.clone()));
        }
    }

    pub(super) fn reload_refused(now: Now, caller: Option<CallerId>, why: &str, effects: &mut Vec<Effect>) {
        Self::event(now, None, None, "configuration read again and refused; the old one stays in force", effects);
        if let Some(caller) = caller {
            let why = format!("{why}\nthe old configuration stays in force");
            effects.push(Effect::Reply(caller, Reply::Refused(Refused { kind: RefusedKind::Config, why })));
        }
    }

    /// SIGTERM: leave; workers stay and finish what runs.
    pub(super) fn leave(&mut self, effects: &mut Vec<Effect>) {
        if self.going != Going::Gone {
            self.going = Going::Gone;
            effects.push(Effect::Exit);
        }
    }

    /// SIGINT and `shutdown`: drain, then end everything; the second time kills.
    pub(super) fn shut_down(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let life = if self.going == Going::Ending { Life::Kill } else { Life::Stop(None) };
        self.end_all(now, &life, effects);
    }

    pub(super) fn end_all(&mut self, now: Now, life: &Life, effects: &mut Vec<Effect>) {
        if self.going == Going::Gone {
            return;
        }
        self.going = Going::Ending;
        let names: Vec<AgentName> = self.agents.keys().cloned().collect();
        for name in names {
            if let Some(agent) = self.agents.get_mut(&name) {
                agent.restart = false;
            }
            self.live(now, &name, life.clone(), effects);
        }
        for bot in self.setup.bots.keys() {
            effects.push(Effect::Unhear(bot.clone()));
        }
    }

    /// Once every worker is at rest the supervisor leaves.
    pub(super) fn end_if_done(&mut self, effects: &mut Vec<Effect>) {
        let resting = |agent: &Agent| matches!(agent.life.state(), State::Down | State::Failed);
        if self.going == Going::Ending && self.agents.values().all(resting) {
            self.going = Going::Gone;
            for (caller, waits) in std::mem::take(&mut self.callers) {
                if matches!(waits, Caller::Shutdown) {
                    effects.push(Effect::Reply(caller, Reply::Done));
                }
            }
            effects.push(Effect::Exit);
        }
    }

    pub(super) fn note_states(&mut self, now: Now) {
        let running = super::report::running(&self.turns);
        for (name, agent) in &mut self.agents {
            let word = agent.life.word(running.contains_key(name)).as_str();
            if agent.since.1 != word {
                agent.since = (now.wall, word);
            }
        }
    }
}

impl Agent {
    pub(super) fn new(now: Now, wanted_up: bool, last: Incarnation) -> Self {
        Self {
            life: Lifecycle::new(wanted_up, last),
            lanes: BTreeMap::new(),
            streak: super::streak::Streak::default(),
            isolation: Isolation::Untried,
            heard_at: now.tick,
            since: (now.wall, ""),
            exit: String::new(),
            killed: false,
            restart: false,
            removed: false,
        }
    }
}
