//! The Codex children: how one is started for a turn, how each is ended, and what its end means for its turns.
//!
//! ```text
//!            Spawn           End               Kill
//!  (nothing) ----> alive ----------> ending ---------> killed ----> given up
//!                    |   3 x grace     |    3 x grace    |
//!                    +----- Exited ----+------ Exited ---+--> gone
//! ```
//! Between `End` and `Kill` the driver climbs its own ladder; the clocks here only bound a driver or a kernel that
//! does not come back. Starts of exec children on one home follow one another: each waits for the other's first word.

use super::archive::Archived;
use super::event::Event;
use super::io::{ChildId, ChildSpec, Effect, Exit, Polite, SpawnFailure, Tick};
use super::turn::Turn;
use super::verdict::{PATIENCE_MS, State, Verdict};
use super::{Machine, exec, failure};
use protocol::journal::Record;
use protocol::{AttemptId, FailureClass, FromWorker, Outcome, Runtime};

/// How many graces a child gets between two steps: the driver's ladder has two rungs and a sweep.
const GRACES: u64 = 3;

/// Least pause between two steps, in milliseconds, whatever the configuration says: signals take time to work.
const STEP_MS_MIN: u64 = 100;

/// A Codex child.
#[derive(Debug)]
pub(super) struct Child {
    /// The attempt of an exec child; `None` for the app-server.
    pub(super) attempt: Option<AttemptId>,
    /// The thread that it holds, if one is known.
    pub(super) thread: Option<String>,
    /// It has not spoken yet.
    pub(super) silent: bool,
    rung: Rung,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    Alive,
    /// Its turn is over; it should leave by itself.
    Leaving(Tick),
    Ending(Tick),
    Killed(Tick),
}

impl Child {
    /// The app-server.
    pub(super) fn server() -> Self {
        Self { attempt: None, thread: None, silent: true, rung: Rung::Alive }
    }

    /// Whether it is about to leave by itself.
    pub(super) fn leaves(&self) -> bool {
        matches!(self.rung, Rung::Leaving(_))
    }

    /// It is killed, and waited for until then. Whether it was not before.
    pub(super) fn kill(&mut self, by: Tick) -> bool {
        let alive = !self.is_killed();
        if alive {
            self.rung = Rung::Killed(by);
        }
        alive
    }

    /// Whether it was killed, and is only waited for.
    pub(super) fn is_killed(&self) -> bool {
        matches!(self.rung, Rung::Killed(_))
    }

    /// When the next step is due.
    pub(super) fn clock(&self) -> Option<Tick> {
        match self.rung {
            Rung::Alive => None,
            Rung::Leaving(by) | Rung::Ending(by) | Rung::Killed(by) => Some(by),
        }
    }
}

impl Machine {
    /// A number for the next child.
    pub(super) fn new_child(&mut self) -> ChildId {
        self.next_child += 1;
        ChildId(self.next_child)
    }

    /// Opens what can be opened.
    pub(super) fn open_waiting(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let waiting: Vec<(AttemptId, Runtime, Archived)> = self
            .turns
            .values()
            .filter(|turn| turn.state == State::Waiting)
            .map(|turn| (turn.attempt, turn.route.runtime, turn.archived))
            .collect();
        for (attempt, runtime, archived) in waiting {
            if self.thread_is_held(attempt) {
                continue;
            }
            match runtime {
                Runtime::CodexCli if archived == Archived::Yes => self.bring_back(now, attempt, effects),
                Runtime::CodexCli => self.open_exec(now, attempt, effects),
                Runtime::Codex => self.open_on_session(now, attempt, effects),
            }
        }
    }

    /// Whether another exec child still holds the thread of an attempt: a thread has one writer.
    fn thread_is_held(&self, attempt: AttemptId) -> bool {
        let thread = self.turns.get(&attempt).and_then(|turn| turn.thread.as_ref());
        thread.is_some() && self.children.values().any(|child| child.thread.as_ref() == thread)
    }

    fn open_exec(&mut self, now: Tick, attempt: AttemptId, effects: &mut Vec<Effect>) {
        let starting = self.children.values().any(|child| child.attempt.is_some() && child.silent);
        if starting || !self.free_from_session(now, attempt, effects) {
            return;
        }
        let child = self.new_child();
        let (Some(configure), Some(turn)) = (&self.configure, self.turns.get_mut(&attempt)) else {
            return;
        };
        let thread = match (&turn.thread, turn.forks) {
            (None, _) => exec::Continue::Fresh,
            (Some(thread), false) => exec::Continue::Resume(thread),
            (Some(thread), true) => exec::Continue::Fork(thread),
        };
        let spec = ChildSpec {
            args: exec::args(configure, &turn.route, thread),
            stdin: turn.prompt.clone(),
            stdin_open: false,
            polite: Polite::Interrupt,
            command: None,
        };
        if !turn.prompted {
            effects.push(Effect::Journal(Record::Prompted(attempt)));
        }
        turn.prompted = true;
        turn.child = Some(child);
        turn.tokens_before = match &turn.thread {
            None => Some((0, 0)),
            Some(thread) => self.counted.get(thread).copied(),
        };
        turn.state = State::Opening(Some(Tick(now.0.saturating_add(configure.clocks.first_event_ms))));
        let held = turn.thread.clone();
        let record = Child { attempt: Some(attempt), thread: held, silent: true, rung: Rung::Alive };
        self.children.insert(child, record);
        effects.push(Effect::Spawn(child, spec));
    }

