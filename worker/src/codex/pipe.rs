//! What a child says: its stdout as bounded lines, the tail of its stderr.
//!
//! A reader that cannot hand on its line stops reading; then Codex waits, and nobody else. Lines are paid for by
//! their size from one purse of all children, so that many long lines wait in the pipe and not in our memory.

use crate::machine::io::LINE_ENDLESS_BYTES;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longest line that is kept, in bytes. Codex repeats a whole answer in one line; 20 MB were seen.
pub const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Lines of stderr that are kept for the story of an exit.
pub const TAIL_LINES_MAX: usize = 64;

/// Bytes of stderr that are kept for the story of an exit.
pub const TAIL_BYTES_MAX: usize = 16 * 1024;

/// Longest line of stderr, in bytes; the rest of a longer one is dropped.
const STDERR_LINE_BYTES_MAX: usize = 4 * 1024;

/// Unit of the purse, in bytes.
const COIN_BYTES: usize = 1024;

/// Buffers that grew above this are given back after their line, in bytes.
const BUFFER_BYTES_KEPT: usize = 64 * 1024;

/// A line of stdout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The whole line without its end.
    Text(String),
    /// It had this many bytes, more than the limit, and was dropped as it came. One that passes [`LINE_ENDLESS_BYTES`] is
    /// told at that moment too.
    TooLong(u64),
}

impl Line {
    /// What it holds in memory, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::TooLong(_) => 0,
        }
    }
}

/// Cuts bytes into lines. A machine: it reads nothing itself.
#[derive(Debug)]
pub struct Cutter {
    buffer: Vec<u8>,
    bytes_max: usize,
    skipped: u64,
}

impl Cutter {
    /// A cutter for lines of at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { buffer: Vec::new(), bytes_max, skipped: 0 }
    }

    /// Takes bytes as they come and appends the lines that they end.
    pub fn push(&mut self, mut bytes: &[u8], lines: &mut Vec<Line>) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (piece, rest) = bytes.split_at(end);
            self.take(piece, lines);
            lines.push(self.line());
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.take(bytes, lines);
    }

    /// The line that the end of the stream cut off, if there is one.
    pub fn finish(&mut self) -> Option<Line> {
        (!self.buffer.is_empty() || self.skipped > 0).then(|| self.line())
    }

    fn take(&mut self, piece: &[u8], lines: &mut Vec<Line>) {
        if self.skipped > 0 {
            let before = self.skipped;
            self.skipped += piece.len() as u64;
            if before < LINE_ENDLESS_BYTES && self.skipped >= LINE_ENDLESS_BYTES {
                lines.push(Line::TooLong(self.skipped));
            }
        } else if self.buffer.len() + piece.len() > self.bytes_max {
            self.skipped = (self.buffer.len() + piece.len()) as u64;
            self.buffer = Vec::new();
        } else {
            self.buffer.extend_from_slice(piece);
        }
    }

    fn line(&mut self) -> Line {
        if self.skipped > 0 {
            return Line::TooLong(std::mem::take(&mut self.skipped));
        }
        if self.buffer.last() == Some(&b'\r') {
            self.buffer.pop();
        }
        let text = match std::str::from_utf8(&self.buffer) {
            Ok(text) => text.to_owned(),
            Err(_) => String::from_utf8_lossy(&self.buffer).into_owned(),
        };
        self.buffer.clear();
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
        Line::Text(text)
    }
}

/// What all waiting lines may hold together.
#[derive(Clone, Debug)]
pub struct Purse(Arc<Semaphore>);

impl Default for Purse {
    /// Room for one line of the largest size, and a little.
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LINE_BYTES_MAX / COIN_BYTES + 64)))
    }
}

impl Purse {
    /// Waits until `bytes` may be held; they are given back when the permit goes.
    pub async fn pay(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let coins = u32::try_from(bytes / COIN_BYTES + 1).unwrap_or(u32::MAX);
        Arc::clone(&self.0).acquire_many_owned(coins).await.ok()
    }
}

/// The last lines of a child's stderr, without colours and without secrets.
#[derive(Debug)]
pub struct Tail {
    cutter: Cutter,
    lines: VecDeque<String>,
    bytes: usize,
}

impl Default for Tail {
    fn default() -> Self {
        Self { cutter: Cutter::new(STDERR_LINE_BYTES_MAX), lines: VecDeque::new(), bytes: 0 }
    }
}

impl Tail {
    /// Takes bytes as they come; returns the lines that they end, for the log.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        self.cutter.push(bytes, &mut lines);
        lines.into_iter().map(|line| self.keep(line)).collect()
    }

    /// The kept text.
    pub fn text(&mut self) -> String {
        if let Some(line) = self.cutter.finish() {
            self.keep(line);
        }
        self.lines.make_contiguous().join("\n")
    }

    fn keep(&mut self, line: Line) -> String {
        let line = match line {
            Line::Text(text) => crate::log::redact(&plain(&text)),
            Line::TooLong(bytes) => format!("[a line of {bytes} bytes]"),
        };
        self.bytes += line.len();
        self.lines.push_back(line.clone());
        while self.lines.len() > TAIL_LINES_MAX || self.bytes > TAIL_BYTES_MAX {
            self.bytes -= self.lines.pop_front().map_or(0, |l| l.len());
        }
        line
    }
}

/// `text` without terminal escapes and control characters.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            if chars.next_if_eq(&'[').is_some() {
                // A control sequence ends with a byte of `@` to `~`.
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
        } else if c == '\t' || !c.is_control() {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(bytes: &[u8], step: usize, max: usize) -> Vec<Line> {
        let mut cutter = Cutter::new(max);
        let mut lines = Vec::new();
        for piece in bytes.chunks(step.max(1)) {
            cutter.push(piece, &mut lines);
        }
        lines.extend(cutter.finish());
        lines
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_lines(bytes in "[a-c\n]{0,60}", step in 1usize..9, max in 1usize..8) {
            prop_assert_eq!(cut(bytes.as_bytes(), step, max), cut(bytes.as_bytes(), 1000, max));
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_nothing_long_is_kept(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), max in 1usize..20
        ) {
            for line in cut(&bytes, 7, max) {
                if let Line::Text(text) = line { prop_assert!(text.chars().count() <= max); }
            }
        }
    }

    #[test]
    fn a_long_line_is_dropped_as_it_comes_and_the_next_one_is_whole() {
        let mut bytes = vec![b'x'; 1000];
        bytes.extend_from_slice(b"\nnext\r\n\xffbad\nend");
        let text = |t: &str| Line::Text(t.to_owned());
        for step in [1, 7, 2000] {
            assert_eq!(cut(&bytes, step, 100), [Line::TooLong(1000), text("next"), text("\u{fffd}bad"), text("end")]);
        }
        let mut cutter = Cutter::new(100);
        cutter.push(&[b'x'; 101], &mut Vec::new());
        assert_eq!(cutter.buffer.capacity(), 0);
    }

    #[test]
    fn the_tail_is_bounded_and_plain() {
        let mut tail = Tail::default();
        tail.push(b"\x1b[2m2026\x1b[0m \x1b[31mERROR\x1b[0m bell\x07 x\n");
        assert_eq!(tail.text(), "2026 ERROR bell x");
        for n in 0..1000 {
            tail.push(format!("{n} {}\n", "y".repeat(1000)).as_bytes());
        }
        tail.push(b"last without end");
        let text = tail.text();
        assert!(text.len() <= TAIL_BYTES_MAX + TAIL_LINES_MAX && text.ends_with("last without end"));
    }
}
