//! A bot's account as Telegram keeps it: waiting updates, chats, and every call that the bot made.
//!
//! ```text
//!  person writes -> updates [11 12 13]  --getUpdates(offset 12)-->  12 13      (11 is confirmed, and gone for ever)
//!                     `- not confirmed: handed out again at the next poll
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use serde_json::{Value, json};

use super::chat::{Chat, Event, Shown, What};
use super::fault::Fault;

/// Calls kept for tests to look at: bounds a long benchmark.
pub const CALLS_KEPT_MAX: usize = 10_000;
/// The first update id: anything but 1, as with the real server.
const UPDATE_FIRST: i64 = 700_000_001;

/// One bot as Telegram keeps it.
#[derive(Debug)]
pub struct Account {
    pub(crate) id: i64,
    pub(crate) username: String,
    pub(crate) updates: VecDeque<(i64, Value)>,
    pub(crate) next_update: i64,
    /// The highest update that the bot has confirmed.
    pub(crate) confirmed: i64,
    /// Counts polls: an earlier one that still waits is told of the conflict.
    pub(crate) poll: u64,
    pub(crate) polling: u32,
    pub(crate) webhook: String,
    pub(crate) commands: Value,
    pub(crate) faults: Vec<Fault>,
    pub(crate) chats: BTreeMap<i64, Chat>,
    pub(crate) files: BTreeMap<String, Bytes>,
    pub(crate) next_message: i64,
    calls: VecDeque<Call>,
    call_seq: u64,
    event_seq: u64,
    started: Instant,
}

/// One call that the bot made.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Counts from 1, in order of arrival.
    pub seq: u64,
    /// Milliseconds since the server started.
    pub at_ms: u64,
    /// The method as called.
    pub method: String,
    /// Its parameters; files by name and size.
    pub params: Value,
    /// The answer's status; none while it is open, or if the connection was cut.
    pub status: Option<u16>,
    /// Whether the call took effect.
    pub done: bool,
}

/// What a person writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writing {
    /// The chat; the same as the person's id in a private one.
    pub chat: i64,
    /// The person; the chat's id if none is given.
    pub user: Option<i64>,
    /// The chat's type when it is new: `private` unless it is given or the id is negative.
    pub kind: Option<String>,
    /// The topic.
    pub thread: Option<i64>,
    /// The message it answers.
    pub reply_to: Option<i64>,
    /// The text.
    pub text: String,
}

impl Writing {
    /// A plain text in a private chat.
    pub fn private(person: i64, text: &str) -> Self {
        Self { chat: person, user: None, kind: None, thread: None, reply_to: None, text: text.to_owned() }
    }
}

/// The ids that a person's message got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The update that carries it.
    pub update_id: i64,
    /// The message.
    pub message_id: i64,
}

impl Account {
    #[expect(clippy::disallowed_methods, reason = "a stand-in lives in the real world's time")]
    pub(crate) fn new(token: &str, username: &str) -> Self {
        let id = token.split(':').next().and_then(|id| id.parse().ok()).unwrap_or(1);
        Self {
            id,
            username: username.to_owned(),
            updates: VecDeque::new(),
            next_update: UPDATE_FIRST,
            confirmed: 0,
            poll: 0,
            polling: 0,
            webhook: String::new(),
            commands: json!([]),
            faults: Vec::new(),
            chats: BTreeMap::new(),
            files: BTreeMap::new(),
            next_message: 1,
            calls: VecDeque::new(),
            call_seq: 0,
            event_seq: 0,
            started: Instant::now(),
        }
    }

    /// A chat, if anything happened in it.
    pub fn chat(&self, id: i64) -> Option<&Chat> {
        self.chats.get(&id)
    }

    /// The bot's calls, oldest first (the last [`CALLS_KEPT_MAX`]).
    pub fn calls(&self) -> impl DoubleEndedIterator<Item = &Call> {
        self.calls.iter()
    }

    /// How many updates wait to be confirmed.
    pub fn unconfirmed(&self) -> usize {
        self.updates.len()
    }

    /// The highest confirmed update id; 0 before the first.
    pub fn confirmed(&self) -> i64 {
        self.confirmed
    }

    /// How many polls wait for updates: 0 if the bot is deaf.
    pub fn polls_open(&self) -> u32 {
        self.polling
    }

    /// Queues an update. One without `update_id` gets the next; what is no object goes out as it is.
    pub(crate) fn push(&mut self, mut update: Value) -> i64 {
        let given = update.get("update_id").and_then(Value::as_i64);
        let id = given.unwrap_or(self.next_update);
        self.next_update = self.next_update.max(id.saturating_add(1));
        if given.is_none()
            && let Some(fields) = update.as_object_mut()
        {
            fields.insert("update_id".to_owned(), Value::from(id));
        }
        self.updates.push_back((id, update));
        id
    }

