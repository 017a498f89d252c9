//! Ends everything that a dead worker left, then reads its journal.
//!
//! ```text
//!   is the agent's lock free? -- no --> nothing is touched: a worker lives
//!     | yes, and held until the end of the sweep
//!   every process whose environment names the agent's folder, and all their descendants: SIGKILL by pidfd
//!     ^                        |
//!     '--- something left -----'    at most 2 s
//!                              | nothing left
//!   the journal, as values
//! ```
//! The mark is the environment that a worker gives to its Codex children: [`MARK_CHILD`] begins with the folder of the agent. A tool
//! that empties its environment and leaves its parents escapes this; where a Codex child has a PID namespace it cannot.

use super::signal::Handle;
use crate::machine::words::Swept;
use protocol::journal::{self, Reading};
use rustix::fs::{FlockOperation, flock};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Variable in the environment of every Codex child: `AGENT_DIR#INCARNATION.N`.
pub const MARK_CHILD: &str = "COFFERDAM_CHILD";

/// File in the agent's folder whose `flock` a living worker holds.
pub const LOCK_FILE: &str = "lock";

/// File in the agent's folder that holds the worker's journal.
pub const JOURNAL_FILE: &str = "journal";

/// Largest journal that is read, in bytes. The worker cuts it when everything in it is acknowledged; 64 outcomes of the
/// largest size fit.
pub const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How much of a process' environment is looked at, in bytes: Linux allows a quarter of the stack, usually 2 MiB.
const ENVIRONMENT_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Pauses between two looks, in milliseconds: a killed process is usually gone within one. Together 2 s.
const PAUSES_MS: [u64; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 400, 500, 589];

/// Ends what the worker of `agent_dir` left and reads its journal. Never fails: what it could not do is told by
/// [`Swept::left`], which also counts a worker that still holds the lock.
pub async fn sweep(agent_dir: &Path) -> Swept {
    let dir = agent_dir.to_owned();
    let swept = tokio::task::spawn_blocking(move || sweep_blocking(&dir)).await;
    swept.unwrap_or(Swept { ended: 0, left: 1, journal: None })
}

/// Whether no worker serves this agent: the lock can be had. An unreadable lock counts as held.
pub fn is_unserved(agent_dir: &Path) -> bool {
    lock(agent_dir).is_ok()
}

fn lock(agent_dir: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().read(true).write(true).mode(0o600).open(agent_dir.join(LOCK_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(Some(file))
}

fn sweep_blocking(agent_dir: &Path) -> Swept {
    let Ok(_held) = lock(agent_dir) else {
        return Swept { ended: 0, left: 1, journal: None };
    };
    let mut ended = BTreeSet::new();
    let mut left = end_marked(agent_dir.as_os_str(), &mut ended);
    for pause in PAUSES_MS {
        if left == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(pause));
        left = end_marked(agent_dir.as_os_str(), &mut ended);
    }
    let gone = ended.len() - left.min(ended.len());
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Swept { ended: count(gone), left: count(left), journal: read_journal(agent_dir).ok() }
}

/// Kills what is marked at this moment, with its descendants; returns how many there were.
fn end_marked(dir: &OsStr, ended: &mut BTreeSet<(u32, u64)>) -> usize {
    let mark = [MARK_CHILD.as_bytes(), b"=", dir.as_bytes(), b"#"].concat();
    // An idle worker leaves nothing: then each process of the host is looked at once, and no tree is drawn.
    let mut environment = Vec::new();
    let mut victims: BTreeSet<u32> =
        pids().into_iter().filter(|pid| is_marked(*pid, &mark, &mut environment)).collect();
    if victims.is_empty() {
        return 0;
    }
    let all = processes();
    add_descendants(&all, &mut victims);
    victims.remove(&std::process::id());
    for pid in &victims {
        // One that was marked and is not there has gone since: it counts as left, and the next look tells.
        let Some(before) = all.get(pid) else { continue };
        // Opened first, looked at again afterwards: the same start time is the same process.
        let Ok(handle) = Handle::open(*pid) else { continue };
        if stat(*pid).is_some_and(|after| after.started == before.started) && handle.kill().is_ok() {
            ended.insert((*pid, before.started));
        }
    }
    victims.len()
}

/// What is known of a process.
struct Stat {
    parent: u32,
    /// Ticks since the start of the system: with the number, the identity of a process.
    started: u64,
}

/// Every process but zombies, by number.
fn processes() -> BTreeMap<u32, Stat> {
    pids().into_iter().filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// The number of every process.
fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&String::from_utf8_lossy(&text))
}

/// The fields behind the name, which may itself hold blanks and brackets. `None` for zombies: they are gone.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Stat { parent, started })
}

/// Whether the environment of a process holds the mark. `environment` is room that is used again.
fn is_marked(pid: u32, mark: &[u8], environment: &mut Vec<u8>) -> bool {
    let Ok(file) = File::open(format!("/proc/{pid}/environ")) else { return false };
    environment.clear();
    // A process that ends while it is read has an environment cut short: it is gone at the next look.
    let read = file.take(ENVIRONMENT_BYTES_MAX).read_to_end(environment);
    read.is_ok() && environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(mark))
}

fn add_descendants(all: &BTreeMap<u32, Stat>, victims: &mut BTreeSet<u32>) {
    loop {
        let before = victims.len();
        let children = all.iter().filter(|(_, stat)| victims.contains(&stat.parent)).map(|(pid, _)| *pid);
        let children: Vec<u32> = children.collect();
        victims.extend(children);
        if victims.len() == before {
            return;
        }
    }
}

/// The journal of an agent as values; a missing one is an empty one.
fn read_journal(agent_dir: &Path) -> io::Result<Reading> {
    let file = match File::open(agent_dir.join(JOURNAL_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Reading::default()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(JOURNAL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > JOURNAL_BYTES_MAX {
        return Err(io::Error::other("the journal is larger than its limit"));
    }
    Ok(journal::read(&bytes))
}
