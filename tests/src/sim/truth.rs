//! The reference: what is true of the world whatever the machines believe, and what must hold after every step.
//!
//! The shared ledger asserts the one end of everything; here stands what only somebody knows who sees both sides: what
//! Codex was given and did, what a worker had written when it acted, what the channel got.

use super::codex::Key;
use super::cover;
use super::setup::{CLOCKS, QUEUE_MAX};
use super::world::World;
use protocol::control::{Reply, SendEvent};
use protocol::{AgentName, AttemptId, FromWorker, Outcome, ToWorker, TurnId};
use std::collections::{BTreeMap, BTreeSet};
use supervisor::machine::Machine;
use supervisor::machine::lifecycle::{Lifecycle, State};
use supervisor::machine::nouns::{Record, TurnEnd};
use supervisor::machine::words::{Effect, Input};
use worker::machine::io::ChildSpec;

/// A first turn without a fault takes no longer, in milliseconds: Codex' own 8 s, and our way there and back.
const CALM_TURN_MS: u64 = 12_000;
/// Turns of an agent at once, at most.
const RUNNING_MAX: u32 = 3;

/// What is true.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// The texts that Codex took, by attempt.
    given: BTreeMap<AttemptId, Vec<String>>,
    /// Attempts that Codex worked on.
    begun: BTreeSet<AttemptId>,
    /// What cannot be taken back, by turn.
    deeds: BTreeMap<TurnId, Vec<AttemptId>>,
    accepted: BTreeMap<TurnId, u64>,
}

impl Truth {
    /// Codex takes a text.
    pub(crate) fn gives(&mut self, attempt: AttemptId, text: String) {
        self.given.entry(attempt).or_default().push(text);
    }

    /// Whether Codex was given a text in a try.
    pub(crate) fn was_given(&self, attempt: AttemptId, text: &str) -> bool {
        self.given.get(&attempt).is_some_and(|texts| texts.iter().any(|given| given.contains(text)))
    }
}

/// What stood before an input.
#[derive(Debug)]
pub(crate) struct Before {
    /// The agent that old news are about, and what its worker was.
    old: Option<(AgentName, State)>,
    /// The agent whose worker is judged by its silence.
    judged: Option<AgentName>,
}

impl World {
    /// A batch becomes true.
    pub(crate) fn commit_records(&mut self, records: Vec<Record>) {
        let mut tried = false;
        for record in &records {
            match record {
                Record::Turn(new) => {
                    self.truth.accepted.insert(new.id, self.tick);
                }
                Record::Attempt(new) => {
                    tried = true;
                    let done = self.truth.deeds.get(&new.turn);
                    assert!(done.is_none(), "turn {} did something in {done:?} and is tried as {}", new.turn, new.id);
                }
                Record::TurnEnded(id, end, _, _) => self.check_time(*id, end),
                _ => {}
            }
        }
        self.note("commit", records.len() as u64, || format!("{records:?}"));
        self.ledger.commit(records);
        self.check_queues(tried);
    }

    /// Without a fault on it, a first turn takes its usual time.
    fn check_time(&self, id: TurnId, end: &TurnEnd) {
        // One that is accepted and ended by the same batch is not there yet.
        let Some(turn) = self.ledger.turns.get(&id) else { return };
        if self.calm.as_ref() != Some(&turn.new.conversation.agent) {
            return;
        }
        let took = self.tick - self.truth.accepted.get(&id).copied().unwrap_or(self.tick);
        assert!(took <= CALM_TURN_MS, "turn {id} of an agent without a fault took {took} ms");
        let completed = matches!(end, TurnEnd::Outcome(Outcome::Completed));
        assert!(completed, "turn {id} of an agent without a fault ended {end:?}");
    }

    fn check_queues(&self, tried: bool) {
        let mut running: BTreeMap<&AgentName, u32> = BTreeMap::new();
        let mut waiting: BTreeMap<&AgentName, u32> = BTreeMap::new();
        for turn in self.ledger.turns.values().filter(|turn| turn.end.is_none()) {
            let runs = turn.attempts.last().is_some_and(|last| self.ledger.attempts[last].1.is_none());
            let which = if runs { &mut running } else { &mut waiting };
            *which.entry(&turn.new.conversation.agent).or_default() += 1;
        }
        for (agent, count) in waiting {
            assert!(count <= QUEUE_MAX + RUNNING_MAX, "{count} turns wait at {agent}");
        }
        if tried {
            let further: u32 = running.values().map(|count| count - 1).sum();
            assert!(running.values().all(|count| *count <= RUNNING_MAX), "too many run: {running:?}");
            assert!(further <= self.host.setup.max_turns, "{further} further turns run: {running:?}");
        }
    }

