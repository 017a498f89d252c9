//! Hurts the victim, proves it, and helps it up again.
//!
//! ```text
//!   run: what it takes to begin --> Gate in force --> a look every 200 ms until the gate ends --> proof
//!   recover: nothing hurts any more --> started if it gave up --> its next answer
//! ```
//! A stopped worker is resumed whatever happens to this thread: [`Stopped`] does it when it is dropped.

use super::fleet::{Fleet, LOOK};
use super::host;
use super::model::{MARK, Model, Play};
use super::plan::{FLOOD_BYTES, Kind, VICTIM_MEMORY_BYTES};
use super::report::Proof;
use crate::cli::clock::Watch;
use crate::cli::exit::{Exit, Failure};
use crate::cli::screen::bytes;
use crate::process::adopt;
use crate::process::signal::Handle;
use protocol::control::{AgentRow, AgentState};
use protocol::{AgentName, Incarnation};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Between two looks at the victim.
const EVERY_S: f64 = 0.2;
/// From the wish to the harm, in seconds: a compaction takes two turns, a killed Codex must start again.
pub(super) const FORCE_WITHIN_S: f64 = 60.0;
/// How long a victim may take to recover, in seconds. The pause between restarts is 30 s at the most.
const RECOVER_WITHIN_S: f64 = 60.0;
/// How long one turn of it is waited for meanwhile.
const TURN_WITHIN: Duration = Duration::from_secs(45);
/// The flood has begun once so many bytes have been read: a Codex at rest reads next to nothing.
const FLOOD_BEGUN_BYTES: u64 = 1 << 20;
/// How much longer than its phase a flood may take to its 100 MB, in seconds.
const FLOOD_LATE_S: f64 = 30.0;
/// A fork bomb that brought fewer processes than these was none.
const FORKS_MIN: u32 = 64;
/// Turns that are begun anew because memory ended the one before, at the most.
const HOGS_MAX: u32 = 20;

/// Where the harm stands.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicU8);

impl Gate {
    const IN_FORCE: u8 = 1;
    const ENDED: u8 = 2;

    fn in_force(&self) {
        // An end that was wanted meanwhile stays one.
        self.0.fetch_max(Self::IN_FORCE, Ordering::Relaxed);
    }

    pub(super) fn is_in_force(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::IN_FORCE
    }

    pub(super) fn end(&self) {
        self.0.store(Self::ENDED, Ordering::Relaxed);
    }

    fn is_ended(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::ENDED
    }
}

/// Somebody who is to be hurt, and how.
#[derive(Debug)]
pub(super) struct Hurt<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) model: &'a Model,
    pub(super) victim: &'a AgentName,
    pub(super) kind: Kind,
    /// A throw-away agent: its model plays along.
    pub(super) guest: bool,
    pub(super) seconds: u64,
    /// Its conversation; a name of this drill alone.
    pub(super) talk: String,
}

