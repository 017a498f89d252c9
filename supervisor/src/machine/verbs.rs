//! What an operator wants of agents and of the whole: start, stop, restart, kill, reload, shutdown.

use super::lifecycle::{Event as Life, Lifecycle};
use super::nouns::{CallerId, Now, Record};
use super::setup::Setup;
use super::words::Effect;
use super::{Agent, Caller, Going, Machine, Stage};
use protocol::control::{Refused, RefusedKind, Reply, Verb};
use protocol::from_worker::Isolation;
use protocol::stable::Finished;
use protocol::{AgentName, FailureClass, Incarnation, Outcome};
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
        if let Err((kind, why)) = self.may_want(verb, &names) {
            effects.push(Effect::Reply(caller, Reply::Refused(Refused { kind, why })));
            return;
        }
        let names: BTreeSet<AgentName> = names.into_iter().collect();
        self.callers.insert(caller, Caller::Agents { verb, pending: names.clone(), failed: None });
        for name in names {
            self.want(now, &name, verb, effects);
        }
    }

    fn may_want(&self, verb: Verb, names: &[AgentName]) -> Result<(), (RefusedKind, String)> {
        if names.is_empty() {
            return Err((RefusedKind::Failed, "no agent is named".into()));
        }
        let up = matches!(verb, Verb::Start | Verb::Restart);
        if up && self.going != Going::Staying {
            return Err((RefusedKind::Later, "cofferdam is shutting down: nothing is started".into()));
        }
        let known = |name: &&AgentName| self.agents.get(name).is_some_and(|agent| !(up && agent.removed));
        let unknown: Vec<&str> = names.iter().filter(|name| !known(name)).map(AgentName::as_str).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let why = format!("there is no agent {}; `cofferdam ps` lists them", unknown.join(", "));
        Err((RefusedKind::Failed, why))
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

    /// An agent is up or at rest: command lines that waited for it go on. Nobody waits for what another has undone.
    pub(super) fn agent_reached(&mut self, name: &AgentName, well: bool, effects: &mut Vec<Effect>) {
        let Some(agent) = self.agents.get(name) else { return };
        let (up, comes) = (agent.life.is_up(), agent.life.wanted_up() || agent.restart);
        self.answer_callers(name, effects, |verb| match (verb, up) {
            (Verb::Start, true) => Some(Ok("started")),
            (Verb::Restart, true) => Some(Ok("restarted")),
            (Verb::Start | Verb::Restart, false) if !well => Some(Err("does not start")),
            (Verb::Start | Verb::Restart, false) if comes => None,
            (Verb::Start | Verb::Restart, false) => Some(Err("was stopped meanwhile")),
            (Verb::Stop, false) => Some(Ok("stopped")),
            (Verb::Kill, false) => Some(Ok("killed, nothing of it is left")),
            (Verb::Stop | Verb::Kill, true) => Some(Err("was started again meanwhile")),
        });
    }

    /// Something of an agent does not end: whoever waits for it is told, instead of waiting with it.
    pub(super) fn stuck(&mut self, name: &AgentName, what: &str, effects: &mut Vec<Effect>) {
        self.answer_callers(name, effects, |_| Some(Err(what)));
    }

    fn answer_callers<'a>(
        &mut self,
        name: &AgentName,
        effects: &mut Vec<Effect>,
        answer: impl Fn(Verb) -> Option<Result<&'a str, &'a str>>,
    ) {
        let mut done = Vec::new();
        for (caller, waits) in &mut self.callers {
            let Caller::Agents { verb, pending, failed } = waits else { continue };
            let Some(answer) = answer(*verb).filter(|_| pending.remove(name)) else { continue };
            let note = match answer {
                Ok(word) => format!("{name}: {word}"),
                Err(why) => {
                    *failed = Some(format!("agent {name} {why}; `cofferdam logs {name}` tells more"));
                    format!("{name}: {why}")
                }
            };
            effects.push(Effect::Reply(*caller, Reply::Note(note)));
            if pending.is_empty() {
                done.push((*caller, failed.take()));
            }
        }
        for (caller, failed) in done {
            self.callers.remove(&caller);
            let refused = |why| Reply::Refused(Refused { kind: RefusedKind::Failed, why });
            effects.push(Effect::Reply(caller, failed.map_or(Reply::Done, refused)));
        }
    }

    /// An agent is down: it is started again if that was the wish, and forgotten if it is no longer configured.
    pub(super) fn rested(&mut self, now: Now, name: &AgentName, effects: &mut Vec<Effect>) {
        let Some(agent) = self.agents.get(name) else { return };
        if agent.removed {
            for id in self.ids_of(name) {
                if let Some(Stage::Running { attempt, .. }) = self.turns.get(&id).map(|t| t.stage.clone()) {
                    let mut end = Finished::new(attempt, id, Outcome::Failed(FailureClass::Shutdown));
                    end.detail = "the agent was removed".into();
                    self.lost(now, end, effects);
                } else {
                    self.fail_waiting(now, id, FailureClass::Shutdown, "the agent was removed", effects);
                }
            }
            self.forget_agent(name, effects);
        } else if agent.restart && self.going == Going::Staying {
            self.live(now, name, Life::Start, effects);
        }
    }

    /// The configuration was read again: only agents and bots whose part of it changed are touched.
    pub(super) fn reloaded(&mut self, now: Now, caller: Option<CallerId>, mut setup: Setup, effects: &mut Vec<Effect>) {
        setup.agents.extend(self.guest_policies());
        let old = std::mem::replace(&mut self.setup, setup);
        self.agents.touch_all();
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
                    if let Some(agent) = self.agents.get_mut(&name) {
                        agent.removed = false;
                    } else {
                        self.agents.insert(name.clone(), Agent::new(now, true, last));
                    }
                    if self.going == Going::Staying {
                        effects.push(Effect::Record(Record::Wanted(name.clone(), true)));
                        self.live(now, &name, Life::Start, effects);
                    }
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
            self.leave_no_guests(effects);
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
        // A guest may be one that never ends what it runs.
        self.part(now, None, effects);
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

    /// Once every worker is at rest the supervisor leaves. It does not wait for what does not end.
    pub(super) fn end_if_done(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.going != Going::Ending || !self.overview.all_rest() {
            return;
        }
        self.going = Going::Gone;
        let left: Vec<&str> = self.agents.iter().filter(|(_, a)| a.stuck).map(|(name, _)| name.as_str()).collect();
        let left = left.join(", ");
        // Its commit keeps these last answers behind all that was said before.
        let what = if left.is_empty() {
            "every worker is at rest; leaving".into()
        } else {
            format!("leaving; {left} does not end")
        };
        Self::event(now, None, None, what, effects);
        for (caller, waits) in std::mem::take(&mut self.callers) {
            let refused = |kind, why| Reply::Refused(Refused { kind, why });
            let last = match waits {
                Caller::Shutdown if left.is_empty() => Reply::Done,
                Caller::Shutdown => {
                    refused(RefusedKind::Failed, format!("processes of {left} do not end and are left"))
                }
                Caller::Turn(id) => {
                    refused(RefusedKind::Later, format!("cofferdam ends; turn {id} waits for its next start"))
                }
                Caller::Agents { .. } | Caller::Guests | Caller::Ping(_) => {
                    refused(RefusedKind::Later, "cofferdam ends".into())
                }
            };
            effects.push(Effect::Reply(caller, last));
        }
        effects.push(Effect::Exit);
    }
}

impl Agent {
    pub(super) fn new(now: Now, wanted_up: bool, last: Incarnation) -> Self {
        Self {
            life: Lifecycle::new(wanted_up, last),
            lanes: BTreeMap::new(),
            streak: super::streak::Streak::default(),
            isolation: Isolation::Untried,
            warm: false,
            alert_from: None,
            bounds: Vec::new(),
            heard_at: now.tick,
            heart: super::heartbeat::Heart::default(),
            since: now.wall,
            exit: String::new(),
            killed: false,
            restart: false,
            stuck: false,
            removed: false,
            known: None,
            outdated: false,
            renewing: false,
            guest: false,
        }
    }
}
