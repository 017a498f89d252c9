//! The beginning: what the ledger remembers becomes what the machine knows.
//!
//! Turns that ran when the last supervisor ended are still running as far as anybody knows: their workers are looked
//! for first, and tell.

use super::nouns::{Memory, Now, OpenTurn, PostKind};
use super::outbox::Outbox;
use super::setup::Setup;
use super::words::Effect;
use super::{Agent, Bot, Going, Machine, Stage, Thread, Try, Turn};
use protocol::{FailureClass, Incarnation};
use std::collections::BTreeMap;

impl Machine {
    /// The machine of a supervisor that starts, and the first effects.
    pub fn recover(now: Now, setup: Setup, memory: Memory, seed: u64) -> (Self, Vec<Effect>) {
        let mut machine = Self {
            last: memory.last,
            began: now,
            agents: BTreeMap::new(),
            turns: BTreeMap::new(),
            attempts: BTreeMap::new(),
            threads: BTreeMap::new(),
            admission: super::Admission::default(),
            outbox: Outbox::default(),
            bots: BTreeMap::new(),
            callers: BTreeMap::new(),
            going: Going::Staying,
            ledger_stuck: None,
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
        for (name, class, text, at) in memory.endings.into_iter().rev() {
            if let Some(agent) = machine.agents.get_mut(&name) {
                match class {
                    // Told before: recovering must not tell again.
                    Some(class) => drop(agent.streak.failed(class, &text, at, u32::MAX)),
                    None => drop(agent.streak.completed()),
                }
            }
        }
        for open in memory.turns {
            machine.remember_turn(now, open, &mut effects);
        }
        machine.remember_posts(now, memory.last.post, memory.posts);
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
        turn.tries = open
            .attempts
            .iter()
            .map(|old| Try { attempt: old.attempt.id, route: old.attempt.route.clone(), outcome: old.outcome })
            .collect();
        if let Some(old) = open.attempts.last().filter(|old| old.outcome.is_none()) {
            turn.stage = Stage::Running { attempt: old.attempt.id, incarnation: old.attempt.incarnation, thread: None };
            self.attempts.insert(old.attempt.id, id);
        }
        if let Some(policy) = self.setup.agents.get(&conversation.agent)
            && let Some(last) = turn.tries.last()
        {
            turn.route = policy.routes.iter().position(|route| *route == last.route).unwrap_or(0);
            // The attempt that was open is no retry that was used up: its end decides whether there is one.
            let ended = turn.tries.iter().filter(|old| old.route == last.route && old.outcome.is_some()).count();
            turn.route_tries = u8::try_from(ended).unwrap_or(u8::MAX);
        }
        self.turns.insert(id, turn);
        if let Some(agent) = self.agents.get_mut(&conversation.agent) {
            agent.lanes.entry(conversation.name).or_default().push_back(id);
            return;
        }
        let why = "its agent is no longer configured";
        let running = self.turns.get(&id).map(|turn| turn.stage.clone());
        if let Some(Stage::Running { attempt, .. }) = running {
            self.lost(now, attempt, FailureClass::WorkerLost, why.into(), effects);
        } else {
            self.fail_waiting(now, id, FailureClass::WorkerLost, why, effects);
        }
    }

    fn remember_posts(&mut self, now: Now, last: u64, mut posts: Vec<super::nouns::OpenPost>) {
        for open in &mut posts {
            let status = open.post.kind == PostKind::Status;
            if let Some(turn) = open.post.turn.and_then(|id| self.turns.get_mut(&id)).filter(|_| status) {
                turn.status.message = open.message;
                turn.status.post = open.message.is_none().then_some(open.post.id);
            }
            // It was due: the last supervisor may have sent it and not lived to write that down.
            let was_due = open.not_before <= now.wall;
            open.post.maybe_repeated |= was_due && open.message.is_none();
        }
        self.outbox.recover(now, last, posts);
    }

    fn look_for_workers(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let names: Vec<protocol::AgentName> = self.agents.keys().cloned().collect();
        for name in names {
            let Some(agent) = self.agents.get_mut(&name) else { continue };
            for act in agent.life.adopt(now.tick) {
                self.act(now, &name, act, effects);
            }
        }
    }
}
