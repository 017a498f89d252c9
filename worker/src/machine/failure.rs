//! Decides what class a failure has: one table for the prose of both runtimes, one for `codexErrorInfo`, one for stderr.
//!
//! ```text
//!  turn.failed of exec ----------------------------+
//!                                                  v
//!  error of app-server --> codexErrorInfo -- other --> PROSE --> class, or model_error and counted as unmatched
//!                              | names one             ^
//!                              v                       |
//!                            class        stderr --> STDERR --- else codex_start | codex_exit
//! ```
//! The needles are pieces of texts that Codex was seen to say, without apostrophes, which differ between releases.

use protocol::FailureClass;
use serde_json::Value;

/// A class, and whether a table named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// The class.
    pub(super) class: FailureClass,
    /// Whether it was found in a table; else it is a guess that the operator should see.
    pub(super) matched: bool,
}

/// How much of a text is searched, in bytes: a block page carries its marks at its beginning.
const SEARCH_BYTES_MAX: usize = 16 * 1024;

/// Pieces of prose in the order in which they are tried, in small letters.
const PROSE: &[(&str, FailureClass)] = &[
    ("no space left on device", FailureClass::DiskFull),
    ("os error 28", FailureClass::DiskFull),
    ("<!doctype html", FailureClass::BlockedPage),
    ("<html", FailureClass::BlockedPage),
    ("enable javascript and cookies", FailureClass::BlockedPage),
    ("access blocked by cloudflare", FailureClass::BlockedPage),
    ("hit your usage limit", FailureClass::UsageLimit),
    ("quota exceeded", FailureClass::UsageLimit),
    ("insufficient_quota", FailureClass::UsageLimit),
    ("usage_limit_reached", FailureClass::UsageLimit),
    ("out of credits", FailureClass::UsageLimit),
    ("status 402", FailureClass::UsageLimit),
    ("session budget", FailureClass::Budget),
    ("ran out of room in the model", FailureClass::ContextOverflow),
    ("context_length_exceeded", FailureClass::ContextOverflow),
    ("maximum context length", FailureClass::ContextOverflow),
    ("missing environment variable", FailureClass::ProviderUnknown),
    ("model provider `", FailureClass::ProviderUnknown),
    ("last status: 429", FailureClass::RateLimit),
    ("status 429", FailureClass::RateLimit),
    ("too many requests", FailureClass::RateLimit),
    ("rate limit exceeded", FailureClass::RateLimit),
    ("rate_limit_exceeded", FailureClass::RateLimit),
    ("status 401", FailureClass::Auth),
    ("last status: 401", FailureClass::Auth),
    ("status 403", FailureClass::Auth),
    ("last status: 403", FailureClass::Auth),
    ("invalid_api_key", FailureClass::Auth),
    ("incorrect api key", FailureClass::Auth),
    ("access token could not be refreshed", FailureClass::Auth),
    ("log out and sign in again", FailureClass::Auth),
    ("not logged in", FailureClass::Auth),
    ("does not exist or you do not have access to it", FailureClass::ModelUnknown),
    ("model_not_found", FailureClass::ModelUnknown),
    ("model not found", FailureClass::ModelUnknown),
    ("model is not supported", FailureClass::ModelUnknown),
    ("experiencing high demand", FailureClass::ModelError),
    ("selected model is at capacity", FailureClass::ModelError),
    ("server_is_overloaded", FailureClass::ModelError),
    ("incomplete response returned", FailureClass::ModelError),
    ("transport error", FailureClass::Network),
    ("error sending request", FailureClass::Network),
    ("error decoding response body", FailureClass::Network),
    ("idle timeout waiting for sse", FailureClass::Network),
    ("stream closed before", FailureClass::Network),
    ("connection failed", FailureClass::Network),
    ("connection refused", FailureClass::Network),
    ("waiting for network", FailureClass::Network),
    ("dns error", FailureClass::Network),
    ("stream disconnected before completion", FailureClass::ModelError),
    ("unexpected status 4", FailureClass::ModelError),
    ("unexpected status 5", FailureClass::ModelError),
    ("last status: 5", FailureClass::ModelError),
    ("invalid_request_error", FailureClass::ModelError),
    ("cyber_policy", FailureClass::ModelError),
];

