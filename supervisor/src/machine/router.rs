//! Whose message is this, may it come in, and is it a command or a turn.

use super::nouns::{
    ChatMessage, Conversation, NewUpdate, Now, PostId, PostKind, Record, Source, Update, UpdateEnd, UpdateId,
    UpdateKind,
};
use super::outbox::Draft;
use super::turns::Wish;
use super::words::{Delivery, Effect};
use super::{Machine, commands};
use protocol::AgentName;

/// Strangers that a bot remembers having told. More are not told at all: the list is what keeps us polite.
const STRANGERS_MAX: usize = 256;
/// A stranger is told again after a day. Milliseconds.
const STRANGER_AGAIN_MS: u64 = 24 * 60 * 60 * 1_000;
/// An update number so far below the expected one is a new count of Telegram's (it begins anew after a quiet week),
/// not a repetition.
const OFFSET_JUMP_MIN: i64 = 100_000;

/// Kinds of messages that a person wrote and expects an answer to.
const KINDS_TOLD: &[&str] = &[
    "animation",
    "audio",
    "contact",
    "dice",
    "document",
    "game",
    "location",
    "photo",
    "poll",
    "sticker",
    "story",
    "venue",
    "video",
    "video_note",
    "voice",
];

impl Machine {
    /// Takes an update: every one is recorded, and has its end at once or with its turn.
    pub(super) fn update(&mut self, now: Now, update: Update, effects: &mut Vec<Effect>) {
        let Some(policy) = self.setup.bots.get(&update.bot) else { return };
        let agent = policy.agent.clone();
        let bot = self.bots.entry(update.bot.clone()).or_default();
        let below = update.external < bot.offset && bot.offset - update.external < OFFSET_JUMP_MIN;
        let known = below || bot.seen.contains(&update.external);
        if known {
            return;
        }
        bot.offset = update.external.saturating_add(1);
        self.last.update += 1;
        let id = UpdateId(self.last.update);
        let kind = update.kind.clone();
        effects.push(Effect::Record(Record::Offset(update.bot.clone(), update.external.saturating_add(1))));
        effects.push(Effect::Record(Record::Update(NewUpdate { id, update, at: now.wall })));
        match kind {
            UpdateKind::Text { from, private, text } => {
                if self.is_allowed(&from) {
                    self.text(now, id, agent, &from, &text, effects);
                } else {
                    self.stranger(now, id, &from, private, effects);
                }
            }
            UpdateKind::Other { what, from } => self.other(now, id, &what, from, effects),
        }
    }

    fn is_allowed(&self, from: &ChatMessage) -> bool {
        self.setup.bots.get(&from.chat.bot).is_some_and(|bot| {
            [from.user, from.chat.chat].iter().any(|id| bot.allow.contains(id)) || bot.owners.contains(&from.user)
        })
    }

    fn stranger(&mut self, now: Now, id: UpdateId, from: &ChatMessage, private: bool, effects: &mut Vec<Effect>) {
        let why = format!("user {} in chat {} is not in allow", from.user, from.chat.chat);
        Self::end_update(now, id, UpdateEnd::Refused(why), effects);
        let bot = self.bots.entry(from.chat.bot.clone()).or_default();
        bot.strangers.retain(|_, told| now.tick < *told + STRANGER_AGAIN_MS);
        if private && bot.strangers.len() < STRANGERS_MAX && bot.strangers.insert(from.user, now.tick).is_none() {
            let text = format!(
                "This bot does not know you. Its operator can let you in by adding your id {} to `allow`.",
                from.user
            );
            self.notice(now, from, &text, effects);
        }
    }

    fn other(&mut self, now: Now, id: UpdateId, what: &str, from: Option<ChatMessage>, effects: &mut Vec<Effect>) {
        Self::end_update(now, id, UpdateEnd::Refused(format!("{what} is not handled")), effects);
        if let Some(from) = from.filter(|from| KINDS_TOLD.contains(&what) && self.is_allowed(from)) {
            let text = format!("I cannot take a {} yet, only text. Nothing was done.", what.replace('_', " "));
            self.notice(now, &from, &text, effects);
        }
    }

    fn text(
        &mut self,
        now: Now,
        id: UpdateId,
        agent: AgentName,
        from: &ChatMessage,
        text: &str,
        effects: &mut Vec<Effect>,
    ) {
        let conversation = Conversation { agent, name: conversation_name(from) };
        if let Some(command) = commands::parse(text) {
            return self.command(now, id, from, &conversation, command, effects);
        }
        let wish = Wish {
            conversation,
            source: Source::Telegram(from.clone()),
            update: Some(id),
            prompt: text.to_owned(),
            retry_of: None,
        };
        match self.accept(now, wish, effects) {
            Ok((turn, before)) => self.show_place(now, turn, before, effects),
            Err(why) => {
                Self::end_update(now, id, UpdateEnd::Refused(why.clone()), effects);
                self.notice(now, from, &format!("Not taken: {why}."), effects);
            }
        }
    }

    pub(super) fn end_update(now: Now, id: UpdateId, end: UpdateEnd, effects: &mut Vec<Effect>) {
        effects.push(Effect::Record(Record::UpdateEnded(id, end, now.wall)));
    }

    /// Answers a message at once.
    pub(super) fn notice(&mut self, now: Now, to: &ChatMessage, text: &str, effects: &mut Vec<Effect>) {
        let draft = Draft {
            turn: None,
            kind: PostKind::Notice,
            to: to.chat.clone(),
            reply_to: Some(to.message),
            edits: None,
            body: text.to_owned(),
        };
        self.outbox.post(now, draft, effects);
    }

    /// A bot's poller is well again, or not.
    pub(super) fn polling(&mut self, now: Now, name: &str, health: Result<(), String>, effects: &mut Vec<Effect>) {
        let bot = self.bots.entry(name.to_owned()).or_default();
        let fault = health.err();
        if bot.fault != fault {
            let what = match &fault {
                Some(why) => format!("bot {name}: {why}"),
                None => format!("bot {name} is heard again"),
            };
            bot.fault = fault;
            let agent = self.setup.bots.get(name).map(|bot| bot.agent.clone());
            Self::event(now, agent.as_ref(), None, what, effects);
        }
    }

    /// What became of a piece of a post.
    pub(super) fn delivered(&mut self, now: Now, id: PostId, delivery: Delivery, effects: &mut Vec<Effect>) {
        let jitter = self.random();
        if let Some(ended) = self.outbox.delivered(now, id, delivery, jitter, effects) {
            if let Some(why) = &ended.dead {
                let what = format!("post {id} ({}) is dead: {why}", ended.post.kind.as_str());
                let agent = self.setup.bots.get(&ended.post.to.bot).map(|bot| bot.agent.clone());
                Self::event(now, agent.as_ref(), ended.post.turn, what, effects);
            }
            self.status_sent(now, &ended, effects);
        }
    }
}

/// The conversation of a chat: one for each topic.
fn conversation_name(from: &ChatMessage) -> String {
    let chat = &from.chat;
    match chat.topic {
        Some(topic) => format!("telegram:{}:{}:{topic}", chat.bot, chat.chat),
        None => format!("telegram:{}:{}", chat.bot, chat.chat),
    }
}
