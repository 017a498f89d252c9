//! What a turn of the fake Codex does, step by step, and the lines that each runtime says of it.

use super::codex::Run;
use super::dice::Dice;
use serde_json::{Value, json};
use std::collections::VecDeque;
use worker::machine::io::Exit;

/// A long pause: longer than a silence is borne at the end, shorter at its beginning. Milliseconds.
const LONG_MS: u64 = 15_000;
/// So many lines that are no JSON are too many.
const FLOOD: u32 = 1_001;
/// Words of failures, as Codex says them.
const FAILURES: [&str; 6] = [
    "You've hit your usage limit. Try again at 2:45 AM.",
    "exceeded retry limit, last status: 429 Too Many Requests",
    "unexpected status 401 Unauthorized: no key",
    "stream disconnected before completion: error sending request",
    "Codex ran out of room in the model's context window. Start a new thread",
    "something that no table knows",
];

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// The thread is named; a server has done that in its answer.
    Name,
    /// A thread is named that was not asked for.
    Stray,
    Begin,
    Think(u64),
    Tool(String),
    ToolDone(u64),
    Compact(u64),
    CompactDone,
    Message,
    Delta,
    Retry,
    /// A question that only a person could answer.
    Ask,
    Limits,
    Bad(u32),
    TooLong,
    Hush,
    Die(Exit),
    Complete,
    Fail(&'static str),
    Interrupted,
}

impl Step {
    /// From this step to the next.
    pub(crate) fn pause_ms(&self) -> u64 {
        match self {
            Self::Think(ms) | Self::ToolDone(ms) | Self::Compact(ms) => *ms,
            Self::Tool(_) => 900,
            Self::Name | Self::Begin | Self::Delta => 60,
            _ => 300,
        }
    }

    /// The fault that it plays, if it is one.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Stray => Some("another thread than asked for"),
            Self::Retry => Some("Codex retries its provider"),
            Self::Ask => Some("Codex asks for an approval"),
            Self::Compact(LONG_MS..) => Some("a long compaction"),
            Self::Think(LONG_MS..) => Some("a long thought"),
            Self::Bad(FLOOD..) => Some("a flood of bad lines"),
            Self::Bad(_) => Some("a bad line"),
            Self::TooLong => Some("a line that is too long"),
            Self::Hush => Some("Codex goes silent"),
            Self::Die(_) => Some("Codex dies"),
            Self::Fail(_) => Some("the model fails"),
            _ => None,
        }
    }
}

