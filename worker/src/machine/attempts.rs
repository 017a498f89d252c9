//! What the supervisor asks and is told: attempts by number, and what a new link has missed.
//!
//! ```text
//!  Begin(new) ---> Journal(Begun), Tell(Begun) ---> a turn, or refused at once
//!  Begin(known) -> Tell(Begun), or its outcome again
//!  Begin(new, begun before) -> failed(worker_lost), not to be repeated: the journal that knew it is lost
//!  LinkUp -------> Begun for what runs, Finished for what is not acknowledged, Ready
//! ```

use super::Machine;
use super::io::{Effect, Tick};
use super::leave::Leaving;
use super::reset::Wall;
use super::turn::Turn;
use super::verdict::Verdict;
use protocol::from_worker::{Phase, Ready, Steered};
use protocol::journal::{Begun, Record};
use protocol::to_worker::{Begin, Configure, InterruptReason};
use protocol::{AttemptId, FailureClass, FromWorker, TurnId, envelope};

impl Machine {
    pub(super) fn configured(&mut self, configure: Box<Configure>, effects: &mut Vec<Effect>) {
        if self.configure.as_ref().is_some_and(|old| *old != configure) {
            self.generation += 1;
        }
        self.configure = Some(configure);
        self.tell_ready(effects);
    }

    pub(super) fn begin(
        &mut self,
        now: Tick,
        asked: &Begin,
        prompt: String,
        bytes: u64,
        wall_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        if let Some((_, wall)) = self.wall {
            self.wall = Some((now, Wall { ms: wall_ms, ..wall }));
        }
        let Some(begun) = self.accept(asked, bytes, wall_ms, effects) else {
            return;
        };
        if let Some(thread) = &begun.thread {
            self.archive.keep(thread);
        }
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
        } else if asked.begun {
            return self.forgotten(now, begun.attempt, turn, effects);
        } else if busy {
            Some((FailureClass::CodexStart, "another turn runs on this thread"))
        } else if begun.thread.as_ref().is_some_and(|thread| !is_thread_id(thread)) {
            Some((FailureClass::CodexStart, "this is no id of a thread"))
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
                self.finish(now, attempt, &Verdict::failed(class, detail).told(Some(true)), effects);
            }
        }
    }

    /// A worker has begun it and nothing here tells how far it came: the journal was lost. Nobody may begin it anew.
    fn forgotten(&mut self, now: Tick, attempt: AttemptId, mut turn: Turn, effects: &mut Vec<Effect>) {
        turn.prompted = true;
        effects.push(Effect::Journal(Record::Prompted(attempt)));
        self.turns.insert(attempt, turn);
        let detail = "it was begun, and the journal that knew how far it came is lost";
        self.finish(now, attempt, &Verdict::failed(FailureClass::WorkerLost, detail).told(Some(false)), effects);
    }

    pub(super) fn prompt_lost(&mut self, now: Tick, asked: &Begin, why: &str, effects: &mut Vec<Effect>) {
        let Some(begun) = self.accept(asked, 0, 0, effects) else {
            return;
        };
        self.turns.insert(begun.attempt, Turn::new(now, &begun, String::new()));
        let detail = format!("the file of the prompt could not be read: {why}");
        let verdict = Verdict::failed(FailureClass::CodexStart, detail).told(Some(true));
        self.finish(now, begun.attempt, &verdict, effects);
    }

    /// Takes an attempt that is new; a known one is answered with its state.
    pub(super) fn accept(&mut self, asked: &Begin, bytes: u64, at_ms: u64, effects: &mut Vec<Effect>) -> Option<Begun> {
        let attempt = asked.attempt;
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
            turn: asked.turn,
            route: asked.route.clone(),
            thread: asked.thread.clone(),
            rollout_bytes: bytes,
            at_ms,
        };
        effects.push(Effect::Journal(Record::Begun(begun.clone())));
        effects.push(Effect::Tell(FromWorker::Begun(attempt)));
        Some(begun)
    }

    pub(super) fn interrupt(
        &mut self,
        now: Tick,
        attempt: AttemptId,
        reason: InterruptReason,
        effects: &mut Vec<Effect>,
    ) {
        let verdict = match reason {
            InterruptReason::Asked => Verdict::interrupted(),
            InterruptReason::Shutdown => Verdict::failed(FailureClass::Shutdown, "everything ends"),
        };
        self.stop(now, attempt, verdict, effects);
    }

    pub(super) fn acked(&mut self, attempt: AttemptId, effects: &mut Vec<Effect>) {
        if self.ended.remove(&attempt).is_some() {
            effects.push(Effect::Journal(Record::Acked(attempt)));
        }
    }

    pub(super) fn link_up(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        self.linked = true;
        effects.extend(self.turns.keys().map(|attempt| Effect::Tell(FromWorker::Begun(*attempt))));
        let ended: Vec<_> = self.ended.keys().copied().collect();
        for attempt in ended {
            self.tell_end(attempt, effects);
        }
        self.tell_ready(effects);
        for turn in self.turns.values_mut() {
            turn.show.again(now, effects);
        }
    }

    pub(super) fn tell_ready(&self, effects: &mut Vec<Effect>) {
        if let Some(configure) = self.configure.as_ref().filter(|_| self.linked) {
            let running = self.turns.keys().copied().collect();
            let bounds = envelope::bounds(&configure.limits, self.controllers);
            let ready = Ready { running, isolation: self.isolation, bounds };
            effects.push(Effect::Tell(FromWorker::Ready(ready)));
        }
    }

    /// Tells an outcome again.
    pub(super) fn tell_end(&self, attempt: AttemptId, effects: &mut Vec<Effect>) {
        match self.ended.get(&attempt) {
            Some((end, Some(text))) => effects.push(Effect::Finish(end.clone(), text.clone())),
            Some((end, None)) => effects.push(Effect::Tell(FromWorker::Finished(end.clone()))),
            None => {}
        }
    }

    /// Answers a steering text that Codex will not get.
    pub(super) fn not_steered(attempt: AttemptId, turn: TurnId, effects: &mut Vec<Effect>) {
        effects.push(Effect::Tell(FromWorker::Steered(Steered { attempt, turn, taken: false })));
    }
}

/// Whether this is an id of a thread. Codex takes anything else for a name, and begins a new thread if nobody bears it.
fn is_thread_id(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
