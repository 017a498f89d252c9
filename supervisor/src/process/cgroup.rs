//! A cgroup for each worker and its descendants, where cgroup v2 is ours to divide.
//!
//! ```text
//!   BASE                      our own group, or the configured one
//!     |- supervisor           we, if BASE has controllers to hand down: a group with such holds no process itself
//!     '- cofferdam-STATE      one for each state_dir
//!          '- AGENT           limits are written here: memory.max, pids.max, ...
//!               |- worker     the worker puts itself there
//!               '- child-N    one for each Codex child, made and removed by the worker
//! ```
//! `cgroup.kill` ends everything below a group at once, `setsid` and double forks included; `populated 0` is the proof.
//! Where an agent's group is lies beside its folder (in it the agent's own user could write), so that the sweep after a dead worker finds it whoever started it.

use super::folder::{self, Owner};
use protocol::AgentName;
use protocol::envelope::{Controllers, WORKER_GROUP};
use protocol::to_worker::Limits;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ending of the file beside the agent's folder that names its group.
pub const RECORD_ENDING: &str = "cgroup";

/// Group of the supervisor itself where its first one has to be left.
const OURS: &str = "supervisor";

/// Controllers that are handed down.
const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "io"];

/// Groups that a worker and its Codex children may make below an agent's: an app-server and 64 turns, with room for
/// tools that divide their own.
const DESCENDANTS_MAX: &str = "256";

/// Deepest group that is looked into at the end: a tool that divides its own group goes no deeper.
const DEPTH_MAX: usize = 16;

/// Pauses between two looks at a group that is being killed, in milliseconds; together 2 s.
const PAUSES_MS: [u64; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 400, 500, 589];

/// The period in which `cpu_max` is granted, in microseconds: the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;

/// Where groups are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Below our own, if it is ours to divide.
    Auto,
    /// Nowhere.
    Never,
    /// Below this folder.
    At(PathBuf),
}

/// Why there are no groups. The words name the remedy.
#[derive(Debug, thiserror::Error)]
pub enum NoGroups {
    /// The operator wants none.
    #[error("the configuration says `cgroup = \"none\"`")]
    Unwanted,
    /// There is no cgroup v2.
    #[error("no cgroup v2 is mounted; boot with systemd.unified_cgroup_hierarchy=1")]
    NotMounted,
    /// It belongs to systemd.
    #[error("{} is not delegated to us; run under a unit with Delegate=yes", .0.display())]
    NotDelegated(PathBuf),
    /// It cannot be written.
    #[error("{} cannot be divided; run under a unit with Delegate=yes, or set `cgroup`", .0.display())]
    NotWritable(PathBuf, #[source] io::Error),
    /// The configured folder is none of cgroup v2.
    #[error("{} is no folder of cgroup v2", .0.display())]
    NotCgroup(PathBuf),
}

/// The groups of one supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    base: PathBuf,
    root: PathBuf,
}

impl Groups {
    /// Looks for a place, changes nothing.
    ///
    /// # Errors
    /// See [`NoGroups`].
    pub fn find(wish: &Wish, state_dir: &Path) -> Result<Self, NoGroups> {
        let base = match wish {
            Wish::Never => return Err(NoGroups::Unwanted),
            Wish::At(path) if path.join("cgroup.procs").exists() => path.clone(),
            Wish::At(path) => return Err(NoGroups::NotCgroup(path.clone())),
            Wish::Auto => own_group()?,
        };
        if let Err(error) = rustix::fs::access(&base, rustix::fs::Access::WRITE_OK) {
            return Err(NoGroups::NotWritable(base, error.into()));
        }
        let root = base.join(root_name(state_dir));
        Ok(Self { base, root })
    }

    /// The folder below which all agents' groups are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The group of an agent.
    pub fn of(&self, agent: &AgentName) -> PathBuf {
        self.root.join(agent.as_str())
    }

    /// Makes the root and hands down what controllers there are. What is missing is told by [`Groups::controllers`].
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn prepare(&self) -> Result<(), NoGroups> {
        let failed = |error| NoGroups::NotWritable(self.base.clone(), error);
        make(&self.root).map_err(failed)?;
        if !available(&self.base).is_empty() && holds_us(&self.base) && !is_top(&self.base) {
            let ours = self.base.join(OURS);
            make(&ours).and_then(|()| fs::write(ours.join("cgroup.procs"), "0")).map_err(failed)?;
        }
        hand_down(&self.base);
        hand_down(&self.root);
        Ok(())
    }

