//! What both runtimes say of a turn, in one vocabulary: which runtime runs is invisible above.

use protocol::FailureClass;
use serde_json::Value;

/// What an item is, as far as the clocks, the story of a turn and a person care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A command, a change of files, a call: something with an effect on the world.
    Tool,
    /// A compaction of the conversation.
    Compaction,
    /// The model writes.
    Message,
    /// The model thinks.
    Thought,
    /// The user's own words, or something without an effect.
    Other,
}

/// News of one turn.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    /// Codex named the thread.
    Thread(String),
    /// The turn runs.
    TurnStarted,
    /// An item began.
    ItemStarted {
        /// Its id, unique in the turn.
        id: String,
        /// What it is.
        kind: Kind,
        /// As a person reads it.
        what: String,
    },
    /// An item ended; it may never have begun.
    ItemCompleted {
        /// Its id, unique in the turn.
        id: String,
        /// What it is.
        kind: Kind,
        /// As a person reads it; the text of a message.
        what: String,
    },
    /// More of a message.
    Delta(String),
    /// Codex tries again.
    Retrying(String),
    /// Something went wrong without ending the turn.
    Warning(String),
    /// Tokens of the thread so far: read, written.
    Usage(u64, u64),
    /// The turn ended well; tokens of the thread so far, if they come with it.
    Completed(Option<(u64, u64)>),
    /// The turn ended badly: the class, whether a table named it, the words.
    Failed(FailureClass, bool, String),
    /// Codex ended the turn because it was asked to.
    Interrupted,
    /// A sign of life that says nothing else.
    Alive,
}

/// The kind and the words of an item; both runtimes differ only in the case of their names.
pub(super) fn item(item: &Value) -> (Kind, String) {
    let text = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    match item.get("type").and_then(Value::as_str).unwrap_or("") {
        "agentMessage" | "agent_message" => (Kind::Message, text("text")),
        "reasoning" => (Kind::Thought, String::new()),
        "commandExecution" | "command_execution" => (Kind::Tool, text("command")),
        "fileChange" | "file_change" => (Kind::Tool, changes(item)),
        "mcpToolCall" | "mcp_tool_call" | "dynamicToolCall" | "collabAgentToolCall" | "collab_tool_call" => {
            (Kind::Tool, format!("call {} {}", text("server"), text("tool")))
        }
        "webSearch" | "web_search" => (Kind::Tool, format!("search {}", text("query"))),
        "imageView" => (Kind::Tool, format!("view {}", text("path"))),
        "imageGeneration" => (Kind::Tool, "generate an image".into()),
        "contextCompaction" => (Kind::Compaction, String::new()),
        "userMessage" | "hookPrompt" | "plan" | "todo_list" | "error" | "enteredReviewMode" | "exitedReviewMode" => {
            (Kind::Other, String::new())
        }
        // What is not known may have had an effect: a replay must not be called safe.
        unknown => (Kind::Tool, protocol::text::clip(unknown, 64).to_owned()),
    }
}

fn changes(item: &Value) -> String {
    let changes = item.get("changes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut words = String::from("change");
    for change in changes.iter().take(20) {
        let kind = change
            .get("kind")
            .map_or("", |kind| kind.as_str().or_else(|| kind.get("type").and_then(Value::as_str)).unwrap_or(""));
        let path = change.get("path").and_then(Value::as_str).unwrap_or("?");
        for part in [" ", kind, " ", path] {
            words.push_str(part);
        }
    }
    words
}
