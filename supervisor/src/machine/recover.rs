//! The beginning: what the ledger remembers becomes what the machine knows.
//!
//! Turns that ran when the last supervisor ended are still running as far as anybody knows: their workers are looked
//! for first, and tell.

use super::lifecycle::Event as Life;
use super::nouns::{Memory, Now, OldAttempt, OpenPost, OpenTurn, PostKind, PostState, Record, Stranded, UpdateEnd};
use super::outbox::Outbox;
use super::setup::{Agent as Policy, Setup};
use super::told::{counts, told_detail};
use super::turns::longest;
use super::words::Effect;
use super::{Agent, Bot, Going, Machine, Stage, Thread, Try, Turn};
use protocol::stable::Finished;
use protocol::{FailureClass, Incarnation, Outcome};
use std::collections::BTreeMap;

impl Machine {
    /// The machine of a supervisor that starts, and the first effects.
    pub fn recover(now: Now, setup: Setup, memory: Memory, seed: u64) -> (Self, Vec<Effect>) {
        let mut machine = Self {
            last: memory.last,
            began: now,
            agents: super::Watched::default(),
            turns: super::Watched::default(),
            attempts: BTreeMap::new(),
            threads: BTreeMap::new(),
            admission: super::Admission::default(),
            overview: super::Overview::default(),
            outbox: Outbox::after(memory.last.post),
            bots: BTreeMap::new(),
            callers: BTreeMap::new(),
            guests: super::guests::Guests::default(),
            going: Going::Staying,
            ledger_stuck: None,
            held: Vec::new(),
            next_hung_at: 0,
            random: seed,
            setup,
        };
        let mut effects = Vec::new();
        for (conversation, thread) in memory.threads {
            machine.threads.insert(conversation, Thread { id: Some(thread), generation: 0 });
        }
        for (bot, offset) in memory.offsets {
            machine.bots.insert(bot, Bot { offset, ..Bot::default() });
        }
        for (bot, external) in memory.seen {
            machine.bots.entry(bot).or_default().seen.insert(external);
        }
        machine.remember_agents(now, &memory.down);
        for (name, record) in memory.workers {
            if let Some(agent) = machine.agents.get_mut(&name) {
                agent.known = Some(record);
            }
        }
        for (name, class, text, at) in memory.endings.into_iter().rev() {
            if let Some(agent) = machine.agents.get_mut(&name) {
                match class {
                    // Told before: recovering must not tell again.
                    Some(class) if counts(class) => {
                        let _told = agent.streak.failed(class, &told_detail(class, &text), None, at, u32::MAX);
                    }
                    Some(_) => {}
                    None => {
                        let _ended = agent.streak.completed();
                    }
                }
            }
        }
        for open in memory.turns {
            machine.remember_turn(now, open, &mut effects);
        }
        machine.remember_posts(now, memory.posts, &mut effects);
        machine.tell_stranded(now, memory.stranded, &mut effects);
        machine.look_for_workers(now, &mut effects);
        let bots: Vec<String> = machine.setup.bots.keys().cloned().collect();
        for name in bots {
            let offset = machine.bots.entry(name.clone()).or_default().offset;
            effects.push(Effect::Hear(name, offset));
        }
        machine.settle(now, &mut effects);
        (machine, effects)
    }

    fn remember_agents(&mut self, now: Now, down: &[protocol::AgentName]) {
        let last = Incarnation(self.last.incarnation);
        for name in self.setup.agents.keys() {
            let up = !down.contains(name);
            self.agents.insert(name.clone(), Agent::new(now, up, last));
        }
    }

