//! Ends: of attempts, and from there of turns. An outcome is taken once; a turn ends once, in words that help.
//!
//! ```text
//!   Finished --- completed ------------------------------> end
//!            --- interrupted ----------------------------> end
//!            --- failed --- replay safe? --- retries left? --> same route again, after a pause
//!                              |                no --- fallback? --> next route at once
//!                              no                          no --> end, streak, alert
//! ```
//! A worker that leaves and never gave the prompt to Codex has not failed the turn: it goes back into its lane.

use super::lifecycle::State;
use super::nouns::{Chat, Now, PostKind, Record, Source, TurnEnd, UpdateEnd, Wall};
use super::outbox::Draft;
use super::told::{compared, counts, failure_text, finished_event, interrupted_text, next_step};
use super::words::Effect;
use super::{Caller, Going, Machine, Stage, Try, Turn};
use protocol::control::{Reply, SendEvent};
use protocol::stable::Finished;
use protocol::{AgentName, AttemptId, FailureClass, Outcome, ToWorker, TurnId};

/// Pause before the same route is tried again, in milliseconds: the provider's own trouble needs longer than ours.
const fn retry_pause_ms(class: FailureClass) -> u64 {
    match class {
        FailureClass::RateLimit => 20_000,
        FailureClass::Network | FailureClass::ModelError => 5_000,
        FailureClass::UsageLimit
        | FailureClass::Auth
        | FailureClass::BlockedPage
        | FailureClass::ModelUnknown
        | FailureClass::ProviderUnknown
        | FailureClass::ContextOverflow
        | FailureClass::CodexMissing
        | FailureClass::CodexStart
        | FailureClass::CodexExit
        | FailureClass::CodexSilent
        | FailureClass::CodexProtocol
        | FailureClass::CompactionTimeout
        | FailureClass::TurnTimeout
        | FailureClass::Budget
        | FailureClass::WorkerLost
        | FailureClass::OutOfMemory
        | FailureClass::DiskFull
        | FailureClass::Killed
        | FailureClass::Shutdown => 500,
    }
}

/// Workers that may leave under a turn that they never gave to Codex. Each is a restart that somebody wanted.
const SHUTDOWNS_MAX: usize = 8;

impl Machine {
    /// Takes an outcome, from whichever run of the worker it comes. A known one is only acknowledged; whether it was
    /// new is returned.
    pub(super) fn finished(&mut self, now: Now, name: &AgentName, end: &Finished, effects: &mut Vec<Effect>) -> bool {
        let attempt = end.attempt;
        let running = self.turn_of(attempt, name).map(|turn| turn.new.id);
        if let Some(id) = running {
            effects.push(Effect::Record(Record::AttemptEnded(Box::new(end.clone()), now.wall)));
            self.start_is_over(now, name, end.outcome);
            self.follow(now, id, end, effects);
        }
        effects.push(Effect::Tell(name.clone(), ToWorker::Ack(attempt)));
        running.is_some()
    }

    /// An attempt's end is also that of its start. Of a failure Codex may have died.
    fn start_is_over(&mut self, now: Now, name: &AgentName, outcome: Outcome) {
        match outcome {
            Outcome::Completed => self.admission.started(now.tick, name),
            Outcome::Interrupted => self.admission.ended(now.tick, name),
            Outcome::Failed(_) => {
                self.admission.ended(now.tick, name);
                if let Some(agent) = self.agents.get_mut(name) {
                    agent.warm = false;
                }
            }
        }
    }

    /// An attempt whose outcome nobody can tell any more, with the one that it gets.
    pub(super) fn lost(&mut self, now: Now, mut end: Finished, effects: &mut Vec<Effect>) {
        let Some(id) = self.attempts.get(&end.attempt).copied() else { return };
        end.turn = id;
        effects.push(Effect::Record(Record::AttemptEnded(Box::new(end.clone()), now.wall)));
        self.follow(now, id, &end, effects);
    }

    /// What follows from an attempt's end.
    fn follow(&mut self, now: Now, id: TurnId, end: &Finished, effects: &mut Vec<Effect>) {
        self.attempts.remove(&end.attempt);
        let Some(turn) = self.turns.get_mut(&id) else { return };
        if let Some(last) = turn.tries.last_mut() {
            last.outcome = Some(end.outcome);
        }
        turn.doing = None;
        self.keep_thread(id, end, effects);
        match end.outcome {
            Outcome::Completed => self.completed(now, id, end, effects),
            Outcome::Interrupted => self.end_turn(now, id, end, effects),
            Outcome::Failed(class) if end.replay_safe && self.try_again(now, id, class, effects) => {}
            Outcome::Failed(class) => self.failed(now, id, class, end, effects),
        }
    }

