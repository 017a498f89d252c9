//! Decides everything the worker does: which attempts it takes, which Codex children run, how each turn ends.
//!
//! ```text
//!  Begin --known?--> its state again
//!    | no
//!    v
//!  Journal(Begun), Tell(Begun) --> turn (turn.rs) --+-- exec (children.rs, exec.rs)          one child a turn
//!                                                  +-- session (session.rs, app_server.rs)  one child for all
//!                                                  v
//!                                  Finish, exactly once --> unacknowledged --Acked--> forgotten
//! ```
//! Pure: the time is an argument, nothing is read or written, and the same inputs give the same effects.
//! After each input `Machine::pump` brings everything to where it belongs: turns that can open are opened, an idle
//! app-server is retired, a worker that is done leaves.

mod app_server;
mod approval;
mod archive;
mod attempts;
mod children;
mod disk;
mod ends;
mod event;
mod exec;
mod failure;
pub mod io;
mod leave;
mod limits;
mod liveness;
#[doc(hidden)]
pub mod probe;
mod progress;
mod recover;
mod redact;
mod reset;
mod session;
mod talk;
mod thread;
mod turn;
mod verdict;

use archive::Archive;
use children::Child;
use disk::Disk;
use io::{ChildId, Effect, Input, Tick};
use leave::Leaving;
use protocol::envelope::Controllers;
use protocol::from_worker::Isolation;
use protocol::to_worker::{Clocks, Configure};
use protocol::{AttemptId, Finished};
use reset::Wall;
use session::Session;
use std::collections::BTreeMap;
use turn::Turn;

/// Clocks before a supervisor has configured any: only an orphan's matters then.
const CLOCKS_UNCONFIGURED: Clocks = Clocks {
    first_event_ms: 60_000,
    silence_ms: 600_000,
    turn_ms: 3_600_000,
    compaction_ms: 600_000,
    idle_after_ms: 600_000,
    orphan_after_ms: 600_000,
    stop_grace_ms: 2000,
    heartbeat_ms: 15_000,
};

/// The worker's decisions: attempts, Codex children, the conversation with the supervisor.
#[derive(Debug)]
pub struct Machine {
    configure: Option<Box<Configure>>,
    /// Counts the configurations that differ from the one before.
    generation: u64,
    linked: bool,
    isolation: Isolation,
    /// What of the limits the kernel holds.
    controllers: Controllers,
    /// When the agent's processes are looked at next.
    look_at: Option<Tick>,
    disk: Disk,
    archive: Archive,
    wall: Option<(Tick, Wall)>,
    now: Tick,
    turns: BTreeMap<AttemptId, Turn>,
    /// Outcomes that are not acknowledged. A text that is too long for a frame is kept beside.
    ended: BTreeMap<AttemptId, (Box<Finished>, Option<String>)>,
    children: BTreeMap<ChildId, Child>,
    next_child: u64,
    session: Option<Session>,
    /// Tokens of each thread, as they were told last.
    counted: BTreeMap<String, (u64, u64)>,
    /// When the app-server's last full window resets, in Unix seconds.
    resets_at: Option<u64>,
    unmatched: u64,
    leaving: Leaving,
    orphan_from: Option<Tick>,
}

impl Machine {
    /// A machine that knows nothing. `seed` makes whatever it draws reproducible; it draws nothing.
    pub fn new(seed: u64) -> Self {
        // Child ids begin behind the seed's low bits so that two incarnations in one log are told apart.
        let next_child = (seed & 0xffff) << 16;
        Self {
            configure: None,
            generation: 0,
            linked: false,
            isolation: Isolation::Untried,
            controllers: Controllers::default(),
            look_at: None,
            disk: Disk::default(),
            archive: Archive::default(),
            wall: None,
            now: Tick(0),
            turns: BTreeMap::new(),
            ended: BTreeMap::new(),
            children: BTreeMap::new(),
            next_child,
            session: None,
            counted: BTreeMap::new(),
            resets_at: None,
            unmatched: 0,
            leaving: Leaving::No,
            orphan_from: None,
        }
    }

