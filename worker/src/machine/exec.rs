//! `codex exec --json`: its arguments, and its lines as news of a turn. Tolerant: what is not known is a sign of life.
//!
//! ```text
//!  thread.started -> turn.started -> (item.started | item.completed | error)* -> turn.completed | turn.failed -> exit
//! ```
//! There are no deltas and no word of a compaction; `usage` counts the whole thread.

use super::event::{Event, Kind, item};
use super::failure;
use protocol::Route;
use protocol::to_worker::{Configure, Sandbox};
use serde_json::Value;

/// Prefix of the notices that Codex tries again; any other top-level error is followed by the turn's end.
const RETRY: &str = "Reconnecting...";

/// Why a line says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the line is no JSON object")]
pub(super) struct BadLine;

/// How a thread is gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Continue<'a> {
    /// A new thread.
    Fresh,
    /// The same thread.
    Resume(&'a str),
    /// A new thread with the history of this one: a thread keeps its provider for ever.
    Fork(&'a str),
}

/// The arguments of a turn. The prompt comes by stdin.
pub(super) fn args(configure: &Configure, route: &Route, thread: Continue<'_>) -> Vec<String> {
    let mut args: Vec<String> =
        ["exec", "--json", "--skip-git-repo-check", "-s", configure.sandbox.as_str()].map(str::to_owned).into();
    let mut set = |key: &str, value: &str| args.extend(["-c".to_owned(), format!("{key}={value}")]);
    set("approval_policy", &quoted("never"));
    set("sandbox_mode", &quoted(configure.sandbox.as_str()));
    if configure.sandbox == Sandbox::WorkspaceWrite {
        set("sandbox_workspace_write.network_access", if configure.network { "true" } else { "false" });
    }
    set("model_provider", &quoted(&route.provider));
    args.push(format!("--model={}", route.model));
    let (word, thread) = match thread {
        Continue::Fresh => (None, None),
        Continue::Resume(thread) => (Some("resume"), Some(thread)),
        Continue::Fork(thread) => (Some("fork"), Some(thread)),
    };
    args.extend(word.into_iter().chain(thread).map(str::to_owned));
    args.push("-".into());
    args
}

/// A TOML string: JSON's escapes are a part of TOML's.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Reads a line.
pub(super) fn read(line: &str) -> Result<Event, BadLine> {
    let message: Value = serde_json::from_str(line).map_err(|_| BadLine)?;
    if !message.is_object() {
        return Err(BadLine);
    }
    let text = |path: &[&str]| {
        path.iter().try_fold(&message, |at, key| at.get(key)).and_then(Value::as_str).unwrap_or("").to_owned()
    };
    Ok(match message.get("type").and_then(Value::as_str).unwrap_or("") {
        "thread.started" => match text(&["thread_id"]) {
            id if id.is_empty() => Event::Alive,
            id => Event::Thread(id),
        },
        "turn.started" => Event::TurnStarted,
        kind @ ("item.started" | "item.updated" | "item.completed") => read_item(kind, message.get("item")),
        "error" => match text(&["message"]) {
            notice if notice.starts_with(RETRY) => Event::Retrying(notice),
            // The final error is told again by `turn.failed`.
            notice => Event::Warning(notice),
        },
        "turn.completed" => Event::Completed(usage(&message)),
        "turn.failed" => {
            let detail = text(&["error", "message"]);
            let named = failure::of_prose(&detail);
            Event::Failed(named.class, named.matched, detail)
        }
        _ => Event::Alive,
    })
}

/// Tokens of the whole thread that an end tells of: read, written.
fn usage(message: &Value) -> Option<(u64, u64)> {
    let usage = message.get("usage")?;
    let number = |key: &str| usage.get(key).and_then(Value::as_u64);
    Some((number("input_tokens")?, number("output_tokens")?))
}

fn read_item(kind: &str, body: Option<&Value>) -> Event {
    let Some(body) = body else {
        return Event::Alive;
    };
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    if body.get("type").and_then(Value::as_str) == Some("error") {
        return Event::Warning(text("message"));
    }
    let (what, words) = item(body);
    match (kind, what) {
        ("item.completed", _) => Event::ItemCompleted { id: text("id"), kind: what, what: words },
        ("item.started", _) => Event::ItemStarted { id: text("id"), kind: what, what: words },
        (_, Kind::Tool | Kind::Compaction | Kind::Message | Kind::Thought | Kind::Other) => Event::Alive,
    }
}
