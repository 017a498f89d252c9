//! What the app-server says, brought to the turn that it is about.
//!
//! ```text
//!  line --> answer --------> the request's purpose (session.rs)
//!       --> request -------> approval.rs, answered at once
//!       --> notification --> threadId and turnId --> the turn; of other turns and threads: nothing
//! ```

use super::Machine;
use super::app_server::{Heard, reply};
use super::event::{Event, Kind, item};
use super::io::{ChildId, Effect, LINE_ENDLESS_BYTES, Tick};
use super::session::{Ask, Loaded, Stage};
use super::turn::BAD_LINES_MAX;
use super::verdict::{State, Verdict};
use super::{approval, failure};
use protocol::from_worker::Steered;
use protocol::{AttemptId, FailureClass, FromWorker, Runtime};
use serde_json::Value;

impl Machine {
    /// A line of a child.
    pub(super) fn line(&mut self, now: Tick, child: ChildId, line: &str, effects: &mut Vec<Effect>) {
        let Some(session) = self.session.as_mut().filter(|session| session.child == child) else {
            return self.exec_line(now, child, line, effects);
        };
        match session.talk.read(line) {
            Ok(Heard::Answered(ask, answer)) => self.answered(now, ask, answer, effects),
            Ok(Heard::Asked(id, method, params)) => {
                let answer = approval::answer(&method, &params);
                effects.push(Effect::Write(child, reply(&id, &answer.result)));
                self.refused(now, &params, answer.refused, effects);
            }
            Ok(Heard::Notified(method, params)) => self.notified(now, &method, &params, effects),
            Ok(Heard::Stray) => {}
            Err(_) => self.bad_session_line(now, effects),
        }
    }

    pub(super) fn line_too_long(&mut self, now: Tick, child: ChildId, bytes: u64, effects: &mut Vec<Effect>) {
        if !self.children.contains_key(&child) {
            return;
        }
        let note = format!("Codex wrote a line of {bytes} bytes, which was dropped");
        effects.push(Effect::Tell(FromWorker::Note(note)));
        let attempt = self.children.get(&child).and_then(|record| record.attempt);
        let endless = || Verdict::failed(FailureClass::CodexProtocol, "a line without an end");
        match attempt {
            Some(attempt) if bytes >= LINE_ENDLESS_BYTES => self.stop(now, attempt, endless(), effects),
            Some(attempt) => self.bad_line(now, attempt, effects),
            None if bytes >= LINE_ENDLESS_BYTES => self.give_up_session(now, &endless(), effects),
            None => self.bad_session_line(now, effects),
        }
    }

    fn bad_session_line(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let Some(session) = &mut self.session else {
            return;
        };
        session.bad_lines = session.bad_lines.saturating_add(1);
        if session.bad_lines != BAD_LINES_MAX + 1 {
            return;
        }
        let verdict = Verdict::failed(FailureClass::CodexProtocol, "more lines than can be forgiven were no messages");
        self.give_up_session(now, &verdict, effects);
    }

    /// Ends the app-server that does not keep to its word, and all that it was to do.
    fn give_up_session(&mut self, now: Tick, verdict: &Verdict, effects: &mut Vec<Effect>) {
        let Some(session) = &self.session else { return };
        let (child, starting) = (session.child, session.stage == Stage::Starting);
        if starting {
            self.fail_waiting(now, &verdict.clone().told(Some(true)), effects);
        }
        for attempt in self.attempts_on(child) {
            self.stop(now, attempt, verdict.clone(), effects);
        }
        self.end_child(now, child, effects);
    }

    fn attempts_on(&self, child: ChildId) -> Vec<AttemptId> {
        self.turns.values().filter(|turn| turn.child == Some(child)).map(|turn| turn.attempt).collect()
    }

