//! Turns from their acceptance to the moment when a worker has them.

use super::admission::{Demand, Limits};
use super::nouns::{Conversation, NewAttempt, NewTurn, Now, Record, Source, UpdateId};
use super::setup::Agent as Policy;
use super::words::{Effect, PROMPT_BYTES_MAX};
use super::{Going, Machine, Stage, Try, Turn};
use protocol::from_worker::Started;
use protocol::to_worker::{Begin, Interrupt, InterruptReason};
use protocol::{AgentName, AttemptId, Incarnation, Runtime, Text, ToWorker, TurnId};
use std::collections::{BTreeSet, VecDeque};

/// Longest wait of a turn in its lane: after a day nobody waits for the answer any more. Milliseconds.
const QUEUED_MAX_MS: u64 = 24 * 60 * 60 * 1_000;
/// From the wish to stop a turn to the end of a worker that does not react. Milliseconds.
const STOP_WITHIN_MS: u64 = 20_000;
/// What a worker gets beyond `turn_timeout` to end a turn by itself: its interrupt, the ladder with its graces, the
/// proof, and its own start. Milliseconds.
const TURN_SLACK_MS: u64 = 60_000;
/// Graces in the longest ladder of a worker, rounded up.
const TURN_SLACK_GRACES: u64 = 8;

/// A turn that somebody wants.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) conversation: Conversation,
    pub(super) source: Source,
    pub(super) update: Option<UpdateId>,
    pub(super) prompt: String,
    pub(super) retry_of: Option<TurnId>,
}

impl Machine {
    /// Accepts a turn or says why not. The number that is returned is how many are before it in its lane.
    pub(super) fn accept(&mut self, now: Now, wish: Wish, effects: &mut Vec<Effect>) -> Result<(TurnId, u32), String> {
        self.may_accept(&wish)?;
        self.last.turn += 1;
        let id = TurnId(self.last.turn);
        let lane_name = wish.conversation.name.clone();
        let agent_name = wish.conversation.agent.clone();
        let new = NewTurn {
            id,
            conversation: wish.conversation,
            source: wish.source,
            update: wish.update,
            prompt: wish.prompt,
            retry_of: wish.retry_of,
            at: now.wall,
        };
        effects.push(Effect::Record(Record::Turn(new.clone())));
        self.turns.insert(id, Turn::new(new, now.tick));
        let agent = self.agents.get_mut(&agent_name).ok_or_else(|| unknown(&agent_name))?;
        let lane = agent.lanes.entry(lane_name).or_default();
        let before = u32::try_from(lane.len()).unwrap_or(u32::MAX);
        lane.push_back(id);
        if before > 0 {
            self.during_a_turn(now, &agent_name, id, effects);
        }
        Ok((id, before))
    }

    fn may_accept(&self, wish: &Wish) -> Result<(), String> {
        let name = &wish.conversation.agent;
        if self.going != Going::Staying {
            return Err("cofferdam is shutting down; send it again after the next start".into());
        }
        if let Some(why) = &self.ledger_stuck {
            return Err(format!("messages cannot be stored at this time: {why}"));
        }
        let (Some(agent), Some(policy)) = (self.agents.get(name), self.setup.agents.get(name)) else {
            return Err(unknown(name));
        };
        if agent.removed {
            return Err(unknown(name));
        }
        if matches!(agent.life.state(), super::lifecycle::State::Failed) {
            return Err(format!("agent {name} has failed ({}); `cofferdam start {name}` tries again", agent.exit));
        }
        if !agent.life.wanted_up() && !agent.restart {
            return Err(format!("agent {name} is stopped; `cofferdam start {name}` starts it"));
        }
        if wish.prompt.trim().is_empty() {
            return Err("the message is empty".into());
        }
        if wish.prompt.len() > PROMPT_BYTES_MAX {
            return Err(format!(
                "the message is larger than {} MiB; put it into a file of the workspace",
                PROMPT_BYTES_MAX / 1024 / 1024
            ));
        }
        let waiting = self.waiting_of(name);
        if waiting >= policy.queue_max {
            return Err(format!("queue full: {waiting} waiting"));
        }
        Ok(())
    }

