//! The words of the worker's machine: what can happen to it, and what it wants done.
//!
//! ```text
//!              Input                         Effect
//!  driver ------------------> machine ------------------> driver
//!   link, children, files,    decides, never waits         performs in order; a Journal
//!   deadlines                                              is on disk before the next effect
//! ```

use protocol::journal::Record;
use protocol::stable::Finished;
use protocol::to_worker::{Begin, Configure, InterruptReason};
use protocol::{AttemptId, FromWorker, TurnId};
use std::collections::BTreeMap;

/// Milliseconds on a clock that only goes forward. The machine gets it as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u64);

/// A Codex child as the machine names it: a number that is never used twice in an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChildId(pub u64);

/// A line of Codex that has grown so long has no end, in bytes: 25 times the longest that was seen.
pub const LINE_ENDLESS_BYTES: u64 = 512 * 1024 * 1024;

/// What can happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The supervisor says how the agent is served; homes are rendered.
    Configured(Box<Configure>),
    /// Try a turn. The driver has read a prompt that travelled as a file, and the wall clock.
    Begin {
        /// As it came.
        begin: Box<Begin>,
        /// The whole prompt.
        prompt: String,
        /// Size of the thread's rollout at this moment, 0 if there is none.
        rollout_bytes: u64,
        /// Unix milliseconds.
        wall_ms: u64,
    },
    /// A prompt that travelled as a file could not be read.
    PromptLost {
        /// Which try.
        begin: Box<Begin>,
        /// Why.
        why: String,
    },
    /// Give this text to a running attempt.
    Steer {
        /// The running attempt.
        attempt: AttemptId,
        /// The turn that joins if the text is taken.
        turn: TurnId,
        /// What is said.
        text: String,
    },
    /// Stop an attempt.
    Interrupt(AttemptId, InterruptReason),
    /// The ledger has an outcome.
    Acked(AttemptId),
    /// Finish what runs, take nothing new, leave.
    Drain,
    /// Codex children have to end in order, then the worker leaves: SIGTERM.
    Terminate,
    /// A supervisor has dialled (after the hello): say again what it may have missed.
    LinkUp,
    /// The supervisor is gone.
    LinkDown,
    /// A child runs, with this process id as the host sees it.
    Spawned(ChildId, u32),
    /// A child could not be started.
    SpawnFailed(ChildId, SpawnFailure),
    /// A whole line of a child's stdout, without its end; bytes that are no UTF-8 are replaced.
    Line(ChildId, String),
    /// A line passed the limit and was dropped as it came.
    LineTooLong(ChildId, u64),
    /// A child and its tree are gone, and its stdout has been read to the end.
    Exited(ChildId, Exit),
    /// What a thread's rollout holds behind the size that it had at the begin.
    RolloutRead(AttemptId, Rollout),
    /// What a look at a child showed.
    Looked(ChildId, Box<Vitals>),
    /// A journal of the last incarnation held these open attempts.
    Recovered(Vec<protocol::journal::Standing>),
    /// Bytes that the agent's folder holds, as [`Effect::LookAtDisk`] asked.
    DiskLooked(u64),
    /// Threads whose rollouts are old, oldest first, as [`Effect::FindOld`] asked.
    OldFound(Vec<String>),
    /// With these of them no conversation goes on, says the supervisor.
    Spared(Vec<String>),
    /// What the agent's processes use, as [`Effect::Measure`] asked.
    Measured(Sample),
    /// The deadline has come.
    Timeout,
}

/// What some processes use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Memory of their own, in bytes.
    pub rss_bytes: u64,
    /// Processes and threads.
    pub processes: u32,
}

/// What the agent's processes use, the worker itself apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Each Codex child with all that it started.
    pub children: Vec<(ChildId, Amount)>,
    /// What has left its child.
    pub others: Amount,
    /// The kernel has refused processes since the last look, because there were too many.
    pub forks_refused: bool,
}

impl Sample {
    /// Everything that was seen.
    pub fn amounts(&self) -> impl Iterator<Item = Amount> {
        self.children.iter().map(|(_, amount)| *amount).chain([self.others])
    }
}

