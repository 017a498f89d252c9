//! Starts processes. The only `Command::new` of the supervisor.
//!
//! A worker is started without any `pre_exec`, so that the standard library takes the fast path (`posix_spawn`): a third
//! of a millisecond whatever the size of our heap. What a worker needs beyond that (a session, limits, the lock, a
//! cgroup) it does itself.

use super::cgroup;
use super::exit;
use super::folder::{Folder, Owner, name};
use super::signal::Handle;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use protocol::{AgentName, Incarnation};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStdout, Command};

/// Name of the worker binary, beside ours unless the configuration says otherwise.
pub const WORKER_PROGRAM: &str = "cofferdam-worker";

/// Size above which a worker's stderr file begins anew at the next start, in bytes. A worker that works writes nothing
/// there; what it holds is the words of a crash.
pub const STDERR_BYTES_MAX: u64 = 1024 * 1024;

/// How much of a worker's stdout is read, in bytes. It says one short line.
const STDOUT_BYTES_MAX: usize = 64;

/// The line by which a worker tells that its socket is bound.
const LISTENING: &[u8] = b"listening\n";

/// The supervisor's own variables that a worker gets. Those of its Codex children travel by frame.
const ENVIRONMENT: [&str; 4] = ["PATH", "LANG", "TZ", "HOME"];

/// What a worker is told at birth.
#[derive(Clone, Debug)]
pub struct WorkerSpec {
    /// The binary, see [`worker_program`].
    pub program: PathBuf,
    /// Whom it serves.
    pub agent: AgentName,
    /// Its run.
    pub incarnation: Incarnation,
    /// The agent's folder; made (0700) if it does not exist.
    pub agent_dir: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// Whom it may talk to.
    pub supervisor_uid: u32,
    /// Its agent's cgroup, if there is one.
    pub cgroup: Option<PathBuf>,
    /// Who it becomes, and whose the agent's folder is; `None`: our own user.
    pub user: Option<Owner>,
    /// What it says again in its hello, as proof that it is the one of its record.
    pub nonce: u64,
}

/// A worker that was started.
pub struct Running {
    /// Its process.
    pub handle: Handle,
    /// Resolves when its socket is bound: the moment to dial. The words of an error name where to look.
    pub listening: BoxFuture<'static, Result<(), String>>,
    /// Resolves when it has ended and was reaped, with the reason in words. It must be polled, or a zombie stays.
    pub exited: BoxFuture<'static, String>,
}

