//! The JSON-RPC conversation with `codex app-server`, without the pipe: lines in, lines out, no lost request.
//!
//! ```text
//!  request(token) --> line        read(line) --> Answered{token} | Asked | Notified | Stray | error
//!                                 expired(now), withdraw(which), close() --> the tokens still out
//! ```
//! Promise: each token comes back exactly once, by an answer, its deadline, a withdrawal or the close. A line that
//! cannot be read is an error value; the conversation goes on.

use super::io::Tick;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard<T> {
    /// An answer to a request of ours; an error as its text.
    Answered(T, Result<Value, String>),
    /// A request to us, which must be answered under this id.
    Asked(Value, String, Value),
    /// News.
    Notified(String, Value),
    /// An answer that nobody waits for.
    Stray,
}

/// Why a line says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineError {
    /// It is no JSON.
    #[error("the line is no JSON")]
    Json,
    /// It is JSON, but no message.
    #[error("the line is no message")]
    Shape,
}

/// One conversation.
#[derive(Debug)]
pub(super) struct Conversation<T> {
    next: u64,
    out: BTreeMap<u64, (T, Tick)>,
}

impl<T> Conversation<T> {
    /// Nothing said yet.
    pub(super) fn new() -> Self {
        Self { next: 1, out: BTreeMap::new() }
    }

    /// The line of a request whose `token` comes back at `by` at the latest.
    pub(super) fn request(&mut self, method: &str, params: &Value, token: T, by: Tick) -> String {
        let id = self.next;
        self.next += 1;
        self.out.insert(id, (token, by));
        json!({"id": id, "method": method, "params": params}).to_string()
    }

    /// Reads a line.
    pub(super) fn read(&mut self, line: &str) -> Result<Heard<T>, LineError> {
        let mut message: Value = serde_json::from_str(line).map_err(|_| LineError::Json)?;
        let message = message.as_object_mut().ok_or(LineError::Shape)?;
        let id = message.remove("id");
        let params = message.remove("params").unwrap_or(Value::Null);
        match (message.remove("method"), id) {
            (Some(Value::String(method)), None | Some(Value::Null)) => Ok(Heard::Notified(method, params)),
            (Some(Value::String(method)), Some(id)) => Ok(Heard::Asked(id, method, params)),
            (Some(_), _) | (None, None) => Err(LineError::Shape),
            (None, Some(id)) => {
                let Some((token, _)) = id.as_u64().and_then(|id| self.out.remove(&id)) else {
                    return Ok(Heard::Stray);
                };
                let result = match (message.remove("error"), message.remove("result")) {
                    (Some(error), _) if !error.is_null() => Err(error_text(&error)),
                    (_, result) => Ok(result.unwrap_or(Value::Null)),
                };
                Ok(Heard::Answered(token, result))
            }
        }
    }

    /// The tokens that `which` names, withdrawn: their answers will be strays.
    pub(super) fn withdraw(&mut self, which: impl Fn(&T) -> bool) -> Vec<T> {
        let ids: Vec<u64> = self.out.iter().filter(|(_, (token, _))| which(token)).map(|(id, _)| *id).collect();
        ids.iter().filter_map(|id| self.out.remove(id)).map(|(token, _)| token).collect()
    }

    /// The tokens whose time is over.
    pub(super) fn expired(&mut self, now: Tick) -> Vec<T> {
        let ids: Vec<u64> = self.out.iter().filter(|(_, (_, by))| *by <= now).map(|(id, _)| *id).collect();
        ids.iter().filter_map(|id| self.out.remove(id)).map(|(token, _)| token).collect()
    }

    /// Ends the conversation: every token that is still out.
    pub(super) fn close(&mut self) -> Vec<T> {
        std::mem::take(&mut self.out).into_values().map(|(token, _)| token).collect()
    }

    /// When the next token's time is over.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.out.values().map(|(_, by)| *by).min()
    }
}

/// The line of a notification.
pub(super) fn notification(method: &str) -> String {
    json!({"method": method}).to_string()
}

/// The line that answers a request.
pub(super) fn reply(id: &Value, result: &Result<Value, (i64, String)>) -> String {
    match result {
        Ok(result) => json!({"id": id, "result": result}).to_string(),
        Err((code, message)) => json!({"id": id, "error": {"code": code, "message": message}}).to_string(),
    }
}

fn error_text(error: &Value) -> String {
    match error.get("message").and_then(Value::as_str) {
        Some(message) => message.to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_told_apart() {
        let mut talk = Conversation::new();
        let line = talk.request("initialize", &json!({}), "a", Tick(5));
        assert_eq!(line, r#"{"id":1,"method":"initialize","params":{}}"#);
        assert_eq!(talk.deadline(), Some(Tick(5)));
        assert_eq!(talk.read(r#"{"method":"x","params":{"y":1}}"#), Ok(Heard::Notified("x".into(), json!({"y": 1}))));
        assert_eq!(talk.read(r#"{"method":"q","id":0}"#), Ok(Heard::Asked(json!(0), "q".into(), Value::Null)));
        assert_eq!(talk.read(r#"{"id":9,"result":{}}"#), Ok(Heard::Stray));
        assert_eq!(talk.read(r#"{"id":"1","result":{}}"#), Ok(Heard::Stray));
        assert_eq!(
            talk.read(r#"{"id":1,"error":{"code":-32600,"message":"Not initialized"}}"#),
            Ok(Heard::Answered("a", Err("Not initialized".into())))
        );
        for bad in ["", "x", "[]", "{", "7", "{}", r#"{"method":7}"#] {
            assert!(talk.read(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn each_token_comes_back_once(steps in prop::collection::vec((0_u8..5, 0_u64..12), 0..80)) {
            let mut talk = Conversation::new();
            let (mut given, mut back) = (0_u64, Vec::new());
            for (step, n) in steps {
                match step {
                    0 | 1 => {
                        talk.request("m", &Value::Null, given, Tick(n));
                        given += 1;
                    }
                    2 => {
                        let line = format!(r#"{{"id":{n},"result":1}}"#);
                        if let Ok(Heard::Answered(token, _)) = talk.read(&line) {
                            back.push(token);
                        }
                    }
                    3 => back.extend(talk.expired(Tick(n))),
                    _ => back.extend(talk.withdraw(|token| *token == n)),
                }
            }
            back.extend(talk.close());
            back.sort_unstable();
            prop_assert_eq!(back, (0..given).collect::<Vec<_>>());
        }

        #[test]
        fn any_line_is_survived(line in "(?s).{0,80}") {
            let mut talk: Conversation<u8> = Conversation::new();
            drop(talk.read(&line));
        }
    }
}
