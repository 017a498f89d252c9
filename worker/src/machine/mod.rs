//! Decides everything the worker does: which attempts it takes, which Codex children run, how each turn ends.
//!
//! ```text
//!  Begin --known?--> its state again
//!    | no
//!    v
//!  Journal(Begun), Tell(Begun) --> turn (turn.rs) --+-- exec (children.rs, exec.rs)          one child a turn
//!                                                  +-- session (session.rs, app_server.rs)  one child for all
//!                                                  v
//!                                  Finish, exactly once --> unacknowledged --Acked--> forgotten
//! ```
//! Pure: the time is an argument, nothing is read or written, and the same inputs give the same effects.
//! After each input [`Machine::pump`] brings everything to where it belongs: turns that can open are opened, an idle
//! app-server is retired, a worker that is done leaves.

mod app_server;
mod approval;
mod children;
mod event;
mod exec;
mod failure;
pub mod io;
mod leave;
mod progress;
mod recover;
mod redact;
mod reset;
mod session;
mod talk;
mod turn;

use children::Child;
use io::{ChildId, Effect, Input, Tick};
use leave::Leaving;
use protocol::from_worker::{Isolation, Phase, Ready, Started, Steered};
use protocol::journal::{Begun, Record};
use protocol::to_worker::{Begin, Clocks, Configure, InterruptReason};
use protocol::{AttemptId, FailureClass, Finished, FromWorker, Outcome, Runtime, Text};
use reset::Wall;
use session::Session;
use std::collections::BTreeMap;
use turn::{After, Due, State, Turn, Verdict};

/// Clocks before a supervisor has configured any: only an orphan's matters then.
const CLOCKS_UNCONFIGURED: Clocks = Clocks {
    first_event_ms: 60_000,
    silence_ms: 600_000,
    turn_ms: 3_600_000,
    compaction_ms: 600_000,
    idle_after_ms: 600_000,
    orphan_after_ms: 600_000,
    stop_grace_ms: 2000,
};

/// Threads whose token counts are remembered: a number each, and an agent rarely has more conversations.
const THREADS_COUNTED_MAX: usize = 512;

/// The worker's decisions: attempts, Codex children, the conversation with the supervisor.
#[derive(Debug)]
pub struct Machine {
    configure: Option<Box<Configure>>,
    /// Counts the configurations that differ from the one before.
    generation: u64,
    linked: bool,
    isolation: Isolation,
    wall: Option<(Tick, Wall)>,
    now: Tick,
    turns: BTreeMap<AttemptId, Turn>,
    /// Outcomes that are not acknowledged. A text that is too long for a frame is kept beside.
    ended: BTreeMap<AttemptId, (Box<Finished>, Option<String>)>,
    children: BTreeMap<ChildId, Child>,
    next_child: u64,
    session: Option<Session>,
    /// Tokens of each thread, as they were told last.
    counted: BTreeMap<String, (u64, u64)>,
    /// When the app-server's last full window resets, in Unix seconds.
    resets_at: Option<u64>,
    unmatched: u64,
    leaving: Leaving,
    orphan_from: Option<Tick>,
}

impl Machine {
    /// A machine that knows nothing. `seed` makes whatever it draws reproducible; it draws nothing.
    pub fn new(seed: u64) -> Self {
        // Child ids begin behind the seed's low bits so that two incarnations in one log are told apart.
        let next_child = (seed & 0xffff) << 16;
        Self {
            configure: None,
            generation: 0,
            linked: false,
            isolation: Isolation::Untried,
            wall: None,
            now: Tick(0),
            turns: BTreeMap::new(),
            ended: BTreeMap::new(),
            children: BTreeMap::new(),
            next_child,
            session: None,
            counted: BTreeMap::new(),
            resets_at: None,
            unmatched: 0,
            leaving: Leaving::No,
            orphan_from: None,
        }
    }

    /// Takes one input at `now` and appends what follows from it, in the order in which it has to be performed.
    pub fn handle(&mut self, now: Tick, input: Input, effects: &mut Vec<Effect>) {
        self.now = now;
        match input {
            Input::Configured(configure) => self.configured(configure, effects),
            Input::Begin { begin, prompt, rollout_bytes, wall_ms } => {
                self.begin(now, &begin, prompt, rollout_bytes, wall_ms, effects);
            }
            Input::PromptLost { begin, why } => self.prompt_lost(now, &begin, &why, effects),
            Input::Steer { attempt, turn, text } => self.steer(now, attempt, turn, &text, effects),
            Input::Interrupt(attempt, reason) => self.interrupt(now, attempt, reason, effects),
            Input::Acked(attempt) => self.acked(attempt, effects),
            Input::Drain => self.drain(),
            Input::Terminate => self.terminate(now, effects),
            Input::LinkUp => self.link_up(effects),
            Input::LinkDown => {
                self.linked = false;
            }
            Input::Spawned(..) => {}
            Input::SpawnFailed(child, why) => self.spawn_failed(now, child, why, effects),
            Input::Line(child, line) => self.line(now, child, &line, effects),
            Input::LineTooLong(child, bytes) => self.line_too_long(now, child, bytes, effects),
            Input::Exited(child, exit) => self.exited(now, child, exit, effects),
            Input::RolloutRead(attempt, rollout) => self.rollout_read(now, attempt, rollout, effects),
            Input::Recovered(standings) => self.recovered(now, standings, effects),
            Input::Timeout => self.timeout(now, effects),
        }
        self.pump(now, effects);
    }

