//! Serves the Bot API: finds the bot, meets its faults, performs the call, or waits for updates.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use serde_json::{Value, json};

use super::fault::{self, FaultKind};
use super::methods::{self, Refusal};
use super::params::Params;
use super::{Hall, door};
use crate::standin::board::Board;
use crate::standin::serve::Line;

/// The largest call taken, in bytes: Telegram's own limit for files is 50 MB.
const CALL_BYTES_MAX: usize = 64 << 20;
/// The longest poll, in seconds, as with the real server.
const POLL_SECONDS_MAX: i64 = 50;
/// Updates in one answer, as with the real server.
const UPDATES_MAX: i64 = 100;

pub(crate) type Shared = Arc<Board<Hall>>;

pub(crate) fn router(board: Shared) -> Router {
    Router::new()
        .route("/{bot}/{method}", any(call))
        .route("/file/{bot}/files/{id}", get(file))
        .nest("/_standin", door::router())
        .fallback(|| async { refuse(&refusal(404, "Not Found"), None) })
        .layer(DefaultBodyLimit::max(CALL_BYTES_MAX))
        .with_state(board)
}

/// A call on its way: books what became of it, also if the client leaves.
struct Open {
    board: Shared,
    token: String,
    seq: u64,
}

impl Open {
    fn settle(&self, status: Option<u16>, done: bool) {
        self.board.change(|hall| {
            if let Some(account) = hall.bots.get_mut(&self.token) {
                account.settle(self.seq, status, done);
            }
        });
    }

    fn answer(&self, result: Result<Value, Refusal>, done: bool) -> Response {
        match result {
            Ok(result) => {
                self.settle(Some(200), done);
                axum::Json(json!({"ok": true, "result": result})).into_response()
            }
            Err(refusal) => {
                self.settle(Some(refusal.code), false);
                refuse(&refusal, None)
            }
        }
    }
}