    fn answered(&mut self, now: Tick, ask: Ask, answer: Result<Value, String>, effects: &mut Vec<Effect>) {
        match ask {
            Ask::Initialize => self.initialized(now, answer, effects),
            Ask::Open(attempt) => match answer {
                Ok(answer) => self.opened(now, attempt, &answer, effects),
                Err(error) => self.not_opened(now, attempt, &error, effects),
            },
            Ask::Fork(attempt) => match answer {
                Ok(answer) => self.opened(now, attempt, &answer, effects),
                Err(error) => self.refused_turn(now, attempt, &error, effects),
            },
            Ask::Turn(attempt) => match answer {
                Ok(answer) => self.turn_named(now, attempt, &answer),
                Err(error) => {
                    self.forget_model(attempt);
                    self.refused_turn(now, attempt, &error, effects);
                }
            },
            Ask::Steer(attempt, turn) => {
                let taken = answer.is_ok();
                effects.push(Effect::Tell(FromWorker::Steered(Steered { attempt, turn, taken })));
            }
            Ask::Archive => self.archived(answer),
            Ask::Unarchive(attempt) => match answer {
                Ok(_) => self.brought_back(now, attempt, effects),
                Err(error) => self.refused_turn(now, attempt, &error, effects),
            },
            Ask::Interrupt(attempt) if answer.is_ok() => self.interrupt_heard(now, attempt),
            Ask::Interrupt(_) | Ask::Aside => {}
        }
    }

    /// A thread is there: the prompt may go to it, if it is the right one on the right provider.
    fn opened(&mut self, now: Tick, attempt: AttemptId, answer: &Value, effects: &mut Vec<Effect>) {
        let text = |path: &str| answer.pointer(path).and_then(Value::as_str).unwrap_or("").to_owned();
        let (thread, provider) = (text("/thread/id"), text("/modelProvider"));
        let generation = self.generation;
        if let Some(session) = self.session.as_mut().filter(|_| !thread.is_empty()) {
            session.loaded.insert(thread.clone(), Loaded { provider: provider.clone(), generation, model: None });
        }
        let Some(turn) = self.turns.get_mut(&attempt).filter(|turn| matches!(turn.state, State::Opening(_))) else {
            return;
        };
        let asked = turn.thread.clone().filter(|_| !turn.forks);
        let wanted = turn.route.provider.clone();
        let wrong = if thread.is_empty() {
            Some("Codex opened a thread without naming it".to_owned())
        } else if asked.as_ref().is_some_and(|asked| *asked != thread) {
            Some(format!("thread {} was to be resumed, but {thread} was", asked.clone().unwrap_or_default()))
        } else if provider != wanted && turn.forks {
            Some(format!("provider {wanted} was asked for, but Codex took {provider}"))
        } else {
            None
        };
        if let Some(detail) = wrong {
            let verdict = Verdict::failed(FailureClass::CodexProtocol, detail).told(Some(true));
            return self.finish(now, attempt, &verdict, effects);
        }
        if provider != wanted && asked.is_some() {
            return self.fork(now, attempt, effects);
        }
        if provider != wanted {
            let detail = format!("provider {wanted} was asked for, but Codex took {provider}");
            let verdict = Verdict::failed(FailureClass::CodexProtocol, detail).told(Some(true));
            return self.finish(now, attempt, &verdict, effects);
        }
        if asked.is_none() {
            self.adopt_thread(attempt, thread, effects);
        }
        self.start_turn(now, attempt, effects);
    }

    fn not_opened(&mut self, now: Tick, attempt: AttemptId, error: &str, effects: &mut Vec<Effect>) {
        let thread = self.turns.get(&attempt).and_then(|turn| turn.thread.clone());
        if let (Some(session), Some(thread)) = (&mut self.session, &thread) {
            session.loaded.remove(thread);
        }
        let archived =
            thread.is_some() && self.turns.get_mut(&attempt).is_some_and(|turn| turn.has_to_come_back(error));
        if thread.is_some() && failure::wants_fork(error) {
            self.fork(now, attempt, effects);
        } else if archived {
            self.bring_back(now, attempt, effects);
        } else {
            self.refused_turn(now, attempt, error, effects);
        }
    }

