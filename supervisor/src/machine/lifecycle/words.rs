//! What a worker's life is made of, as plain values.

use crate::machine::words::Linked;
use protocol::Incarnation;

/// A process, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its run.
    pub incarnation: Incarnation,
    /// Its pid, once the kernel gave one.
    pub pid: Option<u32>,
}

/// What a worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No process.
    Down,
    /// An old one is looked for.
    Adopting { process: Option<Process>, by: u64 },
    /// What an old one left is being ended; `left` processes did not end at the last try.
    Sweeping { incarnation: Incarnation, by: u64, then: Then, left: u32 },
    /// A process was started and is not ready.
    Starting { process: Process, by: u64 },
    /// Ready since.
    Up { process: Process, since: u64 },
    /// Finishes what runs.
    Draining { process: Process, by: u64 },
    /// Was asked to end.
    Stopping { process: Process, by: u64 },
    /// Was killed.
    Killing { process: Process, by: u64, why: Why },
    /// Waits for its next start.
    Backoff { until: u64 },
    /// Given up.
    Failed,
}

/// What follows a sweep, if it is still wanted up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Start at once.
    Spawn,
    /// Start at this tick.
    Pause(u64),
    /// Give up.
    GiveUp,
}

/// Why a process is killed: a loss counts against its restarts, a wish does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is wanted down, or a person wants a new one.
    Wish,
    /// It did not start, or gave no sign of life; so long it had been ready, if it ever was.
    Loss { ready_ms: Option<u64> },
}

/// What can happen to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Be up.
    Start,
    /// Finish what runs and be down: within a grace in milliseconds, or without limit.
    Stop(Option<u64>),
    /// Be down at once.
    Kill,
    /// See [`crate::machine::words::Input`].
    Spawned(Incarnation, u32),
    /// See [`crate::machine::words::Input`].
    SpawnFailed(Incarnation),
    /// The process of an old worker is known although it says no good hello.
    Found(Incarnation, u32),
    /// One answers that no record names.
    Impostor(Incarnation, u32),
    /// Be replaced by the next run, within this grace in milliseconds.
    Renew(u64),
    /// See [`crate::machine::words::Input`].
    Linked(Linked),
    /// Nothing answers. The run is 0 where an unknown worker was looked for.
    LinkFailed(Incarnation),
    /// See [`crate::machine::words::Input`].
    LinkLost(Incarnation),
    /// The worker's own word.
    Ready(Incarnation),
    /// See [`crate::machine::words::Input`].
    Exited(Incarnation),
    /// So many processes could not be ended.
    Swept(Incarnation, u32),
    /// By its own word it takes nothing new.
    Leaving(Incarnation),
    /// It gives no sign of life.
    Wedged,
    /// The deadline has come.
    Timeout,
}

/// What it wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// End what this run left, read its journal.
    Sweep(Incarnation),
    /// Start the process of this run.
    Spawn(Incarnation),
    /// Dial it.
    Dial(Incarnation),
    /// Say drain.
    Drain,
    /// SIGTERM.
    Terminate(u32),
    /// SIGKILL.
    Kill(u32),
    /// It went up: turns may be sent.
    Up,
    /// No process is left and none will be started by itself; the flag says whether we gave up.
    Rest { gave_up: bool },
    /// A process does not end although it was killed.
    Stuck(u32),
}
