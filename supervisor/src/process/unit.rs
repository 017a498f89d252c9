//! The systemd unit around us, seen from its `ExecStop` and `ExecStopPost`: why it stops, and its cgroup.
//!
//! ```text
//!  system.slice/cofferdam.service        the unit; systemd puts each new main process here
//!    |- cgroup.subtree_control           must be empty for that while workers live: else the start fails, 219/CGROUP
//!    |- .control                         whoever runs `ExecStopPost`: we
//!    '- anything else                    workers and what they started
//! ```
//! With a controller enabled the kernel takes no process into the unit's own group, and systemd does not clear one that
//! still holds processes. So `ExecStopPost` turns the controllers off, from the leaves up, and the next supervisor turns them
//! on again.

use super::signal::Handle;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, thread};

/// Where cgroup v2 is: alone, or beside v1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The group in which systemd runs `ExecStopPost` of a delegated unit.
const CONTROL: &str = ".control";

/// How deep groups are looked for: a worker's own and what a tool may make below it, and no path without end.
const DEPTH_MAX: usize = 16;

/// Pauses between two looks at what is left, in milliseconds: five seconds in all, more than the kernel takes to end a
/// thousand processes of a busy host.
const PAUSES_MS: [u64; 9] = [1, 5, 20, 50, 100, 300, 1000, 1500, 2000];

/// Why a unit stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// To stay stopped.
    Stop,
    /// To start again.
    Again,
}

/// The unit's job in what `systemctl list-jobs --no-legend` prints: number, unit, type, state. None: nobody asked for
/// anything, it ended by itself.
pub fn job(listing: &str, unit: &str) -> Option<Job> {
    let rows = listing.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let kind = rows.filter(|words| words.get(1) == Some(&unit)).find_map(|words| words.get(2).copied())?;
    Some(if kind == "stop" { Job::Stop } else { Job::Again })
}

/// A cgroup.
#[derive(Clone, Debug)]
pub struct Group {
    dir: PathBuf,
}

/// Why a unit's cgroup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Not below systemd, or not in this unit.
    #[error("this process is in the cgroup {found:?}, which is not that of {unit}: only the unit itself may call this")]
    NotOurs {
        /// What was found.
        found: String,
        /// What was wanted.
        unit: String,
    },
    /// A file of it cannot be read or written.
    #[error("{} cannot be used", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// Processes that do not end.
    #[error("{left} processes do not end")]
    Left {
        /// How many.
        left: usize,
    },
}

impl Group {
    /// The group of the unit that this process belongs to.
    ///
    /// # Errors
    /// When this process is in no such unit: what is done to the group is not to be done to a stranger's.
    pub fn of_unit(unit: &str) -> Result<Self, GroupError> {
        let file = PathBuf::from("/proc/self/cgroup");
        let text = fs::read_to_string(&file).map_err(|e| GroupError::File(file, e))?;
        let path = unit_path(&text, unit)
            .ok_or_else(|| GroupError::NotOurs { found: text.trim().to_owned(), unit: unit.to_owned() })?;
        let mount = MOUNTS.iter().find(|mount| Path::new(mount).join("cgroup.controllers").exists());
        Ok(Self { dir: Path::new(mount.unwrap_or(&MOUNTS[0])).join(path.trim_start_matches('/')) })
    }

    /// Turns every controller off, here and below, from the leaves up.
    ///
    /// # Errors
    /// The first that does not let itself be turned off; the rest are turned off all the same.
    pub fn release(&self) -> Result<(), GroupError> {
        let mut first = Ok(());
        for dir in self.all().into_iter().rev() {
            let file = dir.join("cgroup.subtree_control");
            let released = fs::read_to_string(&file).and_then(|on| match minus(&on) {
                Some(words) => fs::write(&file, words),
                None => Ok(()),
            });
            match released {
                // A group that went away meanwhile has no controllers either.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if first.is_ok() => first = Err(GroupError::File(file, error)),
                Err(_) | Ok(()) => {}
            }
        }
        first
    }

    /// Ends every process here and below but those of the unit's own commands; returns how many there were.
    ///
    /// # Errors
    /// When some do not end.
    pub fn end(&self) -> Result<usize, GroupError> {
        let mut ended = BTreeSet::new();
        let mut left = self.processes();
        for pause in PAUSES_MS {
            if left.is_empty() {
                return Ok(ended.len());
            }
            for pid in &left {
                // Looked at again after the pidfd was opened: the number may be somebody else's by now.
                if let Ok(handle) = Handle::open(*pid)
                    && self.processes().contains(pid)
                    && handle.kill().is_ok_and(|hit| hit)
                {
                    ended.insert(*pid);
                }
            }
            thread::sleep(Duration::from_millis(pause));
            left = self.processes();
        }
        if left.is_empty() { Ok(ended.len()) } else { Err(GroupError::Left { left: left.len() }) }
    }

