//! Texts that are too long for a frame: written to a file, or read from one and checked.
//!
//! ```text
//!  STATE/texts/answer-TURN-CALLER         removed by the command line that has read it, else at the next start
//!  AGENT/texts/prompt-ATTEMPT             removed when the attempt's outcome is acknowledged
//!  AGENT/texts/steer-ATTEMPT-TURN         the same
//! ```

use crate::process::folder::{self, Folder};
use protocol::text::TextFile;
use protocol::{AttemptId, Text, TurnId};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::Path;

/// Largest text that is read from a file, in bytes: the largest prompt or answer that the ledger keeps.
const READ_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Puts a text that is too long for a frame into `dir/name`. If that fails its beginning goes, and says so.
pub(super) fn spill(dir: &Path, name: &str, text: Text) -> Text {
    let Text::Inline(whole) = &text else { return text };
    if !Text::is_too_long(whole) {
        return text;
    }
    let path = dir.join(name);
    match write(dir, name, whole) {
        Ok(()) => Text::File(TextFile::describe(path.to_string_lossy().into_owned(), whole)),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "a long text cannot be written");
            let head = protocol::text::clip(whole, protocol::text::HEAD_BYTES_MAX);
            Text::Inline(format!("{head}\n(cut here: the rest could not be written to {}: {error})", path.display()))
        }
    }
}

/// The file of an attempt's prompt.
pub(super) fn prompt(attempt: AttemptId) -> String {
    format!("prompt-{attempt}")
}

/// The file of a text for a running attempt.
pub(super) fn steer(attempt: AttemptId, turn: TurnId) -> String {
    format!("steer-{attempt}-{turn}")
}

/// Removes what an attempt that is over was given.
pub(super) fn forget(dir: &Path, attempt: AttemptId) {
    let steered = format!("steer-{attempt}-");
    remove(dir, |name| name == prompt(attempt) || name.starts_with(&steered));
}

/// Removes answers that nobody has read: whoever waited for them is gone with the last supervisor.
pub(super) fn tidy(dir: &Path) {
    remove(dir, |name| name.starts_with("answer-"));
}

/// Removes files by name. A folder that does not exist holds none, and a file that stays is tried again.
fn remove(dir: &Path, is_old: impl Fn(&str) -> bool) {
    if let Ok(folder) = place(dir).and_then(|(above, name)| Folder::open(above)?.sub(name)) {
        folder.remove(is_old);
    }
}

/// The folder of texts as a name in the folder above it, whose owner may be another user than ours.
fn place(dir: &Path) -> io::Result<(&Path, &OsStr)> {
    dir.parent().zip(dir.file_name()).ok_or_else(|| io::Error::other("no folder is named"))
}

fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let (above, texts) = place(dir)?;
    let mut file = Folder::open(above)?.make(texts)?.create(folder::name(name))?;
    file.write_all(text.as_bytes())
}

/// The whole text that lies in a file below `dir`; its beginning with a remark if the file is not what was described.
pub(super) async fn read(dir: &Path, text: Text) -> Text {
    let Text::File(file) = text else { return text };
    Text::Inline(whole(dir, &file).await.unwrap_or_else(|why| {
        format!("{}\n(cut here: the rest lies in {} and cannot be used: {why})", file.head, file.path)
    }))
}

/// The whole text that lies in a file below `dir`, or why it cannot be used.
pub(super) async fn whole(dir: &Path, file: &TextFile) -> Result<String, String> {
    let (path, dir) = (std::path::PathBuf::from(&file.path), dir.to_owned());
    let bytes = tokio::task::spawn_blocking(move || read_below(&dir, &path)).await;
    let bytes = bytes.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    if !file.matches(&bytes) {
        return Err("it is not what was described".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "it is no text".to_owned())
}

/// Reads a regular file that lies below `dir` after all links are followed, and is not larger than the limit.
fn read_below(dir: &Path, path: &Path) -> io::Result<Vec<u8>> {
    let (dir, path) = (dir.canonicalize()?, path.canonicalize()?);
    let Ok(below) = path.strip_prefix(&dir) else {
        return Err(io::Error::other(format!("it does not lie below {}", dir.display())));
    };
    // The path may have become another one meanwhile: it is gone step by step.
    let file = folder::open_below(&dir, below)?;
    let mut bytes = Vec::new();
    file.take(READ_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > READ_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it is larger than {} MiB; put it into a file of the workspace",
            READ_BYTES_MAX / 1024 / 1024
        )));
    }
    Ok(bytes)
}
