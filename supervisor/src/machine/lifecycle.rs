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
//! What is found at our start is one of three:
//!
//! * a good hello of the run that the ledger knows, with its nonce, from its process: adopted. One of another protocol is
//!   drained, its outcomes are taken, and it is replaced; one of an earlier build is replaced once it is idle (`Renew`).
//! * nobody at the socket and no process: dead. What it left is swept, its journal read, its socket removed by the next.
//! * a process of it that says no hello within its dials (stopped, wedged, garbage), or that is not the one of the
//!   record: killed with its tree, waited for, replaced. A process that is none of its workers is left alone, whatever
//!   its number or its socket.
//!
//! A lost session is dialled again, a few times a minute, before the worker is given up. An old tree that does not end
//! holds its agent: it is told, and looked for and swept again, until it is gone.
//!
//! Promises: never two processes of one agent (a spawn follows a sweep that left nothing); every state that waits for
//! somebody else has a deadline; news of an earlier incarnation change nothing.

mod news;
mod words;

pub use words::{Act, Event, Process, State, Then, Why};

use super::restart::History;
use protocol::Incarnation;
use protocol::control::AgentState;
use protocol::hello::Accord;

/// From a spawn to the worker's own word that it is ready. A worker needs 5 ms; a busy host may need seconds.
const START_WITHIN_MS: u64 = 20_000;
/// From dialling an old worker to its readiness.
const ADOPT_WITHIN_MS: u64 = 10_000;
/// A sweep ends by itself within two seconds.
const SWEEP_WITHIN_MS: u64 = 10_000;
/// A drain without a grace of its own: longer than any turn, shorter than for ever. A worker of another protocol says
/// nothing meanwhile, so that its silence cannot be told from work.
const DRAIN_WITHIN_MS: u64 = 24 * 60 * 60 * 1_000;
/// From SIGTERM to SIGKILL of the worker, beyond the agent's own grace for what runs.
const TERMINATE_WITHIN_MS: u64 = 10_000;
/// From SIGKILL to the report that a process is stuck in the kernel.
const KILL_WITHIN_MS: u64 = 5_000;
/// Pause before an old tree that could not be ended is looked for again.
const SWEEP_AGAIN_MS: u64 = 5_000;
/// Dials of a living worker whose session was lost, before it is replaced.
const DIALS_MAX: u32 = 3;
/// A session that held so long makes the dials count anew: a worker that loses each session at once must not be dialled
/// for ever.
const DIALS_PERIOD_MS: u64 = 60_000;

/// One worker, wanted and actual.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    wanted_up: bool,
    /// It was wanted dead: one that is found alive is killed, not drained.
    wanted_dead: bool,
    /// The grace of the latest stop, for a worker that is found later.
    grace: Option<u64>,
    state: State,
    last: Incarnation,
    /// What may be said to the present run.
    accord: Accord,
    /// Dials of the present run since its session held, and the tick of the latest.
    dials: (u32, u64),
    history: History,
    restarts: u32,
}

