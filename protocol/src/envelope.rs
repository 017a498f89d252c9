//! The envelope of an agent: its limits, and what holds each of them on a host. A table, so that the worker that lives in
//! it and the operator who asks `doctor` read the same.
//!
//! ```text
//!   limit                        with its cgroup controller     without
//!   memory_max, memory_high      kernel (memory)                sampling: the worker looks and acts
//!   pids_max                     kernel (pids)                  sampling
//!   cpu_weight, io_weight        kernel (cpu, io)               priority: nice and ionice of Codex children
//!   cpu_max                      kernel (cpu)                   nothing
//!   open_files, core_size, ...   rlimit of each process         the same
//!   disk_max                     upkeep: the worker, between turns
//! ```

use crate::to_worker::Limits;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A limit by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Bytes of memory at which a turn ends.
    MemoryMax,
    /// Bytes of memory at which Codex is retired between turns.
    MemoryHigh,
    /// Share of the processor.
    CpuWeight,
    /// Percent of one core.
    CpuMax,
    /// Processes and threads.
    PidsMax,
    /// Share of the disks.
    IoWeight,
    /// Descriptors of one process.
    OpenFiles,
    /// Bytes of a core file.
    CoreSize,
    /// Bytes of one file.
    FileSize,
    /// Bytes of the agent's folder.
    DiskMax,
}

impl Limit {
    /// Its key below `limits`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MemoryMax => "memory_max",
            Self::MemoryHigh => "memory_high",
            Self::CpuWeight => "cpu_weight",
            Self::CpuMax => "cpu_max",
            Self::PidsMax => "pids_max",
            Self::IoWeight => "io_weight",
            Self::OpenFiles => "open_files",
            Self::CoreSize => "core_size",
            Self::FileSize => "file_size",
            Self::DiskMax => "disk_max",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What holds a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A cgroup controller, for all processes of the agent together.
    Kernel,
    /// A resource limit of each process.
    Rlimit,
    /// The worker looks several times a second and acts: something quicker than a look may pass it for that long.
    Sampling,
    /// A lower priority of Codex children: a share only while others want the same core or disk.
    Priority,
    /// The worker, between turns: it removes what can be made anew and tells the owners; nothing is refused.
    Upkeep,
    /// Nothing.
    Nothing,
}

impl By {
    /// The word for people and scripts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Rlimit => "rlimit",
            Self::Sampling => "sampling",
            Self::Priority => "priority",
            Self::Upkeep => "upkeep",
            Self::Nothing => "nothing",
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A configured limit and what holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Which.
    pub limit: Limit,
    /// How much: bytes, processes, percent or a weight.
    pub value: u64,
    /// What holds it.
    pub by: By,
}

/// The controllers that an agent's cgroup has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each controller is there or not, whatever the others are")]
pub struct Controllers {
    /// `memory`.
    pub memory: bool,
    /// `pids`.
    pub pids: bool,
    /// `cpu`.
    pub cpu: bool,
    /// `io`, with a scheduler that knows weights.
    pub io: bool,
}

/// Name of the cgroup of the worker itself, below that of its agent: a group with controllers holds no process of its own.
pub const WORKER_GROUP: &str = "worker";

/// Every configured limit and what holds it where these controllers are.
pub fn bounds(limits: &Limits, have: Controllers) -> Vec<Bound> {
    let kernel_or = |there: bool, otherwise: By| if there { By::Kernel } else { otherwise };
    let wide = |small: Option<u32>| small.map(u64::from);
    let all = [
        (Limit::MemoryMax, limits.memory_max, kernel_or(have.memory, By::Sampling)),
        (Limit::MemoryHigh, limits.memory_high, kernel_or(have.memory, By::Sampling)),
        (Limit::CpuWeight, wide(limits.cpu_weight), kernel_or(have.cpu, By::Priority)),
        (Limit::CpuMax, wide(limits.cpu_max), kernel_or(have.cpu, By::Nothing)),
        (Limit::PidsMax, wide(limits.pids_max), kernel_or(have.pids, By::Sampling)),
        (Limit::IoWeight, wide(limits.io_weight), kernel_or(have.io, By::Priority)),
        (Limit::OpenFiles, wide(limits.open_files), By::Rlimit),
        (Limit::CoreSize, limits.core_size, By::Rlimit),
        (Limit::FileSize, limits.file_size, By::Rlimit),
        (Limit::DiskMax, limits.disk_max, By::Upkeep),
    ];
    all.into_iter().filter_map(|(limit, value, by)| Some(Bound { limit, value: value?, by })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_configured_is_not_held() {
        assert_eq!(bounds(&Limits::default(), Controllers::default()), []);
        let limits = Limits { cpu_max: Some(50), pids_max: Some(64), file_size: Some(1), ..Limits::default() };
        let by = |have| bounds(&limits, have).into_iter().map(|b| (b.limit.as_str(), b.by)).collect::<Vec<_>>();
        let poor = [("cpu_max", By::Nothing), ("pids_max", By::Sampling), ("file_size", By::Rlimit)];
        assert_eq!(by(Controllers::default()), poor);
        let rich = Controllers { cpu: true, pids: true, ..Controllers::default() };
        assert_eq!(by(rich), [("cpu_max", By::Kernel), ("pids_max", By::Kernel), ("file_size", By::Rlimit)]);
    }
}