    /// A line of an exec child.
    pub(super) fn exec_line(&mut self, now: Tick, child: ChildId, line: &str, effects: &mut Vec<Effect>) {
        let Some(record) = self.children.get_mut(&child) else {
            return;
        };
        let Some(attempt) = record.attempt else {
            return;
        };
        let event = exec::read(line);
        if matches!(event, Ok(Event::Thread(_))) {
            record.silent = false;
        }
        let Some(turn) = self.turns.get_mut(&attempt).filter(|turn| turn.child == Some(child)) else {
            return;
        };
        match event {
            Ok(event) => {
                self.unmatched += u64::from(matches!(event, Event::Failed(_, false, _)));
                let after = turn.take(now, event, effects);
                self.after(now, attempt, after, effects);
            }
            Err(_) => self.bad_line(now, attempt, effects),
        }
    }

    /// A line that cannot be read, of a turn's own child.
    pub(super) fn bad_line(&mut self, now: Tick, attempt: AttemptId, effects: &mut Vec<Effect>) {
        if self.turns.get_mut(&attempt).is_some_and(|turn| turn.bad_line(now)) {
            let detail = "more lines than can be forgiven were no JSON";
            self.stop(now, attempt, Verdict::failed(FailureClass::CodexProtocol, detail), effects);
        }
    }

    /// Codex named the thread of a turn on exec.
    pub(super) fn named(&mut self, now: Tick, attempt: AttemptId, thread: String, effects: &mut Vec<Effect>) {
        let first_event_by = self.first_event_by(now);
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        turn.named = true;
        if let State::Opening(by) = &mut turn.state {
            // The turn's own start is still awaited, from here on by the same clock.
            *by = Some(first_event_by);
        }
        let asked = turn.thread.clone().filter(|_| !turn.forks);
        match asked {
            Some(asked) if asked == thread => {}
            Some(asked) => {
                turn.proof = Some((thread.clone(), 0));
                let detail = format!("thread {asked} was to be resumed, but {thread} was");
                self.stop(now, attempt, Verdict::failed(FailureClass::CodexProtocol, detail), effects);
            }
            None => self.adopt_thread(attempt, thread, effects),
        }
    }

    /// A turn has a thread of its own that did not exist before.
    pub(super) fn adopt_thread(&mut self, attempt: AttemptId, thread: String, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        if let Some(record) = turn.child.and_then(|child| self.children.get_mut(&child)).filter(|c| c.attempt.is_some())
        {
            record.thread = Some(thread.clone());
        }
        turn.forks = false;
        turn.proof = Some((thread.clone(), 0));
        turn.thread = Some(thread.clone());
        effects.push(Effect::Journal(Record::Thread(attempt, thread)));
    }

    /// Codex told the end of a turn.
    pub(super) fn told_end(&mut self, now: Tick, attempt: AttemptId, verdict: Verdict, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        let exec = turn.child.filter(|_| turn.route.runtime == Runtime::CodexCli);
        let Some(child) = exec else {
            return self.finish(now, attempt, &verdict, effects);
        };
        let by = Tick(now.0.saturating_add(PATIENCE_MS));
        if let Some(record) = self.children.get_mut(&child)
            && record.rung == Rung::Alive
        {
            record.rung = Rung::Leaving(by);
        }
        match verdict.outcome {
            Outcome::Completed => self.finish(now, attempt, &verdict, effects),
            // The exit and its stderr belong to the story of a failure.
            Outcome::Interrupted | Outcome::Failed(_) => turn.state = State::Stopping(verdict, None),
        }
    }

    /// A child could not be started.
    pub(super) fn spawn_failed(&mut self, now: Tick, child: ChildId, why: SpawnFailure, effects: &mut Vec<Effect>) {
        let Some(record) = self.children.remove(&child) else {
            return;
        };
        let (class, detail) = match why {
            SpawnFailure::Missing(detail) => (FailureClass::CodexMissing, detail),
            SpawnFailure::Failed(detail) => (FailureClass::CodexStart, detail),
        };
        let verdict = Verdict::failed(class, detail).told(Some(true));
        if let Some(attempt) = record.attempt {
            return self.finish(now, attempt, &verdict, effects);
        }
        self.turns_lost(now, child, Some(&Exit::default()), effects);
        self.session_failed(now, child, &verdict, effects);
    }

    /// Ends a child politely, once.
    pub(super) fn end_child(&mut self, now: Tick, child: ChildId, effects: &mut Vec<Effect>) {
        let by = self.step_by(now);
        let Some(record) = self.children.get_mut(&child) else {
            return;
        };
        match record.rung {
            Rung::Alive | Rung::Leaving(_) => {
                record.rung = Rung::Ending(by);
                effects.push(Effect::End(child));
                self.session_ending(child);
            }
            Rung::Ending(_) | Rung::Killed(_) => {}
        }
    }

