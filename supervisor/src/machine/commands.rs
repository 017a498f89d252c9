//! What a person can order in a chat. Answered at once, whatever runs.

use super::nouns::{ChatMessage, Conversation, Now, Record, Source, UpdateEnd, UpdateId};
use super::told::next_step;
use super::turns::Wish;
use super::words::{Asker, Effect, Recalled};
use super::{Caller, Machine, Stage};
use protocol::control::{Refused, RefusedKind, Reply, SendEvent};
use protocol::{FailureClass, TurnId};

/// A command of a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Status,
    Stop,
    New,
    Retry,
    Help,
}

const HELP: &str = "Write a message and the agent answers.\n\n\
/status: what it does, since when, what waits\n\
/stop: stop what runs in this chat\n\
/new: forget this conversation, begin a fresh one\n\
/retry: try the last message of this chat again\n\
/help: this text";

/// Reads a command; anything else, and any other word behind a slash, is a message for the agent.
pub(super) fn parse(text: &str) -> Option<Command> {
    let word = text.split_whitespace().next()?.strip_prefix('/')?;
    let word = word.split('@').next().unwrap_or(word);
    match word.to_ascii_lowercase().as_str() {
        "status" => Some(Command::Status),
        "stop" => Some(Command::Stop),
        "new" => Some(Command::New),
        "retry" => Some(Command::Retry),
        "help" | "start" => Some(Command::Help),
        _ => None,
    }
}

impl Machine {
    pub(super) fn command(
        &mut self,
        now: Now,
        id: UpdateId,
        from: &ChatMessage,
        conversation: &Conversation,
        command: Command,
        effects: &mut Vec<Effect>,
    ) {
        let text = match command {
            Command::Help => HELP.to_owned(),
            Command::Status => self.status_text(now, conversation),
            Command::Stop => self.stop_conversation(now, conversation, from, effects),
            Command::New => self.fresh(now, conversation, effects),
            Command::Retry => {
                effects.push(Effect::Recall(Asker::Chat(from.clone(), conversation.clone(), id)));
                return;
            }
        };
        Self::end_update(now, id, UpdateEnd::Answered, effects);
        self.notice(now, from, &text, effects);
    }

    fn stop_conversation(
        &mut self,
        now: Now,
        conversation: &Conversation,
        from: &ChatMessage,
        effects: &mut Vec<Effect>,
    ) -> String {
        let lane = self.lane_of(conversation);
        let running = lane.iter().copied().find(|id| {
            self.turns.get(id).is_some_and(|t| matches!(t.stage, Stage::Running { .. } | Stage::Pausing { .. }))
        });
        let waiting = lane.len() - usize::from(running.is_some());
        let Some(id) = running.or_else(|| lane.first().copied()) else {
            return "Nothing runs in this chat.".to_owned();
        };
        let by = format!("user {}", from.user);
        if waiting > 0 && self.turns.get(&id).is_some_and(|turn| turn.stopping.is_some()) {
            for other in lane.into_iter().filter(|other| *other != id) {
                self.stop_turn(now, other, &by, effects);
            }
            return format!("Still stopping what runs. Cancelled {waiting} that waited.");
        }
        self.stop_turn(now, id, &by, effects);
        match (running.is_some(), waiting) {
            (true, 0) => "Stopping.".to_owned(),
            (true, n) => format!("Stopping. {n} more wait in this chat; /stop again to stop those too."),
            (false, n) => format!("Cancelled the first of {n} that waited."),
        }
    }

    pub(super) fn lane_of(&self, conversation: &Conversation) -> Vec<TurnId> {
        let lane = self.agents.get(&conversation.agent).and_then(|agent| agent.lanes.get(&conversation.name));
        lane.into_iter().flatten().copied().collect()
    }

    fn fresh(&mut self, now: Now, conversation: &Conversation, effects: &mut Vec<Effect>) -> String {
        let thread = self.threads.entry(conversation.clone()).or_default();
        thread.id = None;
        thread.generation += 1;
        effects.push(Effect::Record(Record::Thread(conversation.clone(), None)));
        Self::event(now, Some(&conversation.agent), None, format!("fresh thread for {}", conversation.name), effects);
        if self.lane_of(conversation).is_empty() {
            "A fresh conversation begins with your next message.".to_owned()
        } else {
            "A fresh conversation begins with the next message that starts; what runs goes on in the old one."
                .to_owned()
        }
    }

