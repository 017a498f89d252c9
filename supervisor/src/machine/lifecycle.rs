//! One worker process: wanted and actual.
//!
//! ```text
//!            Dial at our start                  Drain          Terminate        Kill
//!   Adopting ------------------> Up  ---------> Draining ----> Stopping ------> Killing
//!      | nothing answers        ^  |               |    grace      |    grace      |
//!      v                        |  | Exited        +---------------+---------------+
//!   Sweeping --> Starting ------+  v                               v Exited
//!      ^          Spawn, Dial, Ready            Sweeping (what it left is ended, its journal read)
//!      |                                           |
//!      +---- Backoff <------ wanted up ------------+---- wanted down ----> Down
//!                 too many ends: Failed
//! ```
//!
//! Promises: never two processes of one agent (a spawn follows a sweep that left nothing); every state that waits for
//! somebody else has a deadline; news of an earlier incarnation change nothing.

use super::restart::{History, Verdict};
use super::words::Linked;
use protocol::Incarnation;
use protocol::control::AgentState;
use protocol::hello::Accord;

/// From a spawn to the worker's own word that it is ready. A worker needs 5 ms; a busy host may need seconds.
const START_WITHIN_MS: u64 = 20_000;
/// From dialling an old worker to its readiness.
const ADOPT_WITHIN_MS: u64 = 10_000;
/// A sweep ends by itself within two seconds.
const SWEEP_WITHIN_MS: u64 = 10_000;
/// From SIGTERM to SIGKILL of the worker, beyond the agent's own grace for what runs.
const TERMINATE_WITHIN_MS: u64 = 10_000;
/// From SIGKILL to the report that a process is stuck in the kernel.
const KILL_WITHIN_MS: u64 = 5_000;
/// Pause before an old tree that could not be ended is swept again.
const SWEEP_AGAIN_MS: u64 = 5_000;
/// Dials of a living worker whose session was lost, before it is replaced.
const DIALS_MAX: u32 = 3;

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
    /// What an old one left is being ended.
    Sweeping { incarnation: Incarnation, by: u64, then: Then },
    /// A process was started and is not ready.
    Starting { process: Process, by: u64 },
    /// Ready since.
    Up { process: Process, since: u64, dials: u32 },
    /// Finishes what runs.
    Draining { process: Process, by: Option<u64> },
    /// Was asked to end.
    Stopping { process: Process, by: u64 },
    /// Was killed.
    Killing { process: Process, by: u64 },
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

/// What can happen to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Be up.
    Start,
    /// Finish what runs and be down: within a grace in milliseconds, or without limit.
    Stop(Option<u64>),
    /// Be down at once.
    Kill,
    /// See [`super::words::Input`].
    Spawned(Incarnation, u32),
    /// See [`super::words::Input`].
    SpawnFailed(Incarnation),
    /// See [`super::words::Input`].
    Linked(Linked),
    /// See [`super::words::Input`].
    LinkFailed,
    /// See [`super::words::Input`].
    LinkLost(Incarnation),
    /// The worker's own word.
    Ready(Incarnation),
    /// See [`super::words::Input`].
    Exited(Incarnation),
    /// So many processes could not be ended.
    Swept(Incarnation, u32),
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

/// One worker, wanted and actual.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    wanted_up: bool,
    state: State,
    last: Incarnation,
    history: History,
    restarts: u32,
}

impl Lifecycle {
    /// A worker that nobody has looked for. `last` is the latest run that the ledger knows.
    pub fn new(wanted_up: bool, last: Incarnation) -> Self {
        Self { wanted_up, state: State::Down, last, history: History::default(), restarts: 0 }
    }

    /// Looks for a worker of an earlier supervisor.
    pub fn adopt(&mut self, now: u64) -> Vec<Act> {
        self.state = State::Adopting { process: None, by: now + ADOPT_WITHIN_MS };
        vec![Act::Dial(Incarnation(0))]
    }

    /// Whether it is wanted up.
    pub const fn wanted_up(&self) -> bool {
        self.wanted_up
    }