    fn keep_thread(&mut self, id: TurnId, end: &Finished, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get(&id) else { return };
        let Some(thread) = end.thread.as_ref() else { return };
        let current = self.threads.entry(turn.new.conversation.clone()).or_default();
        if current.generation == turn.generation && current.id.as_ref() != Some(thread) {
            current.id = Some(thread.clone());
            effects.push(Effect::Record(Record::Thread(turn.new.conversation.clone(), Some(thread.clone()))));
        }
    }

    fn completed(&mut self, now: Now, id: TurnId, end: &Finished, effects: &mut Vec<Effect>) {
        let name = self.turns.get(&id).map(|turn| turn.new.conversation.agent.clone());
        if let Some(agent) = name.and_then(|name| self.agents.get_mut(&name)) {
            agent.streak.completed();
        }
        self.end_turn(now, id, end, effects);
    }

    /// Whether the turn goes on by itself: on the same route, or on the next.
    fn try_again(&mut self, now: Now, id: TurnId, class: FailureClass, effects: &mut Vec<Effect>) -> bool {
        let Some(turn) = self.turns.get_mut(&id) else { return false };
        let name = turn.new.conversation.agent.clone();
        let Some(agent) = self.agents.get(&name) else { return false };
        if turn.stopping.is_some() || matches!(agent.life.state(), State::Failed) {
            return false;
        }
        if self.going != Going::Staying && class != FailureClass::Shutdown {
            return false;
        }
        let routes = self.setup.agents.get(&name).map_or(0, |agent| agent.routes.len());
        let Some(pause) = turn.go_on(class, routes) else { return false };
        let what = if pause > 0 { "the same route is tried again" } else { "the next route is tried" };
        turn.stage = Stage::Pausing { until: now.tick + pause };
        Self::event(now, Some(&name), Some(id), format!("{class}: {what}"), effects);
        true
    }

    fn failed(&mut self, now: Now, id: TurnId, class: FailureClass, end: &Finished, effects: &mut Vec<Effect>) {
        let Some(name) = self.turns.get(&id).map(|turn| turn.new.conversation.agent.clone()) else { return };
        let alert_after = self.setup.alert_after;
        if let Some(agent) = self.agents.get_mut(&name) {
            let text = compared(class, &end.detail);
            if counts(class) && agent.streak.failed(class, &text, Some(id), now.wall, alert_after) {
                let text = protocol::text::clip(&text, 300).to_owned();
                self.alert(
                    now,
                    &name,
                    &format!(
                        "⚠️ Agent {name} failed {alert_after} times in a row with {class}: {text}\nNext: {}",
                        next_step(class, &name, id)
                    ),
                    effects,
                );
            }
        }
        self.end_turn(now, id, end, effects);
    }

    /// Tells the owners of every bot of an agent.
    pub(super) fn alert(&mut self, now: Now, name: &AgentName, text: &str, effects: &mut Vec<Effect>) {
        Self::event(now, Some(name), None, format!("alert: {text}"), effects);
        let owners: Vec<Chat> = self
            .setup
            .bots
            .iter()
            .filter(|(_, bot)| bot.agent == *name)
            .flat_map(|(key, bot)| bot.owners.iter().map(|o| Chat { bot: key.clone(), chat: *o, topic: None }))
            .collect();
        for to in owners {
            let draft =
                Draft { turn: None, kind: PostKind::Alert, to, reply_to: None, edits: None, body: text.to_owned() };
            self.outbox.post(now, draft, effects);
        }
    }

    fn end_turn(&mut self, now: Now, id: TurnId, end: &Finished, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get(&id) else { return };
        let text = match end.outcome {
            Outcome::Completed => end.text.head().to_owned(),
            Outcome::Interrupted => {
                let by = turn.stopping.as_ref().map_or("somebody", |(by, _)| by.as_str());
                interrupted_text(by, end)
            }
            Outcome::Failed(class) => failure_text(class, end),
        };
        let update = match end.outcome {
            Outcome::Completed => UpdateEnd::Answered,
            Outcome::Interrupted => UpdateEnd::Cancelled("the turn was stopped".into()),
            Outcome::Failed(_) => UpdateEnd::Failed,
        };
        self.tell_callers(now.wall, id, end.outcome, &text, end.thread.clone(), effects);
        self.post_end(now, id, end.outcome, &text, effects);
        self.close(now, id, &TurnEnd::Outcome(end.outcome), text, update, effects);
    }

    /// Ends a turn that never ran.
    pub(super) fn cancel(&mut self, now: Now, id: TurnId, why: String, effects: &mut Vec<Effect>) {
        self.tell_callers(now.wall, id, Outcome::Interrupted, &why, None, effects);
        self.post_end(now, id, Outcome::Interrupted, &why, effects);
        let update = UpdateEnd::Cancelled(why.clone());
        self.close(now, id, &TurnEnd::Cancelled(why.clone()), why, update, effects);
    }