    /// Looks before an input: news of an earlier run must change nothing.
    pub(crate) fn before(&mut self, input: &Input) -> Before {
        let due = self.host.machine.as_ref().and_then(Machine::deadline).is_some_and(|(at, _)| at <= self.tick);
        let old = self.is_old(input);
        if old.is_some() && due {
            self.give(Input::Timeout);
        }
        let Some(machine) = &self.host.machine else { return Before { old: None, judged: None } };
        let state = |agent: &AgentName| machine.life(agent).map(|life| life.state().clone());
        let states: Vec<(&AgentName, State)> = self.places.keys().filter_map(|a| Some((a, state(a)?))).collect();
        let silent = |agent: &AgentName| machine.silent_at(agent).is_some_and(|at| at <= self.tick);
        let late =
            |agent: &AgentName| machine.life(agent).and_then(Lifecycle::deadline).is_some_and(|at| at <= self.tick);
        let strange = |agent: &AgentName, linked: &_| !machine.knows(agent, linked);
        let looks = cover::Looks { late: &late, silent: &silent, strange: &strange };
        let pairs = cover::life_pairs(input, &states, old.is_some(), &looks);
        self.cover.host(input, &pairs);
        let old = old.and_then(|agent| state(&agent).map(|state| (agent.clone(), state)));
        let judged = match input {
            Input::ReadOut(agent, _) if machine.life(agent).is_some_and(Lifecycle::is_heard) => Some(agent.clone()),
            _ => None,
        };
        Before { old, judged }
    }

    fn is_old(&self, input: &Input) -> Option<AgentName> {
        let (agent, incarnation) = match input {
            Input::Spawned(agent, incarnation, _)
            | Input::SpawnFailed(agent, incarnation, _)
            | Input::LinkLost(agent, incarnation, _)
            | Input::Exited(agent, incarnation, _)
            | Input::ReadOut(agent, incarnation) => (agent, *incarnation),
            Input::LinkFailed(agent, incarnation, _) if incarnation.0 != 0 => (agent, *incarnation),
            Input::Said(agent, incarnation, word) if !matches!(word, FromWorker::Finished(_)) => (agent, *incarnation),
            _ => return None,
        };
        let life = self.host.machine.as_ref()?.life(agent)?;
        (!life.is_present(incarnation)).then(|| agent.clone())
    }

    /// Looks after an input.
    pub(crate) fn after(&self, before: &Before, effects: &[Effect]) {
        if let Some(agent) = &before.judged {
            self.check_verdict(agent);
        }
        let Some((agent, old)) = &before.old else { return };
        let state = self.host.machine.as_ref().and_then(|machine| machine.life(agent)).map(Lifecycle::state);
        assert_eq!(state, Some(old), "news of an earlier run of {agent} changed its worker");
        // What a chat is shown of a running turn follows from the time.
        let shown = |effect: &Effect| matches!(effect, Effect::EditStatus { .. } | Effect::Typing(_));
        let told = |effect: &&Effect| !shown(effect) && !matches!(effect, Effect::Record(Record::Event(_)));
        assert_eq!(effects.iter().find(told), None, "news of an earlier run of {agent} had an effect");
    }

    /// Only a worker that was stopped is given up for its silence: whoever runs beats, and what it said is read first.
    fn check_verdict(&self, agent: &AgentName) {
        let state = self.host.machine.as_ref().and_then(|machine| machine.life(agent)).map(Lifecycle::state);
        // Of a ledger that is merely slow nobody tells the machine.
        if !matches!(state, Some(State::Killing { .. })) || self.host.stuck {
            return;
        }
        let Some(process) = self.places[agent].process.as_ref() else { return };
        let stopped = process.stopped || process.went_on_at + CLOCKS.heartbeat_ms >= self.tick;
        assert!(stopped, "the worker of {agent} is given up for its silence, and it runs since {}", process.went_on_at);
    }

