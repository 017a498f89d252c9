//! A cgroup for each Codex child, below the one that the supervisor made for this agent.
//!
//! ```text
//!   AGENT            limits, written by the supervisor
//!     |- worker      this process, see `enter`
//!     '- child-N     one Codex child and all that it starts: born inside, killed as one, removed when empty
//! ```
//! A child is born inside: it writes itself there between fork and exec, so that nothing of it was ever outside.

use crate::machine::io::ChildId;
use crate::sweep;
use protocol::envelope::{Controllers, WORKER_GROUP};
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Deepest group below a child's that is looked into: a tool that divides its own group goes no deeper.
const DEPTH_MAX: usize = 16;

/// The agent's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group(PathBuf);

impl Group {
    /// Puts this process into its leaf of the agent's group.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(agent: &Path) -> io::Result<Self> {
        fs::write(agent.join(WORKER_GROUP).join("cgroup.procs"), "0")?;
        Ok(Self(agent.to_owned()))
    }

    /// Makes the group of a child.
    pub(super) fn leaf(&self, id: ChildId) -> io::Result<Leaf> {
        let dir = self.0.join(format!("child-{}", id.0));
        fs::create_dir(&dir)?;
        // Of a child that has used up the agent's memory nothing shall go on by itself. Absent without the controller.
        drop(fs::write(dir.join("memory.oom.group"), "1"));
        Ok(Leaf(dir))
    }

    /// What the kernel holds for this agent: a controller is there if its files are.
    pub(super) fn controllers(&self) -> Controllers {
        let has = |file: &str| self.0.join(file).exists();
        Controllers { memory: has("memory.max"), pids: has("pids.max"), cpu: has("cpu.max"), io: has("io.weight") }
    }

    /// How often a process could not be started because of `pids.max`.
    pub(super) fn forks_refused(&self) -> u64 {
        count(&self.0.join("pids.events"), "max ")
    }

    /// Where cgroup v2 is mounted, as far as this group tells: what a child may read there but not write.
    pub(super) fn mount(&self) -> Option<PathBuf> {
        let is_group = |path: &&Path| path.join("cgroup.procs").exists();
        self.0.ancestors().take_while(is_group).last().map(Path::to_owned)
    }
}

/// The group of one child.
#[derive(Debug)]
pub(super) struct Leaf(PathBuf);

impl Leaf {
    /// What a process writes `0` to in order to be in it.
    pub(super) fn door(&self) -> io::Result<OwnedFd> {
        Ok(rustix::fs::open(self.0.join("cgroup.procs"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Ends everything in it.
    pub(super) fn kill(&self) {
        if fs::write(self.0.join("cgroup.kill"), "1").is_err() {
            // A kernel before 5.14.
            self.members().into_iter().for_each(sweep::kill);
        }
    }

    /// Whether anything lives in it.
    pub(super) fn is_populated(&self) -> bool {
        count(&self.0.join("cgroup.events"), "populated ") > 0
    }

    /// Whether the kernel ended something in it for its use of memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        count(&self.0.join("memory.events"), "oom_kill ") > 0
    }

    /// Every process in it.
    pub(super) fn members(&self) -> Vec<u32> {
        members(&self.0, 0)
    }

    /// Removes it, once it is empty.
    pub(super) fn remove(&self) {
        remove(&self.0, 0);
    }
}

fn count(file: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}

fn members(group: &Path, depth: usize) -> Vec<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    pids.extend(below(group, depth).iter().flat_map(|inner| members(inner, depth + 1)));
    pids
}

fn remove(group: &Path, depth: usize) {
    for inner in below(group, depth) {
        remove(&inner, depth + 1);
    }
    // One that is not empty stays; the supervisor's sweep finds it.
    drop(fs::remove_dir(group));
}

fn below(group: &Path, depth: usize) -> Vec<PathBuf> {
    if depth >= DEPTH_MAX {
        return Vec::new();
    }
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}