    /// Codex refused a thread or a turn: nothing of it ran.
    fn refused_turn(&mut self, now: Tick, attempt: AttemptId, error: &str, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get(&attempt) else {
            return;
        };
        let verdict = match &turn.state {
            State::Stopping(verdict, _) => verdict.clone(),
            State::Waiting | State::Opening(_) | State::Running => Verdict::failed(failure::of_refusal(error), error),
            State::Proving(..) => return,
        };
        self.finish(now, attempt, &verdict.told(Some(true)), effects);
    }

    /// Nobody knows what a turn that was refused has left of its settings.
    fn forget_model(&mut self, attempt: AttemptId) {
        let thread = self.turns.get(&attempt).and_then(|turn| turn.thread.as_ref());
        let loaded = self.session.as_mut().zip(thread).and_then(|(session, thread)| session.loaded.get_mut(thread));
        if let Some(loaded) = loaded {
            loaded.model = None;
        }
    }

    fn turn_named(&mut self, now: Tick, attempt: AttemptId, answer: &Value) {
        let by = self.first_event_by(now);
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        turn.codex_id = answer.pointer("/turn/id").and_then(Value::as_str).map(str::to_owned);
        let loaded = self.session.as_mut().zip(turn.thread.as_ref()).and_then(|(s, thread)| s.loaded.get_mut(thread));
        if let Some(loaded) = loaded {
            loaded.model = Some(turn.route.model.clone());
        }
        if let State::Opening(first_event) = &mut turn.state {
            *first_event = Some(by);
        }
    }

    /// Something that a person could have allowed was refused.
    fn refused(&mut self, now: Tick, params: &Value, refused: Option<String>, effects: &mut Vec<Effect>) {
        let Some(refused) = refused else {
            return;
        };
        let Some(attempt) = self.attempt_of(params) else {
            return;
        };
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        let words = format!("refused, as nobody can be asked: {refused}");
        turn.say(now, turn.show.phase(), &words, effects);
        if !std::mem::replace(&mut turn.refusal_noted, true) {
            let note = super::redact::clean(&format!("attempt {attempt}: {words}"), super::redact::DETAIL_BYTES_MAX);
            effects.push(Effect::Tell(FromWorker::Note(note)));
        }
    }

    /// The attempt whose thread a message is about; `conversationId` is the older name.
    fn attempt_of(&self, params: &Value) -> Option<AttemptId> {
        let thread = ["threadId", "conversationId"].iter().find_map(|key| params.get(key).and_then(Value::as_str))?;
        let child = self.session.as_ref()?.child;
        let mut turns = self.turns.values().filter(|turn| turn.route.runtime == Runtime::Codex);
        turns.find(|turn| turn.child == Some(child) && turn.thread.as_deref() == Some(thread)).map(|turn| turn.attempt)
    }

    fn notified(&mut self, now: Tick, method: &str, params: &Value, effects: &mut Vec<Effect>) {
        if method == "account/rateLimits/updated" {
            return self.limits_updated(params);
        }
        if method == "thread/closed"
            && let (Some(session), Some(thread)) = (&mut self.session, params.get("threadId").and_then(Value::as_str))
        {
            session.loaded.remove(thread);
        }
        let Some(attempt) = self.attempt_of(params) else {
            return;
        };
        let Some(turn) = self.turns.get_mut(&attempt) else {
            return;
        };
        let of_turn = params.get("turnId").or_else(|| params.pointer("/turn/id")).and_then(Value::as_str);
        let ours = match (of_turn, turn.codex_id.as_deref()) {
            (Some(theirs), Some(ours)) => theirs == ours,
            // Before the answer to turn/start, whatever runs on the thread is not ours.
            (Some(_), None) => false,
            (None, _) => true,
        };
        if !ours {
            return;
        }
        if method == "thread/tokenUsage/updated" && turn.tokens_before.is_none() {
            turn.tokens_before = before(params);
        }
        let event = read(method, params);
        if method == "turn/completed"
            && let Some(text) = last_message(params).filter(|_| !turn.has_answer())
        {
            turn.take(now, Event::ItemCompleted { id: String::new(), kind: Kind::Message, what: text }, effects);
        }
        self.unmatched += u64::from(matches!(event, Event::Failed(_, false, _)));
        let after = turn.take(now, event, effects);
        self.after(now, attempt, after, effects);
    }

