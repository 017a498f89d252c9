//! Reads what Codex posted: the prompts of the thread, what its tools answered, and whether this is a compaction.
//!
//! ```text
//!   input: developer... <environment_context> "first" answer ... [summary] "last" call output call output
//!                       `-- not a prompt       `-- prompt        |         `-- prompt  `------ outputs ----'
//!                                                                `-- not a prompt, but remembers the outputs it folded
//! ```
//! Pure.

use serde_json::Value;

/// How our own compaction answers begin the count of tool outputs that they folded away.
pub(crate) const FOLDED: &str = "tool outputs folded: ";
/// Beginnings of user messages that Codex writes by itself.
const NOT_PROMPTS: [&str; 9] = [
    "<environment_context>",
    "<user_instructions>",
    "<permissions",
    "<skill",
    "<turn_aborted>",
    "<user_shell_command>",
    "# AGENTS.md instructions",
    SUMMARY,
    COMPACTION,
];
/// How Codex introduces the summary of a compacted history.
const SUMMARY: &str = "Another language model started to solve this problem";
/// How Codex asks for that summary.
const COMPACTION: &str = "You are performing a CONTEXT CHECKPOINT COMPACTION";
/// Calls named `poll_INDEX_...` wait for an earlier one: their outputs go to its account.
pub(crate) const POLL_PREFIX: &str = "poll_";
/// Calls with this prefix start what is not waited for.
pub(crate) const BACKGROUND_PREFIX: &str = "background_";

/// The facts of one request that scripts ask for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Scene {
    pub(crate) model: String,
    pub(crate) thread: Option<String>,
    pub(crate) compaction: bool,
    /// The person's messages, oldest first.
    pub(crate) prompts: Vec<String>,
    /// What the tools answered since the last prompt.
    pub(crate) outputs: Vec<Output>,
    /// How many more a compaction has folded away since the last prompt.
    pub(crate) folded: usize,
    pub(crate) shell: Shell,
}

/// The shell tool that the request offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Shell {
    /// `exec_command {cmd}`: what Codex 0.169 offers for every model.
    Exec,
    /// `shell_command {command: text}`.
    Command,
    /// `shell {command: [words]}`.
    Words,
    /// None: a compaction, or tools are off.
    #[default]
    Missing,
}

impl Scene {
    /// Reads a request's body. `kind` is what Codex' own header says of it, if it does.
    pub(crate) fn read(body: &Value, kind: Option<&str>) -> Self {
        let text_of = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
        let mut scene = Self {
            model: text_of("model").unwrap_or_default(),
            thread: text_of("prompt_cache_key"),
            shell: shell(body),
            ..Self::default()
        };
        let none = Vec::new();
        let items = body.get("input").and_then(Value::as_array).unwrap_or(&none);
        for item in items {
            scene.read_item(item);
        }
        let asked = items.last().map(text).unwrap_or_default();
        scene.compaction = kind.map_or_else(|| asked.starts_with(COMPACTION), |kind| kind == "compaction");
        if scene.compaction && !asked.starts_with(COMPACTION) && scene.prompts.len() > 1 {
            // A configured `compact_prompt` looks like a prompt, but no person wrote it.
            scene.prompts.pop();
        }
        scene
    }

    pub(crate) fn prompt(&self) -> &str {
        self.prompts.last().map_or("", String::as_str)
    }

    /// Books what a tool said: a poll's words go to the call that it polls.
    fn hear(&mut self, call: &str, mut heard: Output) {
        let polled = call.strip_prefix(POLL_PREFIX).and_then(|rest| rest.split('_').next()?.parse::<usize>().ok());
        if let Some(earlier) = polled.and_then(|index| self.outputs.get_mut(index)) {
            earlier.said.push_str(&heard.said);
            earlier.exit = heard.exit;
            earlier.session = heard.session;
        } else {
            if call.starts_with(BACKGROUND_PREFIX) {
                heard.session = None;
            }
            self.outputs.push(heard);
        }
    }

    fn read_item(&mut self, item: &Value) {
        let word = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or("");
        match (word("type"), word("role")) {
            ("message", "user") => {
                let text = text(item);
                if let Some(folded) = text.starts_with(SUMMARY).then(|| text.rsplit_once(FOLDED)).flatten() {
                    let count = folded.1.split(|other: char| !other.is_ascii_digit()).next().unwrap_or("");
                    self.folded = count.parse().unwrap_or(0);
                    self.outputs.clear();
                } else if !NOT_PROMPTS.iter().any(|begin| text.trim_start().starts_with(begin)) {
                    self.prompts.push(text);
                    self.outputs.clear();
                    self.folded = 0;
                }
            }
            ("function_call_output" | "custom_tool_call_output" | "local_shell_call_output", _) => {
                let output = item.get("output").map(output_text).unwrap_or_default();
                self.hear(word("call_id"), Output::read(&output));
            }
            _ => {}
        }
    }
}

