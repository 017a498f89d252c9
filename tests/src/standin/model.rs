//! A Responses API model server that plays scripts, driven by the real Codex.
//!
//! Without a script it answers `echo: PROMPT`. Markers in the last prompt say otherwise; they are played in order, and each
//! tool call ends one request's share (so `[[tool make]] [[500]]` fails after the tool has run):
//!
//! | marker | what the model does |
//! |---|---|
//! | `[[say TEXT]]` | answers TEXT |
//! | `[[recall]]` | answers `recall: [..]`: every earlier prompt of the thread as a JSON array |
//! | `[[slow 20x100ms]]` | 20 more deltas (`1 2 3 ..`) with that pause after each |
//! | `[[big 20M]]` | that many bytes of text before the answer (`K`, `M`) |
//! | `[[reason TEXT]]` | a reasoning item first |
//! | `[[tokens 300000]]` | reports that usage (else 110): starts a compaction where the limit is lower |
//! | `[[limits 80]]` | rate limit headers: 80 % used |
//! | `[[tool CMD]]` | runs CMD in the shell tool, waits for its end, then answers `tool exit N: OUTPUT`, then the echo |
//! | `[[tools A ;; B]]` | both in one response |
//! | `[[background CMD]]` | runs CMD and leaves it running (yields after 250 ms) |
//! | `[[escalate CMD]]` | asks for leave to run CMD outside the sandbox |
//! | `[[call NAME JSON]]`, `[[custom NAME INPUT]]` | any function or freeform tool |
//! | `[[loop CMD]]` | runs CMD again and again, without end |
//! | `[[delay 50ms]]` | waits before the headers |
//! | `[[hold NAME]]`, `[[hold-stream NAME]]` | waits before the headers, or after the first delta, until NAME is released |
//! | `[[hang]]`, `[[hang-stream]]` | never sends headers; never sends anything after them |
//! | `[[drop]]`, `[[cut]]` | closes the connection before the headers; after the first delta |
//! | `[[usage-limit]]`, `.. in 90`, `.. at UNIX` | 429 `usage_limit_reached` with headers; ends in an hour, in 90 s, then |
//! | `[[429]]`, `[[quota]]` | plain 429 with retry-after; 429 `insufficient_quota` |
//! | `[[400]]`, `[[context]]`, `[[401]]`, `[[404]]` | invalid request; context length; bad key; no such model |
//! | `[[403]]`, `[[blocked]]` | 403 with an HTML page instead of JSON: a challenge for browsers; a refusal of our address |
//! | `[[500]]`, `[[503]]` | server error; overloaded |
//! | `[[incomplete]]`, `[[failed CODE]]` | the stream ends in `response.incomplete`, in `response.failed` with CODE |
//!
//! The verbs without free text take `xN` (the first N requests that meet it, counted per prompt text) and `@MODEL` (that model
//! alone): `[[500 x2 @gpt-5.4]]`. With `compact-` before it a marker rules the compaction requests of the thread that its
//! prompt is in: `[[compact-hang]]`, `[[compact-500 x1]]`, `[[compact-hold NAME]]`. A compaction that no marker rules works.
//!
//! A model named `standin-MARKER` (dashes for spaces: `standin-hang`, `standin-compact-hang`, `standin-failed-server_error`) plays
//! that marker for prompts without one. Codex does not know such a model: it prints a warning item and leaves out `apply_patch`.
//! The side door sets a script for a model, or for `*`, which outranks both.
//!
//! ```text
//! GET  /_standin/requests?after=SEQ&text=T   what was asked, in order; T is searched for in the body
//! GET  /_standin/next?after=SEQ&text=T&wait_ms=N   the first such request, waited for; null if none came
//! GET  /_standin/count?after=SEQ&text=T      POST /_standin/release/NAME      GET /_standin/held
//! POST /_standin/script {"model":"gpt-5.5","script":"[[500]]"|null}           POST /_standin/reset
//! ```

mod answer;
mod http;
mod plan;
mod scene;
mod script;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::board::Board;
use super::serve::Serving;

/// Requests kept for tests to look at; a body is about 35 kB, so this bounds a long benchmark to some 70 MB.
pub const REQUESTS_KEPT_MAX: usize = 2_000;

/// A model server on 127.0.0.1; ends when dropped.
#[derive(Debug)]
pub struct ModelServer {
    board: Arc<Board<Room>>,
    serving: Serving,
}