impl Running {
    /// Its number.
    pub const fn pid(&self) -> u32 {
        self.handle.pid()
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("pid", &self.pid()).finish_non_exhaustive()
    }
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Its folder cannot be made.
    #[error("the agent's folder {} cannot be made", .0.display())]
    Folder(PathBuf, #[source] io::Error),
    /// Its stderr file cannot be opened.
    #[error("{} cannot be opened for the worker's stderr", .0.display())]
    Stderr(PathBuf, #[source] io::Error),
    /// The program cannot be run.
    #[error("the worker program {} cannot be run; set worker_command if it lies elsewhere", .0.display())]
    Program(PathBuf, #[source] io::Error),
    /// It was started and cannot be watched, so it was ended again.
    #[error("the worker process cannot be watched")]
    Watch(#[source] io::Error),
}

/// The worker program: the configured one, or the one beside the running binary.
///
/// # Errors
/// When the running binary cannot be found.
pub fn worker_program(configured: Option<&Path>) -> io::Result<PathBuf> {
    if let Some(program) = configured {
        return Ok(program.to_owned());
    }
    let ours = std::env::current_exe()?;
    Ok(ours.parent().unwrap_or(Path::new("/")).join(WORKER_PROGRAM))
}

/// Starts a worker. Blocks for about half a millisecond; needs a tokio runtime around it.
///
/// # Errors
/// See [`SpawnError`]. Nothing runs after an error.
pub fn spawn_worker(spec: &WorkerSpec) -> Result<Running, SpawnError> {
    let folder = |path: &Path, e| SpawnError::Folder(path.to_owned(), e);
    let agent = Folder::prepare(&spec.agent_dir, spec.user).map_err(|e| folder(&spec.agent_dir, e))?;
    if let Some(dir) = spec.socket.parent().filter(|_| spec.user.is_some()) {
        Folder::prepare(dir, spec.user).map_err(|e| folder(dir, e))?;
    }
    cgroup::record(&spec.agent_dir, spec.cgroup.as_deref()).map_err(|e| folder(&spec.agent_dir, e))?;
    let stderr_path = spec.agent_dir.join("log/worker.stderr");
    let stderr = open_stderr(&agent).map_err(|e| SpawnError::Stderr(stderr_path.clone(), e))?;
    #[expect(clippy::disallowed_methods, reason = "this is the file that starts processes")]
    let mut command = Command::new(&spec.program);
    command
        .args(arguments(spec))
        .env_clear()
        .envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .kill_on_drop(false);
    let mut child = command.spawn().map_err(|e| SpawnError::Program(spec.program.clone(), e))?;
    let stdout = child.stdout.take();
    // The child is not reaped before `exited` is polled, so its number is still its own here.
    let handle = child.id().map_or_else(|| Err(io::Error::other("it has no number")), Handle::open);
    let handle = match handle {
        Ok(handle) => handle,
        Err(error) => {
            child.start_kill().map_err(SpawnError::Watch)?;
            return Err(SpawnError::Watch(error));
        }
    };
    let exited = async move {
        match child.wait().await {
            Ok(status) => exit::words(status),
            Err(error) => format!("unknown ({error})"),
        }
    };
    Ok(Running { handle, listening: listening(stdout, stderr_path).boxed(), exited: exited.boxed() })
}

fn arguments(spec: &WorkerSpec) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![
        "--agent".into(),
        spec.agent.as_str().into(),
        "--incarnation".into(),
        spec.incarnation.to_string().into(),
        "--agent-dir".into(),
        spec.agent_dir.clone().into(),
        "--socket".into(),
        spec.socket.clone().into(),
        "--supervisor-uid".into(),
        spec.supervisor_uid.to_string().into(),
        "--nonce".into(),
        spec.nonce.to_string().into(),
    ];
    if let Some(group) = &spec.cgroup {
        words.extend(["--cgroup".into(), group.clone().into()]);
    }
    if let Some(Owner { uid, gid }) = spec.user {
        words.extend(["--user".into(), format!("{uid}:{gid}").into()]);
    }
    words
}

fn open_stderr(agent: &Folder) -> io::Result<File> {
    let file = agent.make(name("log"))?.append(name("worker.stderr"))?;
    if file.metadata()?.len() > STDERR_BYTES_MAX {
        file.set_len(0)?;
    }
    Ok(file)
}

/// Reads the one line that a worker says on its stdout. What follows it is not read: the pipe is closed.
async fn listening(stdout: Option<ChildStdout>, stderr: PathBuf) -> Result<(), String> {
    let mut said = [0; STDOUT_BYTES_MAX];
    let mut length = 0;
    if let Some(mut stdout) = stdout {
        while let Some(room) = said.get_mut(length..).filter(|room| !room.is_empty()) {
            match stdout.read(room).await {
                Ok(0) | Err(_) => break,
                Ok(read) => length += read,
            }
            if said.get(..length).is_some_and(|said| said.contains(&b'\n')) {
                break;
            }
        }
    }
    let said = said.get(..length).unwrap_or_default();
    if said.starts_with(LISTENING) {
        Ok(())
    } else if said.is_empty() {
        Err(format!("the worker closed its stdout before it listened: see {}", stderr.display()))
    } else {
        Err(format!("the worker said {:?} where it should say that it listens", String::from_utf8_lossy(said)))
    }
}

/// Runs `codex login` in the foreground, on the caller's terminal, for the Codex home in one agent's folder, as the agent's
/// user. Blocks until the person is done.
///
/// # Errors
/// When the program cannot be run.
pub fn login(codex: &Path, agent_dir: &Path, user: Option<Owner>, arguments: &[String]) -> io::Result<ExitStatus> {
    Folder::prepare(agent_dir, user)?.make(name("codex-home"))?;
    #[expect(clippy::disallowed_methods, reason = "this is the file that starts processes")]
    let mut command = std::process::Command::new(codex);
    command.arg("login").args(arguments).env("CODEX_HOME", agent_dir.join("codex-home"));
    if let Some(Owner { uid, gid }) = user {
        // With another user the standard library leaves our groups behind.
        command.uid(uid).gid(gid);
    }
    command.status()
}

/// The jobs of a systemd unit, as `systemctl list-jobs` prints them without a heading. Blocks for as long as systemd takes
/// to answer, at most its own 25 s.
///
/// # Errors
/// When there is no systemctl, or it fails; the words are its own.
pub fn jobs_of(unit: &str, user: bool) -> io::Result<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the file that starts processes")]
    let mut command = std::process::Command::new("systemctl");
    command.args(user.then_some("--user")).args(["list-jobs", "--no-legend", "--no-pager", "--plain", "--", unit]);
    let said = command.stdin(Stdio::null()).env("LC_ALL", "C").output()?;
    if said.status.success() {
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&said.stderr).trim().to_owned()))
    }
}