async fn call(
    State(board): State<Shared>,
    ConnectInfo(wire): ConnectInfo<Line>,
    Path((account, method)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(token) = account.strip_prefix("bot") else { return refuse(&refusal(404, "Not Found"), None) };
    let content_type = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let params = Params::read(query.as_deref().unwrap_or(""), content_type, &body);
    let met = board.change(|hall| {
        hall.say(token, &method, &params);
        let account = hall.bots.get_mut(token)?;
        let seq = account.called(&method, record(&params));
        Some((seq, fault::take(&mut account.faults, &method)))
    });
    let Some((seq, fault)) = met else { return refuse(&refusal(401, "Unauthorized"), None) };
    let open = Open { board: Arc::clone(&board), token: token.to_owned(), seq };
    let mut after = None;
    match fault {
        None => {}
        Some(FaultKind::Error { code, description, retry_after }) => {
            open.settle(Some(code), false);
            return refuse(&Refusal { code, description }, retry_after);
        }
        Some(FaultKind::Html { code }) => {
            open.settle(Some(code), false);
            return page(code);
        }
        Some(FaultKind::CutBefore) => return wire.cut().await,
        Some(FaultKind::Delay { ms }) => tokio::time::sleep(Duration::from_millis(ms)).await,
        Some(FaultKind::Hold(name)) => hold(&board, &name).await,
        Some(FaultKind::Hang) => return std::future::pending().await,
        Some(kind @ (FaultKind::CutAfter | FaultKind::HoldAfter(_))) => after = Some(kind),
    }
    let result = if method.eq_ignore_ascii_case("getUpdates") {
        updates(&board, token, &params).await
    } else {
        board.change(|hall| match hall.bots.get_mut(token) {
            Some(account) => methods::perform(account, &method, &params),
            None => Err(refusal(401, "Unauthorized")),
        })
    };
    match after {
        Some(FaultKind::CutAfter) => {
            open.settle(None, result.is_ok());
            return wire.cut().await;
        }
        Some(FaultKind::HoldAfter(name)) => {
            open.settle(None, result.is_ok());
            hold(&board, &name).await;
        }
        Some(_) | None => {}
    }
    open.answer(result, true)
}

/// The parameters as the call log shows them.
fn record(params: &Params) -> Value {
    let mut fields: serde_json::Map<String, Value> = params.fields.clone().into_iter().collect();
    for (name, file) in &params.files {
        fields.insert(name.clone(), json!({"file_name": file.name, "bytes": file.bytes.len()}));
    }
    Value::Object(fields)
}

/// Confirms, then waits for updates. A later poll ends this one with the conflict that the real server tells.
async fn updates(board: &Shared, token: &str, params: &Params) -> Result<Value, Refusal> {
    /// Counts the poll as open for as long as its connection lives.
    struct Polling<'a>(&'a Shared, &'a str);
    impl Drop for Polling<'_> {
        fn drop(&mut self) {
            self.0.change(|hall| {
                if let Some(account) = hall.bots.get_mut(self.1) {
                    account.polling -= 1;
                }
            });
        }
    }
    let number = |name: &str, default: i64| params.integer(name).unwrap_or(default);
    let limit = usize::try_from(number("limit", UPDATES_MAX).clamp(1, UPDATES_MAX)).unwrap_or(1);
    let wait = u64::try_from(number("timeout", 0).clamp(0, POLL_SECONDS_MAX)).unwrap_or(0);
    let poll = board.change(|hall| {
        let account = hall.bots.get_mut(token).ok_or_else(|| refusal(401, "Unauthorized"))?;
        if !account.webhook.is_empty() {
            let text = "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first";
            return Err(refusal(409, text));
        }
        account.confirm(number("offset", 0));
        account.poll += 1;
        account.polling += 1;
        Ok(account.poll)
    })?;
    let _polling = Polling(board, token);
    let found = board.until_within(Duration::from_secs(wait), |hall| {
        let Some(account) = hall.bots.get_mut(token) else { return Some(Err(refusal(401, "Unauthorized"))) };
        if account.poll != poll {
            let text =
                "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running";
            return Some(Err(refusal(409, text)));
        }
        let ready: Vec<Value> = account.updates.iter().take(limit).map(|(_, update)| update.clone()).collect();
        (!ready.is_empty()).then_some(Ok(Value::from(ready)))
    });
    found.await.unwrap_or_else(|| Ok(json!([])))
}

/// Waits until the test lets `name` go, and is counted as held meanwhile.
async fn hold(board: &Shared, name: &str) {
    struct Held<'a>(&'a Shared, &'a str);
    impl Drop for Held<'_> {
        fn drop(&mut self) {
            self.0.change(|hall| {
                if let Some(count) = hall.held.get_mut(self.1) {
                    *count = count.saturating_sub(1);
                }
            });
        }
    }
    board.change(|hall| *hall.held.entry(name.to_owned()).or_default() += 1);
    let _held = Held(board, name);
    board.until(|hall| hall.released.contains(name).then_some(())).await;
}

async fn file(State(board): State<Shared>, Path((bot, id)): Path<(String, String)>) -> Response {
    let token = bot.strip_prefix("bot").unwrap_or("");
    match board.look(|hall| hall.bots.get(token)?.files.get(&id).cloned()) {
        Some(content) => content.into_response(),
        None => refuse(&refusal(404, "Not Found"), None),
    }
}

fn refusal(code: u16, description: &str) -> Refusal {
    Refusal { code, description: description.to_owned() }
}

fn refuse(refusal: &Refusal, retry_after: Option<u64>) -> Response {
    let mut body = json!({"ok": false, "error_code": refusal.code, "description": refusal.description});
    if let Some(seconds) = retry_after {
        body["parameters"] = json!({"retry_after": seconds});
    }
    let status = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(body)).into_response()
}

fn page(code: u16) -> Response {
    let page = format!(
        "<html><head><title>{code}</title></head><body><center><h1>{code}</h1></center><hr><center>nginx</center></body></html>"
    );
    let mut answer = page.into_response();
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    answer
}