    /// Drops what the bot confirms by asking from `offset` on.
    pub(crate) fn confirm(&mut self, offset: i64) {
        if offset < 0 {
            let keep = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
            let gone = self.updates.len().saturating_sub(keep);
            self.confirmed = self.updates.drain(..gone).map(|(id, _)| id).max().unwrap_or(self.confirmed);
        } else if offset > 0 {
            self.updates.retain(|(id, _)| *id >= offset);
            self.confirmed = self.confirmed.max(offset - 1);
        }
    }

    pub(crate) fn hear(&mut self, writing: Writing) -> Written {
        let message_id = self.message_id();
        let user = writing.user.unwrap_or(writing.chat);
        let entities = match writing.text.split_whitespace().next() {
            Some(word) if word.starts_with('/') => {
                json!([{"type": "bot_command", "offset": 0, "length": super::markup::units(word)}])
            }
            Some(_) | None => json!([]),
        };
        let shown = Shown {
            message_id,
            user: Some(user),
            text: writing.text,
            entities,
            thread: writing.thread,
            reply_to: writing.reply_to,
            date: unix_seconds(),
            ..Shown::default()
        };
        let kind = writing.kind.unwrap_or_else(|| if writing.chat < 0 { "supergroup" } else { "private" }.to_owned());
        let chat = self.chats.entry(writing.chat).or_insert_with(|| Chat::new(writing.chat, &kind));
        let message = chat.message(&shown, (self.id, &self.username));
        let text = shown.text.clone();
        chat.messages.insert(message_id, shown);
        self.happened(writing.chat, What::Heard { message_id, text });
        Written { update_id: self.push(json!({"message": message})), message_id }
    }

    /// A person changes what they wrote.
    pub(crate) fn rewrite(&mut self, chat: i64, message_id: i64, text: &str) -> Option<i64> {
        let chat = self.chats.get_mut(&chat)?;
        let shown = chat.messages.get_mut(&message_id)?;
        text.clone_into(&mut shown.text);
        shown.edits += 1;
        let shown = shown.clone();
        let message = chat.message(&shown, (self.id, &self.username));
        Some(self.push(json!({"edited_message": message})))
    }

    /// A person presses a button under a message.
    pub(crate) fn press(&mut self, chat: i64, message_id: i64, user: i64, data: &str) -> Option<i64> {
        let chat = self.chats.get(&chat)?;
        let message = chat.message(chat.messages.get(&message_id)?, (self.id, &self.username));
        let query = json!({
            "id": format!("query-{}", self.next_update), "chat_instance": "1", "data": data, "message": message,
            "from": {"id": user, "is_bot": false, "first_name": format!("User {user}")},
        });
        Some(self.push(json!({"callback_query": query})))
    }

    pub(crate) fn message_id(&mut self) -> i64 {
        self.next_message += 1;
        self.next_message - 1
    }

    pub(crate) fn happened(&mut self, chat: i64, what: What) {
        self.event_seq += 1;
        let event = Event { seq: self.event_seq, at_ms: self.at_ms(), what };
        self.chats.entry(chat).or_insert_with(|| Chat::new(chat, "private")).events.push(event);
    }

    pub(crate) fn called(&mut self, method: &str, params: Value) -> u64 {
        self.call_seq += 1;
        if self.calls.len() == CALLS_KEPT_MAX {
            self.calls.pop_front();
        }
        let (seq, at_ms) = (self.call_seq, self.at_ms());
        self.calls.push_back(Call { seq, at_ms, method: method.to_owned(), params, status: None, done: false });
        seq
    }

    pub(crate) fn settle(&mut self, seq: u64, status: Option<u16>, done: bool) {
        if let Some(call) = self.calls.iter_mut().rev().find(|call| call.seq == seq) {
            call.status = status.or(call.status);
            call.done |= done;
        }
    }

    pub(crate) fn story(&self) -> String {
        use std::fmt::Write as _;
        let mut story =
            format!("bot {}: {} updates wait, confirmed up to {}\n", self.username, self.updates.len(), self.confirmed);
        for chat in self.chats.values() {
            let _infallible = writeln!(story, " chat {}:", chat.id);
            for event in &chat.events {
                let _infallible = writeln!(story, "  {}", event.json());
            }
        }
        for call in self.calls.iter().rev().take(40).rev() {
            let params: String = call.params.to_string().chars().take(160).collect();
            let _infallible =
                writeln!(story, " call #{} {} ms {} {:?} {params}", call.seq, call.at_ms, call.method, call.status);
        }
        story
    }

    fn at_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Call {
    pub(crate) fn json(&self) -> Value {
        json!({"seq": self.seq, "at_ms": self.at_ms, "method": self.method, "params": self.params, "status": self.status, "done": self.done})
    }
}

#[expect(clippy::disallowed_methods, reason = "messages carry the date of the real world")]
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