    fn remember_turn(&mut self, now: Now, open: OpenTurn, effects: &mut Vec<Effect>) {
        let id = open.turn.id;
        let conversation = open.turn.conversation.clone();
        let mut turn = Turn::new(open.turn, now.tick);
        turn.remember_tries(&open.attempts, self.setup.agents.get(&conversation.agent));
        if let Some(old) = open.attempts.last().filter(|old| old.outcome.is_none()) {
            turn.stage = Stage::Running { attempt: old.attempt.id, incarnation: old.attempt.incarnation, thread: None };
            // When it began on this clock is not known: it gets the whole time again.
            let policy = self.setup.agents.get(&conversation.agent);
            turn.until = policy.map_or(now.tick, |policy| now.tick.saturating_add(longest(policy)));
            self.attempts.insert(old.attempt.id, id);
            // Somebody wanted a fresh conversation meanwhile: the old thread must not come back with the answer.
            let current = self.threads.entry(conversation.clone()).or_default();
            if old.attempt.thread.is_some() && old.attempt.thread != current.id {
                current.generation += 1;
            }
        }
        self.turns.insert(id, turn);
        if let Some(agent) = self.agents.get_mut(&conversation.agent) {
            agent.lanes.entry(conversation.name).or_default().push_back(id);
            return;
        }
        let why = "its agent is no longer configured";
        let running = self.turns.get(&id).map(|turn| turn.stage.clone());
        if let Some(Stage::Running { attempt, .. }) = running {
            let mut end = Finished::new(attempt, id, Outcome::Failed(FailureClass::WorkerLost));
            end.detail = why.into();
            self.lost(now, end, effects);
        } else {
            self.fail_waiting(now, id, FailureClass::WorkerLost, why, effects);
        }
    }

    fn remember_posts(&mut self, now: Now, mut posts: Vec<OpenPost>, effects: &mut Vec<Effect>) {
        posts.retain(|open| {
            let stale = open.post.kind == PostKind::Status
                && open.message.is_none()
                && open.post.turn.is_none_or(|id| !self.turns.contains_key(&id));
            if stale {
                let dead = PostState::Dead("its turn is over".into());
                effects.push(Effect::Record(Record::PostState(open.post.id, dead, now.wall)));
            }
            !stale
        });
        for open in &mut posts {
            let status = open.post.kind == PostKind::Status;
            if let Some(turn) = open.post.turn.and_then(|id| self.turns.get_mut(&id)).filter(|_| status) {
                turn.status.message = open.message;
                turn.status.post = open.message.is_none().then_some(open.post.id);
            }
        }
        self.outbox.recover(now, posts, effects);
    }

    /// Commands that were taken and not carried out when the last supervisor ended.
    fn tell_stranded(&mut self, now: Now, stranded: Vec<Stranded>, effects: &mut Vec<Effect>) {
        for Stranded { update, from } in stranded {
            let why = "cofferdam was restarted before it was carried out; send it again";
            Self::end_update(now, update, UpdateEnd::Refused(why.into()), effects);
            if let Some(from) = from {
                self.notice(now, &from, &format!("Not done: {why}."), effects);
            }
        }
    }

    fn look_for_workers(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let names: Vec<protocol::AgentName> = self.agents.keys().cloned().collect();
        for name in names {
            let Some(agent) = self.agents.get_mut(&name) else { continue };
            let up = agent.life.wanted_up();
            for act in agent.life.adopt(now.tick) {
                self.act(now, &name, act, effects);
            }
            if !up {
                let grace = self.setup.agents.get(&name).map_or(0, |policy| policy.stop_grace_ms);
                self.live(now, &name, Life::Stop(Some(grace)), effects);
            }
        }
    }
}

impl Turn {
    /// Takes up the tries where they stood: with the last one's end, what was to follow it was decided and not written.
    fn remember_tries(&mut self, attempts: &[OldAttempt], policy: Option<&Policy>) {
        self.tries = attempts
            .iter()
            .map(|old| Try {
                attempt: old.attempt.id,
                route: old.attempt.route.clone(),
                thread: old.attempt.thread.clone(),
                outcome: old.outcome,
                begun: old.started,
            })
            .collect();
        let (Some(policy), Some(last)) = (policy, self.tries.last()) else { return };
        self.route = policy.routes.iter().position(|route| *route == last.route).unwrap_or(0);
        let shut = |t: &&Try| t.outcome == Some(Outcome::Failed(FailureClass::Shutdown));
        let same = self.tries.iter().rev().take_while(|t| t.route == last.route).filter(|t| !shut(t)).count();
        self.route_tries = u8::try_from(same.saturating_sub(1)).unwrap_or(u8::MAX);
        if let Some(Outcome::Failed(class)) = last.outcome {
            // Nothing left to try, by a configuration that is another one: the same once more.
            let _pause = self.go_on(class, policy.routes.len());
        }
    }
}