    /// Ends a turn that cannot run.
    pub(super) fn fail_waiting(
        &mut self,
        now: Now,
        id: TurnId,
        class: FailureClass,
        why: &str,
        effects: &mut Vec<Effect>,
    ) {
        let mut end = Finished::new(AttemptId(0), id, Outcome::Failed(class));
        why.clone_into(&mut end.detail);
        end.replay_safe = true;
        self.end_turn(now, id, &end, effects);
    }

    /// The one place where a turn leaves the machine.
    pub(super) fn close(
        &mut self,
        now: Now,
        id: TurnId,
        end: &TurnEnd,
        text: String,
        update: UpdateEnd,
        effects: &mut Vec<Effect>,
    ) {
        self.end_status(now, id, effects);
        let Some(turn) = self.turns.remove(&id) else { return };
        effects.push(Effect::Record(Record::TurnEnded(id, end.clone(), text, now.wall)));
        if let Some(row) = turn.new.update {
            effects.push(Effect::Record(Record::UpdateEnded(row, update, now.wall)));
        }
        if let Stage::Running { attempt, .. } = turn.stage {
            self.attempts.remove(&attempt);
        }
        if let Some(agent) = self.agents.get_mut(&turn.new.conversation.agent)
            && let Some(lane) = agent.lanes.get_mut(&turn.new.conversation.name)
        {
            lane.retain(|waiting| *waiting != id);
            let rest: Vec<TurnId> = lane.iter().copied().collect();
            if lane.is_empty() {
                agent.lanes.remove(&turn.new.conversation.name);
            }
            // What was offered to a turn that is over waits for its own.
            let runs = rest.first().and_then(|head| self.turns.get(head)).is_some_and(Turn::runs);
            for waiting in rest.iter().filter(|_| !runs) {
                if let Some(next) = self.turns.get_mut(waiting).filter(|next| next.stage == Stage::Offered) {
                    next.stage = Stage::Queued;
                }
            }
        }
    }

    fn tell_callers(
        &mut self,
        wall: Wall,
        id: TurnId,
        outcome: Outcome,
        text: &str,
        thread: Option<String>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(turn) = self.turns.get_mut(&id) else { return };
        let callers = std::mem::take(&mut turn.callers);
        let event = finished_event(turn, wall, outcome, text, thread);
        for caller in callers {
            effects.push(Effect::Reply(caller, Reply::Event(SendEvent::Finished(Box::new(event.clone())))));
            effects.push(Effect::Reply(caller, Reply::Done));
            if matches!(self.callers.get(&caller), Some(Caller::Turn(of)) if *of == id) {
                self.callers.remove(&caller);
            }
        }
    }

    fn post_end(&mut self, now: Now, id: TurnId, outcome: Outcome, text: &str, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turns.get(&id) else { return };
        let Source::Telegram(message) = &turn.new.source else { return };
        let mut body = match outcome {
            Outcome::Completed => text.to_owned(),
            Outcome::Interrupted => format!("⏹ {text}"),
            Outcome::Failed(_) => format!("⚠️ {text}\n/retry tries it again."),
        };
        if let (Some(last), Outcome::Completed) = (turn.tries.last(), outcome)
            && turn.route > 0
        {
            body.push_str("\n\n_answered by ");
            body.push_str(&last.route.to_string().replace('_', "\\_"));
            body.push('_');
        }
        let draft = Draft {
            turn: Some(id),
            kind: PostKind::Final,
            to: message.chat.clone(),
            reply_to: Some(message.message),
            edits: None,
            body,
        };
        self.outbox.post(now, draft, effects);
    }
}

impl Turn {
    /// What follows a failure that may be replayed: the pause before the next try in milliseconds, 0 if it is on another
    /// route; `None` if nothing is left to try. The last try has its outcome already.
    pub(super) fn go_on(&mut self, class: FailureClass, routes: usize) -> Option<u64> {
        let policy = class.policy();
        if class == FailureClass::Shutdown {
            let shut = |t: &&Try| t.outcome == Some(Outcome::Failed(FailureClass::Shutdown));
            return (self.tries.iter().filter(shut).count() <= SHUTDOWNS_MAX).then_some(retry_pause_ms(class));
        }
        if self.route_tries < policy.retries {
            self.route_tries += 1;
            Some(retry_pause_ms(class))
        } else if policy.falls_back && self.route + 1 < routes {
            self.route += 1;
            self.route_tries = 0;
            Some(0)
        } else {
            None
        }
    }
}
