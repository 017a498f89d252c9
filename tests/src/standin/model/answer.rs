//! Writes what a plan says in the words of the Responses API: server-sent events, and the error answers.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::plan::{End, Gate, Item, Plan};
use super::scene::{BACKGROUND_PREFIX, POLL_PREFIX, Scene, Shell};
use super::script::{Call, Failure, Reset};

/// How long a shell call may run before it is polled, in milliseconds: the longest that Codex 0.169 allows.
const YIELD_MS: u64 = 30_000;
/// The same for a call that is left in the background: the shortest.
const YIELD_BACKGROUND_MS: u64 = 250;
/// Seconds that a plain 429 asks to wait.
const RETRY_AFTER_SECONDS: u64 = 1;

/// What a stream does next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Send(String),
    Pause(Duration),
    Hold(String),
    Forever,
    Cut,
}

/// The stream of a plan. `id` makes the ids of this answer its own.
pub(crate) fn steps(plan: &Plan, scene: &Scene, id: u64) -> Vec<Step> {
    let mut stream = Stream { steps: Vec::new(), gate: gate(&plan.gate), pause: plan.pause };
    let response = format!("resp_{id}");
    stream.event("response.created", &json!({"response": {"id": response, "status": "in_progress"}}));
    if plan.gate == Gate::Forever {
        stream.pass_gate();
    }
    for (index, item) in plan.items.iter().enumerate() {
        match item {
            Item::Text(deltas) => stream.message(index, &format!("msg_{id}_{index}"), deltas),
            Item::Reasoning(text) => {
                let item = json!({"type": "reasoning", "id": format!("rs_{id}_{index}"), "summary": [{"type": "summary_text", "text": text}], "content": null, "encrypted_content": "sealed"});
                stream.done(index, &item);
            }
            Item::Call(call) => match call_item(call, scene.shell, &format!("{id}_{index}")) {
                Some(item) => stream.done(index, &item),
                None => stream.message(
                    index,
                    &format!("msg_{id}_{index}"),
                    &["standin: the request offers no shell tool".to_owned()],
                ),
            },
            Item::Poll { output, session } => {
                let arguments = json!({"session_id": session, "chars": "", "yield_time_ms": YIELD_MS});
                let item = function("write_stdin", &arguments, &format!("{POLL_PREFIX}{output}_{id}"));
                stream.done(index, &item);
            }
        }
    }
    stream.pass_gate();
    stream.end(&plan.end, &response, plan.tokens);
    stream.steps
}

struct Stream {
    steps: Vec<Step>,
    gate: Option<Step>,
    pause: Duration,
}

impl Stream {
    fn event(&mut self, kind: &str, fields: &Value) {
        let mut event = json!({"type": kind});
        if let (Some(into), Some(from)) = (event.as_object_mut(), fields.as_object()) {
            into.extend(from.clone());
        }
        self.steps.push(Step::Send(format!("event: {kind}\ndata: {event}\n\n")));
    }

    fn pass_gate(&mut self) {
        self.steps.extend(self.gate.take());
    }

    fn done(&mut self, index: usize, item: &Value) {
        self.event("response.output_item.done", &json!({"output_index": index, "item": item}));
    }

    fn message(&mut self, index: usize, id: &str, deltas: &[String]) {
        let item = json!({"type": "message", "role": "assistant", "id": id, "status": "in_progress", "content": []});
        self.event("response.output_item.added", &json!({"output_index": index, "item": item}));
        for (count, delta) in deltas.iter().enumerate() {
            if count > 0 && !self.pause.is_zero() {
                self.steps.push(Step::Pause(self.pause));
            }
            let fields = json!({"item_id": id, "output_index": index, "content_index": 0, "delta": delta});
            self.event("response.output_text.delta", &fields);
            self.pass_gate();
        }
        let content = json!([{"type": "output_text", "text": deltas.concat(), "annotations": []}]);
        let item = json!({"type": "message", "role": "assistant", "id": id, "status": "completed", "content": content});
        self.done(index, &item);
    }

    fn end(&mut self, end: &End, response: &str, tokens: u64) {
        let (input, output) = (tokens.saturating_sub(10), tokens.min(10));
        let usage = json!({
            "input_tokens": input, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": tokens,
        });
        match end {
            End::Completed => {
                let response = json!({"id": response, "status": "completed", "usage": usage});
                self.event("response.completed", &json!({"response": response}));
            }
            End::Incomplete => {
                let why = json!({"reason": "max_output_tokens"});
                let response =
                    json!({"id": response, "status": "incomplete", "incomplete_details": why, "usage": usage});
                self.event("response.incomplete", &json!({"response": response}));
            }
            End::Failed(code) => {
                let error = json!({"code": code, "message": failed_message(code)});
                let response = json!({"id": response, "status": "failed", "error": error});
                self.event("response.failed", &json!({"response": response}));
            }
        }
    }
}

fn gate(gate: &Gate) -> Option<Step> {
    match gate {
        Gate::Open => None,
        Gate::Hold(name) => Some(Step::Hold(name.clone())),
        Gate::Forever => Some(Step::Forever),
        Gate::Cut => Some(Step::Cut),
    }
}

/// Codex reads the pause before its next try out of this prose.
fn failed_message(code: &str) -> String {
    match code {
        "rate_limit_exceeded" => "Rate limit reached for this model. Please try again in 0.1s.".to_owned(),
        "context_length_exceeded" => "Your input exceeds the context window of this model.".to_owned(),
        other => format!("The stand-in failed the response: {other}"),
    }
}

