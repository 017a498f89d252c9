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

#[cfg(test)]
mod tests {
    use super::super::stub::{Answer, Stub, refusal};
    use super::super::text::{Entity, Style};
    use super::*;

    fn message() -> Request {
        let entities = vec![Entity { style: Style::Pre("rust".into()), offset: 0, length: 2 }];
        let body = Chunk { text: "hi".into(), entities };
        Request::Message { chat: -5, topic: Some(3), reply_to: Some(9), body, silent: true }
    }

    fn edit() -> Request {
        Request::Edit { chat: -5, message_id: 8, body: Chunk::plain("new") }
    }

    async fn run(request: &Request, answer: Answer) -> SendResult {
        let stub = Stub::serve([answer]).await;
        let result = perform(&stub.bot(), request).await;
        assert!(!format!("{result:?}").contains("SECRET"), "{result:?}");
        result
    }

    async fn refused(request: &Request, code: u16, text: &str) -> SendResult {
        run(request, refusal(code, text, Value::Null)).await
    }

    #[tokio::test]
    async fn requests_are_spelled_as_telegram_reads_them() {
        let commands = vec![Command { name: "stop".into(), description: "Stops".into() }];
        let no_preview = json!({"is_disabled": true});
        let cases = [
            (
                message(),
                "sendMessage",
                json!({"chat_id": -5, "message_thread_id": 3, "text": "hi", "disable_notification": true,
                    "reply_parameters": {"message_id": 9, "allow_sending_without_reply": true},
                    "entities": [{"type": "pre", "language": "rust", "offset": 0, "length": 2}],
                    "link_preview_options": no_preview}),
            ),
            (
                edit(),
                "editMessageText",
                json!({"chat_id": -5, "message_id": 8, "text": "new", "link_preview_options": no_preview}),
            ),
            (Request::Delete { chat: 1, message_id: 2 }, "deleteMessage", json!({"chat_id": 1, "message_id": 2})),
            (Request::Typing { chat: 1, topic: None }, "sendChatAction", json!({"chat_id": 1, "action": "typing"})),
            (
                Request::Commands(commands),
                "setMyCommands",
                json!({"commands": [{"command": "stop", "description": "Stops"}]}),
            ),
        ];
        for (request, method, params) in cases {
            let mut stub = Stub::serve([Answer::Ok(json!(true))]).await;
            assert_eq!(perform(&stub.bot(), &request).await, SendResult::Done);
            assert_eq!(stub.heard().await, (method.to_owned(), params));
        }
        let sent = run(&message(), Answer::Ok(json!({"message_id": 77, "chat": {}}))).await;
        assert_eq!(sent, SendResult::Sent { message_id: 77 });
    }

    #[tokio::test]
    async fn a_flood_wait_is_passed_exactly() {
        let result = run(&message(), refusal(429, "Too Many Requests", json!({"retry_after": 1234}))).await;
        assert!(matches!(result, SendResult::Retry { after: Some(after), .. } if after == Duration::from_secs(1234)));
    }

    #[tokio::test]
    async fn a_message_without_an_answer_is_uncertain_and_an_edit_is_tried_again() {
        let page = |status| Answer::Body(status, "<html>Bad Gateway".into());
        let cut = [Answer::CutUnread, Answer::CutRead, Answer::CutHalf, page(504), Answer::Body(200, "{".into())];
        for answer in cut {
            assert!(matches!(run(&message(), answer).await, SendResult::Uncertain { .. }));
        }
        for answer in [Answer::CutRead, page(502)] {
            assert!(matches!(run(&edit(), answer).await, SendResult::Retry { after: None, .. }));
        }
    }

    #[tokio::test]
    async fn what_was_surely_not_done_is_tried_again() {
        for code in [401, 404, 500, 503] {
            assert!(matches!(refused(&message(), code, "x").await, SendResult::Retry { after: None, .. }), "{code}");
        }
        for status in [200, 403, 500, 503] {
            let result = run(&message(), Answer::Body(status, "<html>login".into())).await;
            assert!(matches!(result, SendResult::Retry { after: None, .. }), "{status}");
        }
    }

    #[tokio::test]
    async fn refusals_are_told_apart() {
        let dead = SendResult::Dead { why: "403: Forbidden: bot was blocked by the user".into() };
        assert_eq!(refused(&message(), 403, "Forbidden: bot was blocked by the user").await, dead);
        let gone = refused(&message(), 400, "Bad Request: chat not found").await;
        assert!(matches!(gone, SendResult::Dead { .. }));
        for text in ["Bad Request: can't parse entities: x", "Bad Request: ENTITY_BOUNDS_INVALID"] {
            assert!(matches!(refused(&message(), 400, text).await, SendResult::EntitiesRejected { .. }));
            // A plain text has no entities to leave out: to try that again would go on for ever.
            assert!(matches!(refused(&edit(), 400, text).await, SendResult::Dead { .. }));
        }
        let same = refused(&edit(), 400, "Bad Request: message is not modified: x").await;
        assert_eq!(same, SendResult::NotModified);
        let delete = Request::Delete { chat: 1, message_id: 2 };
        let gone = refused(&delete, 400, "Bad Request: message to delete not found").await;
        assert_eq!(gone, SendResult::Done);
        let moved = run(&message(), refusal(400, "upgraded", json!({"migrate_to_chat_id": -1009}))).await;
        assert_eq!(moved, SendResult::Moved { chat: -1009 });
    }
}
