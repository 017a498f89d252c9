//! A Codex that answers at once and does nothing else: what a turn costs with it is our own share.
//!
//! ```text
//!   cofferdam-bench exec ... -       prompt from stdin --> "ENTERED READ LEFT"      Unix microseconds, as the answer
//!   cofferdam-bench app-server       turn/start -------> "READ READ READ"
//! ```

use super::clock::wall_us;
use serde_json::{Value, json};
use std::io::{self, BufRead as _, Read as _, Write as _};

/// Plays `codex WORD ...` if `word` is one that it knows; `false` if the arguments are for somebody else.
pub fn play(word: &str) -> bool {
    let entered = wall_us();
    // Whoever started it has gone if a pipe breaks: there is nobody to tell.
    match word {
        "exec" => drop(exec(entered)),
        "app-server" => drop(app_server()),
        _ => return false,
    }
    true
}

/// When Codex began, when it had the prompt, and when it left, as an answer of [`play`] tells.
pub(crate) fn times(answer: &str) -> Option<[u64; 3]> {
    let mut times = answer.split_whitespace().map_while(|word| word.parse().ok());
    Some([times.next()?, times.next()?, times.next()?])
}

fn exec(entered: u64) -> io::Result<()> {
    let mut prompt = String::new();
    io::stdin().read_to_string(&mut prompt)?;
    let read = wall_us();
    let usage = json!({"input_tokens": 1, "cached_input_tokens": 0, "output_tokens": 1});
    let text = format!("{entered} {read} {}", wall_us());
    let lines = [
        json!({"type": "thread.started", "thread_id": thread_id(entered)}),
        json!({"type": "turn.started"}),
        json!({"type": "item.completed", "item": {"id": "item_0", "type": "agent_message", "text": text}}),
        json!({"type": "turn.completed", "usage": usage}),
    ];
    write(&lines)
}

fn app_server() -> io::Result<()> {
    let mut turns = 0_u64;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let read = wall_us();
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        let (Some(method), id) = (message["method"].as_str(), &message["id"]) else { continue };
        let thread = message["params"]["threadId"].as_str().unwrap_or("").to_owned();
        let mut out = Vec::new();
        match method {
            "initialize" => {
                out.push(json!({"id": id, "result": {"userAgent": "cofferdam-bench/0.169.0 (Linux; x) bench"}}));
            }
            "thread/start" | "thread/resume" => {
                let thread = if thread.is_empty() { thread_id(read) } else { thread };
                let provider = &message["params"]["modelProvider"];
                out.push(json!({"id": id, "result": {"thread": {"id": thread}, "modelProvider": provider}}));
            }
            "turn/start" => {
                turns += 1;
                out = turn(id, &thread, &format!("turn-{turns}"), &format!("{read} {read} {read}"));
            }
            _ if !id.is_null() => out.push(json!({"id": id, "result": {}})),
            _ => {}
        }
        write(&out)?;
    }
    Ok(())
}

fn turn(id: &Value, thread: &str, turn: &str, text: &str) -> Vec<Value> {
    let item = json!({"id": "item_0", "type": "agentMessage", "text": text});
    let of = |status: &str| json!({"id": turn, "status": status, "items": [], "error": null});
    vec![
        json!({"id": id, "result": {"turn": of("inProgress")}}),
        json!({"method": "turn/started", "params": {"threadId": thread, "turn": of("inProgress")}}),
        json!({"method": "item/completed", "params": {"threadId": thread, "turnId": turn, "item": item}}),
        json!({"method": "turn/completed", "params": {"threadId": thread, "turn": of("completed")}}),
    ]
}

/// An id as Codex makes them, unlike any other of this host.
fn thread_id(us: u64) -> String {
    format!("00000000-0000-7000-8000-{:012x}", us & 0xffff_ffff_ffff)
}

/// Writes the lines at once, as Codex does.
fn write(lines: &[Value]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for line in lines {
        writeln!(bytes, "{line}")?;
    }
    io::stdout().write_all(&bytes)
}