    /// Whoever is told how an agent is served is the worker of the record.
    pub(crate) fn check_listener(&self, agent: &AgentName) {
        let Some(seen) = self.host.seen.get(agent).filter(|seen| seen.link.is_some()) else { return };
        let process = self.places[agent].process.as_ref().filter(|process| process.incarnation == seen.incarnation);
        let (Some(process), Some(record)) = (process, self.ledger.workers.get(agent)) else { return };
        let same = (record.incarnation, record.nonce) == (process.incarnation, process.nonce);
        assert!(same, "{agent} is served by {} of another nonce than {record:?}", process.incarnation);
    }

    /// What must hold of the supervisor after every input.
    pub(crate) fn check_host(&self, after: &str) {
        let Some(machine) = &self.host.machine else { return };
        for agent in self.places.keys() {
            let Some(life) = machine.life(agent) else { continue };
            let waits = match life.state() {
                State::Down | State::Failed => false,
                State::Up { .. } => {
                    assert!(machine.silent_at(agent).is_some(), "{agent} may be silent for ever after {after}");
                    false
                }
                _ => true,
            };
            assert!(!waits || life.deadline().is_some(), "{agent} waits without a limit after {after}: {life:?}");
        }
    }

    /// What must hold of a worker after every input.
    pub(crate) fn check_worker(&self, agent: &AgentName) {
        let Some(process) = self.places[agent].process.as_ref().filter(|process| !process.left) else { return };
        let waits = process.machine.running() > 0 && process.machine.deadline().is_none();
        assert!(!waits, "a turn of {agent} waits without a limit: {:?}", process.machine.standings());
    }

    /// An effect rests on its record.
    pub(crate) fn check_effect(&self, effect: &Effect) {
        match effect {
            Effect::Tell(agent, ToWorker::Begin(begin)) => {
                let (new, _) = &self.ledger.attempts.get(&begin.attempt).expect("an attempt is sent and not recorded");
                assert_eq!((new.turn, &new.thread), (begin.turn, &begin.thread), "{agent}");
            }
            Effect::Tell(agent, ToWorker::Ack(attempt)) => {
                let known = self.ledger.attempts.get(attempt).is_some_and(|(_, end)| end.is_some());
                assert!(known, "the outcome of {attempt} of {agent} is acknowledged and not in the ledger");
            }
            Effect::Spawn(agent, incarnation, nonce) => {
                let record = self.ledger.workers.get(agent);
                let intent = record.is_some_and(|r| (r.incarnation, r.nonce) == (*incarnation, *nonce));
                let known = intent && self.ledger.incarnations.contains(&incarnation.0);
                assert!(known, "run {incarnation} of {agent} starts and is not recorded");
            }
            Effect::Deliver(post) => {
                let known = self.ledger.posts.get(&post.id).is_some_and(|known| known.end.is_none());
                assert!(known, "a post is sent and not recorded: {post:?}");
                self.outside.check_post(self.host.life, post);
            }
            Effect::Receipt(receipt) => {
                let update = &self.outside.channel[self.host.receipts[receipt]].0;
                let same = |(new, _): &(supervisor::machine::nouns::NewUpdate, _)| {
                    new.update.bot == update.bot && new.update.external == update.external
                };
                assert!(self.ledger.updates.values().any(same), "{update:?} is confirmed and not recorded");
            }
            Effect::Reply(_, Reply::Event(SendEvent::Accepted { turn })) => {
                assert!(self.ledger.turns.contains_key(turn), "turn {turn} is called accepted and not recorded");
            }
            Effect::Reply(_, Reply::Event(SendEvent::Finished(event))) => {
                let ended = self.ledger.turns.get(&event.turn).is_some_and(|turn| turn.end.is_some());
                assert!(ended, "turn {} is called finished and its end is not recorded", event.turn);
            }
            _ => {}
        }
    }

