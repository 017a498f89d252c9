//! Workers: what they say and how they end, joined to the turns that they run.

use super::lifecycle::{Act, Event as Life, State, Why};
use super::nouns::Now;
use super::words::{Effect, Input, Swept};
use super::{Doing, Machine, Stage};
use protocol::control::{Reply, SendEvent};
use protocol::from_worker::{Delta, Phase, Progress, Ready};
use protocol::stable::Finished;
use protocol::{AgentName, AttemptId, FailureClass, FromWorker, Incarnation, Outcome, ToWorker, TurnId};
use std::collections::BTreeSet;

/// Between two alerts that one worker may send to its owners, in milliseconds.
const WORKER_ALERT_PAUSE_MS: u64 = 60_000;

/// Limits that a worker may tell of: more than there are keys.
const BOUNDS_MAX: usize = 32;

/// Longest words about an end that are kept, in bytes.
const EXIT_WORDS_MAX: usize = 300;

impl Machine {
    /// An input that is about one worker.
    pub(super) fn of_worker(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Spawned(name, incarnation, identity) => {
                self.born(now, &name, incarnation, identity, effects);
                self.live(now, &name, Life::Spawned(incarnation, identity.pid), effects);
            }
            Input::SpawnFailed(name, incarnation, why) => {
                self.exit_words(&name, incarnation, &format!("its worker cannot be started: {why}"), now);
                self.live(now, &name, Life::SpawnFailed(incarnation), effects);
            }
            Input::Linked(name, linked) => {
                if self.knows(&name, &linked) {
                    self.met(now, &name, &linked, effects);
                    let incarnation = linked.incarnation;
                    self.live(now, &name, Life::Linked(linked), effects);
                    self.hear(&name, incarnation, now);
                    return;
                }
                let what = format!(
                    "process {} answers as its worker {} and is not the one that this ledger started: it is ended",
                    linked.identity.pid, linked.incarnation
                );
                Self::event(now, Some(&name), None, what, effects);
                self.live(now, &name, Life::Impostor(linked.incarnation, linked.pid), effects);
            }
            Input::Found(name, incarnation, pid) => {
                let what = format!("worker {incarnation} (process {pid}) is there and says no good hello");
                Self::event(now, Some(&name), None, what, effects);
                self.live(now, &name, Life::Found(incarnation, pid), effects);
            }
            Input::LinkFailed(name, incarnation, why) => {
                let why = format!("no session with the worker: {why}");
                Self::event(now, Some(&name), None, why.clone(), effects);
                self.given_up(now, &name, incarnation, &why);
                self.live(now, &name, Life::LinkFailed(incarnation), effects);
            }
            Input::LinkLost(name, incarnation, why) => {
                if self.agents.get(&name).is_some_and(|agent| agent.life.is_present(incarnation)) {
                    Self::event(now, Some(&name), None, format!("session lost: {why}"), effects);
                    self.unanswered(&name, effects);
                }
                self.live(now, &name, Life::LinkLost(incarnation), effects);
            }
            Input::Said(name, incarnation, word) => self.said(now, &name, incarnation, word, effects),
            Input::Exited(name, incarnation, words) => {
                self.exit_words(&name, incarnation, &words, now);
                Self::event(now, Some(&name), None, format!("worker {incarnation} ended: {words}"), effects);
                self.live(now, &name, Life::Exited(incarnation), effects);
            }
            Input::Swept(name, incarnation, swept) => self.swept(now, &name, incarnation, &swept, effects),
            Input::ReadOut(name, incarnation) => self.read_out(now, &name, incarnation, effects),
            Input::Update(..)
            | Input::Polling(..)
            | Input::Delivered(..)
            | Input::Flooded(..)
            | Input::Asked(..)
            | Input::CallerGone(_)
            | Input::Hosted(..)
            | Input::Cleared(_)
            | Input::Recalled(..)
            | Input::Reloaded(..)
            | Input::ReloadRefused(..)
            | Input::Leave
            | Input::Lagged(_)
            | Input::ShutDown
            | Input::LedgerStuck(_)
            | Input::LedgerWell
            | Input::Timeout => {}
        }
    }

    fn exit_words(&mut self, name: &AgentName, incarnation: Incarnation, words: &str, now: Now) {
        let Some(agent) = self.agents.get_mut(name).filter(|a| a.life.is_present(incarnation)) else { return };
        if let State::Killing { why: Why::Loss { .. }, .. } = agent.life.state() {
            // Why it was given up says more than the signal that ended it.
            return;
        }
        protocol::text::clip(words, EXIT_WORDS_MAX).clone_into(&mut agent.exit);
        let wanted =
            matches!(agent.life.state(), State::Draining { .. } | State::Stopping { .. } | State::Killing { .. });
        if !wanted {
            agent.streak.worker(&agent.exit.clone(), now.wall);
        }
    }

    /// Keeps why a worker that did not start is about to be killed.
    fn given_up(&mut self, now: Now, name: &AgentName, incarnation: Incarnation, why: &str) {
        let Some(agent) = self.agents.get_mut(name).filter(|a| a.life.is_present(incarnation)) else { return };
        if let State::Starting { .. } = agent.life.state() {
            protocol::text::clip(why, EXIT_WORDS_MAX).clone_into(&mut agent.exit);
            agent.streak.worker(&agent.exit.clone(), now.wall);
        }
    }

    /// Gives an event to a worker's lifecycle and performs what it wants.
    pub(super) fn live(&mut self, now: Now, name: &AgentName, event: Life, effects: &mut Vec<Effect>) {
        let jitter = self.random();
        let fresh = Incarnation(self.last.incarnation + 1);
        let Some(agent) = self.agents.get_mut(name) else { return };
        for act in agent.life.handle(now.tick, event, fresh, jitter) {
            self.act(now, name, act, effects);
        }
    }

    pub(super) fn act(&mut self, now: Now, name: &AgentName, act: Act, effects: &mut Vec<Effect>) {
        let name = name.clone();
        match act {
            Act::Sweep(incarnation) => {
                // Whatever it was about to start has ended with it.
                self.admission.ended(now.tick, &name);
                if let Some(agent) = self.agents.get_mut(&name) {
                    agent.warm = false;
                }
                effects.push(Effect::Sweep(name, incarnation));
            }
            Act::Spawn(incarnation) => {
                self.last.incarnation = self.last.incarnation.max(incarnation.0);
                if let Some(agent) = self.agents.get_mut(&name) {
                    agent.heard_at = now.tick;
                    agent.stuck = false;
                }
                self.intend(now, &name, incarnation, effects);
            }
            Act::Dial(incarnation) => effects.push(Effect::Dial(name, incarnation)),
            Act::Drain => effects.push(Effect::Tell(name, ToWorker::Drain)),
            Act::Terminate(pid) => effects.push(Effect::Terminate(name, pid)),
            Act::Kill(pid) => effects.push(Effect::Kill(name, pid)),
            Act::Up => self.came_up(&name, effects),
            Act::Rest { gave_up } => self.at_rest(now, &name, gave_up, effects),
            Act::Stuck(left) => {
                let what = format!("{left} old process(es) do not end; nothing is started beside them");
                let Some(agent) = self.agents.get_mut(&name) else { return };
                agent.stuck = true;
                agent.streak.worker(&what, now.wall);
                // It is tried again every few seconds: told at the first time, the second, the fourth, and so on.
                if agent.streak.worker_count().is_power_of_two() {
                    Self::event(now, Some(&name), None, what.clone(), effects);
                }
                self.stuck(&name, &what, effects);
            }
        }
    }

    fn said(
        &mut self,
        now: Now,
        name: &AgentName,
        incarnation: Incarnation,
        word: FromWorker,
        effects: &mut Vec<Effect>,
    ) {
        // An outcome counts whoever brings it; all other news only from the present run.
        if let FromWorker::Finished(end) = word {
            self.hear(name, incarnation, now);
            // But what a later run was given is that run's to tell: it has every outcome that was written down, and a
            // refusal that was not is about the earlier try alone.
            let given = self.turn_of(end.attempt, name).map(|turn| &turn.stage);
            if matches!(given, Some(Stage::Running { incarnation: later, .. }) if *later > incarnation) {
                return;
            }
            let taken = self.finished(now, name, &end, effects);
            // Nobody here asked for that: the worker is on its way out.
            if taken && end.outcome == Outcome::Failed(FailureClass::Shutdown) {
                self.live(now, name, Life::Leaving(incarnation), effects);
            }
            return;
        }
        if !self.hear(name, incarnation, now) {
            return;
        }
        match word {
            FromWorker::Ready(ready) => self.ready(now, name, incarnation, &ready, effects),
            FromWorker::Started(started) => {
                if let Some(agent) = self.agents.get_mut(name) {
                    agent.isolation = started.isolation;
                }
                self.started(now, name, started, effects);
            }
            FromWorker::Progress(progress) => self.progress(now, name, &progress, effects),
            FromWorker::Delta(delta) => self.delta(now, name, &delta, effects),
            FromWorker::Steered(s) => self.steered(now, name, &s, effects),
            FromWorker::Note(text) => {
                let text = protocol::text::clip(&text, 2_000).to_owned();
                Self::event(now, Some(name), None, format!("note: {text}"), effects);
            }
            FromWorker::Beat(beat) => {
                if let Some(agent) = self.agents.get_mut(name).filter(|_| beat.children == 0) {
                    agent.warm = false;
                }
            }
            FromWorker::Alert(text) => self.worker_alert(now, name, &text, effects),
            FromWorker::Spare(threads) => self.spare(name, &threads, effects),
            FromWorker::Pong(nonce) => self.ponged(name, nonce, effects),
            FromWorker::Begun(attempt) => self.begun(attempt, name),
            FromWorker::Hello(_) | FromWorker::Finished(_) => {}
        }
    }

    /// Which of these threads no conversation goes on with, and no turn that has no end yet.
    fn spare(&self, name: &AgentName, threads: &[String], effects: &mut Vec<Effect>) {
        let current = self.threads.iter().filter(|(talk, _)| talk.agent == *name);
        let mut kept: BTreeSet<&String> = current.filter_map(|(_, thread)| thread.id.as_ref()).collect();
        for turn in self.turns.values().filter(|turn| turn.new.conversation.agent == *name) {
            kept.extend(turn.tries.iter().filter_map(|tried| tried.thread.as_ref()));
            if let Stage::Running { thread, .. } = &turn.stage {
                kept.extend(thread);
            }
        }
        let free = threads.iter().filter(|thread| !kept.contains(thread)).cloned().collect();
        effects.push(Effect::Tell(name.clone(), ToWorker::Archive(free)));
    }

    /// A worker wants the owners told. One that does nothing else reaches them once a minute; the rest is for the record.
    fn worker_alert(&mut self, now: Now, name: &AgentName, text: &str, effects: &mut Vec<Effect>) {
        let text = protocol::text::clip(text, 1_000);
        let Some(agent) = self.agents.get_mut(name) else { return };
        if agent.alert_from.is_some_and(|from| now.tick < from) {
            return Self::event(now, Some(name), None, format!("note: {text}"), effects);
        }
        agent.alert_from = Some(now.tick + WORKER_ALERT_PAUSE_MS);
        self.alert(now, name, &format!("\u{26a0}\u{fe0f} Agent {name}: {text}"), effects);
    }

    fn ready(
        &mut self,
        now: Now,
        name: &AgentName,
        incarnation: Incarnation,
        ready: &Ready,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(agent) = self.agents.get_mut(name) {
            agent.isolation = ready.isolation;
            agent.bounds = ready.bounds.iter().take(BOUNDS_MAX).copied().collect();
        }
        self.live(now, name, Life::Ready(incarnation), effects);
        // One that drains takes nothing new: what it never got is for the next run.
        if self.agents.get(name).is_some_and(|agent| agent.life.is_up()) {
            self.send_again(now, name, incarnation, &ready.running, effects);
        }
    }

    fn progress(&mut self, now: Now, name: &AgentName, progress: &Progress, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turn_of(progress.attempt, name) else { return };
        let detail = protocol::text::clip(&progress.detail, 200).to_owned();
        turn.doing =
            Some(Doing { phase: progress.phase, detail: detail.clone(), seen: now, before_ms: progress.for_ms });
        let event = SendEvent::Progress { turn: turn.new.id, phase: progress.phase.as_str().to_owned(), detail };
        for caller in &turn.callers {
            effects.push(Effect::Reply(*caller, Reply::Event(event.clone())));
        }
    }

    fn delta(&mut self, now: Now, name: &AgentName, delta: &Delta, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turn_of(delta.attempt, name) else { return };
        if let Some(doing) = &mut turn.doing
            && matches!(doing.phase, Phase::Thinking | Phase::Waiting | Phase::Busy | Phase::Silent)
        {
            *doing = Doing { phase: Phase::Answering, detail: String::new(), seen: now, before_ms: 0 };
        }
        let event = SendEvent::Delta { turn: turn.new.id, text: delta.text.clone() };
        for caller in &turn.callers {
            effects.push(Effect::Reply(*caller, Reply::Event(event.clone())));
        }
    }

    /// A dead worker's tree is gone and its journal read: outcomes in it count; the rest waits for a replacement, or
    /// ends if there will be none.
    fn swept(
        &mut self,
        now: Now,
        name: &AgentName,
        incarnation: Incarnation,
        swept: &Swept,
        effects: &mut Vec<Effect>,
    ) {
        for standing in swept.journal.iter().flat_map(|journal| journal.open.values()) {
            if let Some(end) = &standing.ended {
                self.finished(now, name, end, effects);
            }
        }
        self.live(now, name, Life::Swept(incarnation, swept.left), effects);
        let rests = self.agents.get(name).is_some_and(|a| matches!(a.life.state(), State::Down | State::Failed));
        if rests {
            self.end_running(now, name, swept, effects);
        }
    }

    /// No worker will bring the outcomes of these turns any more.
    fn end_running(&mut self, now: Now, name: &AgentName, swept: &Swept, effects: &mut Vec<Effect>) {
        let Some(agent) = self.agents.get(name) else { return };
        let class = if matches!(agent.life.state(), State::Failed) {
            FailureClass::WorkerLost
        } else if agent.killed {
            FailureClass::Killed
        } else {
            FailureClass::Shutdown
        };
        let exit = agent.exit.clone();
        let running = |turn: &super::Turn| match turn.stage {
            Stage::Running { attempt, .. } => Some((attempt, turn.tries.last().is_some_and(|last| last.begun))),
            Stage::Queued | Stage::Offered | Stage::Pausing { .. } => None,
        };
        let open: Vec<(AttemptId, bool)> = self.turns_of(name).filter_map(running).collect();
        for (attempt, was_begun) in open {
            let standing = swept.journal.as_ref().and_then(|journal| journal.open.get(&attempt));
            // One that was begun and stands in no journal: the journal was lost, and nobody knows how far it came.
            let never = swept.journal.is_some() && standing.map_or(!was_begun, |standing| !standing.prompted);
            let mut end = Finished::new(attempt, TurnId(0), Outcome::Failed(class));
            end.replay_safe = never;
            end.detail = if never { format!("{exit}\nthe prompt had not reached Codex") } else { exit.clone() };
            self.lost(now, end, effects);
        }
    }

    fn came_up(&mut self, name: &AgentName, effects: &mut Vec<Effect>) {
        if let Some(agent) = self.agents.get_mut(name) {
            agent.killed = false;
            agent.stuck = false;
            agent.restart = false;
            agent.renewing = false;
        }
        self.agent_reached(name, true, effects);
    }

    fn at_rest(&mut self, now: Now, name: &AgentName, gave_up: bool, effects: &mut Vec<Effect>) {
        if let Some(agent) = self.agents.get_mut(name) {
            agent.stuck = false;
            // One that was to be replaced and does not come up holds the others back.
            agent.renewing &= gave_up;
        }
        if gave_up {
            let exit = self.agents.get(name).map(|a| a.exit.clone()).unwrap_or_default();
            let text = format!("its worker ended too often in a row; the last time: {exit}");
            let words = format!(
                "⛔ Agent {name} has failed: {text}\nNext: `cofferdam logs {name}`, then `cofferdam start {name}`"
            );
            self.alert(now, name, &words, effects);
            let waiting: Vec<TurnId> =
                self.turns_of(name).filter(|turn| !turn.runs()).map(|turn| turn.new.id).collect();
            for id in waiting {
                self.fail_waiting(now, id, FailureClass::WorkerLost, &text, effects);
            }
        }
        self.agent_reached(name, !gave_up, effects);
        self.rested(now, name, effects);
    }

    pub(super) fn fleet_deadlines(&mut self, now: Now, name: &AgentName, effects: &mut Vec<Effect>) {
        let Some(agent) = self.agents.get(name) else { return };
        if agent.life.deadline().is_some_and(|by| by <= now.tick) {
            if let Some(process) = agent.life.process() {
                self.given_up(now, name, process.incarnation, "it was not ready in time");
            }
            self.live(now, name, Life::Timeout, effects);
        }
    }

    /// See [`Machine::fleet_deadlines`] and [`Machine::look_for_hung`].
    pub(super) fn fleet_deadline(&self, name: &AgentName) -> Option<u64> {
        let life = self.agents.get(name).and_then(|agent| agent.life.deadline());
        [life, self.heart_due(name)].into_iter().flatten().min()
    }
}
