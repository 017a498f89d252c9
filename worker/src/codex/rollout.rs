//! What a turn left in its thread's file: the evidence whether a replay is safe.
//!
//! ```text
//!  CODEX_HOME/sessions/YYYY/MM/DD/rollout-<local time>-<thread>.jsonl      appended to by Codex, never by us
//!           archived_sessions/rollout-...                               moved there by Codex, when we ask it to
//! ```
//! The reading answers "nothing but words" only for lines that it knows. A line that it does not know, that is torn or
//! that is too long counts as a deed: a doubt must not repeat an effect.

use super::vitals;
use crate::machine::io::Rollout;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Most that is read behind the offset, in bytes. A turn that wrote more has run tools.
const READ_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Files that are looked at in one search, newest days first: a tenth of a second.
const FILES_MAX: usize = 100_000;

/// Old threads that one search finds at most: 180 KB in a frame.
const OLD_THREADS_MAX: usize = 4096;

/// Most that is read of a file's first line, in bytes: it holds Codex' own instructions, some 20 KB.
const META_BYTES_MAX: u64 = 256 * 1024;

/// Bytes of a thread's id: a UUID.
const THREAD_ID_BYTES: usize = 36;

/// Most deeds that are told.
const RAN_MAX: usize = 32;

/// Longest deed that is told, in bytes.
const DEED_BYTES_MAX: usize = 200;

/// Events of Codex that are words or bookkeeping.
const HARMLESS_EVENTS: [&str; 11] = [
    "task_started",
    "task_complete",
    "turn_aborted",
    "user_message",
    "agent_message",
    "agent_reasoning",
    "agent_reasoning_raw_content",
    "agent_reasoning_section_break",
    "token_count",
    "thread_settings_applied",
    "context_compacted",
];

/// Kinds of line that are bookkeeping.
const HARMLESS_LINES: [&str; 5] = ["session_meta", "turn_context", "world_state", "token_usage_record", "compacted"];

/// Items that are words.
const HARMLESS_ITEMS: [&str; 4] = ["UserMessage", "AgentMessage", "Reasoning", "ContextCompaction"];

/// The file of a thread, if there is one.
pub fn find(codex_home: &Path, thread: &str) -> Option<PathBuf> {
    if thread.is_empty() || !thread.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return None;
    }
    let end = format!("-{thread}.jsonl");
    newest_first(&codex_home.join("sessions"))
        .into_iter()
        .flat_map(|year| newest_first(&year))
        .flat_map(|month| newest_first(&month))
        .find_map(|day| {
            newest_first(&day).into_iter().find(|path| {
                path.file_name()
                    .and_then(|n| n.to_str())
                    .is_some_and(|n| n.starts_with("rollout-") && n.ends_with(&end))
            })
        })
}

/// Threads that no other has begun and whose files were last written before this moment in Unix milliseconds, oldest first.
pub fn older(codex_home: &Path, before_ms: u64) -> Vec<String> {
    let folder = |path: &PathBuf| newest_first(path);
    let days = newest_first(&codex_home.join("sessions")).iter().flat_map(folder).collect::<Vec<_>>();
    let days = days.iter().flat_map(folder).collect::<Vec<_>>();
    let mut old: Vec<(u64, PathBuf)> = days
        .iter()
        .flat_map(folder)
        .take(FILES_MAX)
        .filter_map(|path| Some((vitals::written(&path)?.at_ms, path)))
        .filter(|(at_ms, _)| *at_ms < before_ms)
        .collect();
    old.sort_unstable();
    old.into_iter()
        .filter_map(|(_, path)| thread_of(&path).filter(|_| !has_parent(&path)))
        .take(OLD_THREADS_MAX)
        .collect()
}

/// The thread that a file's name tells.
fn thread_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_prefix("rollout-")?.strip_suffix(".jsonl")?;
    let (_, thread) = name.split_at_checked(name.len().checked_sub(THREAD_ID_BYTES)?)?;
    let whole = thread.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    whole.then(|| thread.to_owned())
}