    /// The turns of an agent, lane by lane: each stands in one.
    pub(super) fn turns_of(&self, agent: &AgentName) -> impl Iterator<Item = &Turn> {
        let lanes = self.agents.get(agent).into_iter().flat_map(|agent| agent.lanes.values());
        lanes.flatten().filter_map(|id| self.turns.get(id))
    }

    /// The same, by number.
    pub(super) fn ids_of(&self, agent: &AgentName) -> Vec<TurnId> {
        let mut ids: Vec<TurnId> = self.turns_of(agent).map(|turn| turn.new.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Turns of an agent that wait.
    pub(super) fn waiting_of(&self, agent: &AgentName) -> u32 {
        u32::try_from(self.turns_of(agent).filter(|turn| !turn.runs()).count()).unwrap_or(u32::MAX)
    }

    /// Turns of an agent that run.
    pub(super) fn running_of(&self, agent: &AgentName) -> u32 {
        u32::try_from(self.turns_of(agent).filter(|turn| turn.runs()).count()).unwrap_or(u32::MAX)
    }

    /// Sends what may be sent.
    pub(super) fn admit(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.admission.expire(now.tick);
        if self.going != Going::Staying {
            return;
        }
        let limits = Limits { extra_max: self.setup.max_turns, starts_max: self.setup.starts_max };
        for name in self.changed() {
            let demand = self.demand(&name);
            self.admission.set(now.tick, &name, demand);
        }
        while let Some(name) = self.admission.next(now.tick, limits) {
            let Some(id) = self.next_of(&name) else { continue };
            self.collect(now, &name, id, effects);
            self.begin(now, id, effects);
        }
    }

    /// What an agent has and wants. One whose worker takes no turns wants nothing, but what it runs takes its places.
    pub(super) fn demand(&self, name: &AgentName) -> Demand {
        let (Some(agent), Some(policy)) = (self.agents.get(name), self.setup.agents.get(name)) else {
            return Demand { running: self.running_of(name), ..Demand::default() };
        };
        if !agent.life.is_up() || agent.lanes.is_empty() {
            return Demand { running: self.running_of(name), ..Demand::default() };
        }
        let ready = agent.lanes.values().filter(|lane| self.is_ready(lane)).count();
        let next = self.next_of(name).and_then(|id| self.turns.get(&id));
        let served = next.and_then(|turn| policy.routes.get(turn.route).or_else(|| policy.routes.first()));
        Demand {
            running: self.running_of(name),
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            running_max: policy.max_turns,
            warm: agent.warm && served.is_some_and(|route| route.runtime == Runtime::Codex),
        }
    }

    fn is_ready(&self, lane: &VecDeque<TurnId>) -> bool {
        lane.front().and_then(|id| self.turns.get(id)).is_some_and(|turn| turn.stage == Stage::Queued)
    }

    /// The oldest ready turn of an agent.
    fn next_of(&self, name: &AgentName) -> Option<TurnId> {
        let lanes = self.agents.get(name)?.lanes.values();
        lanes.filter(|lane| self.is_ready(lane)).filter_map(|lane| lane.front()).min().copied()
    }

    fn begin(&mut self, now: Now, id: TurnId, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&id) else { return };
        let name = turn.new.conversation.agent.clone();
        let Some(incarnation) =
            self.agents.get(&name).and_then(|a| a.life.process()).map(|process| process.incarnation)
        else {
            return;
        };
        let Some(policy) = self.setup.agents.get(&name) else { return };
        let Some(route) = policy.routes.get(turn.route).or_else(|| policy.routes.first()).cloned() else { return };
        let current = self.threads.entry(turn.new.conversation.clone()).or_default();
        turn.generation = current.generation;
        self.last.attempt += 1;
        let attempt = AttemptId(self.last.attempt);
        let thread = current.id.clone();
        turn.stage = Stage::Running { attempt, incarnation, thread: None };
        turn.until = now.tick.saturating_add(longest(policy));
        turn.doing = None;
        turn.tries.push(Try { attempt, route: route.clone(), thread: thread.clone(), outcome: None, begun: false });
        self.attempts.insert(attempt, id);
        let new = NewAttempt { id: attempt, turn: id, incarnation, route, thread, at: now.wall };
        effects.push(Effect::Record(Record::Attempt(new)));
        self.send_begin(id, effects);
    }

    /// Says the latest try of a turn: the same words each time, whatever has become of its conversation since.
    fn send_begin(&self, id: TurnId, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get(&id) else { return };
        let Some(Try { attempt, route, thread, begun, .. }) = turn.tries.last().cloned() else { return };
        let prompt = Text::Inline(turn.new.prompt.clone());
        let begin = Begin { attempt, turn: id, thread, prompt, route, begun };
        effects.push(Effect::Tell(turn.new.conversation.agent.clone(), ToWorker::Begin(Box::new(begin))));
    }

    /// A worker told all that it has: an attempt that is not among it was never begun, and is sent again. What was said
    /// about the others may have been lost with the session before.
    pub(super) fn send_again(
        &mut self,
        now: Now,
        name: &AgentName,
        incarnation: Incarnation,
        running: &[AttemptId],
        effects: &mut Vec<Effect>,
    ) {
        let mut again = Vec::new();
        let longest = self.setup.agents.get(name).map_or(0, longest);
        for id in self.ids_of(name) {
            let Some(turn) = self.turns.get_mut(&id) else { continue };
            if let Stage::Running { attempt, incarnation: sent_to, .. } = &mut turn.stage {
                *sent_to = incarnation;
                let attempt = *attempt;
                if !running.contains(&attempt) {
                    turn.until = turn.until.max(now.tick.saturating_add(longest));
                }
                if let Some((_, by)) = &mut turn.stopping {
                    *by = now.tick + STOP_WITHIN_MS;
                }
                again.push((turn.new.id, attempt, turn.stopping.is_some()));
            }
        }
        for (id, attempt, stop) in again {
            if !running.contains(&attempt) {
                self.send_begin(id, effects);
            }
            if stop {
                let interrupt = Interrupt { attempt, reason: InterruptReason::Asked };
                effects.push(Effect::Tell(name.clone(), ToWorker::Interrupt(interrupt)));
            }
        }
    }

    /// Codex runs an attempt.
    pub(super) fn started(&mut self, now: Now, name: &AgentName, started: Started, effects: &mut Vec<Effect>) {
        self.admission.started(now.tick, name);
        let Some(turn) = self.turn_of(started.attempt, name) else { return };
        let kept = turn.tries.last().is_some_and(|last| last.route.runtime == Runtime::Codex);
        if let Stage::Running { thread, .. } = &mut turn.stage
            && thread.is_none()
        {
            *thread = Some(started.thread.clone());
            if let Some(last) = turn.tries.last_mut() {
                last.begun = true;
            }
            effects.push(Effect::Record(Record::AttemptStarted(started.attempt, started.thread, now.wall)));
        }
        if let Some(agent) = self.agents.get_mut(name).filter(|_| kept) {
            agent.warm = true;
        }
    }

    /// A worker has an attempt in its journal.
    pub(super) fn begun(&mut self, attempt: AttemptId, name: &AgentName) {
        let Some(turn) = self.turn_of(attempt, name) else { return };
        if let Some(last) = turn.tries.last_mut().filter(|last| last.attempt == attempt) {
            last.begun = true;
        }
    }

    /// The open turn that an attempt of this agent is running for.
    pub(super) fn turn_of(&mut self, attempt: AttemptId, name: &AgentName) -> Option<&mut Turn> {
        let id = self.attempts.get(&attempt)?;
        let turn = self.turns.get_mut(id)?;
        let runs = matches!(turn.stage, Stage::Running { attempt: running, .. } if running == attempt);
        (turn.of(name) && runs).then_some(turn)
    }

    /// Stops a turn: what runs is interrupted, what waits is cancelled.
    pub(super) fn stop_turn(&mut self, now: Now, id: TurnId, by: &str, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&id) else { return };
        if let Stage::Running { attempt, .. } = turn.stage {
            if turn.stopping.is_none() {
                turn.stopping = Some((by.to_owned(), now.tick + STOP_WITHIN_MS));
                let name = turn.new.conversation.agent.clone();
                Self::event(now, Some(&name), Some(id), format!("stop wanted by {by}"), effects);
                let interrupt = Interrupt { attempt, reason: InterruptReason::Asked };
                effects.push(Effect::Tell(name, ToWorker::Interrupt(interrupt)));
            }
        } else {
            self.cancel(now, id, format!("cancelled by {by}"), effects);
        }
    }

