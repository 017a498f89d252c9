//! A supervisor that is stopped, or starved: what reaches it waits, and it tells its machine how late it came round.
//!
//! Its workers go on meanwhile, and what they have said lies in its sockets. It takes that up in its order, a few
//! milliseconds for each, while its own clock may run out in between: a timeout may come before the words behind it.

use super::Word;
use crate::sim::link::Side;
use crate::sim::world::{Event, World};
use std::collections::VecDeque;
use supervisor::machine::words::Input;

/// How often the loop comes round at least, and from which lateness on its machine is told. Milliseconds.
const PULSE_MS: u64 = 1_000;

/// How the loop comes round.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Stopped since this tick.
    stopped: Option<u64>,
    /// So late, and the machine does not know it.
    late_ms: u64,
    backlog: VecDeque<Event>,
}

impl Pulse {
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    pub(super) fn is_behind(&self) -> bool {
        self.is_stopped() || !self.backlog.is_empty()
    }
}

/// Whether an event meets the supervisor's process.
fn is_of_host(event: &Event) -> bool {
    match event {
        Event::Bytes(_, side, _) | Event::Closed(_, side) => *side == Side::Host,
        Event::Commit(_)
        | Event::Word(..)
        | Event::HelloLimit(_)
        | Event::Born(..)
        | Event::Listens(..)
        | Event::Delivered(..)
        | Event::Update(_) => true,
        Event::Boot
        | Event::Proc(..)
        | Event::Continue(..)
        | Event::HostContinue(_)
        | Event::CatchUp(_)
        | Event::Codex(..)
        | Event::Dies(..)
        | Event::Mischief => false,
    }
}

impl World {
    /// The event, unless it has to wait for the supervisor.
    pub(crate) fn for_now(&mut self, event: Event) -> Option<Event> {
        let pulse = &mut self.host.pulse;
        if pulse.is_behind() && is_of_host(&event) {
            pulse.backlog.push_back(event);
            return None;
        }
        Some(event)
    }

    /// The input, unless the supervisor is stopped. Of a lag the machine hears before what came late.
    pub(super) fn on_time(&mut self, input: Input) -> Option<Input> {
        if self.host.is_stopped() {
            let word = Event::Word(self.host.life, Box::new(Word::Input(input)));
            self.host.pulse.backlog.push_back(word);
            return None;
        }
        let late_ms = std::mem::take(&mut self.host.pulse.late_ms);
        if late_ms >= PULSE_MS {
            self.give(Input::Lagged(late_ms));
        }
        self.host.machine.is_some().then_some(input)
    }

    /// Its process is stopped for a while.
    pub(crate) fn stop_host(&mut self, ms: u64) {
        self.note("stop supervisor", ms, String::new);
        self.host.pulse.stopped = Some(self.tick);
        self.later(ms, Event::HostContinue(self.host.life));
    }

    /// It goes on.
    pub(crate) fn host_goes_on(&mut self, life: u64) {
        if life != self.host.life {
            return;
        }
        let Some(since) = self.host.pulse.stopped.take() else { return };
        self.late(self.tick - since);
        self.later(0, Event::CatchUp(life));
    }

    /// So much time has passed for everybody, and the loop's next round was due within a second of its beginning.
    pub(crate) fn late(&mut self, ms: u64) {
        let late_ms = ms.saturating_sub(self.dice.roll(PULSE_MS));
        self.host.pulse.late_ms = self.host.pulse.late_ms.max(late_ms);
    }

    /// Takes up the next of what waited.
    pub(crate) fn catch_up(&mut self, life: u64) {
        if life != self.host.life || self.host.is_stopped() {
            return;
        }
        if let Some(event) = self.host.pulse.backlog.pop_front() {
            self.comes_about(event);
            let pause = self.dice.roll(3);
            self.later(pause, Event::CatchUp(life));
        }
    }
}
