//! What a tree of processes uses at this moment, read from `/proc`: memory, processes, processor time, bytes moved.
//!
//! ```text
//!   pid --- /proc/PID/task/*/children, down to the leaves --- status, stat, io of each --- one sum
//! ```
//! It decides nothing. Processes come and go while they are counted: one that has gone counts as nothing.

use crate::sweep;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a tree of processes uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory that is the tree's own, in bytes: anonymous and shared pages, not the program files that are mapped. Pages
    /// that two processes share count for both.
    pub rss_bytes: u64,
    /// Processes and threads, as `pids.max` of a cgroup counts them.
    pub processes: u32,
    /// Processor time since each process began, with that of children that were waited for, in milliseconds. Falls when a
    /// process of the tree ends and nobody of the tree has waited for it.
    pub cpu_ms: u64,
    /// Bytes read and written through system calls, pipes and sockets included, counted like the time.
    pub io_bytes: u64,
}

/// One process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// What it uses.
    pub usage: Usage,
    /// The kernel's letter: `R`, `S`, `D`, `T` stopped, `t` traced, `Z` dead.
    pub state: char,
}

/// Processes that are looked at in one tree. A larger tree has passed every bound that can be configured for memory or
/// is a fork bomb; the rest is counted without a look.
const LOOKED_AT_MAX: usize = 2000;

/// Ticks of processor time in a second: `USER_HZ`, the same on every Linux that Rust runs on.
const TICKS_PER_S: u64 = 100;

/// What `pid` and all below it use.
pub fn of_tree(pid: u32) -> Usage {
    of(&sweep::tree_of(pid))
}

/// What these processes use together.
pub fn of(pids: &[u32]) -> Usage {
    let mut sum = Usage::default();
    for pid in pids.iter().take(LOOKED_AT_MAX) {
        sum.add(of_process(*pid).map_or_else(Usage::default, |process| process.usage));
    }
    let rest = u32::try_from(pids.len().saturating_sub(LOOKED_AT_MAX)).unwrap_or(u32::MAX);
    sum.processes = sum.processes.saturating_add(rest);
    sum
}

impl Usage {
    /// Adds what others use.
    pub fn add(&mut self, other: Self) {
        self.rss_bytes = self.rss_bytes.saturating_add(other.rss_bytes);
        self.processes = self.processes.saturating_add(other.processes);
        self.cpu_ms = self.cpu_ms.saturating_add(other.cpu_ms);
        self.io_bytes = self.io_bytes.saturating_add(other.io_bytes);
    }
}

/// Files and folders that are looked at below one folder; the rest counts as nothing.
const ENTRIES_MAX: usize = 500_000;

/// Bytes that a folder holds on disk, as `du` counts them, without what other file systems hold. Blocks: a tenth of a
/// second for 100,000 files.
pub fn of_folder(dir: &Path) -> u64 {
    let Ok(device) = fs::symlink_metadata(dir).map(|data| data.dev()) else { return 0 };
    let (mut bytes, mut entries, mut folders) = (0_u64, 0, vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            entries += 1;
            let Ok(data) = entry.metadata() else { continue };
            // A file with several names counts for each: what is told is a warning, not a bill.
            bytes = bytes.saturating_add(data.blocks().saturating_mul(512));
            if data.is_dir() && data.dev() == device {
                folders.push(entry.path());
            }
            if entries >= ENTRIES_MAX {
                return bytes;
            }
        }
    }
    bytes
}

/// Looks at one process; `None` if there is none. Bytes that may not be read are 0.
pub fn of_process(pid: u32) -> Option<Process> {
    let (stat, status) = (read(pid, "stat"), read(pid, "status"));
    let state = fields(&stat)?.first()?.chars().next()?;
    let kib = |name: &str| number(&status, name).unwrap_or(0);
    let io = read(pid, "io");
    let bytes = |name: &str| number(&io, name).unwrap_or(0);
    let usage = Usage {
        rss_bytes: kib("RssAnon:").saturating_add(kib("RssShmem:")).saturating_mul(1024),
        processes: number(&status, "Threads:").and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
        cpu_ms: cpu_ms(&stat),
        io_bytes: bytes("rchar:").saturating_add(bytes("wchar:")),
    };
    Some(Process { usage, state })
}

fn read(pid: u32, file: &str) -> String {
    // A name of a process may hold any byte.
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()).into_owned()
}

/// The number behind a name at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// The fields of `/proc/PID/stat` behind the name, which may itself hold blanks and brackets.
fn fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(") ")?.1.split_whitespace().collect())
}

/// User and system time, with that of children that were waited for.
fn cpu_ms(stat: &str) -> u64 {
    let fields = fields(stat).unwrap_or_default();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    (11..=14).map(ticks).fold(0, u64::saturating_add).saturating_mul(1000 / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something_and_a_missing_one_nothing() {
        let held = vec![7_u8; 16 << 20];
        let used = of_tree(std::process::id());
        assert!(used.rss_bytes > 16 << 20 && used.processes >= 1 && used.io_bytes > 0, "{used:?}");
        assert_eq!(held.len(), 16 << 20);
        assert_eq!(of(&[u32::MAX]), Usage::default());
    }

    #[test]
    fn a_name_with_brackets_hides_no_time() {
        let stat = "42 (a) R 1) ) S 41 1 1 0 -1 4194560 0 0 0 0 7 5 0 0 20 0 1 0 777 0";
        assert_eq!(cpu_ms(stat), 120);
        assert_eq!((cpu_ms(""), cpu_ms("1 (x) S")), (0, 0));
    }

    #[test]
    fn a_folder_counts_what_is_below_it_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        for folder in [&inside.join("deep"), &outside] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("file"), vec![1; 1 << 20]).unwrap();
        }
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let bytes = of_folder(&inside);
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
        assert_eq!(of_folder(&dir.path().join("none")), 0);
    }

    #[test]
    fn a_tree_too_large_to_look_at_is_counted() {
        let pids = vec![u32::MAX; LOOKED_AT_MAX + 5];
        assert_eq!(of(&pids).processes, 5);
    }
}