    pub(super) fn step_by(&self, now: Tick) -> Tick {
        let step = self.clocks().stop_grace_ms.saturating_mul(GRACES).max(STEP_MS_MIN);
        Tick(now.0.saturating_add(step))
    }

    /// Climbs where a step is due.
    pub(super) fn children_timeout(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let by = self.step_by(now);
        let due: Vec<ChildId> =
            self.children.iter().filter(|(_, c)| c.clock().is_some_and(|by| by <= now)).map(|(id, _)| *id).collect();
        for child in due {
            let Some(record) = self.children.get_mut(&child) else {
                continue;
            };
            match record.rung {
                Rung::Alive => {}
                Rung::Leaving(_) => self.end_child(now, child, effects),
                Rung::Ending(_) => {
                    record.rung = Rung::Killed(by);
                    effects.push(Effect::Kill(child));
                    self.turns_lost(now, child, None, effects);
                }
                Rung::Killed(_) => {
                    self.turns_lost(now, child, None, effects);
                    self.children.remove(&child);
                    let note = format!("Codex child {} did not go away although it was killed", child.0);
                    effects.push(Effect::Tell(FromWorker::Note(note)));
                    self.session_gone(child, effects);
                }
            }
        }
    }

    /// A child and its tree are gone.
    pub(super) fn exited(&mut self, now: Tick, child: ChildId, exit: &Exit, effects: &mut Vec<Effect>) {
        if self.children.remove(&child).is_none() {
            return;
        }
        let verdict = session_verdict(exit);
        self.turns_lost(now, child, Some(exit), effects);
        self.session_exited(now, child, &verdict, effects);
    }

    /// Every turn on a child has lost it.
    fn turns_lost(&mut self, now: Tick, child: ChildId, exit: Option<&Exit>, effects: &mut Vec<Effect>) {
        let attempts: Vec<AttemptId> =
            self.turns.values().filter(|turn| turn.child == Some(child)).map(|turn| turn.attempt).collect();
        for attempt in attempts {
            self.lost(now, attempt, exit, effects);
        }
    }

    /// A turn has lost its child; without an exit its tree is not proven gone.
    pub(super) fn lost(&mut self, now: Tick, attempt: AttemptId, exit: Option<&Exit>, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        let gone = exit.is_some();
        turn.exit = exit.cloned().unwrap_or_default();
        let verdict = match &turn.state {
            State::Proving(..) => return,
            State::Stopping(verdict, _) => verdict.clone(),
            State::Waiting | State::Opening(_) | State::Running => loss(turn),
        };
        let refused = turn.route.runtime == Runtime::CodexCli && matches!(turn.state, State::Opening(_)) && !turn.named;
        if gone && refused && self.opens_again(attempt) {
            return;
        }
        if gone {
            self.prove(now, attempt, verdict, effects);
        } else {
            let safe = if verdict.told { verdict.safe } else { Some(false) };
            self.finish(now, attempt, &Verdict { safe, ..verdict }, effects);
        }
    }
}

/// What the unasked end of a child means for its turn.
fn loss(turn: &Turn) -> Verdict {
    let exit = &turn.exit;
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit code".into(),
    };
    if exit.out_of_memory {
        return Verdict::failed(
            FailureClass::OutOfMemory,
            format!("the kernel ended Codex for its use of memory ({how})"),
        );
    }
    let (class, line) = failure::of_stderr(&exit.stderr);
    let before = turn.route.runtime == Runtime::CodexCli && matches!(turn.state, State::Opening(_)) && !turn.named;
    if before {
        let detail = if line.is_empty() { format!("Codex ended before the turn ({how})") } else { line };
        // Codex names the thread before it begins a turn, and its output has been read to the end: with an orderly
        // exit the prompt went nowhere.
        let safe = exit.code.map(|_| true);
        let verdict = Verdict::failed(class, detail);
        return if safe.is_some() { verdict.told(safe) } else { verdict };
    }
    let class = if class == FailureClass::DiskFull { class } else { FailureClass::CodexExit };
    let mut detail = format!("Codex ended in the middle of the turn ({how})");
    // A log line of a Codex that died is seldom why it did; the whole of stderr is told beside.
    let last_words = if failure::is_error(&line) { line.as_str() } else { "" };
    for words in [last_words, turn.notice()] {
        if !words.is_empty() {
            detail.push_str(": ");
            detail.push_str(words);
        }
    }
    Verdict::failed(class, detail)
}

/// What the end of an app-server means for those that waited for it to start.
fn session_verdict(exit: &Exit) -> Verdict {
    let (class, line) = failure::of_stderr(&exit.stderr);
    let class = if exit.out_of_memory { FailureClass::OutOfMemory } else { class };
    Verdict::failed(class, format!("the app-server ended before it was ready: {line}")).told(Some(true))
}
