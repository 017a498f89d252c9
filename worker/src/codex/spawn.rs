//! The only place where the worker starts a process.
//!
//! Called on the main thread alone (the runtime has no other that spawns): the kernel ends a child when the *thread*
//! that started it ends, and the main thread is the process.

use rustix::fs::{MemfdFlags, Mode, memfd_create};
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
}

/// Starts `plan` by itself.
pub fn plain(plan: &Plan) -> io::Result<Child> {
    let mut command = command(&plan.program, &plan.workspace, plan.umask, None);
    command.args(&plan.args).envs(plan.env.iter().map(|(k, v)| (k, v)));
    command.spawn()
}

/// Starts `plan` inside the namespace that `arguments` (see [`super::namespace::View`]) describe. The wrapper's own
/// environment holds nothing but `marker`: what is secret is in the arguments, which nobody else can read.
pub fn contained(plan: &Plan, bwrap: &Path, arguments: &[u8], marker: &(String, String)) -> io::Result<Child> {
    let arguments = memory_file(arguments)?;
    let number = arguments.as_raw_fd().to_string();
    let mut command = command(bwrap, &plan.workspace, plan.umask, Some(arguments));
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

#[expect(clippy::disallowed_methods, reason = "this is the place where processes are started")]
fn command(program: &Path, workspace: &Path, umask: Mode, kept: Option<OwnedFd>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir(workspace).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let parent = rustix::process::getpid();
    let prepare = move || {
        rustix::process::setsid()?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(parent) {
            // The worker died before the line above: nobody would end this child.
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
        }
        rustix::process::setpriority_process(None, NICENESS).ok();
        rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).ok();
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