/// Whether the thread was begun by another, with which it goes into the archive. One that cannot be read stays.
fn has_parent(path: &Path) -> bool {
    let mut line = Vec::new();
    let read = File::open(path)
        .and_then(|file| BufReader::new(file.take(META_BYTES_MAX)).read_until(b'\n', &mut line))
        .is_ok_and(|bytes| bytes > 0);
    // Inside a text of the line the quotes would be escaped.
    let mark = br#""parent_thread_id":""#;
    !read || line.windows(mark.len()).any(|piece| piece == mark)
}

/// Size of a thread's file, 0 if there is none. One in the archive comes back before its turn runs.
pub fn size(codex_home: &Path, thread: &str) -> u64 {
    find(codex_home, thread)
        .or_else(|| {
            let end = format!("-{thread}.jsonl");
            let ours = |path: &PathBuf| path.to_str().is_some_and(|text| text.ends_with(&end));
            newest_first(&codex_home.join("archived_sessions")).into_iter().find(ours)
        })
        .and_then(|path| fs::metadata(path).ok())
        .map_or(0, |m| m.len())
}

/// What lies in a thread's file behind `from_bytes`.
pub fn read(codex_home: &Path, thread: &str, from_bytes: u64) -> Rollout {
    match find(codex_home, thread) {
        Some(path) => read_file(&path, from_bytes).unwrap_or_default(),
        None => Rollout::default(),
    }
}

fn read_file(path: &Path, from_bytes: u64) -> io::Result<Rollout> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    if size < from_bytes || size - from_bytes > READ_BYTES_MAX {
        return Ok(Rollout::default());
    }
    file.seek(SeekFrom::Start(from_bytes))?;
    let mut rollout = Rollout { read: true, ran: Vec::new(), only_words: true };
    let mut reader = BufReader::new(file.take(READ_BYTES_MAX));
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        match serde_json::from_slice::<Value>(&line) {
            Ok(value) if line.ends_with(b"\n") => judge(&value, &mut rollout),
            Ok(_) | Err(_) => rollout.only_words = false,
        }
        line.clear();
    }
    Ok(rollout)
}

fn judge(line: &Value, rollout: &mut Rollout) {
    let payload = &line["payload"];
    let what = payload["type"].as_str().unwrap_or("");
    let harmless = match line["type"].as_str().unwrap_or("") {
        "response_item" => matches!(what, "message" | "reasoning" | "compaction"),
        "event_msg" if what == "item_completed" => {
            HARMLESS_ITEMS.contains(&payload["item"]["type"].as_str().unwrap_or(""))
        }
        "event_msg" => HARMLESS_EVENTS.contains(&what),
        other => HARMLESS_LINES.contains(&other),
    };
    if harmless {
        return;
    }
    rollout.only_words = false;
    if let Some(deed) = deed(what, payload)
        && rollout.ran.len() < RAN_MAX
    {
        rollout.ran.push(clip(&deed));
    }
}

