//! One request to the Bot API: the token, the limits and the deadlines, and an error that says how far the request came.
//!
//! ```text
//!   NotSent ......... no connection: nothing was written, asking again is safe
//!   Cut, Timeout .... written, or partly, and no whole answer: may have been done
//!   NotJson, TooLong  answered by something that is not the Bot API, or by too much of it
//!   Refused ......... the Bot API's own no, with its code
//! ```
//!
//! The token lives in the URL's path. It is in no `Debug`, `Display` or error text: URLs are taken out of errors, and
//! every text from outside is searched for it before it leaves this file.

use protocol::text::clip;
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The Bot API of Telegram itself.
pub const API_ROOT_DEFAULT: &str = "https://api.telegram.org";

/// Longest time for DNS, TCP and TLS together. A healthy handshake takes under one second from anywhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept. Under Telegram's own limit of about a minute, so that a request is rarely
/// written to a connection that the other side has just closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(25);

/// How often a silent connection is probed, so that a NAT does not forget a long poll and a dead peer is noticed.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Longest answer to anything but getUpdates, in bytes. A sent message echoes at most 4096 characters and entities.
pub(super) const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Longest text of an error, in bytes: a line that a person still reads.
const ERROR_TEXT_BYTES_MAX: usize = 300;

/// Longest bot token, in bytes. Telegram's have about 46.
const TOKEN_BYTES_MAX: usize = 256;

/// Shortest secret that is searched for by itself; a shorter one would be found in ordinary words.
const SECRET_BYTES_MIN: usize = 8;

/// The HTTP client of all bots of a supervisor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Http(reqwest::Client);

/// One bot: where its Bot API is, and the token. Cheap to clone.
#[derive(Clone)]
pub struct Bot {
    name: Arc<str>,
    base: Arc<str>,
    token: Arc<str>,
    http: reqwest::Client,
}

/// Why a bot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BotError {
    /// The TLS or HTTP side cannot be set up.
    #[error("the HTTP client cannot be built: {0}")]
    Http(String),
    /// The token has not the form of one.
    #[error(
        "the bot token of \"{0}\" is not of the form 123456:ABC-def; copy it whole from @BotFather, without quotes or spaces"
    )]
    Token(String),
    /// The API root is no usable address.
    #[error("the api_root \"{root}\" of \"{bot}\" is not of the form https://host[:port][/path]")]
    Root {
        /// The bot's name in the configuration.
        bot: String,
        /// The root as configured, without user name and password.
        root: String,
    },
}

/// How a request failed, and how far it came. No text in it holds the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No connection came about: nothing was written.
    #[error("cannot reach the Bot API: {0}")]
    NotSent(String),
    /// The connection was lost after the request was written, or in the middle of the answer.
    #[error("the connection was cut before the whole answer came: {0}")]
    Cut(String),
    /// No whole answer within the time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The answer is not the Bot API's: a gateway's page, a block page, a login page.
    #[error("HTTP {status} with {} instead of an API answer: {head}", if *.html { "an HTML page" } else { "something else" })]
    NotJson {
        /// HTTP status.
        status: u16,
        /// Whether it looks like HTML.
        html: bool,
        /// The beginning of it.
        head: String,
    },
    /// The answer is longer than anything lawful.
    #[error("the answer is longer than {limit} bytes")]
    TooLong {
        /// The limit that it broke, in bytes.
        limit: usize,
    },
    /// The Bot API's no.
    #[error("{code}: {text}")]
    Refused {
        /// Telegram's error code, mostly the HTTP status.
        code: i64,
        /// Telegram's description.
        text: String,
        /// How long to wait, in seconds, exactly as told.
        retry_after: Option<u64>,
        /// The group's new number, where it became a supergroup.
        migrate_to: Option<i64>,
    },
}

impl Http {
    /// Builds the client that all bots share.
    pub fn new() -> Result<Self, BotError> {
        Self::build(reqwest::Client::builder())
    }