    /// Takes one input at `now` and appends what follows from it, in the order in which it has to be performed.
    pub fn handle(&mut self, now: Tick, input: Input, effects: &mut Vec<Effect>) {
        self.now = now;
        match input {
            Input::Configured(configure) => self.configured(configure, effects),
            Input::Begin { begin, prompt, rollout_bytes, wall_ms } => {
                self.begin(now, &begin, prompt, rollout_bytes, wall_ms, effects);
            }
            Input::PromptLost { begin, why } => self.prompt_lost(now, &begin, &why, effects),
            Input::Steer { attempt, turn, text } => self.steer(now, attempt, turn, &text, effects),
            Input::Interrupt(attempt, reason) => self.interrupt(now, attempt, reason, effects),
            Input::Acked(attempt) => self.acked(attempt, effects),
            Input::Drain => self.drain(),
            Input::Terminate => self.terminate(now, effects),
            Input::LinkUp => self.link_up(now, effects),
            Input::LinkDown => {
                self.linked = false;
                self.archive.link_down();
            }
            Input::Spawned(..) => {}
            Input::SpawnFailed(child, why) => self.spawn_failed(now, child, why, effects),
            Input::Line(child, line) => self.line(now, child, &line, effects),
            Input::LineTooLong(child, bytes) => self.line_too_long(now, child, bytes, effects),
            Input::Exited(child, exit) => self.exited(now, child, &exit, effects),
            Input::RolloutRead(attempt, rollout) => self.rollout_read(now, attempt, &rollout, effects),
            Input::Looked(child, vitals) => self.looked(now, child, &vitals, effects),
            Input::Recovered(standings) => self.recovered(now, standings, effects),
            Input::DiskLooked(bytes) => self.disk_looked(now, bytes, effects),
            Input::OldFound(threads) => self.old_found(threads, effects),
            Input::Spared(threads) => self.spared(&threads),
            Input::Measured(sample) => self.measured(now, &sample, effects),
            Input::Timeout => self.timeout(now, effects),
        }
        self.pump(now, effects);
    }

    /// When [`Input::Timeout`] is due, and for what.
    pub fn deadline(&self) -> Option<(Tick, &'static str)> {
        let clocks = self.clocks();
        let turns = self.turns.values().flat_map(|turn| {
            let clock = turn.clock(&clocks).map(|(by, due)| (by, due.as_str()));
            let look = turn.look_by(&clocks).map(|by| (by, "look"));
            clock.into_iter().chain(look).chain(turn.show.deadline().map(|by| (by, "progress")))
        });
        let children = self.children.values().filter_map(|child| child.clock().map(|by| (by, "child")));
        let session = self.session.iter().flat_map(|session| session.deadlines(&clocks));
        let look = self.look_at.map(|at| (at, "look"));
        turns
            .chain(children)
            .chain(session)
            .chain(look)
            .chain(self.disk_deadline())
            .chain(self.archive_deadline())
            .chain(self.leave_deadline(&clocks))
            .min_by_key(|(by, _)| *by)
    }

    /// Whether an attempt is known: one that is known is not begun.
    pub fn knows(&self, attempt: AttemptId) -> bool {
        self.turns.contains_key(&attempt) || self.ended.contains_key(&attempt)
    }

    /// Sets the rung of containment that the driver found; told with every `Started` and `Ready` from then on.
    pub fn set_isolation(&mut self, isolation: Isolation) {
        self.isolation = isolation;
    }

    /// Sets what the kernel holds of the agent's limits; told with every `Ready` from then on.
    pub fn set_controllers(&mut self, controllers: Controllers) {
        self.controllers = controllers;
    }

    /// Sets the wall clock in Unix milliseconds and the offset of local time from UTC in seconds, by which reset
    /// times in prose ("try again at 2:45 AM") are read. The machine counts on from there; a call at each begin is
    /// enough. Before the first call such times stay unknown.
    pub fn set_local_time(&mut self, wall_ms: u64, utc_offset_s: i32) {
        self.wall = Some((self.now, Wall { ms: wall_ms, utc_offset_s }));
    }

    /// Attempts that run, for the beat.
    pub fn running(&self) -> u32 {
        u32::try_from(self.turns.len()).unwrap_or(u32::MAX)
    }

    /// Codex children that are alive, for the beat.
    pub fn children(&self) -> u32 {
        u32::try_from(self.children.len()).unwrap_or(u32::MAX)
    }

    /// How long the worker may be silent before it is replaced, in milliseconds: its beats have to fit.
    pub fn heartbeat_ms(&self) -> u64 {
        self.clocks().heartbeat_ms
    }

    /// Failures whose words no table names, counted since the start.
    pub fn unmatched(&self) -> u64 {
        self.unmatched
    }

    fn clocks(&self) -> Clocks {
        self.configure.as_ref().map_or(CLOCKS_UNCONFIGURED, |configure| configure.clocks)
    }

    fn timeout(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let clocks = self.clocks();
        self.look(now, effects);
        let attempts: Vec<AttemptId> = self.turns.keys().copied().collect();
        for attempt in attempts {
            let Some(turn) = self.turns.get_mut(&attempt) else {
                continue;
            };
            turn.show.flush(now, effects);
            if let Some((_, due)) = turn.clock(&clocks).filter(|(by, _)| *by <= now) {
                self.turn_overdue(now, attempt, due, &clocks, effects);
            }
        }
        self.session_timeout(now, effects);
        self.children_timeout(now, effects);
        self.look_if_due(now, effects);
    }

    /// Brings everything to where it belongs.
    fn pump(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        self.open_waiting(now, effects);
        self.keep_archive(now, effects);
        self.retire_session(now, effects);
        self.leave(now, effects);
        self.plan_look(now);
        self.keep_disk(now, effects);
    }
}

#[cfg(test)]
mod tests;