    /// What the ledger knows of a turn that somebody wants to try again.
    pub(super) fn recalled(&mut self, now: Now, asker: Asker, found: Option<Recalled>, effects: &mut Vec<Effect>) {
        let result = self.again(now, &asker, found, effects);
        match asker {
            Asker::Caller(caller, _) => match result {
                Ok((turn, before)) => {
                    effects.push(Effect::Reply(caller, Reply::Event(SendEvent::Accepted { turn })));
                    if before > 0 {
                        let event = SendEvent::Queued { turn, position: before };
                        effects.push(Effect::Reply(caller, Reply::Event(event)));
                    }
                    if let Some(turn) = self.turns.get_mut(&turn) {
                        turn.callers.insert(caller);
                    }
                    self.callers.insert(caller, Caller::Turn(turn));
                }
                Err(why) => {
                    effects.push(Effect::Reply(caller, Reply::Refused(Refused { kind: RefusedKind::Failed, why })));
                }
            },
            Asker::Chat(from, _, update) => match result {
                // The new turn has the update as its own: it ends with it.
                Ok((turn, before)) => self.show_place(now, turn, before, effects),
                Err(why) => {
                    Self::end_update(now, update, UpdateEnd::Refused(why.clone()), effects);
                    self.notice(now, &from, &format!("Not tried again: {why}."), effects);
                }
            },
        }
    }

    fn again(
        &mut self,
        now: Now,
        asker: &Asker,
        found: Option<Recalled>,
        effects: &mut Vec<Effect>,
    ) -> Result<(TurnId, u32), String> {
        let Some(Recalled { turn, state }) = found else {
            return Err(match asker {
                Asker::Caller(_, id) => format!("there is no turn {id}; `cofferdam turns` lists them"),
                Asker::Chat(..) => "there is nothing to try again in this chat".into(),
            });
        };
        if !matches!(state.as_str(), "failed" | "interrupted" | "cancelled") {
            return Err(format!("turn {} is {state}; only failed and stopped turns are tried again", turn.id));
        }
        let (source, update) = match asker {
            Asker::Caller(..) => (turn.source, None),
            Asker::Chat(from, _, update) => (Source::Telegram(from.clone()), Some(*update)),
        };
        let wish =
            Wish { conversation: turn.conversation, source, update, prompt: turn.prompt, retry_of: Some(turn.id) };
        self.accept(now, wish, effects)
    }

    fn status_text(&self, now: Now, conversation: &Conversation) -> String {
        let name = &conversation.agent;
        let Some(agent) = self.agents.get(name) else { return format!("There is no agent {name}.") };
        let running = self.running_of(name);
        let state = agent.life.word(running > 0).as_str();
        let mut lines = vec![format!("Agent {name} is {state}: {running} running, {} waiting.", self.waiting_of(name))];
        if let Some(turn) = self.lane_of(conversation).first().and_then(|id| self.turns.get(id)) {
            lines.push(format!("This chat: {}.", self.doing_text(now, turn)));
        }
        if let Some(last) = agent.streak.last().filter(|last| last.streak > 0) {
            let times = if last.streak == 1 { "once".to_owned() } else { format!("{} times in a row", last.streak) };
            lines.push(format!("Last failure ({times}): {} {}", last.class, protocol::text::clip(&last.text, 200)));
            if let Some(class) = FailureClass::parse(&last.class) {
                lines
                    .push(format!("Next step: {}", next_step(class, name, TurnId(0)).replace("turns show 0", "turns")));
            }
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_known_with_a_bot_name_and_other_slashes_are_messages() {
        assert_eq!(parse("/stop"), Some(Command::Stop));
        assert_eq!(parse(" /Stop@my_bot now"), Some(Command::Stop));
        assert_eq!(parse("/start"), Some(Command::Help));
        for message in ["/compact", "stop", "/", "", "/etc/passwd is what?"] {
            assert_eq!(parse(message), None, "{message:?}");
        }
    }
}