/// What a tool answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Output {
    /// What the command printed, or all of it if no command ran.
    pub(crate) said: String,
    pub(crate) exit: Option<i32>,
    /// The session of a command that still runs and is waited for.
    pub(crate) session: Option<u64>,
}

impl Output {
    fn read(text: &str) -> Self {
        let (head, said) = text.split_once("\nOutput:\n").unwrap_or(("", text));
        let after = |label: &str| head.split_once(label).and_then(|(_, after)| after.lines().next()).map(str::trim);
        Self {
            said: said.to_owned(),
            exit: after("Process exited with code ").and_then(|code| code.parse().ok()),
            session: after("Process running with session ID ").and_then(|id| id.parse().ok()),
        }
    }
}

fn output_text(output: &Value) -> String {
    match output {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => output.to_string(),
    }
}

/// The text parts of a message, joined.
fn text(item: &Value) -> String {
    let parts = item.get("content").and_then(Value::as_array);
    let parts = parts.into_iter().flatten().filter_map(|part| part.get("text")?.as_str());
    parts.collect::<Vec<_>>().join("\n")
}

fn shell(body: &Value) -> Shell {
    let tools = body.get("tools").and_then(Value::as_array);
    let names: Vec<&str> = tools.into_iter().flatten().filter_map(|tool| tool.get("name")?.as_str()).collect();
    if names.contains(&"exec_command") {
        Shell::Exec
    } else if names.contains(&"shell_command") {
        Shell::Command
    } else if names.contains(&"shell") {
        Shell::Words
    } else {
        Shell::Missing
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(text: &str) -> Value {
        json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
    }

    fn output(call: &str, text: &str) -> Value {
        json!({"type": "function_call_output", "call_id": call, "output": text})
    }

    #[test]
    fn prompts_are_what_a_person_wrote() {
        let body = json!({"model": "m", "prompt_cache_key": "t", "tools": [{"type": "function", "name": "exec_command"}], "input": [
            user("<environment_context>x</environment_context>"), user("one"), output("call_0", "gone"), user("two"), output("call_1", "kept"),
        ]});
        let scene = Scene::read(&body, None);
        assert_eq!(scene.prompts, ["one", "two"]);
        assert_eq!(scene.outputs.len(), 1);
        assert_eq!(scene.outputs[0].said, "kept");
        assert_eq!((scene.shell, scene.thread.as_deref(), scene.compaction), (Shell::Exec, Some("t"), false));
    }

    #[test]
    fn a_compaction_is_known_by_header_or_by_prompt() {
        let asked = json!({"input": [user("one"), user(&format!("{COMPACTION}. Create"))]});
        assert!(Scene::read(&asked, None).compaction);
        assert_eq!(Scene::read(&asked, Some("compaction")).prompts, ["one"]);
        let own_words = json!({"input": [user("one"), user("sum it up")]});
        assert!(!Scene::read(&own_words, None).compaction);
        let scene = Scene::read(&own_words, Some("compaction"));
        assert_eq!((scene.compaction, scene.prompts), (true, vec!["one".to_owned()]));
    }

    #[test]
    fn a_summary_remembers_the_outputs_it_folded() {
        let body = json!({"input": [user("one"), user(&format!("{SUMMARY} and\n{FOLDED}3."))]});
        let scene = Scene::read(&body, None);
        assert_eq!((scene.prompts.len(), scene.folded), (1, 3));
    }

    #[test]
    fn polls_go_to_the_account_of_the_call_they_wait_for() {
        let first = "Wall time: 30\nProcess running with session ID 7\nOutput:\na\n";
        let body = json!({"input": [user("one"), output("call_0_0", first)]});
        assert_eq!(Scene::read(&body, None).outputs[0].session, Some(7));
        let body = json!({"input": [user("one"), output("background_0_0", first)]});
        assert_eq!(Scene::read(&body, None).outputs[0].session, None);
        let then = "Wall time: 3\nProcess exited with code 2\nOutput:\nb\n";
        let body = json!({"input": [user("one"), output("call_0_0", first), output("call_0_1", "x"), output("poll_0_9", then)]});
        let scene = Scene::read(&body, None);
        let whole = Output { said: "a\nb\n".to_owned(), exit: Some(2), session: None };
        assert_eq!((scene.outputs.len(), &scene.outputs[0]), (2, &whole));
    }
}
