//! Ends everything that a dead worker left, then reads its journal.
//!
//! ```text
//!   is the agent's lock free? -- no --> nothing is touched: a worker lives
//!     | yes, and held until the end of the sweep
//!   the agent's cgroup, if it has one: cgroup.kill until it is empty, and removed
//!   every process whose environment names the agent's folder, and all their descendants: SIGKILL by pidfd
//!     ^                        |
//!     '--- something left -----'    at most 2 s
//!                              | nothing left
//!   the journal, as values
//! ```
//! The mark is a variable that a worker gives to its Codex children, see [`MARK`]. A tool that empties its environment
//! and leaves its parents escapes this; where a Codex child has a PID namespace it cannot.

use super::cgroup;
use super::folder::{self, Folder};
use super::signal::Handle;
use crate::machine::words::Swept;
use protocol::journal::{self, Reading};
use rustix::fs::{FlockOperation, flock};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Variable in the environment of every Codex child: `AGENT_DIR#INCARNATION.CHILD`.
pub const MARK: &str = "COFFERDAM_CHILD";

/// File in the agent's folder whose `flock` a living worker holds.
pub const LOCK_FILE: &str = "lock";

/// File in the agent's folder that holds the worker's journal.
pub const JOURNAL_FILE: &str = "journal";

/// File in the agent's folder that names the ledger of the journal.
pub const LEDGER_FILE: &str = "ledger-id";

/// Largest journal that is read, in bytes. The worker cuts it when everything in it is acknowledged; 64 outcomes of the
/// largest size fit.
pub const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Longest file that names a ledger, in bytes: it holds one number.
const LEDGER_BYTES_MAX: u64 = 64;

/// How much of a process' environment is looked at, in bytes: Linux allows a quarter of the stack, usually 2 MiB.
const ENVIRONMENT_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Pauses between two looks, in milliseconds: a killed process is usually gone within one. Together 2 s.
const PAUSES_MS: [u64; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 400, 500, 589];

/// How many looks in a row must find nothing if they were not clear: what hid from one, in the middle of a fork or an
/// exec, is seen by the next.
const UNCLEAR_LOOKS: u32 = 3;

/// Ends what the worker of `agent_dir` left and reads its journal. Never fails: what it could not do is told by
/// [`Swept::left`], which also counts a worker that still holds the lock.
/// A journal that belongs to another ledger than `ledger` counts as empty: its attempts bear the numbers of others.
pub async fn sweep(agent_dir: &Path, ledger: u64) -> Swept {
    let dir = agent_dir.to_owned();
    let swept = tokio::task::spawn_blocking(move || sweep_blocking(&dir, ledger)).await;
    swept.unwrap_or(Swept { ended: 0, left: 1, journal: None })
}

/// Whether no worker serves this agent: the lock can be had. An unreadable lock counts as held.
pub fn is_unserved(agent_dir: &Path) -> bool {
    lock(agent_dir).is_ok()
}

fn lock(agent_dir: &Path) -> io::Result<Option<File>> {
    let file = match Folder::open(agent_dir).and_then(|folder| folder.edit(folder::name(LOCK_FILE))) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(Some(file))
}

fn sweep_blocking(agent_dir: &Path, ledger: u64) -> Swept {
    let Ok(_held) = lock(agent_dir).inspect_err(|error| {
        if error.kind() != io::ErrorKind::WouldBlock {
            tracing::warn!(dir = %agent_dir.display(), %error, "the lock of an agent cannot be looked at: remove it");
        }
    }) else {
        return Swept { ended: 0, left: 1, journal: None };
    };
    let group = cgroup::end(agent_dir);
    let mut ended = BTreeSet::new();
    let mut look = end_marked(agent_dir.as_os_str(), &mut ended);
    let mut nothing = 0;
    for pause in PAUSES_MS {
        nothing = if look.victims == 0 { nothing + 1 } else { 0 };
        if nothing > 0 && (look.is_clear || nothing >= UNCLEAR_LOOKS) {
            break;
        }
        std::thread::sleep(Duration::from_millis(pause));
        look = end_marked(agent_dir.as_os_str(), &mut ended);
    }
    let left = look.victims;
    let gone = ended.len() - left.min(ended.len());
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (gone, left) = (gone + group.ended, left.max(group.left));
    let journal = if is_foreign(agent_dir, ledger) { Some(Reading::default()) } else { read_journal(agent_dir).ok() };
    Swept { ended: count(gone), left: count(left), journal }
}

