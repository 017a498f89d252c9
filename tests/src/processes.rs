//! Looks at processes the way the kernel shows them, and signals those that a test has started.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

/// Every process whose environment or command line holds `mark`, by pid. Zombies have neither and do not count.
pub fn marked(mark: &str) -> Vec<u32> {
    let mut found: Vec<u32> = all().into_iter().filter(|pid| *pid != std::process::id() && holds(*pid, mark)).collect();
    found.sort_unstable();
    found
}

fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn holds(pid: u32, mark: &str) -> bool {
    ["environ", "cmdline"].iter().any(|file| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        !mark.is_empty() && bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
    })
}

/// The command line of a process, words parted by spaces.
pub fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// The state letter of a process: `S`, `T`, `Z`; `None` if it is gone.
pub fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Whether a process is there and no zombie.
pub fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// Signals a process that the test has started. A process that is gone already is no error.
pub fn signal(pid: u32, signal: Signal) {
    let Ok(pid) = i32::try_from(pid) else { return };
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(_) => {}
    }
}

/// `kill -9`.
pub fn kill9(pid: u32) {
    signal(pid, Signal::SIGKILL);
}
