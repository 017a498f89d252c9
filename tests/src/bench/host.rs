//! What the kernel says of the machine and of processes.

use std::fs;

/// Length of a kernel's tick as `/proc/PID/stat` counts them, in milliseconds.
const TICK_MS: f64 = 10.0;
/// KiB in a MiB.
const KIB: f64 = 1024.0;

/// Memory of a process, in MiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Its share of what is resident: shared pages count by the number of their users.
    pub(crate) pss: f64,
    /// What is its own.
    pub(crate) private: f64,
}

/// One line about this machine.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let model = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()))
        .unwrap_or_else(|| "unknown processor".to_owned());
    let memory = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<f64>().ok())
        .unwrap_or_default();
    let weights = if enforces_cpu_weight() { "cpu.weight enforced" } else { "cpu.weight not enforced" };
    format!("{cores} cores ({model}), {:.0} GiB, Linux {}, {weights}", memory / KIB / KIB, kernel.trim())
}

/// Whether this process' cgroup hands the processor's controller down.
pub(crate) fn enforces_cpu_weight() -> bool {
    let own = read("/proc/self/cgroup");
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::")) else { return false };
    read(&format!("/sys/fs/cgroup{path}/cgroup.controllers")).split_whitespace().any(|name| name == "cpu")
}

/// The load averages of one and five minutes.
pub(crate) fn load() -> String {
    read("/proc/loadavg").split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// The load average of a minute.
pub(crate) fn load_1() -> f64 {
    read("/proc/loadavg").split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

/// Memory of a process; zero if it is gone.
pub(crate) fn memory(pid: u32) -> Memory {
    let text = read(&format!("/proc/{pid}/smaps_rollup"));
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or_default() / KIB
    };
    Memory { pss: of("Pss:"), private: of("Private_Clean:") + of("Private_Dirty:") }
}

/// Processor time of a process so far, in milliseconds; its children apart.
pub(crate) fn cpu_ms(pid: u32) -> f64 {
    let ticks = |index: usize| stat(pid).get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) * TICK_MS
}

/// How often the threads of a process have been put on a processor.
pub(crate) fn switches(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("status")).unwrap_or_default();
        let counts = text.lines().filter(|line| line.contains("ctxt_switches"));
        counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum::<f64>()
    };
    tasks.map(|task| of_task(task.path())).sum()
}

/// Bytes that a process has read by any system call, in MiB.
pub(crate) fn read_mib(pid: u32) -> f64 {
    let text = read(&format!("/proc/{pid}/io"));
    let bytes = text.lines().find_map(|line| line.strip_prefix("rchar:")?.trim().parse::<f64>().ok());
    bytes.unwrap_or_default() / KIB / KIB
}

/// A process and everything that descends from it.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, stat(pid).get(1)?.parse().ok()?))).collect();
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
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
