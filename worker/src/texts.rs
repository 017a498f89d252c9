//! Long texts: answers go to files of ours, prompts come in files of the supervisor.
//!
//! ```text
//!  AGENT/texts/answer-ATTEMPT    written before the outcome is journaled, removed when it is acknowledged
//! ```

use protocol::text::TextFile;
use protocol::{AttemptId, Text};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Longest prompt that is read, in bytes: far above what any model reads, far below what hurts the host.
pub const PROMPT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why a prompt could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// It is longer than the limit.
    #[error("the prompt of {0} bytes is longer than the limit of {PROMPT_BYTES_MAX}")]
    TooLong(u64),
    /// The file cannot be read.
    #[error("cannot read the prompt in {path}: {source}")]
    Io {
        /// Where it should be.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("the file {0} is not the prompt that was announced")]
    Different(String),
}

/// The folder of long texts of one agent.
#[derive(Clone, Debug)]
pub struct Texts {
    dir: PathBuf,
}

impl Texts {
    /// The texts below the agent's folder. Nothing is touched yet.
    pub fn new(agent_dir: &Path) -> Self {
        Self { dir: agent_dir.join("texts") }
    }

    /// The text as it travels: inline, or in a file that is on disk when this returns.
    pub fn keep(&self, attempt: AttemptId, text: String) -> io::Result<Text> {
        if !Text::is_too_long(&text) {
            return Ok(Text::Inline(text));
        }
        crate::home::make_private_dir(&self.dir)?;
        let path = self.path(attempt);
        crate::home::write_atomically(&path, text.as_bytes())?;
        Ok(Text::File(TextFile::describe(path.display().to_string(), &text)))
    }

    /// Removes the answer of an acknowledged attempt.
    pub fn forget(&self, attempt: AttemptId) {
        drop(fs::remove_file(self.path(attempt)));
    }

    /// Removes every answer that belongs to no open attempt.
    pub fn tidy(&self, open: &BTreeSet<AttemptId>) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let attempt = name.to_str().and_then(|n| n.strip_prefix("answer-")).and_then(|n| n.parse().ok());
            if attempt.is_some_and(|n| !open.contains(&AttemptId(n))) {
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    fn path(&self, attempt: AttemptId) -> PathBuf {
        self.dir.join(format!("answer-{attempt}"))
    }
}

/// The whole text of what travelled; a file is read and compared with its announcement.
pub fn read(text: &Text) -> Result<String, TextError> {
    match text {
        Text::Inline(text) => Ok(text.clone()),
        Text::File(file) => read_file(file),
    }
}

fn read_file(file: &TextFile) -> Result<String, TextError> {
    if file.bytes > PROMPT_BYTES_MAX {
        return Err(TextError::TooLong(file.bytes));
    }
    let mut bytes = Vec::new();
    // One byte more than announced, so that a longer file shows; a pipe or device in its place ends there too.
    let opened = File::open(&file.path).and_then(|f| f.take(file.bytes + 1).read_to_end(&mut bytes));
    opened.map_err(|source| TextError::Io { path: file.path.clone(), source })?;
    if !file.matches(&bytes) {
        return Err(TextError::Different(file.path.clone()));
    }
    String::from_utf8(bytes).map_err(|_| TextError::Different(file.path.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn long_texts_go_and_come_by_file() {
        let dir = tempfile::tempdir().unwrap();
        let texts = Texts::new(dir.path());
        assert_eq!(texts.keep(AttemptId(1), "short".into()).unwrap(), Text::Inline("short".into()));
        let long = "ä".repeat(200_000);
        let kept = texts.keep(AttemptId(2), long.clone()).unwrap();
        assert_eq!(read(&kept).unwrap(), long);
        let Text::File(file) = kept else { panic!("a long text travels by file") };
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
        texts.tidy(&[AttemptId(2)].into());
        assert!(Path::new(&file.path).exists());
        texts.forget(AttemptId(2));
        assert!(!Path::new(&file.path).exists());
    }

    #[test]
    fn a_prompt_that_is_not_the_announced_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p").display().to_string();
        let file = TextFile::describe(path.clone(), "hello");
        assert!(matches!(read(&Text::File(file.clone())), Err(TextError::Io { .. })));
        for wrong in ["hellO", "hello again", "hell"] {
            fs::write(&path, wrong).unwrap();
            assert!(matches!(read(&Text::File(file.clone())), Err(TextError::Different(_))));
        }
        let huge = TextFile { bytes: u64::MAX, ..file };
        assert!(matches!(read(&Text::File(huge)), Err(TextError::TooLong(_))));
    }

    #[test]
    fn answers_of_closed_attempts_are_tidied_away() {
        let dir = tempfile::tempdir().unwrap();
        let texts = Texts::new(dir.path());
        let Text::File(file) = texts.keep(AttemptId(5), "x".repeat(300_000)).unwrap() else { panic!() };
        texts.tidy(&BTreeSet::new());
        assert!(!Path::new(&file.path).exists());
    }
}