    /// Turns whose time has come: retries go on, waits that are too long end, a worker that does not stop is given up.
    pub(super) fn turn_deadlines(&mut self, now: Now, name: &AgentName, effects: &mut Vec<Effect>) {
        let mut stuck = None;
        for id in self.ids_of(name) {
            let Some(turn) = self.turns.get_mut(&id).filter(|turn| turn.due() <= now.tick) else {
                continue;
            };
            match turn.stage {
                Stage::Pausing { .. } => turn.stage = Stage::Queued,
                Stage::Queued | Stage::Offered => {
                    self.cancel(now, id, "it waited a whole day without its turn".into(), effects);
                }
                Stage::Running { .. } => {
                    if let Some((_, by)) = turn.stopping.as_mut().filter(|(_, by)| *by <= now.tick) {
                        *by = now.tick + STOP_WITHIN_MS;
                        stuck = Some("it did not stop a turn");
                    }
                    if turn.until <= now.tick {
                        turn.until = now.tick + STOP_WITHIN_MS;
                        stuck = Some("it did not end a turn whose time was over");
                    }
                }
            }
        }
        // One that is being started or sought has not heard of the stop yet.
        let heard = self.agents.get(name).is_some_and(|agent| agent.life.is_heard());
        if let Some(why) = stuck.filter(|_| heard) {
            self.wedged(now, name, why, effects);
        }
    }