impl Lifecycle {
    /// A worker that nobody has looked for. `last` is the latest run that the ledger knows.
    pub fn new(wanted_up: bool, last: Incarnation) -> Self {
        Self {
            wanted_up,
            wanted_dead: false,
            grace: None,
            state: State::Down,
            last,
            accord: Accord::Full,
            dials: (0, 0),
            history: History::default(),
            restarts: 0,
        }
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

    /// Whether it gives signs of life, so that silence means trouble.
    pub fn is_heard(&self) -> bool {
        match self.state {
            State::Up { .. } => true,
            State::Draining { .. } => self.accord == Accord::Full,
            State::Down
            | State::Adopting { .. }
            | State::Sweeping { .. }
            | State::Starting { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Backoff { .. }
            | State::Failed => false,
        }
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
            | State::Draining { by, .. }
            | State::Stopping { by, .. }
            | State::Killing { by, .. } => Some(by),
            State::Backoff { until } => Some(until),
            State::Down | State::Up { .. } | State::Failed => None,
        }
    }

    /// Our own loop lagged so many milliseconds: what a worker was to do within a time, it may have done meanwhile.
    pub const fn forgive(&mut self, late_ms: u64) {
        match &mut self.state {
            State::Adopting { by, .. } | State::Sweeping { by, .. } | State::Starting { by, .. } => {
                *by = by.saturating_add(late_ms);
            }
            State::Down
            | State::Up { .. }
            | State::Draining { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Backoff { .. }
            | State::Failed => {}
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
            Event::Found(incarnation, pid) => self.found(now, incarnation, pid),
            Event::Impostor(incarnation, pid) => self.impostor(now, incarnation, pid),
            Event::Renew(grace) => self.renew(now, grace),
            Event::Linked(linked) => self.linked(now, &linked),
            Event::LinkFailed(incarnation) => self.link_failed(now, incarnation),
            Event::LinkLost(incarnation) => self.link_lost(now, incarnation),
            Event::Ready(incarnation) => self.ready(now, incarnation),
            Event::Swept(incarnation, left) => self.swept(now, incarnation, left, fresh),
            Event::Leaving(incarnation) => self.leaving(now, incarnation),
            Event::Wedged => self.wedged(now),
            Event::Timeout => self.timeout(now),
        }
    }

    fn start(&mut self, now: u64) -> Vec<Act> {
        (self.wanted_up, self.wanted_dead) = (true, false);
        self.history.forget();
        match &mut self.state {
            State::Down | State::Backoff { .. } | State::Failed => return self.sweep(now, self.last, Then::Spawn),
            // An end that has begun is finished first; the sweep behind it starts the next run.
            State::Sweeping { then, .. } => *then = Then::Spawn,
            State::Killing { why, .. } => *why = Why::Wish,
            State::Adopting { .. }
            | State::Starting { .. }
            | State::Up { .. }
            | State::Draining { .. }
            | State::Stopping { .. } => {}
        }
        Vec::new()
    }

    fn stop(&mut self, now: u64, grace: Option<u64>) -> Vec<Act> {
        self.wanted_up = false;
        self.grace = grace;
        let by = now + grace.unwrap_or(DRAIN_WITHIN_MS);
        match self.state {
            State::Up { process, .. } | State::Adopting { process: Some(process), .. } => self.drain(process, by),
            State::Draining { process, by: before } => {
                self.state = State::Draining { process, by: by.min(before) };
                Vec::new()
            }
            State::Starting { process, .. } => self.terminate(now, process),
            // A run that ended in the middle of a turn: what it wrote is read before anybody says that all is over.
            State::Backoff { .. } => self.sweep(now, self.last, Then::Spawn),
            State::Down | State::Failed => self.rest(false),
            State::Adopting { process: None, .. }
            | State::Sweeping { .. }
            | State::Stopping { .. }
            | State::Killing { .. } => Vec::new(),
        }
    }

    fn kill(&mut self, now: u64) -> Vec<Act> {
        (self.wanted_up, self.wanted_dead) = (false, true);
        match self.process() {
            Some(process) => self.kill_process(now, process, Why::Wish),
            None => self.stop(now, Some(0)),
        }
    }

    fn drain(&mut self, process: Process, by: u64) -> Vec<Act> {
        self.state = State::Draining { process, by };
        vec![Act::Drain]
    }

    fn terminate(&mut self, now: u64, process: Process) -> Vec<Act> {
        self.state = State::Stopping { process, by: now + TERMINATE_WITHIN_MS };
        process.pid.map(Act::Terminate).into_iter().collect()
    }

    fn renew(&mut self, now: u64, grace: u64) -> Vec<Act> {
        match self.state {
            State::Up { process, .. } if self.wanted_up => self.drain(process, now + grace),
            State::Up { .. }
            | State::Down
            | State::Adopting { .. }
            | State::Sweeping { .. }
            | State::Starting { .. }
            | State::Draining { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Backoff { .. }
            | State::Failed => Vec::new(),
        }
    }

    fn kill_process(&mut self, now: u64, process: Process, why: Why) -> Vec<Act> {
        self.state = State::Killing { process, by: now + KILL_WITHIN_MS, why };
        process.pid.map(Act::Kill).into_iter().collect()
    }

    fn rest(&mut self, gave_up: bool) -> Vec<Act> {
        self.state = if gave_up { State::Failed } else { State::Down };
        vec![Act::Rest { gave_up }]
    }

    /// Every spawn goes through a sweep: the old tree is proven gone before a new one grows.
    fn sweep(&mut self, now: u64, incarnation: Incarnation, then: Then) -> Vec<Act> {
        self.state = State::Sweeping { incarnation, by: now + SWEEP_WITHIN_MS, then, left: 0 };
        vec![Act::Sweep(incarnation)]
    }

    fn timeout(&mut self, now: u64) -> Vec<Act> {
        if self.deadline().is_none_or(|by| by > now) {
            return Vec::new();
        }
        match self.state {
            State::Adopting { process: None, .. } | State::Backoff { .. } => self.sweep(now, self.last, Then::Spawn),
            State::Adopting { process: Some(process), .. } | State::Starting { process, .. } => self.lose(now, process),
            State::Stopping { process, .. } => self.kill_process(now, process, Why::Wish),
            State::Draining { process, .. } => self.terminate(now, process),
            State::Killing { process, why, .. } => {
                self.state = State::Killing { process, by: now + KILL_WITHIN_MS, why };
                process.pid.map_or_else(Vec::new, |pid| vec![Act::Kill(pid), Act::Stuck(1)])
            }
            // Somebody may live there and have been too slow to answer: that one is ours.
            State::Sweeping { left: 1.., .. } => self.adopt(now),
            State::Sweeping { incarnation, then, .. } => self.sweep(now, incarnation, then),
            State::Down | State::Up { .. } | State::Failed => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
