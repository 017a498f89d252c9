//! How a turn goes on and comes to its one end.
//!
//! ```text
//!  stop(verdict) --> told by Codex, or the child is gone --> prove --> finish --> Effect::Finish, once
//!                    a turn that was never given to Codex ----------------^
//! ```

use super::Machine;
use super::io::{self, Effect, Tick};
use super::reset::{self, Wall};
use super::turn::Turn;
use super::verdict::{ANSWER_BYTES_MAX, After, Due, PROOF_MS, State, Verdict};
use protocol::from_worker::{Phase, Started};
use protocol::to_worker::Clocks;
use protocol::{AttemptId, FailureClass, FromWorker, Outcome, Runtime, Text};

/// Threads whose token counts are remembered: a number each, and an agent rarely has more conversations.
const THREADS_COUNTED_MAX: usize = 512;

impl Machine {
    /// Tells a turn to stop, for the reason that `verdict` gives. The first reason stands.
    pub(super) fn stop(&mut self, now: Tick, attempt: AttemptId, verdict: Verdict, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        match turn.state {
            State::Waiting => self.finish(now, attempt, &verdict, effects),
            State::Opening(_) if !turn.prompted || turn.child.is_none() => self.finish(now, attempt, &verdict, effects),
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
    pub(super) fn after(&mut self, now: Tick, attempt: AttemptId, after: After, effects: &mut Vec<Effect>) {
        match after {
            After::Nothing => {}
            After::Named(thread) => self.named(now, attempt, thread, effects),
            After::Started => self.started(now, attempt, effects),
            After::Ended(verdict) => self.told_end(now, attempt, verdict, effects),
        }
    }

    /// Codex runs the turn.
    pub(super) fn started(&mut self, now: Tick, attempt: AttemptId, effects: &mut Vec<Effect>) {
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
    pub(super) fn prove(&mut self, now: Tick, attempt: AttemptId, verdict: Verdict, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        let proof = turn.proof.clone().filter(|_| turn.prompted && verdict.wants_proof());
        let Some((thread, from_bytes)) = proof else {
            let safe = if verdict.told { verdict.safe } else { Some(false) };
            return self.finish(now, attempt, &Verdict { safe, ..verdict }, effects);
        };
        turn.state = State::Proving(verdict, Tick(now.0.saturating_add(PROOF_MS)));
        effects.push(Effect::ReadRollout { attempt, thread, from_bytes });
    }

    pub(super) fn rollout_read(
        &mut self,
        now: Tick,
        attempt: AttemptId,
        rollout: &io::Rollout,
        effects: &mut Vec<Effect>,
    ) {
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        turn.proven(rollout);
        if let State::Proving(verdict, _) = &turn.state {
            let verdict = verdict.clone();
            self.finish(now, attempt, &verdict, effects);
        }
    }

    /// The one end of a turn.
    pub(super) fn finish(&mut self, now: Tick, attempt: AttemptId, verdict: &Verdict, effects: &mut Vec<Effect>) {
        let Some(mut turn) = self.turns.remove(&attempt) else {
            return;
        };
        self.stir_disk();
        turn.show.flush(now, effects);
        self.leave_session(now, &turn, verdict, effects);
        let resets_at = self.resets_at_of(now, &turn, verdict);
        self.count_tokens(&turn);
        let (mut end, text, cut) = turn.finished(now, verdict);
        end.resets_at = resets_at;
        if cut {
            let note = format!("the answer of attempt {attempt} was longer than {ANSWER_BYTES_MAX} bytes and was cut");
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

    pub(super) fn resets_at_of(&self, now: Tick, turn: &Turn, verdict: &Verdict) -> Option<u64> {
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

    pub(super) fn count_tokens(&mut self, turn: &Turn) {
        if let (Some(thread), Some(tokens)) = (&turn.thread, turn.tokens_after) {
            self.counted.insert(thread.clone(), tokens);
            if self.counted.len() > THREADS_COUNTED_MAX {
                self.counted.pop_first();
            }
        }
    }

    pub(super) fn turn_overdue(
        &mut self,
        now: Tick,
        attempt: AttemptId,
        due: Due,
        clocks: &Clocks,
        effects: &mut Vec<Effect>,
    ) {
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
                    self.finish(now, attempt, &verdict, effects);
                }
            }
        }
    }
}
