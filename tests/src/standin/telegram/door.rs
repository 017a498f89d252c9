//! The side door of the Telegram stand-in: what a person at their phone does and sees, and what tests set, over HTTP.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::account::{Account, Call, Writing};
use super::chat::Event;
use super::fault::Fault;
use super::http::Shared;

/// How long `next` waits, at most, in milliseconds.
const NEXT_MS_MAX: u64 = 60_000;

pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/bots", get(bots).post(add_bot))
        .route("/bot/{token}/say", post(say))
        .route("/bot/{token}/update", post(update))
        .route("/bot/{token}/press", post(press))
        .route("/bot/{token}/chat/{chat}", get(chat))
        .route("/bot/{token}/chat/{chat}/next", get(next))
        .route("/bot/{token}/calls", get(calls))
        .route("/bot/{token}/fault", post(fault).delete(no_faults))
        .route("/release/{name}", post(release))
        .route("/held", get(held))
}

async fn bots(State(board): State<Shared>) -> axum::Json<Value> {
    let line = |(token, account): (&String, &Account)| {
        json!({
            "token": token, "username": account.username, "unconfirmed": account.updates.len(),
            "confirmed": account.confirmed, "polls_open": account.polling,
            "chats": account.chats.keys().collect::<Vec<_>>(),
        })
    };
    axum::Json(board.look(|hall| hall.bots.iter().map(line).collect()))
}

#[derive(Debug, Deserialize)]
struct NewBot {
    token: String,
    username: Option<String>,
}

async fn add_bot(State(board): State<Shared>, axum::Json(new): axum::Json<NewBot>) -> StatusCode {
    board.change(|hall| hall.add(&new.token, new.username.as_deref()));
    StatusCode::CREATED
}

#[derive(Debug, Deserialize)]
struct Say {
    chat: i64,
    text: String,
    user: Option<i64>,
    kind: Option<String>,
    thread: Option<i64>,
    reply_to: Option<i64>,
    /// Changes this message instead of writing a new one.
    edit: Option<i64>,
}

async fn say(State(board): State<Shared>, Path(token): Path<String>, axum::Json(say): axum::Json<Say>) -> Response {
    with(&board, &token, |account| {
        if let Some(message) = say.edit {
            return account.rewrite(say.chat, message, &say.text).map(|update| json!({"update_id": update}));
        }
        let Say { chat, text, user, kind, thread, reply_to, edit: _ } = say;
        let written = account.hear(Writing { chat, user, kind, thread, reply_to, text });
        Some(json!({"update_id": written.update_id, "message_id": written.message_id}))
    })
}

async fn update(
    State(board): State<Shared>,
    Path(token): Path<String>,
    axum::Json(raw): axum::Json<Value>,
) -> Response {
    with(&board, &token, |account| Some(json!({"update_id": account.push(raw)})))
}

#[derive(Debug, Deserialize)]
struct Press {
    chat: i64,
    message_id: i64,
    data: String,
    user: Option<i64>,
}

async fn press(
    State(board): State<Shared>,
    Path(token): Path<String>,
    axum::Json(press): axum::Json<Press>,
) -> Response {
    with(&board, &token, |account| {
        let user = press.user.unwrap_or(press.chat);
        let update = account.press(press.chat, press.message_id, user, &press.data)?;
        Some(json!({"update_id": update}))
    })
}

async fn chat(State(board): State<Shared>, Path((token, chat)): Path<(String, i64)>) -> Response {
    with(&board, &token, |account| account.chats.get(&chat).map(super::Chat::json))
}

#[derive(Debug, Deserialize)]
struct Window {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: u64,
}

/// The events of a chat after a number: at once if there are any, else as soon as one comes.
async fn next(
    State(board): State<Shared>,
    Path((token, chat)): Path<(String, i64)>,
    Query(window): Query<Window>,
) -> axum::Json<Value> {
    let limit = Duration::from_millis(window.wait_ms.min(NEXT_MS_MAX));
    let events = board.until_within(limit, |hall| {
        let chat = hall.bots.get(&token)?.chats.get(&chat)?;
        let events: Vec<_> = chat.events.iter().filter(|event| event.seq > window.after).map(Event::json).collect();
        (!events.is_empty()).then_some(Value::from(events))
    });
    axum::Json(events.await.unwrap_or_else(|| json!([])))
}

#[derive(Debug, Deserialize)]
struct Method {
    #[serde(default)]
    method: String,
}

async fn calls(State(board): State<Shared>, Path(token): Path<String>, Query(query): Query<Method>) -> Response {
    with(&board, &token, |account| {
        let asked = |call: &&Call| query.method.is_empty() || call.method.eq_ignore_ascii_case(&query.method);
        Some(account.calls().filter(asked).map(Call::json).collect())
    })
}

async fn fault(
    State(board): State<Shared>,
    Path(token): Path<String>,
    axum::Json(fault): axum::Json<Fault>,
) -> Response {
    with(&board, &token, |account| {
        account.faults.push(fault);
        Some(json!({"faults": account.faults.len()}))
    })
}

async fn no_faults(State(board): State<Shared>, Path(token): Path<String>) -> Response {
    with(&board, &token, |account| {
        account.faults.clear();
        Some(json!({"faults": 0}))
    })
}

async fn release(State(board): State<Shared>, Path(name): Path<String>) -> StatusCode {
    board.change(|hall| hall.released.insert(name));
    StatusCode::NO_CONTENT
}

async fn held(State(board): State<Shared>) -> axum::Json<Value> {
    axum::Json(json!(board.look(|hall| hall.held.clone())))
}

fn with(board: &Shared, token: &str, act: impl FnOnce(&mut Account) -> Option<Value>) -> Response {
    match board.change(|hall| hall.bots.get_mut(token).map(act)) {
        Some(Some(answer)) => axum::Json(answer).into_response(),
        Some(None) => (StatusCode::NOT_FOUND, axum::Json(json!({"error": "no such chat or message"}))).into_response(),
        None => (StatusCode::NOT_FOUND, axum::Json(json!({"error": "no such bot"}))).into_response(),
    }
}