/// What a worker found out about a Codex program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Its children get a namespace by this helper.
    Namespace(String),
    /// They do not, and why.
    None(String),
    /// There is no such program.
    NoCodex,
    /// The worker could not be asked.
    Failed(String),
}

/// Lets the worker program try what it does before a first Codex child. Blocks for some milliseconds, at most for 5 s.
pub fn probe(worker: &Path, codex: &Path, path: &str) -> Probe {
    #[expect(clippy::disallowed_methods, reason = "this is the file that starts processes")]
    let mut command = std::process::Command::new(worker);
    command.arg("probe").arg(codex).env_clear().env("PATH", path).stdin(Stdio::null());
    match command.output() {
        Ok(output) => read_probe(&String::from_utf8_lossy(&output.stdout), &String::from_utf8_lossy(&output.stderr)),
        Err(error) => Probe::Failed(format!("{}: {error}", worker.display())),
    }
}

fn read_probe(said: &str, complaint: &str) -> Probe {
    match said.trim().split_once(' ') {
        Some(("namespace", bwrap)) => Probe::Namespace(bwrap.to_owned()),
        Some(("none", why)) => Probe::None(why.to_owned()),
        Some(("missing", _)) => Probe::NoCodex,
        Some(_) | None => Probe::Failed(complaint.trim().to_owned()),
    }
}

/// What a program said before it ended.
#[derive(Debug)]
pub struct Said {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs another build of this program to its end, with our environment.
///
/// # Errors
/// When it cannot be run, or has not ended within the limit: it is killed then.
pub async fn ask(program: &Path, arguments: &[OsString], limit: Duration) -> io::Result<Said> {
    #[expect(clippy::disallowed_methods, reason = "this is the file that starts processes")]
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(limit, command.output()).await;
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("it did not end within {} s", limit.as_secs()));
    let output = ended.map_err(|_| late())??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Said { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) })
}

