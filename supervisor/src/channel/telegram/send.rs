//! Speaks: one request, one answer, no retry. What to do about the answer is the machine's business.
//!
//! ```text
//!   Request --> Bot API --> Sent | Done | NotModified       it is there
//!                           Retry{after}                    it is not there; again, after exactly that time
//!                           Uncertain                       it may be there: the request was written, no answer came
//!                           EntitiesRejected | Moved        again, plain | again, to the new chat
//!                           Dead                            never
//! ```

use super::api::{ANSWER_BYTES_MAX, ApiError, Bot};
use super::text::Chunk;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How long a request may take in all. Telegram answers in under a second; half a minute covers a bad mobile link.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// One thing to do at Telegram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A new message.
    Message {
        /// The chat.
        chat: i64,
        /// The forum topic in it.
        topic: Option<i64>,
        /// The message that it answers; sent without if that is gone.
        reply_to: Option<i64>,
        /// What it says, at most 4096 UTF-16 units.
        body: Chunk,
        /// Without a sound.
        silent: bool,
    },
    /// Another text for a message of ours.
    Edit {
        /// The chat.
        chat: i64,
        /// The message.
        message_id: i64,
        /// What it says from then on.
        body: Chunk,
    },
    /// Takes a message of ours back.
    Delete {
        /// The chat.
        chat: i64,
        /// The message.
        message_id: i64,
    },
    /// Shows "typing" for about five seconds.
    Typing {
        /// The chat.
        chat: i64,
        /// The forum topic in it.
        topic: Option<i64>,
    },
    /// The list that a person sees after typing a slash.
    Commands(Vec<Command>),
}

/// One entry of the list of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// 1 to 32 of a-z, 0-9 and `_`, without the slash.
    pub name: String,
    /// 1 to 256 characters.
    pub description: String,
}

/// How a request ended. No text in it holds the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendResult {
    /// The message is there under this number.
    Sent {
        /// Telegram's number of it, in its chat.
        message_id: i64,
    },
    /// It was done, and there is no number to tell; also where the message to delete is gone already.
    Done,
    /// The message says this already: a success.
    NotModified,
    /// It was not done, and may be tried again.
    Retry {
        /// Telegram's own `retry_after`, to the second; `None` where it named none.
        after: Option<Duration>,
        /// Why.
        why: String,
    },
    /// The message may have been sent: the request was written, and no answer came. Only of [`Request::Message`]; the
    /// others do no harm when done twice.
    Uncertain {
        /// Why.
        why: String,
    },
    /// The formatting is refused: send the same text without entities.
    EntitiesRejected {
        /// Why.
        why: String,
    },
    /// The group became a supergroup: send it there.
    Moved {
        /// The new chat.
        chat: i64,
    },
    /// It can never be done: the chat is gone, the bot was blocked, the text is refused.
    Dead {
        /// Why, in Telegram's words.
        why: String,
    },
}

/// Performs `request` once. Dropped midway, the message may have been sent.
pub async fn perform(bot: &Bot, request: &Request) -> SendResult {
    let (method, params) = spell(request);
    match bot.call(method, &params, SEND_TIMEOUT, ANSWER_BYTES_MAX).await {
        Ok(result) => {
            let result: Value = serde_json::from_str(result.get()).unwrap_or_default();
            match result.get("message_id").and_then(Value::as_i64) {
                Some(message_id) => SendResult::Sent { message_id },
                None => SendResult::Done,
            }
        }
        Err(error) => judge(request, error),
    }
}

fn spell(request: &Request) -> (&'static str, Value) {
    let mut params = Map::new();
    let mut put = |key: &str, value: Value| drop(params.insert(key.to_owned(), value));
    let method = match request {
        Request::Message { chat, topic, reply_to, body, silent } => {
            put("chat_id", json!(chat));
            if let Some(topic) = topic {
                put("message_thread_id", json!(topic));
            }
            if let Some(message_id) = reply_to {
                put("reply_parameters", json!({"message_id": message_id, "allow_sending_without_reply": true}));
            }
            if *silent {
                put("disable_notification", json!(true));
            }
            put_body(&mut put, body);
            "sendMessage"
        }
        Request::Edit { chat, message_id, body } => {
            put("chat_id", json!(chat));
            put("message_id", json!(message_id));
            put_body(&mut put, body);
            "editMessageText"
        }
        Request::Delete { chat, message_id } => {
            put("chat_id", json!(chat));
            put("message_id", json!(message_id));
            "deleteMessage"
        }
        Request::Typing { chat, topic } => {
            put("chat_id", json!(chat));
            if let Some(topic) = topic {
                put("message_thread_id", json!(topic));
            }
            put("action", json!("typing"));
            "sendChatAction"
        }
        Request::Commands(commands) => {
            let list = commands.iter().map(|c| json!({"command": c.name, "description": c.description}));
            put("commands", list.collect());
            "setMyCommands"
        }
    };
    (method, Value::Object(params))
}

fn put_body(put: &mut impl FnMut(&str, Value), body: &Chunk) {
    put("text", json!(body.text));
    if !body.entities.is_empty() {
        put("entities", body.entities.iter().map(super::text::Entity::to_json).collect());
    }
    put("link_preview_options", json!({"is_disabled": true}));
}

fn judge(request: &Request, error: ApiError) -> SendResult {
    let why = error.to_string();
    match error {
        ApiError::NotSent(_) => SendResult::Retry { after: None, why },
        ApiError::Cut(_) | ApiError::Timeout(_) | ApiError::TooLong { .. } => unanswered(request, why),
        ApiError::NotJson { status, html, .. } => match status {
            // A gateway that gave up waiting, or that lost the server behind it, may have passed the request on.
            502 | 504 => unanswered(request, why),
            // The server's yes, garbled; a page with that status is a portal's and no yes.
            200..=299 if !html => unanswered(request, why),
            _ => SendResult::Retry { after: None, why },
        },
        ApiError::Refused { code, text, retry_after, migrate_to } => {
            if let Some(chat) = migrate_to {
                return SendResult::Moved { chat };
            }
            let after = retry_after.map(Duration::from_secs);
            match code {
                400 => judge_bad_request(request, &text.to_lowercase(), why),
                502 | 504 => unanswered(request, why),
                // 401 and 404 are about the token and not about this message: it stays until the operator mends that.
                401 | 404 | 409 | 429 | 500.. => SendResult::Retry { after, why },
                _ => SendResult::Dead { why },
            }
        }
    }
}

fn judge_bad_request(request: &Request, text: &str, why: String) -> SendResult {
    let formatted = match request {
        Request::Message { body, .. } | Request::Edit { body, .. } => !body.entities.is_empty(),
        Request::Delete { .. } | Request::Typing { .. } | Request::Commands(_) => false,
    };
    let deleting = matches!(request, Request::Delete { .. });
    if text.contains("message is not modified") {
        SendResult::NotModified
    } else if deleting && text.contains("message to delete not found") {
        SendResult::Done
    } else if formatted && (text.contains("entit") || text.contains("can't parse")) {
        SendResult::EntitiesRejected { why }
    } else {
        SendResult::Dead { why }
    }
}

fn unanswered(request: &Request, why: String) -> SendResult {
    match request {
        Request::Message { .. } => SendResult::Uncertain { why },
        Request::Edit { .. } | Request::Delete { .. } | Request::Typing { .. } | Request::Commands(_) => {
            SendResult::Retry { after: None, why }
        }
    }
}