/// Kinds of `codexErrorInfo` that are a word; those that are absent here are left to the prose.
const KINDS: &[(&str, FailureClass)] = &[
    ("contextWindowExceeded", FailureClass::ContextOverflow),
    ("sessionBudgetExceeded", FailureClass::Budget),
    ("usageLimitExceeded", FailureClass::UsageLimit),
    ("rateLimitExceeded", FailureClass::RateLimit),
    ("flexUnavailable", FailureClass::ModelError),
    ("serverOverloaded", FailureClass::ModelError),
    ("policyCapacityUnavailable", FailureClass::ModelError),
    ("modelNotFound", FailureClass::ModelUnknown),
    ("cyberPolicy", FailureClass::ModelError),
    ("misalignmentPolicyViolation", FailureClass::ModelError),
    ("tooManyDenials", FailureClass::ModelError),
    ("inferenceHookDenied", FailureClass::ModelError),
    ("internalServerError", FailureClass::ModelError),
    ("unauthorized", FailureClass::Auth),
    ("threadRollbackFailed", FailureClass::CodexProtocol),
    ("activeTurnNotSteerable", FailureClass::CodexProtocol),
    ("sandboxError", FailureClass::CodexExit),
];

/// Kinds of `codexErrorInfo` that carry the status of an HTTP answer.
const HTTP_KINDS: &[&str] = &[
    "httpConnectionFailed",
    "responseStreamConnectionFailed",
    "responseStreamDisconnected",
    "responseTooManyFailedAttempts",
];

/// Pieces of stderr of a Codex that ended before a turn, in small letters. Anything else is `codex_start`.
const STDERR: &[(&str, FailureClass)] = &[
    ("no space left on device", FailureClass::DiskFull),
    ("os error 28", FailureClass::DiskFull),
    ("missing environment variable", FailureClass::ProviderUnknown),
    ("not logged in", FailureClass::Auth),
];

/// What Codex says when a thread is to go on with another provider.
const PROVIDER_CHANGE: &str = "cannot change this thread's model provider";

/// Whether a thread was refused because it belongs to another provider: then it has to be forked.
pub(super) fn wants_fork(text: &str) -> bool {
    searched(text).contains(PROVIDER_CHANGE)
}

/// What Codex says of a thread in its archive.
const ARCHIVED: &str = " is archived. run `codex unarchive";

/// Whether a thread was refused because it is archived.
pub(super) fn is_archived(text: &str) -> bool {
    searched(text).contains(ARCHIVED)
}

/// The class of a failure that Codex told in prose.
pub(super) fn of_prose(text: &str) -> Named {
    let text = searched(text);
    match PROSE.iter().find(|(needle, _)| text.contains(needle)) {
        Some((_, class)) => Named { class: *class, matched: true },
        None => Named { class: FailureClass::ModelError, matched: false },
    }
}

/// The class of a failure that the app-server told with its kind.
pub(super) fn of_info(info: &Value, text: &str) -> Named {
    let prose = of_prose(text);
    if prose.matched && prose.class == FailureClass::BlockedPage {
        return prose;
    }
    let kind = match info {
        Value::String(kind) => Some(kind.as_str()),
        Value::Object(kinds) => kinds.keys().next().map(String::as_str),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    };
    let Some(kind) = kind else {
        return prose;
    };
    if let Some((_, class)) = KINDS.iter().find(|(word, _)| *word == kind) {
        return Named { class: *class, matched: true };
    }
    if !HTTP_KINDS.contains(&kind) {
        return prose;
    }
    match info.get(kind).and_then(|body| body.get("httpStatusCode")).and_then(Value::as_u64) {
        Some(401 | 403) => Named { class: FailureClass::Auth, matched: true },
        Some(402) => Named { class: FailureClass::UsageLimit, matched: true },
        Some(429) => Named { class: FailureClass::RateLimit, matched: true },
        Some(500..) => Named { class: FailureClass::ModelError, matched: true },
        Some(_) => prose,
        None => Named { class: if prose.matched { prose.class } else { FailureClass::Network }, matched: true },
    }
}

