//! What a worker's life makes of the news about its process and its session.

use super::{Act, Process, State, Then, Why};
use super::{DIALS_MAX, DIALS_PERIOD_MS, DRAIN_WITHIN_MS, Lifecycle, START_WITHIN_MS, SWEEP_AGAIN_MS};
use crate::machine::restart::Verdict;
use crate::machine::words::Linked;
use protocol::Incarnation;
use protocol::hello::Accord;

impl Lifecycle {
    pub(super) fn spawned(&mut self, incarnation: Incarnation, pid: u32) -> Vec<Act> {
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

    /// One that does not answer, and whose process is known: it is dialled again, and at last killed.
    pub(super) fn found(&mut self, now: u64, incarnation: Incarnation, pid: u32) -> Vec<Act> {
        let State::Adopting { by, process: None } = self.state else { return Vec::new() };
        let found = Process { incarnation, pid: Some(pid) };
        if self.wanted_dead {
            return self.kill_process(now, found, Why::Wish);
        }
        self.state = State::Adopting { process: Some(found), by };
        self.last = incarnation;
        self.dials = (0, now);
        Vec::new()
    }

    /// One that is not the worker of the record: nothing of it counts, and it must not live beside the next.
    pub(super) fn impostor(&mut self, now: u64, incarnation: Incarnation, pid: u32) -> Vec<Act> {
        match self.state {
            State::Adopting { process: None, .. } => {
                self.kill_process(now, Process { incarnation, pid: Some(pid) }, Why::Wish)
            }
            State::Adopting { process: Some(process), .. } | State::Starting { process, .. }
                if process.incarnation == incarnation =>
            {
                self.lose(now, process)
            }
            State::Adopting { .. }
            | State::Starting { .. }
            | State::Up { .. }
            | State::Draining { .. }
            | State::Down
            | State::Sweeping { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Backoff { .. }
            | State::Failed => Vec::new(),
        }
    }

    pub(super) fn linked(&mut self, now: u64, linked: &Linked) -> Vec<Act> {
        let found = Process { incarnation: linked.incarnation, pid: Some(linked.pid) };
        match self.state {
            State::Adopting { by, process } if process.is_none_or(|process| process == found) => {
                self.state = State::Adopting { process: Some(found), by };
                self.last = linked.incarnation;
                self.accord = linked.accord;
                if process.is_none() {
                    self.dials = (0, now);
                }
                if self.wanted_dead {
                    self.kill_process(now, found, Why::Wish)
                } else if linked.accord == Accord::DrainOnly {
                    self.drain(found, now + self.grace.unwrap_or(DRAIN_WITHIN_MS))
                } else if self.wanted_up {
                    Vec::new()
                } else {
                    self.stop(now, self.grace)
                }
            }
            // The drain may have been lost with the session before.
            State::Draining { process, .. } if process.incarnation == linked.incarnation => vec![Act::Drain],
            State::Adopting { .. }
            | State::Draining { .. }
            | State::Up { .. }
            | State::Starting { .. }
            | State::Down
            | State::Sweeping { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Backoff { .. }
            | State::Failed => Vec::new(),
        }
    }

    pub(super) fn link_failed(&mut self, now: u64, incarnation: Incarnation) -> Vec<Act> {
        match self.state {
            State::Adopting { process: None, .. } if incarnation.0 == 0 => self.sweep(now, self.last, Then::Spawn),
            State::Starting { process, .. } if process.incarnation == incarnation => {
                self.kill_process(now, process, Why::Loss { ready_ms: None })
            }
            State::Adopting { .. }
            | State::Starting { .. }
            | State::Up { .. }
            | State::Draining { .. }
            | State::Down
            | State::Sweeping { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Backoff { .. }
            | State::Failed => self.link_lost(now, incarnation),
        }
    }

    pub(super) fn link_lost(&mut self, now: u64, incarnation: Incarnation) -> Vec<Act> {
        if !self.is_present(incarnation) {
            return Vec::new();
        }
        match self.state {
            State::Adopting { process: Some(process), .. }
            | State::Starting { process, .. }
            | State::Up { process, .. }
            | State::Draining { process, .. } => self.redial(now, process),
            State::Adopting { process: None, .. }
            | State::Down
            | State::Sweeping { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Backoff { .. }
            | State::Failed => Vec::new(),
        }
    }

    fn redial(&mut self, now: u64, process: Process) -> Vec<Act> {
        let (count, at) = self.dials;
        let count = if now.saturating_sub(at) > DIALS_PERIOD_MS { 0 } else { count };
        if count < DIALS_MAX {
            self.dials = (count + 1, now);
            return vec![Act::Dial(process.incarnation)];
        }
        match self.state {
            State::Draining { .. } => self.terminate(now, process),
            State::Adopting { .. }
            | State::Starting { .. }
            | State::Up { .. }
            | State::Down
            | State::Sweeping { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Backoff { .. }
            | State::Failed => self.lose(now, process),
        }
    }

    pub(super) fn ready(&mut self, now: u64, incarnation: Incarnation) -> Vec<Act> {
        if !self.is_present(incarnation) {
            return Vec::new();
        }
        match self.state {
            State::Adopting { process: Some(_), .. } if !self.wanted_up => self.stop(now, self.grace),
            State::Starting { process, .. } | State::Adopting { process: Some(process), .. } => {
                self.state = State::Up { process, since: now };
                vec![Act::Up]
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

    pub(super) fn ended(&mut self, now: u64, incarnation: Incarnation, jitter: u64) -> Vec<Act> {
        if !self.is_present(incarnation) {
            return Vec::new();
        }
        let then = match self.state {
            _ if !self.wanted_up => Then::Spawn,
            State::Up { since, .. } => self.after_loss(now, Some(now.saturating_sub(since)), jitter),
            State::Starting { .. } | State::Adopting { .. } => self.after_loss(now, None, jitter),
            State::Killing { why: Why::Loss { ready_ms }, .. } => self.after_loss(now, ready_ms, jitter),
            State::Killing { why: Why::Wish, .. }
            | State::Draining { .. }
            | State::Stopping { .. }
            | State::Down
            | State::Sweeping { .. }
            | State::Backoff { .. }
            | State::Failed => Then::Spawn,
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

    pub(super) fn swept(&mut self, now: u64, incarnation: Incarnation, left: u32, fresh: Incarnation) -> Vec<Act> {
        let State::Sweeping { incarnation: present, then, .. } = self.state else { return Vec::new() };
        if present != incarnation {
            return Vec::new();
        }
        if left > 0 {
            // Whoever is left holds the agent: nothing may be started beside it.
            self.state = State::Sweeping { incarnation, by: now + SWEEP_AGAIN_MS, then, left };
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
        self.accord = Accord::Full;
        self.dials = (0, now);
        let process = Process { incarnation: fresh, pid: None };
        self.state = State::Starting { process, by: now + START_WITHIN_MS };
        vec![Act::Spawn(fresh)]
    }

    /// It finishes what it has and goes; it is told to drain in case that it did not mean it.
    pub(super) fn leaving(&mut self, now: u64, incarnation: Incarnation) -> Vec<Act> {
        match self.state {
            State::Up { process, .. } if process.incarnation == incarnation => {
                self.drain(process, now + DRAIN_WITHIN_MS)
            }
            State::Up { .. }
            | State::Starting { .. }
            | State::Adopting { .. }
            | State::Draining { .. }
            | State::Down
            | State::Sweeping { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Backoff { .. }
            | State::Failed => Vec::new(),
        }
    }

    pub(super) fn wedged(&mut self, now: u64) -> Vec<Act> {
        match self.process() {
            Some(process) if !matches!(self.state, State::Killing { .. }) => self.lose(now, process),
            Some(_) | None => Vec::new(),
        }
    }

    /// Kills a process that is not wanted to end: its end counts as a loss and it is replaced.
    pub(super) fn lose(&mut self, now: u64, process: Process) -> Vec<Act> {
        let ready_ms = if let State::Up { since, .. } = self.state { Some(now.saturating_sub(since)) } else { None };
        self.kill_process(now, process, Why::Loss { ready_ms })
    }
}
