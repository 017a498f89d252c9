//! Memory and number of processes of each agent: its worker and all that descends from it, in one look at the host.

use protocol::AgentName;
use std::collections::BTreeMap;
use std::fmt;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

/// What an agent's processes use together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in bytes. Pages that are shared count for each process.
    pub rss_bytes: u64,
    /// The worker and its descendants; 0 if the worker is gone.
    pub processes: u32,
}

/// Looks at the host. Keeps what it has seen between two looks, so keep it.
pub struct Sampler {
    system: System,
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler").finish_non_exhaustive()
    }
}

impl Sampler {
    /// One that has not looked yet.
    ///
    /// # Errors
    /// When the host cannot be looked at.
    pub fn new() -> Result<Self, sysinfo::Error> {
        Ok(Self { system: System::new_with_specifics(RefreshKind::nothing())? })
    }

    /// What each worker and its descendants use. Blocks for some milliseconds: run it on the blocking pool.
    pub fn sample(&mut self, workers: &[(AgentName, u32)]) -> BTreeMap<AgentName, Usage> {
        let memory = ProcessRefreshKind::nothing().with_memory().without_tasks();
        self.system.refresh_processes_specifics(ProcessesToUpdate::All, true, memory);
        #[expect(clippy::disallowed_methods, reason = "it goes straight into an ordered map")]
        let seen = self.system.processes().iter();
        let rows: BTreeMap<u32, Row> = seen.map(|(pid, process)| (pid.as_u32(), Row::of(process))).collect();
        let owners: BTreeMap<u32, &AgentName> = workers.iter().map(|(agent, pid)| (*pid, agent)).collect();
        sum(&rows, &owners)
    }
}

struct Row {
    parent: Option<u32>,
    rss_bytes: u64,
}

impl Row {
    fn of(process: &sysinfo::Process) -> Self {
        Self { parent: process.parent().map(Pid::as_u32), rss_bytes: process.memory() }
    }
}

/// Longest line of parents that is followed; deeper trees count for nobody.
const DEPTH_MAX: usize = 1024;

/// Gives each process to the nearest worker among it and its parents.
fn sum(rows: &BTreeMap<u32, Row>, owners: &BTreeMap<u32, &AgentName>) -> BTreeMap<AgentName, Usage> {
    let mut sums: BTreeMap<AgentName, Usage> =
        owners.values().map(|agent| ((*agent).clone(), Usage::default())).collect();
    for (pid, row) in rows {
        let mut line = std::iter::successors(Some(*pid), |pid| rows.get(pid)?.parent).take(DEPTH_MAX);
        let Some(agent) = line.find_map(|pid| owners.get(&pid)) else { continue };
        let usage = sums.entry((*agent).clone()).or_default();
        usage.rss_bytes = usage.rss_bytes.saturating_add(row.rss_bytes);
        usage.processes = usage.processes.saturating_add(1);
    }
    sums
}