    /// When [`Input::Timeout`] is due, and for what.
    pub fn deadline(&self) -> Option<(Tick, &'static str)> {
        let clocks = self.clocks();
        let turns = self.turns.values().flat_map(|turn| {
            let clock = turn.clock(&clocks).map(|(by, due)| (by, due.as_str()));
            clock.into_iter().chain(turn.show.deadline().map(|by| (by, "progress")))
        });
        let children = self.children.values().filter_map(|child| child.clock().map(|by| (by, "child")));
        let session = self.session.iter().flat_map(|session| session.deadlines(&clocks));
        turns.chain(children).chain(session).chain(self.leave_deadline(&clocks)).min_by_key(|(by, _)| *by)
    }

    /// Sets the rung of containment that the driver found; told with every `Started` and `Ready` from then on.
    pub fn set_isolation(&mut self, isolation: Isolation) {
        self.isolation = isolation;
    }

    /// Sets the wall clock in Unix milliseconds and the offset of local time from UTC in seconds, by which reset
    /// times in prose ("try again at 2:45 AM") are read. The machine counts on from there; a call at each begin is
    /// enough. Before the first call such times stay unknown.
    pub fn set_local_time(&mut self, wall_ms: u64, utc_offset_s: i32) {
        self.wall = Some((self.now, Wall { ms: wall_ms, utc_offset_s }));
    }

    /// Attempts that run, for the beat.
    pub fn running(&self) -> u32 {
        u32::try_from(self.turns.len()).unwrap_or(u32::MAX)
    }

    /// Codex children that are alive, for the beat.
    pub fn children(&self) -> u32 {
        u32::try_from(self.children.len()).unwrap_or(u32::MAX)
    }

    /// Failures whose words no table names, counted since the start.
    pub fn unmatched(&self) -> u64 {
        self.unmatched
    }

    fn clocks(&self) -> Clocks {
        self.configure.as_ref().map_or(CLOCKS_UNCONFIGURED, |configure| configure.clocks)
    }

    fn configured(&mut self, configure: Box<Configure>, effects: &mut Vec<Effect>) {
        if self.configure.as_ref().is_some_and(|old| *old != configure) {
            self.generation += 1;
        }
        self.configure = Some(configure);
        self.tell_ready(effects);
    }

    fn begin(&mut self, now: Tick, begin: &Begin, prompt: String, bytes: u64, wall_ms: u64, effects: &mut Vec<Effect>) {
        if let Some((_, wall)) = self.wall {
            self.wall = Some((now, Wall { ms: wall_ms, ..wall }));
        }
        let Some(begun) = self.accept(begin, bytes, wall_ms, effects) else {
            return;
        };
        let mut turn = Turn::new(now, &begun, prompt);
        let busy = begun
            .thread
            .as_ref()
            .is_some_and(|thread| self.turns.values().any(|other| other.thread.as_ref() == Some(thread)));
        let attempt = begun.attempt;
        let refused = if self.leaving != Leaving::No {
            Some((FailureClass::Shutdown, "the worker takes nothing new"))
        } else if self.configure.is_none() {
            Some((FailureClass::CodexStart, "the worker has not been configured"))
        } else if busy {
            Some((FailureClass::CodexStart, "another turn runs on this thread"))
        } else if begun.thread.as_ref().is_some_and(|thread| thread.is_empty() || thread.starts_with('-')) {
            Some((FailureClass::CodexStart, "this is no name of a thread"))
        } else {
            None
        };
        match refused {
            None => {
                turn.say(now, Phase::Starting, "", effects);
                self.turns.insert(attempt, turn);
            }
            Some((class, detail)) => {
                self.turns.insert(attempt, turn);
                self.finish(now, attempt, Verdict::failed(class, detail).told(Some(true)), effects);
            }
        }
    }

    fn prompt_lost(&mut self, now: Tick, begin: &Begin, why: &str, effects: &mut Vec<Effect>) {
        let Some(begun) = self.accept(begin, 0, 0, effects) else {
            return;
        };
        self.turns.insert(begun.attempt, Turn::new(now, &begun, String::new()));
        let detail = format!("the file of the prompt could not be read: {why}");
        let verdict = Verdict::failed(FailureClass::CodexStart, detail).told(Some(true));
        self.finish(now, begun.attempt, verdict, effects);
    }

