//! Workers as a model: a process, a session, and a journal that outlives both.

use protocol::from_worker::{Isolation, Ready, Started, Steered};
use protocol::journal::{Begun, Reading, Standing};
use protocol::stable::Finished;
use protocol::to_worker::{Begin, InterruptReason};
use protocol::{AttemptId, FailureClass, FromWorker, Incarnation, Outcome, Text, ToWorker, TurnId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A turn in a worker.
#[derive(Clone, Debug)]
pub struct Live {
    pub begin: Begin,
    pub started: bool,
    pub stop: bool,
}

/// A worker's process.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts: each may hold with any other")]
pub struct Process {
    pub incarnation: Incarnation,
    pub pid: u32,
    pub nonce: u64,
    pub outdated: bool,
    pub session: bool,
    pub draining: bool,
    /// It has read the journal.
    pub knows: bool,
    pub turns: BTreeMap<AttemptId, Live>,
}

/// An agent's folder and what lives in it.
#[derive(Debug, Default)]
pub struct Place {
    pub process: Option<Process>,
    pub journal: BTreeMap<AttemptId, Standing>,
    /// Attempts whose effects cannot be taken back.
    pub ran: BTreeSet<AttemptId>,
    /// What the present session said and nobody has heard yet.
    pub said: VecDeque<FromWorker>,
    /// Whether Codex takes a steer.
    pub takes_steers: bool,
    /// Stopped by SIGSTOP: says nothing, does nothing.
    pub stopped: bool,
    /// What it was told it may archive.
    pub spared: Vec<Vec<String>>,
    /// Begins that reached it, in order.
    pub begun: Vec<Begin>,
}

impl Place {
    fn tell(&mut self, word: FromWorker) {
        if self.process.as_ref().is_some_and(|p| p.session) {
            self.said.push_back(word);
        }
    }

    /// The supervisor dialled and said how the agent is served.
    pub fn link(&mut self) {
        self.said.clear();
        let Some(process) = &mut self.process else { return };
        process.session = true;
        if !std::mem::replace(&mut process.knows, true) {
            for standing in self.journal.values_mut().filter(|standing| standing.ended.is_none()) {
                let attempt = standing.begun.attempt;
                let mut end = Finished::new(attempt, standing.begun.turn, Outcome::Failed(FailureClass::WorkerLost));
                end.replay_safe = !self.ran.contains(&attempt);
                end.thread.clone_from(&standing.thread);
                standing.ended = Some(Box::new(end));
            }
        }
        let running: Vec<AttemptId> = process.turns.keys().copied().collect();
        let ended: Vec<_> = self.journal.values().filter_map(|s| s.ended.clone()).collect();
        for end in ended {
            self.tell(FromWorker::Finished(end));
        }
        self.tell(FromWorker::Ready(Ready { running, isolation: Isolation::Namespace, bounds: Vec::new() }));
    }

    pub fn take(&mut self, word: ToWorker) {
        if self.process.as_ref().is_none_or(|p| !p.session) {
            return;
        }
        match word {
            ToWorker::Begin(begin) => self.begin(*begin),
            ToWorker::Ack(attempt) => drop(self.journal.remove(&attempt)),
            ToWorker::Drain => {
                if let Some(process) = &mut self.process {
                    process.draining = true;
                }
            }
            ToWorker::Steer(steer) => {
                let live =
                    self.process.as_ref().is_some_and(|p| p.turns.get(&steer.attempt).is_some_and(|t| t.started));
                let taken = live && self.takes_steers;
                self.tell(FromWorker::Steered(Steered { attempt: steer.attempt, turn: steer.turn, taken }));
            }
            ToWorker::Ping(nonce) => self.tell(FromWorker::Pong(nonce)),
            ToWorker::Interrupt(interrupt) => {
                assert_eq!(interrupt.reason, InterruptReason::Asked);
                let turns = self.process.as_mut().map(|p| &mut p.turns);
                if let Some(live) = turns.and_then(|turns| turns.get_mut(&interrupt.attempt)) {
                    live.stop = true;
                }
            }
            ToWorker::Hello(_) | ToWorker::Kill | ToWorker::Configure(_) => {}
            ToWorker::Archive(threads) => self.spared.push(threads),
        }
    }

    fn begin(&mut self, begin: Begin) {
        let attempt = begin.attempt;
        let Some(process) = &mut self.process else { return };
        if process.turns.contains_key(&attempt) {
            return self.tell(FromWorker::Begun(attempt));
        }
        if let Some(standing) = self.journal.get(&attempt) {
            let end = standing.ended.clone().expect("a known attempt runs or has ended");
            return self.tell(FromWorker::Finished(end));
        }
        for (other, live) in &process.turns {
            assert_ne!(live.begin.turn, begin.turn, "turn {} as {attempt} and {other} at once", begin.turn);
            let same = begin.thread.is_some() && live.begin.thread == begin.thread;
            assert!(!same, "two turns on thread {:?}", begin.thread);
        }
        let entry = Begun {
            attempt,
            turn: begin.turn,
            route: begin.route.clone(),
            thread: begin.thread.clone(),
            rollout_bytes: 0,
            at_ms: 0,
        };
        let thread = begin.thread.clone();
        self.journal.insert(attempt, Standing { begun: entry, prompted: false, thread, ended: None });
        self.begun.push(begin.clone());
        let draining = process.draining;
        process.turns.insert(attempt, Live { begin, started: false, stop: false });
        if draining {
            self.end(attempt, Outcome::Failed(FailureClass::Shutdown), "");
        } else {
            self.tell(FromWorker::Begun(attempt));
        }
    }

    /// Codex has the prompt and named its thread.
    pub fn start(&mut self, attempt: AttemptId) {
        let Some(live) = self.process.as_mut().and_then(|p| p.turns.get_mut(&attempt)) else { return };
        live.started = true;
        let thread = live.begin.thread.clone().unwrap_or_else(|| format!("thread-{}", live.begin.turn));
        let standing = self.journal.get_mut(&attempt).expect("what runs is in the journal");
        standing.prompted = true;
        standing.thread = Some(thread.clone());
        self.tell(FromWorker::Started(Started { attempt, thread, isolation: Isolation::Namespace }));
    }

    /// A tool ran: from here on it must not be repeated.
    pub fn run_tool(&mut self, attempt: AttemptId) {
        let live = self.process.as_ref().and_then(|p| p.turns.get(&attempt));
        if live.is_some_and(|live| live.started) {
            self.ran.insert(attempt);
        }
    }

    pub fn end(&mut self, attempt: AttemptId, outcome: Outcome, detail: &str) {
        let Some(live) = self.process.as_mut().and_then(|p| p.turns.remove(&attempt)) else { return };
        let mut end = Finished::new(attempt, live.begin.turn, outcome);
        end.text = Text::Inline(if outcome == Outcome::Completed {
            format!("answer {}", live.begin.turn)
        } else {
            String::new()
        });
        end.detail = detail.to_owned();
        end.replay_safe = !self.ran.contains(&attempt);
        let standing = self.journal.get_mut(&attempt).expect("what runs is in the journal");
        end.thread.clone_from(&standing.thread);
        standing.ended = Some(Box::new(end.clone()));
        self.tell(FromWorker::Finished(Box::new(end)));
    }

    pub fn reading(&self) -> Reading {
        Reading { open: self.journal.clone(), ..Reading::default() }
    }

    pub fn running(&self) -> Vec<(AttemptId, TurnId)> {
        self.process.iter().flat_map(|p| p.turns.iter()).map(|(id, live)| (*id, live.begin.turn)).collect()
    }
}