fn call_item(call: &Call, shell: Shell, id: &str) -> Option<Value> {
    let call_id = format!("call_{id}");
    match call {
        Call::Shell(command) => shell_item(shell, command, json!({"yield_time_ms": YIELD_MS}), &call_id),
        Call::Background(command) => shell_item(
            shell,
            command,
            json!({"yield_time_ms": YIELD_BACKGROUND_MS}),
            &format!("{BACKGROUND_PREFIX}{id}"),
        ),
        Call::Escalated(command) => {
            let more = json!({"sandbox_permissions": "require_escalated", "justification": "the stand-in needs it"});
            shell_item(shell, command, more, &call_id)
        }
        Call::Function(name, arguments) => Some(function(name, arguments, &call_id)),
        Call::Custom(name, input) => Some(
            json!({"type": "custom_tool_call", "id": format!("ctc_{id}"), "call_id": call_id, "name": name, "input": input, "status": "completed"}),
        ),
    }
}

fn shell_item(shell: Shell, command: &str, mut arguments: Value, call_id: &str) -> Option<Value> {
    let (name, key, value) = match shell {
        Shell::Exec => ("exec_command", "cmd", Value::from(command)),
        Shell::Command => ("shell_command", "command", Value::from(command)),
        Shell::Words => ("shell", "command", json!(["bash", "-lc", command])),
        Shell::Missing => return None,
    };
    let fields = arguments.as_object_mut()?;
    if shell != Shell::Exec {
        fields.remove("yield_time_ms");
    }
    fields.insert(key.to_owned(), value);
    Some(function(name, &arguments, call_id))
}

fn function(name: &str, arguments: &Value, call_id: &str) -> Value {
    json!({"type": "function_call", "id": format!("fc_{call_id}"), "call_id": call_id, "name": name, "arguments": arguments.to_string(), "status": "completed"})
}

/// The answer of a failure; none if there is to be no answer at all. `unix_now` is in seconds.
pub(crate) fn failure(failure: Failure, model: &str, unix_now: u64) -> Option<Response> {
    let error = |status: StatusCode, kind: &str, code: &str, message: &str| {
        let body = json!({"error": {"type": kind, "code": code, "message": message, "param": null}});
        Some((status, axum::Json(body)).into_response())
    };
    match failure {
        Failure::Bad => {
            error(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_value", "the stand-in finds this invalid")
        }
        Failure::Context => error(
            StatusCode::BAD_REQUEST,
            "invalid_request_error",
            "context_length_exceeded",
            "Your input exceeds the context window of this model.",
        ),
        Failure::Unauthorized => error(
            StatusCode::UNAUTHORIZED,
            "invalid_request_error",
            "invalid_api_key",
            "Incorrect API key provided: sk-st****in.",
        ),
        Failure::ChallengePage => {
            Some(page("Just a moment...", "Checking your browser: enable JavaScript and cookies to continue"))
        }
        Failure::BlockedPage => Some(page("Attention Required! | Cloudflare", "Sorry, you have been blocked")),
        Failure::NoModel => error(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            "model_not_found",
            &format!("The model `{model}` does not exist or you do not have access to it."),
        ),
        Failure::RateLimit => {
            let mut answer =
                error(StatusCode::TOO_MANY_REQUESTS, "requests", "rate_limit_exceeded", "Rate limit reached")?;
            answer.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
            Some(answer)
        }
        Failure::UsageLimit(reset) => Some(usage_limit(reset, unix_now)),
        Failure::Quota => error(
            StatusCode::TOO_MANY_REQUESTS,
            "insufficient_quota",
            "insufficient_quota",
            "You exceeded your current quota, please check your plan and billing details.",
        ),
        Failure::Server => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "server_error",
            "The server had an error while processing your request.",
        ),
        Failure::Overloaded => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable_error",
            "server_is_overloaded",
            "Our servers are currently overloaded. Please try again later.",
        ),
        Failure::Drop => None,
    }
}

fn usage_limit(reset: Reset, unix_now: u64) -> Response {
    let at = match reset {
        Reset::In(seconds) => unix_now.saturating_add(seconds),
        Reset::At(at) => at,
    };
    let error = json!({
        "type": "usage_limit_reached", "message": "The usage limit has been reached", "plan_type": "plus",
        "resets_at": at, "resets_in_seconds": at.saturating_sub(unix_now),
    });
    let mut answer = (StatusCode::TOO_MANY_REQUESTS, axum::Json(json!({"error": error}))).into_response();
    limit_headers(&mut answer, 100, at);
    answer
}

/// Adds the headers by which the real service tells how much of each window is used. `reset_at` is in Unix seconds.
pub(crate) fn limit_headers(answer: &mut Response, percent: u8, reset_at: u64) {
    /// The secondary window is the week; these answers leave it mostly free.
    const WEEK_PERCENT: u64 = 40;
    const WEEK_SECONDS: u64 = 7 * 24 * 3_600;
    let values = [
        ("x-codex-primary-used-percent", u64::from(percent)),
        ("x-codex-primary-window-minutes", 300),
        ("x-codex-primary-reset-at", reset_at),
        ("x-codex-secondary-used-percent", WEEK_PERCENT),
        ("x-codex-secondary-window-minutes", WEEK_SECONDS / 60),
        ("x-codex-secondary-reset-at", reset_at.saturating_add(WEEK_SECONDS)),
    ];
    for (name, value) in values {
        answer.headers_mut().insert(HeaderName::from_static(name), value.into());
    }
}

/// What the guard in front of the service shows to what it takes for no browser.
fn page(title: &str, says: &str) -> Response {
    let page = format!(
        "<!DOCTYPE html><html lang=\"en-US\"><head><title>{title}</title></head><body><h1>{says}</h1>\
         <p>Cloudflare Ray ID: <strong>8c1f00d5tand1n</strong></p></body></html>"
    );
    let mut answer = Response::new(Body::from(page));
    *answer.status_mut() = StatusCode::FORBIDDEN;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=UTF-8"));
    answer
}
