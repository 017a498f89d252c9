//! What one process has used up, as the kernel counts it.
//!
//! Read from `/proc/PID/stat` and `/proc/PID/io`, each a single small file. What ended and was waited for counts with its
//! parent, so that the sums over a tree only grow as long as nothing of it leaves the tree.

use std::fs;

/// Milliseconds in a tick of `/proc/PID/stat`: Linux shows 100 a second on every machine that Codex runs on.
const TICK_MS: u64 = 10;

/// Bytes in a page of `/proc/PID/stat`, on those machines.
const PAGE_BYTES: u64 = 4096;

/// What processes use, or have used up since they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory.
    pub rss_bytes: u64,
    /// Processes.
    pub processes: u32,
    /// Processor time, with that of children that were waited for, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes read and written, with those of children that were waited for, whatever the device.
    pub io_bytes: u64,
}

/// One process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// What it uses.
    pub usage: Usage,
    /// The kernel's letter: `R`, `S`, `D`, `T` stopped, `t` traced, `Z` dead.
    pub state: char,
}

/// Looks at a process; `None` if there is none. Bytes that may not be read are 0.
pub fn of(pid: u32) -> Option<Process> {
    let mut process = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    process.usage.io_bytes = fs::read_to_string(format!("/proc/{pid}/io")).map_or(0, |text| parse_io(&text));
    Some(process)
}

/// The fields behind the name, which may itself hold blanks and brackets.
fn parse_stat(text: &str) -> Option<Process> {
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<i64>().ok()).unwrap_or(0);
    let number = |at: usize| u64::try_from(number(at)).unwrap_or(0);
    let ticks: u64 = (11..=14).map(number).fold(0, u64::saturating_add);
    let usage = Usage {
        rss_bytes: number(21).saturating_mul(PAGE_BYTES),
        processes: 1,
        cpu_ms: ticks.saturating_mul(TICK_MS),
        io_bytes: 0,
    };
    Some(Process { usage, state: fields.first()?.chars().next()? })
}

fn parse_io(text: &str) -> u64 {
    let of =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0);
    of("rchar:").saturating_add(of("wchar:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_itself_and_nobody() {
        let before = of(std::process::id()).unwrap();
        assert!(before.usage.rss_bytes > PAGE_BYTES && before.usage.processes == 1, "{before:?}");
        std::fs::read("/proc/self/maps").unwrap();
        assert!(of(std::process::id()).unwrap().usage.io_bytes > before.usage.io_bytes);
        assert_eq!(of(u32::MAX), None);
    }

    #[test]
    fn a_name_may_hold_anything() {
        let text = "7 (a) R (b) T 1 7 7 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 99 1000 5 18446744073709551615";
        let process = parse_stat(text).unwrap();
        assert_eq!((process.state, process.usage.cpu_ms, process.usage.rss_bytes), ('T', 1000, 5 * PAGE_BYTES));
        assert_eq!(parse_stat("7 (x)"), None);
        assert_eq!(parse_io("rchar: 5\nwchar: 6\nsyscr: 9\n"), 11);
        assert_eq!(parse_io("nothing"), 0);
    }
}
