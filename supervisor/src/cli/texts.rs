//! Texts that pass between a command and the supervisor: inline, or as a file in the state if they are long.

use super::exit::{Exit, Failure};
use super::screen::Screen;
use protocol::Text;
use protocol::text::TextFile;
use std::borrow::Cow;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest message and longest answer, in bytes: more than any model reads.
pub const TEXT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The message of `send`: the argument, or standard input for `-` and for none.
pub(super) fn read_message(argument: Option<String>, screen: &Screen) -> Result<String, Failure> {
    let text = match argument {
        Some(text) if text != "-" => text,
        Some(_) | None => {
            if io::stdin().is_terminal() {
                screen.note("type the message; Ctrl-D on an empty line sends it");
            }
            read_bounded(io::stdin().lock()).map_err(|e| Failure::because(Exit::Usage, "read the message", &e))?
        }
    };
    if text.trim().is_empty() { Err(Failure::new(Exit::Usage, "the message is empty")) } else { Ok(text) }
}

fn read_bounded(from: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {TEXT_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// A text on its way to the supervisor. Its file is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Letter {
    text: Text,
    file: Option<PathBuf>,
}

impl Letter {
    /// Keeps a short text, writes a long one below `state_dir/texts` (0600).
    pub(super) fn write(state_dir: &Path, text: String) -> Result<Self, Failure> {
        if !Text::is_too_long(&text) {
            return Ok(Self { text: Text::Inline(text), file: None });
        }
        let dir = state_dir.join("texts");
        let path = dir.join(format!("send-{}.txt", std::process::id()));
        let write = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            // One of the same number is left over from a command that was killed.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
            file.write_all(text.as_bytes())
        };
        write().map_err(|e| Failure::because(Exit::Failed, &format!("write {}", path.display()), &e))?;
        let described = TextFile::describe(path.display().to_string(), &text);
        Ok(Self { text: Text::File(described), file: Some(path) })
    }

    /// How the text travels.
    pub(super) const fn text(&self) -> &Text {
        &self.text
    }
}

impl Drop for Letter {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // A file that stays is replaced by the next command of the same number.
            drop(fs::remove_file(file));
        }
    }
}

/// The whole text of an answer; its beginning, and a note, if its file is gone or is not what was described.
pub(super) fn whole<'a>(text: &'a Text, screen: &Screen) -> Cow<'a, str> {
    match text {
        Text::Inline(text) => Cow::Borrowed(text),
        Text::File(file) => match read_file(file) {
            Ok(text) => Cow::Owned(text),
            Err(error) => {
                screen.note(&format!(
                    "only the first {} of {} bytes: {} cannot be read: {error}",
                    file.head.len(),
                    file.bytes,
                    file.path
                ));
                Cow::Borrowed(&file.head)
            }
        },
    }
}

/// Reads an answer, which was written for this command alone: once read it goes.
fn read_file(file: &TextFile) -> io::Result<String> {
    let text = read_bounded(File::open(&file.path)?)?;
    if !file.matches(text.as_bytes()) {
        return Err(io::Error::other("it has been changed"));
    }
    // One that stays is removed when the supervisor starts.
    drop(fs::remove_file(&file.path));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_long_text_travels_as_a_private_file_that_is_cleaned_up() {
        let state = tempfile::tempdir().unwrap();
        let long = "ä".repeat(300_000);
        let letter = Letter::write(state.path(), long.clone()).unwrap();
        let Text::File(file) = letter.text().clone() else { panic!() };
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(whole(letter.text(), &Screen::plain()), long);
        drop(letter);
        assert!(!Path::new(&file.path).exists());
        assert_eq!(whole(&Text::File(file.clone()), &Screen::plain()), file.head);
    }

    #[test]
    fn a_changed_answer_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "evil").unwrap();
        let file = TextFile::describe(path.display().to_string(), "good");
        assert_eq!(whole(&Text::File(file), &Screen::plain()), "good");
    }

    #[test]
    fn an_empty_message_is_a_wrong_command_line() {
        let refused = read_message(Some("  \n".into()), &Screen::plain()).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert_eq!(read_message(Some("hi".into()), &Screen::plain()).unwrap(), "hi");
        assert!(read_bounded(&[0xff, 0xfe][..]).is_err());
        assert!(read_bounded(io::repeat(b'x')).is_err());
    }
}