    /// A Codex is started: its attempt and the word that it gets a prompt are on disk, and its thread has no other writer.
    pub(crate) fn check_start(&self, agent: &AgentName, key: Key, spec: &ChildSpec) {
        if spec.stdin_open {
            return;
        }
        let standings = self.places[agent].process.as_ref().expect("a worker").machine.standings();
        let standing = standings.iter().find(|standing| standing.child == Some(key.1)).expect("a turn of the child");
        self.check_prompt(agent, standing.attempt);
        let Some(thread) = standing.thread.as_deref() else { return };
        let writer = |(other, child): &(&Key, &super::codex::Child)| {
            **other != key && !child.hangs && child.loaded.contains(thread)
        };
        let writer = self.places[agent].children.iter().find(writer).map(|(other, _)| other);
        assert_eq!(writer, None, "thread {thread} of {agent} gets a second writer");
    }

    /// A prompt is given: the journal says so before.
    pub(crate) fn check_prompt(&self, agent: &AgentName, attempt: AttemptId) {
        let reading = self.places[agent].disk.read();
        let prompted = reading.open.get(&attempt).is_some_and(|standing| standing.prompted);
        assert!(prompted, "attempt {attempt} of {agent} gets its prompt and the journal does not say so");
    }

    /// What a worker tells is on its disk.
    pub(crate) fn check_news(&self, agent: &AgentName, news: &FromWorker) {
        let disk = &self.places[agent].disk;
        match news {
            FromWorker::Begun(attempt) => assert!(disk.begun.contains(attempt), "{attempt} is told and not journaled"),
            FromWorker::Finished(end) => {
                let ended = disk.read().open.get(&end.attempt).is_some_and(|standing| standing.ended.is_some());
                assert!(ended, "the end of {} is told and not journaled", end.attempt);
            }
            _ => {}
        }
    }

    /// Codex works on a turn: for the first time in this try, on the whole prompt, and alone in its conversation.
    pub(crate) fn run_begins(&mut self, agent: &AgentName, key: Key, name: &str) {
        let place = &self.places[agent];
        let run = &place.children[&key].runs[name];
        let turn = &self.ledger.turns[&run.turn];
        let lane = &turn.new.conversation;
        assert!(self.ledger.attempts.contains_key(&run.attempt), "attempt {} runs and is not recorded", run.attempt);
        assert!(run.prompt.starts_with(&turn.new.prompt), "turn {} was given {:?}", run.turn, run.prompt);
        for (other, child) in place.children.iter().filter(|(_, child)| !child.hangs) {
            for run in child.runs.values().filter(|other| other.begun && other.attempt != run.attempt) {
                let its = &self.ledger.turns[&run.turn].new.conversation;
                let over = child.runs.len() == 1 && !child.server && run.steps.is_empty();
                assert!(its != lane || over, "two turns of {lane:?} run at once: one on {other:?} is {}", run.turn);
            }
        }
        let (attempt, prompt, thread) = (run.attempt, run.prompt.clone(), run.thread.clone());
        assert!(self.truth.begun.insert(attempt), "attempt {attempt} runs twice");
        self.truth.gives(attempt, prompt);
        let place = self.places.get_mut(agent).expect("a place");
        if let Some(rollout) = place.disk.rollouts.get_mut(&thread) {
            rollout.items.push(String::new());
        }
        if let Some(run) = place.children.get_mut(&key).and_then(|child| child.runs.get_mut(name)) {
            run.begun = true;
        }
    }

    /// A tool runs: from here on nothing may repeat the turn by itself.
    pub(crate) fn deed(&mut self, agent: &AgentName, key: Key, name: &str, command: &str) {
        let place = self.places.get_mut(agent).expect("a place");
        let run = &place.children[&key].runs[name];
        let (turn, attempt) = (run.turn, run.attempt);
        if let Some(rollout) = place.disk.rollouts.get_mut(&run.thread) {
            rollout.items.push(command.to_owned());
        }
        if place.process.as_ref().is_none_or(|process| process.incarnation != key.0) {
            self.cover.fault("a Codex tool runs after its worker");
        }
        self.truth.deeds.entry(turn).or_default().push(attempt);
        let tries = &self.ledger.turns[&turn].attempts;
        assert_eq!(tries.last(), Some(&attempt), "turn {turn} is tried again, and {attempt} still runs tools");
        let end = self.ledger.attempts[&attempt].1.as_ref();
        let safe = end.is_some_and(|end| end.replay_safe && matches!(end.outcome, Outcome::Failed(_)));
        assert!(!safe, "attempt {attempt} was called safe to repeat and runs a tool");
    }
}
