//! What the command line asks, as far as memory can answer it.

use super::lifecycle::Event as Life;
use super::nouns::{CallerId, Conversation, Now, Source};
use super::turns::Wish;
use super::words::{Asker, Effect, Look};
use super::{Caller, Machine, Stage};
use protocol::control::{QueueRow, Refused, RefusedKind, Reply, Request, Send, SendEvent};
use protocol::{AgentName, ToWorker, TurnId};

/// Longest name of a conversation that a person may give, in bytes.
const CONVERSATION_BYTES_MAX: usize = 128;

impl Machine {
    pub(super) fn asked(&mut self, now: Now, caller: CallerId, request: Request, effects: &mut Vec<Effect>) {
        match request {
            Request::Health => {
                effects.push(Effect::Reply(caller, Reply::Health(self.health(now))));
                effects.push(Effect::Reply(caller, Reply::Done));
            }
            // The daemon asks the kernel for each worker's memory first, and ends the answer itself.
            Request::Ps => effects.push(Effect::Reply(caller, Reply::Ps(self.rows()))),
            Request::Send(send) => self.send(now, caller, &send, effects),
            Request::Turns(turns) => effects.push(Effect::Look(caller, Look::Turns(turns))),
            Request::Turn(id) => effects.push(Effect::Look(caller, Look::Turn(id))),
            Request::Queue(name) => self.queue(caller, &name, effects),
            Request::Agents(verb, names) => self.verb(now, caller, verb, names, effects),
            Request::Interrupt(name, conversation) => {
                self.interrupt(now, caller, &name, conversation.as_deref(), effects);
            }
            Request::Retry(id) => effects.push(Effect::Recall(Asker::Caller(caller, id))),
            Request::Reload => effects.push(Effect::Reload(Some(caller))),
            Request::Upgrade(_) if self.going != super::Going::Staying => {
                refuse(
                    caller,
                    RefusedKind::Later,
                    "cofferdam is shutting down: nothing takes its place".into(),
                    effects,
                );
            }
            Request::Upgrade(program) => effects.push(Effect::Upgrade(caller, program)),
            Request::Shutdown { now: at_once } => {
                self.callers.insert(caller, Caller::Shutdown);
                let running = self.turns.values().filter(|t| matches!(t.stage, Stage::Running { .. })).count();
                let note = if at_once {
                    format!("ending everything; {running} running turns are stopped")
                } else {
                    format!("ending everything after {running} running turns; --now does not wait for them")
                };
                effects.push(Effect::Reply(caller, Reply::Note(note)));
                self.end_all(now, &Life::Stop(at_once.then_some(0)), effects);
            }
            Request::Guests(guests) => self.host(now, caller, guests, effects),
            Request::Ping(name) => self.ping(caller, name, effects),
        }
    }

    pub(super) fn caller_gone(&mut self, now: Now, caller: CallerId, effects: &mut Vec<Effect>) {
        self.part(now, Some(caller), effects);
        if let Some(Caller::Turn(id)) = self.callers.remove(&caller)
            && let Some(turn) = self.turns.get_mut(&id)
        {
            turn.callers.remove(&caller);
        }
    }

    fn send(&mut self, now: Now, caller: CallerId, send: &Send, effects: &mut Vec<Effect>) {
        let name = send.conversation.trim();
        if name.is_empty() || name.len() > CONVERSATION_BYTES_MAX || name.chars().any(char::is_control) {
            let why = format!("a conversation's name is 1 to {CONVERSATION_BYTES_MAX} printable characters");
            return refuse(caller, RefusedKind::Failed, why, effects);
        }
        let conversation = Conversation { agent: send.agent.clone(), name: format!("console:{name}") };
        let prompt = send.text.head().to_owned();
        let wish = Wish { conversation, source: Source::Console, update: None, prompt, retry_of: None };
        match self.accept(now, wish, effects) {
            Ok((turn, before)) => {
                effects.push(Effect::Reply(caller, Reply::Event(SendEvent::Accepted { turn })));
                if before > 0 {
                    let event = SendEvent::Queued { turn, position: before };
                    effects.push(Effect::Reply(caller, Reply::Event(event)));
                }
                if send.wait {
                    self.callers.insert(caller, Caller::Turn(turn));
                    if let Some(turn) = self.turns.get_mut(&turn) {
                        turn.callers.insert(caller);
                    }
                } else {
                    effects.push(Effect::Reply(caller, Reply::Done));
                }
            }
            Err(why) => {
                let known = self.agents.get(&send.agent).is_some_and(|agent| !agent.removed);
                refuse(caller, if known { RefusedKind::Later } else { RefusedKind::Failed }, why, effects);
            }
        }
    }

