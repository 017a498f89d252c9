//! The scratch folder of one contestant, its children's program, and everything that was started in it.
//!
//! ```text
//!   /var/tmp/cfp-*/bin/c0 c1 ..           one program that sleeps, by as many names: a child is known by its first word
//!                      /bin/flood         waits for the pipe `go`, prints for FLOOD, then sleeps
//!                      /..                configuration, sockets, logs of the contestant
//! ```
//! Every process of it carries the folder in its environment or command line. By that, and by nothing else, it is found
//! and killed when the laboratory is dropped.

use super::super::Fault;
use super::super::clock::{ms, now, pause, until};
use super::FLOOD;
use crate::processes;
use nix::sys::stat::Mode;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use tempfile::TempDir;

/// Longest run of one command of a contestant: those of the slowest take seconds on a busy machine.
pub(super) const COMMAND_LIMIT: Duration = Duration::from_mins(1);
/// Longest wait for something that a contestant should do.
pub(super) const WAIT_LIMIT: Duration = Duration::from_mins(1);
/// Longest time that the last process of a laboratory may take to go.
const CLEAN_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks for what is left.
const CLEAN_LOOK: Duration = Duration::from_millis(20);
/// The whole program of a child.
const SLEEPER: &str = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n";
/// What a child is told; `sleep` needs it where it plays the child.
pub(super) const SLEEPER_WORD: &str = "86400";

/// A scratch folder with processes.
#[derive(Debug)]
pub(super) struct Lab {
    dir: TempDir,
    started: Vec<Child>,
}

impl Lab {
    /// A folder with the children's program by each of `names`.
    pub(super) fn new(names: &[String]) -> Result<Self, Fault> {
        let dir = tempfile::Builder::new().prefix("cfp-").tempdir_in("/var/tmp")?;
        let lab = Self { dir, started: Vec::new() };
        fs::create_dir(lab.path("bin"))?;
        let program = lab.path("bin/sleeper");
        lab.build(&program)?;
        for name in names.iter().map(String::as_str).chain(["flooded"]) {
            fs::hard_link(&program, lab.path("bin").join(name))?;
        }
        nix::unistd::mkfifo(&lab.path("go"), Mode::S_IRWXU)
            .map_err(|error| Fault(format!("cannot make a pipe: {error}")))?;
        let bin = lab.text("bin");
        let (go, seconds, line) = (lab.text("go"), FLOOD.as_secs(), "x".repeat(60));
        let flood = format!(": < {go}\ntimeout {seconds} yes {bin}/{line}\nexec {bin}/flooded {SLEEPER_WORD}");
        lab.script("bin/flood", &flood)?;
        Ok(lab)
    }

    /// A static program where there is a compiler, else `sleep`.
    fn build(&self, program: &Path) -> Result<(), Fault> {
        let (source, out) = (self.path("sleeper.c"), program.to_string_lossy().into_owned());
        fs::write(&source, SLEEPER)?;
        if on_path("cc").is_some() && self.run(&["cc", "-static", "-o", &out, &source.to_string_lossy()]).is_ok() {
            return Ok(());
        }
        let sleep = on_path("sleep").ok_or_else(|| Fault("neither cc nor sleep is on PATH".into()))?;
        fs::copy(sleep, program)?;
        Ok(())
    }

    /// A path in the folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same as text; names of scratch folders are ASCII.
    pub(super) fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// The command line of a child.
    pub(super) fn child(&self, name: &str) -> String {
        format!("{} {SLEEPER_WORD}", self.text(&format!("bin/{name}")))
    }

    /// Writes a shell script.
    pub(super) fn script(&self, name: &str, body: &str) -> Result<(), Fault> {
        fs::write(self.path(name), format!("#!/bin/sh\n{body}\n"))?;
        Ok(fs::set_permissions(self.path(name), Permissions::from_mode(0o755))?)
    }

