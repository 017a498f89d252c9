//! The simulation: the supervisor's machine and the workers' machines, joined by real frames, in virtual time.
//!
//! ```text
//!   outside.rs  chats, callers          codex.rs, script.rs  threads, turns, tools
//!        |                                    | lines
//!   host.rs     the daemon's loop       serve.rs  the driver's loop      (one a worker)
//!        |  supervisor::machine               |  worker::machine
//!        '------ link.rs: frames as bytes, cut, late, lost ------'
//!   ledger.rs commits batches           disk.rs  journal in its bytes, rollouts
//!
//!   world.rs  what happens next      faults.rs  what goes wrong      truth.rs  what must hold after each step
//!   end.rs    how a run ends         cover.rs   what was reached     dice.rs   chance, by seed
//! ```
//! No process, no clock, no file: a seed reproduces a run to the byte.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::struct_excessive_bools,
    clippy::missing_panics_doc,
    reason = "a broken promise ends the run; variants that are to come need not be known here; facts are independent"
)]

mod codex;
mod cover;
mod dice;
mod disk;
mod end;
mod faults;
mod host;
#[expect(unreachable_pub, reason = "the file is shared with the tests of the supervisor's machine")]
#[path = "../../supervisor/src/machine/tests/ledger.rs"]
mod ledger;
mod link;
mod outside;
mod script;
mod serve;
mod setup;
mod truth;
mod world;

pub use cover::Cover;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use world::World;

/// Steps of chaos of a run; what follows ends by itself.
const STEPS: u64 = 700;

/// A run that kept every promise.
#[derive(Debug)]
pub struct Run {
    /// What it reached.
    pub cover: Cover,
    /// Of everything that happened, in order: equal runs have equal ones.
    pub hash: u64,
    /// Turns that were accepted.
    pub turns: usize,
    /// Virtual time that passed, in milliseconds.
    pub ms: u64,
}

/// Runs one seed.
///
/// # Errors
/// What was broken, with the last steps before it.
pub fn run(seed: u64) -> Result<Run, String> {
    simulate(seed, false).map_err(|(why, _)| {
        let (again, story) =
            simulate(seed, true).map_or_else(|told| told, |_| ("not when run again".into(), String::new()));
        format!("seed {seed}: {why}\n(told: {again})\n{story}")
    })
}

fn simulate(seed: u64, told: bool) -> Result<Run, (String, String)> {
    let mut world = World::new(seed, told);
    let ran = catch_unwind(AssertUnwindSafe(|| world.run(STEPS)));
    match ran {
        Ok(()) => Ok(Run { turns: world.ledger.turns.len(), ms: world.tick, hash: world.hash, cover: world.cover }),
        Err(panic) => {
            let why = panic.downcast_ref::<String>().cloned();
            let why = why.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let story = world.story.into_iter().flatten().collect::<Vec<_>>().join("\n");
            Err((why.unwrap_or_else(|| "a panic without words".into()), story))
        }
    }
}

/// Runs that are given up after so many broken seeds.
const BROKEN_MAX: usize = 3;

/// Many runs.
#[derive(Debug, Default)]
pub struct Runs {
    /// What they reached together.
    pub cover: Cover,
    /// Runs that kept every promise.
    pub seeds: u64,
    /// Turns that were accepted in them.
    pub turns: usize,
    /// Virtual time that passed in them, in milliseconds.
    pub ms: u64,
    /// The stories of the others, a few.
    pub broken: Vec<String>,
}

impl Runs {
    fn add(&mut self, other: Self) {
        self.cover.add(&other.cover);
        (self.seeds, self.turns) = (self.seeds + other.seeds, self.turns + other.turns);
        self.ms += other.ms;
        self.broken.extend(other.broken);
    }

    /// The tables and the sums.
    pub fn table(&self) -> String {
        let hours = self.ms / 3_600_000;
        format!("{} seeds, {} turns, {hours} virtual hours\n{}", self.seeds, self.turns, self.cover.table())
    }
}

/// Runs the seeds from `from` on, on so many threads.
pub fn many(from: u64, count: u64, threads: usize) -> Runs {
    let next = AtomicU64::new(from);
    let work = || {
        let mut runs = Runs::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count || runs.broken.len() >= BROKEN_MAX {
                return runs;
            }
            match run(seed) {
                Ok(run) => {
                    runs.cover.add(&run.cover);
                    (runs.seeds, runs.turns, runs.ms) = (runs.seeds + 1, runs.turns + run.turns, runs.ms + run.ms);
                }
                Err(why) => runs.broken.push(why),
            }
        }
    };
    let mut all = Runs::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in running {
            all.add(thread.join().expect("a shard that catches its panics"));
        }
    });
    all
}
