//! The agent's log: JSON lines in `AGENT/log/worker.log`, rotated by size, without secrets.
//!
//! ```text
//!  worker.log -> worker.log.1 -> worker.log.2 -> worker.log.3 -> gone        4 MiB each
//! ```
//! A subscriber of `tracing`, written by hand: a worker that has nothing to say opens no file and holds no buffer.
//! What is never logged: prompts, answers, the lines of Codex' stdout. What is redacted: the values of secret
//! variables, and words that look like a token.

use crate::clock;
use serde_json::{Map, Value};
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Size of one file, in bytes.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Files that are kept: 16 MiB hold weeks of an ordinary agent and bound a flooding one.
pub const FILES_MAX: u32 = 4;

/// Longest value of a field, in bytes: an HTML page inside an error must not fill the log.
const VALUE_BYTES_MAX: usize = 4096;

/// Shortest value that is treated as a secret, in bytes: shorter ones would eat ordinary words.
const SECRET_BYTES_MIN: usize = 6;

static SECRETS: OnceLock<Mutex<Vec<String>>> = OnceLock::new();

/// Makes the agent's log the process' one. The first call counts.
pub fn install(agent_dir: &Path, incarnation: protocol::Incarnation) {
    let log = Log { incarnation: incarnation.0, files: Mutex::new(Files::new(&agent_dir.join("log"))) };
    drop(tracing::subscriber::set_global_default(log));
}

/// Sets the values that are replaced wherever they would be written.
pub fn set_secrets(values: impl IntoIterator<Item = String>) {
    let mut secrets: Vec<String> = values.into_iter().filter(|v| v.len() >= SECRET_BYTES_MIN).collect();
    // A secret that holds another is replaced whole.
    secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
    *held(SECRETS.get_or_init(Mutex::default)) = secrets;
}

/// `text` without secrets and without what looks like one.
pub fn redact(text: &str) -> String {
    let mut text = text.to_owned();
    for secret in held(SECRETS.get_or_init(Mutex::default)).iter() {
        if text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), "[redacted]");
        }
    }
    if !["sk-", "Bearer ", "eyJ", ":AA"].iter().any(|mark| text.contains(mark)) {
        return text;
    }
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(|c| !is_token(c)) {
        let word = piece.trim_end_matches(|c| !is_token(c));
        let after_bearer = out.ends_with("Bearer ") && !word.is_empty();
        if after_bearer || looks_secret(word) {
            out.push_str("[redacted]");
            out.push_str(piece.get(word.len()..).unwrap_or(""));
        } else {
            out.push_str(piece);
        }
    }
    out
}

/// API keys, JSON web tokens, and bot tokens (`digits:35 letters`).
fn looks_secret(word: &str) -> bool {
    let bot = word
        .split_once(':')
        .is_some_and(|(id, rest)| id.len() >= 6 && id.bytes().all(|b| b.is_ascii_digit()) && rest.len() >= 30);
    bot || (word.len() >= 12 && word.starts_with("sk-")) || (word.len() >= 40 && word.starts_with("eyJ"))
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Log {
    incarnation: u64,
    files: Mutex<Files>,
}

/// The current file and those before it.
#[derive(Debug)]
struct Files {
    dir: PathBuf,
    current: Option<(File, u64)>,
    bytes_max: u64,
}

impl Files {
    fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), current: None, bytes_max: FILE_BYTES_MAX }
    }

    /// A log that cannot be written is lost: the agent's work is worth more than its log.
    fn append(&mut self, line: &[u8]) {
        if self.current.as_ref().is_some_and(|(_, bytes)| bytes + line.len() as u64 > self.bytes_max) {
            self.rotate();
        }
        if self.current.is_none() {
            self.current = self.open().ok();
        }
        if let Some((file, bytes)) = &mut self.current {
            *bytes += line.len() as u64;
            drop(file.write_all(line));
        }
    }

    fn open(&self) -> std::io::Result<(File, u64)> {
        crate::home::make_private_dir(&self.dir)?;
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.path(0))?;
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    }

    fn rotate(&mut self) {
        self.current = None;
        for n in (0..FILES_MAX - 1).rev() {
            drop(std::fs::rename(self.path(n), self.path(n + 1)));
        }
    }

    fn path(&self, n: u32) -> PathBuf {
        self.dir.join(if n == 0 { "worker.log".to_owned() } else { format!("worker.log.{n}") })
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.is_event()
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::INFO)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(Map::new());
        fields.put("at_ms", clock::wall_ms().into());
        fields.put("level", event.metadata().level().as_str().into());
        fields.put("incarnation", self.incarnation.into());
        event.record(&mut fields);
        let mut line = Value::Object(fields.0).to_string();
        line.push('\n');
        held(&self.files).append(line.as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), redact(protocol::text::clip(value, VALUE_BYTES_MAX)).into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        write!(text, "{value:?}").ok();
        self.record_str(field, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotates_by_size_and_keeps_a_bounded_number() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files { bytes_max: 100, ..Files::new(&dir.path().join("log")) };
        for n in 0..60 {
            files.append(format!("line {n:03} ..........\n").as_bytes());
        }
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path().join("log")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["worker.log", "worker.log.1", "worker.log.2", "worker.log.3"]);
        let newest = std::fs::read_to_string(dir.path().join("log/worker.log")).unwrap();
        assert!(newest.ends_with("line 059 ..........\n") && newest.len() <= 100);
    }

    #[test]
    fn tokens_are_replaced_wherever_they_stand() {
        set_secrets(["hunter2hunter2".to_owned(), "short".to_owned(), "x".to_owned()]);
        let bot = format!("url /bot123456789:{}/x", "AAbcdefghijklmnopqrstuvwxyz0123456789");
        for (before, after) in [
            ("key=hunter2hunter2!", "key=[redacted]!"),
            ("short words x stay", "short words x stay"),
            ("Authorization: Bearer abc.def next", "Authorization: Bearer [redacted] next"),
            ("bad sk-proj-abcdefgh12345678, ok", "bad [redacted], ok"),
            ("sk- is no key", "sk- is no key"),
        ] {
            assert_eq!(redact(before), after);
        }
        assert!(!redact(&bot).contains("abcdefghijklmnop"), "{}", redact(&bot));
    }
}