    /// Makes an agent's group for a worker that is about to start. Its `owner` may divide it, not change its limits.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(&self, agent: &AgentName, owner: Option<Owner>) -> io::Result<PathBuf> {
        let group = self.of(agent);
        make(&self.root)?;
        make(&group)?;
        hand_down(&group);
        make(&group.join(WORKER_GROUP))?;
        // An older kernel does not know it; it is a second net.
        drop(fs::write(group.join("cgroup.max.descendants"), DESCENDANTS_MAX));
        folder::give(&[&group, &group.join("cgroup.procs")], owner)?;
        Ok(group)
    }

    /// Writes an agent's limits where there are controllers for them. Returns what the kernel did not take.
    pub fn limit(&self, agent: &AgentName, limits: &Limits) -> Vec<String> {
        let group = self.of(agent);
        // Below a worker that outlived its supervisor the controllers were taken back, and with them went what the worker had
        // said of its children: that each of them dies as a whole.
        if group.exists() {
            hand_down(&group);
            for child in below(&group, 0).iter().filter(|child| !child.ends_with(WORKER_GROUP)) {
                drop(fs::write(child.join("memory.oom.group"), "1"));
            }
        }
        let number = |value: Option<u64>| value.map_or_else(|| "max".to_owned(), |n| n.to_string());
        let weight = |value: Option<u32>| value.unwrap_or(100).to_string();
        let quota = limits.cpu_max.map(|percent| u64::from(percent) * CPU_PERIOD_US / 100);
        let files = [
            ("memory.max", number(limits.memory_max)),
            ("memory.high", number(limits.memory_high)),
            ("pids.max", number(limits.pids_max.map(u64::from))),
            ("cpu.weight", weight(limits.cpu_weight)),
            ("cpu.max", format!("{} {CPU_PERIOD_US}", number(quota))),
            ("io.weight", format!("default {}", weight(limits.io_weight))),
        ];
        let there = files.into_iter().filter(|(file, _)| group.join(file).exists());
        there
            .filter_map(|(file, value)| {
                let error = fs::write(group.join(file), &value).err()?;
                Some(format!("{file} of {} does not take {value:?}: {error}", group.display()))
            })
            .collect()
    }

    /// The controllers that agents' groups have, or would have.
    pub fn controllers(&self) -> Controllers {
        let names = if self.root.exists() { available(&self.root) } else { available(&self.base) };
        let has = |name: &str| names.iter().any(|have| have == name);
        Controllers { memory: has("memory"), pids: has("pids"), cpu: has("cpu"), io: has("io") }
    }

    /// We leave, and workers may stay. Removes the root if no agent's group is left, and takes the controllers back, bottom
    /// up, if our first group was left for them: systemd starts our successor in that group, which it can only while it
    /// hands nothing down. Until then the workers' own looks hold memory and processes.
    pub fn leave(&self) {
        if holds_us(&self.base.join(OURS)) {
            self.take_back();
        }
        // One that is not empty is in use.
        drop(fs::remove_dir(&self.root));
    }

    fn take_back(&self) {
        let agents = below(&self.root, 0);
        for group in agents.iter().chain([&self.root, &self.base]) {
            for name in CONTROLLERS {
                // One that was not handed down is not taken back.
                drop(fs::write(group.join("cgroup.subtree_control"), format!("-{name}")));
            }
        }
    }
}

/// Notes beside an agent's folder where its group is.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn record(agent_dir: &Path, group: Option<&Path>) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = agent_dir.with_extension(RECORD_ENDING);
    let Some(group) = group else {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
    };
    let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(group.as_os_str().as_encoded_bytes())
}

/// The group that was noted for an agent. A note that names another agent's group is no note: whoever could write into
/// the folder could otherwise end a neighbour.
fn recorded(agent_dir: &Path) -> Option<PathBuf> {
    let group = PathBuf::from(fs::read_to_string(agent_dir.with_extension(RECORD_ENDING)).ok()?);
    let state_dir = agent_dir.parent()?.parent()?;
    let ours = Path::new(&root_name(state_dir)).join(agent_dir.file_name()?);
    let plain = group.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    (plain && group.is_absolute() && group.ends_with(ours) && group.join("cgroup.procs").exists()).then_some(group)
}