/// The class and the telling line of a Codex that ended before its turn, by its stderr.
pub(super) fn of_stderr(stderr: &str) -> (FailureClass, String) {
    let line = telling_line(stderr);
    let small = line.to_lowercase();
    let class = if small.contains("model provider `") && small.contains("not found") {
        FailureClass::ProviderUnknown
    } else {
        STDERR.iter().find(|(needle, _)| small.contains(needle)).map_or(FailureClass::CodexStart, |(_, class)| *class)
    };
    (class, line)
}

/// The class of a request that the app-server refused before a turn.
pub(super) fn of_refusal(text: &str) -> FailureClass {
    of_stderr(&format!("Error: {text}")).0
}

/// The line of a stderr that names the error: the last that begins with it, else the last that says anything.
fn telling_line(stderr: &str) -> String {
    let said = stderr.split("Stack backtrace:").next().unwrap_or("");
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines().rev().find(|line| is_error(line));
    let spoken = lines().rev().find(|line| !line.starts_with("Reading ") && !line.starts_with("WARNING:"));
    error.or(spoken).unwrap_or("").to_owned()
}

/// Whether a line of stderr is an error that ended Codex, and no line of its log.
pub(super) fn is_error(line: &str) -> bool {
    line.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("error")) || line.starts_with("thread '")
}