impl Hurt<'_> {
    /// Hurts until the gate ends. What it found is its proof.
    pub(super) fn run(&self, gate: &Gate) -> Result<Proof, Failure> {
        match self.kind {
            Kind::Stall => self.stall(gate),
            Kind::Compact => self.compact(gate),
            Kind::Stop => self.stop(gate),
            Kind::Kill => self.kill(gate),
            Kind::Flood => self.flood(gate),
            Kind::Oom => self.oom(gate),
            Kind::Forks => self.forks(gate),
        }
    }

    fn say(&self, words: &str) -> Result<(), Failure> {
        self.fleet.send(self.victim, &self.talk, &format!("{MARK} {words}"))
    }

    /// Looks until the gate ends.
    fn look(&self, gate: &Gate, mut each: impl FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
        while !gate.is_ended() && !self.fleet.flags.is_over() {
            each()?;
            let watch = Watch::start();
            while watch.seconds() < EVERY_S && !gate.is_ended() && self.fleet.pause(LOOK.as_secs_f64()) {}
        }
        Ok(())
    }

    fn row(&self) -> Result<AgentRow, Failure> {
        self.fleet.row(self.victim)
    }

    fn worker(&self) -> Result<Option<Handle>, Failure> {
        let row = self.row()?;
        let (Some(pid), Some(run)) = (row.pid, row.incarnation) else { return Ok(None) };
        // It may have gone since: there is another look.
        Ok(adopt::adopt(pid, self.victim, Incarnation(run)).ok())
    }

    /// Waits until a request of the victim is held.
    fn until_held(&self, before: usize) -> Result<(), Failure> {
        let watch = Watch::start();
        while self.model.held().1 == before {
            if watch.seconds() > FORCE_WITHIN_S || !self.fleet.pause(LOOK.as_secs_f64()) {
                return Err(Failure::new(Exit::Failed, format!("{}: no request came to be held", self.kind.as_str())));
            }
        }
        Ok(())
    }

    fn held_throughout(&self, gate: &Gate, what: &str) -> Result<Proof, Failure> {
        let first = self.model.held();
        let (mut looks, mut held) = (0, 0);
        self.look(gate, || {
            looks += 1;
            held += u32::from(self.model.held().0 > 0);
            Ok(())
        })?;
        let same = self.model.held() == first;
        let words = format!("{what} without an answer at {held} of {looks} looks, the same one throughout: {same}");
        Ok(Proof { harmed: looks > 0 && held == looks, words })
    }

    fn stall(&self, gate: &Gate) -> Result<Proof, Failure> {
        self.hang()?;
        gate.in_force();
        self.held_throughout(gate, "a request to the model is open")
    }

    fn hang(&self) -> Result<(), Failure> {
        let before = self.model.held().1;
        self.model.play(Play::Hang);
        self.say("hang")?;
        self.until_held(before)
    }

    fn compact(&self, gate: &Gate) -> Result<Proof, Failure> {
        let before = self.model.held().1;
        self.model.play(Play::Fill);
        let full = self.fleet.answer(self.victim, &self.talk, &format!("{MARK} fill"), TURN_WITHIN)?;
        if full.outcome != "completed" {
            return Err(Failure::new(
                Exit::Failed,
                format!("compact: the thread was not filled: {}", full.text.head()),
            ));
        }
        self.model.play(Play::HoldCompaction);
        self.say("go on")?;
        self.until_held(before)?;
        gate.in_force();
        self.held_throughout(gate, "the request for a summary is open")
    }

    fn stop(&self, gate: &Gate) -> Result<Proof, Failure> {
        if self.guest {
            self.hang()?;
        }
        let mut stopped: Option<Stopped> = None;
        let (mut looks, mut seen, mut stops) = (0, 0, 0);
        self.look(gate, || {
            let worker = self.worker()?;
            looks += 1;
            let pid = worker.as_ref().map(Handle::pid);
            if pid.is_some() && pid == stopped.as_ref().map(|stopped| stopped.0.pid()) {
                seen += u32::from(pid.and_then(host::state) == Some('T'));
            } else if let Some(worker) = worker {
                // The first one, or its replacement.
                stopped = Stopped::stop(worker);
                stops += u32::from(stopped.is_some());
                gate.in_force();
            }
            Ok(())
        })?;
        drop(stopped);
        let words = format!("{stops} worker(s) stopped; state T at {seen} of {looks} looks");
        Ok(Proof { harmed: seen > 0, words })
    }

    fn kill(&self, gate: &Gate) -> Result<Proof, Failure> {
        let mut killed = BTreeSet::new();
        self.look(gate, || {
            let row = self.row()?;
            if matches!(row.state, AgentState::Ready | AgentState::Busy)
                && let Some(worker) = self.worker()?
                && worker.kill().is_ok_and(|sent| sent)
            {
                killed.insert(worker.pid());
                gate.in_force();
            }
            Ok(())
        })?;
        let row = self.row()?;
        let words = format!(
            "{} worker(s) killed, {} restart(s) so far, then {}",
            killed.len(),
            row.restarts,
            row.state.as_str()
        );
        Ok(Proof { harmed: !killed.is_empty(), words })
    }

    fn flood(&self, gate: &Gate) -> Result<Proof, Failure> {
        let command = self.kind.command(self.seconds).unwrap_or_default();
        self.model.play(Play::Loop(command));
        let mut read: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        let mut count = || -> Result<u64, Failure> {
            for pid in self.row()?.pid.map(host::tree).unwrap_or_default() {
                let bytes = host::bytes_read(pid);
                let seen = read.entry(pid).or_insert((bytes, bytes));
                seen.1 = seen.1.max(bytes);
            }
            Ok(read.values().map(|(first, last)| last - first).sum())
        };
        count()?;
        self.say("flood")?;
        let mut total = 0;
        self.look(gate, || {
            total = count()?;
            if total >= FLOOD_BEGUN_BYTES {
                gate.in_force();
            }
            Ok(())
        })?;
        // A slow host needs longer to print what the budget speaks of.
        let late = Watch::start();
        while total < FLOOD_BYTES && late.seconds() < FLOOD_LATE_S && self.fleet.pause(EVERY_S) {
            total = count()?;
        }
        let words = format!("{} read by its processes, as far as they were seen", bytes(total));
        Ok(Proof { harmed: total >= FLOOD_BYTES, words })
    }

    fn oom(&self, gate: &Gate) -> Result<Proof, Failure> {
        self.model.play(Play::Loop(self.kind.command(self.seconds).unwrap_or_default()));
        self.say("take memory")?;
        gate.in_force();
        let (mut most, mut ends, mut turns) = (0, BTreeMap::<String, u32>::new(), 1);
        self.look(gate, || {
            let row = self.row()?;
            most = most.max(row.rss_bytes);
            if row.running == 0 && row.queued == 0 && turns <= HOGS_MAX {
                let class = row.last_error.map_or_else(|| "no error".to_owned(), |error| error.class);
                *ends.entry(class).or_default() += 1;
                turns += 1;
                // Refused while it restarts: there is another look.
                drop(self.say("take memory"));
            }
            Ok(())
        })?;
        let ends: Vec<String> = ends.into_iter().map(|(class, count)| format!("{class} x{count}")).collect();
        let ended = if ends.is_empty() { "its turn was not ended".to_owned() } else { ends.join(", ") };
        let limit = bytes(VICTIM_MEMORY_BYTES);
        let words = format!("{} resident at the most, of {limit} that it may have; {ended}", bytes(most));
        Ok(Proof { harmed: most >= VICTIM_MEMORY_BYTES / 2, words })
    }

    fn forks(&self, gate: &Gate) -> Result<Proof, Failure> {
        self.model.play(Play::Once(self.kind.command(self.seconds).unwrap_or_default()));
        self.say("fork")?;
        let mut most = 0;
        self.look(gate, || {
            most = most.max(self.row()?.processes);
            if most >= FORKS_MIN {
                gate.in_force();
            }
            Ok(())
        })?;
        Ok(Proof { harmed: most >= FORKS_MIN, words: format!("{most} processes at the most") })
    }

    /// Helps the victim up; how long that took in seconds, or `None`: it did not get up.
    pub(super) fn recover(&self) -> Option<f64> {
        let watch = Watch::start();
        self.model.play(Play::Echo);
        if self.guest && self.kind.needs_model() {
            // Refused if it runs nothing, and then there is nothing to interrupt.
            drop(self.fleet.interrupt(self.victim));
        }
        let mut tries = 0;
        while watch.seconds() < RECOVER_WITHIN_S && !self.fleet.flags.is_over() {
            tries += 1;
            if self.is_well(tries) {
                return Some(watch.seconds());
            }
            self.fleet.pause(LOOK.as_secs_f64());
        }
        None
    }

    fn is_well(&self, tries: u32) -> bool {
        let Ok(row) = self.row() else { return false };
        if matches!(row.state, AgentState::Failed | AgentState::Down) {
            // It says itself whether it came up.
            drop(self.fleet.start(self.victim));
            return false;
        }
        if !self.guest {
            return matches!(row.state, AgentState::Ready | AgentState::Busy);
        }
        let talk = format!("{} well {tries}", self.talk);
        self.fleet.answer(self.victim, &talk, "hello", TURN_WITHIN).is_ok_and(|end| end.outcome == "completed")
    }
}

/// A worker that does not move; dropped, it goes on.
#[derive(Debug)]
struct Stopped(Handle);

impl Stopped {
    fn stop(worker: Handle) -> Option<Self> {
        worker.stop().is_ok_and(|sent| sent).then_some(Self(worker))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It has gone: then it needs nothing.
        drop(self.0.resume());
    }
}