/// What a call did, as a person reads it. Its result and its event tell the same deed again and are left out.
fn deed(what: &str, payload: &Value) -> Option<String> {
    let name = || payload["name"].as_str().unwrap_or("tool").to_owned();
    match what {
        "function_call" => {
            let arguments = payload["arguments"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
            Some(
                arguments.as_ref().and_then(|a| words(&a["cmd"]).or_else(|| words(&a["command"]))).unwrap_or_else(name),
            )
        }
        "local_shell_call" => Some(words(&payload["action"]["command"]).unwrap_or_else(name)),
        "custom_tool_call" => {
            let input = payload["input"].as_str().unwrap_or("");
            let files: Vec<&str> =
                input.lines().filter(|l| l.starts_with("*** ") && l.contains(" File: ")).map(|l| &l[4..]).collect();
            Some(if files.is_empty() { name() } else { files.join(", ") })
        }
        "web_search_call" => Some("web search".to_owned()),
        _ => None,
    }
}

fn words(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(words) => Some(words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

fn clip(deed: &str) -> String {
    let one_line = deed.lines().collect::<Vec<_>>().join(" ");
    let clipped = protocol::text::clip(&one_line, DEED_BYTES_MAX);
    if clipped.len() < one_line.len() { format!("{clipped}…") } else { one_line }
}

fn newest_first(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort_unstable_by(|a, b| b.cmp(a));
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREAD: &str = "01a1fbcc-0000-7000-8000-000000000001";
    const USER: &str = r#"{"type":"response_item","payload":{"type":"message","role":"user"}}"#;
    const CALL: &str = r#"{"type":"response_item","payload":{"type":"function_call","name":"exec_command","arguments":"{\"cmd\":\"touch x\"}"}}"#;
    const DONE: &str = r#"{"type":"event_msg","payload":{"type":"item_completed","item":{"type":"CommandExecution"}}}"#;
    const SAID: &str = r#"{"type":"event_msg","payload":{"type":"item_completed","item":{"type":"AgentMessage"}}}"#;

    fn home(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let day = dir.path().join("sessions/2026/11/21");
        fs::create_dir_all(&day).unwrap();
        fs::write(day.join(format!("rollout-2026-11-21T01-50-33-{THREAD}.jsonl")), text).unwrap();
        let path = dir.path().to_owned();
        (dir, path)
    }

    #[test]
    fn words_alone_are_safe_and_a_tool_is_told() {
        let earlier = format!("{CALL}\n");
        let (_dir, path) = home(&format!("{earlier}{USER}\n{SAID}\n"));
        let offset = earlier.len() as u64;
        assert_eq!(read(&path, THREAD, offset), Rollout { read: true, ran: vec![], only_words: true });
        let all = read(&path, THREAD, 0);
        assert_eq!((all.only_words, all.ran), (false, vec!["touch x".to_owned()]));
        assert_eq!(size(&path, THREAD), fs::metadata(find(&path, THREAD).unwrap()).unwrap().len());
    }

    #[test]
    fn a_doubt_is_a_deed() {
        for text in [&USER[..40], r#"{"type":"response_item","payload":{"type":"novel_call"}}"#, DONE, "\u{0}\n", USER]
        {
            let text = if text == USER { USER.to_owned() } else { format!("{USER}\n{text}\n") };
            let (_dir, path) = home(&text);
            let rollout = read(&path, THREAD, 0);
            assert!(rollout.read && !rollout.only_words, "{text}");
        }
        let (_dir, path) = home(USER);
        assert!(!read(&path, THREAD, 100_000).read, "a file that shrank is another file");
        assert!(!read(&path, "unknown", 0).read);
        assert_eq!(find(&path, "../../x"), None);
    }

    #[test]
    fn patches_are_told_by_their_files() {
        let line = serde_json::json!({"type": "response_item", "payload": {"type": "custom_tool_call", "name":
            "apply_patch", "input": "*** Begin Patch\n*** Add File: a.txt\n+x\n*** Update File: b.txt\n"}});
        let (_dir, path) = home(&format!("{line}\n"));
        assert_eq!(read(&path, THREAD, 0).ran, ["Add File: a.txt, Update File: b.txt"]);
    }

    #[test]
    fn old_ones_are_found_oldest_first_but_for_those_that_another_has_begun() {
        let (_dir, path) = home(USER);
        let day = path.join("sessions/2026/11/20");
        fs::create_dir_all(&day).unwrap();
        let thread = |n: u32| format!("01a1fbcc-0000-7000-8000-00000000000{n}");
        let files = [
            (5, 50, "{}\n"),
            (4, 40, r#"{"text":"\"parent_thread_id\":\"x"}"#),
            (3, 30, r#"{"parent_thread_id":"x"}"#),
        ];
        for (n, at_s, text) in files {
            let file = day.join(format!("rollout-2026-11-20T01-50-33-{}.jsonl", thread(n)));
            fs::write(&file, text).unwrap();
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(at_s);
            File::options().write(true).open(&file).unwrap().set_modified(at).unwrap();
        }
        for odd in
            ["rollout-x.jsonl", "note.txt", "rollout-2026-11-20T01-50-33-not-a-thread-but-as-long-as-one-is.jsonl"]
        {
            fs::write(day.join(odd), "").unwrap();
        }
        assert_eq!(older(&path, 60_000), [thread(4), thread(5)]);
        assert_eq!(older(&path, 50_000), [thread(4)]);
        assert_eq!(older(&path, u64::MAX).len(), 3);
        let archive = path.join("archived_sessions");
        fs::create_dir(&archive).unwrap();
        fs::write(archive.join(format!("rollout-2026-11-19T01-50-33-{}.jsonl", thread(6))), "12345").unwrap();
        assert_eq!((size(&path, &thread(6)), find(&path, &thread(6))), (5, None));
    }
}
