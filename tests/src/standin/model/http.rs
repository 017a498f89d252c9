//! Serves the model API and its side door, and plays plans.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, Step};
use super::plan::{Plan, Wait, plan};
use super::scene::Scene;
use super::{Fate, Kind, Request, Room};
use crate::standin::board::Board;
use crate::standin::serve::Line;

/// The largest request taken, in bytes: more than a history of a million tokens.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// How long the side door's `next` waits, at most, in milliseconds.
const NEXT_MS_MAX: u64 = 60_000;

type Shared = Arc<Board<Room>>;

pub(crate) fn router(board: Shared) -> Router {
    Router::new()
        .route("/v1/responses", post(responses).get(upgrade))
        .route("/v1/models", get(models))
        .route("/_standin/requests", get(door_requests))
        .route("/_standin/next", get(door_next))
        .route("/_standin/count", get(door_count))
        .route("/_standin/held", get(door_held))
        .route("/_standin/release/{name}", post(door_release))
        .route("/_standin/script", post(door_script))
        .route("/_standin/reset", post(door_reset))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(board)
}

async fn responses(
    State(board): State<Shared>,
    ConnectInfo(line): ConnectInfo<Line>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let scene = Scene::read(&body, request_kind(&headers).as_deref());
    let kind = if scene.compaction { Kind::Compaction } else { Kind::Turn };
    let (seq, plan) = board.change(|room| {
        let door = room.scripts.get(&scene.model).or_else(|| room.scripts.get("*")).cloned();
        let plan = plan(&scene, door.as_deref(), &mut room.used);
        let mut request = Request::new(kind, &Method::POST, "/v1/responses", &headers, bytes);
        request.model.clone_from(&scene.model);
        scene.prompt().clone_into(&mut request.prompt);
        request.thread.clone_from(&scene.thread);
        request.played.clone_from(&plan.played);
        (room.note(request), plan)
    });
    let watch = Watch { board: Arc::clone(&board), seq, ended: false };
    for wait in &plan.waits {
        match wait {
            Wait::Time(time) => tokio::time::sleep(*time).await,
            Wait::Hold(name) => hold(&board, name).await,
            Wait::Forever => std::future::pending().await,
        }
    }
    let Some(failure) = plan.failure else { return stream(board, &plan, &scene, watch) };
    match answer::failure(failure, &scene.model, unix_seconds()) {
        Some(response) => watch.end(response),
        None => {
            // The guard is dropped with the handler and books the request as gone.
            line.cut().await
        }
    }
}

/// What Codex says of the request in its own header.
fn request_kind(headers: &HeaderMap) -> Option<String> {
    let metadata: Value = serde_json::from_slice(headers.get("x-codex-turn-metadata")?.as_bytes()).ok()?;
    Some(metadata.get("request_kind")?.as_str()?.to_owned())
}

fn stream(board: Shared, plan: &Plan, scene: &Scene, watch: Watch) -> Response {
    let steps = answer::steps(plan, scene, watch.seq).into_iter();
    let stream =
        futures_util::stream::unfold((steps, Some(watch), board), |(mut steps, mut watch, board)| async move {
            loop {
                match steps.next() {
                    Some(Step::Send(text)) => {
                        if steps.len() == 0
                            && let Some(watch) = watch.take()
                        {
                            watch.book();
                        }
                        return Some((Ok(Bytes::from(text)), (steps, watch, board)));
                    }
                    Some(Step::Pause(time)) => tokio::time::sleep(time).await,
                    Some(Step::Hold(name)) => hold(&board, &name).await,
                    Some(Step::Forever) => std::future::pending().await,
                    Some(Step::Cut) => {
                        return Some((Err(std::io::Error::other("cut by script")), (steps, watch, board)));
                    }
                    None => return None,
                }
            }
        });
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    if let Some(percent) = plan.limits {
        /// When the window of a `[[limits P]]` answer ends, in seconds.
        const WINDOW_SECONDS: u64 = 3_600;
        answer::limit_headers(&mut response, percent, unix_seconds() + WINDOW_SECONDS);
    }
    response
}