/// What the end of an agent's group came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// Processes that were in it.
    pub(super) ended: usize,
    /// Processes that are still in it.
    pub(super) left: usize,
}

/// Ends everything in the group of an agent and removes it. Blocks for at most 2 s.
pub(super) fn end(agent_dir: &Path) -> Ended {
    let Some(group) = recorded(agent_dir) else { return Ended::default() };
    let ended = members(&group, 0).len();
    kill_and_remove(&group);
    let left = members(&group, 0).len();
    Ended { ended: ended.saturating_sub(left), left }
}

/// Ends and removes all that a supervisor of this state has left in cgroups: when its state goes for good. Blocks for at most
/// 2 s.
pub fn remove_all(state_dir: &Path) {
    if let Ok(groups) = Groups::find(&Wish::Auto, state_dir) {
        kill_and_remove(&groups.root);
    }
}

fn kill_and_remove(group: &Path) {
    for pause in PAUSES_MS {
        kill(group);
        if !is_populated(group) {
            break;
        }
        std::thread::sleep(Duration::from_millis(pause));
    }
    remove(group, 0);
}

fn kill(group: &Path) {
    if fs::write(group.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    // A kernel before 5.14.
    for pid in members(group, 0) {
        if let Ok(handle) = super::signal::Handle::open(pid)
            && members(group, 0).contains(&pid)
        {
            drop(handle.kill());
        }
    }
}

fn is_populated(group: &Path) -> bool {
    fs::read_to_string(group.join("cgroup.events")).is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
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
    // One that is not empty stays, and the count of what is left tells it.
    drop(fs::remove_dir(group));
}

fn below(group: &Path, depth: usize) -> Vec<PathBuf> {
    if depth >= DEPTH_MAX {
        return Vec::new();
    }
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn make(group: &Path) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The controllers that a group may hand down.
fn available(group: &Path) -> Vec<String> {
    let text = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Hands down each controller that there is. One that is refused (processes in the group, no such scheduler) is missing
/// below, and that is what is looked at.
fn hand_down(group: &Path) {
    let there = available(group);
    for name in CONTROLLERS.iter().filter(|name| there.iter().any(|have| have == *name)) {
        drop(fs::write(group.join("cgroup.subtree_control"), format!("+{name}")));
    }
}

fn holds_us(group: &Path) -> bool {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().any(|line| line.parse() == Ok(std::process::id()))
}

/// The top of the tree, for which the rule about processes does not hold: it has no such file.
fn is_top(group: &Path) -> bool {
    !group.join("cgroup.type").exists()
}

/// Our own group, if it is ours to divide.
fn own_group() -> Result<PathBuf, NoGroups> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = place(&table, &own).ok_or(NoGroups::NotMounted)?;
    // A supervisor that runs in the leaf which an earlier one made for itself means the group around it.
    let leaf = group.file_name() == Some(OsStr::new(OURS));
    let group = group.parent().filter(|_| leaf).map_or_else(|| group.clone(), Path::to_owned);
    let managed = Path::new("/run/systemd/system").exists() && rustix::process::geteuid().is_root();
    // Root could write everywhere, also where systemd is the only one who may.
    if managed && !is_delegated(&group) {
        return Err(NoGroups::NotDelegated(group));
    }
    Ok(group)
}

/// Whether systemd has marked the group as somebody's own.
fn is_delegated(group: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0_u8; 8];
        rustix::fs::getxattr(group, *name, &mut value[..])
            .is_ok_and(|length| length == 1 && value.first() == Some(&b'1'))
    })
}

/// The folder of the group of a process: by the table of mounts and the process' own line.
fn place(mounts: &str, own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (root, point) = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        right.starts_with("cgroup2 ").then(|| Some((left.next()?, left.next()?)))?
    })?;
    let inside = path.strip_prefix(root.trim_end_matches('/'))?;
    Some(Path::new(point).join(inside.trim_start_matches('/')))
}