    /// What it is.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Restarts since the supervisor's start.
    pub const fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Its process, if there is one.
    pub const fn process(&self) -> Option<Process> {
        match &self.state {
            State::Adopting { process, .. } => *process,
            State::Starting { process, .. }
            | State::Up { process, .. }
            | State::Draining { process, .. }
            | State::Stopping { process, .. }
            | State::Killing { process, .. } => Some(*process),
            State::Down | State::Sweeping { .. } | State::Backoff { .. } | State::Failed => None,
        }
    }

    /// Whether turns may be sent.
    pub const fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Whether this run is the present one.
    pub fn is_present(&self, incarnation: Incarnation) -> bool {
        self.process().is_some_and(|p| p.incarnation == incarnation)
    }

    /// The word of `ps`; `busy` tells whether turns run.
    pub const fn word(&self, busy: bool) -> AgentState {
        match self.state {
            State::Down => AgentState::Down,
            State::Adopting { .. } => AgentState::Adopting,
            State::Starting { .. } => AgentState::Starting,
            State::Sweeping { .. } if self.wanted_up => AgentState::Starting,
            State::Up { .. } if busy => AgentState::Busy,
            State::Up { .. } => AgentState::Ready,
            State::Draining { .. } => AgentState::Draining,
            State::Sweeping { .. } | State::Stopping { .. } | State::Killing { .. } => AgentState::Stopping,
            State::Backoff { .. } => AgentState::Backoff,
            State::Failed => AgentState::Failed,
        }
    }

    /// When something must happen by itself.
    pub const fn deadline(&self) -> Option<u64> {
        match self.state {
            State::Adopting { by, .. }
            | State::Sweeping { by, .. }
            | State::Starting { by, .. }
            | State::Stopping { by, .. }
            | State::Killing { by, .. } => Some(by),
            State::Backoff { until } => Some(until),
            State::Draining { by, .. } => by,
            State::Down | State::Up { .. } | State::Failed => None,
        }
    }

    /// Takes an event at tick `now`. `fresh` is the run that a spawn would be, `jitter` any number.
    pub fn handle(&mut self, now: u64, event: Event, fresh: Incarnation, jitter: u64) -> Vec<Act> {
        match event {
            Event::Start => self.start(now),
            Event::Stop(grace) => self.stop(now, grace),
            Event::Kill => self.kill(now),
            Event::Spawned(incarnation, pid) => self.spawned(incarnation, pid),
            Event::SpawnFailed(incarnation) | Event::Exited(incarnation) => self.ended(now, incarnation, jitter),
            Event::Linked(linked) => self.linked(now, &linked),
            Event::LinkFailed => self.link_failed(now),
            Event::LinkLost(incarnation) => self.link_lost(now, incarnation),
            Event::Ready(incarnation) => self.ready(now, incarnation),
            Event::Swept(incarnation, left) => self.swept(now, incarnation, left, fresh),
            Event::Wedged => self.wedged(now),
            Event::Timeout => self.timeout(now),
        }
    }

    fn start(&mut self, now: u64) -> Vec<Act> {
        self.wanted_up = true;
        self.history.forget();
        match self.state {
            State::Down | State::Backoff { .. } | State::Failed => self.sweep(now, self.last, Then::Spawn),
            // An end that has begun is finished first; the sweep behind it starts the next run.
            State::Adopting { .. }
            | State::Sweeping { .. }
            | State::Starting { .. }
            | State::Up { .. }
            | State::Draining { .. }
            | State::Stopping { .. }
            | State::Killing { .. } => Vec::new(),
        }
    }

    fn stop(&mut self, now: u64, grace: Option<u64>) -> Vec<Act> {
        self.wanted_up = false;
        match self.state.clone() {
            State::Up { process, .. } => {
                self.state = State::Draining { process, by: grace.map(|ms| now + ms) };
                vec![Act::Drain]
            }
            State::Draining { process, by } => {
                let sooner = grace.map(|ms| now + ms);
                let by = by.map_or(sooner, |by| Some(sooner.map_or(by, |s| s.min(by))));
                self.state = State::Draining { process, by };
                Vec::new()
            }
            State::Starting { process, .. } | State::Adopting { process: Some(process), .. } => {
                self.terminate(now, process)
            }
            State::Backoff { .. } | State::Failed => self.rest(false),
            State::Down => vec![Act::Rest { gave_up: false }],
            State::Adopting { process: None, .. }
            | State::Sweeping { .. }
            | State::Stopping { .. }
            | State::Killing { .. } => Vec::new(),
        }
    }

