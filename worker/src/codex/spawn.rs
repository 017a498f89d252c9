//! The only place where the worker starts a process.
//!
//! Called on the main thread alone (the runtime has no other that spawns): the kernel ends a child when the *thread*
//! that started it ends, and the main thread is the process.

use protocol::envelope::Controllers;
use protocol::to_worker::Limits;
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use rustix::io::FdFlags;
use rustix::process::{Resource, Rlimit, Signal};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::{Child, Command};

/// Niceness of Codex children, so that the supervisor and its workers answer on a busy host.
pub const NICENESS: i32 = 10;

/// Everything about a process that is started.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Where it begins.
    pub workspace: PathBuf,
    /// The mask with which its files are made: the operator's, not ours.
    pub umask: Mode,
    /// Its part of the agent's limits.
    pub bounds: Bounds,
}

/// What one process is given of the agent's limits before it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Niceness above [`NICENESS`], or below.
    pub niceness: i32,
    /// Priority of its reads and writes, 0 to 7, the smaller the earlier; `None`: by its niceness.
    pub io_level: Option<u8>,
    /// Descriptors.
    pub open_files: Option<u64>,
    /// Bytes of a core file; `None`: as many as the worker may.
    pub core_size: Option<u64>,
    /// Bytes of a file.
    pub file_size: Option<u64>,
}

/// Weight of an ordinary share.
const WEIGHT: f64 = 100.0;

/// What a step of niceness changes a share by: the kernel's own factor.
const NICE_STEP: f64 = 1.25;

impl Bounds {
    /// What holds of `limits` without any help of cgroups. A weight becomes a priority only where no controller holds it.
    pub fn of(limits: &Limits, have: Controllers) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "both ends are clamped before")]
        let steps = |weight: u32, step: f64, most: f64| {
            ((WEIGHT / f64::from(weight.max(1))).ln() / step.ln()).round().clamp(-most, most) as i8
        };
        let io_level = limits.io_weight.filter(|_| !have.io).map(|weight| {
            // Level 4 is the ordinary one; a level is given for each factor of 2.
            u8::try_from(steps(weight, 2.0, 4.0).saturating_add(4).clamp(0, 7)).unwrap_or(4)
        });
        Self {
            niceness: limits.cpu_weight.filter(|_| !have.cpu).map_or(0, |weight| steps(weight, NICE_STEP, 10.0).into()),
            io_level,
            open_files: limits.open_files.map(u64::from),
            core_size: limits.core_size,
            file_size: limits.file_size,
        }
    }

    /// Takes effect in this process. Makes system calls alone: it runs between fork and exec. A bound above the one that
    /// is in force already is that one.
    fn settle(&self) {
        let niceness = NICENESS.saturating_add(self.niceness).clamp(0, 19);
        rustix::process::setpriority_process(None, niceness).ok();
        for (resource, bound) in
            [(Resource::Nofile, self.open_files), (Resource::Core, self.core_size), (Resource::Fsize, self.file_size)]
        {
            let Some(bound) = bound else { continue };
            let bound = rustix::process::getrlimit(resource).maximum.map_or(bound, |most| most.min(bound));
            rustix::process::setrlimit(resource, Rlimit { current: Some(bound), maximum: Some(bound) }).ok();
        }
        if let Some(level) = self.io_level {
            set_io_level(level);
        }
    }
}

/// Priority of this process' reads and writes within the class of ordinary ones.
fn set_io_level(level: u8) {
    const WHO_PROCESS: nix::libc::c_int = 1;
    const CLASS_BEST_EFFORT: nix::libc::c_int = 2 << 13;
    let priority = CLASS_BEST_EFFORT | nix::libc::c_int::from(level);
    #[expect(unsafe_code, reason = "there is no wrapper for ioprio_set")]
    // SAFETY: the call takes three numbers and touches no memory of ours.
    unsafe {
        nix::libc::syscall(nix::libc::SYS_ioprio_set, WHO_PROCESS, 0, priority)
    };
}

/// How a child is begun, beside its plan.
#[derive(Debug, Default)]
pub struct Door {
    /// A descriptor that the child keeps.
    kept: Option<OwnedFd>,
    /// What it writes itself to in order to be in its cgroup.
    group: Option<OwnedFd>,
}

impl Door {
    /// Into the group behind this descriptor, if there is one.
    pub fn into_group(group: Option<OwnedFd>) -> Self {
        Self { kept: None, group }
    }
}

/// Starts `plan` by itself.
pub fn plain(plan: &Plan, door: Door) -> io::Result<Child> {
    let mut command = command(&plan.program, plan, door);
    command.args(&plan.args).envs(plan.env.iter().map(|(k, v)| (k, v)));
    command.spawn()
}

/// Starts `plan` inside the namespace that `arguments` (see [`super::namespace::View`]) describe. The wrapper's own
/// environment holds nothing but `marker`: what is secret is in the arguments, which nobody else can read.
pub fn contained(
    plan: &Plan,
    door: Door,
    bwrap: &Path,
    arguments: &[u8],
    marker: &(String, String),
) -> io::Result<Child> {
    let arguments = memory_file(arguments)?;
    let number = arguments.as_raw_fd().to_string();
    let mut command = command(bwrap, plan, Door { kept: Some(arguments), ..door });
    command.arg("--args").arg(number).arg("--").arg(&plan.program).args(&plan.args);
    command.env(&marker.0, &marker.1);
    command.spawn()
}

/// A file in memory that holds `bytes`, closed in every child but the one that is told of it.
fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("arguments", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

/// What is added to the kernel's wish to end a Codex child when memory is short: it goes before its worker.
const OOM_SCORE_ADDED: i32 = 200;

/// The score of a child, as it is written.
fn oom_score() -> String {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
    own.unwrap_or(0_i32).saturating_add(OOM_SCORE_ADDED).min(1000).to_string()
}

#[expect(clippy::disallowed_methods, reason = "this is the place where processes are started")]
fn command(program: &Path, plan: &Plan, door: Door) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir(&plan.workspace).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let parent = rustix::process::getpid();
    let (umask, bounds, score) = (plan.umask, plan.bounds, oom_score());
    let Door { kept, group } = door;
    let prepare = move || {
        if let Some(group) = &group {
            rustix::io::write(group, b"0")?;
        }
        rustix::process::setsid()?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(parent) {
            // The worker died before the line above: nobody would end this child.
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
        }
        bounds.settle();
        if let Ok(file) = rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        {
            rustix::io::write(file, score.as_bytes()).ok();
        }
        rustix::process::umask(umask);
        if let Some(kept) = &kept {
            rustix::io::fcntl_setfd(kept.as_fd(), FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and makes system calls alone: no allocation, no lock.
    #[expect(unsafe_code, reason = "session, death signal and limits can be set nowhere else")]
    unsafe {
        command.pre_exec(prepare);
    }
    command
}