/// A turn by chance.
pub(crate) fn draw(dice: &mut Dice, wild: bool, server: bool) -> VecDeque<Step> {
    let mut steps = vec![Step::Name, Step::Begin, Step::Think(200 + dice.roll(1_000))];
    for _ in 0..dice.roll(3) {
        steps.push(Step::Tool(format!("tool {}", dice.roll(1_000))));
        steps.push(Step::ToolDone(300 + dice.roll(600)));
    }
    if server {
        steps.extend([Step::Delta, Step::Delta]);
    }
    steps.extend([Step::Message, Step::Complete]);
    if wild {
        let at = 1 + dice.index(steps.len() - 1);
        match dice.roll(20) {
            0 => steps.truncate(at),
            1 => steps.insert(at, Step::Die(death(dice))),
            2 => steps.insert(at, Step::Think(LONG_MS + dice.roll(10_000))),
            3 => steps.insert(at, Step::Retry),
            4 => {
                let long = if dice.one_in(2) { LONG_MS * 3 } else { 2_000 };
                let at = at.clamp(2, steps.len() - 1);
                steps.insert(at, Step::CompactDone);
                steps.insert(at, Step::Compact(long));
            }
            5 => steps.insert(at, Step::Bad(if dice.one_in(12) { FLOOD } else { 2 })),
            6 => steps.insert(at, Step::TooLong),
            7 if server => steps.insert(at.max(2), Step::Ask),
            8 if server => steps.insert(at.max(2), Step::Limits),
            9 => steps.insert(0, Step::Think(LONG_MS)),
            10..=13 => {
                steps.truncate(at.max(2));
                steps.push(Step::Fail(dice.pick::<&'static str>(&FAILURES)));
            }
            _ => {}
        }
        if !steps.iter().any(|step| matches!(step, Step::Complete | Step::Fail(_))) {
            steps.push(Step::Hush);
        }
    }
    if server {
        steps.retain(|step| *step != Step::Name);
    }
    steps.into()
}

fn death(dice: &mut Dice) -> Exit {
    match dice.roll(4) {
        0 => Exit { signal: Some(11), ..Exit::default() },
        1 => Exit { signal: Some(9), out_of_memory: true, ..Exit::default() },
        2 => Exit { code: Some(1), stderr: "Error: No space left on device (os error 28)".into(), ..Exit::default() },
        _ => Exit { code: Some(101), stderr: "thread 'main' panicked".into(), ..Exit::default() },
    }
}

/// What a step says.
pub(crate) fn lines(step: &Step, run: &mut Run, server: bool) -> Vec<Value> {
    if server { server_lines(step, run) } else { exec_lines(step, run).into_iter().collect() }
}

fn exec_lines(step: &Step, run: &mut Run) -> Option<Value> {
    let item = |kind: &str, body: Value| {
        let mut body = body;
        body["id"] = json!("i");
        json!({"type": kind, "item": body})
    };
    Some(match step {
        Step::Name => json!({"type": "thread.started", "thread_id": run.thread}),
        Step::Stray => json!({"type": "thread.started", "thread_id": "00000000-0000-7000-8000-00000000dead"}),
        Step::Begin => json!({"type": "turn.started"}),
        Step::Think(_) => item("item.completed", json!({"type": "reasoning", "text": "hm"})),
        Step::Tool(command) => item("item.started", json!({"type": "command_execution", "command": command})),
        Step::ToolDone(_) => item("item.completed", json!({"type": "command_execution", "command": "x"})),
        Step::Compact(_) => item("item.started", json!({"type": "contextCompaction"})),
        Step::CompactDone => item("item.completed", json!({"type": "contextCompaction"})),
        Step::Message => item("item.completed", json!({"type": "agent_message", "text": answer(run)})),
        Step::Retry => json!({"type": "error", "message": "Reconnecting... 1/5"}),
        Step::Complete => json!({"type": "turn.completed", "usage": {"input_tokens": 10, "output_tokens": 5}}),
        Step::Fail(words) => json!({"type": "turn.failed", "error": {"message": words}}),
        Step::Interrupted
        | Step::Delta
        | Step::Ask
        | Step::Limits
        | Step::Bad(_)
        | Step::TooLong
        | Step::Hush
        | Step::Die(_) => return None,
    })
}

fn answer(run: &mut Run) -> String {
    run.last += 1;
    format!("answer {} to {}", run.last, run.turn)
}

fn server_lines(step: &Step, run: &mut Run) -> Vec<Value> {
    let (thread, id) = (run.thread.clone(), run.id.clone());
    let news = |method: &str, mut params: Value| {
        params["threadId"] = json!(thread);
        if params.get("turn").is_none() {
            params["turnId"] = json!(id);
        }
        json!({"method": method, "params": params})
    };
    let item = |method: &str, kind: &str, text: &str| {
        news(method, json!({"item": {"type": kind, "id": "i", "text": text, "command": text}}))
    };
    let end = |status: &str, error: Value| {
        news("turn/completed", json!({"turn": {"id": id, "status": status, "items": [], "error": error}}))
    };
    let line = match step {
        Step::Begin => news("turn/started", json!({"turn": {"id": id}})),
        Step::Think(_) => item("item/started", "reasoning", ""),
        Step::Tool(command) => item("item/started", "commandExecution", command),
        Step::ToolDone(_) => item("item/completed", "commandExecution", "x"),
        Step::Compact(_) => item("item/started", "contextCompaction", ""),
        Step::CompactDone => item("item/completed", "contextCompaction", ""),
        Step::Message => item("item/completed", "agentMessage", &answer(run)),
        Step::Delta => news("item/agentMessage/delta", json!({"delta": "word "})),
        Step::Retry => news("error", json!({"willRetry": true, "error": {"message": "Reconnecting... 1/5"}})),
        Step::Limits => {
            let primary = json!({"usedPercent": 100.0, "resetsAt": 1_800_000_000_u64});
            json!({"method": "account/rateLimits/updated", "params": {"rateLimits": {"primary": primary}}})
        }
        Step::Ask => {
            let mut asked = news("item/commandExecution/requestApproval", json!({"command": "rm"}));
            asked["id"] = json!(900);
            asked
        }
        Step::Complete => end("completed", Value::Null),
        Step::Fail(words) => end("failed", json!({"message": words})),
        Step::Interrupted => end("interrupted", Value::Null),
        Step::Name | Step::Stray | Step::Bad(_) | Step::TooLong | Step::Hush | Step::Die(_) => return Vec::new(),
    };
    vec![line]
}