/// Becomes another program: the same process, number, arguments and environment, but for one variable. Returns only if
/// that fails.
pub fn become_program(program: &Path, (name, value): (&str, Option<&str>)) -> io::Error {
    #[expect(clippy::disallowed_methods, reason = "this is the file that starts processes")]
    let mut command = std::process::Command::new(program);
    match value {
        Some(value) => command.env(name, value),
        None => command.env_remove(name),
    };
    command.args(std::env::args_os().skip(1)).exec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A stand-in for the worker: a shell script.
    fn spec(dir: &Path, script: &str) -> WorkerSpec {
        let program = dir.join("worker.sh");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        WorkerSpec {
            program,
            agent: AgentName::parse("a").unwrap(),
            incarnation: Incarnation(7),
            agent_dir: dir.join("state/agents/a"),
            socket: dir.join("run/a.sock"),
            supervisor_uid: 1000,
            cgroup: None,
            user: None,
            nonce: 9,
        }
    }

    #[tokio::test]
    async fn a_worker_is_told_who_it_is_and_little_else() {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path(), "echo listening; echo \"$@\" >&2; env | cut -d= -f1 | sort >&2; exit 75");
        let running = spawn_worker(&spec).unwrap();
        assert!(running.pid() > 0);
        assert_eq!(running.listening.await, Ok(()));
        assert_eq!(running.exited.await, "exit code 75 (another worker holds the agent's lock)");
        let stderr = spec.agent_dir.join("log/worker.stderr");
        let said = fs::read_to_string(&stderr).unwrap();
        let (dir, socket) = (spec.agent_dir.display(), spec.socket.display());
        let first =
            format!("--agent a --incarnation 7 --agent-dir {dir} --socket {socket} --supervisor-uid 1000 --nonce 9");
        assert_eq!(said.lines().next(), Some(first.as_str()));
        // The shell adds PWD, SHLVL, OLDPWD and _.
        let foreign =
            said.lines().skip(1).filter(|n| !ENVIRONMENT.contains(n) && !["PWD", "SHLVL", "OLDPWD", "_"].contains(n));
        assert_eq!(foreign.collect::<Vec<_>>(), Vec::<&str>::new());
        assert_eq!(fs::metadata(&stderr).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&spec.agent_dir).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn a_worker_that_says_something_else_or_nothing_does_not_listen() {
        let dir = tempfile::tempdir().unwrap();
        let wrong = spawn_worker(&spec(dir.path(), "yes | head -c 100000")).unwrap();
        assert!(wrong.listening.await.unwrap_err().contains("the worker said"));
        wrong.exited.await;
        let silent = spawn_worker(&spec(dir.path(), "exec >&-")).unwrap();
        assert!(silent.listening.await.unwrap_err().contains("worker.stderr"));
        silent.exited.await;
    }

    #[tokio::test]
    async fn a_killed_worker_says_so_and_is_not_hit_twice() {
        let dir = tempfile::tempdir().unwrap();
        let running = spawn_worker(&spec(dir.path(), "exec sleep 600")).unwrap();
        assert!(running.handle.kill().unwrap());
        let handle = running.handle.clone();
        assert_eq!(running.exited.await, "killed by signal 9 (SIGKILL)");
        assert!(!handle.terminate().unwrap());
        handle.gone().await.unwrap();
    }

    #[tokio::test]
    async fn a_stopped_worker_is_woken_to_obey() {
        let dir = tempfile::tempdir().unwrap();
        let running = spawn_worker(&spec(dir.path(), "exec sleep 600")).unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(running.handle.pid()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        assert!(running.handle.terminate().unwrap());
        assert_eq!(running.exited.await, "killed by signal 15 (SIGTERM)");
    }

    #[tokio::test]
    async fn a_missing_program_is_named_and_a_large_stderr_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = spec(dir.path(), "");
        let stderr = spec.agent_dir.join("log/worker.stderr");
        fs::create_dir_all(stderr.parent().unwrap()).unwrap();
        fs::write(&stderr, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        spec.program = dir.path().join("none");
        let error = spawn_worker(&spec).unwrap_err().to_string();
        assert!(error.contains("none") && error.contains("worker_command"), "{error}");
        assert_eq!(fs::metadata(&stderr).unwrap().len(), 0);
    }

    #[test]
    fn the_worker_lies_beside_us_unless_it_is_named() {
        assert!(worker_program(None).unwrap().ends_with(WORKER_PROGRAM));
        assert_eq!(worker_program(Some(Path::new("/x/y"))).unwrap(), Path::new("/x/y"));
    }
}