/// Waits until the test lets `name` go, and is counted as held meanwhile.
async fn hold(board: &Shared, name: &str) {
    struct Held<'a>(&'a Shared, &'a str);
    impl Drop for Held<'_> {
        fn drop(&mut self) {
            self.0.change(|room| {
                if let Some(count) = room.held.get_mut(self.1) {
                    *count = count.saturating_sub(1);
                }
            });
        }
    }
    board.change(|room| *room.held.entry(name.to_owned()).or_default() += 1);
    let _held = Held(board, name);
    board.until(|room| room.released.contains(name).then_some(())).await;
}

/// Books how a request ended; dropped before that, the client has gone.
struct Watch {
    board: Shared,
    seq: u64,
    ended: bool,
}

impl Watch {
    fn end(self, response: Response) -> Response {
        self.book();
        response
    }

    fn book(mut self) {
        self.ended = true;
        self.board.change(|room| room.settle(self.seq, Fate::Answered));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.ended {
            self.board.change(|room| room.settle(self.seq, Fate::Gone));
        }
    }
}

/// The built-in provider tries a WebSocket first and takes 426 for "use POST".
async fn upgrade(State(board): State<Shared>, headers: HeaderMap) -> Response {
    let request = Request::new(Kind::Upgrade, &Method::GET, "/v1/responses", &headers, Bytes::new());
    note_answered(&board, request);
    StatusCode::UPGRADE_REQUIRED.into_response()
}

async fn models(State(board): State<Shared>, headers: HeaderMap) -> Response {
    let request = Request::new(Kind::Models, &Method::GET, "/v1/models", &headers, Bytes::new());
    note_answered(&board, request);
    let model = |id: &str| json!({"id": id, "object": "model", "created": 0, "owned_by": "standin"});
    axum::Json(json!({"object": "list", "data": [model("gpt-5.5"), model("gpt-5.4")]})).into_response()
}

async fn unknown(State(board): State<Shared>, method: Method, uri: Uri, headers: HeaderMap, bytes: Bytes) -> Response {
    note_answered(&board, Request::new(Kind::Other, &method, uri.path(), &headers, bytes));
    (StatusCode::NOT_FOUND, axum::Json(json!({"error": {"message": "the stand-in has no such path"}}))).into_response()
}

fn note_answered(board: &Shared, request: Request) {
    board.change(|room| {
        let seq = room.note(request);
        room.settle(seq, Fate::Answered);
    });
}

#[derive(Debug, Deserialize)]
struct Window {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    text: String,
    #[serde(default)]
    wait_ms: u64,
}

async fn door_requests(State(board): State<Shared>, Query(window): Query<Window>) -> axum::Json<Value> {
    axum::Json(board.look(|room| room.after(window.after, &window.text).map(Request::json).collect()))
}

async fn door_next(State(board): State<Shared>, Query(window): Query<Window>) -> axum::Json<Value> {
    let limit = Duration::from_millis(window.wait_ms.min(NEXT_MS_MAX));
    let next = board.until_within(limit, |room| room.after(window.after, &window.text).next().map(Request::json)).await;
    axum::Json(next.unwrap_or(Value::Null))
}

async fn door_count(State(board): State<Shared>, Query(window): Query<Window>) -> axum::Json<Value> {
    axum::Json(json!({"count": board.look(|room| room.after(window.after, &window.text).count())}))
}

async fn door_held(State(board): State<Shared>) -> axum::Json<Value> {
    axum::Json(json!(board.look(|room| room.held.clone())))
}

async fn door_release(State(board): State<Shared>, Path(name): Path<String>) -> StatusCode {
    board.change(|room| room.released.insert(name));
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
struct Script {
    model: String,
    script: Option<String>,
}

async fn door_script(State(board): State<Shared>, axum::Json(script): axum::Json<Script>) -> StatusCode {
    board.change(|room| room.script(&script.model, script.script.as_deref()));
    StatusCode::NO_CONTENT
}

async fn door_reset(State(board): State<Shared>) -> StatusCode {
    board.change(Room::reset);
    StatusCode::NO_CONTENT
}

#[expect(clippy::disallowed_methods, reason = "a limit's reset is a date of the real world, told to the real Codex")]
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