    /// A worker that is up answers a ping from its loop; nothing else comes of it.
    fn ping(&mut self, caller: CallerId, name: AgentName, effects: &mut Vec<Effect>) {
        if !self.agents.get(&name).is_some_and(|agent| agent.life.is_up()) {
            return refuse(
                caller,
                RefusedKind::Later,
                format!("agent {name} has no worker that could answer"),
                effects,
            );
        }
        self.callers.insert(caller, Caller::Ping(name.clone()));
        effects.push(Effect::Tell(name, ToWorker::Ping(caller.0)));
    }

    pub(super) fn ponged(&mut self, name: &AgentName, nonce: u64, effects: &mut Vec<Effect>) {
        let caller = CallerId(nonce);
        if matches!(self.callers.get(&caller), Some(Caller::Ping(pinged)) if pinged == name) {
            self.callers.remove(&caller);
            effects.push(Effect::Reply(caller, Reply::Done));
        }
    }

    /// The session with a worker is lost: it answers no ping any more.
    pub(super) fn unanswered(&mut self, name: &AgentName, effects: &mut Vec<Effect>) {
        let waits = |(_, waits): &(&CallerId, &Caller)| matches!(waits, Caller::Ping(pinged) if pinged == name);
        let waiting: Vec<CallerId> = self.callers.iter().filter(waits).map(|(caller, _)| *caller).collect();
        for caller in waiting {
            self.callers.remove(&caller);
            refuse(caller, RefusedKind::Later, format!("the worker of {name} was lost before it answered"), effects);
        }
    }

    fn queue(&self, caller: CallerId, name: &AgentName, effects: &mut Vec<Effect>) {
        let Some(agent) = self.agents.get(name) else {
            let why = format!("there is no agent {name}; `cofferdam ps` lists them");
            return refuse(caller, RefusedKind::Failed, why, effects);
        };
        let mut rows = Vec::new();
        for (conversation, lane) in &agent.lanes {
            for (place, id) in lane.iter().enumerate() {
                let Some(turn) = self.turns.get(id) else { continue };
                let place = match turn.stage {
                    Stage::Running { .. } => "running".to_owned(),
                    Stage::Pausing { .. } => "pausing".to_owned(),
                    Stage::Queued | Stage::Offered => place.to_string(),
                };
                rows.push(QueueRow {
                    turn: *id,
                    conversation: conversation.clone(),
                    place,
                    accepted_at: turn.new.at,
                    prompt: first_line(&turn.new.prompt),
                    phase: turn.doing.as_ref().filter(|_| turn.runs()).map(|d| d.phase.with(&d.detail)),
                    phase_since: turn.doing.as_ref().filter(|_| turn.runs()).map(super::Doing::since),
                });
            }
        }
        effects.push(Effect::Reply(caller, Reply::Queue(rows)));
        effects.push(Effect::Reply(caller, Reply::Done));
    }

    fn interrupt(
        &mut self,
        now: Now,
        caller: CallerId,
        name: &AgentName,
        conversation: Option<&str>,
        effects: &mut Vec<Effect>,
    ) {
        if !self.agents.contains_key(name) {
            let why = format!("there is no agent {name}; `cofferdam ps` lists them");
            return refuse(caller, RefusedKind::Failed, why, effects);
        }
        // A console conversation may be named as the person named it.
        let fits =
            |have: &str| conversation.is_none_or(|want| have == want || have.strip_prefix("console:") == Some(want));
        let ids: Vec<TurnId> = self
            .turns_of(name)
            .filter(|turn| fits(&turn.new.conversation.name))
            .filter(|turn| matches!(turn.stage, Stage::Running { .. } | Stage::Pausing { .. }))
            .map(|turn| turn.new.id)
            .collect();
        for id in &ids {
            self.stop_turn(now, *id, "the operator", effects);
        }
        let note = match ids.len() {
            0 => format!("{name}: nothing runs"),
            n => format!("{name}: stopping {n} turn(s)"),
        };
        effects.push(Effect::Reply(caller, Reply::Note(note)));
        effects.push(Effect::Reply(caller, Reply::Done));
    }
}

pub(super) fn first_line(text: &str) -> String {
    protocol::text::clip(text.trim().lines().next().unwrap_or(""), 120).to_owned()
}

pub(super) fn refuse(caller: CallerId, kind: RefusedKind, why: String, effects: &mut Vec<Effect>) {
    effects.push(Effect::Reply(caller, Reply::Refused(Refused { kind, why })));
}
