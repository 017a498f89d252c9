//! One turn on the app-server: its thread is opened, its prompt given, its texts and its interrupt sent.
//!
//! ```text
//!  loaded here, same provider, same settings -----------------------------------+
//!  loaded here, other settings --> thread/unsubscribe, thread/resume --+        |
//!  not loaded ------------------------------------> thread/resume -----+        |
//!  no thread -------------------------------------> thread/start ------+        v
//!  another provider ------------------------------> thread/fork -------+--> turn/start --> turn/steer, turn/interrupt
//! ```
//! `turn/start` is never sent to a thread with a running turn: it would be taken for a steer.

use super::Machine;
use super::io::{Effect, Tick};
use super::session::{Ask, Loaded, Stage};
use super::turn::Turn;
use super::verdict::{PATIENCE_MS, State, Verdict};
use protocol::journal::Record;
use protocol::to_worker::{Configure, Reviewer};
use protocol::{AttemptId, Outcome, Route, Runtime, TurnId};
use serde_json::{Value, json};

/// How long a steering text or a clean-up may stay unanswered, in milliseconds: both take a few when all is well.
const ASIDE_MS: u64 = 10_000;

impl Machine {
    pub(super) fn open_thread(&mut self, now: Tick, attempt: AttemptId, effects: &mut Vec<Effect>) {
        let by = self.first_event_by(now);
        let generation = self.generation;
        let (Some(configure), Some(turn), Some(session)) =
            (&self.configure, self.turns.get_mut(&attempt), &mut self.session)
        else {
            return;
        };
        turn.child = Some(session.child);
        turn.version.clone_from(&session.version);
        turn.state = State::Opening(None);
        let mut params = thread_params(configure, &turn.route);
        let provider = turn.route.provider.clone();
        let Some(thread) = turn.thread.clone() else {
            turn.tokens_before = Some((0, 0));
            return self.ask("thread/start", &params, Ask::Open(attempt), by, effects);
        };
        turn.tokens_before = self.counted.get(&thread).copied();
        if let Some(loaded) = session.loaded.get(&thread).cloned() {
            if loaded.provider != provider {
                return self.fork(now, attempt, effects);
            }
            if loaded.generation == generation {
                return self.start_turn(now, attempt, effects);
            }
            // A thread that is still subscribed to keeps its settings whatever a resume says.
            let by = Tick(now.0.saturating_add(ASIDE_MS));
            self.ask("thread/unsubscribe", &json!({"threadId": thread}), Ask::Aside, by, effects);
        }
        if let Some(session) = &mut self.session {
            session.loaded.insert(thread.clone(), Loaded { provider, generation, model: None });
        }
        params["threadId"] = Value::from(thread);
        params["excludeTurns"] = Value::from(true);
        self.ask("thread/resume", &params, Ask::Open(attempt), by, effects);
    }

    /// Gives a turn a thread of its own with the history of the one that was asked for.
    pub(super) fn fork(&mut self, now: Tick, attempt: AttemptId, effects: &mut Vec<Effect>) {
        let (Some(configure), Some(turn)) = (&self.configure, self.turns.get_mut(&attempt)) else {
            return;
        };
        turn.forks = true;
        let mut params = thread_params(configure, &turn.route);
        params["threadId"] = Value::from(turn.thread.clone());
        params["excludeTurns"] = Value::from(true);
        self.ask("thread/fork", &params, Ask::Fork(attempt), self.first_event_by(now), effects);
    }

    /// Gives the prompt to Codex.
    pub(super) fn start_turn(&mut self, now: Tick, attempt: AttemptId, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        let mut params = json!({
            "threadId": turn.thread,
            "input": [{"type": "text", "text": std::mem::take(&mut turn.prompt)}],
        });
        let loaded = self.session.as_ref().zip(turn.thread.as_ref()).and_then(|(s, thread)| s.loaded.get(thread));
        if loaded.and_then(|loaded| loaded.model.as_ref()) != Some(&turn.route.model) {
            // Not said again to a thread that has it: Codex writes its settings anew for it, some 3 ms of a warm turn.
            params["model"] = Value::from(turn.route.model.clone());
        }
        turn.prompted = true;
        effects.push(Effect::Journal(Record::Prompted(attempt)));
        self.ask("turn/start", &params, Ask::Turn(attempt), self.first_event_by(now), effects);
    }