/// What a request wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The next answer of a turn.
    Turn,
    /// A summary of the thread.
    Compaction,
    /// A WebSocket, which is refused.
    Upgrade,
    /// The list of models.
    Models,
    /// A path that is not served.
    Other,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It has not.
    Open,
    /// The whole answer was sent.
    Answered,
    /// The connection ended first, by the client or by script.
    Gone,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Counts from 1, in order of arrival.
    pub seq: u64,
    /// Milliseconds since the server started.
    pub at_ms: u64,
    /// What it wanted.
    pub kind: Kind,
    /// How it ended.
    pub fate: Fate,
    /// The HTTP method.
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The model asked for; empty if none.
    pub model: String,
    /// The last prompt of a person in it.
    pub prompt: String,
    /// Codex' thread id.
    pub thread: Option<String>,
    /// The markers that ruled the answer.
    pub played: Vec<String>,
    /// Header names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as it came.
    pub bytes: Bytes,
}

impl Request {
    fn new(kind: Kind, method: &Method, path: &str, headers: &HeaderMap, bytes: Bytes) -> Self {
        let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self {
            seq: 0,
            at_ms: 0,
            kind,
            fate: Fate::Open,
            method: method.to_string(),
            path: path.to_owned(),
            model: String::new(),
            prompt: String::new(),
            thread: None,
            played: Vec::new(),
            headers: headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            bytes,
        }
    }

    /// The body as JSON; null if it is none.
    pub fn body(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }

    /// Whether the body holds `text`, as JSON writes it.
    pub fn has(&self, text: &str) -> bool {
        text.is_empty() || String::from_utf8_lossy(&self.bytes).contains(text)
    }

    fn json(&self) -> Value {
        json!({
            "seq": self.seq, "at_ms": self.at_ms, "kind": format!("{:?}", self.kind).to_lowercase(),
            "fate": format!("{:?}", self.fate).to_lowercase(), "method": self.method, "path": self.path,
            "model": self.model, "prompt": self.prompt, "thread": self.thread, "played": self.played,
            "headers": self.headers, "body": self.body(),
        })
    }
}

#[derive(Debug)]
struct Room {
    started: Instant,
    requests: VecDeque<Request>,
    seq: u64,
    scripts: BTreeMap<String, String>,
    used: BTreeMap<String, u32>,
    held: BTreeMap<String, u32>,
    released: BTreeSet<String>,
    talkative: bool,
}

impl Room {
    #[expect(clippy::disallowed_methods, reason = "a stand-in lives in the real world's time")]
    fn new(talkative: bool) -> Self {
        Self {
            started: Instant::now(),
            requests: VecDeque::new(),
            seq: 0,
            scripts: BTreeMap::new(),
            used: BTreeMap::new(),
            held: BTreeMap::new(),
            released: BTreeSet::new(),
            talkative,
        }
    }

    #[expect(clippy::print_stdout, reason = "the demo's log")]
    fn note(&mut self, mut request: Request) -> u64 {
        self.seq += 1;
        request.seq = self.seq;
        request.at_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.talkative {
            let prompt: String = request.prompt.chars().take(60).collect();
            println!("model #{} {} {} {:?} {prompt:?}", request.seq, request.path, request.model, request.kind);
        }
        if self.requests.len() == REQUESTS_KEPT_MAX {
            self.requests.pop_front();
        }
        self.requests.push_back(request);
        self.seq
    }

    fn settle(&mut self, seq: u64, fate: Fate) {
        if let Some(request) = self.requests.iter_mut().find(|request| request.seq == seq) {
            request.fate = fate;
        }
    }

    fn after<'a>(&'a self, seq: u64, text: &'a str) -> impl Iterator<Item = &'a Request> {
        self.requests.iter().filter(move |request| request.seq > seq && request.has(text))
    }

    fn script(&mut self, model: &str, script: Option<&str>) {
        // A script that is set again starts to count again.
        self.used.retain(|key, _| !key.contains("\ndoor "));
        match script {
            Some(script) => drop(self.scripts.insert(model.to_owned(), script.to_owned())),
            None => drop(self.scripts.remove(model)),
        }
    }

    fn reset(&mut self) {
        self.requests.clear();
        self.scripts.clear();
        self.used.clear();
        self.released.clear();
    }
}

