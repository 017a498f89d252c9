//! The real worker with the real Codex (`$COFFERDAM_TEST_CODEX`, else `codex` on PATH) and a model of ten lines: what a
//! stand-in for Codex cannot prove, because it is Codex that must agree.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by a panic, and looks for the one message that it means"
)]

mod lab;

use lab::{Lab, Worker};
use protocol::from_worker::Isolation;
use protocol::to_worker::{Begin, Configure, Provider, Sandbox};
use protocol::{AttemptId, Finished, Outcome, Route, Runtime, Text, ToWorker, TurnId};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

/// A key that no tool may find.
const KEY: &str = "cofferdam-provider-key-0123456789";

/// Serves a model: a prompt `run: CMD` asks for that command, anything else is answered with `hello`.
fn model() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&stream));
        }
    });
    format!("http://{address}/v1")
}

fn answer(mut stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while reader.read_line(&mut head).ok()? > 2 {
        let line = head.lines().last()?.to_lowercase();
        length = line.strip_prefix("content-length:").map_or(Some(length), |n| n.trim().parse().ok())?;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    assert!(head.contains(KEY), "the provider gets its key");
    let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
    let last = body["input"].as_array()?.last()?["content"][0]["text"].as_str().unwrap_or("").to_owned();
    let item = match last.strip_prefix("run: ") {
        Some(command) => serde_json::json!({"type": "function_call", "id": "f", "call_id": "c", "name": "exec_command",
            "arguments": serde_json::json!({"cmd": command}).to_string()}),
        None => serde_json::json!({"type": "message", "id": "m", "role": "assistant",
            "content": [{"type": "output_text", "text": "hello"}]}),
    };
    let usage = serde_json::json!({"input_tokens": 1, "output_tokens": 1, "total_tokens": 2});
    let events = [
        serde_json::json!({"type": "response.created", "response": {"id": "r"}}),
        serde_json::json!({"type": "response.output_item.done", "item": item}),
        serde_json::json!({"type": "response.completed", "response": {"id": "r", "usage": usage}}),
    ];
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n").ok()?;
    for event in events {
        write!(stream, "event: {}\ndata: {event}\n\n", event["type"].as_str()?).ok()?;
    }
    Some(())
}

fn configure(lab: &Lab, sandbox: Sandbox) -> Configure {
    let path = std::env::var("PATH").unwrap();
    let codex = std::env::var("COFFERDAM_TEST_CODEX").unwrap_or_else(|_| "codex".into());
    Configure {
        codex_command: codex,
        providers: vec![Provider { name: "mock".into(), base_url: model(), api_key_env: Some("MOCK_KEY".into()) }],
        env: vec![("PATH".into(), path), ("MOCK_KEY".into(), KEY.into()), ("GIVEN_TOKEN".into(), "visible".into())],
        env_secret: vec!["MOCK_KEY".into()],
        sandbox,
        ..lab.configure()
    }
}

fn turn(worker: &mut Worker<'_>, attempt: u64, runtime: Runtime, prompt: &str) -> Box<Finished> {
    let prompt = Text::Inline(prompt.to_owned());
    let route = Route { runtime, provider: "mock".into(), model: "gpt-5.5".into() };
    let (attempt, turn) = (AttemptId(attempt), TurnId(attempt));
    worker.say(&ToWorker::Begin(Box::new(Begin { attempt, turn, thread: None, prompt, route, begun: false })));
    assert_eq!(worker.started(), Isolation::Namespace);
    let end = worker.finished();
    worker.say(&ToWorker::Ack(attempt));
    assert_eq!((end.outcome, end.text.head()), (Outcome::Completed, "hello"), "{end:?}");
    end
}

/// What a tool can find of the key: in its environment, in everybody's arguments, in the environment of every process.
const HUNT: &str = "run: { env; cat /proc/*/cmdline /proc/1/environ; echo seen; } > $HOME/hunt 2>/dev/null; \
                    cat /proc/*/environ > $HOME/all 2>/dev/null; true";

#[test]
fn both_runtimes_answer_in_every_sandbox_and_a_tool_finds_no_key() {
    for sandbox in [Sandbox::ReadOnly, Sandbox::WorkspaceWrite, Sandbox::DangerFullAccess] {
        let lab = Lab::new("#!/bin/sh\n", true);
        let mut worker = lab.start(1);
        worker.ready(configure(&lab, sandbox));
        for (attempt, runtime) in [(1, Runtime::CodexCli), (2, Runtime::Codex)] {
            drop(fs::remove_file(lab.agent("home/hunt")));
            let end = turn(&mut worker, attempt, runtime, HUNT);
            assert!(end.ran.iter().any(|ran| ran.contains("environ")), "{end:?}");
            let found = fs::read(lab.agent("home/hunt")).unwrap_or_default();
            let found = String::from_utf8_lossy(&found);
            assert_eq!(found.contains("seen"), sandbox != Sandbox::ReadOnly, "{sandbox:?} {runtime}: {found}");
            assert_eq!(found.contains("GIVEN_TOKEN=visible"), sandbox != Sandbox::ReadOnly);
            assert!(!found.contains(KEY), "{sandbox:?} {runtime}: {}", story(&found));
            // Without a sandbox a tool may look into its parent, as any process of one user may.
            let all = fs::read(lab.agent("home/all")).unwrap_or_default();
            let all = String::from_utf8_lossy(&all);
            assert_eq!(all.contains(KEY), sandbox == Sandbox::DangerFullAccess, "{sandbox:?}: {}", story(&all));
        }
        assert_eq!(edits(&lab.agent("codex-home")), 0, "Codex leaves its configuration alone");
    }
}

/// The entries around the key.
fn story(found: &str) -> String {
    found.split('\0').filter(|entry| entry.contains(KEY)).collect::<Vec<_>>().join("\n")
}

fn edits(codex_home: &Path) -> usize {
    fs::read_dir(codex_home)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().path().to_string_lossy().contains("edited"))
        .count()
}

#[test]
fn codex_accepts_every_key_that_is_rendered() {
    let lab = Lab::new("#!/bin/sh\n", true);
    let mut worker = lab.start(1);
    let mut configure = configure(&lab, Sandbox::WorkspaceWrite);
    configure.codex_extra = "model_reasoning_effort = \"high\"".into();
    let path = configure.env[0].1.clone();
    let command = configure.codex_command.clone();
    worker.ready(configure);
    let codex = worker::codex::locate::locate(&command, &path).unwrap();
    let output = lab.run(&codex.program, &["app-server", "--print-startup-config", "--strict-config"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