    /// Takes an attempt that is new; a known one is answered with its state.
    fn accept(&mut self, begin: &Begin, bytes: u64, at_ms: u64, effects: &mut Vec<Effect>) -> Option<Begun> {
        let attempt = begin.attempt;
        if self.turns.contains_key(&attempt) {
            effects.push(Effect::Tell(FromWorker::Begun(attempt)));
            return None;
        }
        if self.ended.contains_key(&attempt) {
            self.tell_end(attempt, effects);
            return None;
        }
        let begun = Begun {
            attempt,
            turn: begin.turn,
            route: begin.route.clone(),
            thread: begin.thread.clone(),
            rollout_bytes: bytes,
            at_ms,
        };
        effects.push(Effect::Journal(Record::Begun(begun.clone())));
        effects.push(Effect::Tell(FromWorker::Begun(attempt)));
        Some(begun)
    }

    fn interrupt(&mut self, now: Tick, attempt: AttemptId, reason: InterruptReason, effects: &mut Vec<Effect>) {
        let verdict = match reason {
            InterruptReason::Asked => Verdict::interrupted(),
            InterruptReason::Shutdown => Verdict::failed(FailureClass::Shutdown, "everything ends"),
        };
        self.stop(now, attempt, verdict, effects);
    }

    fn acked(&mut self, attempt: AttemptId, effects: &mut Vec<Effect>) {
        if self.ended.remove(&attempt).is_some() {
            effects.push(Effect::Journal(Record::Acked(attempt)));
        }
    }

    fn link_up(&mut self, effects: &mut Vec<Effect>) {
        self.linked = true;
        effects.extend(self.turns.keys().map(|attempt| Effect::Tell(FromWorker::Begun(*attempt))));
        let ended: Vec<_> = self.ended.keys().copied().collect();
        for attempt in ended {
            self.tell_end(attempt, effects);
        }
        self.tell_ready(effects);
    }

    fn tell_ready(&self, effects: &mut Vec<Effect>) {
        if self.linked && self.configure.is_some() {
            let ready = Ready { running: self.turns.keys().copied().collect(), isolation: self.isolation };
            effects.push(Effect::Tell(FromWorker::Ready(ready)));
        }
    }

    /// Tells an outcome again.
    fn tell_end(&self, attempt: AttemptId, effects: &mut Vec<Effect>) {
        match self.ended.get(&attempt) {
            Some((end, Some(text))) => effects.push(Effect::Finish(end.clone(), text.clone())),
            Some((end, None)) => effects.push(Effect::Tell(FromWorker::Finished(end.clone()))),
            None => {}
        }
    }

    /// Tells a turn to stop, for the reason that `verdict` gives. The first reason stands.
    fn stop(&mut self, now: Tick, attempt: AttemptId, verdict: Verdict, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        match turn.state {
            State::Waiting => self.finish(now, attempt, verdict, effects),
            State::Opening(_) if !turn.prompted || turn.child.is_none() => self.finish(now, attempt, verdict, effects),
            State::Opening(_) | State::Running => {
                turn.state = State::Stopping(verdict, None);
                turn.say(now, Phase::Stopping, "", effects);
                match (turn.route.runtime, turn.child) {
                    (Runtime::CodexCli, Some(child)) => self.end_child(now, child, effects),
                    (Runtime::Codex, _) => self.interrupt_turn(now, attempt, effects),
                    (Runtime::CodexCli, None) => {}
                }
            }
            State::Stopping(..) | State::Proving(..) => {}
        }
    }

    /// What an event of a turn means for the machine.
    fn after(&mut self, now: Tick, attempt: AttemptId, after: After, effects: &mut Vec<Effect>) {
        match after {
            After::Nothing => {}
            After::Named(thread) => self.named(now, attempt, thread, effects),
            After::Started => self.started(now, attempt, effects),
            After::Ended(verdict) => self.told_end(now, attempt, verdict, effects),
        }
    }

    /// Codex runs the turn.
    fn started(&mut self, now: Tick, attempt: AttemptId, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        match turn.state {
            State::Opening(_) => {
                turn.state = State::Running;
                let thread = turn.thread.clone().unwrap_or_default();
                let started = Started { attempt, thread, isolation: self.isolation };
                effects.push(Effect::Tell(FromWorker::Started(started)));
            }
            // It was told to stop before it could hear it.
            State::Stopping(..) if turn.route.runtime == Runtime::Codex => self.interrupt_turn(now, attempt, effects),
            State::Waiting | State::Running | State::Stopping(..) | State::Proving(..) => {}
        }
    }

