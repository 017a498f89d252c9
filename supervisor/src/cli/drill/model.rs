//! The model of the throw-away agents: a small server of the Responses API on loopback, in the drill's own process.
//!
//! ```text
//!   a request without the mark --------------------------------> "ok"
//!   a request with the mark, by what is played:
//!       Echo "ok" | Hang nothing, ever | Fill "ok", of many tokens | HoldCompaction nothing, to a compaction
//!       Loop a tool call, again and again | Once a tool call, then nothing
//! ```
//! What is held is answered as soon as something else is played, and forgotten when the caller goes.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What a prompt holds if its model is to play.
pub(super) const MARK: &str = "[drill: hurt]";
/// The largest request, in bytes: a history of a million tokens.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// Tokens that an ordinary answer is said to have cost.
const TOKENS: u64 = 110;
/// The same of one that fills a thread: beyond the limit of the victim's compaction.
const TOKENS_FULL: u64 = 50_000;
/// How long a tool may run before Codex gives back what it has printed, in milliseconds: the longest that it allows.
const YIELD_MS: u64 = 30_000;
/// Pause after a connection that cannot be taken: no descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is played to marked prompts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Play {
    Echo,
    Hang,
    Fill,
    HoldCompaction,
    Loop(String),
    Once(String),
}

/// The server. It ends with its runtime.
#[derive(Debug)]
pub(super) struct Model {
    port: u16,
    stage: Arc<Stage>,
}

#[derive(Debug)]
struct Stage {
    play: watch::Sender<Play>,
    /// Requests that are held at this moment.
    held: AtomicUsize,
    /// Requests that began to be held so far.
    holds: AtomicUsize,
    answers: AtomicU64,
}

/// Counts a held request for as long as it is.
struct Held<'a>(&'a Stage);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Model {
    /// Serves on a free port of loopback.
    pub(super) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let play = watch::Sender::new(Play::Echo);
        let stage =
            Arc::new(Stage { play, held: AtomicUsize::new(0), holds: AtomicUsize::new(0), answers: AtomicU64::new(0) });
        tokio::spawn(serve(listener, Arc::clone(&stage)));
        Ok(Self { port, stage })
    }

    pub(super) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// Plays this from now on.
    pub(super) fn play(&self, play: Play) {
        self.stage.play.send_replace(play);
    }

    /// Requests that are held, and how many began to be so far: if both stay, it is the same one.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.stage.held.load(Ordering::Relaxed), self.stage.holds.load(Ordering::Relaxed))
    }
}

async fn serve(listener: TcpListener, stage: Arc<Stage>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let stage = Arc::clone(&stage);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let stage = Arc::clone(&stage);
                async move { Ok::<_, Infallible>(answer(&stage, request).await) }
            });
            // A caller that goes in the middle is what a drill is about.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(stage: &Stage, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    if head.method != Method::POST || !head.uri.path().ends_with("/responses") {
        return plain(StatusCode::NOT_FOUND, "there is nothing here");
    }
    let Ok(body) = Limited::new(body, REQUEST_BYTES_MAX).collect().await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "too large");
    };
    let asked = Asked::read(&body.to_bytes(), &head.headers);
    let id = stage.answers.fetch_add(1, Ordering::Relaxed);
    let mut seen = stage.play.subscribe();
    let mut holding = None;
    let events = loop {
        let play = seen.borrow_and_update().clone();
        if let Some(events) = asked.answer(&play, id) {
            break events;
        }
        if holding.is_none() {
            stage.held.fetch_add(1, Ordering::Relaxed);
            stage.holds.fetch_add(1, Ordering::Relaxed);
            holding = Some(Held(stage));
        }
        if seen.changed().await.is_err() {
            break String::new();
        }
    };
    drop(holding);
    let mut response = Response::new(Full::new(Bytes::from(events)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

fn plain(status: StatusCode, words: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(words.as_bytes())));
    *response.status_mut() = status;
    response
}

/// What matters of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one request")]
struct Asked {
    marked: bool,
    compaction: bool,
    /// A tool has answered since the last prompt.
    after_tool: bool,
    /// Codex calls its shell `exec_command`, else `shell_command`.
    exec: bool,
}

