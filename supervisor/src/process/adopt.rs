//! Watches a worker that an earlier supervisor started: not a child that we know of, so nobody tells us when it ends but
//! its pidfd. After an upgrade the workers of the program before are children of this process all the same, and are
//! reaped.

use super::exit;
use super::signal::Handle;
use protocol::{AgentName, Incarnation};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

/// Longest command line that is read to recognise a worker, in bytes: its arguments are a few paths.
const COMMAND_LINE_BYTES_MAX: u64 = 64 * 1024;

/// How often the kernel is asked how an adopted worker ended. The answer is there once its parent has reaped it.
const EXIT_QUESTIONS_MAX: u32 = 10;

/// Pause between two questions, in milliseconds.
const EXIT_QUESTION_PAUSE_MS: u64 = 5;

/// Takes over the worker that the kernel named as the peer of a session which has just said hello.
///
/// The pidfd is opened first and the command line read afterwards: if that still names this agent and this run, the
/// number cannot have passed to somebody else in between.
///
/// # Errors
/// When the process is gone, or its command line is that of something else.
pub fn adopt(pid: u32, agent: &AgentName, incarnation: Incarnation) -> io::Result<Handle> {
    let handle = Handle::open(pid)?;
    if is_worker(&command_line(pid)?, agent, incarnation) {
        Ok(handle)
    } else {
        Err(io::Error::other(format!("process {pid} is not the worker of {agent} in its run {incarnation}")))
    }
}

/// Takes over a worker that says nothing: the process with this number, if its command line is that of a worker of this
/// agent and this folder. Gives its run.
///
/// # Errors
/// When the process is gone, or its command line is that of something else.
pub fn silent(pid: u32, agent: &AgentName, agent_dir: &Path) -> io::Result<(Handle, Incarnation)> {
    let handle = Handle::open(pid)?;
    let line = command_line(pid)?;
    let ours = value(&line, b"--agent") == Some(agent.as_str().as_bytes())
        && value(&line, b"--agent-dir") == Some(agent_dir.as_os_str().as_bytes());
    let run = value(&line, b"--incarnation").and_then(|text| str::from_utf8(text).ok()?.parse().ok());
    match run {
        Some(run) if ours => Ok((handle, Incarnation(run))),
        Some(_) | None => Err(io::Error::other(format!("process {pid} is no worker of {agent}"))),
    }
}

fn command_line(pid: u32) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    File::open(format!("/proc/{pid}/cmdline"))?.take(COMMAND_LINE_BYTES_MAX).read_to_end(&mut line)?;
    Ok(line)
}

/// Whether a command line (words that end in NUL) is that of a worker in this run.
fn is_worker(line: &[u8], agent: &AgentName, incarnation: Incarnation) -> bool {
    value(line, b"--agent") == Some(agent.as_str().as_bytes())
        && value(line, b"--incarnation") == Some(incarnation.to_string().as_bytes())
}

/// The word behind a flag.
fn value<'a>(line: &'a [u8], flag: &[u8]) -> Option<&'a [u8]> {
    let mut words = line.split(|byte| *byte == 0);
    words.find(|word| *word == flag)?;
    words.next()
}

/// Every worker of this folder that runs, told by its command line. For folders that no living supervisor cares for.
pub fn workers_of(agent_dir: &Path) -> Vec<Handle> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let wanted = agent_dir.as_os_str().as_encoded_bytes();
    numbers
        .filter_map(|pid| {
            let handle = Handle::open(pid).ok()?;
            let line = command_line(pid).ok()?;
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.windows(2).any(|pair| pair == [b"--agent-dir".as_slice(), wanted]).then_some(handle)
        })
        .collect()
}

/// Resolves when the process is gone, with the reason in words: `unknown` if the kernel cannot tell.
pub async fn exited(handle: Handle) -> String {
    if let Err(error) = handle.gone().await {
        return format!("unknown ({error})");
    }
    // One that was started before we took over this process' number is our child, and nobody else reaps it.
    if let Some(status) = handle.reap() {
        return exit::words(status);
    }
    for _ in 0..EXIT_QUESTIONS_MAX {
        match end_of(&handle) {
            End::Known(status) => return exit::words(status),
            End::NotYet => tokio::time::sleep(Duration::from_millis(EXIT_QUESTION_PAUSE_MS)).await,
            End::Never => break,
        }
    }
    "unknown".to_owned()
}

/// `struct pidfd_info` of the kernel in its first published size.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// Bit of the mask: the exit code is wanted, or is there.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `PIDFD_GET_INFO`.
const PIDFD_GET_INFO: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<PidfdInfo>(0xFF, 11);

/// What the kernel knows of a process' end.
enum End {
    Known(ExitStatus),
    /// Its parent has not reaped it.
    NotYet,
    /// The kernel is too old to tell.
    Never,
}

fn end_of(handle: &Handle) -> End {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    #[expect(unsafe_code, reason = "there is no safe wrapper for PIDFD_GET_INFO")]
    // SAFETY: the opcode carries the size of `PidfdInfo`, which is the layout that the kernel writes, and nothing
    // else; `info` outlives the call.
    let asked = unsafe {
        let question = rustix::ioctl::Updater::<PIDFD_GET_INFO, PidfdInfo>::new(&mut info);
        rustix::ioctl::ioctl(handle.fd().as_fd(), question)
    };
    match asked {
        Ok(()) if info.mask & PIDFD_INFO_EXIT != 0 => End::Known(ExitStatus::from_raw(info.exit_code)),
        Ok(()) | Err(rustix::io::Errno::SRCH) => End::NotYet,
        Err(_) => End::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;
    use tokio::io::AsyncReadExt;

    fn name() -> AgentName {
        AgentName::parse("a").unwrap()
    }

    #[test]
    fn a_worker_is_known_by_its_agent_and_run() {
        let line = b"cofferdam-worker\0--agent\0a\0--incarnation\0\x37\0--agent-dir\0/x\0";
        assert!(is_worker(line, &name(), Incarnation(7)));
        assert!(!is_worker(line, &name(), Incarnation(8)));
        assert!(!is_worker(line, &AgentName::parse("b").unwrap(), Incarnation(7)));
        assert!(!is_worker(b"--agent\0", &name(), Incarnation(7)));
        assert!(!is_worker(b"", &name(), Incarnation(7)));
    }

    /// A process that is not our child: its parent has ended.
    #[expect(clippy::disallowed_methods, reason = "a stand-in for a worker of an earlier supervisor")]
    async fn stranger() -> u32 {
        let script = "sh -c 'sleep 600' sh --agent a --incarnation 7 >/dev/null 2>&1 & echo $!";
        let mut child = tokio::process::Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).await.unwrap();
        child.wait().await.unwrap();
        said.trim().parse().unwrap()
    }

    #[tokio::test]
    async fn an_adopted_worker_is_watched_and_ended() {
        let pid = stranger().await;
        assert!(adopt(pid, &name(), Incarnation(8)).is_err());
        let handle = loop {
            // The shell's child is a copy of the shell until its exec.
            if let Ok(handle) = adopt(pid, &name(), Incarnation(7)) {
                break handle;
            }
            tokio::task::yield_now().await;
        };
        let watched = tokio::spawn(exited(handle.clone()));
        assert!(handle.kill().unwrap());
        let words = watched.await.unwrap();
        assert!(words == "killed by signal 9 (SIGKILL)" || words == "unknown", "{words}");
        assert!(Handle::open(0).is_err() && Handle::open(u32::MAX).is_err());
    }
}