/// Whether the worker that wrote the journal served another ledger. It says so beside it; without a word it served none.
fn is_foreign(agent_dir: &Path, ledger: u64) -> bool {
    let mut said = String::new();
    let read = folder::open_below(agent_dir, Path::new(LEDGER_FILE))
        .and_then(|file| file.take(LEDGER_BYTES_MAX).read_to_string(&mut said));
    read.ok().and_then(|_| said.trim().parse::<u64>().ok()).is_some_and(|said| said != ledger)
}

/// What one look at the host saw.
struct Look {
    /// Processes that carry the mark or descend from such, and were sent a kill.
    victims: usize,
    /// Nothing can have hidden: no process was in the middle of an exec, none ended while it was looked at.
    is_clear: bool,
}

/// Kills what is marked at this moment, with its descendants.
fn end_marked(dir: &OsStr, ended: &mut BTreeSet<(u32, u64)>) -> Look {
    let mark = [MARK.as_bytes(), b"=", dir.as_bytes(), b"#"].concat();
    let all = processes();
    let mut victims = BTreeSet::new();
    let mut is_clear = true;
    for (pid, stat) in &all {
        match sign_of(*pid, &mark) {
            Sign::Marked => drop(victims.insert(*pid)),
            Sign::Unclear => is_clear &= stat.is_kernel,
            Sign::Foreign => {}
        }
    }
    add_descendants(&all, &mut victims);
    victims.remove(&std::process::id());
    for pid in &victims {
        let Some(before) = all.get(pid) else { continue };
        // Opened first, looked at again afterwards: the same start time is the same process.
        let Ok(handle) = Handle::open(*pid) else { continue };
        if stat(*pid).is_some_and(|after| after.started == before.started) && handle.kill().is_ok() {
            ended.insert((*pid, before.started));
        }
    }
    Look { victims: victims.len(), is_clear }
}

/// What is known of a process.
struct Stat {
    parent: u32,
    /// A thread of the kernel, which has no environment.
    is_kernel: bool,
    /// Ticks since the start of the system: with the number, the identity of a process.
    started: u64,
}

/// Every process but zombies, by number.
fn processes() -> BTreeMap<u32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// Bit of a process' flags, `PF_KTHREAD`.
const KERNEL_THREAD: u32 = 0x0020_0000;

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
    let flags: u32 = fields.nth(4)?.parse().ok()?;
    let started = fields.nth(12)?.parse().ok()?;
    Some(Stat { parent, is_kernel: flags & KERNEL_THREAD != 0, started })
}

/// What a process' environment says.
enum Sign {
    Marked,
    /// It carries no such mark, or is not ours to look at.
    Foreign,
    /// It has none at this moment: it ended, or is in the middle of an exec.
    Unclear,
}

fn sign_of(pid: u32, mark: &[u8]) -> Sign {
    let mut environment = Vec::new();
    let read = File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(ENVIRONMENT_BYTES_MAX).read_to_end(&mut environment));
    match read {
        Ok(0) => Sign::Unclear,
        Ok(_) if environment.split(|byte| *byte == 0).any(|variable| carries(variable, mark)) => Sign::Marked,
        Ok(_) => Sign::Foreign,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Sign::Foreign,
        Err(_) => Sign::Unclear,
    }
}