impl Asked {
    fn read(body: &[u8], headers: &HeaderMap) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let metadata = headers.get("x-codex-turn-metadata").map(HeaderValue::as_bytes);
        let metadata: Value = metadata.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or(Value::Null);
        let items = body.get("input").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let kind = |item: &Value| item.get("type").and_then(Value::as_str).unwrap_or("").to_owned();
        let tools = body.get("tools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        Self {
            marked: items.iter().any(|item| item.to_string().contains(MARK)),
            compaction: metadata.get("request_kind").and_then(Value::as_str) == Some("compaction"),
            after_tool: items.last().is_some_and(|item| kind(item).ends_with("call_output")),
            exec: tools.iter().any(|tool| tool.get("name").and_then(Value::as_str) == Some("exec_command")),
        }
    }

    /// The whole stream of events, or `None`: not while this is played.
    fn answer(self, play: &Play, id: u64) -> Option<String> {
        if !self.marked {
            return Some(stream(&message(id), id, TOKENS));
        }
        match play {
            Play::Hang => None,
            Play::HoldCompaction if self.compaction => None,
            Play::Once(_) if self.after_tool => None,
            Play::Fill => Some(stream(&message(id), id, TOKENS_FULL)),
            Play::Loop(command) | Play::Once(command) if !self.compaction => {
                Some(stream(&self.tool(command, id), id, TOKENS))
            }
            Play::Echo | Play::HoldCompaction | Play::Loop(_) | Play::Once(_) => Some(stream(&message(id), id, TOKENS)),
        }
    }

    fn tool(self, command: &str, id: u64) -> Value {
        let (name, arguments) = if self.exec {
            ("exec_command", json!({"cmd": command, "yield_time_ms": YIELD_MS}))
        } else {
            ("shell_command", json!({"command": command}))
        };
        json!({
            "type": "function_call", "id": format!("fc_{id}"), "call_id": format!("call_{id}"), "name": name,
            "arguments": arguments.to_string(), "status": "completed",
        })
    }
}

fn message(id: u64) -> Value {
    json!({
        "type": "message", "role": "assistant", "id": format!("msg_{id}"), "status": "completed",
        "content": [{"type": "output_text", "text": "ok", "annotations": []}],
    })
}

/// The server-sent events of one response with one item.
fn stream(item: &Value, id: u64, tokens: u64) -> String {
    let response = format!("resp_{id}");
    let usage = json!({
        "input_tokens": tokens, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 0, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": tokens,
    });
    let events = [
        json!({"type": "response.created", "response": {"id": response, "status": "in_progress"}}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": {"id": response, "status": "completed", "usage": usage}}),
    ];
    let line = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
    events.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    fn asked(prompt: &str, last: &str) -> Asked {
        let user = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": prompt}]});
        let body = json!({"input": [user, {"type": last}], "tools": [{"name": "exec_command"}]});
        Asked::read(body.to_string().as_bytes(), &HeaderMap::new())
    }

    #[test]
    fn only_marked_prompts_are_played_to() {
        let plays = [Play::Hang, Play::Loop("x".into()), Play::HoldCompaction];
        assert!(plays.iter().all(|play| asked("hello", "message").answer(play, 1).unwrap().contains("\"ok\"")));
        assert_eq!(asked(MARK, "message").answer(&Play::Hang, 1), None);
        assert_eq!(Asked::read(b"no json", &HeaderMap::new()).answer(&Play::Hang, 1).map(|_| ()), Some(()));
    }

    #[test]
    fn each_play_does_what_it_says() {
        let tool = |play: &Play, last: &str| asked(MARK, last).answer(play, 7);
        let called = |answer: Option<String>| answer.is_some_and(|text| text.contains("exec_command"));
        assert!(called(tool(&Play::Loop("make".into()), "function_call_output")));
        assert!(called(tool(&Play::Once("make".into()), "message")));
        assert_eq!(tool(&Play::Once("make".into()), "function_call_output"), None);
        assert!(tool(&Play::Fill, "message").unwrap().contains("50000"));
        let compaction = Asked { compaction: true, ..asked(MARK, "message") };
        assert_eq!(compaction.answer(&Play::HoldCompaction, 1), None);
        assert!(asked(MARK, "message").answer(&Play::HoldCompaction, 1).is_some());
    }

    #[tokio::test]
    async fn what_is_held_is_answered_when_something_else_is_played() {
        let model = Model::start().await.unwrap();
        model.play(Play::Hang);
        let body = json!({"input": [{"type": "message", "content": MARK}]}).to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", model.port)).await.unwrap();
        let head = format!("POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        while model.held() != (1, 1) {
            tokio::task::yield_now().await;
        }
        model.play(Play::Echo);
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).await.unwrap();
        let said = String::from_utf8_lossy(&bytes[..read]);
        assert!(said.starts_with("HTTP/1.1 200") && said.contains("text/event-stream"), "{said}");
        assert_eq!(model.held(), (0, 1));
    }

    #[tokio::test]
    async fn a_caller_that_goes_is_held_no_more() {
        let model = Model::start().await.unwrap();
        model.play(Play::Hang);
        let body = json!({"input": [{"type": "message", "content": MARK}]}).to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", model.port)).await.unwrap();
        let head = format!("POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        while model.held() != (1, 1) {
            tokio::task::yield_now().await;
        }
        drop(stream);
        while model.held() != (0, 1) {
            tokio::task::yield_now().await;
        }
    }
}
