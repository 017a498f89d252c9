//! What the host says of itself and of a process, from `/proc` and `/sys`. What cannot be read is zero or empty.

use serde::Serialize;
use std::fs;

/// What was measured on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) cores: usize,
    pub(super) processor: String,
    pub(super) memory_bytes: u64,
    pub(super) kernel: String,
    /// Whether the victim's share of the processor is enforced.
    pub(super) cpu_weight: bool,
    /// Load averages of 1, 5 and 15 minutes, before and after.
    pub(super) load_before: String,
    pub(super) load_after: String,
}

impl Machine {
    /// This one, at the begin of a drill.
    pub(super) fn look(cpu_weight: bool) -> Self {
        let processor = read("/proc/cpuinfo").lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "model name").then(|| value.trim().to_owned())
        });
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: processor.unwrap_or_default(),
            memory_bytes: memory("MemTotal:"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu_weight,
            load_before: load(),
            load_after: String::new(),
        }
    }

    /// Whether the host was busy before anything was hurt.
    pub(super) fn was_busy(&self) -> bool {
        let minute = self.load_before.split(' ').next().and_then(|load| load.parse::<f64>().ok());
        let cores = u32::try_from(self.cores).unwrap_or(u32::MAX);
        minute.is_some_and(|load| load > f64::from(cores))
    }
}

/// The load averages of 1, 5 and 15 minutes.
pub(super) fn load() -> String {
    read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Memory that could be had at this moment, in bytes.
pub(super) fn memory_free() -> u64 {
    memory("MemAvailable:")
}

fn memory(key: &str) -> u64 {
    let text = read("/proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Whether this process has a group of its own in which the kernel shares out the processor: another one than `other`.
pub(super) fn has_own_share(pid: u32, other: u32) -> bool {
    let group = |pid: u32| {
        let text = read(&format!("/proc/{pid}/cgroup"));
        text.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned))
    };
    let (Some(own), Some(others)) = (group(pid), group(other)) else { return false };
    own != others && !read(&format!("/sys/fs/cgroup{own}/cpu.weight")).is_empty()
}

/// The kernel's letter for the state of a process; `None` if there is none.
pub(super) fn state(pid: u32) -> Option<char> {
    stat(pid).first()?.chars().next()
}

/// Bytes that a process has read by any system call.
pub(super) fn bytes_read(pid: u32) -> u64 {
    let text = read(&format!("/proc/{pid}/io"));
    text.lines().find_map(|line| line.strip_prefix("rchar:")?.trim().parse().ok()).unwrap_or(0)
}

/// A process and everything that descends from it.
pub(super) fn tree(root: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, stat(pid).get(1)?.parse().ok()?))).collect();
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(pid, of)| *of == parent && *pid != parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

/// The fields of `/proc/PID/stat` behind the name: 0 is the state, 1 the parent.
fn stat(pid: u32) -> Vec<String> {
    let text = read(&format!("/proc/{pid}/stat"));
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    fields.split_whitespace().map(str::to_owned).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_this_host_are_seen() {
        let ours = std::process::id();
        assert!(matches!(state(ours), Some('R' | 'S')));
        assert_eq!(state(u32::MAX), None);
        assert!(bytes_read(ours) > 0);
        assert_eq!(tree(ours).first(), Some(&ours));
        assert!(memory_free() > 0);
        let machine = Machine::look(false);
        assert!(machine.cores > 0 && machine.memory_bytes >= memory_free() && !machine.kernel.is_empty());
        assert!(!has_own_share(ours, ours), "a group that is shared is nobody's own");
    }

    #[test]
    fn a_busy_host_is_told() {
        let quiet = Machine { cores: 2, load_before: "1.90 5.00 5.00".into(), ..Machine::look(false) };
        assert!(!quiet.was_busy());
        assert!(Machine { load_before: "2.10 0.00 0.00".into(), ..quiet }.was_busy());
    }
}