impl ModelServer {
    /// Starts on any free port.
    pub fn start() -> io::Result<Self> {
        Self::start_on(0, false)
    }

    /// Starts on `port`; a talkative one prints a line per request.
    pub fn start_on(port: u16, talkative: bool) -> io::Result<Self> {
        let board = Arc::new(Board::new(Room::new(talkative)));
        let serving = Serving::start(port, http::router(Arc::clone(&board)))?;
        Ok(Self { board, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.serving.address()
    }

    /// What a provider's `base_url` has to be.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address())
    }

    /// Every request so far, oldest first (the last [`REQUESTS_KEPT_MAX`]).
    pub fn requests(&self) -> Vec<Request> {
        self.board.look(|room| room.requests.iter().cloned().collect())
    }

    /// How many requests had `text` in their body.
    pub fn count(&self, text: &str) -> usize {
        self.board.look(|room| room.after(0, text).count())
    }

    /// How many requests had `text` in their last prompt: the requests of one turn, retries included.
    pub fn count_prompt(&self, text: &str) -> usize {
        self.board.look(|room| room.requests.iter().filter(|request| request.prompt.contains(text)).count())
    }

    /// Waits for the first request after number `after` for which `is` holds.
    ///
    /// # Panics
    /// If none comes within `limit`, with the story so far.
    pub async fn next(&self, after: u64, limit: Duration, is: impl Fn(&Request) -> bool) -> Request {
        let found = |room: &mut Room| room.requests.iter().find(|request| request.seq > after && is(request)).cloned();
        match self.board.until_within(limit, found).await {
            Some(request) => request,
            None => self.fail(&format!("no such request after #{after} within {limit:?}")),
        }
    }

    /// Waits for the first request whose last prompt holds `text`.
    ///
    /// # Panics
    /// If none comes within `limit`, with the story so far.
    pub async fn next_prompt(&self, text: &str, limit: Duration) -> Request {
        self.next(0, limit, |request| request.prompt.contains(text)).await
    }

    /// Waits until a request is held under `name`.
    ///
    /// # Panics
    /// If none is within `limit`, with the story so far.
    pub async fn wait_held(&self, name: &str, limit: Duration) {
        let found = |room: &mut Room| room.held.get(name).is_some_and(|count| *count > 0).then_some(());
        if self.board.until_within(limit, found).await.is_none() {
            self.fail(&format!("nothing is held as {name} within {limit:?}"));
        }
    }

    /// Waits until request `seq` has ended, and says how.
    ///
    /// # Panics
    /// If it is still open after `limit`, with the story so far.
    pub async fn wait_end(&self, seq: u64, limit: Duration) -> Fate {
        let found = |room: &mut Room| {
            let request = room.requests.iter().find(|request| request.seq == seq)?;
            (request.fate != Fate::Open).then_some(request.fate)
        };
        match self.board.until_within(limit, found).await {
            Some(fate) => fate,
            None => self.fail(&format!("request #{seq} did not end within {limit:?}")),
        }
    }

    /// Lets every request go that is, or will be, held under `name`.
    pub fn release(&self, name: &str) {
        self.board.change(|room| room.released.insert(name.to_owned()));
    }

    /// Sets (or takes away) the script that outranks prompts for `model`, or for every model by `*`.
    pub fn script(&self, model: &str, script: Option<&str>) {
        self.board.change(|room| room.script(model, script));
    }

    /// Forgets requests, scripts, counts and releases.
    pub fn reset(&self) {
        self.board.change(Room::reset);
    }

    /// One line per request, for the message of a failed test.
    pub fn story(&self) -> String {
        let line = |request: &Request| {
            let Request { seq, at_ms, kind, fate, model, played, prompt, .. } = request;
            let prompt: String = prompt.chars().take(80).collect();
            format!("  #{seq} {at_ms} ms {kind:?} {fate:?} {model} {played:?} {prompt:?}")
        };
        let lines: Vec<_> = self.board.look(|room| room.requests.iter().map(line).collect());
        format!("the model saw {} requests:\n{}", lines.len(), lines.join("\n"))
    }

    #[expect(clippy::panic, reason = "a wait that fails is a test that fails")]
    fn fail(&self, why: &str) -> ! {
        panic!("{why}; {}", self.story())
    }
}