/// Why a child did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpawnFailure {
    /// There is no such program.
    Missing(String),
    /// It could not be run.
    Failed(String),
}

/// How a child ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Exit code.
    pub code: Option<i32>,
    /// Signal.
    pub signal: Option<i32>,
    /// Its last stderr lines, bounded.
    pub stderr: String,
    /// The kernel ended it for its use of memory.
    pub out_of_memory: bool,
}

/// What a turn left in its rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// The rollout was found and read to its end.
    pub read: bool,
    /// Commands and changes in it, as a person reads them, bounded.
    pub ran: Vec<String>,
    /// It holds nothing of this turn but user, reasoning and agent-message items.
    pub only_words: bool,
}

/// What processes have used up since they began, and how many they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Processor time, with that of children that have ended and were waited for, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes read and written, whatever the device.
    pub io_bytes: u64,
    /// Processes.
    pub processes: u32,
}

impl Load {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            cpu_ms: self.cpu_ms.saturating_add(other.cpu_ms),
            io_bytes: self.io_bytes.saturating_add(other.io_bytes),
            processes: self.processes.saturating_add(other.processes),
        }
    }
}

/// How a rollout lies on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was last written, in Unix milliseconds.
    pub at_ms: u64,
}

/// What one look at a Codex child showed. What cannot be looked at is zero, and says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Codex itself, its wrapper, and what is no tool of a thread.
    pub own: Load,
    /// Tools, by the thread that they work for.
    pub tools: BTreeMap<String, Load>,
    /// Processes below Codex that name no thread: servers of tools, helpers.
    pub unmarked: u32,
    /// Bytes that have come in over the network connections that Codex has open.
    pub received_bytes: u64,
    /// Codex is stopped by a signal, or traced.
    pub stopped: bool,
    /// The rollouts that were asked for, as far as they exist.
    pub rollouts: BTreeMap<String, Written>,
}

/// How a child is driven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSpec {
    /// Arguments behind the program.
    pub args: Vec<String>,
    /// What its stdin gets at once.
    pub stdin: String,
    /// Whether stdin stays open for more; if not it ends behind `stdin`.
    pub stdin_open: bool,
    /// First step of a polite end, see [`Effect::End`].
    pub polite: Polite,
    /// Another Codex program than the agent's, if the route names one.
    pub command: Option<String>,
}

/// The polite way to end a child: the two modes of Codex are opposite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polite {
    /// `codex exec`: SIGINT to its pid; SIGTERM would leave its tools behind.
    Interrupt,
    /// `codex app-server`: close stdin, then SIGTERM; SIGINT would leave its tools behind.
    CloseStdin,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Append to the journal and sync, before the next effect.
    Journal(Record),
    /// Start a Codex child.
    Spawn(ChildId, ChildSpec),
    /// Write a line to a child's stdin; the driver adds its end.
    Write(ChildId, String),
    /// End a child politely; the driver climbs the ladder (grace, harder signal, whole tree) and reports the exit.
    End(ChildId),
    /// End a child and its whole tree now.
    Kill(ChildId),
    /// Read what this turn left in its thread's rollout.
    ReadRollout {
        /// For which attempt.
        attempt: AttemptId,
        /// Of which thread.
        thread: String,
        /// From this size on.
        from_bytes: u64,
    },
    /// Look how a child, its tree and the rollouts of these threads do; answered at once with [`Input::Looked`].
    Look(ChildId, Vec<String>),
    /// Say this to the supervisor. News are kept while there is none, as far as they may not be lost.
    Tell(FromWorker),
    /// An outcome: journal it, then tell it. Its text may be long: the driver puts it into a file if it must; a short
    /// one is in the outcome already. At a new link one with a long text comes again, the same as before.
    Finish(Box<Finished>, String),
    /// Look at what the agent's processes use.
    Measure,
    /// Look at how much the agent's folder holds; that may take a while.
    LookAtDisk,
    /// Remove Codex' log databases: no child lives.
    PruneLogs,
    /// Look for rollouts that nobody has written to for so many milliseconds; that may take a while.
    FindOld(u64),
    /// Everything is done: leave with exit code 0.
    Leave,
}