/// Whether a variable is this mark, whatever the run and the child: a folder whose name goes on is another one.
fn carries(variable: &[u8], mark: &[u8]) -> bool {
    let Some(child) = variable.strip_prefix(mark) else { return false };
    let mut parts = child.split(|byte| *byte == b'.');
    let is = |part: Option<&[u8]>, fits: fn(&u8) -> bool| part.is_some_and(|p| !p.is_empty() && p.iter().all(fits));
    is(parts.next(), u8::is_ascii_digit) && is(parts.next(), u8::is_ascii_alphanumeric) && parts.next().is_none()
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
    let file = match folder::open_below(agent_dir, Path::new(JOURNAL_FILE)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::usage::Sampler;
    use protocol::AgentName;
    use protocol::journal::{self, Record};
    use protocol::{AttemptId, Finished, Outcome, TurnId};
    use std::process::{Child, Stdio};

    const LEDGER: u64 = 7;

    /// A process with the mark of `dir`, which runs `script` in a shell and has told that it got there.
    #[expect(clippy::disallowed_methods, reason = "a stand-in for what a worker leaves")]
    fn left_over(dir: &Path, script: &str) -> Child {
        let mut command = std::process::Command::new("bash");
        let mark = format!("{}#7.1", dir.display());
        command.args(["-c", script]).env(MARK, mark).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut ready = [0; 2];
        child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        child
    }

    fn count(swept: &Swept) -> (u32, u32) {
        (swept.ended, swept.left)
    }

    #[tokio::test]
    async fn what_a_dead_worker_left_is_ended_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("a"), dir.path().join("ab"));
        fs::create_dir_all(&ours).unwrap();
        // A session of its own, a child with an emptied environment, and one that ignores what can be ignored.
        let script =
            "setsid sleep 600 & env -i sleep 600 & (trap '' TERM INT HUP; exec -a x sleep 600) & echo ok; wait";
        let mut victim = left_over(&ours, script);
        let mut bystander = left_over(&theirs, "echo ok; exec sleep 600");
        let swept = sweep(&ours, LEDGER).await;
        assert_eq!(swept.left, 0);
        assert!(swept.ended >= 4, "{swept:?}");
        assert!(!victim.wait().unwrap().success());
        assert!(bystander.try_wait().unwrap().is_none());
        assert_eq!(count(&sweep(&ours, LEDGER).await), (0, 0));
        assert_eq!(count(&sweep(&theirs, LEDGER).await), (1, 0));
        bystander.wait().unwrap();
    }

    #[tokio::test]
    async fn a_process_that_forks_all_the_time_is_ended_too() {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo ok; for i in $(seq 40); do (setsid bash -c 'sleep 0.01; sleep 600' &) ; done; sleep 600";
        let mut victim = left_over(dir.path(), script);
        assert_eq!(sweep(dir.path(), LEDGER).await.left, 0);
        victim.wait().unwrap();
        assert_eq!(count(&sweep(dir.path(), LEDGER).await), (0, 0));
    }

    #[tokio::test]
    async fn a_living_worker_is_never_touched() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_unserved(dir.path()));
        let lock = File::create(dir.path().join(LOCK_FILE)).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let mut child = left_over(dir.path(), "echo ok; exec sleep 600");
        assert!(!is_unserved(dir.path()));
        assert_eq!(count(&sweep(dir.path(), LEDGER).await), (0, 1));
        assert!(child.try_wait().unwrap().is_none());
        drop(lock);
        assert_eq!(count(&sweep(dir.path(), LEDGER).await), (1, 0));
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn the_journal_comes_back_and_damage_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(sweep(dir.path(), LEDGER).await.journal, Some(Reading::default()));
        let end = Finished::new(AttemptId(1), TurnId(1), Outcome::Completed);
        let mut bytes = journal::encode(&Record::Ended(Box::new(end)));
        let whole = bytes.len();
        bytes.extend([9; 7]);
        fs::write(dir.path().join(JOURNAL_FILE), &bytes).unwrap();
        let reading = sweep(dir.path(), LEDGER).await.journal.unwrap();
        assert_eq!((reading.whole_bytes, reading.torn_bytes), (whole, 7));
        File::create(dir.path().join(JOURNAL_FILE)).unwrap().set_len(JOURNAL_BYTES_MAX + 1).unwrap();
        assert_eq!(sweep(dir.path(), LEDGER).await.journal, None);
    }

    #[test]
    fn a_mark_is_known_exactly() {
        let carries = |variable: &str| carries(variable.as_bytes(), b"COFFERDAM_CHILD=/s/agents/a#");
        assert!(carries("COFFERDAM_CHILD=/s/agents/a#7.1") && carries("COFFERDAM_CHILD=/s/agents/a#7.probe"));
        let others = [
            "/s/agents/ab#7.1",
            "/s/agents/a#x/agents/b#7.1",
            "7.1",
            "/s/agents/a#",
            "/s/agents/a#7",
            "/s/agents/a#7.1.2",
        ];
        for other in others {
            assert!(!carries(&format!("COFFERDAM_CHILD={other}")), "{other}");
        }
    }

    #[test]
    fn a_name_with_blanks_and_brackets_hides_nothing() {
        let fields = "S 41 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 777 0";
        let stat = parse_stat(&format!("42 (a) R 1) ) {fields}")).unwrap();
        assert_eq!((stat.parent, stat.started, stat.is_kernel), (41, 777, false));
        assert!(parse_stat("42 (x) Z 1 1").is_none() && parse_stat("").is_none() && parse_stat("1 (x) S").is_none());
    }

    #[test]
    fn memory_is_that_of_the_whole_tree() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = left_over(dir.path(), "setsid sleep 600 & sleep 600 & echo ok; wait");
        let agent = |name| AgentName::parse(name).unwrap();
        let workers = [(agent("a"), tree.id()), (agent("gone"), u32::MAX)];
        let used = Sampler::new().unwrap().sample(&workers);
        assert_eq!(used[&agent("a")].processes, 3, "{used:?}");
        assert!(used[&agent("a")].rss_bytes > 500_000);
        assert_eq!(used[&agent("gone")].processes, 0);
        sweep_blocking(dir.path(), LEDGER);
        tree.wait().unwrap();
    }
}