    fn kill(&mut self, now: u64) -> Vec<Act> {
        self.wanted_up = false;
        match self.process() {
            Some(process) => self.kill_process(now, process),
            None => self.stop(now, Some(0)),
        }
    }

    fn terminate(&mut self, now: u64, process: Process) -> Vec<Act> {
        self.state = State::Stopping { process, by: now + TERMINATE_WITHIN_MS };
        process.pid.map(Act::Terminate).into_iter().collect()
    }

    fn kill_process(&mut self, now: u64, process: Process) -> Vec<Act> {
        self.state = State::Killing { process, by: now + KILL_WITHIN_MS };
        process.pid.map(Act::Kill).into_iter().collect()
    }

    fn rest(&mut self, gave_up: bool) -> Vec<Act> {
        self.state = if gave_up { State::Failed } else { State::Down };
        vec![Act::Rest { gave_up }]
    }

    /// Every spawn goes through a sweep: the old tree is proven gone before a new one grows.
    fn sweep(&mut self, now: u64, incarnation: Incarnation, then: Then) -> Vec<Act> {
        self.state = State::Sweeping { incarnation, by: now + SWEEP_WITHIN_MS, then };
        vec![Act::Sweep(incarnation)]
    }

    fn spawned(&mut self, incarnation: Incarnation, pid: u32) -> Vec<Act> {
        if !self.is_present(incarnation) {
            return Vec::new();
        }
        let known = Process { incarnation, pid: Some(pid) };
        match &mut self.state {
            State::Starting { process, .. } => *process = known,
            State::Stopping { process, .. } => {
                *process = known;
                return vec![Act::Terminate(pid)];
            }
            State::Killing { process, .. } => {
                *process = known;
                return vec![Act::Kill(pid)];
            }
            State::Down
            | State::Adopting { .. }
            | State::Sweeping { .. }
            | State::Up { .. }
            | State::Draining { .. }
            | State::Backoff { .. }
            | State::Failed => {}
        }
        Vec::new()
    }