    /// Reads the rollout if that can show a replay to be safe, else ends the turn.
    fn prove(&mut self, now: Tick, attempt: AttemptId, verdict: Verdict, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        let proof = turn.proof.clone().filter(|_| turn.prompted && verdict.wants_proof());
        let Some((thread, from_bytes)) = proof else {
            let safe = if verdict.told { verdict.safe } else { Some(false) };
            return self.finish(now, attempt, Verdict { safe, ..verdict }, effects);
        };
        turn.state = State::Proving(verdict, Tick(now.0.saturating_add(turn::PROOF_MS)));
        effects.push(Effect::ReadRollout { attempt, thread, from_bytes });
    }

    fn rollout_read(&mut self, now: Tick, attempt: AttemptId, rollout: io::Rollout, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        turn.proven(rollout);
        if let State::Proving(verdict, _) = &turn.state {
            let verdict = verdict.clone();
            self.finish(now, attempt, verdict, effects);
        }
    }

    /// The one end of a turn.
    fn finish(&mut self, now: Tick, attempt: AttemptId, verdict: Verdict, effects: &mut Vec<Effect>) {
        let Some(mut turn) = self.turns.remove(&attempt) else {
            return;
        };
        turn.show.flush(now, effects);
        self.leave_session(now, &turn, &verdict, effects);
        let resets_at = self.resets_at_of(now, &turn, &verdict);
        self.count_tokens(&turn);
        let (mut end, text, cut) = turn.finished(now, &verdict);
        end.resets_at = resets_at;
        if cut {
            let note =
                format!("the answer of attempt {attempt} was longer than {} bytes and was cut", turn::ANSWER_BYTES_MAX);
            effects.push(Effect::Tell(FromWorker::Note(note)));
        }
        let long = Text::is_too_long(&text);
        let mut end = Box::new(end);
        if !long {
            end.text = Text::Inline(text.clone());
        }
        self.ended.insert(attempt, (end.clone(), long.then(|| text.clone())));
        effects.push(Effect::Finish(end, text));
    }

    fn resets_at_of(&self, now: Tick, turn: &Turn, verdict: &Verdict) -> Option<u64> {
        if verdict.outcome != Outcome::Failed(FailureClass::UsageLimit) {
            return None;
        }
        let prose = self.wall.and_then(|(at, wall)| {
            let ms = wall.ms.saturating_add(now.0.saturating_sub(at.0));
            reset::resets_at(&verdict.detail, Wall { ms, ..wall })
        });
        match turn.route.runtime {
            Runtime::Codex => self.resets_at.or(prose),
            Runtime::CodexCli => prose,
        }
    }

    fn count_tokens(&mut self, turn: &Turn) {
        if let (Some(thread), Some(tokens)) = (&turn.thread, turn.tokens_after) {
            self.counted.insert(thread.clone(), tokens);
            if self.counted.len() > THREADS_COUNTED_MAX {
                self.counted.pop_first();
            }
        }
    }

    fn timeout(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let clocks = self.clocks();
        let attempts: Vec<AttemptId> = self.turns.keys().copied().collect();
        for attempt in attempts {
            let Some(turn) = self.turns.get_mut(&attempt) else {
                continue;
            };
            turn.show.flush(now, effects);
            if let Some((_, due)) = turn.clock(&clocks).filter(|(by, _)| *by <= now) {
                self.turn_overdue(now, attempt, due, &clocks, effects);
            }
        }
        self.session_timeout(now, effects);
        self.children_timeout(now, effects);
    }

    fn turn_overdue(&mut self, now: Tick, attempt: AttemptId, due: Due, clocks: &Clocks, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        match due {
            Due::FirstEvent | Due::Silence | Due::Compaction | Due::Turn => {
                let verdict = turn.overdue(due, clocks);
                self.stop(now, attempt, verdict, effects);
            }
            Due::Patience => {
                if let State::Stopping(_, by) = &mut turn.state {
                    *by = None;
                }
                match turn.child {
                    Some(child) => self.end_child(now, child, effects),
                    None => self.lost(now, attempt, None, effects),
                }
            }
            Due::Proof => {
                if let State::Proving(verdict, _) = &turn.state {
                    let verdict = Verdict { safe: Some(false), ..verdict.clone() };
                    self.finish(now, attempt, verdict, effects);
                }
            }
        }
    }

    /// Brings everything to where it belongs.
    fn pump(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        self.open_waiting(now, effects);
        self.retire_session(now, effects);
        self.leave(now, effects);
    }

    /// Answers a steering text that Codex will not get.
    fn not_steered(attempt: AttemptId, turn: protocol::TurnId, effects: &mut Vec<Effect>) {
        effects.push(Effect::Tell(FromWorker::Steered(Steered { attempt, turn, taken: false })));
    }
}

#[cfg(test)]
mod tests;
