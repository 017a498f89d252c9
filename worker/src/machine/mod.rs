//! Decides. Pure: no clock, no I/O.

pub mod io;

use io::{Effect, Input, Tick};
use protocol::from_worker::Isolation;

/// The worker's decisions: attempts, Codex children, the conversation with the supervisor.
#[derive(Debug)]
pub struct Machine {
    isolation: Isolation,
}

impl Machine {
    /// A machine that knows nothing. `seed` makes whatever it draws reproducible.
    pub fn new(seed: u64) -> Self {
        let _ = seed;
        Self { isolation: Isolation::Untried }
    }

    /// Takes one input at `now` and appends what follows from it, in the order in which it has to be performed.
    pub fn handle(&mut self, now: Tick, input: Input, effects: &mut Vec<Effect>) {
        let _ = (now, input, effects);
    }

    /// When [`Input::Timeout`] is due, and for what.
    pub fn deadline(&self) -> Option<(Tick, &'static str)> {
        None
    }

    /// Sets the rung of containment that the driver found; told with every `Started` and `Ready` from then on.
    pub fn set_isolation(&mut self, isolation: Isolation) {
        self.isolation = isolation;
    }

    /// Sets the wall clock in Unix milliseconds and the offset of local time from UTC in seconds, by which reset
    /// times in prose ("try again at 2:45 AM") are read. Call it with every child's line batch or at least every
    /// minute; before the first call such times stay unknown.
    pub fn set_local_time(&mut self, wall_ms: u64, utc_offset_s: i32) {
        let _ = (wall_ms, utc_offset_s);
    }

    /// Attempts that run, for the beat.
    pub fn running(&self) -> u32 {
        0
    }

    /// Codex children that are alive, for the beat.
    pub fn children(&self) -> u32 {
        0
    }
}