/// The name of the root for one state: two supervisors on a host never share groups.
fn root_name(state_dir: &Path) -> String {
    let whole = state_dir.canonicalize().unwrap_or_else(|_| state_dir.to_owned());
    // FNV-1a: the same in every release, because a running worker's group is found by it.
    let hash = whole
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("cofferdam-{hash:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Stdio};

    #[test]
    fn the_own_group_is_found_by_the_mount_and_the_line() {
        let mounts = "24 1 0:1 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw\n\
                      25 24 0:2 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n";
        let at = |own| place(mounts, own).map(|path| path.display().to_string());
        assert_eq!(at("4:memory:/x\n0::/a/b\n").as_deref(), Some("/sys/fs/cgroup/unified/a/b"));
        assert_eq!(at("0::/\n").as_deref(), Some("/sys/fs/cgroup/unified/"));
        assert_eq!((at("4:memory:/x\n"), place("", "0::/")), (None, None));
        let inner = "9 8 0:2 /pod/c /sys/fs/cgroup rw - cgroup2 cgroup rw";
        assert_eq!(place(inner, "0::/pod/c/d"), Some("/sys/fs/cgroup/d".into()));
        assert_eq!(place(inner, "0::/other"), None);
    }

    #[test]
    fn a_note_that_names_a_neighbour_is_no_note() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, fake) = (dir.path().join("agents/a"), dir.path().join("x").join(root_name(dir.path())));
        for folder in [&ours, &fake.join("a"), &fake.join("b")] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("cgroup.procs"), "").unwrap();
        }
        for (named, good) in [("a", true), ("b", false), ("b/../a", false), ("", false)] {
            record(&ours, Some(&fake.join(named))).unwrap();
            assert_eq!(recorded(&ours).is_some(), good, "{named}");
        }
        record(&ours, None).unwrap();
        record(&ours, None).unwrap();
        assert_eq!((recorded(&ours), end(&ours)), (None, Ended::default()));
    }

    #[expect(clippy::disallowed_methods, reason = "a stand-in for what a worker leaves")]
    fn within(group: &Path, script: &str) -> Child {
        let script = format!("echo 0 > {}/cgroup.procs; {script}", group.display());
        let mut command = std::process::Command::new("bash");
        let mut child = command.args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 3];
        std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut said).unwrap();
        child
    }

    /// Needs a host where cgroup v2 can be divided; elsewhere it proves that the supervisor says so.
    #[test]
    fn a_group_is_ended_and_removed_with_all_that_left_its_parents() {
        let state = tempfile::tempdir().unwrap();
        let agent_dir = state.path().join("agents/a");
        fs::create_dir_all(&agent_dir).unwrap();
        let groups = match Groups::find(&Wish::Auto, state.path()) {
            Ok(groups) => groups,
            Err(why) => {
                assert!(!why.to_string().is_empty());
                return;
            }
        };
        groups.prepare().unwrap();
        let group = groups.make(&AgentName::parse("a").unwrap(), None).unwrap();
        record(&agent_dir, Some(&group)).unwrap();
        let inner = group.join("child-1");
        fs::create_dir(&inner).unwrap();
        let mut child = within(
            &inner,
            "(env -i setsid sleep 600 &) ; (nohup setsid sleep 600 >/dev/null &) ; echo ok; wait; sleep 600",
        );
        let ended = end(&agent_dir);
        assert!(ended.ended >= 1 && ended.left == 0, "{ended:?}");
        assert!(!child.wait().unwrap().success());
        assert!(!group.exists());
        groups.leave();
        assert!(!groups.root().exists());
    }

    #[test]
    fn controllers_are_taken_back_from_the_bottom_up() {
        let dir = tempfile::tempdir().unwrap();
        let (base, root) = (dir.path().to_owned(), dir.path().join("cofferdam-x"));
        let groups = Groups { base: base.clone(), root: root.clone() };
        fs::create_dir_all(root.join("a/child-1")).unwrap();
        groups.take_back();
        let order: Vec<_> = [root.join("a"), root, base]
            .map(|group| fs::metadata(group.join("cgroup.subtree_control")).unwrap().modified().unwrap())
            .into();
        assert!(order.is_sorted(), "{order:?}");
        assert!(!groups.root.join("a/child-1/cgroup.subtree_control").exists());
        // A group that is not ours to give back is left as it is.
        assert!(!holds_us(&groups.base.join(OURS)));
    }

    #[test]
    fn what_is_wanted_nowhere_or_at_no_group_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Groups::find(&Wish::Never, dir.path()), Err(NoGroups::Unwanted)));
        let at = Wish::At(dir.path().to_owned());
        assert!(matches!(Groups::find(&at, dir.path()), Err(NoGroups::NotCgroup(_))));
    }
}