    /// See [`Machine::turn_deadlines`].
    pub(super) fn turn_deadline(&self, name: &AgentName) -> Option<u64> {
        self.turns_of(name).map(Turn::due).min()
    }
}

impl Turn {
    /// A turn that waits.
    pub(super) fn new(new: NewTurn, tick: u64) -> Self {
        Self {
            new,
            stage: Stage::Queued,
            tries: Vec::new(),
            route: 0,
            route_tries: 0,
            stopping: None,
            doing: None,
            callers: BTreeSet::new(),
            status: super::status::Status::default(),
            accepted_tick: tick,
            until: u64::MAX,
            generation: 0,
        }
    }

    /// When something happens to it by itself.
    fn due(&self) -> u64 {
        match self.stage {
            Stage::Pausing { until } => until,
            Stage::Queued | Stage::Offered => self.accepted_tick + QUEUED_MAX_MS,
            Stage::Running { .. } => self.stopping.as_ref().map_or(self.until, |(_, by)| self.until.min(*by)),
        }
    }

    /// Whether a worker has it, as far as anybody knows.
    pub(super) const fn runs(&self) -> bool {
        matches!(self.stage, Stage::Running { .. })
    }

    /// Whether it is a turn of this agent.
    pub(super) fn of(&self, agent: &AgentName) -> bool {
        self.new.conversation.agent == *agent
    }
}

/// How long a worker may have a turn: its own limit and all that it takes to enforce it. Milliseconds.
pub(super) fn longest(policy: &Policy) -> u64 {
    let graces = policy.stop_grace_ms.saturating_mul(TURN_SLACK_GRACES);
    policy.turn_ms.saturating_add(graces).saturating_add(TURN_SLACK_MS)
}

fn unknown(name: &AgentName) -> String {
    format!("there is no agent {name}; `cofferdam ps` lists them")
}