    fn linked(&mut self, now: u64, linked: &Linked) -> Vec<Act> {
        let found = Process { incarnation: linked.incarnation, pid: Some(linked.pid) };
        match &mut self.state {
            State::Adopting { process, .. } => {
                *process = Some(found);
                self.last = linked.incarnation;
                if linked.accord == Accord::DrainOnly {
                    self.state = State::Draining { process: found, by: None };
                    return vec![Act::Drain];
                }
                if !self.wanted_up {
                    return self.stop(now, None);
                }
            }
            State::Up { dials, .. } => *dials = 0,
            State::Starting { .. }
            | State::Down
            | State::Sweeping { .. }
            | State::Draining { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Backoff { .. }
            | State::Failed => {}
        }
        Vec::new()
    }

    fn link_failed(&mut self, now: u64) -> Vec<Act> {
        match self.state.clone() {
            State::Adopting { process: None, .. } => self.sweep(now, self.last, Then::Spawn),
            State::Adopting { process: Some(process), .. } | State::Starting { process, .. } => {
                self.kill_process(now, process)
            }
            State::Up { process, .. } => self.redial(now, process),
            State::Draining { process, .. } => self.terminate(now, process),
            State::Down
            | State::Sweeping { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Backoff { .. }
            | State::Failed => Vec::new(),
        }
    }

    fn link_lost(&mut self, now: u64, incarnation: Incarnation) -> Vec<Act> {
        if self.is_present(incarnation) { self.link_failed(now) } else { Vec::new() }
    }

    fn redial(&mut self, now: u64, process: Process) -> Vec<Act> {
        if let State::Up { dials, .. } = &mut self.state
            && *dials < DIALS_MAX
        {
            *dials += 1;
            return vec![Act::Dial(process.incarnation)];
        }
        self.kill_process(now, process)
    }

    fn ready(&mut self, now: u64, incarnation: Incarnation) -> Vec<Act> {
        if !self.is_present(incarnation) {
            return Vec::new();
        }
        match self.state.clone() {
            State::Starting { process, .. } | State::Adopting { process: Some(process), .. } => {
                self.state = State::Up { process, since: now, dials: 0 };
                if self.wanted_up { vec![Act::Up] } else { self.stop(now, None) }
            }
            State::Up { .. } => vec![Act::Up],
            State::Down
            | State::Adopting { .. }
            | State::Sweeping { .. }
            | State::Draining { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Backoff { .. }
            | State::Failed => Vec::new(),
        }
    }

    fn ended(&mut self, now: u64, incarnation: Incarnation, jitter: u64) -> Vec<Act> {
        if !self.is_present(incarnation) {
            return Vec::new();
        }
        let then = if let State::Up { since, .. } = self.state {
            self.after_loss(now, Some(now.saturating_sub(since)), jitter)
        } else if let State::Starting { .. } | State::Adopting { .. } = self.state {
            self.after_loss(now, None, jitter)
        } else {
            Then::Spawn
        };
        self.sweep(now, incarnation, then)
    }

    fn after_loss(&mut self, now: u64, ready_ms: Option<u64>, jitter: u64) -> Then {
        self.restarts += 1;
        match self.history.ended(now, ready_ms, jitter) {
            Verdict::At(at) if at <= now => Then::Spawn,
            Verdict::At(until) => Then::Pause(until),
            Verdict::GiveUp => Then::GiveUp,
        }
    }

    fn swept(&mut self, now: u64, incarnation: Incarnation, left: u32, fresh: Incarnation) -> Vec<Act> {
        let State::Sweeping { incarnation: present, then, .. } = self.state else { return Vec::new() };
        if present != incarnation {
            return Vec::new();
        }
        if left > 0 {
            // Whoever is left holds the agent: nothing may be started beside it.
            self.state = State::Sweeping { incarnation, by: now + SWEEP_AGAIN_MS, then };
            return vec![Act::Stuck(left)];
        }
        if !self.wanted_up {
            return self.rest(false);
        }
        match then {
            Then::Spawn => self.spawn(now, fresh),
            Then::Pause(until) if until <= now => self.spawn(now, fresh),
            Then::Pause(until) => {
                self.state = State::Backoff { until };
                Vec::new()
            }
            Then::GiveUp => self.rest(true),
        }
    }

    fn spawn(&mut self, now: u64, fresh: Incarnation) -> Vec<Act> {
        self.last = fresh;
        let process = Process { incarnation: fresh, pid: None };
        self.state = State::Starting { process, by: now + START_WITHIN_MS };
        vec![Act::Spawn(fresh)]
    }

    fn wedged(&mut self, now: u64) -> Vec<Act> {
        match self.process() {
            Some(process) if !matches!(self.state, State::Killing { .. }) => self.lose(now, process),
            Some(_) | None => Vec::new(),
        }
    }

    /// Kills a process that is not wanted to end: its end counts as a loss and it is replaced.
    fn lose(&mut self, now: u64, process: Process) -> Vec<Act> {
        if let State::Up { .. } = self.state {
            return process.pid.map(Act::Kill).into_iter().collect();
        }
        self.kill_process(now, process)
    }

    fn timeout(&mut self, now: u64) -> Vec<Act> {
        if self.deadline().is_none_or(|by| by > now) {
            return Vec::new();
        }
        match self.state.clone() {
            State::Adopting { process: None, .. } | State::Backoff { .. } => self.sweep(now, self.last, Then::Spawn),
            State::Adopting { process: Some(process), .. }
            | State::Starting { process, .. }
            | State::Stopping { process, .. } => self.kill_process(now, process),
            State::Draining { process, .. } => self.terminate(now, process),
            State::Killing { process, .. } => {
                self.state = State::Killing { process, by: now + KILL_WITHIN_MS };
                process.pid.map_or_else(Vec::new, |pid| vec![Act::Kill(pid), Act::Stuck(1)])
            }
            State::Sweeping { incarnation, then, .. } => self.sweep(now, incarnation, then),
            State::Down | State::Up { .. } | State::Failed => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
