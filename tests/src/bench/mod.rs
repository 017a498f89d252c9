//! The benchmarks: what `DESIGN` promises in figures, measured on this machine, in one table.
//!
//! ```text
//!   bin/bench.rs --> budgets: idle.rs life.rs machine.rs control.rs turns.rs flood.rs --+--> table.rs
//!               |--> disturb.rs ------------------------------------------- -|
//!               `--> peers/: other supervisors on the same work --------------'
//!   each measure has a world of its own (../world.rs): release binaries, the model stand-in in this process, and the
//!   real Codex, or fake.rs where our own share alone is wanted; bare.rs is Codex without us, for the ratio
//! ```
//! Every latency is taken from outside, at the control socket or at the process, never from our own words. A measure
//! that fails is a row that says why; the others go on.

mod ask;
mod bare;
mod clock;
mod control;
mod disturb;
pub mod fake;
mod flood;
mod host;
mod idle;
mod life;
mod machine;
mod peers;
mod table;
mod turns;

use crate::world::{Binaries, Builder, World};
use ask::Asker;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use supervisor::control::ClientError;
use table::Table;

/// Which benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Each figure that has a budget.
    Budgets,
    /// What others feel while one agent misbehaves.
    Disturb,
    /// Both.
    All,
    /// Cofferdam beside other supervisors.
    Peers,
}

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which benchmarks.
    pub which: Which,
    /// Idle agents in the largest world; none: that measure is left out. With [`Which::Peers`]: children of each.
    pub agents: Option<usize>,
    /// A tenth of the rounds.
    pub quick: bool,
    /// Only measures with this in their name.
    pub only: Option<String>,
    /// What is measured.
    pub binaries: Binaries,
}

/// Why a measure did not come to its end.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fault(String);

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        Self(error.to_string())
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// One measure: its name, and how it is taken.
type Measure = (&'static str, fn(&Plan, &mut Table) -> Result<(), Fault>);

/// The figures with a budget.
const BUDGETS: &[Measure] = &[
    ("idle agents", idle::fifty),
    ("eleven agents", idle::eleven),
    ("spawn", life::spawn),
    ("start", life::start),
    ("killed worker", life::killed_worker),
    ("kill", life::kill),
    ("killed supervisor", life::killed_supervisor),
    ("inputs", machine::inputs),
    ("health", control::health),
    ("command", control::command),
    ("share", turns::share),
    ("exec", turns::exec),
    ("warm", turns::warm),
    ("eight", turns::eight),
    ("flood", flood::flood),
];

/// Measures what `plan` says and prints the table. Whether every budget was kept.
pub fn run(plan: &Plan) -> bool {
    let mut table = Table::begin();
    let mut all: Vec<Measure> = Vec::new();
    if matches!(plan.which, Which::Budgets | Which::All) {
        all.extend_from_slice(BUDGETS);
        if plan.agents.is_some() {
            all.push(("many", idle::many));
        }
    }
    if matches!(plan.which, Which::Disturb | Which::All) {
        all.push(("disturb", disturb::disturb));
    }
    if plan.which == Which::Peers {
        all.push(("peers", peers::peers));
    }
    for (name, measure) in all {
        if plan.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        match catch_unwind(AssertUnwindSafe(|| measure(plan, &mut table))) {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => table.failed(name, &fault.to_string()),
            Err(_) => table.failed(name, "it panicked, see above"),
        }
    }
    table.end()
}

impl Plan {
    /// `count` rounds, or a tenth of them.
    fn rounds(&self, count: usize) -> usize {
        if self.quick { count.div_ceil(10) } else { count }
    }

    /// A world with the real Codex.
    fn world(&self) -> Builder {
        World::builder(self.binaries.clone())
    }
}

/// Starts a world and waits until its agents are ready.
fn started(builder: Builder, agents: u32) -> Result<(World, Asker), Fault> {
    let mut world = builder.build();
    world.run();
    let asker = Asker::new(world.socket());
    asker.until_ready(agents)?;
    Ok((world, asker))
}

/// Adds agents `a0`, `a1`, .. with the same lines.
fn agents(builder: Builder, count: usize, lines: &str) -> Builder {
    (0..count).fold(builder, |builder, index| builder.agent(&agent(index), lines))
}

/// The name of an agent of [`agents`].
fn agent(index: usize) -> String {
    format!("a{index}")
}

/// Where the binaries of the same build lie: beside the running one.
pub fn beside(program: &str) -> Option<PathBuf> {
    let found = std::env::current_exe().ok()?.parent().unwrap_or(Path::new("/")).join(program);
    found.is_file().then_some(found)
}
