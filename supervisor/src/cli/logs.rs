//! `logs`: the end of a worker's log, and what is added to it. Read from the file: no supervisor is needed.
//!
//! The worker writes JSON lines; a person gets `05:11:02.524 INFO  begin  children=1 running=1`.

use super::args::Shape;
use super::exit::{Exit, Failure};
use super::screen::{Look, Screen, Tone, tame};
use super::{Flag, setup};
use crate::process::folder;
use protocol::AgentName;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How much of the file's end is searched for the last lines, in bytes.
const TAIL_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How often a followed file is looked at, in milliseconds: a person does not see the difference.
const LOOK_MS: u64 = 200;

/// How much of what was added is read at once, in bytes.
const CHUNK_BYTES: u64 = 256 * 1024;

/// Prints the last `lines` of an agent's log, and goes on if it is followed.
pub(super) fn logs(
    flag: Flag<'_>,
    screen: &Screen,
    agent: &AgentName,
    lines: usize,
    follow: bool,
    shape: Shape,
) -> Result<(), Failure> {
    let config = setup::load_folders(flag, screen)?;
    let folder = config.agent_dir(agent).join("log");
    let path = folder.join("worker.log");
    if let Ok(crash) = tail(&folder.join("worker.stderr"), lines).map(|tail| tail.text)
        && !crash.is_empty()
    {
        screen.note(&format!("last words on standard error, see {}:", folder.join("worker.stderr").display()));
        screen.note(tame(&crash).trim_end());
        screen.note("");
    }
    let mut seen = match tail(&path, lines) {
        Ok(tail) => tail,
        Err(error) if follow && error.kind() == io::ErrorKind::NotFound => Tail::default(),
        Err(error) => return Err(Failure::because(Exit::Failed, &format!("read {}", path.display()), &error)),
    };
    let show =
        |text: &str| if shape.json { screen.print_foreign(text) } else { screen.print(&readable(text, &screen.look)) };
    show(&seen.text)?;
    if !follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(Duration::from_millis(LOOK_MS));
        let added = seen.added(&path);
        if !added.is_empty() {
            show(&added)?;
        }
    }
}

/// Keys of a line that say what happened, best first; the first one there leads the line.
const HEADLINES: [&str; 4] = ["message", "error", "what", "input"];

/// JSON lines as a person reads them; another line stays as it is.
fn readable(text: &str, look: &Look) -> String {
    text.lines().fold(String::new(), |page, line| page + &readable_line(line, look) + "\n")
}

fn readable_line(line: &str, look: &Look) -> String {
    let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(line) else { return tame(line).into_owned() };
    let at = fields.remove("at_ms").and_then(|at| at.as_u64()).unwrap_or_default();
    let level = fields.remove("level").map(|level| plain(&level)).unwrap_or_default();
    let tone = match level.as_str() {
        "ERROR" => Tone::Bad,
        "WARN" => Tone::Warn,
        _ => Tone::Faint,
    };
    let lead = HEADLINES.iter().find_map(|key| fields.remove(*key)).map(|value| plain(&value)).unwrap_or_default();
    let rest: Vec<String> = fields.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
    let rest = look.paint(Tone::Faint, &tame(&rest.join(" ")));
    let level = look.paint(tone, &format!("{:<5}", tame(&level)));
    format!("{} {level} {}  {rest}", look.at_ms(at), tame(&lead)).trim_end().to_owned()
}

/// A value without the quotes of JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Opens a log: what the agent's user has put in its place is not followed.
fn open(path: &Path) -> io::Result<File> {
    let agent = path.ancestors().nth(2).unwrap_or(Path::new("/"));
    folder::open_below(agent, path.strip_prefix(agent).map_err(io::Error::other)?)
}

/// The end of a file, and where it was.
#[derive(Debug, Default)]
struct Tail {
    text: String,
    /// Device and inode: another file in the same place is a new log.
    identity: (u64, u64),
    end: u64,
}

fn tail(path: &Path, lines: usize) -> io::Result<Tail> {
    let mut file = open(path)?;
    let metadata = file.metadata()?;
    let from = metadata.len().saturating_sub(TAIL_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    let read = file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    let whole = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let last: Vec<&[u8]> = whole.rsplit(|byte| *byte == b'\n').take(lines).collect();
    let kept: Vec<u8> = last.into_iter().rev().collect::<Vec<_>>().join(&b'\n');
    let text = String::from_utf8_lossy(&kept).into_owned();
    Ok(Tail { text, identity: (metadata.dev(), metadata.ino()), end: from + read as u64 })
}

impl Tail {
    /// What has been added in whole lines; from the start if the file was replaced or cut.
    fn added(&mut self, path: &Path) -> String {
        self.try_added(path).unwrap_or_default()
    }

    fn try_added(&mut self, path: &Path) -> io::Result<String> {
        let mut file = open(path)?;
        let metadata = file.metadata()?;
        let identity = (metadata.dev(), metadata.ino());
        if identity != self.identity || metadata.len() < self.end {
            (self.identity, self.end) = (identity, 0);
        }
        file.seek(SeekFrom::Start(self.end))?;
        let mut bytes = Vec::new();
        file.take(CHUNK_BYTES).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        // A line that is longer than a chunk is passed on in pieces.
        let whole = if whole == 0 && bytes.len() as u64 == CHUNK_BYTES { bytes.len() } else { whole };
        bytes.truncate(whole);
        self.end += whole as u64;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn lines_are_readable_and_tame() {
        let look = Screen::plain().look;
        let line = |text| readable_line(text, &look);
        let json = r#"{"at_ms":3723004,"level":"INFO","input":"begin","running":1,"agent":"a"}"#;
        assert_eq!(line(json), "01:02:03.004 INFO  begin  agent=a running=1");
        assert_eq!(line(r#"{"level":"WARN","message":"\u001b[31m"}"#), "00:00:00.000 WARN  \u{fffd}[31m");
        assert_eq!(line("no JSON"), "no JSON");
        assert_eq!(line("{}"), "00:00:00.000");
        assert_eq!(readable("", &look), "");
    }

    #[test]
    fn the_last_lines_and_what_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "1\n2\n3\n").unwrap();
        let mut seen = tail(&path, 2).unwrap();
        assert_eq!(seen.text, "2\n3");
        assert_eq!(seen.added(&path), "");
        fs::write(&path, "1\n2\n3\n4\n5").unwrap();
        assert_eq!(seen.added(&path), "4\n");
        fs::write(&path, "1\n2\n3\n4\n5!\n").unwrap();
        assert_eq!(seen.added(&path), "5!\n");
        fs::write(&path, "anew\n").unwrap();
        assert_eq!(seen.added(&path), "anew\n");
        fs::remove_file(&path).unwrap();
        assert_eq!(seen.added(&path), "");
        assert_eq!(tail(&dir.path().join("none"), 5).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