    /// A command in the folder, not started yet.
    #[expect(clippy::disallowed_methods, reason = "a benchmark starts what it compares")]
    pub(super) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words.first().unwrap_or(&"false"));
        command
            .args(words.iter().skip(1))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LANG", "C.UTF-8")
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("PM2_HOME", self.path("pm2"))
            .env("PM2_DISCRETE_MODE", "true")
            .current_dir(self.dir.path());
        command
    }

    /// Starts something that stays, and gives its pid.
    pub(super) fn launch(&mut self, words: &[&str]) -> Result<u32, Fault> {
        let log = OpenOptions::new().create(true).append(true).open(self.path("log"))?;
        let mut command = self.command(words);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.started.push(command.spawn().map_err(|error| Fault(format!("cannot start {words:?}: {error}")))?);
        Ok(self.started.last().map_or(0, Child::id))
    }

    /// Runs a command to its end, and gives what it took in milliseconds.
    pub(super) fn run(&self, words: &[&str]) -> Result<f64, Fault> {
        timed(self.command(words))
    }

    /// The last line that a command prints; empty if it fails.
    pub(super) fn says(&self, words: &[&str]) -> String {
        let (mut command, said) = (self.command(words), self.path("said"));
        let ran = fs::File::create(&said).map_err(Fault::from).and_then(|file| {
            command.stdout(file);
            bounded(command)
        });
        let text = ran.ok().and_then(|_| fs::read_to_string(said).ok()).unwrap_or_default();
        text.lines().next_back().unwrap_or_default().trim().to_owned()
    }

    /// `kill -9` of something that was started here, until it is gone.
    pub(super) fn kill(&mut self, pid: u32) -> Result<(), Fault> {
        if let Some(at) = self.started.iter().position(|child| child.id() == pid) {
            let mut child = self.started.swap_remove(at);
            let killed = child.kill();
            child.wait()?;
            return Ok(killed?);
        }
        processes::kill9(pid);
        let gone = until(WAIT_LIMIT, || (!processes::is_alive(pid)).then_some(()));
        gone.ok_or_else(|| Fault(format!("{pid} survived SIGKILL")))
    }

    /// The living children, but for pids that are `known`.
    pub(super) fn children(&self, known: &BTreeSet<u32>) -> Vec<(String, u32)> {
        let bin = self.text("bin/");
        scan(known, |words| {
            let name = words.first()?.strip_prefix(&bin)?;
            name.starts_with('c').then(|| name.to_owned())
        })
    }

    /// The contestant's own processes: all of the laboratory but the work.
    pub(super) fn own(&self) -> Vec<u32> {
        let bin = self.text("bin/");
        let all = processes::marked(&self.text(""));
        all.into_iter().filter(|pid| !words(*pid).iter().take(2).any(|word| word.starts_with(&bin))).collect()
    }

    /// Lets the flood begin.
    pub(super) fn flood(&self) -> Result<(), Fault> {
        // Without a reader it would wait for ever: then there is no flooder.
        let open = || OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(self.path("go")).ok();
        until(WAIT_LIMIT, open).map(drop).ok_or_else(|| Fault("nobody waits to flood".into()))
    }

    fn clean(&mut self) {
        let mark = self.text("");
        let mut quiet = 0;
        let begin = now();
        // Twice nothing: a supervisor may have started something just before it was killed.
        while quiet < 2 && begin.elapsed() < CLEAN_LIMIT {
            let left = processes::marked(&mark);
            quiet = if left.is_empty() { quiet + 1 } else { 0 };
            left.into_iter().for_each(processes::kill9);
            pause(CLEAN_LOOK);
        }
        for mut child in self.started.drain(..) {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.clean();
    }
}

/// Runs a command to its end, killing it at [`COMMAND_LIMIT`]; what it took, in milliseconds.
pub(super) fn timed(mut command: Command) -> Result<f64, Fault> {
    command.stdout(Stdio::null());
    bounded(command)
}

/// The same with the standard output that the command was given.
fn bounded(mut command: Command) -> Result<f64, Fault> {
    let begin = now();
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let (done, ended) = mpsc::channel::<()>();
    let pid = child.id();
    let guard = std::thread::spawn(move || {
        if ended.recv_timeout(COMMAND_LIMIT) == Err(RecvTimeoutError::Timeout) {
            processes::kill9(pid);
        }
    });
    // It stays a zombie until the guard has gone: its number is nobody else's so long.
    let waited = waitid(WaitId::Pid(Pid::from_child(&child)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    let took = ms(begin.elapsed());
    drop(done);
    let guarded = guard.join();
    let status = child.wait()?;
    waited.map_err(|error| Fault(format!("cannot wait: {error}")))?;
    guarded.map_err(|_| Fault("the guard of a command panicked".into()))?;
    let program = command.get_program().to_string_lossy();
    if status.success() { Ok(took) } else { Err(Fault(format!("{program} ended, {status}"))) }
}

/// Living processes whose command line `known_as` gives a name to, but for pids that are `known`. Zombies have none.
pub(super) fn scan(known: &BTreeSet<u32>, named: impl Fn(&[String]) -> Option<String>) -> Vec<(String, u32)> {
    let new = pids().into_iter().filter(|pid| !known.contains(pid));
    new.filter_map(|pid| Some((named(&words(pid))?, pid))).collect()
}

/// Every process of the host.
pub(super) fn pids() -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn words(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Where a program is found.
pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let executable = |at: &PathBuf| at.metadata().is_ok_and(|at| at.is_file() && at.permissions().mode() & 0o111 != 0);
    std::env::split_paths::<OsStr>(&path).map(|dir| dir.join(program)).find(executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_laboratory_knows_its_processes_and_takes_them_along() {
        let mut lab = Lab::new(&["c0".to_owned(), "c1".to_owned()]).unwrap();
        let known = pids();
        let child = lab.launch(&[&lab.text("bin/c1"), SLEEPER_WORD]).unwrap();
        let own = lab.launch(&["sh", "-c", "read x < go"]).unwrap();
        assert!(until(WAIT_LIMIT, || (lab.children(&known) == [("c1".to_owned(), child)]).then_some(())).is_some());
        assert!(until(WAIT_LIMIT, || (lab.own() == [own]).then_some(())).is_some());
        let flooder = lab.launch(&[&lab.text("bin/flood")]).unwrap();
        assert!(until(WAIT_LIMIT, || (processes::command_line(flooder).contains("bin/flood")).then_some(())).is_some());
        assert_eq!(lab.own(), [own], "the work is not the contestant's own");
        assert!(lab.run(&["true"]).is_ok() && lab.run(&["false"]).is_err());
        drop(lab);
        assert!([child, own, flooder].into_iter().all(|pid| !processes::is_alive(pid)));
    }
}
