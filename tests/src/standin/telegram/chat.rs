//! A chat as its people see it: the messages that stand, and what happened in which order.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::params::Upload;

/// One chat with a bot.
#[derive(Debug, Clone)]
pub struct Chat {
    /// Telegram's chat id: a person's id, or negative for a group.
    pub id: i64,
    /// `private`, `group`, `supergroup` or `channel`.
    pub kind: String,
    /// The messages that stand, by id.
    pub messages: BTreeMap<i64, Shown>,
    /// Everything that happened, in order.
    pub events: Vec<Event>,
}

/// A message as it stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shown {
    /// Its id; never given twice by one bot.
    pub message_id: i64,
    /// Who wrote it; nobody but the bot has no id here.
    pub user: Option<i64>,
    /// Its text or caption.
    pub text: String,
    /// Its entities, as an array.
    pub entities: Value,
    /// Its keyboard; null if none.
    pub reply_markup: Value,
    /// The topic it stands in.
    pub thread: Option<i64>,
    /// The message it answers.
    pub reply_to: Option<i64>,
    /// How often it was edited.
    pub edits: u32,
    /// The file that came with it.
    pub document: Option<Upload>,
    /// The bot's reaction; null if none.
    pub reaction: Value,
    /// Unix seconds.
    pub date: u64,
}

/// One thing that happened in a chat.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Counts over all chats of the bot, from 1.
    pub seq: u64,
    /// Milliseconds since the server started.
    pub at_ms: u64,
    /// What it was.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A person wrote.
    Heard {
        /// Which message.
        message_id: i64,
        /// Its text.
        text: String,
    },
    /// The bot wrote.
    Sent {
        /// Which message.
        message_id: i64,
        /// Its text or caption.
        text: String,
    },
    /// The bot changed a message.
    Edited {
        /// Which message.
        message_id: i64,
        /// What it says then.
        text: String,
    },
    /// The bot deleted a message.
    Deleted {
        /// Which message.
        message_id: i64,
    },
    /// The bot showed that it does something.
    Action {
        /// `typing` and the like.
        action: String,
    },
    /// The bot reacted to a message.
    Reacted {
        /// Which message.
        message_id: i64,
    },
}

impl Chat {
    pub(crate) fn new(id: i64, kind: &str) -> Self {
        Self { id, kind: kind.to_owned(), messages: BTreeMap::new(), events: Vec::new() }
    }

    /// The bot's messages that stand, oldest first.
    pub fn from_bot(&self) -> Vec<&Shown> {
        self.messages.values().filter(|shown| shown.user.is_none()).collect()
    }

    pub(crate) fn json(&self) -> Value {
        let messages: Vec<_> = self.messages.values().map(|shown| self.message(shown, (0, "bot"))).collect();
        let events: Vec<_> = self.events.iter().map(Event::json).collect();
        json!({"id": self.id, "type": self.kind, "messages": messages, "events": events})
    }

    /// A message in the form of the Bot API; `bot` is the id and name it bears if the bot wrote it.
    pub(crate) fn message(&self, shown: &Shown, bot: (i64, &str)) -> Value {
        let from = match shown.user {
            Some(user) => {
                json!({"id": user, "is_bot": false, "first_name": format!("User {user}"), "language_code": "en"})
            }
            None => json!({"id": bot.0, "is_bot": true, "first_name": bot.1, "username": bot.1}),
        };
        let mut message = json!({
            "message_id": shown.message_id, "from": from, "chat": self.header(), "date": shown.date,
        });
        let words = if shown.document.is_some() { ["caption", "caption_entities"] } else { ["text", "entities"] };
        message[words[0]] = Value::from(shown.text.as_str());
        if shown.entities.as_array().is_some_and(|list| !list.is_empty()) {
            message[words[1]] = shown.entities.clone();
        }
        if let Some(file) = &shown.document {
            message["document"] = json!({
                "file_id": format!("file-{}", shown.message_id), "file_unique_id": format!("unique-{}", shown.message_id),
                "file_name": file.name, "file_size": file.bytes.len(),
            });
        }
        if let Some(thread) = shown.thread {
            message["message_thread_id"] = Value::from(thread);
            message["is_topic_message"] = Value::from(true);
        }
        if let Some(replied) = shown.reply_to.and_then(|id| self.messages.get(&id)) {
            let plain = Shown { reply_to: None, ..replied.clone() };
            message["reply_to_message"] = self.message(&plain, bot);
        }
        if !shown.reply_markup.is_null() {
            message["reply_markup"] = shown.reply_markup.clone();
        }
        if !shown.reaction.is_null() {
            message["reaction"] = shown.reaction.clone();
        }
        if shown.edits > 0 {
            message["edit_date"] = Value::from(shown.date);
        }
        message
    }

    fn header(&self) -> Value {
        if self.kind == "private" {
            json!({"id": self.id, "type": "private", "first_name": format!("User {}", self.id)})
        } else {
            json!({"id": self.id, "type": self.kind, "title": format!("Chat {}", self.id)})
        }
    }
}

impl Event {
    pub(crate) fn json(&self) -> Value {
        let mut event = match &self.what {
            What::Heard { message_id, text } => json!({"what": "heard", "message_id": message_id, "text": text}),
            What::Sent { message_id, text } => json!({"what": "sent", "message_id": message_id, "text": text}),
            What::Edited { message_id, text } => json!({"what": "edited", "message_id": message_id, "text": text}),
            What::Deleted { message_id } => json!({"what": "deleted", "message_id": message_id}),
            What::Action { action } => json!({"what": "action", "action": action}),
            What::Reacted { message_id } => json!({"what": "reacted", "message_id": message_id}),
        };
        event["seq"] = Value::from(self.seq);
        event["at_ms"] = Value::from(self.at_ms);
        event
    }
}
