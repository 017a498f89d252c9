//! A Bot API on loopback for the tests of this folder: it answers by script, cuts where told, and tells what it heard.
//!
//! Plain TCP and not a web framework, so that a connection can be cut at an exact place.

use super::api::{Bot, Http};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The token of the tests; no text but the request line may hold its secret.
pub(super) const TOKEN: &str = "12345:SECRETsecretSECRET";

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) enum Answer {
    /// `{"ok":true,"result":..}`.
    Ok(Value),
    /// Any body with any status.
    Body(u16, String),
    /// Closes before reading anything.
    CutUnread,
    /// Reads the request, then closes.
    CutRead,
    /// Answers half.
    CutHalf,
    /// Reads the request and never answers.
    Hang,
}

pub(super) struct Stub {
    root: String,
    heard: mpsc::UnboundedReceiver<(String, Value)>,
    _serving: JoinSet<()>,
}

pub(super) fn refusal(code: u16, description: &str, parameters: Value) -> Answer {
    let mut body = json!({"ok": false, "error_code": code, "description": description});
    if !parameters.is_null() {
        body["parameters"] = parameters;
    }
    Answer::Body(code, body.to_string())
}

impl Stub {
    /// Serves `script`, an answer for each connection in turn; what comes after its end hangs.
    pub(super) async fn serve(script: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let root = format!("http://{}/some/path", listener.local_addr().expect("an address"));
        let script = Arc::new(Mutex::new(script.into_iter().collect::<VecDeque<_>>()));
        let (tell, heard) = mpsc::unbounded_channel();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let answer = script.lock().expect("no panic").pop_front().unwrap_or(Answer::Hang);
                open.spawn(converse(stream, answer, tell.clone()));
            }
        });
        Self { root, heard, _serving: serving }
    }

    pub(super) fn bot(&self) -> Bot {
        Bot::new(&Http::direct(), "test", TOKEN, &self.root).expect("a bot")
    }

    /// The next request: its method and parameters.
    pub(super) async fn heard(&mut self) -> (String, Value) {
        tokio::time::timeout(PATIENCE, self.heard.recv()).await.expect("a request in time").expect("a stub")
    }

    pub(super) fn is_idle(&mut self) -> bool {
        self.heard.try_recv().is_err()
    }
}

async fn converse(mut stream: TcpStream, answer: Answer, tell: mpsc::UnboundedSender<(String, Value)>) {
    if matches!(answer, Answer::CutUnread) {
        return;
    }
    let Some(request) = read_request(&mut stream).await else { return };
    drop(tell.send(request));
    let (status, body) = match answer {
        Answer::Ok(result) => (200, json!({"ok": true, "result": result}).to_string()),
        Answer::Body(status, body) => (status, body),
        Answer::CutHalf => {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"ok\":true,").await);
            return;
        }
        Answer::CutUnread | Answer::CutRead => return,
        Answer::Hang => return std::future::pending().await,
    };
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    drop(stream.write_all(head.as_bytes()).await);
    drop(stream.write_all(body.as_bytes()).await);
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_owned();
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        let path = head.split(' ').nth(1)?.strip_prefix(&format!("/some/path/bot{TOKEN}/"))?;
        return Some((path.to_owned(), serde_json::from_str(body).ok()?));
    }
}