    fn processes(&self) -> BTreeSet<u32> {
        let lists = self.all().into_iter().filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
        lists.flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
    }

    /// This group and all below, parents first, without that of the unit's own commands.
    fn all(&self) -> Vec<PathBuf> {
        let mut found = vec![self.dir.clone()];
        let mut level = vec![self.dir.clone()];
        for _ in 0..DEPTH_MAX {
            let below = level.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
            let folders = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            level = folders.filter(|entry| entry.file_name() != CONTROL).map(|entry| entry.path()).collect();
            found.extend_from_slice(&level);
        }
        found
    }
}

/// The unit's path in the text of `/proc/self/cgroup`: its own group, or the parent of a `.control` in it.
fn unit_path<'a>(text: &'a str, unit: &str) -> Option<&'a str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let path = path.strip_suffix(CONTROL).map_or(path, |parent| parent.trim_end_matches('/'));
    (!unit.is_empty() && path.rsplit('/').next() == Some(unit)).then_some(path)
}

/// What turns these controllers off.
fn minus(controllers: &str) -> Option<String> {
    let words: Vec<_> = controllers.split_whitespace().map(|name| format!("-{name}")).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_of_the_unit_and_no_other_counts() {
        let listing = "  7 cofferdam-b.service start   running\n 12 cofferdam.service   stop    running\n";
        assert_eq!(job(listing, "cofferdam.service"), Some(Job::Stop));
        assert_eq!(job(listing, "cofferdam-b.service"), Some(Job::Again));
        for kind in ["restart", "try-restart", "start", "something-new"] {
            assert_eq!(job(&format!("1 c.service {kind} running"), "c.service"), Some(Job::Again), "{kind}");
        }
        assert_eq!(job(listing, "other.service"), None);
        assert_eq!(job("", "c.service"), None);
        assert_eq!(job("No jobs running.\n", "c.service"), None);
        assert_eq!(job("1 c.service\nstop", "c.service"), None);
    }

    #[test]
    fn only_the_units_own_group_is_touched() {
        let path = |text, unit| unit_path(text, unit);
        let unit = "c.service";
        assert_eq!(
            path("1:name=systemd:/x\n0::/system.slice/c.service/.control\n", unit),
            Some("/system.slice/c.service")
        );
        assert_eq!(path("0::/system.slice/c.service", unit), Some("/system.slice/c.service"));
        for other in ["0::/", "0::/system.slice/cc.service", "0::/c.service/worker", "4:memory:/c.service", ""] {
            assert_eq!(path(other, unit), None, "{other}");
        }
        assert_eq!(path("0::/", ""), None);
        assert!(matches!(Group::of_unit("no-such.service"), Err(GroupError::NotOurs { .. })));
    }

    #[test]
    fn controllers_go_off_from_the_leaves_up_but_not_our_own() {
        let root = tempfile::tempdir().unwrap();
        let file = |dir: &str| root.path().join(dir).join("cgroup.subtree_control");
        for (dir, on) in
            [("", "cpu memory pids\n"), ("workers", "memory\n"), ("workers/a", "\n"), (CONTROL, "memory\n")]
        {
            fs::create_dir_all(root.path().join(dir)).unwrap();
            fs::write(file(dir), on).unwrap();
        }
        let group = Group { dir: root.path().to_owned() };
        let order: Vec<_> = group.all().into_iter().map(|d| d.strip_prefix(root.path()).unwrap().to_owned()).collect();
        assert_eq!(order, ["", "workers", "workers/a"].map(PathBuf::from));
        group.release().unwrap();
        let now = |dir: &str| fs::read_to_string(file(dir)).unwrap();
        assert_eq!((now("").as_str(), now("workers").as_str()), ("-cpu -memory -pids", "-memory"));
        assert_eq!((now("workers/a").as_str(), now(CONTROL).as_str()), ("\n", "memory\n"));
    }

    #[test]
    fn what_is_listed_in_the_group_is_ended() {
        let root = tempfile::tempdir().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a stand-in for a worker that was left")]
        let mut left = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let list = root.path().join("workers/a");
        fs::create_dir_all(&list).unwrap();
        fs::write(list.join("cgroup.procs"), format!("{}\n", left.id())).unwrap();
        let group = Group { dir: root.path().to_owned() };
        let ending = thread::spawn(move || group.end());
        left.wait().unwrap();
        // The kernel's list would be empty by itself.
        fs::write(list.join("cgroup.procs"), "").unwrap();
        assert_eq!(ending.join().unwrap().unwrap(), 1);
        let group = Group { dir: root.path().to_owned() };
        assert_eq!(group.end().unwrap(), 0);
    }
}