    /// Keeps the last reset time of a window that is full, or of the nearest to it; windows without one say nothing.
    fn limits_updated(&mut self, params: &Value) {
        let windows = ["primary", "secondary"].into_iter().filter_map(|name| {
            let window = params.get("rateLimits")?.get(name)?;
            let used = window.get("usedPercent").and_then(Value::as_f64).unwrap_or(0.0);
            Some((used >= 100.0, window.get("resetsAt").and_then(Value::as_u64)?))
        });
        if let Some((_, at)) = windows.max() {
            self.resets_at = Some(at);
        }
    }
}

/// A notification of a turn as news.
fn read(method: &str, params: &Value) -> Event {
    let text = |path: &str| params.pointer(path).and_then(Value::as_str).unwrap_or("").to_owned();
    match method {
        "turn/started" => Event::TurnStarted,
        "turn/completed" => match text("/turn/status").as_str() {
            "completed" => Event::Completed(None),
            "interrupted" => Event::Interrupted,
            _ => failed(params.pointer("/turn/error").unwrap_or(&Value::Null)),
        },
        "item/started" => {
            let (kind, what) = item(params.get("item").unwrap_or(&Value::Null));
            Event::ItemStarted { id: text("/item/id"), kind, what }
        }
        "item/completed" => {
            let (kind, what) = item(params.get("item").unwrap_or(&Value::Null));
            Event::ItemCompleted { id: text("/item/id"), kind, what }
        }
        "item/agentMessage/delta" => Event::Delta(text("/delta")),
        "thread/tokenUsage/updated" => match counts(params, "total") {
            Some((read, written)) => Event::Usage(read, written),
            None => Event::Alive,
        },
        "error" if params.get("willRetry").and_then(Value::as_bool) == Some(true) => {
            Event::Retrying(format!("{} {}", text("/error/message"), text("/error/additionalDetails")))
        }
        "error" => Event::Warning(text("/error/message")),
        "warning" | "guardianWarning" => Event::Warning(text("/message")),
        _ => Event::Alive,
    }
}

fn failed(error: &Value) -> Event {
    let message = error.get("message").and_then(Value::as_str).unwrap_or("Codex ended the turn without saying why");
    let named = failure::of_info(error.get("codexErrorInfo").unwrap_or(&Value::Null), message);
    let detail = match error.get("additionalDetails").and_then(Value::as_str) {
        Some(more) if !more.is_empty() => format!("{message} ({more})"),
        Some(_) | None => message.to_owned(),
    };
    Event::Failed(named.class, named.matched, detail)
}

/// Tokens of a kind, `total` or `last`: read, written.
fn counts(params: &Value, which: &str) -> Option<(u64, u64)> {
    let usage = params.pointer(&format!("/tokenUsage/{which}"))?;
    Some((usage.get("inputTokens")?.as_u64()?, usage.get("outputTokens")?.as_u64()?))
}

/// Tokens of the thread before the request that an update tells of.
fn before(params: &Value) -> Option<(u64, u64)> {
    let (total, last) = (counts(params, "total")?, counts(params, "last")?);
    Some((total.0.saturating_sub(last.0), total.1.saturating_sub(last.1)))
}

/// The last message among the items of an end.
fn last_message(params: &Value) -> Option<String> {
    let items = params.pointer("/turn/items")?.as_array()?;
    let message = items.iter().rev().map(item).find(|(kind, _)| *kind == Kind::Message)?;
    Some(message.1)
}
