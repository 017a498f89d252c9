//! Finds and ends what a child left behind: orphans that came to us, and processes that carry the child's marker.
//!
//! Never by name, and never by waiting for "any" child: that would steal the exits of children that others wait for.

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The variable that marks a child and all that inherits from it; its value is `AGENT_DIR#INCARNATION.CHILD`.
pub const MARKER: &str = "COFFERDAM_CHILD";

/// What the markers of all children of one worker begin with. The folder makes it unlike those of other agents and of
/// other supervisors on this host.
pub fn marker_of(agent_dir: &Path, incarnation: protocol::Incarnation) -> String {
    format!("{}#{incarnation}.", agent_dir.display())
}

/// The children of a process, oldest first.
pub fn children_of(pid: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for task in numbers(&format!("/proc/{pid}/task")) {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{task}/children")).unwrap_or_default();
        children.extend(text.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
    }
    children
}

/// A process and all below it, itself first.
pub fn tree_of(pid: u32) -> Vec<u32> {
    let mut tree = vec![pid];
    let mut at = 0;
    while let Some(pid) = tree.get(at).copied() {
        tree.extend(children_of(pid));
        at += 1;
    }
    tree
}

/// Every process whose environment at its start held the marker with this value.
pub fn marked(value: &str) -> Vec<u32> {
    numbers("/proc").into_iter().filter(|pid| is_marked(*pid, value)).collect()
}

/// Whether a process carries the marker with this value.
fn is_marked(pid: u32, value: &str) -> bool {
    let wanted = format!("{MARKER}={value}");
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|bytes| bytes.split(|b| *b == 0).any(|entry| entry == wanted.as_bytes()))
}

/// Whether a process carries the marker at all.
fn has_marker(pid: u32) -> bool {
    let prefix = format!("{MARKER}=");
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|bytes| bytes.split(|b| *b == 0).any(|entry| entry.starts_with(prefix.as_bytes())))
}

/// One round against what the child with this marker left. `own` are the children that somebody waits for. Returns
/// whether anything was found, so that the caller looks again.
pub fn round(marker: &str, own: &BTreeSet<u32>, whole_host: bool) -> bool {
    let mut found = false;
    for pid in children_of(std::process::id()).into_iter().filter(|pid| !own.contains(pid)) {
        if reap(pid) {
            continue;
        }
        // An orphan that hides its origin is ended when no child is left whose it could be.
        if is_marked(pid, marker) || (own.is_empty() && !has_marker(pid)) {
            kill(pid);
            found = true;
        }
    }
    if whole_host {
        // Stopped first: of a bomb that forks while it is being killed, one is always left to go on.
        let all = marked(marker);
        for pid in &all {
            signal(*pid, Signal::STOP);
        }
        for pid in all {
            kill(pid);
            found = true;
        }
    }
    found
}

/// Collects orphans that have ended. Returns how many.
pub fn reap_orphans(own: &BTreeSet<u32>) -> usize {
    children_of(std::process::id()).into_iter().filter(|pid| !own.contains(pid) && reap(*pid)).count()
}

/// Collects one child of ours if it has ended.
fn reap(pid: u32) -> bool {
    let Some(pid) = as_pid(pid) else { return false };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    matches!(rustix::process::waitid(WaitId::Pid(pid), options), Ok(Some(_)))
}

/// SIGKILL to one process.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = as_pid(pid) {
        rustix::process::kill_process(pid, signal).ok();
    }
}

/// A signal to the process that has `parent` as its parent. Held by a handle between the look and the signal, so that
/// a number that was used again cannot be hit.
pub fn signal_child_of(parent: u32, pid: u32, signal: Signal) {
    let Some(at) = as_pid(pid) else { return };
    let Ok(handle) = rustix::process::pidfd_open(at, PidfdFlags::empty()) else { return };
    if children_of(parent).contains(&pid) {
        rustix::process::pidfd_send_signal(handle, signal).ok();
    }
}

fn as_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

fn numbers(dir: &str) -> Vec<u32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut numbers: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}