fn searched(text: &str) -> String {
    protocol::text::clip(text, SEARCH_BYTES_MAX).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn every_prose_that_was_seen_has_its_class() {
        for (text, class) in [
            ("You’ve hit your usage limit. Upgrade to Pro or try again at 2:45 AM.", "usage_limit"),
            ("You've hit your usage limit. Try again later.", "usage_limit"),
            ("exceeded retry limit, last status: 429 Too Many Requests", "rate_limit"),
            ("Quota exceeded. Check your plan and billing details.", "usage_limit"),
            ("unexpected status 401 Unauthorized: Incorrect API key provided: x, url: http://x/responses", "auth"),
            ("unexpected status 403 Forbidden: <!DOCTYPE html><html><head><title>Just a moment", "blocked_page"),
            (
                "Access blocked by Cloudflare. This usually happens (status 403 Forbidden), url: http://x",
                "blocked_page",
            ),
            ("unexpected status 403 Forbidden: country, region", "auth"),
            ("The model `nope` does not exist or you do not have access to it.", "model_unknown"),
            ("Codex ran out of room in the model's context window. Start a new thread", "context_overflow"),
            (r#"{"error": {"message": "mock bad request", "type": "invalid_request_error"}}"#, "model_error"),
            ("We’re currently experiencing high demand, which may cause temporary errors.", "model_error"),
            ("Selected model is at capacity. Please try a different model.", "model_error"),
            ("stream disconnected before completion: Transport error: network error: error decoding", "network"),
            ("stream disconnected before completion: error sending request", "network"),
            ("stream disconnected before completion: idle timeout waiting for SSE", "network"),
            ("stream disconnected before completion: mock failed: server_error", "model_error"),
            ("Connection failed: error sending request", "network"),
            ("Reconnecting... waiting for network (Connection failed: error sending request)", "network"),
            ("Incomplete response returned, reason: max_output_tokens", "model_error"),
            ("rate limit exceeded: mock failed: rate_limit_exceeded", "rate_limit"),
            ("Missing environment variable: `MOCK_KEY`.", "provider_unknown"),
            ("Model provider `nope` not found", "provider_unknown"),
            ("mock failed: cyber_policy", "model_error"),
            ("write failed: No space left on device (os error 28)", "disk_full"),
        ] {
            let named = of_prose(text);
            assert_eq!((named.class.as_str(), named.matched), (class, true), "{text}");
        }
        assert!(!of_prose("the moon is in the wrong place").matched);
    }

    #[test]
    fn every_kind_that_was_seen_has_its_class() {
        for (info, text, class) in [
            (json!("usageLimitExceeded"), "Quota exceeded.", "usage_limit"),
            (json!({"responseTooManyFailedAttempts": {"httpStatusCode": 429}}), "", "rate_limit"),
            (json!("rateLimitExceeded"), "", "rate_limit"),
            (json!({"httpConnectionFailed": {"httpStatusCode": 401}}), "unexpected status 401", "auth"),
            (json!({"httpConnectionFailed": {"httpStatusCode": 403}}), "status 403: <!DOCTYPE html>", "blocked_page"),
            (json!({"httpConnectionFailed": {"httpStatusCode": null}}), "", "network"),
            (json!({"responseStreamDisconnected": {}}), "x", "network"),
            (json!("modelNotFound"), "", "model_unknown"),
            (json!("contextWindowExceeded"), "", "context_overflow"),
            (json!("other"), "stream disconnected before completion: error sending request", "network"),
            (json!("other"), "Incomplete response returned, reason: max_output_tokens", "model_error"),
            (json!("internalServerError"), "", "model_error"),
            (json!("serverOverloaded"), "", "model_error"),
            (json!("cyberPolicy"), "", "model_error"),
            (json!("sessionBudgetExceeded"), "", "budget"),
            (json!("unauthorized"), "", "auth"),
            (json!("badRequest"), "context_length_exceeded", "context_overflow"),
            (json!("sandboxError"), "", "codex_exit"),
            (json!({"activeTurnNotSteerable": {"turnKind": "review"}}), "", "codex_protocol"),
            (json!(null), "Missing environment variable: `X`.", "provider_unknown"),
            (json!([1]), "Quota exceeded", "usage_limit"),
        ] {
            assert_eq!(of_info(&info, text).class.as_str(), class, "{info} {text}");
        }
    }

    #[test]
    fn stderr_tells_why_codex_did_not_start() {
        let active = "2026-11-21T02:00:31Z ERROR codex_core::session: Failed to create session: thread-store conflict\n\
                      Error: thread/resume: thread/resume failed: thread 01a1 already has an active writer (code -32600)\n";
        for (stderr, class, part) in [
            (active, "codex_start", "active writer"),
            (
                "Error: Model provider `nope` not found\n\nStack backtrace:\n   0: <unknown>\n",
                "provider_unknown",
                "nope",
            ),
            (
                "Error: thread/resume failed: no rollout found for thread id 0 (code -32600)",
                "codex_start",
                "no rollout",
            ),
            ("error: unexpected argument '--nope' found\n\nUsage: codex exec", "codex_start", "--nope"),
            ("Error loading config.toml: unknown variant `bogus`\nin `approval_policy`\n", "codex_start", "bogus"),
            ("Reading additional input from stdin...\nNot inside a trusted directory", "codex_start", "trusted"),
            ("Reading prompt from stdin...\nNo prompt provided via stdin.", "codex_start", "No prompt"),
            ("", "codex_start", ""),
        ] {
            let (named, line) = of_stderr(stderr);
            assert_eq!(named.as_str(), class, "{stderr}");
            assert!(line.contains(part), "{line}");
        }
        assert!(wants_fork("Error: thread/resume failed: Cannot change this thread's model provider from `a` to `b`"));
    }

    proptest! {
        #[test]
        fn any_text_has_a_class(text in "(?s).{0,300}") {
            of_prose(&text);
            of_info(&Value::String(text.clone()), &text);
            drop(of_stderr(&text));
        }
    }
}
