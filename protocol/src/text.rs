//! Texts that may be too long for a frame: inline, or a file with its size, hash and beginning.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest text that travels inside a frame, in bytes. A quarter of the frame limit, so that a message of several
/// texts still fits.
pub const INLINE_BYTES_MAX: usize = 256 * 1024;

/// How much of a long text travels beside its path, in bytes: enough for a person to see what it is.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A text, or where it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Text {
    /// The whole text.
    Inline(String),
    /// A file in the agent's state that holds the text.
    File(TextFile),
}

/// Where a long text lies, and how to know that it is the right one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextFile {
    /// Absolute path.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
    /// The first 64 KiB at most, cut at a character.
    pub head: String,
}

impl Text {
    /// An empty text.
    pub const fn empty() -> Self {
        Self::Inline(String::new())
    }

    /// The whole text, or its beginning where it lies in a file.
    pub fn head(&self) -> &str {
        match self {
            Self::Inline(text) => text,
            Self::File(file) => &file.head,
        }
    }

    /// Whether `text` must go to a file.
    pub fn is_too_long(text: &str) -> bool {
        text.len() > INLINE_BYTES_MAX
    }
}

impl TextFile {
    /// Describes `text`, which the caller has written to `path`.
    pub fn describe(path: String, text: &str) -> Self {
        Self {
            path,
            bytes: text.len() as u64,
            sha256: Sha256::digest(text.as_bytes()).into(),
            head: clip(text, HEAD_BYTES_MAX).to_owned(),
        }
    }

    /// Whether `bytes` are what was described.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.bytes && <[u8; 32]>::from(Sha256::digest(bytes)) == self.sha256
    }
}

/// The longest beginning of `text` with at most `bytes_max` bytes that ends at a character.
pub fn clip(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let end = (0..=bytes_max).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text.get(..end).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_at_a_character() {
        assert_eq!(clip("aäb", 2), "a");
        assert_eq!(clip("aäb", 3), "aä");
        assert_eq!(clip("ab", 9), "ab");
        assert_eq!(clip("ä", 1), "");
    }

    #[test]
    fn a_file_is_known_by_its_hash() {
        let file = TextFile::describe("/x".into(), "hello");
        assert!(file.matches(b"hello"));
        assert!(!file.matches(b"hellO"));
        assert!(!file.matches(b"hell"));
    }
}