    fn build(builder: reqwest::ClientBuilder) -> Result<Self, BotError> {
        // A provider that is installed already serves as well: the error is of no concern.
        drop(rustls::crypto::ring::default_provider().install_default());
        builder
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // Verbose connections write every request, token and all, to the log.
            .connection_verbose(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .tcp_keepalive(KEEPALIVE)
            .user_agent(concat!("cofferdam/", env!("CARGO_PKG_VERSION")))
            .build()
            .map(Self)
            .map_err(|error| BotError::Http(chain(&error)))
    }

    /// The client for tests, deaf to the proxies of the environment.
    #[cfg(test)]
    pub(super) fn direct() -> Self {
        Self::build(reqwest::Client::builder().no_proxy()).expect("a client builds")
    }
}

impl Bot {
    /// A bot called `name` in the configuration, with `token`, at `api_root`.
    pub fn new(http: &Http, name: &str, token: &str, api_root: &str) -> Result<Self, BotError> {
        let token = token.trim();
        let formed = token.split_once(':').is_some_and(|(id, secret)| {
            !id.is_empty()
                && id.bytes().all(|b| b.is_ascii_digit())
                && !secret.is_empty()
                && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
        if !formed || token.len() > TOKEN_BYTES_MAX {
            return Err(BotError::Token(name.to_owned()));
        }
        let base = parse_root(name, api_root)?;
        Ok(Self { name: name.into(), base: base.into(), token: token.into(), http: http.0.clone() })
    }

    /// The name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Calls `method` with `params`, and gives the `result` of the answer as JSON text.
    pub(super) async fn call(
        &self,
        method: &str,
        params: &Value,
        timeout: Duration,
        answer_bytes_max: usize,
    ) -> Result<Box<RawValue>, ApiError> {
        let url = format!("{}/bot{}/{method}", self.base, self.token);
        let sent = self.http.post(url).timeout(timeout).json(params).send().await;
        let mut response = sent.map_err(|error| self.lost(error, timeout))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.lost(error, timeout))? {
            if body.len() + part.len() > answer_bytes_max {
                return Err(ApiError::TooLong { limit: answer_bytes_max });
            }
            body.extend_from_slice(&part);
        }
        self.read(status, &String::from_utf8_lossy(&body))
    }

    /// Reads the envelope of an answer.
    fn read(&self, status: u16, body: &str) -> Result<Box<RawValue>, ApiError> {
        let not_json = || {
            let html = body.trim_start().starts_with('<');
            ApiError::NotJson { status, html, head: self.clean(body) }
        };
        let envelope: Envelope<'_> = serde_json::from_str(body).map_err(|_| not_json())?;
        if envelope.ok {
            return envelope.result.map(ToOwned::to_owned).ok_or_else(not_json);
        }
        let parameters = envelope.parameters.unwrap_or_default();
        let text = envelope.description.as_ref().and_then(Value::as_str).unwrap_or("no reason given");
        Err(ApiError::Refused {
            code: envelope.error_code.as_ref().and_then(Value::as_i64).unwrap_or_else(|| i64::from(status)),
            text: self.clean(text),
            retry_after: parameters.get("retry_after").and_then(Value::as_u64).or_else(|| retry_after_in(text)),
            migrate_to: parameters.get("migrate_to_chat_id").and_then(Value::as_i64),
        })
    }

    fn lost(&self, error: reqwest::Error, timeout: Duration) -> ApiError {
        if error.is_connect() || error.is_builder() {
            ApiError::NotSent(self.clean(&chain(&error.without_url())))
        } else if error.is_timeout() {
            ApiError::Timeout(timeout)
        } else {
            ApiError::Cut(self.clean(&chain(&error.without_url())))
        }
    }

    /// A text from outside as one short line without the token.
    fn clean(&self, text: &str) -> String {
        // The search comes before the cut: half a token at the end of the line would be missed.
        let mut text = text.replace(&*self.token, "<token>");
        if let Some((_, secret)) = self.token.split_once(':')
            && secret.len() >= SECRET_BYTES_MIN
        {
            text = text.replace(secret, "<token>");
        }
        let line = clip(text.trim(), ERROR_TEXT_BYTES_MAX);
        line.split(|c: char| c.is_control() || c.is_whitespace())
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

impl fmt::Debug for Bot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bot").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    ok: bool,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    // Values of whatever type: a field of an unexpected one must not cost the rest.
    description: Option<Value>,
    error_code: Option<Value>,
    parameters: Option<Value>,
}

/// The wait that older servers tell only in words: `Too Many Requests: retry after 17`.
fn retry_after_in(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("retry after ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn parse_root(bot: &str, root: &str) -> Result<String, BotError> {
    // What stands before an `@` may be a password, whether or not the rest can be parsed.
    let shown = root.rsplit('@').next().unwrap_or_default();
    let bad = || BotError::Root { bot: bot.to_owned(), root: clip(shown, ERROR_TEXT_BYTES_MAX).to_owned() };
    let url = Url::parse(root.trim()).map_err(|_| bad())?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if plain { Ok(url.as_str().trim_end_matches('/').to_owned()) } else { Err(bad()) }
}

/// The whole chain of causes in one text, without a URL.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&next);
        }
        cause = error.source();
    }
    if text.is_empty() { "the request failed".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::stub::{Answer, Stub, TOKEN, refusal};
    use super::*;

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(20);

    async fn fail(answer: Answer, timeout: Duration) -> ApiError {
        let stub = Stub::serve([answer]).await;
        let error = stub.bot().call("getMe", &json!({}), timeout, 10_000).await.expect_err("an error");
        assert_secret_free(&format!("{error} {error:?}"));
        error
    }

    fn assert_secret_free(text: &str) {
        assert!(!text.contains("SECRET"), "{text}");
    }

    use serde_json::json;

    #[tokio::test]
    async fn an_answer_is_its_result() {
        let mut stub = Stub::serve([Answer::Ok(json!({"id": 1}))]).await;
        let result = stub.bot().call("getMe", &json!({"x": 2}), LONG, 10_000).await.expect("an answer");
        assert_eq!(result.get(), r#"{"id":1}"#);
        assert_eq!(stub.heard().await, ("getMe".to_owned(), json!({"x": 2})));
    }

    #[tokio::test]
    async fn losses_say_how_far_the_request_came() {
        assert!(matches!(fail(Answer::CutUnread, LONG).await, ApiError::Cut(_)));
        assert!(matches!(fail(Answer::CutRead, LONG).await, ApiError::Cut(_)));
        assert!(matches!(fail(Answer::CutHalf, LONG).await, ApiError::Cut(_)));
        assert_eq!(fail(Answer::Hang, SHORT).await, ApiError::Timeout(SHORT));
        let closed = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            format!("http://{}", listener.local_addr().expect("an address"))
        };
        for root in [closed.as_str(), "http://no-such-host.invalid"] {
            let bot = Bot::new(&Http::direct(), "b", TOKEN, root).expect("a bot");
            let error = bot.call("getMe", &json!({}), LONG, 10).await.expect_err("nobody there");
            assert!(matches!(error, ApiError::NotSent(_)), "{error:?}");
            assert_secret_free(&format!("{error} {error:?} {bot:?}"));
        }
    }

    #[tokio::test]
    async fn what_is_not_the_bot_api_keeps_its_status() {
        let page = fail(Answer::Body(502, format!("<html>\n <b>bad {TOKEN}</b>")), LONG).await;
        assert_eq!(page, ApiError::NotJson { status: 502, html: true, head: "<html> <b>bad <token></b>".into() });
        let json = fail(Answer::Body(200, "[1]".into()), LONG).await;
        assert_eq!(json, ApiError::NotJson { status: 200, html: false, head: "[1]".into() });
        assert!(matches!(fail(Answer::Body(200, String::new()), LONG).await, ApiError::NotJson { .. }));
        assert!(matches!(fail(Answer::Body(200, r#"{"ok":true}"#.into()), LONG).await, ApiError::NotJson { .. }));
        let long = fail(Answer::Body(200, "x".repeat(10_001)), LONG).await;
        assert_eq!(long, ApiError::TooLong { limit: 10_000 });
    }

    #[tokio::test]
    async fn a_refusal_keeps_code_wait_and_new_chat() {
        let refused = |code, text: &str, retry_after, migrate_to| ApiError::Refused {
            code,
            text: text.into(),
            retry_after,
            migrate_to,
        };
        let told = refusal(429, "Too Many Requests", json!({"retry_after": 17}));
        assert_eq!(fail(told, LONG).await, refused(429, "Too Many Requests", Some(17), None));
        let in_words = refusal(429, "Too Many Requests: retry after 8", Value::Null);
        assert_eq!(fail(in_words, LONG).await, refused(429, "Too Many Requests: retry after 8", Some(8), None));
        let moved = refusal(400, "moved", json!({"migrate_to_chat_id": -100, "retry_after": "odd"}));
        assert_eq!(fail(moved, LONG).await, refused(400, "moved", None, Some(-100)));
        let leaking = refusal(400, &format!("url /bot{TOKEN}/x and SECRETsecretSECRET"), Value::Null);
        assert_eq!(fail(leaking, LONG).await, refused(400, "url /bot<token>/x and <token>", None, None));
        let odd = Answer::Body(418, r#"{"ok":false,"error_code":"x","description":7}"#.into());
        assert_eq!(fail(odd, LONG).await, refused(418, "no reason given", None, None));
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let error = fail(Answer::Body(302, "moved".into()), LONG).await;
        assert!(matches!(error, ApiError::NotJson { status: 302, .. }), "{error:?}");
    }

    #[test]
    fn tokens_and_roots_are_checked_and_never_shown() {
        let http = Http::direct();
        for token in ["", "SECRET", "12:", ":SECRET", "12:SEC RET", "x:SECRET", "1:SECRET/../x", &"1:S".repeat(200)] {
            let error = Bot::new(&http, "b", token, API_ROOT_DEFAULT).expect_err(token);
            assert!(matches!(error, BotError::Token(_)));
            assert_secret_free(&format!("{error} {error:?}"));
        }
        for root in ["", "x", "ftp://h", "http://u:SECRET@h", "u:SECRET@h", "https://h/?q", "https://h/#f"] {
            let error = Bot::new(&http, "b", TOKEN, root).expect_err(root);
            assert!(matches!(error, BotError::Root { .. }));
            assert_secret_free(&format!("{error} {error:?}"));
        }
        let bot = Bot::new(&http, "b", &format!(" {TOKEN}\n"), "https://h:1/p/").expect("a bot");
        assert_eq!((&*bot.base, &*bot.token), ("https://h:1/p", TOKEN));
        assert_secret_free(&format!("{bot:?}"));
    }
}