    /// Asks Codex to end a turn that is to stop, as soon as it can hear it: an interrupt before `turn/started` is lost.
    pub(super) fn interrupt_turn(&mut self, now: Tick, attempt: AttemptId, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        let State::Stopping(verdict, patience) = &mut turn.state else {
            return;
        };
        let by = Tick(now.0.saturating_add(verdict.patience_ms()));
        patience.get_or_insert(by);
        if let (true, Some(id)) = (turn.started, &turn.codex_id) {
            let params = json!({"threadId": turn.thread, "turnId": id});
            self.ask("turn/interrupt", &params, Ask::Interrupt(attempt), by, effects);
        }
    }

    /// Codex has heard the interrupt: it lives, and the end of the turn follows.
    pub(super) fn interrupt_heard(&mut self, now: Tick, attempt: AttemptId) {
        if let Some(State::Stopping(_, Some(by))) = self.turns.get_mut(&attempt).map(|turn| &mut turn.state) {
            *by = (*by).max(Tick(now.0.saturating_add(PATIENCE_MS)));
        }
    }

    pub(super) fn steer(&mut self, now: Tick, attempt: AttemptId, turn: TurnId, text: &str, effects: &mut Vec<Effect>) {
        let up = self.session.as_ref().is_some_and(|session| session.stage == Stage::Up);
        let running = self
            .turns
            .get(&attempt)
            .filter(|t| up && t.state == State::Running && t.route.runtime == Runtime::Codex && t.codex_id.is_some());
        let Some(running) = running else {
            return Self::not_steered(attempt, turn, effects);
        };
        let params = json!({
            "threadId": running.thread,
            "expectedTurnId": running.codex_id,
            "input": [{"type": "text", "text": text}],
        });
        let by = Tick(now.0.saturating_add(ASIDE_MS));
        self.ask("turn/steer", &params, Ask::Steer(attempt, turn), by, effects);
    }

    /// A turn ends: what was asked for it is withdrawn, what it left running is cleaned up.
    pub(super) fn leave_session(&mut self, now: Tick, turn: &Turn, verdict: &Verdict, effects: &mut Vec<Effect>) {
        let Some(session) = self.session.as_mut().filter(|session| turn.child == Some(session.child)) else {
            return;
        };
        let attempt = turn.attempt;
        let withdrawn = session.talk.withdraw(|ask| match ask {
            Ask::Steer(a, _) | Ask::Interrupt(a) => *a == attempt,
            Ask::Initialize
            | Ask::Open(_)
            | Ask::Fork(_)
            | Ask::Turn(_)
            | Ask::Archive
            | Ask::Unarchive(_)
            | Ask::Aside => false,
        });
        let usable = session.stage == Stage::Up && self.children.contains_key(&session.child);
        Self::unheard(withdrawn, effects);
        if usable && turn.prompted && verdict.outcome != Outcome::Completed {
            let by = Tick(now.0.saturating_add(ASIDE_MS));
            let params = json!({"threadId": turn.thread});
            self.ask("thread/backgroundTerminals/clean", &params, Ask::Aside, by, effects);
        }
    }

    /// Requests that will not be answered.
    pub(super) fn unheard(asks: Vec<Ask>, effects: &mut Vec<Effect>) {
        for ask in asks {
            if let Ask::Steer(attempt, turn) = ask {
                Self::not_steered(attempt, turn, effects);
            }
        }
    }
}

/// The settings of a thread, asserted each time.
fn thread_params(configure: &Configure, route: &Route) -> Value {
    let reviewer = match configure.reviewer {
        Reviewer::User => "user",
        Reviewer::Auto => "auto_review",
    };
    json!({
        "model": route.model,
        "modelProvider": route.provider,
        "approvalPolicy": configure.approval.as_str(),
        "approvalsReviewer": reviewer,
        "sandbox": configure.sandbox.as_str(),
    })
}
